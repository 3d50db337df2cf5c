/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Telling a client at once that nobody is there, as a kernel would: a TCP reset (RFC 9293,
 * 3.10.7.1), "port unreachable" for UDP (RFC 1122, 3.2.2.1), an ABORT for SCTP. The packet is
 * turned into its own answer, with the Ethernet addresses swapped; the caller sends it back.
 */
#ifndef EBPFMESH_REFUSE_H
#define EBPFMESH_REFUSE_H

#include "checksum.h"
#include "counters.h"
#include "icmp.h"
#include "parse.h"
#include "sctp.h"
#include "surrogate.h"

#define REFUSE_TTL 64
#define ICMP_UNREACHABLE 3
#define ICMP_PORT 3
/* RFC 1812, 4.3.2.3: an ICMP error has no more than 576 bytes. */
#define ICMP_QUOTE_MAX (576 - 28)
/* The least that is quoted behind the IP header: RFC 792. */
#define QUOTED_L4 8

struct reset {
	struct iphdr ip;
	struct tcphdr tcp;
};

struct unreachable {
	struct iphdr ip;
	struct icmp_header icmp;
};

static __always_inline int swap_macs(struct __sk_buff *skb)
{
	__u8 macs[12], swapped[12];

	if (bpf_skb_load_bytes(skb, 0, macs, sizeof(macs)))
		return -1;
	__builtin_memcpy(swapped, macs + 6, 6);
	__builtin_memcpy(swapped + 6, macs, 6);
	return bpf_skb_store_bytes(skb, 0, swapped, sizeof(swapped), 0);
}

/* The IP header of the answer to p. */
static __always_inline void answer_header(struct iphdr *ip, const struct packet *p, __u8 protocol,
					  __u16 length)
{
	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version = 4;
	ip->ihl = 5;
	ip->tot_len = bpf_htons(length);
	ip->frag_off = bpf_htons(IP_DF);
	ip->ttl = REFUSE_TTL;
	ip->protocol = protocol;
	ip->saddr = p->t.daddr;
	ip->daddr = p->t.saddr;
	ip->check = ip_checksum(ip);
}

/* Sequence numbers as the RFC has them: an acknowledged one is taken up, else all that the packet
 * brought is acknowledged.
 */
static __always_inline void reset_fill(struct tcphdr *reset, const struct packet *p,
				       const struct tcphdr *tcp)
{
	__u32 brought = p->length - sizeof(struct iphdr) - tcp->doff * 4;

	__builtin_memset(reset, 0, sizeof(*reset));
	reset->source = tcp->dest;
	reset->dest = tcp->source;
	reset->doff = sizeof(*reset) / 4;
	reset->rst = 1;
	if (tcp->ack) {
		reset->seq = tcp->ack_seq;
		return;
	}
	reset->ack = 1;
	reset->ack_seq = bpf_htonl(bpf_ntohl(tcp->seq) + brought + tcp->syn + tcp->fin);
}

static __always_inline int refuse_tcp(struct __sk_buff *skb, const struct packet *p)
{
	struct tcphdr tcp;
	struct reset r;

	if (p->tcp_flags & TCP_RST)
		return -1;
	if (bpf_skb_load_bytes(skb, L4_OFFSET, &tcp, sizeof(tcp)))
		return -1;
	answer_header(&r.ip, p, IPPROTO_TCP, sizeof(r));
	reset_fill(&r.tcp, p, &tcp);
	if (bpf_skb_change_tail(skb, ETH_HLEN + sizeof(r), 0))
		return -1;
	if (bpf_skb_store_bytes(skb, L3_OFFSET, &r, sizeof(r), BPF_F_RECOMPUTE_CSUM))
		return -1;
	return l4_checksum_set(skb, L4_OFFSET + offsetof(struct tcphdr, check), &r.tcp,
			       sizeof(r.tcp), pseudo_sum(&r.ip, sizeof(r.tcp)));
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

/* Turns the packet into an ICMP error that quotes its headers only. */
static __always_inline int error_headers(struct __sk_buff *skb, const struct packet *p, __be32 from,
					 __u8 type, __u8 code, __be32 rest)
{
	__u8 l4[QUOTED_L4] __attribute__((aligned(4)));
	struct unreachable u;
	struct iphdr quoted;

	if (bpf_skb_load_bytes(skb, L3_OFFSET, &quoted, sizeof(quoted)) ||
	    bpf_skb_load_bytes(skb, L4_OFFSET, l4, sizeof(l4)))
		return -1;
	answer_header(&u.ip, p, IPPROTO_ICMP, sizeof(u) + sizeof(quoted) + sizeof(l4));
	u.ip.saddr = from;
	u.ip.check = 0;
	u.ip.check = ip_checksum(&u.ip);
	u.icmp.type = type;
	u.icmp.code = code;
	u.icmp.checksum = 0;
	u.icmp.rest = rest;
	u.icmp.checksum = ~fold(
		bpf_csum_diff(0, 0, (__be32 *)&u.icmp, sizeof(u.icmp), quoted_sum(p, &quoted, l4)));
	if (bpf_skb_change_tail(skb, L4_OFFSET + QUOTED_L4, 0) ||
	    bpf_skb_adjust_room(skb, sizeof(u), BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO))
		return -1;
	return bpf_skb_store_bytes(skb, L3_OFFSET, &u, sizeof(u), BPF_F_RECOMPUTE_CSUM);
}

/* The quoted datagram need not be read for the checksum: a valid IP header sums up to nothing, and
 * a valid UDP datagram to the complement of its pseudo header. One whose checksum is still to be
 * finished (offload) will be valid when it is sent.
 */
static __always_inline int refuse_udp(struct __sk_buff *skb, const struct packet *p)
{
	struct unreachable u;
	struct iphdr quoted;
	__be16 check;
	__u32 sum;

	if (p->fragment)
		return error_headers(skb, p, p->t.daddr, ICMP_UNREACHABLE, ICMP_PORT, 0);
	if (p->length > ICMP_QUOTE_MAX || segments(skb) > 1)
		return -1;
	if (bpf_skb_load_bytes(skb, L4_OFFSET + offsetof(struct udphdr, check), &check, 2) ||
	    bpf_skb_load_bytes(skb, L3_OFFSET, &quoted, sizeof(quoted)) || !check)
		return -1;
	answer_header(&u.ip, p, IPPROTO_ICMP, p->length + sizeof(u));
	u.icmp.type = ICMP_UNREACHABLE;
	u.icmp.code = ICMP_PORT;
	u.icmp.checksum = 0;
	u.icmp.rest = 0;
	sum = bpf_csum_diff(0, 0, (__be32 *)&u.icmp, sizeof(u.icmp),
			    (__u16)~fold(pseudo_sum(&quoted, p->length - sizeof(quoted))));
	u.icmp.checksum = ~fold(sum);
	if (bpf_skb_adjust_room(skb, sizeof(u), BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO))
		return -1;
	return bpf_skb_store_bytes(skb, L3_OFFSET, &u, sizeof(u), BPF_F_RECOMPUTE_CSUM);
}

static __always_inline int refuse_sctp(struct __sk_buff *skb, const struct packet *p)
{
	struct sctp_start start = {};
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, L4_OFFSET, &start, SCTP_ANSWER_LEN))
		return -1;
	if (start.chunk.type == SCTP_INIT &&
	    bpf_skb_load_bytes(skb, L4_OFFSET + SCTP_ANSWER_LEN, &start.tag, sizeof(start.tag)))
		return -1;
	if (sctp_answer(&start))
		return -1;
	answer_header(&ip, p, PROTO_SCTP, sizeof(ip) + SCTP_ANSWER_LEN);
	if (bpf_skb_change_tail(skb, L4_OFFSET + SCTP_ANSWER_LEN, 0) ||
	    bpf_skb_store_bytes(skb, L3_OFFSET, &ip, sizeof(ip), BPF_F_RECOMPUTE_CSUM))
		return -1;
	return bpf_skb_store_bytes(skb, L4_OFFSET, &start, SCTP_ANSWER_LEN, BPF_F_RECOMPUTE_CSUM);
}

/* Turns the packet into its refusal. False if it is not one to be answered: then it is dropped. So
 * is a later fragment (RFC 1122, 3.2.2).
 */
static __always_inline bool refuse(struct __sk_buff *skb, const struct packet *p)
{
	int err = -1;

	if (p->fragment == FRAGMENT_LATER)
		return false;
	if (p->protocol == IPPROTO_TCP)
		err = refuse_tcp(skb, p);
	else if (p->protocol == IPPROTO_UDP)
		err = refuse_udp(skb, p);
	else if (p->protocol == PROTO_SCTP)
		err = refuse_sctp(skb, p);
	return !err && !swap_macs(skb);
}

/* Refuses a packet to where it came from. On an overlay network an address is nobody's surrogate.
 */
static __always_inline int refuse_back(struct __sk_buff *skb, const struct packet *p,
				       enum reason why)
{
	__u32 ifindex = came_in_by(skb);

	if (!refuse(skb, p))
		return leave(why, TC_ACT_SHOT);
	leave_on(p, why, 0);
	return p->vni ? bpf_redirect(ifindex, 0) : answer_out(skb, p->t.saddr, ifindex);
}

#endif
