/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* IPv6 clients, on the node's NICs: a packet for a published port becomes one of IPv4, from the
 * client's surrogate to the node's own address, and goes the way of all such packets. Headers are
 * mapped as RFC 7915, section 5, has it.
 */
#ifndef EBPFMESH_FROM_IP6_H
#define EBPFMESH_FROM_IP6_H

#include "ip6.h"
#include "mesh_nic.h"

#define ICMP6_UNREACHABLE 1
#define ICMP6_TOO_BIG 2
#define ICMP6_TIME_EXCEEDED 3

struct packet6 {
	struct ip6_header ip;
	__be16 sport;
	__be16 dport;
};

static __always_inline bool is_extension(__u8 next_header)
{
	return next_header == 0 || next_header == 43 || next_header == 44 || next_header == 50 ||
	       next_header == 51 || next_header == 60 || next_header == 135;
}

/* An address that a client can have: unicast, and IPv6 throughout. */
static __always_inline bool is_client6(const struct ip6 *a)
{
	if (!a->word[0] && !a->word[1])
		return a->word[2] && a->word[2] != bpf_htonl(0xffff);
	return bpf_ntohl(a->word[0]) >> 24 != 0xff;
}

static __always_inline bool is_nodes_ip6(const struct ip6 *a)
{
	struct ip6 key = *a;

	return addresses6.lookup(&key);
}

/* An answer to a connection that the node itself has opened, from a port that is published. */
static __always_inline bool has_local_socket6(struct __sk_buff *skb, const struct packet6 *p)
{
	struct bpf_sock_tuple t = {};
	struct bpf_sock *sk;
	bool open;

	__builtin_memcpy(t.ipv6.saddr, &p->ip.saddr, 2 * sizeof(struct ip6));
	t.ipv6.sport = p->sport;
	t.ipv6.dport = p->dport;
	sk = bpf_skc_lookup_tcp(skb, &t, sizeof(t.ipv6), BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return false;
	open = sk->state != BPF_TCP_LISTEN;
	bpf_sk_release(sk);
	return open;
}

/* Whether the length in the header can be true. Of many segments in one buffer it may not tell. */
static __always_inline bool length6_is_true(struct __sk_buff *skb, const struct ip6_header *ip)
{
	__u32 l4 = ip->next_header == IPPROTO_TCP ? sizeof(struct tcphdr) : sizeof(struct udphdr);
	__u32 length = bpf_ntohs(ip->payload_length);

	return length >= l4 && length <= 0xffff - sizeof(struct iphdr) &&
	       (segments(skb) > 1 || length + L4_OFFSET6 <= skb->len);
}

/* Why this packet is none of ours, or REASON_NONE. */
static __always_inline enum reason judge6(struct __sk_buff *skb, const struct packet6 *p)
{
	struct frontend *frontend = port_frontend(p->dport, p->ip.next_header);
	__u8 flags = 0;

	if (!frontend)
		return HANDBACK_no_frontend;
	if (!is_nodes_ip6(&p->ip.daddr) || !is_client6(&p->ip.saddr))
		return HANDBACK_foreign_address;
	if (!length6_is_true(skb, &p->ip))
		return HANDBACK_truncated;
	if (p->ip.next_header == IPPROTO_TCP) {
		if (bpf_skb_load_bytes(skb, L4_OFFSET6 + 13, &flags, 1))
			return HANDBACK_truncated;
		if ((flags & (TCP_SYN | TCP_ACK)) != TCP_SYN && has_local_socket6(skb, p))
			return HANDBACK_local_socket;
	}
	if (frontend->flags & FRONTEND_RESTRICTED && !is_listed6(frontend->pool, &p->ip.saddr))
		return DROP_not_allowed;
	return REASON_NONE;
}

/* The packet as IPv4, from `surrogate` to this node. */
static __always_inline int become_ip4(struct __sk_buff *skb, const struct ip6_header *ip6,
				      __be32 surrogate)
{
	__u16 length = bpf_ntohs(ip6->payload_length) + sizeof(struct iphdr);
	struct iphdr ip;
	__u32 diff;

	ip4_fill(&ip, traffic_class(ip6), length, ip6->next_header, ip6->hop_limit, surrogate,
		 NODE_VTEP);
	diff = bpf_csum_diff((__be32 *)&ip6->saddr, 2 * sizeof(struct ip6), &ip.saddr, 8, 0);
	if (border_checksum(skb, ip6->next_header, L4_OFFSET6, diff) ||
	    bpf_skb_change_proto(skb, bpf_htons(ETH_P_IP), 0) ||
	    set_ethertype(skb, bpf_htons(ETH_P_IP)))
		return -1;
	return bpf_skb_store_bytes(skb, L3_OFFSET, &ip, sizeof(ip), BPF_F_RECOMPUTE_CSUM);
}

/* A segment of a task's answer is 20 bytes longer as IPv6. */
static __always_inline int clamp6(struct __sk_buff *skb, const struct ip6_header *ip)
{
	__u32 length = bpf_ntohs(ip->payload_length) + sizeof(struct iphdr);
	__u8 flags;

	if (ip->next_header != IPPROTO_TCP)
		return 0;
	if (bpf_skb_load_bytes(skb, L4_OFFSET + 13, &flags, 1))
		return -1;
	return flags & TCP_SYN ? mss_clamp(skb, length, UNDERLAY_MTU - IP6_EXTRA - 40) : 0;
}

static __always_inline int enter6(struct __sk_buff *skb, const struct packet6 *p)
{
	struct surrogate wanted = { .client = p->ip.saddr, .node = p->ip.daddr };
	enum reason why = judge6(skb, p);
	__be32 address;

	if (why == DROP_not_allowed)
		return leave(why, TC_ACT_SHOT);
	if (why)
		return TC_ACT_UNSPEC; /* nic_ingress counts it, as HANDBACK_not_ipv4 */
	if (!has_checksum(skb, p->ip.next_header, L4_OFFSET6))
		return leave(DROP_no_checksum, TC_ACT_SHOT);
	wanted.seen_ns = bpf_ktime_get_coarse_ns();
	wanted.ifindex = skb->ifindex;
	address = surrogate_find(&wanted);
	if (!address)
		address = surrogate_claim(&wanted);
	if (!address)
		return leave(DROP_no_surrogate, TC_ACT_SHOT);
	if (become_ip4(skb, &p->ip, address) || clamp6(skb, &p->ip))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	return enter_as_ip4(skb);
}

/* Type and code of an ICMPv6 error in ICMP (RFC 7915, 5.2), 0 if it has no counterpart. */
static __always_inline __u16 icmp_of_icmp6(__u8 type, __u8 code)
{
	if (type == ICMP6_TOO_BIG)
		return ICMP_DEST_UNREACHABLE << 8 | ICMP_FRAGMENTATION_NEEDED;
	if (type == ICMP6_TIME_EXCEEDED)
		return ICMP_TIME_EXCEEDED << 8 | (code & 1);
	if (type != ICMP6_UNREACHABLE)
		return 0;
	if (code == 4)
		return ICMP_DEST_UNREACHABLE << 8 | ICMP_PORT;
	return ICMP_DEST_UNREACHABLE << 8 | (code == 1 ? 10 : 1);
}

static __always_inline __be32 mtu_for_ip4(__be32 mtu)
{
	__u32 room = bpf_ntohl(mtu);

	if (room < IP6_MIN_MTU)
		room = IP6_MIN_MTU;
	return bpf_htonl(room > 0xffff ? 0xffff : room - IP6_EXTRA);
}

/* The ICMPv6 error as ICMP. It comes from the surrogate: a router on the way has none. What the
 * quoted packet itself holds stays, so the new checksum follows from the old one.
 */
static __always_inline int error_becomes_ip4(struct __sk_buff *skb, struct packet6 *p,
					     struct quoting6 *old, __u16 kind, __be32 surrogate)
{
	__u16 quoted = bpf_ntohs(p->ip.payload_length) - sizeof(*old);
	struct {
		struct iphdr ip;
		struct quoting q;
	} new;
	__u32 sum;

	ip4_fill(&new.ip, traffic_class(&p->ip), sizeof(new) + quoted, IPPROTO_ICMP,
		 p->ip.hop_limit, surrogate, NODE_VTEP);
	ip4_fill(&new.q.ip, traffic_class(&old->ip),
		 bpf_ntohs(old->ip.payload_length) + sizeof(new.q.ip), old->ip.next_header,
		 old->ip.hop_limit, NODE_VTEP, surrogate);
	new.q.icmp.type = kind >> 8;
	new.q.icmp.code = kind & 0xff;
	new.q.icmp.rest = old->icmp.type == ICMP6_TOO_BIG ? mtu_for_ip4(old->icmp.rest) : 0;
	new.q.icmp.checksum = 0;
	sum = (__u16)~old->icmp.checksum;
	old->icmp.checksum = 0;
	/* Take away what ICMPv6 covers besides the message, and the headers that go. */
	sum += (__u16)~fold(pseudo_sum6(&p->ip, 0));
	sum = bpf_csum_diff((__be32 *)old, sizeof(*old), (__be32 *)&new.q, sizeof(new.q), sum);
	new.q.icmp.checksum = ~fold(sum);
	if (bpf_skb_change_proto(skb, bpf_htons(ETH_P_IP), 0) ||
	    bpf_skb_adjust_room(skb, -IP6_EXTRA, BPF_ADJ_ROOM_NET, BPF_F_ADJ_ROOM_FIXED_GSO) ||
	    set_ethertype(skb, bpf_htons(ETH_P_IP)))
		return -1;
	return bpf_skb_store_bytes(skb, L3_OFFSET, &new, sizeof(new), BPF_F_RECOMPUTE_CSUM);
}

/* Whether an answer of these ports, to whom `surrogate` stands for, is one of a flow that came in
 * here.
 */
static __always_inline bool is_entered6(__be32 surrogate, const __be16 ports[2], __u8 protocol)
{
	struct flow_key key = { .t = { .saddr = surrogate,
				       .daddr = NODE_VTEP,
				       .sport = ports[1],
				       .dport = ports[0] },
				.protocol = protocol };

	return entry_find(&key);
}

/* An ICMPv6 error about an answer to an IPv6 client. All other ICMPv6 is the kernel's. */
static __always_inline int error6(struct __sk_buff *skb, struct packet6 *p)
{
	struct surrogate wanted = {};
	struct quoting6 old;
	__be16 ports[2];
	__be32 address;
	__u16 kind;

	if (bpf_skb_load_bytes(skb, L4_OFFSET6, &old, sizeof(old)) ||
	    bpf_skb_load_bytes(skb, L4_OFFSET6 + sizeof(old), ports, sizeof(ports)))
		return TC_ACT_UNSPEC;
	kind = icmp_of_icmp6(old.icmp.type, old.icmp.code);
	if (!kind || !port_frontend(ports[0], old.ip.next_header) || !is_nodes_ip6(&p->ip.daddr) ||
	    bpf_ntohs(p->ip.payload_length) + L4_OFFSET6 > skb->len ||
	    bpf_ntohs(p->ip.payload_length) < sizeof(old) + 8)
		return TC_ACT_UNSPEC;
	wanted.seen_ns = bpf_ktime_get_coarse_ns();
	wanted.client = old.ip.daddr;
	wanted.node = old.ip.saddr;
	address = surrogate_find(&wanted);
	if (!address || !is_entered6(address, ports, old.ip.next_header))
		return TC_ACT_UNSPEC;
	if (error_becomes_ip4(skb, p, &old, kind, address))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	return enter_as_ip4(skb);
}

/* tc ingress of the node's NICs, for IPv6 alone. What is not for a published port passes on, to
 * nic_ingress and whoever else is there.
 */
static __always_inline int mesh_ip6(struct __sk_buff *skb)
{
	struct packet6 p;

	if (skb->protocol != bpf_htons(ETH_P_IPV6) || skb->vlan_present ||
	    bpf_skb_load_bytes(skb, L3_OFFSET, &p, sizeof(p)) || bpf_ntohl(p.ip.first) >> 28 != 6)
		return TC_ACT_UNSPEC;
	if (p.ip.next_header == IPPROTO_TCP || p.ip.next_header == IPPROTO_UDP)
		return enter6(skb, &p);
	if (p.ip.next_header == PROTO_ICMP6)
		return error6(skb, &p);
	if (is_extension(p.ip.next_header) && is_nodes_ip6(&p.ip.daddr)) {
		skb->cb[CB_COUNTED] = COUNTED_ALREADY;
		return leave(HANDBACK_ipv6_extension, TC_ACT_UNSPEC);
	}
	return TC_ACT_UNSPEC;
}

/* What nic_ingress has found to be the kernel's: a client of what cannot be balanced now. */
static __always_inline int mesh_refuse_ip6(struct __sk_buff *skb)
{
	struct packet p = {};

	if (parse_skb(skb, &p))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	return refuse(skb, &p) ? hand_over(skb, PROGRAM_TO_IP6) : TC_ACT_SHOT;
}

#endif
