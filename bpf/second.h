/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The second chance: a new flow that an entry node has sent here for a task which drains, or is no
 * more, is balanced once more, by this node's own table. So an entry node that does not know yet
 * costs no connection.
 *
 * Where the new backend is another node's, the packet is wrapped again, still in its entry node's
 * name, and with a mark: there it gets no third chance, so it cannot go round. The entry node goes
 * on to send the flow here, until it knows better and chooses by the same table; what was chosen is
 * remembered like an entry node's own choice.
 */
#ifndef EBPFMESH_SECOND_H
#define EBPFMESH_SECOND_H

#include "deliver.h"

/* Another backend than `id`, if that takes no new flows, or refuses them. By the flow's hash
 * whatever the scheduler: an entry node with the same table comes to the same.
 */
static __always_inline bool second_choose(const struct packet *p, struct flow_key *key, __u32 id,
					  struct choice *choice)
{
	struct frontend *frontend = port_frontend(p->t.dport, p->protocol);
	struct backend *backend = backends.lookup(&id);

	if (!may_begin(p) || !frontend)
		return false;
	if (backend && backend->state == BACKEND_READY && !is_avoided(id))
		return false;
	choice->id = schedule_other(frontend, p->t.saddr, flow_hash(p), id, p->protocol);
	if (choice->id == id)
		return false;
	choice->backend = backends.lookup(&choice->id);
	choice->frontend = frontend->id;
	if (!choice->backend || choice->backend->state != BACKEND_READY)
		return false;
	if (!choice->backend->gateway_ifindex && !is_other_node(choice->backend->vtep))
		return false;
	/* What an ended connection has left here would get the next packet. */
	if (is_syn(p))
		flow_forget(key);
	entry_note(p, key, frontend, choice, true);
	count_retry(p, RETRY_second_chance, id);
	return true;
}

/* What was chosen for an earlier packet of the flow. */
static __always_inline bool second_known(const struct packet *p, struct flow_key *key,
					 struct choice *choice)
{
	struct entry *entry = entry_find(key);

	/* Its entry node has given that up. */
	if (entry && is_tcp_syn(p) && entry->attempt != choice->attempt)
		return false;
	return entry_known(p, key, entry, choice);
}

static __always_inline int second_send(struct __sk_buff *skb, const struct packet *p,
				       const struct backend *backend, __be32 entry, __u8 mark)
{
	note_first_fragment(p);
	return tc_send_wrapped(skb, backend->vtep, backend->address, entry, flow_hash(p),
			       MARK_SECOND_CHANCE | mark);
}

/* In by the NIC, for a task of this node, or for one that it has been told of: `id` is 0 if this
 * node does not know it. `entry` is the entry node, 0 if that is this one.
 */
static __always_inline int deliver_from_nic(struct __sk_buff *skb, const struct packet *p, __u32 id,
					    __be32 entry, __u8 mark)
{
	struct flow new = { .entry = entry, .ifindex = skb->ifindex, .flags = attempt_flags(mark) };
	struct choice other = { .attempt = mark & MARK_ATTEMPT };
	struct flow_key key = flow_key_of(p, 0);
	struct flow *flow = deliver_known(p, &key, &new);

	if (has_expired(p))
		return deliver_expired(skb, p, &new);
	if (flow)
		flow = deliver_on(skb, p, &key, flow, &new);
	if (flow)
		return deliver_flow(skb, p, flow);
	if (entry && !(mark & MARK_SECOND_CHANCE) &&
	    (second_known(p, &key, &other) || second_choose(p, &key, id, &other))) {
		if (!other.backend->gateway_ifindex)
			return second_send(skb, p, other.backend, entry, other.attempt);
		id = other.id;
	}
	return deliver_first(skb, p, &key, id, &new);
}

/* The backend on another node that a flow was sent on to. */
static __always_inline struct backend *second_of(const struct packet *p, struct flow_key *key)
{
	struct entry *entry = entry_find(key);
	struct backend *backend;

	if (!entry)
		return NULL;
	backend = flow_backend(p, entry->backend, entry->address, entry->pool);
	return backend && !backend->gateway_ifindex ? backend : NULL;
}

/* An ICMP error about an answer of a task of this node: into that task. */
static __always_inline int deliver_error(struct __sk_buff *skb, const struct packet *p,
					 __be32 entry, __u8 mark)
{
	struct packet quoted = {};
	struct backend *backend;
	struct flow_key key;
	struct flow *flow;
	__u32 id, ifindex;

	if (!icmp_error_read(skb, p, &quoted))
		return leave(DROP_bad_inner, TC_ACT_SHOT);
	key = quoted_key(&quoted, 0);
	flow = flow_find(&key);
	if (!flow && entry && !(mark & MARK_SECOND_CHANCE)) {
		backend = second_of(&quoted, &key);
		if (backend)
			return second_send(skb, &quoted, backend, entry, mark);
	}
	if (!flow || flow->flags & (FLOW_DIRECT | FLOW_VIA_KERNEL))
		return leave(DROP_not_local, TC_ACT_SHOT);
	id = flow->backend;
	if (error_to_backend(skb, p, &quoted, flow))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	backend = backends.lookup(&id);
	if (!backend || !backend->gateway_ifindex)
		return leave(DROP_backend_gone, TC_ACT_SHOT);
	ifindex = backend->gateway_ifindex;
	if (set_destination_mac(skb, backend->gateway_mac))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	return bpf_redirect_peer(ifindex, 0);
}

#endif
