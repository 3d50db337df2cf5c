/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Where flows are kept. Established ones have maps of their own: half-open, unanswered and closed
 * ones only push out each other, so a flood of SYNs from a million addresses costs no connection.
 * What is in which map is said by FLOW_ESTABLISHED; both directions of a flow move together.
 */
#ifndef EBPFMESH_FLOW_TABLE_H
#define EBPFMESH_FLOW_TABLE_H

#include "flow.h"
#include "recent.h"

/* Who moves something to the maps of established flows counts that when it is there, and has not
 * left the others yet.
 */
static __always_inline void count_move(void)
{
	__u32 zero = 0;
	__u64 *count = flow_moves.lookup(&zero);

	if (count)
		__sync_fetch_and_add(count, 1);
}

static __always_inline __u64 moves_now(void)
{
	__u32 zero = 0;
	volatile __u64 *count = flow_moves.lookup(&zero);

	return count ? *count : 0;
}

/* What is in neither may have become established meanwhile, by a packet on another CPU. If anything
 * has, it is looked for once more, or that packet's flow would be a stranger's for a moment.
 */
static __always_inline struct flow *flow_find(struct flow_key *key)
{
	__u64 before = moves_now();
	struct flow *flow = flows.lookup(key);

	if (!flow)
		flow = transient_flows.lookup(key);
	return flow || moves_now() == before ? flow : flows.lookup(key);
}

/* For who has not found it among the established ones; `before` was had before. */
static __always_inline struct flow *reply_find_transient(struct flow_key *key, __u64 before)
{
	struct flow *reply = transient_replies.lookup(key);

	return reply || moves_now() == before ? reply : replies.lookup(key);
}

static __always_inline struct flow *reply_find(struct flow_key *key)
{
	__u64 before = moves_now();
	struct flow *reply = replies.lookup(key);

	return reply ? reply : reply_find_transient(key, before);
}

static __always_inline void flow_delete(struct flow_key *key)
{
	flows.delete(key);
	transient_flows.delete(key);
	flow_changed(key);
}

static __always_inline void reply_delete(struct flow_key *key)
{
	replies.delete(key);
	transient_replies.delete(key);
	flow_changed(key);
}

/* The same direction's entry, from the kind of map that `flags` names. */
static __always_inline struct flow *kept_under(struct flow_key *key, enum direction dir,
					       __u16 flags)
{
	if (dir == TO_BACKEND)
		return flags & FLOW_ESTABLISHED ? flows.lookup(key) : transient_flows.lookup(key);
	return flags & FLOW_ESTABLISHED ? replies.lookup(key) : transient_replies.lookup(key);
}

static __always_inline void keep(struct flow_key *key, struct flow *flow, enum direction dir)
{
	if (dir == TO_BACKEND && flow->flags & FLOW_ESTABLISHED)
		flows.update(key, flow);
	else if (dir == TO_BACKEND)
		transient_flows.update(key, flow);
	else if (flow->flags & FLOW_ESTABLISHED)
		replies.update(key, flow);
	else
		transient_replies.update(key, flow);
	flow_changed(key);
}

/* Takes an entry out of the maps that it does not belong to any more. */
static __always_inline void drop_from_other(struct flow_key *key, enum direction dir, __u16 flags)
{
	if (dir == TO_BACKEND && flags & FLOW_ESTABLISHED)
		transient_flows.delete(key);
	else if (dir == TO_BACKEND)
		flows.delete(key);
	else if (flags & FLOW_ESTABLISHED)
		transient_replies.delete(key);
	else
		replies.delete(key);
}

/* Removes both directions of the flow whose reply lies under key. What lies under the key of that
 * flow may be a later one, which goes on elsewhere.
 */
static __always_inline void flow_retire(struct flow_key *key, const struct flow *reply)
{
	struct flow_key twin = twin_key(key, &reply->to);
	struct tuple to = reversed(&key->t);
	struct flow *flow = flow_find(&twin);

	if (flow && same_tuple(&flow->to, &to))
		flow_delete(&twin);
	reply_delete(key);
}

#endif
