/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What was done, counted per CPU. */
#ifndef EBPFMESH_COUNTERS_H
#define EBPFMESH_COUNTERS_H

#include <linux/if_ether.h>

#include "maps.h"
#include "parse.h"
#include "trace.h"

static __always_inline void counter_add(struct counter *counter, enum direction dir, __u64 packets,
					__u64 bytes)
{
	if (!counter)
		return;
	counter->packets[dir] += packets;
	counter->bytes[dir] += bytes;
}

static __always_inline void count_reason(enum reason reason)
{
	__u32 key = reason;
	__u64 *count = reasons.lookup(&key);

	if (count)
		*count += 1;
}

/* The one exit of every packet that is not carried on: its reason is counted, and told if anyone
 * wants to hear it.
 */
static __always_inline int leave(enum reason reason, int verdict)
{
	count_reason(reason);
	note_reason(reason, verdict);
	return verdict;
}

/* The same for a packet that goes on, or that has been turned into its answer: `p` is what came. */
static __always_inline int leave_on(const struct packet *p, enum reason reason, int verdict)
{
	count_reason(reason);
	tell_packet(p, reason, 0);
	return verdict;
}

/* Why the flow of this packet gets another backend; the one that was to have it. */
static __always_inline void count_retry(const struct packet *p, enum reason reason, __u32 backend)
{
	count_reason(reason);
	tell_packet(p, reason, backend);
}

/* One packet, or one GSO packet of many segments; bytes from the IP header on. What Ethernet pads
 * a short packet with does not count.
 */
static __always_inline void count_skb(const struct __sk_buff *skb, const struct packet *p,
				      __u32 frontend, __u32 backend, enum direction dir)
{
	bool gso = segments(skb) > 1;
	__u32 packets = gso ? segments(skb) : 1;
	__u32 bytes = gso ? skb->len - ETH_HLEN : p->length;

	counter_add(frontend_counters.lookup(&frontend), dir, packets, bytes);
	counter_add(backend_counters.lookup(&backend), dir, packets, bytes);
}

static __always_inline void count_new_flow(__u32 frontend, __u32 backend)
{
	struct counter *counter = frontend_counters.lookup(&frontend);

	if (counter)
		counter->connections += 1;
	counter = backend_counters.lookup(&backend);
	if (counter)
		counter->connections += 1;
}

static __always_inline void count_entry(__u32 frontend, __u32 bytes)
{
	counter_add(entry_counters.lookup(&frontend), TO_BACKEND, 1, bytes);
}

static __always_inline void count_new_entry(__u32 frontend)
{
	struct counter *counter = entry_counters.lookup(&frontend);

	if (counter)
		counter->connections += 1;
}

#endif
