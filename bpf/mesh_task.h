/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Published ports, tc on the containers' docker_gwbridge veths: the tasks' answers, and what
 * containers themselves ask of published ports.
 */
#ifndef EBPFMESH_MESH_TASK_H
#define EBPFMESH_MESH_TASK_H

#include "claim.h"
#include "deliver.h"
#include "ending.h"
#include "entry.h"
#include "guard.h"
#include "icmp_error.h"
#include "ip_options.h"
#include "link_mtu.h"
#include "nat.h"
#include "refuse.h"
#include "send.h"
#include "spoof.h"
#include "split.h"
#include "too_big.h"
#include "track.h"

/* Straight out of a NIC; to an IPv6 client as IPv6. */
static __always_inline int reply_out(struct __sk_buff *skb, __be32 client, __u32 ifindex)
{
	if (is_surrogate(client))
		return hand_over(skb, PROGRAM_TO_IP6);
	return send_out(ifindex);
}

/* A task's answer, translated already: to its client, by the way that the flow calls for. */
static __always_inline int send_reply(struct __sk_buff *skb, const struct packet *p,
				      const struct flow *reply)
{
	if (reply->flags & FLOW_FROM_TASK) {
		if (set_destination_mac(skb, reply->mac))
			return leave(DROP_rewrite_failed, TC_ACT_SHOT);
		return bpf_redirect_peer(reply->ifindex, 0);
	}
	if (!reply->entry)
		return reply_out(skb, reply->to.daddr, reply->ifindex);
	if (!returns_wrapped(reply->entry, reply->to.daddr) &&
	    (reply->flags & FLOW_ESTABLISHED || !answers_syn(p)))
		return send_out(reply->ifindex);
	return tc_send_wrapped(skb, reply->entry, reply->entry, NODE_VTEP, flow_hash(p),
			       attempt_of(reply->flags));
}

static __always_inline int task_reply_on(struct __sk_buff *skb, struct packet *p,
					 struct flow_key *key, struct flow *reply)
{
	__u32 mtu = reply_mtu(skb, p, reply), ifindex = came_in_by(skb);
	bool too_big = !fits(skb, p, mtu);
	bool counted = too_big && is_split_rest(skb, p);

	if (too_big && !is_to_split(skb, p))
		return answer_too_big(skb, p, mtu);
	if (has_expired(p) && !(reply->flags & (FLOW_DIRECT | FLOW_VIA_KERNEL)))
		return leave_on(p, DROP_ttl_exceeded,
				answer_expired(skb, p, NODE_VTEP) ? TC_ACT_SHOT :
								    bpf_redirect(ifindex, 0));
	reply = flow_track(p, key, reply, TO_CLIENT);
	if (!counted && !(reply->flags & (FLOW_DIRECT | FLOW_VIA_KERNEL)))
		count_skb(skb, p, reply->frontend, reply->backend, TO_CLIENT);
	if (too_big && split(skb, p))
		return leave(DROP_too_big, TC_ACT_SHOT);
	if (is_syn_ack(p) && mss_clamp(skb, p->length, question_mtu(skb, reply) - TCP_HEADERS))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	if (reply->flags & (FLOW_DIRECT | FLOW_VIA_KERNEL)) /* the kernel is the router */
		return nat_rewrite(skb, p, &reply->to) ? leave(DROP_rewrite_failed, TC_ACT_SHOT) :
							 TC_ACT_OK;
	if (nat_route(skb, p, &reply->to))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	return send_reply(skb, p, reply);
}

static __always_inline int task_reply(struct __sk_buff *skb, struct packet *p, struct flow_key *key,
				      struct flow *reply)
{
	if (reply->flags & FLOW_ABANDONED)
		return drop_late(p, reply);
	if (is_early_refusal(p, reply))
		return leave(DROP_early_refusal, TC_ACT_SHOT);
	note_accepted(p, reply);
	return task_reply_on(skb, p, key, reply);
}

/* A container asks a published port of its own node, and the backend is on another: it asks that
 * node's port instead, through the kernel, which masquerades it like anything it sends out.
 */
static __always_inline int task_to_remote(struct __sk_buff *skb, const struct packet *p,
					  const struct choice *choice)
{
	struct flow flow = { .to = p->t,
			     .flags = FLOW_VIA_KERNEL | attempt_flags(choice->attempt) };
	struct flow_key key = flow_key_of(p, 0);
	struct flow *known = flow_find(&key);
	enum reason why;

	flow.to.daddr = choice->backend->vtep;
	flow.seen_ns = bpf_ktime_get_coarse_ns();
	if (known && known->to.daddr == flow.to.daddr && !flow_restarts(p, known->flags))
		known = flow_track(p, &key, known, TO_BACKEND);
	else
		known = NULL;
	if (known) {
		flow.to = known->to;
	} else {
		if (choice->attempt)
			flow_abandon(&key);
		why = flow_claim(&key, &flow, true);
		if (why)
			return leave(why, TC_ACT_SHOT);
	}
	if (nat_rewrite(skb, p, &flow.to))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	return TC_ACT_OK;
}

/* A connection that is not balanced, but may meet one that is, takes its 4-tuple like any other:
 * one that the kernel brings to a task (a port in host mode), or one that a container opens to a
 * published port of another node.
 */
static __always_inline int task_direct(struct __sk_buff *skb, const struct packet *p,
				       struct flow_key *key, __u16 flags)
{
	struct flow flow = { .to = p->t, .flags = FLOW_DIRECT | flags };
	struct flow *known = flow_find(key);
	enum reason why;

	flow.seen_ns = bpf_ktime_get_coarse_ns();
	if (known && (known->flags & FLOW_DIRECT) && !flow_restarts(p, known->flags))
		known = flow_track(p, key, known, TO_BACKEND);
	else
		known = NULL;
	if (known) {
		flow.to = known->to;
	} else if (is_syn(p) || flow_in_the_way(key, &flow)) {
		why = flow_claim(key, &flow, true);
		if (why)
			return leave(why, TC_ACT_SHOT);
	}
	if (nat_rewrite(skb, p, &flow.to))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	return TC_ACT_OK;
}

/* A container asks a published port of its own node. */
static __always_inline int task_request(struct __sk_buff *skb, const struct packet *p)
{
	struct flow new = { .flags = FLOW_FROM_TASK, .ifindex = skb->ifindex };
	struct choice choice = {};
	enum reason why = entry_choose(skb, p, &choice);
	struct flow_key key = flow_key_of(p, 0);

	if (why == DROP_no_backend)
		return refuse_back(skb, p, why);
	if (why == DROP_not_allowed || why == DROP_moving)
		return leave(why, TC_ACT_SHOT);
	if (why == HANDBACK_foreign_address) {
		int verdict = task_direct(skb, p, &key, FLOW_VIA_KERNEL);

		return verdict == TC_ACT_SHOT ? verdict : leave_on(p, why, verdict);
	}
	if (why)
		return leave(why, TC_ACT_UNSPEC);
	count_entry(choice.frontend, p->length);
	if (!choice.backend->gateway_ifindex)
		return task_to_remote(skb, p, &choice);
	if (bpf_skb_load_bytes(skb, offsetof(struct ethhdr, h_source), new.mac, 6))
		return leave(HANDBACK_truncated, TC_ACT_UNSPEC);
	new.flags |= attempt_flags(choice.attempt);
	return deliver(skb, p, choice.id, &new);
}

/* A task's ICMP error about what a client has sent to a published port. */
static __always_inline int task_error(struct __sk_buff *skb, const struct packet *p)
{
	struct packet quoted = {};
	struct flow_key key;
	struct flow *reply;

	if (!icmp_error_read(skb, p, &quoted))
		return leave(HANDBACK_other_protocol, TC_ACT_UNSPEC);
	key = quoted_key(&quoted, 0);
	reply = reply_find(&key);
	if (!reply || reply->flags & FLOW_ABANDONED)
		return leave(HANDBACK_other_protocol, TC_ACT_UNSPEC);
	if (ends_datagrams(skb, p, &quoted, &key, reply))
		return leave(DROP_early_refusal, TC_ACT_SHOT);
	if (error_to_client(skb, p, &quoted, reply))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	if (reply->flags & (FLOW_DIRECT | FLOW_VIA_KERNEL))
		return TC_ACT_OK;
	return send_reply(skb, &quoted, reply);
}

/* Only nodes speak VXLAN to nodes. What a container sends to that port would leave this node with
 * the node's own address, as it is masqueraded, and the other node would take it for this one's.
 */
static __always_inline bool forges_tunnel(const struct packet *p)
{
	__be32 to = p->t.daddr;

	return p->protocol == IPPROTO_UDP && p->t.dport == bpf_htons(VXLAN_PORT) &&
	       (nodes.lookup(&to) || addresses.lookup(&to));
}

/* tc ingress of a docker_gwbridge veth: what a container sends out of its overlay networks. */
static __always_inline int mesh_from_task(struct __sk_buff *skb)
{
	struct flow *reply = NULL;
	struct packet p = {};
	struct flow_key key;
	enum reason why;

	why = parse_skb(skb, &p);
	if (skb->vlan_present)
		why = HANDBACK_vlan;
	else if (why == HANDBACK_ip_options && task_strip_options(skb))
		why = parse_skb(skb, &p);
	key = flow_key_of(&p, 0);
	if (!why)
		reply = reply_find(&key);
	if (task_is_forged(skb, reply))
		return leave(DROP_spoofed_source, TC_ACT_SHOT);
	if (is_surrogate(p.t.saddr))
		return leave(DROP_surrogate_source, TC_ACT_SHOT);
	if (why == HANDBACK_other_protocol)
		return task_error(skb, &p);
	if (why)
		return leave_to_kernel(skb, why);
	if (forges_tunnel(&p))
		return leave(DROP_forged_tunnel, TC_ACT_SHOT);
	if (reply)
		return task_reply(skb, &p, &key, reply);
	return task_request(skb, &p);
}

/* tc egress of the same veth: what the kernel brings to the container. */
static __always_inline int mesh_to_task(struct __sk_buff *skb)
{
	struct packet p = {};
	struct flow_key key;
	struct flow *reply;

	if (skb->protocol != bpf_htons(ETH_P_IP) || parse_skb(skb, &p))
		return TC_ACT_UNSPEC;
	key = flow_key_of(&p, 0);
	reply = reply_find(&key);
	if (!reply || !(reply->flags & FLOW_VIA_KERNEL))
		return task_direct(skb, &p, &key, 0);
	return task_reply(skb, &p, &key, reply);
}

#endif
