/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The entry node's part: which backend gets a packet for a published port. Shared by XDP and
 * tc, so both choose alike.
 */
#ifndef EBPFMESH_ENTRY_H
#define EBPFMESH_ENTRY_H

#include "allow.h"
#include "claim.h"
#include "counters.h"
#include "encap.h"
#include "live.h"
#include "retry.h"
#include "schedule.h"
#include "takeover.h"

static __always_inline struct frontend *port_frontend(__be16 port, __u8 protocol)
{
	struct frontend_key key = { .port = port, .protocol = protocol };

	return frontends.lookup(&key);
}

/* Answers to a connection that the node itself has opened, from a port that is published. */
static __always_inline bool has_local_socket(void *ctx, const struct packet *p)
{
	struct bpf_sock_tuple t = {};
	struct bpf_sock *sk;
	bool open;

	if (p->protocol != IPPROTO_TCP)
		return false;
	t.ipv4.saddr = p->t.saddr;
	t.ipv4.daddr = p->t.daddr;
	t.ipv4.sport = p->t.sport;
	t.ipv4.dport = p->t.dport;
	sk = bpf_skc_lookup_tcp(ctx, &t, sizeof(t.ipv4), BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return false;
	open = sk->state != BPF_TCP_LISTEN;
	bpf_sk_release(sk);
	return open;
}

/* Whom an entry node gives a packet to. */
struct choice {
	struct backend *backend;
	__u32 id;
	__u32 frontend;
	__u8 attempt; /* how often its SYN has got another backend */
};

/* In this order, and once more, as in flow_find(). */
static __always_inline struct entry *entry_find(struct flow_key *key)
{
	__u64 before = moves_now();
	struct entry *entry = entries.lookup(key);

	if (!entry)
		entry = transient_entries.lookup(key);
	return entry || moves_now() == before ? entry : entries.lookup(key);
}

/* The flags after one more packet. Answers need not come this way: established is what the client
 * has gone on with after its first packet, and not ended.
 */
static __always_inline __u16 entry_next(const struct packet *p, __u16 flags)
{
	__u16 next = flags | flags_of(p, TO_BACKEND);

	if (next & (FLOW_FIN_CLIENT | FLOW_RST))
		return next & ~FLOW_ESTABLISHED;
	return is_syn(p) ? next : next | FLOW_ESTABLISHED;
}

/* As with flows, what is not established only pushes out its like: see flow_table.h. Nothing is
 * moved that another CPU has moved already: see flow_move().
 */
static __always_inline void entry_move(struct flow_key *key, const struct entry *entry, __u16 flags,
				       __u64 now)
{
	struct entry copy = *entry;
	struct entry *there = flags & FLOW_ESTABLISHED ? transient_entries.lookup(key) :
							 entries.lookup(key);

	if (there != entry)
		return;
	copy.flags = flags;
	copy.seen_ns = now;
	if (flags & FLOW_ESTABLISHED) {
		entries.update(key, &copy);
		count_move();
		transient_entries.delete(key);
	} else {
		transient_entries.update(key, &copy);
		entries.delete(key);
	}
}

static __always_inline void entry_track(const struct packet *p, struct flow_key *key,
					struct entry *entry)
{
	__u16 before = entry->flags, flags = entry_next(p, before);
	__u64 now;

	live_track(entry->backend, before, flags);
	if (flags == before && is_recent(entry->seen_ns))
		return;
	now = ask_clock();
	if (flags == before && now - entry->seen_ns < FLOW_TOUCH_NS)
		return;
	if ((flags ^ before) & FLOW_ESTABLISHED) {
		entry_move(key, entry, flags, now);
		return;
	}
	entry->flags = flags;
	entry->seen_ns = now;
}

/* The backend of a flow, if it may have this packet. A connection whose backend has gone may have
 * been given another one by that one's node (second.h), before this one heard of it: that node
 * knows, or refuses. The agent takes its address away if the node itself is lost.
 */
static __always_inline struct backend *entry_backend(const struct packet *p,
						     const struct entry *entry)
{
	struct backend *backend = flow_backend(p, entry->backend, entry->address, entry->pool);
	__u32 id = entry->backend;

	if (backend || p->protocol == IPPROTO_UDP || is_syn(p))
		return backend;
	backend = backends.lookup(&id);
	if (!backend || backend->state != BACKEND_GONE ||
	    !is_same_backend(backend, entry->address, entry->pool) || backend->gateway_ifindex ||
	    !backend->vtep || backend->vtep == NODE_VTEP)
		return NULL;
	return backend;
}

/* The backend that this flow was given before, if it may have this packet too. */
static __always_inline bool entry_known(const struct packet *p, struct flow_key *key,
					struct entry *entry, struct choice *choice)
{
	struct backend *backend;

	if (!entry || flow_restarts(p, entry->flags) || flow_expired(p->protocol, entry->seen_ns))
		return false;
	backend = entry_backend(p, entry);
	if (!backend)
		return false;
	choice->backend = backend;
	choice->id = entry->backend;
	choice->frontend = entry->frontend;
	choice->attempt = entry->attempt;
	entry_track(p, key, entry);
	return true;
}

/* Whether a packet that finds no backend is the kernel's. What is left here of its flow says that
 * it is not: the backend has gone, or the LRU has taken this node's note of it.
 */
static __always_inline enum reason entry_kernels(const struct packet *p, struct flow_key *key)
{
	enum reason why = kernels_flow(p);

	if (!why || why == DROP_moving)
		return why;
	if (!may_begin(p) && (entry_find(key) || flow_find(key)))
		return REASON_NONE;
	/* What an ended flow has left: the kernel's would be taken for it. */
	entries.delete(key);
	transient_entries.delete(key);
	flow_forget(key);
	return why;
}

/* Remembers whom a flow was given to. Not a new one: the same backend once more. */
static __always_inline void entry_note(const struct packet *p, struct flow_key *key,
				       const struct frontend *frontend, const struct choice *choice,
				       bool new)
{
	struct entry entry = { .seen_ns = bpf_ktime_get_coarse_ns(),
			       .backend = choice->id,
			       .frontend = choice->frontend,
			       .address = choice->backend->address,
			       .pool = choice->backend->pool,
			       .attempt = choice->attempt };

	entry.flags = live_flags(frontend, flags_of(p, TO_BACKEND));
	entries.delete(key);
	transient_entries.update(key, &entry);
	if (new)
		live_begin(choice->id, entry.flags);
}

/* Whether the backend that a SYN was given before has not answered it. What a task of this node
 * says is in the flow's own record.
 */
static __always_inline bool entry_unheard(const struct packet *p, struct flow_key *key,
					  const struct entry *entry)
{
	struct flow *flow;

	if (!entry || !is_unheard(p, entry->flags, entry->seen_ns))
		return false;
	flow = flow_find(key);
	return !(flow && flow->flags & FLOW_ANSWERED) && !gives_back();
}

/* Notes what is given up, if anything, for entry_balance(). */
static __always_inline struct given_up *entry_give_up(const struct entry *entry)
{
	struct given_up *up;
	__u32 zero = 0;

	up = given_up.lookup(&zero);
	if (!up)
		return NULL;
	up->backend = entry ? entry->backend : 0;
	up->flags = entry ? entry->flags : 0;
	up->attempt = entry ? entry->attempt : 0;
	asm volatile("" ::: "memory");
	return up;
}

/* The attempt that this packet begins, or, if nobody else is ready, goes on with. */
static __always_inline __u8 entry_attempt(const struct packet *p, const struct given_up *up,
					  __u32 id)
{
	if (!up->backend || up->backend == id)
		return up->attempt;
	live_track(up->backend, up->flags, up->flags | FLOW_RST);
	health_silent(up->backend);
	count_retry(p, RETRY_no_answer, up->backend);
	return next_attempt(up->attempt);
}

/* `up` is the backend that has not answered. A packet of a flow that came in at another node before
 * gets what that has given it, by the same table.
 */
static __always_inline enum reason entry_balance(void *ctx, const struct packet *p,
						 struct flow_key *key, struct frontend *frontend,
						 struct given_up *up, struct choice *choice)
{
	__be32 address = p->t.daddr;
	enum reason why;
	__u32 id;

	if (!addresses.lookup(&address))
		return HANDBACK_foreign_address;
	if (!is_syn(p) && has_local_socket(ctx, p))
		return HANDBACK_local_socket;
	why = entry_kernels(p, key);
	if (why)
		return why;
	if (may_begin(p))
		id = schedule_choose(frontend, p->t.saddr, retry_hash(p, up->backend), up->backend,
				     p->protocol);
	else
		id = schedule_rechoose(frontend, p->t.saddr, flow_hash(p));
	choice->backend = backends.lookup(&id);
	if (!id || !choice->backend)
		return DROP_no_backend;
	choice->id = id;
	choice->frontend = frontend->id;
	choice->attempt = entry_attempt(p, up, id);
	if (id != up->backend) {
		count_new_entry(frontend->id);
		if (!choice->backend->gateway_ifindex) /* else by deliver_open() */
			tell_flow(p, PATH_WRAPPED, frontend->id, id, 0);
	}
	entry_note(p, key, frontend, choice, id != up->backend);
	return REASON_NONE;
}

/* What answers a SYN, on its way back through this node, its entry node, with the tunnel's mark.
 * False if it is of a backend that was given up since.
 */
static __always_inline bool entry_answered(const struct packet *p, __u8 mark)
{
	struct flow_key key = { .t = reversed(&p->t), .protocol = p->protocol };
	struct entry *entry;

	if (!answers_syn(p))
		return true;
	entry = transient_entries.lookup(&key);
	if (!entry)
		return true;
	if (entry->attempt != (mark & MARK_ATTEMPT))
		return false;
	if (is_syn_ack(p) && !(entry->flags & FLOW_ANSWERED)) {
		entry->flags |= FLOW_ANSWERED;
		health_accepted(entry->backend, health_bit(p->protocol, p->t.sport));
	}
	return true;
}

/* Whether anyone may ask the published port: then a packet of a known flow need not look for the
 * frontend. The agent takes that back before it changes the frontend.
 */
static __always_inline bool is_open(const struct packet *p)
{
	__u32 port = bpf_ntohs(p->t.dport);
	__u8 *open = open_ports.lookup(&port);

	return open && *open & PORT_BIT(p->protocol);
}

/* A stranger's packet. That it answers the node itself is possible, too. */
static __always_inline enum reason entry_refuse(void *ctx, const struct packet *p)
{
	return !is_syn(p) && has_local_socket(ctx, p) ? HANDBACK_local_socket : DROP_not_allowed;
}

/* Finds the backend for a packet to a published port of this node. Who acts on the choice counts
 * the packet, with count_entry().
 */
static __always_inline enum reason entry_choose(void *ctx, const struct packet *p,
						struct choice *choice)
{
	struct flow_key key = flow_key_of(p, 0);
	struct frontend *frontend;
	struct given_up *up;
	struct entry *entry;
	bool unheard;

	if (!is_open(p)) {
		frontend = port_frontend(p->t.dport, p->protocol);
		if (!frontend)
			return HANDBACK_no_frontend;
		if (!may_ask(p, frontend))
			return entry_refuse(ctx, p);
	}
	entry = entry_find(&key);
	unheard = entry_unheard(p, &key, entry);
	if (!unheard && entry_known(p, &key, entry, choice))
		return REASON_NONE;
	frontend = port_frontend(p->t.dport, p->protocol);
	if (!frontend)
		return HANDBACK_no_frontend;
	up = entry_give_up(unheard ? entry : NULL);
	return up ? entry_balance(ctx, p, &key, frontend, up, choice) : DROP_no_backend;
}

#endif
