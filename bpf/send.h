/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Out of the NIC: as it is, or wrapped for another node. */
#ifndef EBPFMESH_SEND_H
#define EBPFMESH_SEND_H

#include "counters.h"
#include "encap.h"

/* bcc declares three arguments of the four. */
static int (*redirect_neigh)(__u32 ifindex, struct bpf_redir_neigh *params, int plen,
			     __u64 flags) = (void *)BPF_FUNC_redirect_neigh;

#define WRAP_FLAGS                                                                                 \
	(BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP |   \
	 BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN) | BPF_F_ADJ_ROOM_ENCAP_L2_ETH)

/* Out of the NIC; the kernel finds route and neighbour of the destination address. */
static __always_inline int send_out(__u32 ifindex)
{
	return redirect_neigh(ifindex, NULL, 0, 0);
}

/* Wraps the packet and sends it to another node. */
static __always_inline int tc_send_wrapped(struct __sk_buff *skb, __be32 vtep, __be32 to,
					   __be32 entry, __u32 hash)
{
	__u16 length = skb->len - ETH_HLEN;
	struct outer o = {};

	if (skb->gso_segs <= 1 && length + WRAP_LEN > UNDERLAY_MTU)
		return leave(DROP_too_big, TC_ACT_SHOT);
	outer_fill(&o, vtep, to, entry, length, hash);
	if (bpf_skb_adjust_room(skb, WRAP_LEN, BPF_ADJ_ROOM_MAC, WRAP_FLAGS))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	if (bpf_skb_store_bytes(skb, L3_OFFSET, &o.ip, WRAP_LEN, 0))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	return send_out(NIC_IFINDEX);
}

#endif
