/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How large a task's answer may be. docker_gwbridge has an MTU of its own, mostly 1500, whatever
 * the NICs have; the kernel looks at no MTU where a program sends a packet out.
 */
#ifndef EBPFMESH_LINK_MTU_H
#define EBPFMESH_LINK_MTU_H

#include "surrogate.h"
#include "too_big.h"

#define ANY_MTU 0xffff
/* Every link carries as much: RFC 791, 3.2. */
#define LEAST_MTU 576
#define TCP_HEADERS 40

static __always_inline __u32 link_mtu(struct __sk_buff *skb, __u32 ifindex)
{
	__u32 mtu = 0;

	if (bpf_check_mtu(skb, ifindex, &mtu, 0, 0) < 0 || mtu > ANY_MTU)
		return ANY_MTU;
	return mtu;
}

/* The room by the way that answers of a flow take; ANY_MTU where the kernel is the router. */
static __always_inline __u32 way_mtu(struct __sk_buff *skb, const struct flow *flow, __be32 client)
{
	if (returns_wrapped(flow->entry, client))
		return TUNNEL_MTU;
	if (is_surrogate(client))
		return UNDERLAY_MTU - IP6_EXTRA;
	if (flow->flags & (FLOW_DIRECT | FLOW_VIA_KERNEL | FLOW_FROM_TASK))
		return ANY_MTU;
	return link_mtu(skb, flow->ifindex);
}

/* The room by the way that questions come. */
static __always_inline __u32 question_mtu(struct __sk_buff *skb, const struct flow *reply)
{
	return reply->entry ? TUNNEL_MTU : way_mtu(skb, reply, reply->to.daddr);
}

/* The room for one answer; the kernel is not asked about what fits anyway. */
static __always_inline __u32 reply_mtu(struct __sk_buff *skb, const struct packet *p,
				       const struct flow *reply)
{
	if (!reply->entry && reply->ifindex == NIC_IFINDEX && p->length <= UNDERLAY_MTU &&
	    !is_surrogate(reply->to.daddr))
		return ANY_MTU;
	if (p->length <= LEAST_MTU)
		return LEAST_MTU;
	return way_mtu(skb, reply, reply->to.daddr);
}

#endif
