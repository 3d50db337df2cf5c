/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Published ports, XDP on the node's NIC. It does what needs no socket buffer: sends a packet on
 * to another node, unwraps what other nodes send. All else is left to mesh_nic() in tc, with a
 * tag that says what was found; where there is no XDP, or no metadata, tc does it all.
 */
#ifndef EBPFMESH_MESH_XDP_H
#define EBPFMESH_MESH_XDP_H

#include "encap.h"
#include "entry.h"
#include "mss_xdp.h"
#include "surrogate.h"

/* Leaves a note for tc. False where the driver has no metadata: tc then finds out by itself. */
static __always_inline bool tag_packet(struct xdp_md *ctx, __u32 kind, __u32 backend, __be32 entry)
{
	struct tag *tag;

	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(*tag)))
		return false;
	tag = (void *)(long)ctx->data_meta;
	if ((void *)(tag + 1) > (void *)(long)ctx->data)
		return false;
	tag->magic = TAG_MAGIC;
	tag->kind = kind;
	tag->backend = backend;
	tag->entry = entry;
	return true;
}

/* Read once and held: else the compiler may merge reads through a moved context pointer, which
 * the verifier refuses.
 */
static __always_inline __u32 ingress_ifindex(struct xdp_md *ctx)
{
	__u32 ifindex = ctx->ingress_ifindex;

	asm volatile("" : "+r"(ifindex));
	return ifindex;
}

/* The next hop towards a backend's VTEP, looked up in the kernel's tables at most once a second
 * (is_recent()). It must leave by the NIC that the packet came in by: XDP_TX knows no other way.
 */
static __always_inline struct next_hop *next_hop(struct xdp_md *ctx, __u32 backend, __be32 vtep)
{
	__u32 nic = ingress_ifindex(ctx);
	struct next_hop *hop = next_hops.lookup(&backend);
	struct bpf_fib_lookup fib = {};

	if (!hop)
		return NULL;
	if (hop->vtep == vtep && is_recent(hop->resolved_ns))
		return hop->ifindex == nic ? hop : NULL;
	if (!nodes.lookup(&vtep))
		return NULL;
	fib.family = AF_INET;
	fib.ipv4_src = NODE_VTEP;
	fib.ipv4_dst = vtep;
	fib.ifindex = nic;
	if (bpf_fib_lookup(ctx, &fib, sizeof(fib), 0) != BPF_FIB_LKUP_RET_SUCCESS)
		return NULL;
	__builtin_memcpy(hop->smac, fib.smac, 6);
	__builtin_memcpy(hop->dmac, fib.dmac, 6);
	hop->ifindex = fib.ifindex;
	/* Behind a call: no store is moved over it, and what is believed is there by then. */
	hop->resolved_ns = ask_clock();
	hop->vtep = vtep;
	return hop->ifindex == nic ? hop : NULL;
}

static __always_inline int xdp_send_wrapped(struct xdp_md *ctx, const struct packet *p,
					    const struct backend *backend,
					    const struct next_hop *hop, __u8 mark)
{
	__be32 vtep = backend->vtep, to = backend->address;
	struct outer *o;

	if (bpf_xdp_adjust_head(ctx, -WRAP_LEN))
		return leave(DROP_rewrite_failed, XDP_DROP);
	o = (void *)(long)ctx->data;
	if ((void *)(o + 1) > (void *)(long)ctx->data_end)
		return leave(DROP_rewrite_failed, XDP_DROP);
	outer_fill(o, vtep, to, NODE_VTEP, p->length, flow_hash(p), mark);
	__builtin_memcpy(o->eth.h_dest, hop->dmac, 6);
	__builtin_memcpy(o->eth.h_source, hop->smac, 6);
	return XDP_TX;
}

/* A packet for a published port of this node. What is not sent on is tagged for tc. */
static __always_inline int xdp_enter(struct xdp_md *ctx, const struct packet *p)
{
	struct choice choice = {};
	enum reason why = entry_choose(ctx, p, &choice);
	enum tag_kind kind;
	struct next_hop *hop;

	if (why == DROP_not_allowed)
		return leave(why, XDP_DROP);
	if (why)
		return XDP_PASS; /* tc finds the same, and counts why */
	kind = choice.backend->gateway_ifindex ? TAG_DELIVER : TAG_FORWARD;
	if (kind == TAG_FORWARD && p->length + WRAP_LEN <= UNDERLAY_MTU) {
		hop = next_hop(ctx, choice.id, choice.backend->vtep);
		if (hop) {
			if (is_tcp_syn(p) && returns_wrapped(NODE_VTEP, p->t.saddr))
				xdp_mss_clamp(ctx, p->length, TUNNEL_MSS);
			count_entry(choice.frontend, p->length);
			return xdp_send_wrapped(ctx, p, choice.backend, hop, choice.attempt);
		}
	}
	if (tag_packet(ctx, tag_kind(kind, choice.attempt), choice.id, 0))
		count_entry(choice.frontend, p->length);
	return XDP_PASS;
}

/* Takes the tunnel's headers off; the outer MACs stay. */
static __always_inline bool xdp_unwrap(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	struct outer *o = data;

	if ((void *)(o + 1) > (void *)(long)ctx->data_end)
		return false;
	__builtin_memcpy(&o->inner_eth, &o->eth, sizeof(o->eth));
	return bpf_xdp_adjust_head(ctx, WRAP_LEN) == 0;
}

/* An answer on its way back through its entry node, this one: out to the client. */
static __always_inline int xdp_return(struct xdp_md *ctx, const struct packet *p)
{
	struct bpf_fib_lookup fib = { .family = AF_INET, .ipv4_dst = p->t.daddr };
	__u32 nic = ingress_ifindex(ctx);
	struct ethhdr *eth;

	fib.ipv4_src = p->t.saddr;
	fib.ifindex = nic;
	if (bpf_fib_lookup(ctx, &fib, sizeof(fib), 0) != BPF_FIB_LKUP_RET_SUCCESS ||
	    fib.ifindex != nic) {
		tag_packet(ctx, TAG_RETURN, 0, 0);
		return XDP_PASS;
	}
	eth = (void *)(long)ctx->data;
	if ((void *)(eth + 1) > (void *)(long)ctx->data_end)
		return leave(DROP_rewrite_failed, XDP_DROP);
	__builtin_memcpy(eth->h_dest, fib.dmac, 6);
	__builtin_memcpy(eth->h_source, fib.smac, 6);
	return XDP_TX;
}

/* A packet of the tunnel. Without metadata it stays wrapped, and tc takes it from there. */
static __always_inline int xdp_tunnel(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct inner inner = {};
	struct packet p = {};
	enum reason why;
	__u32 *id;

	why = unwrap_check(data, end, end - data, &p, &inner);
	if (why == HANDBACK_other_protocol)
		return XDP_PASS; /* tc can read it */
	if (why)
		return leave(why, XDP_DROP);
	if (inner.to == NODE_VTEP) {
		__be32 source = p.t.saddr;

		if (!addresses.lookup(&source))
			return leave(DROP_bad_inner, XDP_DROP);
		if (!entry_answered(&p, inner.mark))
			return leave(DROP_late_answer, XDP_DROP);
		if (is_surrogate(p.t.daddr))
			return XDP_PASS; /* tc makes IPv6 of it */
		if (!xdp_unwrap(ctx))
			return leave(DROP_rewrite_failed, XDP_DROP);
		if (is_syn_ack(&p)) /* this node may have less room than that of the task */
			xdp_mss_clamp(ctx, p.length, TUNNEL_MSS);
		return xdp_return(ctx, &p);
	}
	/* What is for no task of this node is tc's to judge: see second.h. */
	id = local_backends.lookup(&inner.to);
	if (!tag_packet(ctx, tag_kind(TAG_DELIVER, inner.mark), id ? *id : 0, inner.entry))
		return XDP_PASS;
	if (!xdp_unwrap(ctx))
		return leave(DROP_rewrite_failed, XDP_DROP);
	return XDP_PASS;
}

static __always_inline int mesh_xdp(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct packet p = {};

	if (is_wrapped(data, end))
		return xdp_tunnel(ctx);
	if (parse_xdp(data, end, &p) || is_surrogate(p.t.saddr))
		return XDP_PASS; /* tc finds the same, and counts why */
	if (p.fragment)
		return XDP_PASS; /* from here the later ones would overtake what tc has to split */
	return xdp_enter(ctx, &p);
}

#endif
