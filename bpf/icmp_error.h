/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* ICMP errors quote the packet that they are about (RFC 792). About a translated flow, the quote
 * has to be translated back, or its sender does not know its own packet again: no path MTU, no
 * "connection refused" for UDP.
 */
#ifndef EBPFMESH_ICMP_ERROR_H
#define EBPFMESH_ICMP_ERROR_H

#include "flow_table.h"
#include "icmp.h"

#define ICMP_DEST_UNREACHABLE 3
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12

#define QUOTE_OFFSET (L4_OFFSET + (int)sizeof(struct icmp_header))
#define QUOTED_TUPLE_OFFSET (QUOTE_OFFSET + 12)

/* An ICMP error up to the quoted packet's ports. */
struct icmp_error {
	struct icmp_header icmp;
	struct iphdr ip;
	__be16 ports[2];
};

static __always_inline bool is_error_type(__u8 type)
{
	return type == ICMP_DEST_UNREACHABLE || type == ICMP_TIME_EXCEEDED ||
	       type == ICMP_PARAMETER_PROBLEM;
}

/* Reads an ICMP error about a flow; `quoted` is the packet that it quotes, as far as it goes. The
 * length in the IPv4 header has to be true: the tunnel's headers are made from the frame.
 */
static __always_inline bool icmp_error_read(struct __sk_buff *skb, const struct packet *p,
					    struct packet *quoted)
{
	struct icmp_error e;

	if (p->length < sizeof(struct iphdr) + sizeof(e) || p->length + ETH_HLEN > skb->len)
		return false;
	if (p->protocol != IPPROTO_ICMP || bpf_skb_load_bytes(skb, L4_OFFSET, &e, sizeof(e)))
		return false;
	if (!is_error_type(e.icmp.type) || e.ip.version != 4 || e.ip.ihl != 5 ||
	    e.ip.frag_off & bpf_htons(IP_OFFSET) || !has_flows(e.ip.protocol))
		return false;
	quoted->t.saddr = e.ip.saddr;
	quoted->t.daddr = e.ip.daddr;
	quoted->t.sport = e.ports[0];
	quoted->t.dport = e.ports[1];
	quoted->protocol = e.ip.protocol;
	return true;
}

/* The entry of the other direction knows how to turn the quoted packet back. */
static __always_inline struct flow_key quoted_key(const struct packet *quoted, __u32 vni)
{
	struct flow_key key = { .t = reversed(&quoted->t),
				.vni = vni,
				.protocol = quoted->protocol };

	return key;
}

/* Replaces the quoted 4-tuple. What its addresses add to the ICMP checksum, the quoted header's own
 * checksum takes away again; only the ports remain.
 */
static __always_inline int quote_rewrite(struct __sk_buff *skb, const struct packet *quoted,
					 const struct tuple *to)
{
	struct tuple from = quoted->t, target = *to;
	__u32 diff = bpf_csum_diff(&from.saddr, 8, &target.saddr, 8, 0);
	__be32 from_ports = *(__be32 *)&from.sport, to_ports = *(__be32 *)&target.sport;

	if (bpf_l3_csum_replace(skb, QUOTE_OFFSET + offsetof(struct iphdr, check), 0, diff, 0))
		return -1;
	if (from_ports != to_ports &&
	    bpf_l4_csum_replace(skb, L4_OFFSET + offsetof(struct icmp_header, checksum), from_ports,
				to_ports, 4))
		return -1;
	return bpf_skb_store_bytes(skb, QUOTED_TUPLE_OFFSET, &target, sizeof(target), 0);
}

/* Replaces an address of the ICMP packet itself; ICMP's checksum does not cover it. */
static __always_inline int address_rewrite(struct __sk_buff *skb, __u32 field, __be32 from,
					   __be32 to)
{
	if (from == to)
		return 0;
	if (bpf_l3_csum_replace(skb, L3_OFFSET + offsetof(struct iphdr, check), from, to, 4))
		return -1;
	return bpf_skb_store_bytes(skb, L3_OFFSET + field, &to, sizeof(to), 0);
}

/* An error that a backend, or a router on the way to it, sends to a client: about what the client
 * has sent. `reply` is the flow's entry. A router's own address stays.
 */
static __always_inline int error_to_client(struct __sk_buff *skb, const struct packet *p,
					   const struct packet *quoted, const struct flow *reply)
{
	struct tuple sent = reversed(&reply->to);
	__be32 source = p->t.saddr == quoted->t.daddr ? reply->to.saddr : p->t.saddr;

	if (quote_rewrite(skb, quoted, &sent))
		return -1;
	return address_rewrite(skb, offsetof(struct iphdr, saddr), p->t.saddr, source);
}

/* An error that a client, or a router on the way to it, sends to a backend: about what the backend
 * has sent. `flow` is the flow's entry.
 */
static __always_inline int error_to_backend(struct __sk_buff *skb, const struct packet *p,
					    const struct packet *quoted, const struct flow *flow)
{
	struct tuple sent = reversed(&flow->to);

	if (quote_rewrite(skb, quoted, &sent))
		return -1;
	return address_rewrite(skb, offsetof(struct iphdr, daddr), p->t.daddr, flow->to.daddr);
}

#endif
