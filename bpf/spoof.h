/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Whose packets come in by a veth: a container sends in its own name, or not at all. Else one that
 * may write raw packets could close, hijack and open flows of another, answer in its place, or draw
 * its traffic to itself by teaching a bridge its MAC.
 *
 * A veth that the agent has not written down (a container that is no task, one that has just come)
 * is not looked at.
 */
#ifndef EBPFMESH_SPOOF_H
#define EBPFMESH_SPOOF_H

#include "arp.h"
#include "icmp_error.h"

enum sender {
	SENDER_UNKNOWN = 0, /* nobody knows who is behind that veth */
	SENDER_OWN = 1,
	SENDER_FORGED = 2,
};

static __always_inline bool arp_is_forged(struct __sk_buff *skb, const struct endpoint *own)
{
	struct arp_ipv4 arp __attribute__((aligned(4)));
	__be32 sender;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &arp, sizeof(arp)))
		return false; /* too short to say anything */
	__builtin_memcpy(&sender, arp.sender, 4);
	/* A probe has no sender yet: RFC 5227, 2.1.1. */
	return (sender && sender != own->address) || !same_mac(arp.sender_mac, own->mac);
}

/* An ICMP error about a packet that its sender cannot have received. */
static __always_inline bool error_is_forged(struct __sk_buff *skb, const struct endpoint *own)
{
	__be32 quoted;
	__u8 type;

	if (bpf_skb_load_bytes(skb, L4_OFFSET, &type, 1) || !is_error_type(type))
		return false;
	if (bpf_skb_load_bytes(skb, QUOTED_TUPLE_OFFSET + offsetof(struct tuple, daddr), &quoted,
			       4))
		return false;
	return quoted != own->address;
}

static __always_inline bool ip_is_forged(struct __sk_buff *skb, const struct endpoint *own)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, L3_OFFSET, &ip, sizeof(ip)))
		return false;
	if (ip.saddr != own->address)
		return true;
	return ip.protocol == IPPROTO_ICMP && ip.ihl == 5 &&
	       !(ip.frag_off & bpf_htons(IP_FRAGMENT & ~0x2000)) && error_is_forged(skb, own);
}

/* Judges a packet that comes out of a container. */
static __always_inline enum sender sender_of(struct __sk_buff *skb, __u32 vni)
{
	struct endpoint_key key = { .vni = vni, .ifindex = skb->ifindex };
	struct endpoint *own = endpoints.lookup(&key);
	__u8 mac[6] __attribute__((aligned(4)));
	bool forged = false;

	if (!own || bpf_skb_load_bytes(skb, offsetof(struct ethhdr, h_source), mac, 6))
		return SENDER_UNKNOWN;
	if (!same_mac(mac, own->mac))
		return SENDER_FORGED;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		forged = ip_is_forged(skb, own);
	else if (skb->protocol == bpf_htons(ETH_P_ARP))
		forged = arp_is_forged(skb, own);
	return forged ? SENDER_FORGED : SENDER_OWN;
}

/* Whether the packet's flow is known to be of who sends it. A flow is given the link and the MAC of
 * its client only when these have been judged.
 */
static __always_inline bool flow_is_senders(const struct __sk_buff *skb, const struct flow *flow)
{
	return flow && flow->ifindex == skb->ifindex && is_from_mac(skb, flow->mac);
}

/* Whether a packet on an overlay is sent in another's name. `flow` is the one that it belongs to,
 * or NULL.
 */
static __always_inline bool vip_is_forged(struct __sk_buff *skb, __u32 vni, struct flow *flow)
{
	enum sender sender;

	if (!SPOOF_CHECK || flow_is_senders(skb, flow))
		return false;
	sender = sender_of(skb, vni);
	if (flow && sender == SENDER_OWN &&
	    !bpf_skb_load_bytes(skb, offsetof(struct ethhdr, h_source), flow->mac, 6))
		flow->ifindex = skb->ifindex;
	return sender == SENDER_FORGED;
}

/* The same of what a container sends out of its overlays. A task's answer is known by its backend.
 */
static __always_inline bool task_is_forged(struct __sk_buff *skb, const struct flow *reply)
{
	__u32 id = reply ? reply->backend : 0;
	struct backend *backend = backends.lookup(&id);

	if (!SPOOF_CHECK)
		return false;
	if (backend && backend->gateway_ifindex == skb->ifindex &&
	    is_from_mac(skb, backend->gateway_mac))
		return false;
	return sender_of(skb, 0) == SENDER_FORGED;
}

#endif
