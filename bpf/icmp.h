/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* ICMP at a VIP: an echo request is answered here, as no task owns the address. RFC 792. */
#ifndef EBPFMESH_ICMP_H
#define EBPFMESH_ICMP_H

#include "arp.h"
#include "counters.h"
#include "parse.h"

#define ECHO_TTL 64

#define ICMP_ECHO_REPLY 0
#define ICMP_ECHO 8

struct icmp_header {
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__be32 rest;
};

static __always_inline void swap_addresses(struct ethhdr *eth, struct iphdr *ip)
{
	__be32 address = ip->saddr;

	ip->saddr = ip->daddr;
	ip->daddr = address;
	__builtin_memcpy(eth->h_dest, eth->h_source, 6);
	docker_mac(eth->h_source, ip->saddr);
}

/* The checksum after one of the words that it covers was replaced. RFC 1624, equation 3. */
static __always_inline __sum16 checksum_replaced(__sum16 check, __be16 from, __be16 to)
{
	__u32 sum = (__u16)~check + (__u16)~from + to;

	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__sum16)~sum;
}

/* The answer begins a way of its own, whatever was left of the request's. */
static __always_inline void renew_ttl(struct iphdr *ip)
{
	__be16 *ttl_and_protocol = (__be16 *)&ip->ttl;
	__be16 old = *ttl_and_protocol;

	ip->ttl = ECHO_TTL;
	ip->check = checksum_replaced(ip->check, old, *ttl_and_protocol);
}

/* For a packet that parse_ipv4 found to be HANDBACK_other_protocol. */
static __always_inline int vip_icmp(struct __sk_buff *skb, const struct packet *p, __u32 vni)
{
	struct frontend_key key = { .address = p->t.daddr, .vni = vni };
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct icmp_header *icmp = data + L4_OFFSET;
	struct iphdr *ip = data + L3_OFFSET;
	struct frontend *frontend;

	if (p->protocol != IPPROTO_ICMP)
		return leave(HANDBACK_other_protocol, TC_ACT_UNSPEC);
	frontend = frontends.lookup(&key);
	if (!frontend || frontend->kind != FRONTEND_VIP)
		return leave(HANDBACK_other_protocol, TC_ACT_UNSPEC);
	if ((void *)(icmp + 1) > end)
		return leave(HANDBACK_truncated, TC_ACT_UNSPEC);
	if (icmp->type != ICMP_ECHO)
		return leave(HANDBACK_other_protocol, TC_ACT_UNSPEC);

	swap_addresses(data, ip);
	renew_ttl(ip);
	icmp->type = ICMP_ECHO_REPLY;
	icmp->checksum = checksum_replaced(icmp->checksum, bpf_htons(ICMP_ECHO << 8), 0);
	return bpf_redirect(skb->ifindex, 0);
}

#endif
