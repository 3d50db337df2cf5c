/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A packet that finds no room in the tunnel and may be fragmented is made two fragments (RFC 791,
 * 3.2). This one becomes the first part and goes on at once: what comes behind it is not to
 * overtake it. A copy, marked, comes in again where the packet did, takes the same way as far as to
 * here, and becomes the rest.
 *
 * Nobody else can set the mark: what comes from a wire or out of another namespace has none. One
 * who did would lose the first part of his own packet.
 */
#ifndef EBPFMESH_SPLIT_H
#define EBPFMESH_SPLIT_H

#include "checksum.h"
#include "encap.h"
#include "nat.h"
#include "too_big.h"

#define SPLIT_MARK 0xebf0da52

/* No more than the kernel takes out of a packet at once. */
#define SPLIT_MOST 4088
/* The rest of a packet that was whole may not be longer: it is read for the checksum. */
#define SPLIT_CHUNK 64
#define SPLIT_REST_MAX (8 * SPLIT_CHUNK)

/* What the first part keeps of the payload: a multiple of 8. */
static __always_inline int split_length(void)
{
	int room = ((int)TUNNEL_MTU - (int)sizeof(struct iphdr)) & ~7;

	return room < SPLIT_MOST ? room : SPLIT_MOST;
}

/* Only a whole packet can have a checksum that is not finished; that of SCTP could not be told. */
static __always_inline bool is_to_split(const struct __sk_buff *skb, const struct packet *p)
{
	return !p->dont_fragment && (p->protocol != PROTO_SCTP || p->fragment) &&
	       !fits(skb, p, TUNNEL_MTU);
}

/* Whether the packet is the copy of one that was split, on its second way. */
static __always_inline bool is_split_rest(const struct __sk_buff *skb, const struct packet *p)
{
	return skb->mark == SPLIT_MARK && is_to_split(skb, p);
}

/* The sum of all that lies behind the first part. Behind its end the packet is filled up with
 * zeros, so that nothing of it has a length that varies.
 */
static __always_inline int rest_sum(struct __sk_buff *skb, const struct packet *p, __u32 *sum)
{
	__u8 chunk[SPLIT_CHUNK] __attribute__((aligned(4)));
	int rest = L4_OFFSET + split_length();

	if (bpf_skb_change_tail(skb, p->length + ETH_HLEN, 0) ||
	    bpf_skb_change_tail(skb, rest + SPLIT_REST_MAX, 0))
		return -1;
	for (int i = 0; i < SPLIT_REST_MAX; i += SPLIT_CHUNK) {
		if (bpf_skb_load_bytes(skb, rest + i, chunk, sizeof(chunk)))
			return -1;
		*sum = bpf_csum_diff(0, 0, (__be32 *)chunk, sizeof(chunk), *sum);
	}
	return 0;
}

/* A checksum that the card is to finish (offload) will cover the first part only: the rest is added
 * to what it holds. Any other stays: the first helper changes both kinds, the second changes the
 * other kind back.
 */
static __always_inline int add_rest_to_checksum(struct __sk_buff *skb, const struct packet *p)
{
	__u64 udp = p->protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	int offset = l4_checksum_offset(p->protocol);
	__u32 sum = 0;

	if (!offset || rest_sum(skb, p, &sum) ||
	    bpf_l4_csum_replace(skb, offset, 0, sum, BPF_F_PSEUDO_HDR | udp) ||
	    bpf_l4_csum_replace(skb, offset, 0, ~sum, udp))
		return -1;
	bpf_csum_update(skb, sum); /* where the card has summed up the packet: it has not changed */
	return 0;
}

static __always_inline int fragment_header(struct __sk_buff *skb, struct packet *p, __u16 payload,
					   __u16 moved, bool more)
{
	struct iphdr ip;
	__u16 offset;

	if (bpf_skb_load_bytes(skb, L3_OFFSET, &ip, sizeof(ip)))
		return -1;
	offset = bpf_ntohs(ip.frag_off) + moved / 8;
	if (more)
		offset |= IP_MF;
	p->length = sizeof(ip) + payload;
	p->id = ip.id;
	p->fragment = offset & IP_OFFSET ? FRAGMENT_LATER : FRAGMENT_FIRST;
	ip.tot_len = bpf_htons(p->length);
	ip.frag_off = bpf_htons(offset);
	ip.check = 0;
	ip.check = ip_checksum(&ip);
	return bpf_skb_store_bytes(skb, L3_OFFSET, &ip, sizeof(ip), 0);
}

/* Cuts the packet after the first part, and sends a copy of it on its second way. */
static __always_inline int split_first(struct __sk_buff *skb, struct packet *p)
{
	int length = split_length(), most = sizeof(struct iphdr) + length + SPLIT_REST_MAX;
	bool whole = !p->fragment;
	__u32 mark = skb->mark;
	int err;

	if (whole && p->length > most)
		return -1;
	skb->mark = SPLIT_MARK;
	err = bpf_clone_redirect(skb, skb->ifindex, BPF_F_INGRESS);
	skb->mark = mark;
	if (err || (whole && add_rest_to_checksum(skb, p)))
		return -1;
	if (bpf_skb_change_tail(skb, L4_OFFSET + length, 0))
		return -1;
	return fragment_header(skb, p, length, 0, true);
}

/* Takes the first part out. If the checksum was the card's to finish, it is no longer: the kernel
 * sees that its place has gone.
 */
static __always_inline int split_rest(struct __sk_buff *skb, struct packet *p)
{
	int length = split_length();
	__u16 payload = p->length - sizeof(struct iphdr) - length;

	skb->mark = 0;
	if (bpf_skb_adjust_room(skb, -length, BPF_ADJ_ROOM_NET, BPF_F_ADJ_ROOM_FIXED_GSO))
		return -1;
	return fragment_header(skb, p, payload, length, false);
}

/* Makes a packet that is too big for the tunnel, and may be fragmented, fit. p describes it as it
 * is afterwards.
 */
static __always_inline int split(struct __sk_buff *skb, struct packet *p)
{
	if (split_length() <= L4_OFFSET) /* of an MTU below what IPv4 asks for */
		return -1;
	if (is_split_rest(skb, p) && split_rest(skb, p))
		return -1;
	return p->length <= TUNNEL_MTU ? 0 : split_first(skb, p);
}

#endif
