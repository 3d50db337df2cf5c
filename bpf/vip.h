/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Service VIPs, on the client's own node: destination NAT on the way out of the container,
 * source NAT on the way back. The client's address is never touched, but for a task that is
 * balanced to itself: there it becomes the VIP, or the kernel would drop a martian.
 */
#ifndef EBPFMESH_VIP_H
#define EBPFMESH_VIP_H

#include "arp.h"
#include "counters.h"
#include "ip_options.h"
#include "live.h"
#include "claim.h"
#include "mark.h"
#include "nat.h"
#include "newcomer.h"
#include "refuse.h"
#include "retry.h"
#include "schedule.h"
#include "spoof.h"
#include "takeover.h"
#include "track.h"
#include "vip_icmp.h"

/* What the short way knows of a packet that it leaves to this one, if `frontend` is set: it goes to
 * that VIP, not in another's name, and no flow of it was found, nor a reply among the established
 * ones; `moves` was had before.
 */
struct looked {
	struct frontend *frontend;
	__u64 moves;
};

/* A backend for the first packet of a flow, and its claim; or another one than that which has not
 * answered. `old` is what an earlier flow has left under key, or NULL.
 */
static __always_inline enum reason vip_balance(const struct packet *p, struct flow_key *key,
					       struct frontend *frontend, struct flow *flow,
					       struct flow *old)
{
	struct backend *backend;
	struct flow *same = NULL;
	__u32 id, silent = 0;
	enum reason why;

	if (old && is_unheard(p, old->flags, old->seen_ns))
		silent = old->backend;
	id = schedule_choose(frontend, p->t.saddr, retry_hash(p, silent), silent, p->protocol);
	if (!id)
		return DROP_no_backend;
	backend = backends.lookup(&id);
	if (!backend)
		return DROP_no_backend;
	if (old && id == silent) {
		same = flow_track(p, key, old, TO_BACKEND);
		if (same) {
			*flow = *same;
			return REASON_NONE;
		}
	} else if (old && silent) {
		flow->flags = attempt_flags(next_attempt(attempt_of(old->flags)));
		live_track(silent, old->flags, old->flags | FLOW_RST);
		flow_abandon(key);
		health_silent(silent);
		count_retry(p, RETRY_no_answer, silent);
	}
	flow->seen_ns = bpf_ktime_get_coarse_ns();
	flow->backend = id;
	flow->frontend = frontend->id;
	flow->pool = frontend->pool;
	flow->flags |= live_flags(frontend, flags_of(p, TO_BACKEND));
	flow->to = p->t;
	flow->to.daddr = backend->address;
	if (backend->address == p->t.saddr)
		flow->to.saddr = p->t.daddr;
	why = flow_claim(key, flow, old);
	if (why)
		return why;
	count_new_flow(flow->frontend, flow->backend);
	tell_flow(p, PATH_VIP, flow->frontend, flow->backend, 0);
	live_begin(flow->backend, flow->flags);
	return REASON_NONE;
}

/* Back into the container that it came from. */
static __always_inline int hairpin(struct __sk_buff *skb, struct backend *backend)
{
	if (set_destination_mac(skb, backend->mac))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	return bpf_redirect(skb->ifindex, 0);
}

static __always_inline int vip_forward(struct __sk_buff *skb, const struct packet *p,
				       const struct flow *flow)
{
	struct backend *backend;
	__u32 id = flow->backend;
	bool same_task = flow->to.saddr != p->t.saddr;

	count_skb(skb, p, flow->frontend, id, TO_BACKEND);
	if (nat_rewrite(skb, p, &flow->to))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	backend = backends.lookup(&id);
	if (!backend)
		return leave(DROP_backend_gone, TC_ACT_SHOT);
	if (same_task)
		return hairpin(skb, backend);
	if (set_destination_mac(skb, backend->mac))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	if (is_here(backend))
		mark_translated(skb);
	return TC_ACT_OK;
}

/* A task that was balanced to itself answers "the VIP": the answer goes back into it. */
static __always_inline int vip_hairpin_reply(struct __sk_buff *skb, const struct packet *p,
					     struct flow_key *key, struct flow *reply)
{
	struct backend *backend;
	__u32 id = reply->backend;

	if (reply->flags & FLOW_ABANDONED)
		return drop_late(p, reply);
	reply = flow_track(p, key, reply, TO_CLIENT);
	count_skb(skb, p, reply->frontend, id, TO_CLIENT);
	if (nat_rewrite(skb, p, &reply->to))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	backend = backends.lookup(&id);
	if (!backend)
		return leave(DROP_backend_gone, TC_ACT_SHOT);
	return hairpin(skb, backend);
}

/* The flow, if it may go on with this packet, or NULL: to be balanced (anew). */
static __always_inline struct flow *vip_known_flow(const struct packet *p, struct flow *flow)
{
	if (!flow || flow_restarts(p, flow->flags) || flow_expired(p->protocol, flow->seen_ns))
		return NULL;
	if (flow->flags & FLOW_DIRECT)
		return flow;
	if (is_unheard(p, flow->flags, flow->seen_ns) && !gives_back())
		return NULL;
	if (flow_backend(p, flow->backend, flow->to.daddr, flow->pool))
		return flow;
	return NULL;
}

/* A connection cannot be moved to another backend: it is reset when its own has gone. */
static __always_inline bool vip_has_lost_backend(const struct packet *p, const struct flow *old)
{
	return p->protocol != IPPROTO_UDP && !is_syn(p) && old;
}

static __always_inline int vip_direct(struct __sk_buff *skb, const struct packet *p,
				      const struct flow *flow)
{
	if (nat_rewrite(skb, p, &flow->to))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	return TC_ACT_OK;
}

/* To a backend's own address, not through its VIP. A connection takes its 4-tuple like any other
 * flow. Of the rest (answers among it) only what would meet a balanced flow is translated.
 */
static __always_inline int vip_open_direct(struct __sk_buff *skb, const struct packet *p,
					   struct flow_key *key, const struct flow *old)
{
	struct flow flow = { .to = p->t, .flags = FLOW_DIRECT };
	enum reason why;

	flow.seen_ns = bpf_ktime_get_coarse_ns();
	if (!is_syn(p) && !flow_in_the_way(key, &flow))
		return leave(HANDBACK_no_frontend, TC_ACT_UNSPEC);
	why = flow_claim(key, &flow, old);
	if (why)
		return leave(why, TC_ACT_SHOT);
	return vip_direct(skb, p, &flow);
}

/* `old` is a flow that does not go on, or NULL. */
static __always_inline int vip_new_flow(struct __sk_buff *skb, const struct packet *p,
					struct flow_key *key, struct flow *old,
					const struct looked *looked)
{
	struct frontend_key where = { .address = p->t.daddr, .vni = key->vni };
	struct frontend *frontend = looked->frontend;
	struct flow flow = {}, *reply;
	enum reason why;

	if (!frontend)
		frontend = frontends.lookup(&where);
	if (!frontend)
		return leave(HANDBACK_no_frontend, TC_ACT_UNSPEC);
	if (frontend->kind == FRONTEND_DIRECT)
		return vip_open_direct(skb, p, key, old);
	reply = is_syn(p)        ? NULL :
		looked->frontend ? reply_find_transient(key, looked->moves) :
				   reply_find(key);
	if (reply && reply->to.saddr == p->t.daddr && reply->to.daddr == p->t.saddr)
		return vip_hairpin_reply(skb, p, key, reply);
	if (vip_has_lost_backend(p, old))
		return refuse_back(skb, p, DROP_backend_gone);
	why = kernels_flow(p);
	if (why == DROP_moving)
		return leave(why, TC_ACT_SHOT);
	if (why) {
		/* What an ended flow has left: the kernel's would be taken for it. */
		flow_forget(key);
		return leave(why, TC_ACT_UNSPEC);
	}
	why = vip_balance(p, key, frontend, &flow, old);
	if (why == DROP_no_backend)
		return refuse_back(skb, p, why);
	if (why)
		return leave(why, TC_ACT_SHOT);
	return vip_forward(skb, p, &flow);
}

/* tc ingress of a container's veth in the overlay's namespace: what the container sends. */
static __always_inline int vip_from_container(struct __sk_buff *skb, const struct looked *looked)
{
	__u32 vni = ATTACHED_VNI;
	struct flow *found = NULL, *flow = NULL;
	struct packet p = { .vni = vni };
	struct flow_key key;
	enum reason why;

	why = parse_skb(skb, &p);
	if (skb->vlan_present)
		why = HANDBACK_vlan;
	else if (why == HANDBACK_ip_options && vip_strip_options(skb, vni))
		why = parse_skb(skb, &p);
	key = flow_key_of(&p, vni);
	if (!why && !looked->frontend) {
		found = flow_find(&key);
		flow = vip_known_flow(&p, found);
	}
	if (!looked->frontend && vip_is_forged(skb, vni, flow))
		return leave(DROP_spoofed_source, TC_ACT_SHOT);
	if (skb->protocol == bpf_htons(ETH_P_ARP) && why != HANDBACK_vlan)
		return vip_arp(skb, vni);
	if (why == HANDBACK_other_protocol)
		return vip_error_from_container(skb, &p, vni);
	if (why)
		return leave(why, TC_ACT_UNSPEC);
	if (flow)
		flow = flow_track(&p, &key, flow, TO_BACKEND);
	if (!flow)
		return vip_new_flow(skb, &p, &key, found, looked);
	if (flow->flags & FLOW_DIRECT)
		return vip_direct(skb, &p, flow);
	return vip_forward(skb, &p, flow);
}

/* tc egress of the same veth: what the container receives. */
static __always_inline int vip_to_container(struct __sk_buff *skb)
{
	__u32 vni = ATTACHED_VNI;
	struct packet p = { .vni = vni };
	struct flow_key key;
	struct flow *reply;
	enum reason why;

	why = parse_skb(skb, &p);
	if (why == HANDBACK_ip_options && answer_strip_options(skb, vni))
		why = parse_skb(skb, &p);
	if (why == HANDBACK_other_protocol)
		return vip_error_to_container(skb, &p, vni);
	if (why)
		return TC_ACT_UNSPEC; /* counted where it came in */
	key = flow_key_of(&p, vni);
	reply = reply_find(&key);
	if (!reply) {
		newcomer_note(skb, p.t.saddr);
		return TC_ACT_UNSPEC;
	}
	if (reply->flags & FLOW_ABANDONED)
		return drop_late(&p, reply);
	if (is_early_refusal(&p, reply))
		return leave(DROP_early_refusal, TC_ACT_SHOT);
	note_accepted(&p, reply);
	reply = flow_track(&p, &key, reply, TO_CLIENT);
	if (!(reply->flags & FLOW_DIRECT))
		count_skb(skb, &p, reply->frontend, reply->backend, TO_CLIENT);
	if (nat_rewrite(skb, &p, &reply->to))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	return TC_ACT_OK;
}

#endif
