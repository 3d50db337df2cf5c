/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Another backend for a connection that its own does not answer. A client sends its SYN again,
 * after a second at first (RFC 6298); where the flow has been silent for SYN_RETRY_NS by then, the
 * backend is given up. Sooner it is a duplicate, and keeps the backend.
 *
 * The one that was given up may answer all the same, late. Its SYN-ACK would make the client
 * believe in sequence numbers of which the new backend knows nothing, so it must not get through.
 * On a VIP, and where the task is on the entry node, its reply entry stays as a tombstone: what
 * comes by it is dropped, and it gives way to any flow that wants the 4-tuple. Through the tunnel
 * each attempt has a number, which the backend node gives back with its answers, and the entry node
 * drops those of an earlier one. For that, what answers a SYN goes through the tunnel with
 * RETURN_DSR as well.
 *
 * A reset that answers a SYN may be that of a task which does not listen yet, or whose process has
 * just died. While others are ready the client does not hear it: its next SYN goes to one of them,
 * and whatever that says is heard. So a port that is refused for good costs a client one
 * retransmission, and that only until its task has ever accepted something on another one, or has
 * been refusing for START_NS. For datagrams see ending.h.
 */
#ifndef EBPFMESH_RETRY_H
#define EBPFMESH_RETRY_H

#include "claim.h"
#include "health.h"
#include "maglev.h"

static __always_inline __u8 attempt_of(__u16 flags)
{
	return flags >> 12;
}

static __always_inline __u16 attempt_flags(__u8 attempt)
{
	return (attempt & 15) << 12;
}

/* 0 is that of a flow which still has its first backend. */
static __always_inline __u8 next_attempt(__u8 attempt)
{
	return attempt < 15 ? attempt + 1 : 1;
}

/* A SYN that comes again: whether what is known of its flow says that nobody has answered. */
static __always_inline bool is_unheard(const struct packet *p, __u16 flags, __u64 seen_ns)
{
	__u16 heard = FLOW_ANSWERED | FLOW_ESTABLISHED | FLOW_DIRECT | FLOW_FIN_CLIENT |
		      FLOW_FIN_SERVER | FLOW_RST;

	return is_tcp_syn(p) && !(flags & heard) &&
	       bpf_ktime_get_coarse_ns() - seen_ns >= SYN_RETRY_NS;
}

/* Each attempt looks from another slot on. */
static __always_inline __u32 retry_hash(const struct packet *p, __u32 silent)
{
	return silent ? bpf_get_prandom_u32() : flow_hash(p);
}

/* What may answer a SYN. */
static __always_inline bool answers_syn(const struct packet *p)
{
	return p->protocol == IPPROTO_TCP && p->tcp_flags & (TCP_SYN | TCP_RST);
}

/* Takes the flow under key away from its backend, and leaves a tombstone in the way of its answers.
 */
static __always_inline void flow_abandon(struct flow_key *key)
{
	struct flow *old = flow_find(key), *reply;
	struct tuple back = reversed(&key->t);
	struct flow_key twin;

	if (!old)
		return;
	twin = twin_key(key, &old->to);
	reply = transient_replies.lookup(&twin);
	if (reply && same_tuple(&reply->to, &back)) {
		reply->flags |= FLOW_ABANDONED | FLOW_RST;
		flow_changed(&twin);
	}
	flow_delete(key);
}

/* The answer of a backend that was given up. */
static __always_inline int drop_late(const struct packet *p, const struct flow *reply)
{
	if (is_syn_ack(p))
		health_accepted(reply->backend, health_bit(p->protocol, p->t.sport));
	return leave(DROP_late_answer, TC_ACT_SHOT);
}

/* Whether the pool has another backend for new flows. */
static __always_inline bool has_others(__u32 id)
{
	struct backend *backend = backends.lookup(&id);
	struct pool *pool;
	__u32 ready;

	if (!backend)
		return false;
	ready = backend->state == BACKEND_READY;
	id = backend->pool;
	pool = pools.lookup(&id);
	return pool && pool->ready > ready;
}

/* A reset that the client shall not hear. One that answers a SYN has an ACK, for there was none to
 * take a sequence number from (RFC 9293, 3.10.7.1).
 */
static __always_inline bool is_early_refusal(const struct packet *p, const struct flow *reply)
{
	__u16 not = FLOW_ANSWERED | FLOW_ESTABLISHED | FLOW_DIRECT | FLOW_VIA_KERNEL |
		    FLOW_FIN_CLIENT | FLOW_RST | FLOW_ATTEMPT;

	if (p->protocol != IPPROTO_TCP || reply->flags & not ||
	    (p->tcp_flags & (TCP_RST | TCP_ACK)) != (TCP_RST | TCP_ACK))
		return false;
	return has_others(reply->backend) &&
	       is_between(reply->backend, health_bit(p->protocol, p->t.sport));
}

/* The first answer of a flow: to a SYN, or to a datagram. */
static __always_inline void note_accepted(const struct packet *p, const struct flow *reply)
{
	if (reply->flags & (FLOW_ANSWERED | FLOW_DIRECT | FLOW_VIA_KERNEL))
		return;
	if (is_syn_ack(p) || p->protocol == IPPROTO_UDP)
		health_accepted(reply->backend, health_bit(p->protocol, p->t.sport));
}

#endif
