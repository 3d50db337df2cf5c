/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A router between two nodes has found a packet of the tunnel too big: what it says quotes our
 * outer headers, and behind them the packet that was wrapped. Its sender is told, who can do
 * something about it: the client, or the task that has answered. Nothing is kept here, so a forged
 * message does no more than one about that flow could, which who forges it would have to know.
 *
 * A message that quotes too little to tell (RFC 792 asks for 8 bytes, RFC 1812 for all that 576
 * hold) is the kernel's.
 */
#ifndef EBPFMESH_OUTER_ERROR_H
#define EBPFMESH_OUTER_ERROR_H

#include "deliver.h"
#include "link_mtu.h"
#include "mesh_nic.h"

/* The ICMP header, and what the tunnel has put in front of a packet. */
struct quoted_outer {
	struct icmp_header icmp;
	struct iphdr ip;
	struct udphdr udp;
	struct vxlan_header vxlan;
	struct ethhdr eth;
	__u8 more[2]; /* sums are made of words */
} __attribute__((packed, aligned(4)));

/* The ICMP header in front of the packet itself. */
struct quoted_inner {
	struct icmp_header icmp;
	__u8 more[2];
	__u8 pad[2];
};

#define INNER_OFFSET (QUOTE_OFFSET + WRAP_LEN)
_Static_assert(sizeof(struct quoted_outer) == sizeof(struct icmp_header) + WRAP_LEN + 2,
	       "the tunnel's headers");

static __always_inline bool is_ours(const struct quoted_outer *q)
{
	__be32 node = q->ip.daddr;

	return q->icmp.type == ICMP_DEST_UNREACHABLE && q->icmp.code == ICMP_FRAGMENTATION_NEEDED &&
	       q->ip.version == 4 && q->ip.ihl == 5 && q->ip.protocol == IPPROTO_UDP &&
	       q->ip.saddr == NODE_VTEP && q->udp.dest == bpf_htons(VXLAN_PORT) &&
	       q->vxlan.flags == bpf_htonl(VXLAN_FLAG_VNI) &&
	       (q->vxlan.vni & ~bpf_htonl(MARK_ALL)) == bpf_htonl(MESH_VNI << 8) &&
	       is_other_node(node);
}

/* The room that is left in the tunnel, 0 if the message says nothing of use. One with extensions
 * (RFC 4884) names a length in the byte beside.
 */
static __always_inline __u32 told_room(const struct quoted_outer *q)
{
	__u32 mtu = bpf_ntohl(q->icmp.rest);

	return mtu < LEAST_MTU || mtu >= UNDERLAY_MTU ? 0 : mtu - WRAP_LEN;
}

static __always_inline bool read_inner(struct __sk_buff *skb, struct packet *inner)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, INNER_OFFSET, &ip, sizeof(ip)) || ip.version != 4 ||
	    ip.ihl != 5 || ip.frag_off & bpf_htons(IP_OFFSET) || !has_flows(ip.protocol))
		return false;
	inner->protocol = ip.protocol;
	inner->t.saddr = ip.saddr;
	inner->t.daddr = ip.daddr;
	return !bpf_skb_load_bytes(skb, INNER_OFFSET + sizeof(ip), &inner->t.sport, 4);
}

/* Whether it has answered a packet of the tunnel, and is known here. */
static __always_inline bool is_answer_here(const struct packet *inner)
{
	struct flow_key key = quoted_key(inner, 0);
	struct flow *flow = flow_find(&key);

	return flow && !(flow->flags & (FLOW_DIRECT | FLOW_VIA_KERNEL));
}

static __always_inline bool is_question_here(const struct packet *inner)
{
	struct flow_key key = flow_key_of(inner, 0);

	return entry_find(&key);
}

/* Takes the tunnel's headers out of the quote. `ip` is the new header of the message. */
static __always_inline int quote_inner(struct __sk_buff *skb, struct quoted_outer *q,
				       const struct iphdr *ip, __u32 room)
{
	struct quoted_inner new = { .icmp = { .type = q->icmp.type, .code = q->icmp.code } };
	__u32 sum = (__u16)~q->icmp.checksum;

	new.icmp.rest = bpf_htonl(room);
	__builtin_memcpy(new.more, q->more, sizeof(new.more));
	q->icmp.checksum = 0;
	sum = bpf_csum_diff((__be32 *)q, sizeof(*q), (__be32 *)&new, sizeof(new), sum);
	new.icmp.checksum = ~fold(sum);
	if (bpf_skb_adjust_room(skb, -WRAP_LEN, BPF_ADJ_ROOM_NET, BPF_F_ADJ_ROOM_FIXED_GSO) ||
	    bpf_skb_store_bytes(skb, L3_OFFSET, (void *)ip, sizeof(*ip), BPF_F_RECOMPUTE_CSUM))
		return -1;
	return bpf_skb_store_bytes(skb, L4_OFFSET, &new.icmp, sizeof(new.icmp),
				   BPF_F_RECOMPUTE_CSUM);
}

/* Takes over an ICMP error that quotes a datagram of this node's to the tunnel's port. */
static __always_inline int mesh_outer_error(struct __sk_buff *skb)
{
	struct packet p = {}, inner = {};
	struct quoted_outer q;
	struct iphdr ip;
	bool answer;
	__u32 room;

	parse_skb(skb, &p);
	if (bpf_skb_load_bytes(skb, L4_OFFSET, &q, sizeof(q)) || !is_ours(&q) ||
	    !read_inner(skb, &inner) || p.length + ETH_HLEN > skb->len ||
	    p.length < INNER_OFFSET + QUOTED_L4 + sizeof(ip) - ETH_HLEN)
		return leave(HANDBACK_other_protocol, TC_ACT_UNSPEC);
	room = told_room(&q);
	answer = is_answer_here(&inner);
	if (!room || (!answer && !is_question_here(&inner)))
		return leave(HANDBACK_other_protocol, TC_ACT_UNSPEC);
	p.length -= WRAP_LEN;
	if (answer)
		inner.t = reversed(&p.t); /* the router's own address stays */
	answer_header(&ip, &inner, IPPROTO_ICMP, p.length);
	p.t.saddr = ip.saddr;
	p.t.daddr = ip.daddr;
	if (quote_inner(skb, &q, &ip, room))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	return answer ? deliver_error(skb, &p, 0, 0) : forward_return(skb, &p);
}

#endif
