/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Published ports, tc on the node's NICs. Complete by itself: what XDP has found is only taken up,
 * and where there is no XDP, or no metadata, everything is done here.
 */
#ifndef EBPFMESH_MESH_NIC_H
#define EBPFMESH_MESH_NIC_H

#include "encap.h"
#include "entry.h"
#include "guard.h"
#include "icmp_error.h"
#include "ip_options.h"
#include "refuse.h"
#include "second.h"
#include "send.h"
#include "split.h"
#include "too_big.h"

/* An answer that came back through the tunnel: on to its client. */
static __always_inline int forward_return(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_fib_lookup fib = { .family = AF_INET, .ipv4_dst = p->t.daddr };
	int found;

	if (is_surrogate(p->t.daddr))
		return hand_over(skb, PROGRAM_TO_IP6);
	fib.ipv4_src = p->t.saddr;
	fib.ifindex = skb->ifindex;
	found = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	if (found == BPF_FIB_LKUP_RET_FRAG_NEEDED)
		return leave(DROP_too_big, TC_ACT_SHOT);
	if (found != BPF_FIB_LKUP_RET_SUCCESS && found != BPF_FIB_LKUP_RET_NO_NEIGH)
		return leave(DROP_bad_inner, TC_ACT_SHOT);
	/* This node may have less room than that of the task. */
	if (is_syn_ack(p) && mss_clamp(skb, p->length, TUNNEL_MSS))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	return send_out(fib.ifindex);
}

/* In place of a verdict: a packet for a task. It is delivered at one place, where it is read again:
 * so the verifier forgets by which way it got there, and walks all that is behind once.
 */
#define TO_DELIVER 100
/* Whom it is for waits in the control block, as deliver_from_nic() wants to know it. */
#define CB_BACKEND 3
#define CB_ENTRY 4
#define CB_MARK CB_FROM_IP6 /* above the bit that it has */

static __always_inline int to_deliver(struct __sk_buff *skb, __u32 id, __be32 entry, __u8 mark)
{
	skb->cb[CB_BACKEND] = id;
	skb->cb[CB_ENTRY] = entry;
	skb->cb[CB_MARK] = is_from_ip6(skb) | (__u32)mark << 8;
	return TO_DELIVER;
}

static __always_inline int nic_deliver(struct __sk_buff *skb)
{
	struct __sk_buff *noted = skb;
	struct packet p = {};

	if (parse_skb(skb, &p))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	/* Not what the compiler knows of them. */
	asm volatile("" : "+r"(noted));
	return deliver_from_nic(skb, &p, noted->cb[CB_BACKEND], noted->cb[CB_ENTRY],
				noted->cb[CB_MARK] >> 8);
}

/* A packet of the tunnel that XDP has left wrapped. */
static __always_inline int nic_tunnel(struct __sk_buff *skb, struct packet *p)
{
	struct inner inner = {};
	enum reason why;
	__be32 source;
	__u32 id = 0, frame, *local;
	bool icmp;

	frame = segments(skb) > 1 ? ANY_LENGTH : skb->len;
	why = unwrap_check((void *)(long)skb->data, (void *)(long)skb->data_end, frame, p, &inner);
	icmp = why == HANDBACK_other_protocol;
	if (why && !icmp)
		return leave(why, TC_ACT_SHOT);
	source = p->t.saddr;
	if (inner.to == NODE_VTEP) {
		if (!addresses.lookup(&source))
			return leave(DROP_bad_inner, TC_ACT_SHOT);
		if (!icmp && !entry_answered(p, inner.mark))
			return leave(DROP_late_answer, TC_ACT_SHOT);
	} else {
		local = local_backends.lookup(&inner.to);
		id = local ? *local : 0;
	}
	if (bpf_skb_adjust_room(skb, -WRAP_LEN, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	if (inner.to == NODE_VTEP)
		return forward_return(skb, p);
	if (icmp)
		return deliver_error(skb, p, inner.entry, inner.mark);
	if (p->fragment == FRAGMENT_LATER && find_first_fragment(p))
		return leave(DROP_fragment, TC_ACT_SHOT);
	return to_deliver(skb, id, inner.entry, inner.mark);
}

static __always_inline int nic_forward(struct __sk_buff *skb, struct packet *p,
				       const struct backend *backend, __u8 mark)
{
	note_first_fragment(p);
	if (is_to_split(skb, p) && split(skb, p))
		return leave(DROP_too_big, TC_ACT_SHOT);
	if (!fits(skb, p, TUNNEL_MTU))
		return answer_too_big(skb, p, TUNNEL_MTU);
	if (is_tcp_syn(p) && returns_wrapped(NODE_VTEP, p->t.saddr) &&
	    mss_clamp(skb, p->length, TUNNEL_MSS))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	return tc_send_wrapped(skb, backend->vtep, backend->address, NODE_VTEP, flow_hash(p), mark);
}

/* What XDP has found out already. */
static __always_inline int nic_tagged(struct __sk_buff *skb, const struct tag *tag,
				      struct packet *p)
{
	__u32 id = tag->backend;
	__u8 kind = tag->kind;
	struct backend *backend;

	if (kind == TAG_RETURN)
		return forward_return(skb, p);
	if (kind == TAG_DELIVER)
		return to_deliver(skb, id, tag->entry, tag->kind >> 8);
	backend = backends.lookup(&id);
	if (!backend)
		return leave(DROP_backend_gone, TC_ACT_SHOT);
	return nic_forward(skb, p, backend, tag->kind >> 8);
}

/* A later fragment out of the tunnel whose first is not known. An answer is only carried on. */
static __always_inline int nic_tagged_fragment(struct __sk_buff *skb, const struct tag *tag,
					       const struct packet *p)
{
	if (tag->kind == TAG_RETURN)
		return forward_return(skb, p);
	return leave(DROP_fragment, TC_ACT_SHOT);
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
static __always_inline int nic_enter(struct __sk_buff *skb, struct packet *p)
{
	struct choice choice = {};
	enum reason why = entry_choose(skb, p, &choice);

	if (why == DROP_no_backend)
		return refuse_back(skb, p, why);
	if (why == DROP_not_allowed || why == DROP_moving)
		return leave(why, TC_ACT_SHOT);
	if (why)
		return leave(why, TC_ACT_UNSPEC);
	if (!is_split_rest(skb, p))
		count_entry(choice.frontend, p->length);
	if (!choice.backend->gateway_ifindex)
		return nic_forward(skb, p, choice.backend, choice.attempt);
	return to_deliver(skb, choice.id, 0, choice.attempt);
}

/* Whom an ICMP error is for: who has sent the answer that it quotes, in this node's name. */
static __always_inline struct backend *error_backend(struct __sk_buff *skb, const struct packet *p,
						     struct packet *quoted)
{
	struct entry *entry;
	struct flow_key key;

	if (!icmp_error_read(skb, p, quoted))
		return NULL;
	key = quoted_key(quoted, 0);
	entry = entry_find(&key);
	return entry ? flow_backend(quoted, entry->backend, entry->address, entry->pool) : NULL;
}

static __always_inline int nic_error_on(struct __sk_buff *skb, const struct packet *p,
					struct packet *quoted, const struct backend *backend)
{
	if (backend->gateway_ifindex)
		return deliver_error(skb, p, 0, 0);
	return nic_forward(skb, quoted, backend, 0);
}

/* Of a packet of the tunnel only a program of its own can tell whom it is for. What is about
 * anything else is the kernel's.
 */
static __always_inline int nic_error(struct __sk_buff *skb, const struct packet *p)
{
	struct packet quoted = {};
	struct backend *backend = error_backend(skb, p, &quoted);

	if (!backend && is_from_ip6(skb))
		return leave(DROP_backend_gone, TC_ACT_SHOT);
	if (!backend && quoted.t.saddr == NODE_VTEP && quoted.protocol == IPPROTO_UDP &&
	    quoted.t.dport == bpf_htons(VXLAN_PORT) && skb->ifindex == NIC_IFINDEX)
		return hand_over(skb, PROGRAM_OUTER_ERROR);
	if (!backend)
		return leave(HANDBACK_other_protocol, TC_ACT_UNSPEC);
	return nic_error_on(skb, p, &quoted, backend);
}

static __always_inline int nic_arrive(struct __sk_buff *skb, struct packet *p)
{
	struct tag tag = {};
	enum reason why;
	bool tagged = !is_from_ip6(skb) && read_tag(skb, &tag);

	if (skb->protocol != bpf_htons(ETH_P_IP) && skb->cb[CB_COUNTED] == COUNTED_ALREADY)
		return TC_ACT_UNSPEC;
	if (skb->protocol != bpf_htons(ETH_P_IP))
		return leave(HANDBACK_not_ipv4, TC_ACT_UNSPEC);
	if (skb->vlan_present)
		return leave(HANDBACK_vlan, TC_ACT_UNSPEC);
	if (!tagged && pull_headers(skb))
		return leave(HANDBACK_truncated, TC_ACT_UNSPEC);
	/* The tunnel ends at the NIC with the data-path address: nobody may forge a node elsewhere.
	 */
	if (!tagged && !is_from_ip6(skb) && skb->ifindex == NIC_IFINDEX &&
	    is_wrapped((void *)(long)skb->data, (void *)(long)skb->data_end))
		return nic_tunnel(skb, p);
	why = parse_skb(skb, p);
	if (why == HANDBACK_ip_options && port_strip_options(skb))
		why = parse_skb(skb, p);
	p->judged = is_from_ip6(skb);
	/* Out of the tunnel, an entry node vouches for it. */
	if (!tagged && !p->judged && is_surrogate(p->t.saddr))
		return leave(DROP_surrogate_source, TC_ACT_SHOT);
	if (why == HANDBACK_other_protocol)
		return nic_error(skb, p);
	if (tagged && why == HANDBACK_fragment)
		return nic_tagged_fragment(skb, &tag, p);
	if (why)
		return leave_to_kernel(skb, why);
	if (tagged)
		return nic_tagged(skb, &tag, p);
	return nic_enter(skb, p);
}

/* tc ingress of the node's NICs. */
static __always_inline int mesh_nic(struct __sk_buff *skb)
{
	struct packet p = {};
	int verdict = nic_arrive(skb, &p);

	return verdict == TO_DELIVER ? nic_deliver(skb) : verdict;
}

#endif
