/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A packet that may not be fragmented and finds no room in the tunnel: its sender is told what room
 * there is. RFC 1191.
 */
#ifndef EBPFMESH_TOO_BIG_H
#define EBPFMESH_TOO_BIG_H

#include "encap.h"
#include "refuse.h"

#define ICMP_FRAGMENTATION_NEEDED 4
#define TUNNEL_MTU (UNDERLAY_MTU - WRAP_LEN)

static __always_inline bool fits_tunnel(const struct __sk_buff *skb, const struct packet *p)
{
	return skb->gso_segs > 1 || p->length <= TUNNEL_MTU;
}

/* Turns the packet into "fragmentation needed" and sends it back. About a later fragment nobody is
 * told anything: RFC 1122, 3.2.2.
 */
static __always_inline int answer_too_big(struct __sk_buff *skb, const struct packet *p)
{
	__u32 ifindex = skb->ifindex;

	if (p->fragment == FRAGMENT_LATER ||
	    unreachable_headers(skb, p, ICMP_FRAGMENTATION_NEEDED, bpf_htonl(TUNNEL_MTU)) ||
	    swap_macs(skb))
		return leave(DROP_too_big, TC_ACT_SHOT);
	return leave(DROP_too_big, bpf_redirect(ifindex, 0));
}

#endif
