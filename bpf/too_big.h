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
#define QUOTED_L4 8 /* bytes behind the quoted IP header */

static __always_inline bool fits_tunnel(const struct __sk_buff *skb, const struct packet *p)
{
	return skb->gso_segs > 1 || p->length <= TUNNEL_MTU;
}

/* The sum of the quoted transport header. A checksum that the card is to finish (offload) covers
 * what is quoted, and will then add up to the complement of the pseudo header's sum. Such a one
 * holds only that sum yet, by which it is told: one datagram in 65536 is mistaken and goes unheard.
 */
static __always_inline __u32 quoted_sum(const struct packet *p, const struct iphdr *ip,
					const __u8 l4[QUOTED_L4])
{
	__u16 pseudo = fold(pseudo_sum(ip, p->length - sizeof(*ip)));

	if (p->protocol == IPPROTO_UDP && *(const __u16 *)&l4[6] == pseudo)
		return (__u16)~pseudo;
	return bpf_csum_diff(0, 0, (__be32 *)l4, QUOTED_L4, 0);
}

/* Turns the packet into "fragmentation needed" and sends it back. What may be fragmented, but would
 * have to be here, is dropped.
 */
static __always_inline int answer_too_big(struct __sk_buff *skb, const struct packet *p)
{
	__u32 ifindex = skb->ifindex;
	__u8 l4[QUOTED_L4] __attribute__((aligned(4)));
	struct unreachable u;
	struct iphdr quoted;

	if (!p->dont_fragment || bpf_skb_load_bytes(skb, L3_OFFSET, &quoted, sizeof(quoted)) ||
	    bpf_skb_load_bytes(skb, L4_OFFSET, l4, sizeof(l4)))
		return leave(DROP_too_big, TC_ACT_SHOT);
	answer_header(&u.ip, p, IPPROTO_ICMP, sizeof(u) + sizeof(quoted) + sizeof(l4));
	u.icmp.type = ICMP_UNREACHABLE;
	u.icmp.code = ICMP_FRAGMENTATION_NEEDED;
	u.icmp.checksum = 0;
	u.icmp.rest = bpf_htonl(TUNNEL_MTU);
	u.icmp.checksum = ~fold(
		bpf_csum_diff(0, 0, (__be32 *)&u.icmp, sizeof(u.icmp), quoted_sum(p, &quoted, l4)));
	if (bpf_skb_change_tail(skb, L4_OFFSET + QUOTED_L4, 0) ||
	    bpf_skb_adjust_room(skb, sizeof(u), BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO) ||
	    bpf_skb_store_bytes(skb, L3_OFFSET, &u, sizeof(u), BPF_F_RECOMPUTE_CSUM) ||
	    swap_macs(skb))
		return leave(DROP_too_big, TC_ACT_SHOT);
	return leave(DROP_too_big, bpf_redirect(ifindex, 0));
}

#endif
