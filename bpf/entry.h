/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The entry node's part: which backend gets a packet for a published port. Shared by XDP and
 * tc, so both choose alike.
 */
#ifndef EBPFMESH_ENTRY_H
#define EBPFMESH_ENTRY_H

#include "allow.h"
#include "claim.h"
#include "counters.h"
#include "live.h"
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
};

static __always_inline struct entry *entry_find(struct flow_key *key)
{
	struct entry *entry = entries.lookup(key);

	return entry ? entry : transient_entries.lookup(key);
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

/* As with flows, what is not established only pushes out its like: see flow_table.h. */
static __always_inline void entry_move(struct flow_key *key, const struct entry *entry)
{
	struct entry copy = *entry;

	if (copy.flags & FLOW_ESTABLISHED) {
		entries.update(key, &copy);
		transient_entries.delete(key);
	} else {
		transient_entries.update(key, &copy);
		entries.delete(key);
	}
}

static __always_inline void entry_track(const struct packet *p, struct flow_key *key,
					struct entry *entry)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	__u16 before = entry->flags, flags = entry_next(p, before);

	live_track(entry->backend, before, flags);
	if (flags == before && now - entry->seen_ns < FLOW_TOUCH_NS)
		return;
	entry->flags = flags;
	entry->seen_ns = now;
	if ((flags ^ before) & FLOW_ESTABLISHED)
		entry_move(key, entry);
}

/* The backend that this flow was given before, if it may have this packet too. */
static __always_inline bool entry_known(const struct packet *p, struct flow_key *key,
					struct choice *choice)
{
	struct entry *entry = entry_find(key);
	struct backend *backend;

	if (!entry || flow_restarts(p, entry->flags) || flow_expired(p->protocol, entry->seen_ns))
		return false;
	backend = flow_backend(p, entry->backend, entry->address);
	if (!backend)
		return false;
	choice->backend = backend;
	choice->id = entry->backend;
	choice->frontend = entry->frontend;
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

/* Remembers whom a flow was given to. */
static __always_inline void entry_note(const struct packet *p, struct flow_key *key,
				       const struct frontend *frontend, const struct choice *choice)
{
	struct entry entry = { .seen_ns = bpf_ktime_get_coarse_ns(),
			       .backend = choice->id,
			       .frontend = choice->frontend,
			       .address = choice->backend->address };

	entry.flags = live_flags(frontend, flags_of(p, TO_BACKEND));
	entries.delete(key);
	transient_entries.update(key, &entry);
	live_begin(choice->id, entry.flags);
}

static __always_inline enum reason entry_balance(void *ctx, const struct packet *p,
						 struct flow_key *key, struct frontend *frontend,
						 struct choice *choice)
{
	struct backend *backend;
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
	id = schedule_choose(frontend, p->t.saddr, flow_hash(p));
	backend = backends.lookup(&id);
	if (!id || !backend)
		return DROP_no_backend;
	choice->backend = backend;
	choice->id = id;
	choice->frontend = frontend->id;
	entry_note(p, key, frontend, choice);
	count_new_entry(frontend->id);
	return REASON_NONE;
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
	struct frontend *frontend = port_frontend(p->t.dport, p->protocol);
	struct flow_key key;

	if (!frontend)
		return HANDBACK_no_frontend;
	if (!may_ask(p, frontend))
		return entry_refuse(ctx, p);
	key = flow_key_of(p, 0);
	if (entry_known(p, &key, choice))
		return REASON_NONE;
	return entry_balance(ctx, p, &key, frontend, choice);
}

#endif
