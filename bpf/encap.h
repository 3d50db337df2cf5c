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

/* In the byte behind the VNI, which RFC 7348 reserves. */
enum tunnel_mark {
	MARK_SECOND_CHANCE = 0x80, /* another node was to have it, and has sent it on: see second.h
				    */
	MARK_ATTEMPT = 0x0f, /* a mask: how often the SYN has got another backend: see retry.h */
	MARK_ALL = MARK_SECOND_CHANCE | MARK_ATTEMPT,
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
	__u8 mark; /* enum tunnel_mark */
};

/* Everything but the outer MACs. `length` is that of the inner IP packet. The source port
 * spreads flows over links and queues; a checksum of 0 is what RFC 7348 asks for.
 */
static __always_inline void outer_fill(struct outer *o, __be32 vtep, __be32 to, __be32 entry,
				       __u16 length, __u32 hash, __u8 mark)
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
	o->vxlan.vni = bpf_htonl(MESH_VNI << 8 | mark);
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
	       (o->vxlan.vni & ~bpf_htonl(MARK_ALL)) == bpf_htonl(MESH_VNI << 8);
}

/* What a tag says of a packet out of the tunnel. */
static __always_inline __u32 tag_kind(enum tag_kind kind, __u8 mark)
{
	return kind | mark << 8;
}

/* Another node of the Swarm. This one sends itself nothing: what bears its address is forged. */
static __always_inline bool is_other_node(__be32 vtep)
{
	return vtep != NODE_VTEP && nodes.lookup(&vtep);
}

/* Whether the outer source may have sent this. The entry node wraps by itself: answers are sent to
 * it, and nothing wrapped shall go to an address that merely a MAC has named. Of a second chance
 * the entry node is a third one, or this one.
 */
static __always_inline bool may_wrap(const struct inner *inner)
{
	__be32 entry = inner->entry;

	if (!(inner->mark & MARK_SECOND_CHANCE))
		return entry == inner->outer_source;
	return entry != inner->outer_source && inner->to != NODE_VTEP && nodes.lookup(&entry);
}

/* Reads and judges a wrapped packet; p is filled from the inner one, but for the ports of a later
 * fragment. An ICMP packet, which only tc can translate, is HANDBACK_other_protocol. `frame` is
 * what there is, from the outer Ethernet header on.
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
	inner->mark = bpf_ntohl(o->vxlan.vni) & MARK_ALL;
	if (!may_wrap(inner))
		return DROP_bad_inner;
	if (inner->entry == NODE_VTEP)
		inner->entry = 0;
	why = parse_ipv4(o + 1, end, p);
	if (why == HANDBACK_fragment && has_flows(p->protocol))
		why = REASON_NONE;
	if (why && (why != HANDBACK_other_protocol || p->protocol != IPPROTO_ICMP))
		return DROP_bad_inner;
	return length_is_true(p, frame - WRAP_LEN) ? why : DROP_bad_inner;
}

#endif
