/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A VIP has no owner: its ARP requests are answered here. So are those for whom Docker does not
 * know yet: see newcomer.h. RFC 826.
 */
#ifndef EBPFMESH_ARP_H
#define EBPFMESH_ARP_H

#include "counters.h"
#include "newcomer.h"
#include "parse.h"

#define ARP_REQUEST 1
#define ARP_REPLY 2

struct arp_ipv4 {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_len;
	__u8 protocol_len;
	__be16 operation;
	__u8 sender_mac[6];
	__u8 sender[4]; /* addresses lie unaligned behind the MAC */
	__u8 target_mac[6];
	__u8 target[4];
};

/* The MAC of a VIP: that of Docker's own load balancer of the network, if there is one. Programs
 * rewrite it anyway, but what is left to the kernel has to get there, and whoever has asked before
 * the programs were taken off goes on with it.
 */
static __always_inline void vip_mac(__u8 mac[6], __be32 address, __u32 vni)
{
	struct endpoint_key key = { .vni = vni };
	struct endpoint *balancer = endpoints.lookup(&key);

	if (balancer)
		__builtin_memcpy(mac, balancer->mac, 6);
	else
		docker_mac(mac, address);
}

static __always_inline bool is_vip(const __u8 address[4], __u32 vni)
{
	struct frontend_key key = { .vni = vni };
	struct frontend *frontend;

	__builtin_memcpy(&key.address, address, 4);
	frontend = frontends.lookup(&key);
	return frontend && frontend->kind == FRONTEND_VIP;
}

/* Whether it is answered here where an address is, and with which MAC. Nobody is told his own. */
static __always_inline bool arp_knows(const struct arp_ipv4 *arp, __be32 address, __u32 vni,
				      __u8 mac[6])
{
	if (is_vip(arp->target, vni)) {
		vip_mac(mac, address, vni);
		return true;
	}
	docker_mac(mac, address);
	return is_newcomer(address, vni) && !same_mac(mac, arp->sender_mac);
}

/* Answers a request for a VIP in place, a probe (RFC 5227) like any other: the address is taken.
 * Nobody but Docker's own load balancer may say that a VIP is his, by an announcement or an answer.
 * Anything else is the bridge's business.
 */
static __always_inline int vip_arp(struct __sk_buff *skb, __u32 vni)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct arp_ipv4 *arp = data + ETH_HLEN;
	__u8 mac[6] __attribute__((aligned(4))) = {};
	__u8 sender[4];
	struct ethhdr *eth = data;
	__be32 asked;

	if ((void *)(arp + 1) > end)
		return leave(HANDBACK_truncated, TC_ACT_UNSPEC);
	if (is_vip(arp->sender, vni)) {
		__builtin_memcpy(&asked, arp->sender, 4);
		vip_mac(mac, asked, vni);
		if (!same_mac(mac, arp->sender_mac))
			return leave(DROP_spoofed_source, TC_ACT_SHOT);
		return leave(HANDBACK_not_ipv4, TC_ACT_UNSPEC);
	}
	__builtin_memcpy(&asked, arp->target, 4);
	if (arp->operation != bpf_htons(ARP_REQUEST) || !arp_knows(arp, asked, vni, mac))
		return leave(HANDBACK_not_ipv4, TC_ACT_UNSPEC);

	__builtin_memcpy(sender, arp->sender, 4);
	arp->operation = bpf_htons(ARP_REPLY);
	__builtin_memcpy(arp->target_mac, arp->sender_mac, 6);
	__builtin_memcpy(arp->target, sender, 4);
	__builtin_memcpy(arp->sender_mac, mac, 6);
	__builtin_memcpy(arp->sender, &asked, 4);
	__builtin_memcpy(eth->h_dest, eth->h_source, 6);
	__builtin_memcpy(eth->h_source, mac, 6);
	return bpf_redirect(skb->ifindex, 0);
}

#endif
