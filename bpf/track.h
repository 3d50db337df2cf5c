/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a packet changes in the record of its flow. */
#ifndef EBPFMESH_TRACK_H
#define EBPFMESH_TRACK_H

#include "flow_table.h"
#include "live.h"

static __always_inline enum direction opposite(enum direction dir)
{
	return dir == TO_BACKEND ? TO_CLIENT : TO_BACKEND;
}

/* Both directions go into the maps that their new flags name. They are there before they leave the
 * old ones: a packet on another CPU finds them at any time (flow_find()). Returns the entry at its
 * new place.
 *
 * `copy` was made of `flow` before that is looked for once more: the LRU gives away at once what is
 * taken out, and another CPU may have moved this flow meanwhile, and then have noted another one
 * there. Then nothing is moved.
 */
static __always_inline struct flow *flow_move(struct flow_key *key, struct flow_key *twin,
					      struct flow *copy, struct flow *flow,
					      enum direction dir, __u16 before)
{
	struct flow *moved;
	__u16 flags = copy->flags;

	if (kept_under(key, dir, before) == flow) {
		keep(key, copy, dir);
		copy->to = reversed(&key->t);
		if (key->vni)
			copy->ifindex = 0; /* who sends under the twin has not been judged */
		keep(twin, copy, opposite(dir));
		if (flags & FLOW_ESTABLISHED)
			count_move();
		drop_from_other(key, dir, flags);
		drop_from_other(twin, opposite(dir), flags);
	}
	moved = kept_under(key, dir, flags);
	return moved ? moved : flow;
}

/* Whether a flow has lost its 4-tuple: the LRU has taken its twin, and then another flow has
 * claimed the place. `twin` is what lies there, in the map that `flags` names; the other one is
 * asked too.
 */
static __always_inline bool flow_displaced(struct flow_key *other, const struct tuple *back,
					   enum direction dir, __u16 flags, const struct flow *twin)
{
	if (!twin)
		twin = kept_under(other, dir, flags ^ FLOW_ESTABLISHED);
	return twin && !same_tuple(&twin->to, back);
}

/* Notes what a packet says of its flow. News, and at most once in FLOW_TOUCH_NS the mere fact
 * that it lives, also go to the twin, which keeps the LRU from taking it; a twin that was taken
 * all the same is made again. So most packets cost no second look-up. Returns the entry, which may
 * have moved; NULL for a packet to the backend whose answer another flow would get: it has to claim
 * a place anew.
 */
static __always_inline struct flow *flow_track(const struct packet *p, struct flow_key *key,
					       struct flow *flow, enum direction dir)
{
	__u16 before = flow->flags, flags = flow_next(p, before, dir);
	bool moves = (flags ^ before) & FLOW_ESTABLISHED;
	struct tuple back = reversed(&key->t);
	struct flow_key other;
	struct flow *twin, copy;
	__u64 now;

	live_track(flow->backend, before, flags);
	if (flags == before && is_recent(flow->seen_ns))
		return flow;
	now = ask_clock();
	if (flags == before && now - flow->seen_ns < FLOW_TOUCH_NS)
		return flow;
	copy = *flow;
	copy.flags = flags;
	copy.seen_ns = now;
	if (!moves) {
		flow->flags = flags;
		flow->seen_ns = now;
	}
	if (flags != before)
		flow_changed(key);
	other = twin_key(key, &flow->to);
	twin = kept_under(&other, opposite(dir), before);
	if (flow_displaced(&other, &back, opposite(dir), before, twin))
		return dir == TO_BACKEND ? NULL : flow;
	if (!twin || moves)
		return flow_move(key, &other, &copy, flow, dir, before);
	twin->flags |= flags;
	twin->seen_ns = now;
	if (flags != before)
		flow_changed(&other);
	return flow;
}

#endif
