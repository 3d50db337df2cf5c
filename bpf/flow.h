/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Flows: one entry per direction, claimed in pairs so that no two flows meet in one 4-tuple. */
#ifndef EBPFMESH_FLOW_H
#define EBPFMESH_FLOW_H

#include "maglev.h"
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

static __always_inline bool flow_closed(__u8 flags)
{
	__u8 both = FLOW_FIN_CLIENT | FLOW_FIN_SERVER;

	return (flags & FLOW_RST) || (flags & both) == both;
}

/* Whether an entry has lost its claim to a 4-tuple. */
static __always_inline bool flow_dead(const struct flow *flow, __u8 protocol, __u64 now)
{
	__u64 idle = now - flow->seen_ns;

	if (protocol != IPPROTO_TCP)
		return idle > UDP_TIMEOUT_NS;
	if (flow_closed(flow->flags))
		return true;
	return idle > (flow->flags & FLOW_ANSWERED ? TCP_TIMEOUT_NS : SYN_TIMEOUT_NS);
}

/* A SYN of the client starts afresh where the old connection has ended, or begun to. */
static __always_inline bool flow_restarts(const struct packet *p, __u8 flags)
{
	return is_syn(p) && (flags & (FLOW_FIN_CLIENT | FLOW_FIN_SERVER | FLOW_RST));
}

/* What a packet says of its flow. */
static __always_inline __u8 flags_of(const struct packet *p, enum direction dir)
{
	__u8 flags = dir == TO_CLIENT ? FLOW_ANSWERED : 0;

	if (p->tcp_flags & TCP_FIN)
		flags |= dir == TO_CLIENT ? FLOW_FIN_SERVER : FLOW_FIN_CLIENT;
	if (p->tcp_flags & TCP_RST)
		flags |= FLOW_RST;
	return flags;
}

static __always_inline struct flow *twin_lookup(const struct flow_key *key, enum direction dir)
{
	struct flow_key k = *key;

	if (dir == TO_BACKEND)
		return replies.lookup(&k);
	return flows.lookup(&k);
}

static __always_inline void twin_rebuild(const struct flow_key *key, struct flow_key *twin,
					 const struct flow *flow, enum direction dir)
{
	struct flow other = *flow;

	other.to = reversed(&key->t);
	if (dir == TO_BACKEND)
		replies.insert(twin, &other);
	else
		flows.insert(twin, &other);
}

/* Notes what a packet says of its flow. News, and at most once in FLOW_TOUCH_NS the mere fact
 * that it lives, also go to the twin, which keeps the LRU from taking it; a twin that was taken
 * all the same is made again. So most packets cost no second look-up.
 */
static __always_inline void flow_track(const struct packet *p, const struct flow_key *key,
				       struct flow *flow, enum direction dir)
{
	__u8 flags = flow->flags | flags_of(p, dir);
	__u64 now = bpf_ktime_get_coarse_ns();
	struct tuple back = reversed(&key->t);
	struct flow_key other;
	struct flow *twin;

	if (flags == flow->flags && now - flow->seen_ns < FLOW_TOUCH_NS)
		return;
	flow->flags = flags;
	flow->seen_ns = now;
	other = twin_key(key, &flow->to);
	twin = twin_lookup(&other, dir);
	if (!twin) {
		twin_rebuild(key, &other, flow, dir);
		return;
	}
	if (!same_tuple(&twin->to, &back))
		return; /* another flow has taken the place since */
	twin->flags |= flags;
	twin->seen_ns = now;
}

/* Removes both directions of the flow whose reply lies under key. */
static __always_inline void flow_retire(struct flow_key *key, const struct flow *reply)
{
	struct flow_key twin = twin_key(key, &reply->to);

	flows.delete(&twin);
	replies.delete(key);
}

/* Gives up the 4-tuple that an earlier flow under key had claimed, if it still is its. */
static __always_inline void flow_forget(struct flow_key *key)
{
	struct flow *old = flows.lookup(key), *holder;
	struct tuple back = reversed(&key->t);
	struct flow_key twin;

	if (!old)
		return;
	twin = twin_key(key, &old->to);
	holder = replies.lookup(&twin);
	if (holder && same_tuple(&holder->to, &back))
		replies.delete(&twin);
}

/* Takes the 4-tuple of `flow->to` for the flow under `key` and records both directions. If a
 * living flow has it, another source port is tried: the client's address is never changed.
 * Returns false if none was free; then nothing is recorded.
 */
static __always_inline bool flow_claim(struct flow_key *key, struct flow *flow)
{
	__u32 hash = bpf_get_prandom_u32();
	struct flow reply = *flow;
	struct flow_key twin;
	struct flow *holder;

	flow_forget(key);
	reply.to = reversed(&key->t);
	for (int i = 0; i < CLAIM_TRIES; i++) {
		twin = twin_key(key, &flow->to);
		if (replies.insert(&twin, &reply) == 0)
			break;
		holder = replies.lookup(&twin);
		if (!holder)
			continue; /* taken away by the LRU since: try the same once more */
		if (same_tuple(&holder->to, &reply.to) ||
		    flow_dead(holder, key->protocol, flow->seen_ns)) {
			if (!same_tuple(&holder->to, &reply.to))
				flow_retire(&twin, holder);
			replies.update(&twin, &reply);
			break;
		}
		/* SCTP's checksum does not allow a port to be changed in passing. */
		if (key->protocol == PROTO_SCTP || i == CLAIM_TRIES - 1)
			return false;
		flow->to.sport = bpf_htons(1024 + (hash + i * 4099) % 64512);
	}
	if (flows.update(key, flow)) {
		replies.delete(&twin);
		return false;
	}
	return true;
}

/* Whether a packet that is not balanced would meet a living flow at the task. A dead one's entries
 * go: they would translate the answer.
 */
static __always_inline bool flow_in_the_way(const struct flow_key *key, const struct flow *flow)
{
	struct flow_key twin = twin_key(key, &flow->to);
	struct flow *holder = replies.lookup(&twin);

	if (!holder)
		return false;
	if (!flow_dead(holder, key->protocol, flow->seen_ns))
		return true;
	flow_retire(&twin, holder);
	return false;
}

/* The backend that a flow was given, if this packet may still go there: it must be the same one
 * (ids are used again), and a draining one gets no SYN.
 */
static __always_inline struct backend *flow_backend(const struct packet *p, __u32 id,
						    __be32 address)
{
	struct backend *backend = backends.lookup(&id);

	if (!backend || backend->state == BACKEND_UNSET || backend->state == BACKEND_GONE)
		return NULL;
	if (backend->address != address && backend->gateway_address != address)
		return NULL;
	if (is_syn(p) && backend->state != BACKEND_READY)
		return NULL;
	return backend;
}

#endif
