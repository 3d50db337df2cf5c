/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* ICMP on the VIP path. */
#ifndef EBPFMESH_VIP_ICMP_H
#define EBPFMESH_VIP_ICMP_H

#include "ending.h"
#include "icmp.h"
#include "icmp_error.h"
#include "nat.h"

/* A container's error about an answer that came from a VIP. One about a flow to itself stays with
 * the kernel: it would have to meet itself twice.
 */
static __always_inline int vip_error_from_container(struct __sk_buff *skb, const struct packet *p,
						    __u32 vni)
{
	struct packet quoted = {};
	struct backend *backend;
	struct flow_key key;
	struct flow *flow;
	__u32 id;

	if (!icmp_error_read(skb, p, &quoted))
		return vip_icmp(skb, p, vni);
	key = quoted_key(&quoted, vni);
	flow = flow_find(&key);
	if (!flow || flow->to.saddr != key.t.saddr)
		return leave(HANDBACK_other_protocol, TC_ACT_UNSPEC);
	id = flow->flags & FLOW_DIRECT ? 0 : flow->backend;
	if (error_to_backend(skb, p, &quoted, flow))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	backend = backends.lookup(&id);
	if (id && backend && set_destination_mac(skb, backend->mac))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	return TC_ACT_OK;
}

/* An error about what a container has sent to a VIP. */
static __always_inline int vip_error_to_container(struct __sk_buff *skb, const struct packet *p,
						  __u32 vni)
{
	struct packet quoted = {};
	struct flow_key key;
	struct flow *reply;

	if (!icmp_error_read(skb, p, &quoted))
		return TC_ACT_UNSPEC;
	key = quoted_key(&quoted, vni);
	reply = reply_find(&key);
	if (!reply || reply->flags & FLOW_ABANDONED)
		return TC_ACT_UNSPEC;
	if (ends_datagrams(skb, p, &quoted, &key, reply))
		return leave(DROP_early_refusal, TC_ACT_SHOT);
	if (error_to_client(skb, p, &quoted, reply))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	return TC_ACT_OK;
}

#endif
