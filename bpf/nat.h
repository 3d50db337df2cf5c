/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Rewriting addresses, ports and checksums of a socket buffer. */
#ifndef EBPFMESH_NAT_H
#define EBPFMESH_NAT_H

#include "checksum.h"
#include "flow.h"
#include "parse.h"
#include "sctp.h"

static __always_inline int l4_checksum_offset(__u8 protocol)
{
	if (protocol == IPPROTO_TCP)
		return L4_OFFSET + offsetof(struct tcphdr, check);
	if (protocol == IPPROTO_UDP)
		return L4_OFFSET + offsetof(struct udphdr, check);
	return 0; /* SCTP's does not cover addresses, and is no sum */
}

/* The pseudo header's part is kept apart: a checksum that the card is to finish (offload)
 * holds only that part yet. A UDP checksum of 0 means none, and stays.
 */
static __always_inline int nat_l4_checksum(struct __sk_buff *skb, const struct packet *p,
					   const struct tuple *to, __u32 address_diff)
{
	__u64 udp = p->protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	int offset = l4_checksum_offset(p->protocol);
	__be32 from_ports = *(const __be32 *)&p->t.sport;
	__be32 to_ports = *(const __be32 *)&to->sport;
	int err;

	if (!offset) {
		if (from_ports == to_ports)
			return 0;
		if (p->fragment)
			return -1; /* what its checksum covers is not all here */
		sctp_new_ports(skb, p->length - sizeof(struct iphdr), from_ports, to_ports);
		return 0;
	}
	if (p->fragment == FRAGMENT_LATER)
		return 0;
	err = bpf_l4_csum_replace(skb, offset, 0, address_diff, BPF_F_PSEUDO_HDR | udp);
	if (err || from_ports == to_ports)
		return err;
	return bpf_l4_csum_replace(skb, offset, from_ports, to_ports, 4 | udp);
}

/* What other addresses change in a sum over them. */
static __always_inline __u32 address_diff(const struct tuple *from, const struct tuple *to)
{
	return fold64((__u64)(__u32)~from->saddr + (__u32)~from->daddr + to->saddr + to->daddr);
}

/* Written straight into the packet: each helper that writes costs as much as a look-up. */
static __always_inline int nat_headers(struct __sk_buff *skb, const struct packet *p,
				       const struct tuple *to, __u32 diff, __u8 hops)
{
	struct iphdr *ip = start_of(skb) + L3_OFFSET;
	void *end = end_of(skb);
	__be16 *ports = (void *)(ip + 1);

	if ((void *)(ip + 1) > end)
		return -1;
	if (hops) /* from the upper half of its word */
		diff = fold(diff) + (__u16)~bpf_htons(hops << 8);
	ip->ttl = p->ttl - hops;
	ip->check = checksum_changed(ip->check, diff);
	ip->saddr = to->saddr;
	ip->daddr = to->daddr;
	if (p->fragment == FRAGMENT_LATER)
		return 0;
	if ((void *)(ports + 2) > end)
		return -1;
	ports[0] = to->sport;
	ports[1] = to->dport;
	return 0;
}

/* Rewrites the packet's 4-tuple to `to`, and takes `hops` off its TTL. A fragment's checksum is
 * that of the whole datagram, and in the first one, as the ports are.
 */
static __always_inline int nat_write(struct __sk_buff *skb, const struct packet *p,
				     const struct tuple *to, __u8 hops)
{
	struct tuple target = *to;
	__u32 diff = address_diff(&p->t, &target);
	int err;

	note_first_fragment(p);
	err = nat_l4_checksum(skb, p, &target, diff);
	return err ? err : nat_headers(skb, p, &target, diff, hops);
}

/* As between hosts of one link. Returns 0, or an error of the kernel. */
static __always_inline int nat_rewrite(struct __sk_buff *skb, const struct packet *p,
				       const struct tuple *to)
{
	return same_tuple(&p->t, to) ? 0 : nat_write(skb, p, to, 0);
}

/* As a router does: one hop. The TTL must have been looked at. */
static __always_inline int nat_route(struct __sk_buff *skb, const struct packet *p,
				     const struct tuple *to)
{
	return nat_write(skb, p, to, 1);
}

static __always_inline int set_destination_mac(struct __sk_buff *skb, const __u8 mac[6])
{
	struct ethhdr *eth = start_of(skb);

	if ((void *)(eth + 1) > end_of(skb))
		return -1;
	__builtin_memcpy(__builtin_assume_aligned(eth->h_dest, 2), __builtin_assume_aligned(mac, 2),
			 6);
	return 0;
}

#define TCP_OPTIONS 8 /* looked at, at most, to find the MSS */

/* Lowers the MSS option of a SYN or SYN-ACK to `limit` (host order), so that its segments have
 * room for the tunnel's headers. RFC 9293, 3.7.1. `length` is that of the IPv4 packet: what claims
 * to have options beyond it is thrown away by its receiver.
 */
static __always_inline int mss_clamp(struct __sk_buff *skb, __u32 length, __u32 limit)
{
	__u32 offset = L4_OFFSET + sizeof(struct tcphdr);
	__u8 data_offset, option[4];
	__be16 old, new = bpf_htons(limit);
	__u32 end;

	if (bpf_skb_load_bytes(skb, L4_OFFSET + 12, &data_offset, 1))
		return 0;
	end = L4_OFFSET + (data_offset >> 4) * 4;
	if (end > L3_OFFSET + length)
		return 0;
	for (int i = 0; i < TCP_OPTIONS && offset + 4 <= end; i++) {
		if (bpf_skb_load_bytes(skb, offset, option, 4))
			return 0;
		if (option[0] == 1) { /* no operation */
			offset += 1;
			continue;
		}
		if (option[0] == 2 && option[1] == 4)
			break;
		if (option[0] == 0 || option[1] < 2)
			return 0;
		offset += option[1];
	}
	if (offset + 4 > end || option[0] != 2 || option[1] != 4)
		return 0;
	old = *(__be16 *)&option[2];
	if (bpf_ntohs(old) <= limit)
		return 0;
	if (bpf_skb_store_bytes(skb, offset + 2, &new, 2, 0))
		return -1;
	/* A checksum adds 16-bit words: at an odd offset the bytes lie the other way round. */
	if (offset & 1) {
		old = bpf_htons(__builtin_bswap16(bpf_ntohs(old)));
		new = bpf_htons(__builtin_bswap16(limit));
	}
	return bpf_l4_csum_replace(skb, L4_OFFSET + offsetof(struct tcphdr, check), old, new, 2);
}

#endif
