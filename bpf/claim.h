/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Flows are claimed in pairs, one entry per direction, so that no two meet in one 4-tuple. */
#ifndef EBPFMESH_CLAIM_H
#define EBPFMESH_CLAIM_H

#include "flow_table.h"
#include "takeover.h"

/* Gives up what an earlier flow under key had claimed, if it still is its. */
static __always_inline void flow_forget(struct flow_key *key)
{
	struct flow *old = flow_find(key), *holder;
	struct tuple back = reversed(&key->t);
	struct flow_key twin;

	if (!old)
		return;
	twin = twin_key(key, &old->to);
	holder = reply_find(&twin);
	if (holder && same_tuple(&holder->to, &back))
		reply_delete(&twin);
	flow_delete(key);
}

/* Takes one 4-tuple for the answers to a new flow; a dead flow's is taken over, and what is left of
 * an earlier flow of the same client. The own entry is made before the established ones are asked:
 * a holder that becomes established meanwhile is seen in one place or the other.
 */
static __always_inline bool claim_tuple(struct flow_key *twin, struct flow *reply)
{
	bool placed = !transient_replies.insert(twin, reply);
	struct flow *holder = placed ? replies.lookup(twin) : transient_replies.lookup(twin);

	if (!holder)
		return placed;
	if (!same_tuple(&holder->to, &reply->to) &&
	    !flow_dead(holder, twin->protocol, reply->seen_ns)) {
		if (placed)
			transient_replies.delete(twin);
		return false;
	}
	flow_retire(twin, holder); /* with what was placed */
	return !transient_replies.insert(twin, reply);
}

/* Looks for a source port that nobody has, be the holder's flow dead or alive. Few paths lead
 * through one try, since the verifier walks all of them for each; and the loop is unrolled, since
 * Linux 6.1 refuses one that the compiler has laid out with its entry in the middle.
 */
static __always_inline bool claim_other_port(struct flow_key *twin, struct flow *reply)
{
	__u32 hash = bpf_get_prandom_u32();

#pragma unroll
	for (int i = 1; i < CLAIM_TRIES; i++) {
		twin->t.dport = bpf_htons(1024 + (hash + i * 4099) % 64512);
		if (transient_replies.insert(twin, reply))
			continue;
		if (!replies.lookup(twin))
			return true;
		transient_replies.delete(twin);
	}
	return false;
}

/* Takes the 4-tuple of `flow->to` for the flow under `key` and records both directions. If a
 * living flow has it, another source port is tried: the client's address is never changed.
 * Returns why it was not; then nothing is recorded. `again`: there may be an earlier flow under
 * key.
 */
static __always_inline enum reason flow_claim(struct flow_key *key, struct flow *flow, bool again)
{
	struct flow reply = *flow;
	struct flow_key twin;

	if (is_moving())
		return DROP_moving;
	if (again)
		flow_forget(key);
	reply.to = reversed(&key->t);
	twin = twin_key(key, &flow->to);
	if (!claim_tuple(&twin, &reply)) {
		if (!claim_other_port(&twin, &reply))
			return DROP_no_port;
		flow->to.sport = twin.t.dport;
	}
	if (transient_flows.update(key, flow)) {
		transient_replies.delete(&twin);
		return DROP_no_port;
	}
	flow_changed(key);
	flow_changed(&twin);
	return REASON_NONE;
}

/* Whether a packet that is not balanced would meet a living flow at the task. A dead one's entries
 * go: they would translate the answer.
 */
static __always_inline bool flow_in_the_way(const struct flow_key *key, const struct flow *flow)
{
	struct flow_key twin = twin_key(key, &flow->to);
	struct flow *holder = reply_find(&twin);

	if (!holder)
		return false;
	if (!flow_dead(holder, key->protocol, flow->seen_ns))
		return true;
	flow_retire(&twin, holder);
	return false;
}

#endif
