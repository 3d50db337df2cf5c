/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Out of the NIC: as it is, or wrapped for another node. */
#ifndef EBPFMESH_SEND_H
#define EBPFMESH_SEND_H

#include "counters.h"
#include "encap.h"
#include "sctp.h"

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

/* The NIC by which the answers to this packet leave: as the kernel would route them, from the
 * address that was asked. Where it knows no way, that by which the packet came.
 */
static __always_inline __u32 way_back(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_fib_lookup fib = { .family = AF_INET, .ipv4_dst = p->t.saddr };
	__u32 ifindex = came_in_by(skb);
	int found;

	fib.ipv4_src = p->t.daddr;
	fib.ifindex = ifindex;
	found = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	/* A packet that is too big for that way says nothing of its answers. */
	if (found == BPF_FIB_LKUP_RET_SUCCESS || found == BPF_FIB_LKUP_RET_NO_NEIGH ||
	    found == BPF_FIB_LKUP_RET_FRAG_NEEDED)
		return fib.ifindex;
	return ifindex;
}

/* Wraps the packet and sends it to another node. */
static __always_inline int tc_send_wrapped(struct __sk_buff *skb, __be32 vtep, __be32 to,
					   __be32 entry, __u32 hash, __u8 mark)
{
	__u16 length = skb->len - ETH_HLEN;
	struct outer *o;

	if (segments(skb) <= 1 && length + WRAP_LEN > UNDERLAY_MTU)
		return leave(DROP_too_big, TC_ACT_SHOT);
	if (bpf_skb_adjust_room(skb, WRAP_LEN, BPF_ADJ_ROOM_MAC, WRAP_FLAGS))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	o = start_of(skb);
	if ((void *)(o + 1) > end_of(skb))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	outer_fill(o, vtep, to, entry, length, hash, mark);
	sctp_moved(skb, WRAP_LEN);
	return send_out(NIC_IFINDEX);
}

#endif
