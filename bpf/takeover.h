/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Taking over from what balanced before (IPVS, iptables), and giving back to it, while connections
 * are open. Asked only where a flow would be made: a packet of a known flow never comes here.
 */
#ifndef EBPFMESH_TAKEOVER_H
#define EBPFMESH_TAKEOVER_H

#include "maps.h"
#include "parse.h"

/* UDP does not tell its first datagram from a later one. */
static __always_inline bool may_begin(const struct packet *p)
{
	return p->protocol == IPPROTO_UDP || is_syn(p);
}

/* Whether new flows are the kernel's. */
static __always_inline bool gives_back(void)
{
	__u32 zero = 0;
	struct settings *set = settings.lookup(&zero);

	return set && set->mode == MODE_GIVING_BACK;
}

/* Whether flows are just being moved to other maps. A flow that began now would be lost with these,
 * and what belongs to none may be of one that is not there yet: it is sent again.
 */
static __always_inline bool moves(const struct settings *set)
{
	return set->mode == MODE_MOVING && bpf_ktime_get_coarse_ns() - set->since_ns < MOVING_NS;
}

static __always_inline bool is_moving(void)
{
	__u32 zero = 0;
	struct settings *set = settings.lookup(&zero);

	return set && moves(set);
}

/* Why a packet without a flow is left to the kernel, or dropped. At first the connections that are
 * open are those of the path before; later such a packet is one of a flow that came in at another
 * node, and is balanced like a new one.
 */
static __always_inline enum reason kernels_flow(const struct packet *p)
{
	__u32 zero = 0;
	struct settings *set = settings.lookup(&zero);

	if (!set)
		return REASON_NONE;
	if (set->mode == MODE_GIVING_BACK)
		return HANDBACK_giving_back;
	if (moves(set))
		return DROP_moving;
	if (!may_begin(p) && bpf_ktime_get_coarse_ns() < set->takeover_until_ns)
		return HANDBACK_unknown_flow;
	return REASON_NONE;
}

#endif
