/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The backend node's part: into a task of this node, through docker_gwbridge. */
#ifndef EBPFMESH_DELIVER_H
#define EBPFMESH_DELIVER_H

#include "claim.h"
#include "entry.h"
#include "icmp_error.h"
#include "link_mtu.h"
#include "nat.h"
#include "refuse.h"
#include "send.h"
#include "too_big.h"
#include "track.h"
#include "vanished.h"

/* The first packet of a flow that this node delivers: `flow` is filled by the caller but for
 * translation and backend.
 */
static __always_inline enum reason deliver_open(const struct packet *p, struct flow_key *key,
						__u32 id, struct flow *flow)
{
	struct frontend *frontend = port_frontend(p->t.dport, p->protocol);
	struct backend *backend = backends.lookup(&id);
	enum reason why;

	if (!id) /* none of this node: what begins a flow is told so, where nobody else is ready */
		return frontend && may_begin(p) ? DROP_no_backend : DROP_not_local;
	if (!frontend || !backend || backend->pool != frontend->pool)
		return DROP_not_published;
	if (!backend->gateway_ifindex || backend->state == BACKEND_GONE)
		return DROP_backend_gone;
	flow->seen_ns = bpf_ktime_get_coarse_ns();
	flow->backend = id;
	flow->frontend = frontend->id;
	flow->pool = frontend->pool;
	flow->flags |= flags_of(p, TO_BACKEND);
	flow->to = p->t;
	flow->to.daddr = backend->gateway_address;
	flow->to.dport = frontend->target_port;
	if (backend->gateway_address == p->t.saddr)
		flow->to.saddr = p->t.daddr; /* a task balanced to itself */
	why = flow_claim(key, flow, true);
	if (why)
		return why;
	count_new_flow(flow->frontend, flow->backend);
	tell_flow(p, flow->entry ? PATH_MESH : PATH_LOCAL, flow->frontend, flow->backend,
		  flow->entry);
	return REASON_NONE;
}

static __always_inline int deliver_flow(struct __sk_buff *skb, const struct packet *p,
					const struct flow *flow)
{
	struct backend *backend;
	__u32 id = flow->backend;
	__u32 ifindex;

	count_skb(skb, p, flow->frontend, id, TO_BACKEND);
	if (is_tcp_syn(p) &&
	    mss_clamp(skb, p->length, way_mtu(skb, flow, flow->to.saddr) - TCP_HEADERS))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	if (nat_route(skb, p, &flow->to))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	backend = backends.lookup(&id);
	if (!backend || has_vanished(skb, p, id, backend))
		return leave(DROP_backend_gone, TC_ACT_SHOT);
	ifindex = backend->gateway_ifindex;
	if (set_destination_mac(skb, backend->gateway_mac))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	return bpf_redirect_peer(ifindex, 0);
}

/* The flow of this packet, if it goes on at a task of this node. */
static __always_inline struct flow *deliver_known(const struct packet *p, struct flow_key *key,
						  const struct flow *new)
{
	struct flow *flow = flow_find(key);

	if (!flow || flow_restarts(p, flow->flags) || flow_expired(p->protocol, flow->seen_ns))
		return NULL;
	if (flow->flags & FLOW_VIA_KERNEL)
		return NULL;
	/* Its entry node has given the backend up. */
	if (is_tcp_syn(p) && !(flow->flags & FLOW_ESTABLISHED) &&
	    attempt_of(flow->flags) != attempt_of(new->flags)) {
		flow_abandon(key);
		return NULL;
	}
	if (!flow_backend(p, flow->backend, flow->to.daddr, flow->pool))
		return NULL;
	return flow;
}

/* Says by which NIC answers leave, if they leave here: not into a container, nor the tunnel. */
static __always_inline void deliver_way_back(struct __sk_buff *skb, const struct packet *p,
					     struct flow *new)
{
	if (!(new->flags & FLOW_FROM_TASK) && (!new->entry || RETURN_DSR))
		new->ifindex = way_back(skb, p);
}

/* The client's packets come another way than before, or routes have changed: so shall the answers
 * go.
 */
static __always_inline void deliver_turn(const struct flow_key *key, struct flow *flow,
					 const struct flow *new)
{
	struct flow_key other = twin_key(key, &flow->to);
	struct flow *reply;

	__u16 attempt = new->flags & FLOW_ATTEMPT;

	if (flow->entry == new->entry && flow->ifindex == new->ifindex)
		return;
	flow->flags = (flow->flags & ~FLOW_ATTEMPT) | attempt;
	reply = kept_under(&other, TO_CLIENT, flow->flags);
	flow->entry = new->entry;
	flow->ifindex = new->ifindex;
	if (!reply)
		return; /* flow_track() makes it again */
	reply->entry = new->entry;
	reply->ifindex = new->ifindex;
	reply->flags = (reply->flags & ~FLOW_ATTEMPT) | attempt;
}

/* Refuses a packet for a task of this node that is no more, or one that has no hop left, by the way
 * that it came.
 */
static __always_inline int deliver_refusal(struct __sk_buff *skb, const struct packet *p,
					   const struct flow *new, enum reason why)
{
	__be32 entry = new->entry;
	__u32 ifindex = came_in_by(skb);

	if (why == DROP_ttl_exceeded ? answer_expired(skb, p, p->t.daddr) : !refuse(skb, p))
		return leave(why, TC_ACT_SHOT);
	leave_on(p, why, 0);
	if (!entry)
		return answer_out(skb, p->t.saddr, ifindex);
	if (!returns_wrapped(entry, p->t.saddr) && !is_tcp_syn(p))
		return send_out(new->ifindex);
	return tc_send_wrapped(skb, entry, entry, NODE_VTEP, flow_hash(p), attempt_of(new->flags));
}

/* A flow that is known goes on. It keeps its task, whatever a newer table says. NULL if its place
 * is another's by now.
 */
static __always_inline struct flow *deliver_on(struct __sk_buff *skb, const struct packet *p,
					       struct flow_key *key, struct flow *flow,
					       struct flow *new)
{
	__u64 seen_ns = flow->seen_ns;

	flow = flow_track(p, key, flow, TO_BACKEND);
	/* Routes are asked as rarely as the record is renewed. */
	if (flow && (flow->entry != new->entry || flow->seen_ns != seen_ns)) {
		deliver_way_back(skb, p, new);
		deliver_turn(key, flow, new);
	}
	return flow;
}

/* Whether what begins a flow, for a task that this node does not have, would find another one if it
 * came again.
 */
static __always_inline bool finds_another(const struct packet *p, __u32 id)
{
	struct frontend *frontend = port_frontend(p->t.dport, p->protocol);
	struct backend *backend = backends.lookup(&id);
	__u32 pool_id = frontend ? frontend->pool : 0;
	struct pool *pool;

	if (!frontend || !(is_tcp_syn(p) || p->protocol == IPPROTO_UDP))
		return false;
	pool = pools.lookup(&pool_id);
	return pool && pool->ready > (backend && backend->state == BACKEND_READY);
}

static __always_inline int deliver_first(struct __sk_buff *skb, const struct packet *p,
					 struct flow_key *key, __u32 id, struct flow *new)
{
	enum reason why;

	deliver_way_back(skb, p, new);
	why = deliver_open(p, key, id, new);
	if (why == DROP_backend_gone || why == DROP_no_backend)
		return finds_another(p, id) ? leave(why, TC_ACT_SHOT) :
					      deliver_refusal(skb, p, new, why);
	if (why)
		return leave(why, TC_ACT_SHOT);
	return deliver_flow(skb, p, new);
}

static __always_inline int deliver_expired(struct __sk_buff *skb, const struct packet *p,
					   struct flow *new)
{
	deliver_way_back(skb, p, new);
	return deliver_refusal(skb, p, new, DROP_ttl_exceeded);
}

/* Into a task of this node. */
static __always_inline int deliver(struct __sk_buff *skb, const struct packet *p, __u32 id,
				   struct flow *new)
{
	struct flow_key key = flow_key_of(p, 0);
	struct flow *flow = deliver_known(p, &key, new);

	if (has_expired(p))
		return deliver_expired(skb, p, new);
	if (flow)
		flow = deliver_on(skb, p, &key, flow, new);
	if (flow)
		return deliver_flow(skb, p, flow);
	return deliver_first(skb, p, &key, id, new);
}

#endif
