/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* IPv6 packets, as far as the border between IPv6 clients and IPv4 tasks needs them: RFC 8200, RFC
 * 4443. A packet with extension headers, and so any fragment, is left to the kernel.
 */
#ifndef EBPFMESH_IP6_H
#define EBPFMESH_IP6_H

#include "checksum.h"
#include "icmp_error.h"
#include "surrogate.h"

#define PROTO_ICMP6 58
#define IP6_MIN_MTU 1280
#define IP6_HEADER_LEN ((int)sizeof(struct ip6_header))
#define L4_OFFSET6 (L3_OFFSET + IP6_HEADER_LEN)

struct ip6_header {
	__be32 first; /* version, traffic class, flow label */
	__be16 payload_length;
	__u8 next_header;
	__u8 hop_limit;
	struct ip6 saddr;
	struct ip6 daddr;
};

_Static_assert(sizeof(struct ip6_header) == sizeof(struct iphdr) + IP6_EXTRA, "RFC 8200, 3");

/* An ICMP error of each kind, up to the end of the quoted IP header. */
struct quoting {
	struct icmp_header icmp;
	struct iphdr ip;
};

struct quoting6 {
	struct icmp_header icmp;
	struct ip6_header ip;
};

static __always_inline __u8 traffic_class(const struct ip6_header *ip)
{
	return bpf_ntohl(ip->first) >> 20;
}

static __always_inline void ip6_fill(struct ip6_header *ip, __u8 class, __u16 length, __u8 next,
				     __u8 hops, const struct ip6 *from, const struct ip6 *to)
{
	ip->first = bpf_htonl(6U << 28 | (__u32)class << 20);
	ip->payload_length = bpf_htons(length);
	ip->next_header = next;
	ip->hop_limit = hops;
	ip->saddr = *from;
	ip->daddr = *to;
}

/* An IPv4 header without options. Nothing that comes from IPv6 may be fragmented on its way. */
static __always_inline void ip4_fill(struct iphdr *ip, __u8 tos, __u16 length, __u8 protocol,
				     __u8 ttl, __be32 from, __be32 to)
{
	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version = 4;
	ip->ihl = 5;
	ip->tos = tos;
	ip->tot_len = bpf_htons(length);
	ip->frag_off = bpf_htons(IP_DF);
	ip->ttl = ttl;
	ip->protocol = protocol;
	ip->saddr = from;
	ip->daddr = to;
	ip->check = ip_checksum(ip);
}

/* What ICMPv6 covers besides the message itself: RFC 8200, 8.1. */
static __always_inline __u32 pseudo_sum6(struct ip6_header *ip, __u32 seed)
{
	__be32 rest[2] = { bpf_htonl(bpf_ntohs(ip->payload_length)), bpf_htonl(ip->next_header) };

	seed = bpf_csum_diff(0, 0, ip->saddr.word, 2 * sizeof(struct ip6), seed);
	return bpf_csum_diff(0, 0, rest, sizeof(rest), seed);
}

static __always_inline int set_ethertype(struct __sk_buff *skb, __be16 type)
{
	return bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_proto), &type, sizeof(type), 0);
}

/* Whether there is a checksum: UDP may go without over IPv4, not over IPv6 (RFC 7915, 4.5). */
static __always_inline bool has_checksum(struct __sk_buff *skb, __u8 protocol, int l4)
{
	__be16 check = 0;

	if (protocol != IPPROTO_UDP)
		return true;
	return !bpf_skb_load_bytes(skb, l4 + offsetof(struct udphdr, check), &check, 2) && check;
}

/* The checksum of TCP or UDP at `l4` after its addresses were replaced; length and protocol, which
 * it also covers, add up to the same in both.
 */
static __always_inline int border_checksum(struct __sk_buff *skb, __u8 protocol, int l4,
					   __u32 address_diff)
{
	if (protocol == IPPROTO_UDP)
		return bpf_l4_csum_replace(skb, l4 + offsetof(struct udphdr, check), 0,
					   address_diff, BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0);
	return bpf_l4_csum_replace(skb, l4 + offsetof(struct tcphdr, check), 0, address_diff,
				   BPF_F_PSEUDO_HDR);
}

#endif
