/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A packet that goes no further: its sender is told why. One that may not be fragmented and finds
 * no room in the tunnel is told what room there is (RFC 1191); so is one that has no hop left (RFC
 * 1812, 5.3.1).
 */
#ifndef EBPFMESH_TOO_BIG_H
#define EBPFMESH_TOO_BIG_H

#include "encap.h"
#include "icmp_error.h"
#include "refuse.h"

#define ICMP_FRAGMENTATION_NEEDED 4
#define TUNNEL_MTU (UNDERLAY_MTU - WRAP_LEN)

/* Whether it finds room in `mtu` bytes. */
static __always_inline bool fits(const struct __sk_buff *skb, const struct packet *p, __u32 mtu)
{
	return segments(skb) > 1 || p->length <= mtu;
}

/* Turns the packet into "fragmentation needed" and sends it back. About a later fragment nobody is
 * told anything: RFC 1122, 3.2.2.
 */
static __always_inline int answer_too_big(struct __sk_buff *skb, const struct packet *p, __u32 mtu)
{
	__u32 ifindex = came_in_by(skb);

	if (p->fragment == FRAGMENT_LATER ||
	    error_headers(skb, p, p->t.daddr, ICMP_UNREACHABLE, ICMP_FRAGMENTATION_NEEDED,
			  bpf_htonl(mtu)) ||
	    swap_macs(skb))
		return leave(DROP_too_big, TC_ACT_SHOT);
	leave_on(p, DROP_too_big, 0);
	return answer_out(skb, p->t.saddr, ifindex);
}

static __always_inline bool has_expired(const struct packet *p)
{
	return p->ttl <= 1;
}

/* Turns a packet that has no hop left into its answer. RFC 1812, 5.3.1. */
static __always_inline int answer_expired(struct __sk_buff *skb, const struct packet *p,
					  __be32 from)
{
	if (p->fragment == FRAGMENT_LATER || error_headers(skb, p, from, ICMP_TIME_EXCEEDED, 0, 0))
		return -1;
	return swap_macs(skb);
}

#endif
