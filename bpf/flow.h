/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Flows: their keys, and the states that they go through. */
#ifndef EBPFMESH_FLOW_H
#define EBPFMESH_FLOW_H

#include "clock.h"
#include "maps.h"
#include "parse.h"

static __always_inline struct flow_key flow_key_of(const struct packet *p, __u32 vni)
{
	struct flow_key key = { .t = p->t, .vni = vni, .protocol = p->protocol };

	return key;
}

static __always_inline struct tuple reversed(const struct tuple *t)
{
	struct tuple r = {
		.saddr = t->daddr, .daddr = t->saddr, .sport = t->dport, .dport = t->sport
	};

	return r;
}

static __always_inline bool same_tuple(const struct tuple *a, const struct tuple *b)
{
	return a->saddr == b->saddr && a->daddr == b->daddr && a->sport == b->sport &&
	       a->dport == b->dport;
}

/* The key under which the other direction of a flow lies. */
static __always_inline struct flow_key twin_key(const struct flow_key *key, const struct tuple *to)
{
	struct flow_key twin = { .t = reversed(to), .vni = key->vni, .protocol = key->protocol };

	return twin;
}

static __always_inline bool flow_closed(__u16 flags)
{
	__u16 both = FLOW_FIN_CLIENT | FLOW_FIN_SERVER;

	return (flags & FLOW_RST) || (flags & both) == both;
}

/* Whether an entry has lost its claim to a 4-tuple. Another CPU may have seen it after `now`. */
static __always_inline bool flow_dead(const struct flow *flow, __u8 protocol, __u64 now)
{
	__u64 idle = now > flow->seen_ns ? now - flow->seen_ns : 0;

	if (protocol == IPPROTO_UDP)
		return idle > UDP_TIMEOUT_NS;
	if (flow_closed(flow->flags))
		return true;
	return idle > (flow->flags & FLOW_ANSWERED ? TCP_TIMEOUT_NS : SYN_TIMEOUT_NS);
}

/* A datagram after that long a silence is a new flow's. A TCP connection may be idle for days,
 * and so may an SCTP association.
 */
static __always_inline bool flow_expired(__u8 protocol, __u64 seen_ns)
{
	return protocol == IPPROTO_UDP && !is_recent(seen_ns) &&
	       ask_clock() - seen_ns > UDP_TIMEOUT_NS;
}

/* A SYN, or INIT, of the client starts afresh where the old connection has ended, or begun to. */
static __always_inline bool flow_restarts(const struct packet *p, __u16 flags)
{
	return is_syn(p) && (flags & (FLOW_FIN_CLIENT | FLOW_FIN_SERVER | FLOW_RST));
}

/* What a packet says of its flow. */
static __always_inline __u16 flags_of(const struct packet *p, enum direction dir)
{
	__u16 flags = dir == TO_CLIENT ? FLOW_ANSWERED : 0;

	if (p->tcp_flags & TCP_FIN)
		flags |= dir == TO_CLIENT ? FLOW_FIN_SERVER : FLOW_FIN_CLIENT;
	if (p->tcp_flags & TCP_RST)
		flags |= FLOW_RST;
	return flags;
}

/* The flags after one more packet. Established is what both sides have spoken in, and then the
 * client once more: a forged source address never gets that far. It ends when the flow closes.
 */
static __always_inline __u16 flow_next(const struct packet *p, __u16 flags, enum direction dir)
{
	__u16 next = flags | flags_of(p, dir);

	if (flow_closed(next))
		return next & ~FLOW_ESTABLISHED;
	if (dir == TO_BACKEND && (flags & FLOW_ANSWERED) && !is_syn(p))
		next |= FLOW_ESTABLISHED;
	return next;
}

/* Datagrams go elsewhere as soon as their backend has been told to stop, while it can still answer
 * what it has: nothing else would tell their sender that it ends.
 */
static __always_inline bool takes_no_more(const struct packet *p, const struct backend *backend)
{
	if (backend->state == BACKEND_STOPPING)
		return p->protocol == IPPROTO_UDP;
	return backend->state == BACKEND_UNSET || backend->state == BACKEND_GONE;
}

/* Whether it is the one that a flow was given. Its id may have gone to another since, with the same
 * address even, as Docker gives these again as well: one of another service does not serve.
 */
static __always_inline bool is_same_backend(const struct backend *backend, __be32 address,
					    __u32 pool)
{
	return (backend->address == address || backend->gateway_address == address) &&
	       backend->pool == pool;
}

/* The backend that a flow was given, if this packet may still go there: it must be the same one,
 * and a draining one gets no SYN.
 */
static __always_inline struct backend *flow_backend(const struct packet *p, __u32 id,
						    __be32 address, __u32 pool)
{
	struct backend *backend = backends.lookup(&id);

	if (!backend || takes_no_more(p, backend) || !is_same_backend(backend, address, pool))
		return NULL;
	if (is_syn(p) && backend->state != BACKEND_READY)
		return NULL;
	return backend;
}

#endif
