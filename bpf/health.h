/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Passive health: what backends make of the connections that this node gives them. One that has
 * left several in a row unanswered, or refuses where it has answered before, gets no new flows for
 * a while; its first answer ends that. That a datagram is not answered tells nothing. Touched by
 * new flows, retries and refusals alone, not by what goes on.
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

static __always_inline bool is_avoided(__u32 backend)
{
	struct avoided *a;
	__u32 zero = 0;

	a = avoided.lookup(&zero);
	return a && a->until_s[backend & (AVOIDED_SLOTS - 1)] > avoid_clock();
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

/* The bit of a backend's port; two of them rarely share one. */
static __always_inline __u32 health_bit(__u8 protocol, __be16 port)
{
	__u32 both = (__u32)protocol << 16 | port;

	return 1U << (both * 0x9e3779b1 >> 27);
}

/* It has answered on a port. Written only where that is news: all CPUs read it. */
static __always_inline void health_accepted(__u32 backend, __u32 bit)
{
	struct health *h = health.lookup(&backend);

	if (!h)
		return;
	if (h->silent) {
		h->silent = 0;
		avoid_until(backend, 0);
	}
	if (!(h->accepted & bit))
		h->accepted |= bit;
}

/* Whether a backend that refuses on a port may be one that does not listen there yet, or has just
 * ceased to. What has ceased gets nothing new for a while.
 */
static __always_inline bool is_between(__u32 backend, __u32 bit)
{
	struct health *h = health.lookup(&backend);
	__u64 now = bpf_ktime_get_coarse_ns();
	bool begins, ends;

	if (!h)
		return false;
	begins = !h->accepted;
	ends = h->accepted & bit;
	if (!h->refused_ns || (ends && now - h->refused_ns > REFUSAL_REST_NS))
		h->refused_ns = now;
	if (now - h->refused_ns >= START_NS || !(begins || ends))
		return false;
	if (ends && !is_avoided(backend)) {
		h->silent += 1;
		avoid_until(backend, avoid_clock() + AVOID_S);
	}
	return true;
}

#endif
