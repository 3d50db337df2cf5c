/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* IPv6 clients, on their entry node: what has a surrogate as its destination becomes IPv6 again,
 * from the address that the client has asked, and leaves by the NIC that the client came in by.
 * Headers are mapped as RFC 7915, section 4, has it.
 */
#ifndef EBPFMESH_TO_IP6_H
#define EBPFMESH_TO_IP6_H

#include "from_ip6.h"

static __always_inline int become_ip6(struct __sk_buff *skb, const struct packet *p,
				      const struct surrogate *s)
{
	struct ip6_header ip;
	struct iphdr old;
	__u32 diff, length = p->length;

	if (segments(skb) > 1)
		length = skb->len - ETH_HLEN;
	if (length > 0xffff || bpf_skb_load_bytes(skb, L3_OFFSET, &old, sizeof(old)))
		return -1;
	ip6_fill(&ip, old.tos, length - sizeof(old), old.protocol, old.ttl, &s->node, &s->client);
	diff = bpf_csum_diff(&old.saddr, 8, ip.saddr.word, 2 * sizeof(struct ip6), 0);
	if (border_checksum(skb, old.protocol, L4_OFFSET, diff) ||
	    bpf_skb_change_proto(skb, bpf_htons(ETH_P_IPV6), 0) ||
	    set_ethertype(skb, bpf_htons(ETH_P_IPV6)))
		return -1;
	return bpf_skb_store_bytes(skb, L3_OFFSET, &ip, sizeof(ip), BPF_F_RECOMPUTE_CSUM);
}

/* Type and code of an ICMP error in ICMPv6 (RFC 7915, 4.2), 0 if it has no counterpart. */
static __always_inline __u16 icmp6_of_icmp(__u8 type, __u8 code)
{
	if (type == ICMP_TIME_EXCEEDED)
		return ICMP6_TIME_EXCEEDED << 8 | (code & 1);
	if (type != ICMP_DEST_UNREACHABLE || code == 2 || code > 13)
		return 0;
	if (code == ICMP_FRAGMENTATION_NEEDED)
		return ICMP6_TOO_BIG << 8;
	if (code == ICMP_PORT)
		return ICMP6_UNREACHABLE << 8 | 4;
	return ICMP6_UNREACHABLE << 8 | (code == 9 || code == 10 || code == 13);
}

static __always_inline __be32 mtu_for_ip6(__be32 rest)
{
	__u32 room = (bpf_ntohl(rest) & 0xffff) + IP6_EXTRA;

	return bpf_htonl(room < IP6_MIN_MTU ? IP6_MIN_MTU : room);
}

/* The ICMP error as ICMPv6; the reverse of error_becomes_ip4(). */
static __always_inline int error_becomes_ip6(struct __sk_buff *skb, const struct packet *p,
					     struct quoting *old, __u16 kind,
					     const struct surrogate *s)
{
	__u16 quoted = p->length - sizeof(struct iphdr) - sizeof(*old);
	struct {
		struct ip6_header ip;
		struct quoting6 q;
	} new;
	__u32 sum;

	ip6_fill(&new.ip, 0, sizeof(new.q) + quoted, PROTO_ICMP6, REFUSE_TTL, &s->node, &s->client);
	ip6_fill(&new.q.ip, old->ip.tos, bpf_ntohs(old->ip.tot_len) - sizeof(old->ip),
		 old->ip.protocol, old->ip.ttl, &s->client, &s->node);
	new.q.icmp.type = kind >> 8;
	new.q.icmp.code = kind & 0xff;
	new.q.icmp.rest = kind >> 8 == ICMP6_TOO_BIG ? mtu_for_ip6(old->icmp.rest) : 0;
	new.q.icmp.checksum = 0;
	sum = (__u16)~old->icmp.checksum;
	old->icmp.checksum = 0;
	sum = bpf_csum_diff((__be32 *)old, sizeof(*old), (__be32 *)&new.q, sizeof(new.q), sum);
	new.q.icmp.checksum = ~fold(pseudo_sum6(&new.ip, sum));
	if (bpf_skb_change_proto(skb, bpf_htons(ETH_P_IPV6), 0) ||
	    bpf_skb_adjust_room(skb, IP6_EXTRA, BPF_ADJ_ROOM_NET, BPF_F_ADJ_ROOM_FIXED_GSO) ||
	    set_ethertype(skb, bpf_htons(ETH_P_IPV6)))
		return -1;
	return bpf_skb_store_bytes(skb, L3_OFFSET, &new, sizeof(new), BPF_F_RECOMPUTE_CSUM);
}

static __always_inline int leave_error6(struct __sk_buff *skb, const struct packet *p,
					const struct surrogate *s)
{
	struct quoting old;
	__u16 kind;

	if (p->protocol != IPPROTO_ICMP || bpf_skb_load_bytes(skb, L4_OFFSET, &old, sizeof(old)))
		return leave(DROP_no_icmp6, TC_ACT_SHOT);
	kind = icmp6_of_icmp(old.icmp.type, old.icmp.code);
	if (!kind || old.ip.saddr != p->t.daddr || old.ip.version != 4 || old.ip.ihl != 5 ||
	    p->length < sizeof(struct iphdr) + sizeof(old) + 8 ||
	    p->length + 2 * IP6_EXTRA > IP6_MIN_MTU || p->length + ETH_HLEN > skb->len)
		return leave(DROP_no_icmp6, TC_ACT_SHOT);
	if (error_becomes_ip6(skb, p, &old, kind, s))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	return send_out(s->ifindex);
}

/* Takes over a packet for a surrogate, complete but for this. */
static __always_inline int mesh_to_ip6(struct __sk_buff *skb)
{
	struct packet p = {};
	enum reason why = parse_skb(skb, &p);
	struct surrogate *s = surrogates.lookup(&p.t.daddr);

	if (!s)
		return leave(DROP_no_surrogate, TC_ACT_SHOT);
	if (why == HANDBACK_other_protocol)
		return leave_error6(skb, &p, s);
	if (why == HANDBACK_fragment || p.fragment)
		return leave(DROP_ipv6_fragment, TC_ACT_SHOT);
	if (why)
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	/* Nobody asks by SCTP: what answers has been made up. */
	if (p.protocol != IPPROTO_TCP && p.protocol != IPPROTO_UDP)
		return leave(DROP_no_surrogate, TC_ACT_SHOT);
	if (segments(skb) <= 1 && p.length + IP6_EXTRA > UNDERLAY_MTU)
		return leave(DROP_too_big, TC_ACT_SHOT);
	if (!has_checksum(skb, p.protocol, L4_OFFSET))
		return leave(DROP_no_checksum, TC_ACT_SHOT);
	if (become_ip6(skb, &p, s))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	return send_out(s->ifindex);
}

#endif
