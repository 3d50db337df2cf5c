/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The tunnel between entry node and backend node: VXLAN (RFC 7348) with a VNI of our own. The
 * inner MACs carry meaning: 02:42 and an address name whom the packet is for (a backend by its
 * ingress address, or an entry node by its VTEP) and which entry node it came through.
 */
#ifndef EBPFMESH_ENCAP_H
#define EBPFMESH_ENCAP_H

#include "arp.h"
#include "checksum.h"
#include "counters.h"
#include "maglev.h"
#include "parse.h"

#define VXLAN_FLAG_VNI 0x08000000 /* host order */
#define OUTER_TTL 64

struct vxlan_header {
	__be32 flags;
	__be32 vni;
};

/* What a wrapped packet has in front of its inner IP header. Called aligned, so that it is not read
 * byte by byte: the machines that eBPF is compiled for here read words anywhere.
 */
struct outer {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	struct vxlan_header vxlan;
	struct ethhdr inner_eth;
} __attribute__((packed, aligned(4)));

#define WRAP_LEN ((int)(sizeof(struct outer) - sizeof(struct ethhdr)))
_Static_assert(WRAP_LEN == 50, "VXLAN over IPv4 costs 50 bytes");

/* What is left for a segment's payload: two IP headers, one TCP header, the tunnel. */
#define TUNNEL_MSS (UNDERLAY_MTU - WRAP_LEN - 40)

/* Who a wrapped packet is for, and through whom it came. */
struct inner {
	__be32 to;
	__be32 entry;
	__be32 outer_source;
};

/* Everything but the outer MACs. `length` is that of the inner IP packet. The source port
 * spreads flows over links and queues; a checksum of 0 is what RFC 7348 asks for.
 */
static __always_inline void outer_fill(struct outer *o, __be32 vtep, __be32 to, __be32 entry,
				       __u16 length, __u32 hash)
{
	__builtin_memset(&o->ip, 0, sizeof(o->ip));
	o->ip.version = 4;
	o->ip.ihl = 5;
	o->ip.tot_len = bpf_htons(length + WRAP_LEN);
	o->ip.frag_off = bpf_htons(IP_DF);
	o->ip.ttl = OUTER_TTL;
	o->ip.protocol = IPPROTO_UDP;
	o->ip.saddr = NODE_VTEP;
	o->ip.daddr = vtep;
	o->ip.check = ip_checksum(&o->ip);
	o->udp.source = bpf_htons(0xc000 | (hash & 0x3fff));
	o->udp.dest = bpf_htons(VXLAN_PORT);
	o->udp.len = bpf_htons(length + WRAP_LEN - sizeof(o->ip));
	o->udp.check = 0;
	o->vxlan.flags = bpf_htonl(VXLAN_FLAG_VNI);
	o->vxlan.vni = bpf_htonl(MESH_VNI << 8);
	docker_mac(o->inner_eth.h_dest, to);
	docker_mac(o->inner_eth.h_source, entry);
	o->inner_eth.h_proto = bpf_htons(ETH_P_IP);
	o->eth.h_proto = bpf_htons(ETH_P_IP);
}

/* Whether the packet is one of our tunnel's. */
static __always_inline bool is_wrapped(void *data, void *end)
{
	struct outer *o = data;

	if ((void *)(o + 1) > end)
		return false;
	return o->eth.h_proto == bpf_htons(ETH_P_IP) && o->ip.version == 4 && o->ip.ihl == 5 &&
	       o->ip.protocol == IPPROTO_UDP && o->ip.daddr == NODE_VTEP &&
	       !(o->ip.frag_off & bpf_htons(IP_FRAGMENT)) && o->udp.dest == bpf_htons(VXLAN_PORT) &&
	       o->vxlan.flags == bpf_htonl(VXLAN_FLAG_VNI) &&
	       o->vxlan.vni == bpf_htonl(MESH_VNI << 8);
}

/* Another node of the Swarm. This one sends itself nothing: what bears its address is forged. */
static __always_inline bool is_other_node(__be32 vtep)
{
	return vtep != NODE_VTEP && nodes.lookup(&vtep);
}

/* Reads and judges a wrapped packet; p is filled from the inner one, but for the ports of a later
 * fragment. An ICMP packet, which only tc can translate, is HANDBACK_other_protocol. `frame` is
 * what there is, from the outer Ethernet header on. The entry node wraps by itself, so it is the
 * outer source as well: answers are sent to it, and nothing wrapped shall go to an address that
 * merely a MAC has named.
 */
static __always_inline enum reason unwrap_check(void *data, void *end, __u32 frame,
						struct packet *p, struct inner *inner)
{
	struct outer *o = data;
	enum reason why;

	if ((void *)(o + 1) > end)
		return DROP_bad_inner;
	inner->outer_source = o->ip.saddr;
	if (!is_other_node(inner->outer_source))
		return DROP_bad_outer_source;
	if (o->inner_eth.h_proto != bpf_htons(ETH_P_IP))
		return DROP_bad_inner;
	__builtin_memcpy(&inner->to, o->inner_eth.h_dest + 2, 4);
	__builtin_memcpy(&inner->entry, o->inner_eth.h_source + 2, 4);
	if (inner->entry != inner->outer_source)
		return DROP_bad_inner;
	why = parse_ipv4(o + 1, end, p);
	if (why == HANDBACK_fragment && has_flows(p->protocol))
		why = REASON_NONE;
	if (why && (why != HANDBACK_other_protocol || p->protocol != IPPROTO_ICMP))
		return DROP_bad_inner;
	return length_is_true(p, frame - WRAP_LEN) ? why : DROP_bad_inner;
}

#endif
