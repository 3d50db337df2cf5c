/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What time it is, for packets of known flows. To call for the kernel's clock costs as much as a
 * look-up; to read how often it has ticked is one load. What lies between the two is learned each
 * time that the clock is asked, and in doubt it is.
 */
#ifndef EBPFMESH_CLOCK_H
#define EBPFMESH_CLOCK_H

#include "maps.h"

static __always_inline __u64 ticked_ns(void)
{
	return bpf_jiffies64() * TICK_NS;
}

/* As bpf_ktime_get_coarse_ns() has it. All CPUs read what is learned: it is written where it is
 * news.
 */
static __always_inline __u64 ask_clock(void)
{
	__u64 now = bpf_ktime_get_coarse_ns(), between = now - ticked_ns();
	__u64 *known;
	__u32 zero = 0;

	known = beyond_ticks.lookup(&zero);
	if (known && between - *known + TICK_NS > 2 * TICK_NS)
		*known = between;
	return now;
}

/* Whether something was seen less than FLOW_TOUCH_NS ago, to a tick. If not, the clock is asked.
 */
static __always_inline bool is_recent(__u64 seen_ns)
{
	__u32 zero = 0;
	__u64 *known = beyond_ticks.lookup(&zero);

	return known && ticked_ns() + *known + TICK_NS - seen_ns < FLOW_TOUCH_NS;
}

/* Of something that is_recent(): for how many ticks more it will be, but for the last ones; so many
 * as are in `most_ns` at most.
 */
static __always_inline __u64 ticks_left(__u64 seen_ns, __u64 most_ns)
{
	__u32 zero = 0;
	__u64 *known = beyond_ticks.lookup(&zero);
	__u64 left;

	if (!known)
		return 0;
	left = seen_ns + FLOW_TOUCH_NS - 2 * TICK_NS - (ticked_ns() + *known);
	if (left > FLOW_TOUCH_NS) /* below zero */
		return 0;
	return (left < most_ns ? left : most_ns) / TICK_NS;
}

#endif
