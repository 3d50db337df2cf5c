/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Telling who watches what is decided: which flows begin, and why packets are dropped, handed back,
 * or given to another backend. The agent says in `tracing` what it wants to hear, and till when;
 * while it does not, this costs one look at that map where a reason is counted or a flow is made,
 * and nothing anywhere else.
 *
 * What is known of a packet is told where it is known: of a flow that begins, of a packet that goes
 * on or has been turned into its answer. All other reasons are only noted where they are counted,
 * and told at the program's exit, together with the packet as it is there.
 */
#ifndef EBPFMESH_TRACE_H
#define EBPFMESH_TRACE_H

#include <linux/pkt_cls.h>

#include "maps.h"
#include "parse.h"

/* In place of a reason: a flow begins. */
#define FLOW_BEGINS REASON_NONE
/* The reader looks often enough. */
#define NO_WAKEUP BPF_RB_NO_WAKEUP

static __always_inline bool is_traced(enum reason what)
{
	__u32 zero = 0;
	struct tracing *t = tracing.lookup(&zero);

	return t && t->wanted >> what & 1 && bpf_ktime_get_coarse_ns() < t->until_ns;
}

/* A new event, all zero but for what is always known; NULL where the ring is full. */
static __always_inline struct event *event_begin(enum reason what)
{
	struct event *e = events.ringbuf_reserve(sizeof(*e));
	__u32 zero = 0;
	__u64 *lost;

	if (!e) {
		lost = lost_events.lookup(&zero);
		if (lost)
			*lost += 1;
		return NULL;
	}
	__builtin_memset(e, 0, offsetof(struct event, head));
	e->time_ns = bpf_ktime_get_ns();
	e->vni = ATTACHED_VNI;
	e->program = THIS_PROGRAM;
	e->what = what;
	return e;
}

static __always_inline void event_packet(struct event *e, const struct packet *p)
{
	e->t = p->t;
	e->length = p->length;
	e->protocol = p->protocol;
	e->tcp_flags = p->tcp_flags;
}

/* Something has happened to a packet that goes on. */
static __always_inline void tell_packet(const struct packet *p, enum reason what, __u32 backend)
{
	struct event *e;

	if (!is_traced(what))
		return;
	e = event_begin(what);
	if (!e)
		return;
	event_packet(e, p);
	e->backend = backend;
	events.ringbuf_submit(e, NO_WAKEUP);
}

/* A flow begins; `entry` is the node that it came in at, 0 if that is this one. */
static __always_inline void tell_flow(const struct packet *p, enum event_path path, __u32 frontend,
				      __u32 backend, __be32 entry)
{
	struct event *e;

	if (!is_traced(FLOW_BEGINS))
		return;
	e = event_begin(FLOW_BEGINS);
	if (!e)
		return;
	event_packet(e, p);
	e->path = path;
	e->frontend = frontend;
	e->backend = backend;
	e->entry = entry;
	events.ringbuf_submit(e, NO_WAKEUP);
}

/* The same of a socket, whose own address is not known yet. */
static __always_inline void tell_socket(enum reason what, __u8 protocol, __be32 address,
					__be16 port, __u32 frontend, __u32 backend)
{
	struct event *e;

	if (!is_traced(what))
		return;
	e = event_begin(what);
	if (!e)
		return;
	e->path = PATH_SOCKET;
	e->protocol = protocol;
	e->t.daddr = address;
	e->t.dport = port;
	e->frontend = frontend;
	e->backend = backend;
	events.ringbuf_submit(e, NO_WAKEUP);
}

/* Whether a packet with this verdict leaves its program as it is. */
static __always_inline bool is_final(int verdict)
{
	return verdict == TC_ACT_SHOT || verdict == TC_ACT_UNSPEC || verdict == XDP_DROP;
}

/* For told(). No other packet comes between, on this CPU. */
static __always_inline void note_reason(enum reason reason, int verdict)
{
	__u32 zero = 0;
	__u32 *noted;

	if (!is_final(verdict) || !is_traced(reason))
		return;
	noted = noted_reason.lookup(&zero);
	if (noted)
		*noted = reason;
}

/* What was noted of this packet, REASON_NONE if nothing was. */
static __always_inline enum reason take_reason(void)
{
	__u32 zero = 0, *noted;
	struct tracing *t = tracing.lookup(&zero);
	enum reason reason;

	if (!t || !t->wanted)
		return REASON_NONE;
	noted = noted_reason.lookup(&zero);
	if (!noted)
		return REASON_NONE;
	reason = *noted;
	*noted = REASON_NONE;
	return reason;
}

/* How much of a frame is told. The verifier of Linux 6.1 learns from "not 0" nothing of a least
 * length: what is compared with it is that of Ethernet's header.
 */
static __always_inline __u64 head_length(__u64 length)
{
	if (length > EVENT_HEAD)
		length = EVENT_HEAD;
	asm volatile("" : "+r"(length));
	return length;
}

static __always_inline void tell_skb(struct __sk_buff *skb)
{
	enum reason reason = take_reason();
	__u64 length = head_length(skb->len);
	struct event *e;

	if (!reason)
		return;
	e = event_begin(reason);
	if (!e)
		return;
	e->ifindex = came_in_by(skb);
	e->length = skb->len;
	e->ethertype = skb->protocol;
	if (length >= ETH_HLEN && !bpf_skb_load_bytes(skb, 0, e->head, length))
		e->head_length = length;
	events.ringbuf_submit(e, NO_WAKEUP);
}

/* The exit of every tc program: says of a packet that is not carried on why. */
static __always_inline int told(struct __sk_buff *skb, int verdict)
{
	if (verdict == TC_ACT_SHOT || verdict == TC_ACT_UNSPEC)
		tell_skb(skb);
	return verdict;
}

/* The same for XDP. */
static __always_inline int told_xdp(struct xdp_md *ctx, int verdict)
{
	enum reason reason;
	struct event *e;
	__u64 length;

	if (verdict != XDP_DROP)
		return verdict;
	reason = take_reason();
	length = head_length((void *)(long)ctx->data_end - (void *)(long)ctx->data);
	if (!reason)
		return verdict;
	e = event_begin(reason);
	if (!e)
		return verdict;
	e->ifindex = ctx->ingress_ifindex;
	e->length = (void *)(long)ctx->data_end - (void *)(long)ctx->data;
	if (length >= ETH_HLEN && !bpf_xdp_load_bytes(ctx, 0, e->head, length))
		e->head_length = length;
	events.ringbuf_submit(e, NO_WAKEUP);
	return verdict;
}

#endif
