/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Flows of overlays that this CPU has just had, and packets that are of none, beside the LRU hash
 * in which they are: an array that is compared, not hashed and searched. It holds what the short
 * way needs of them (vip_plain.h).
 *
 * What becomes of a flow on another CPU, or in another program, has to be noticed there: whatever
 * makes, removes or changes an entry of flows or replies then counts that, in a slot of flow_epochs
 * that the key names. What was noted before is no more worth anything. An entry that only the LRU
 * has removed is one of nobody else's, for RECENT_NS at most: so often a flow is looked up all the
 * same, by which the LRU knows that it is used.
 */
#ifndef EBPFMESH_RECENT_H
#define EBPFMESH_RECENT_H

#include "clock.h"

/* Where changes of a flow are counted: in one place for both directions of a 4-tuple. What is given
 * is as it lies in the packet.
 */
static __always_inline __u64 epoch_slot(__u64 saddr, __u64 daddr, __u64 ports)
{
	__u64 both = (ports & 0xffff) + (ports >> 16);

	return (saddr * daddr ^ both * SPREAD) * SPREAD >> (64 - EPOCH_BITS);
}

/* To be called after the change has been made: all that is looked up from now on has it. The result
 * is asked for, as an addition without one puts nothing in order on some machines. Only programs of
 * overlays have flows that are noted.
 */
static __always_inline void flow_changed(const struct flow_key *key)
{
	__u32 slot;
	__u64 *epoch, before;

	if (!ATTACHED_VNI)
		return;
	slot = epoch_slot(key->t.saddr, key->t.daddr, *(const __be32 *)&key->t.sport);
	epoch = flow_epochs.lookup(&slot);
	if (!epoch)
		return;
	before = __sync_fetch_and_add(epoch, 1);
	asm volatile("" : : "r"(before));
}

/* Where a packet is seen. What is noted at one end of a container's veth says nothing at the other.
 */
enum way {
	WAY_OUT = 0, /* of a container */
	WAY_IN = 1,
};

static __always_inline __u64 recent_network(__u64 protocol, enum way way)
{
	return (ATTACHED_VNI << 1 | way) << 8 | protocol;
}

/* A place for one flow, what has been counted there, and whether the flow that is noted is this
 * one. To be had before the flow is looked up.
 */
struct recent_place {
	struct recent *flow;
	__u32 epoch; /* the lower half: a note does not live to see it come round */
	bool is_known;
};

static __always_inline struct recent_place recent_place(__u64 saddr, __u64 daddr, __u64 ports,
							__u64 network)
{
	__u32 slot = epoch_slot(saddr, daddr, ports);
	volatile __u64 *epoch = flow_epochs.lookup(&slot);
	struct recent_place place = {};
	struct recent *flow;

	/* The two directions, and the two ways, each by itself. */
	slot = slot >> (EPOCH_BITS - RECENT_BITS) ^ saddr >> 24 ^ (network >> 8 & 1);
	flow = recent_flows.lookup(&slot);
	if (!flow || !epoch)
		return place;
	place.flow = flow;
	place.epoch = *epoch;
	place.is_known = flow->saddr == saddr && flow->daddr == daddr && flow->ports == ports &&
			 flow->network == network && flow->epoch == place.epoch &&
			 bpf_jiffies64() < flow->until_ticks;
	return place;
}

#endif
