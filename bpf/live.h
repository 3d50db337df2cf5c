/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How many connections each backend has through this node, for pools that balance by that. Counted
 * where a flow begins and where its end shows first, a FIN or a reset of either side. What ends
 * without a packet (datagrams, what the LRU takes, peers that vanish) is put right by the agent,
 * which counts again now and then; so a count may be a little off, and below zero.
 */
#ifndef EBPFMESH_LIVE_H
#define EBPFMESH_LIVE_H

#include "maps.h"

static __always_inline bool flow_ends(__u16 flags)
{
	return flags & (FLOW_FIN_CLIENT | FLOW_FIN_SERVER | FLOW_RST);
}

static __always_inline void live_add(__u32 backend, __s64 connections)
{
	__s64 *count = live.lookup(&backend);

	if (count)
		__sync_fetch_and_add(count, connections);
}

static __always_inline __s64 live_of(__u32 backend)
{
	__s64 *count = live.lookup(&backend);

	return count ? *count : 0;
}

/* The flags of a new flow, FLOW_COUNTED among them if its frontend wants to know. */
static __always_inline __u16 live_flags(const struct frontend *frontend, __u16 flags)
{
	bool counts = (frontend->flags & FRONTEND_SCHEDULER) == SCHEDULE_LEAST_CONN;

	return counts && !flow_ends(flags) ? flags | FLOW_COUNTED : flags;
}

/* A flow has been recorded with these flags. */
static __always_inline void live_begin(__u32 backend, __u16 flags)
{
	if (flags & FLOW_COUNTED)
		live_add(backend, 1);
}

/* A packet has changed the flags of a flow. */
static __always_inline void live_track(__u32 backend, __u16 before, __u16 flags)
{
	if ((flags & FLOW_COUNTED) && !flow_ends(before) && flow_ends(flags))
		live_add(backend, -1);
}

#endif
