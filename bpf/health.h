/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Passive health: what backends make of the connections that this node gives them. One that has
 * left several in a row unanswered gets no new flows for a while; its first answer ends that. Only
 * TCP tells: a datagram need not be answered. Touched by new flows and retries alone, not by what
 * goes on.
 */
#ifndef EBPFMESH_HEALTH_H
#define EBPFMESH_HEALTH_H

#include "maps.h"

static __always_inline __u32 avoid_clock(void)
{
	return bpf_ktime_get_coarse_ns() / SECOND_NS;
}

static __always_inline void avoid_until(__u32 backend, __u32 until_s)
{
	struct avoided *a;
	__u32 zero = 0;

	a = avoided.lookup(&zero);
	if (a)
		a->until_s[backend & (AVOIDED_SLOTS - 1)] = until_s;
}

/* A connection was taken away from it, unanswered. */
static __always_inline void health_silent(__u32 backend)
{
	struct health *h = health.lookup(&backend);
	__u32 more;

	if (!h)
		return;
	h->silent += 1;
	more = h->silent - SILENT_LIMIT;
	if (h->silent < SILENT_LIMIT)
		return;
	if (more > AVOID_DOUBLINGS)
		more = AVOID_DOUBLINGS;
	avoid_until(backend, avoid_clock() + (AVOID_S << more));
}

/* It has answered a SYN. Written only where that is news: all CPUs read it. */
static __always_inline void health_accepted(__u32 backend)
{
	struct health *h = health.lookup(&backend);

	if (!h)
		return;
	if (h->silent) {
		h->silent = 0;
		avoid_until(backend, 0);
	}
	if (!h->accepted)
		h->accepted = 1;
}

/* Whether a backend that refuses may be one that does not listen yet. */
static __always_inline bool is_starting(__u32 backend)
{
	struct health *h = health.lookup(&backend);
	__u64 now = bpf_ktime_get_coarse_ns();

	if (!h || h->accepted)
		return false;
	if (!h->refused_ns)
		h->refused_ns = now;
	return now - h->refused_ns < START_NS;
}

#endif
