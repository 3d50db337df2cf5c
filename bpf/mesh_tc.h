/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Published ports, tc: the backend node's part (into the task and back), and the entry node's
 * where XDP did not do it.
 */
#ifndef EBPFMESH_MESH_TC_H
#define EBPFMESH_MESH_TC_H

#include "encap.h"
#include "entry.h"
#include "nat.h"
#include "refuse.h"

/* bcc declares three arguments of the four. */
static int (*redirect_neigh)(__u32 ifindex, struct bpf_redir_neigh *params, int plen,
			     __u64 flags) = (void *)BPF_FUNC_redirect_neigh;

#define WRAP_FLAGS                                                                                 \
	(BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP |   \
	 BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN) | BPF_F_ADJ_ROOM_ENCAP_L2_ETH)

/* Out of the NIC; the kernel finds route and neighbour of the destination address. */
static __always_inline int send_out(__u32 ifindex)
{
	return redirect_neigh(ifindex, NULL, 0, 0);
}

/* Wraps the packet and sends it to another node. */
static __always_inline int tc_send_wrapped(struct __sk_buff *skb, __be32 vtep, __be32 to,
					   __be32 entry, __u32 hash)
{
	__u16 length = skb->len - ETH_HLEN;
	struct outer o = {};

	if (skb->gso_segs <= 1 && length + WRAP_LEN > UNDERLAY_MTU)
		return leave(DROP_too_big, TC_ACT_SHOT);
	outer_fill(&o, vtep, to, entry, length, hash);
	if (bpf_skb_adjust_room(skb, WRAP_LEN, BPF_ADJ_ROOM_MAC, WRAP_FLAGS))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	if (bpf_skb_store_bytes(skb, L3_OFFSET, &o.ip, WRAP_LEN, 0))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	return send_out(NIC_IFINDEX);
}

/* The first packet of a flow that this node delivers: `flow` is filled by the caller but for
 * translation and backend.
 */
static __always_inline enum reason deliver_open(const struct packet *p, struct flow_key *key,
						__u32 id, struct flow *flow)
{
	struct frontend *frontend = port_frontend(p->t.dport, p->protocol);
	struct backend *backend = backends.lookup(&id);

	if (!frontend || !backend || backend->pool != frontend->pool)
		return DROP_not_published;
	if (!backend->gateway_ifindex || backend->state == BACKEND_GONE)
		return DROP_backend_gone;
	flow->seen_ns = bpf_ktime_get_coarse_ns();
	flow->backend = id;
	flow->frontend = frontend->id;
	flow->flags |= flags_of(p, TO_BACKEND);
	flow->to = p->t;
	flow->to.daddr = backend->gateway_address;
	flow->to.dport = frontend->target_port;
	if (backend->gateway_address == p->t.saddr)
		flow->to.saddr = p->t.daddr; /* a task balanced to itself */
	if (!flow_claim(key, flow))
		return DROP_no_port;
	count_new_flow(flow->frontend, flow->backend);
	return REASON_NONE;
}

static __always_inline int deliver_flow(struct __sk_buff *skb, const struct packet *p,
					const struct flow *flow)
{
	struct backend *backend;
	__u32 id = flow->backend;
	__u32 ifindex;

	count_skb(skb, p, flow->frontend, id, TO_BACKEND);
	if (flow->entry && !RETURN_DSR && is_syn(p) && mss_clamp(skb, TUNNEL_MSS))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	if (nat_rewrite(skb, p, &flow->to))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	backend = backends.lookup(&id);
	if (!backend)
		return leave(DROP_backend_gone, TC_ACT_SHOT);
	ifindex = backend->gateway_ifindex;
	if (set_destination_mac(skb, backend->gateway_mac))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	return bpf_redirect_peer(ifindex, 0);
}

/* The flow of this packet, if it goes on at a task of this node. */
static __always_inline struct flow *deliver_known(const struct packet *p, struct flow_key *key)
{
	struct flow *flow = flows.lookup(key);

	if (!flow || flow_restarts(p, flow->flags) || (flow->flags & FLOW_VIA_KERNEL))
		return NULL;
	if (!flow_backend(p, flow->backend, flow->to.daddr))
		return NULL;
	return flow;
}

/* The client's packets come another way than before: so shall the answers go. */
static __always_inline void deliver_turn(const struct flow_key *key, struct flow *flow,
					 const struct flow *new)
{
	struct flow_key other = twin_key(key, &flow->to);
	struct flow *reply = replies.lookup(&other);

	flow->entry = new->entry;
	flow->ifindex = new->ifindex;
	if (!reply)
		return; /* flow_track() makes it again */
	reply->entry = new->entry;
	reply->ifindex = new->ifindex;
}

/* Refuses a packet for a task of this node that is no more, by the way that it came. */
static __always_inline int deliver_refusal(struct __sk_buff *skb, const struct packet *p,
					   const struct flow *new, enum reason why)
{
	__be32 entry = new->entry;
	__u32 ifindex = skb->ifindex;

	if (!refuse(skb, p))
		return leave(why, TC_ACT_SHOT);
	if (!entry)
		return leave(why, bpf_redirect(ifindex, 0));
	if (RETURN_DSR)
		return leave(why, send_out(NIC_IFINDEX));
	return leave(why, tc_send_wrapped(skb, entry, entry, NODE_VTEP, flow_hash(p)));
}

/* Into a task of this node. A known flow keeps its task, whatever a newer table says. */
static __always_inline int deliver(struct __sk_buff *skb, const struct packet *p, __u32 id,
				   struct flow *new)
{
	struct flow_key key = flow_key_of(p, 0);
	struct flow *flow = deliver_known(p, &key);
	enum reason why;

	if (flow) {
		if (flow->entry != new->entry)
			deliver_turn(&key, flow, new);
		flow_track(p, &key, flow, TO_BACKEND);
		return deliver_flow(skb, p, flow);
	}
	why = deliver_open(p, &key, id, new);
	if (why == DROP_backend_gone)
		return deliver_refusal(skb, p, new, why);
	if (why)
		return leave(why, TC_ACT_SHOT);
	return deliver_flow(skb, p, new);
}

static __always_inline int deliver_from_nic(struct __sk_buff *skb, const struct packet *p, __u32 id,
					    __be32 entry)
{
	struct flow new = { .entry = entry, .ifindex = skb->ifindex };

	return deliver(skb, p, id, &new);
}

/* An answer that came back through the tunnel: on to its client. */
static __always_inline int forward_return(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_fib_lookup fib = { .family = AF_INET, .ipv4_dst = p->t.daddr };
	int found;

	fib.ipv4_src = p->t.saddr;
	fib.ifindex = skb->ifindex;
	found = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	if (found != BPF_FIB_LKUP_RET_SUCCESS && found != BPF_FIB_LKUP_RET_NO_NEIGH)
		return leave(DROP_bad_inner, TC_ACT_SHOT);
	return send_out(fib.ifindex);
}

/* A packet of the tunnel that XDP has left wrapped. */
static __always_inline int nic_tunnel(struct __sk_buff *skb)
{
	struct inner inner = {};
	struct packet p = {};
	enum reason why;
	__be32 source;
	__u32 id = 0, *local;

	why = unwrap_check((void *)(long)skb->data, (void *)(long)skb->data_end, &p, &inner);
	if (why)
		return leave(why, TC_ACT_SHOT);
	source = p.t.saddr;
	if (inner.to == NODE_VTEP) {
		if (!addresses.lookup(&source))
			return leave(DROP_bad_inner, TC_ACT_SHOT);
	} else {
		local = local_backends.lookup(&inner.to);
		if (!local)
			return leave(DROP_not_local, TC_ACT_SHOT);
		id = *local;
	}
	if (bpf_skb_adjust_room(skb, -WRAP_LEN, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	if (!id)
		return forward_return(skb, &p);
	return deliver_from_nic(skb, &p, id, inner.entry);
}

static __always_inline int nic_forward(struct __sk_buff *skb, const struct packet *p,
				       const struct backend *backend)
{
	return tc_send_wrapped(skb, backend->vtep, backend->address, NODE_VTEP, flow_hash(p));
}

/* What XDP has found out already. */
static __always_inline int nic_tagged(struct __sk_buff *skb, const struct tag *tag,
				      const struct packet *p)
{
	__u32 id = tag->backend;
	struct backend *backend;

	if (tag->kind == TAG_RETURN)
		return forward_return(skb, p);
	if (tag->kind == TAG_DELIVER)
		return deliver_from_nic(skb, p, id, tag->entry);
	backend = backends.lookup(&id);
	if (!backend)
		return leave(DROP_backend_gone, TC_ACT_SHOT);
	return nic_forward(skb, p, backend);
}

static __always_inline bool read_tag(struct __sk_buff *skb, struct tag *out)
{
	struct tag *tag = (void *)(long)skb->data_meta;

	if ((void *)(tag + 1) > (void *)(long)skb->data || tag->magic != TAG_MAGIC)
		return false;
	*out = *tag;
	return true;
}

/* A packet that XDP has not seen, or has left alone. */
static __always_inline int nic_enter(struct __sk_buff *skb, const struct packet *p)
{
	struct choice choice = {};
	enum reason why = entry_choose(skb, p, &choice);

	if (why == DROP_no_backend)
		return refuse_back(skb, p, why);
	if (why)
		return leave(why, TC_ACT_UNSPEC);
	count_entry(choice.frontend, p->length);
	if (!choice.backend->gateway_ifindex)
		return nic_forward(skb, p, choice.backend);
	return deliver_from_nic(skb, p, choice.id, 0);
}

/* tc ingress of the node's NICs. */
static __always_inline int mesh_nic(struct __sk_buff *skb)
{
	struct packet p = {};
	struct tag tag = {};
	enum reason why;
	bool tagged = read_tag(skb, &tag);

	if (skb->protocol != bpf_htons(ETH_P_IP))
		return leave(HANDBACK_not_ipv4, TC_ACT_UNSPEC);
	if (skb->vlan_present)
		return leave(HANDBACK_vlan, TC_ACT_UNSPEC);
	if (!tagged && pull_headers(skb))
		return leave(HANDBACK_truncated, TC_ACT_UNSPEC);
	if (!tagged && is_wrapped((void *)(long)skb->data, (void *)(long)skb->data_end))
		return nic_tunnel(skb);
	why = parse_skb(skb, &p);
	if (why)
		return leave(why, TC_ACT_UNSPEC);
	if (tagged)
		return nic_tagged(skb, &tag, &p);
	return nic_enter(skb, &p);
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
	if (!reply->entry || RETURN_DSR)
		return send_out(reply->ifindex);
	return tc_send_wrapped(skb, reply->entry, reply->entry, NODE_VTEP, flow_hash(p));
}

static __always_inline int task_reply(struct __sk_buff *skb, const struct packet *p,
				      const struct flow_key *key, struct flow *reply)
{
	flow_track(p, key, reply, TO_CLIENT);
	if (!(reply->flags & (FLOW_DIRECT | FLOW_VIA_KERNEL)))
		count_skb(skb, p, reply->frontend, reply->backend, TO_CLIENT);
	if (reply->entry && is_syn_ack(p) && mss_clamp(skb, TUNNEL_MSS))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	if (nat_rewrite(skb, p, &reply->to))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	if (reply->flags & (FLOW_DIRECT | FLOW_VIA_KERNEL))
		return TC_ACT_OK;
	return send_reply(skb, p, reply);
}

/* A container asks a published port of its own node, and the backend is on another: it asks that
 * node's port instead, through the kernel, which masquerades it like anything it sends out.
 */
static __always_inline int task_to_remote(struct __sk_buff *skb, const struct packet *p,
					  const struct backend *backend)
{
	struct flow flow = { .to = p->t, .flags = FLOW_VIA_KERNEL };
	struct flow_key key = flow_key_of(p, 0);
	struct flow *known = flows.lookup(&key);

	flow.to.daddr = backend->vtep;
	flow.seen_ns = bpf_ktime_get_coarse_ns();
	if (known && known->to.daddr == flow.to.daddr && !flow_restarts(p, known->flags)) {
		flow_track(p, &key, known, TO_BACKEND);
		flow.to = known->to;
	} else if (!flow_claim(&key, &flow)) {
		return leave(DROP_no_port, TC_ACT_SHOT);
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

	if (why == DROP_no_backend)
		return refuse_back(skb, p, why);
	if (why)
		return leave(why, TC_ACT_UNSPEC);
	count_entry(choice.frontend, p->length);
	if (!choice.backend->gateway_ifindex)
		return task_to_remote(skb, p, choice.backend);
	if (bpf_skb_load_bytes(skb, offsetof(struct ethhdr, h_source), new.mac, 6))
		return leave(HANDBACK_truncated, TC_ACT_UNSPEC);
	return deliver(skb, p, choice.id, &new);
}

/* tc ingress of a docker_gwbridge veth: what a container sends out of its overlay networks. */
static __always_inline int mesh_from_task(struct __sk_buff *skb)
{
	struct packet p = {};
	struct flow_key key;
	struct flow *reply;
	enum reason why;

	if (skb->protocol != bpf_htons(ETH_P_IP))
		return leave(HANDBACK_not_ipv4, TC_ACT_UNSPEC);
	why = parse_skb(skb, &p);
	if (why)
		return leave(why, TC_ACT_UNSPEC);
	key = flow_key_of(&p, 0);
	reply = replies.lookup(&key);
	if (reply)
		return task_reply(skb, &p, &key, reply);
	return task_request(skb, &p);
}

/* A connection that the kernel brings to a task (a port in host mode) takes its 4-tuple like any
 * other flow, so that no balanced one meets it.
 */
static __always_inline int task_direct(struct __sk_buff *skb, const struct packet *p,
				       struct flow_key *key)
{
	struct flow flow = { .to = p->t, .flags = FLOW_DIRECT };
	struct flow *known = flows.lookup(key);

	flow.seen_ns = bpf_ktime_get_coarse_ns();
	if (known && (known->flags & FLOW_DIRECT) && !flow_restarts(p, known->flags)) {
		flow_track(p, key, known, TO_BACKEND);
		flow.to = known->to;
	} else if (is_syn(p) || flow_in_the_way(key, &flow)) {
		if (!flow_claim(key, &flow))
			return leave(DROP_no_port, TC_ACT_SHOT);
	}
	if (nat_rewrite(skb, p, &flow.to))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	return TC_ACT_OK;
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
	reply = replies.lookup(&key);
	if (!reply || !(reply->flags & FLOW_VIA_KERNEL))
		return task_direct(skb, &p, &key);
	return task_reply(skb, &p, &key, reply);
}

#endif
