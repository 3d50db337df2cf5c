/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The short way of VIPs: what nearly all packets are, done in as few instructions as that takes. A
 * whole packet of UDP, or of TCP that neither opens nor ends anything; of a flow that goes on, and
 * of which nothing but one address changes, or of none. All that is out of the ordinary is left to
 * vip.h, untouched: nothing is counted or written here before all is known.
 *
 * What goes from a container of this node to another is translated where it leaves the one, answers
 * too, and marked: where it comes to the other nothing is looked up (mark.h). Answers that come
 * from another node are translated where they come to their client.
 */
#ifndef EBPFMESH_VIP_PLAIN_H
#define EBPFMESH_VIP_PLAIN_H

#include "counters.h"
#include "flow_table.h"
#include "mark.h"
#include "nat.h"
#include "recent.h"
#include "spoof.h"
#include "vip.h"

/* No verdict: the packet goes the long way. */
#define NOT_PLAIN 1024

/* 64 bits wide throughout: for anything narrower the compiler clears the upper half again and
 * again.
 */
struct plain {
	struct iphdr *ip;
	__u64 saddr; /* these as they lie there */
	__u64 daddr;
	__u64 ports;
	__u64 protocol;
	__u64 packets;
	__u64 bytes;
	__u64 checksum; /* where that of layer 4 is */
	__u64 flags;    /* how it is changed */
	__u64 network;  /* see recent_network() */
	struct recent_place place;
};

/* Version 4, and a header without options. */
#define PLAIN_HEADER 0x45

/* Whether the length in the IPv4 header is true: see parse.h. What the card cuts is counted by its
 * segments.
 */
static __always_inline bool measure_plain(struct __sk_buff *skb, struct plain *q, __u64 least)
{
	__u64 frame = skb->len, length = bpf_ntohs(q->ip->tot_len);

	q->packets = segments(skb);
	if (q->packets > 1) {
		q->bytes = frame - ETH_HLEN;
		return true;
	}
	q->packets = 1;
	q->bytes = length;
	return length >= least && length + ETH_HLEN <= frame;
}

/* Reads such a packet. */
static __always_inline bool read_plain(struct __sk_buff *skb, struct plain *q)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + L3_OFFSET;
	__u8 *l4 = (void *)(ip + 1);
	__u64 protocol, least;

	if ((void *)l4 + sizeof(struct udphdr) > end)
		return false;
	if (*(__be16 *)(data + offsetof(struct ethhdr, h_proto)) != bpf_htons(ETH_P_IP) ||
	    *(__u8 *)ip != PLAIN_HEADER || ip->frag_off & bpf_htons(IP_FRAGMENT))
		return false;
	protocol = ip->protocol;
	q->ip = ip;
	q->flags = BPF_F_PSEUDO_HDR;
	if (protocol == IPPROTO_UDP) {
		q->checksum = L4_OFFSET + offsetof(struct udphdr, check);
		q->flags |= BPF_F_MARK_MANGLED_0;
		least = sizeof(*ip) + sizeof(struct udphdr);
	} else if (protocol == IPPROTO_TCP) {
		if ((void *)l4 + sizeof(struct tcphdr) > end ||
		    l4[13] & (TCP_FIN | TCP_SYN | TCP_RST))
			return false;
		q->checksum = L4_OFFSET + offsetof(struct tcphdr, check);
		least = sizeof(*ip) + sizeof(struct tcphdr);
	} else {
		return false;
	}
	if (!measure_plain(skb, q, least))
		return false;
	q->saddr = ip->saddr;
	q->daddr = ip->daddr;
	q->ports = *(__be32 *)l4;
	q->protocol = protocol;
	return true;
}

static __always_inline struct flow_key key_plain(const struct plain *q)
{
	struct flow_key key = { .vni = ATTACHED_VNI, .protocol = q->protocol };

	key.t.saddr = q->saddr;
	key.t.daddr = q->daddr;
	*(__be32 *)&key.t.sport = q->ports;
	return key;
}

/* Whether nothing need be noted of one more packet: neither flags (see flow_next()) nor time. */
static __always_inline bool goes_on(const struct flow *flow, enum direction dir)
{
	__u64 flags = flow->flags;

	if (flags & (FLOW_FIN_CLIENT | FLOW_FIN_SERVER | FLOW_RST | FLOW_DIRECT | FLOW_ABANDONED))
		return false;
	if (dir == TO_CLIENT ? !(flags & FLOW_ANSWERED) :
			       (flags & (FLOW_ANSWERED | FLOW_ESTABLISHED)) == FLOW_ANSWERED)
		return false;
	return is_recent(flow->seen_ns);
}

static __always_inline bool same_ports(const struct plain *q, const struct flow *flow)
{
	return *(const __be32 *)&flow->to.sport == (__be32)q->ports;
}

static __always_inline void count_plain(const struct plain *q, __u32 frontend, __u32 backend,
					enum direction dir)
{
	counter_add(frontend_counters.lookup(&frontend), dir, q->packets, q->bytes);
	counter_add(backend_counters.lookup(&backend), dir, q->packets, q->bytes);
}

/* What an address in place of another changes in a checksum. RFC 1624, equation 3. */
static __always_inline __u32 diff_plain(__be32 old, __be32 new)
{
	__u64 diff = (__u64)(__u32)~old + new;

	return (diff & 0xffffffff) + (diff >> 32);
}

/* The sums, after an address has been changed. Layer 4 comes last, by the helper that knows of
 * checksums which the card is to finish: it forgets where the packet lies.
 */
static __always_inline int change_plain(struct __sk_buff *skb, struct plain *q, __u64 diff)
{
	__u64 sum = (__u64)(q->ip->check ^ 0xffff) + (diff & 0xffff) + (diff >> 16);

	sum = (sum & 0xffff) + (sum >> 16);
	sum += sum >> 16;
	q->ip->check = ~sum;
	if (bpf_l4_csum_replace(skb, q->checksum, 0, diff, q->flags))
		return leave(DROP_rewrite_failed, TC_ACT_SHOT);
	return TC_ACT_OK;
}

/* The backend that a flow was given, if this packet goes to it: see flow_backend(). */
static __always_inline struct backend *plain_backend(__u32 id, __be32 address, __u32 pool)
{
	struct backend *backend = backends.lookup(&id);

	if (!backend || !is_same_backend(backend, address, pool))
		return NULL;
	return backend->state == BACKEND_READY || backend->state == BACKEND_DRAINING ? backend :
										       NULL;
}

static __always_inline struct ethhdr *frame_of(const struct plain *q)
{
	return (void *)q->ip - ETH_HLEN;
}

/* What sender_of() says. */
static __always_inline enum sender plain_sender(struct __sk_buff *skb, const struct plain *q)
{
	struct endpoint_key key = { .vni = ATTACHED_VNI, .ifindex = skb->ifindex };
	struct endpoint *own = endpoints.lookup(&key);

	if (!own)
		return SENDER_UNKNOWN;
	if (!same_mac(own->mac, frame_of(q)->h_source) || own->address != q->saddr)
		return SENDER_FORGED;
	return SENDER_OWN;
}

/* Whether the packet is sent in another's name, as vip_is_forged() has it: who sends under its
 * flow's key is judged once. A container that is not known is not judged.
 */
static __always_inline bool is_forged(struct __sk_buff *skb, const struct plain *q,
				      struct flow *flow)
{
	enum sender sender;

	if (!SPOOF_CHECK ||
	    (flow->ifindex == skb->ifindex && same_mac(flow->mac, frame_of(q)->h_source)))
		return false;
	sender = plain_sender(skb, q);
	if (sender == SENDER_OWN) {
		__builtin_memcpy(flow->mac, frame_of(q)->h_source, 6);
		flow->ifindex = skb->ifindex;
	}
	return sender == SENDER_FORGED;
}

/* What is left to be done, of what has been looked up or noted. */
static __always_inline int send_on(struct __sk_buff *skb, struct plain *q, __u32 frontend, __u32 id,
				   const struct backend *backend, __be32 address, __u64 diff)
{
	struct ethhdr *eth = frame_of(q);

	count_plain(q, frontend, id, TO_BACKEND);
	if (is_here(backend))
		mark_translated(skb);
	q->ip->daddr = address;
	__builtin_memcpy(__builtin_assume_aligned(eth->h_dest, 2),
			 __builtin_assume_aligned(backend->mac, 2), 6);
	return change_plain(skb, q, diff);
}

static __always_inline int answer_on(struct __sk_buff *skb, struct plain *q, __u32 frontend,
				     __u32 id, __be32 vip, __u64 diff)
{
	count_plain(q, frontend, id, TO_CLIENT);
	q->ip->saddr = vip;
	return change_plain(skb, q, diff);
}

static __always_inline void find_recent(struct plain *q, enum way way)
{
	q->network = recent_network(q->protocol, way);
	q->place = recent_place(q->saddr, q->daddr, q->ports, q->network);
}

/* Makes a note of a packet of who is known to send it, for so many ticks: it is of no flow, but for
 * what is added.
 */
static __always_inline struct recent *note_plain(struct __sk_buff *skb, const struct plain *q,
						 __u64 ticks)
{
	struct recent *recent = q->place.flow;

	if (!recent)
		return NULL;
	recent->saddr = q->saddr;
	recent->daddr = q->daddr;
	recent->network = q->network;
	recent->ports = q->ports;
	recent->epoch = q->place.epoch;
	recent->until_ticks = bpf_jiffies64() + ticks;
	recent->direction = NOBODYS;
	recent->ifindex = skb->ifindex;
	__builtin_memcpy(recent->mac, frame_of(q)->h_source, sizeof(recent->mac));
	return recent;
}

/* The same of one that is of a flow. Whoever has sent it, what counts is whom its record knows. */
static __always_inline void note_flow(struct __sk_buff *skb, const struct plain *q,
				      const struct flow *flow, enum direction dir, __be32 address,
				      __u32 diff)
{
	struct recent *recent = note_plain(skb, q, ticks_left(flow->seen_ns, RECENT_NS));

	if (!recent)
		return;
	recent->address = address;
	recent->diff = diff;
	recent->backend = flow->backend;
	recent->pool = flow->pool;
	recent->frontend = flow->frontend;
	recent->ifindex = flow->ifindex;
	__builtin_memcpy(recent->mac, flow->mac, sizeof(recent->mac));
	recent->direction = dir;
}

/* What a container sends to a VIP. */
static __always_inline int send_plain(struct __sk_buff *skb, struct plain *q, struct flow *flow)
{
	struct backend *backend;
	__u32 diff;

	if (!goes_on(flow, TO_BACKEND) || flow->to.saddr != q->saddr || !same_ports(q, flow) ||
	    is_forged(skb, q, flow))
		return NOT_PLAIN;
	backend = plain_backend(flow->backend, flow->to.daddr, flow->pool);
	if (!backend)
		return NOT_PLAIN;
	diff = diff_plain(q->daddr, flow->to.daddr);
	note_flow(skb, q, flow, TO_BACKEND, flow->to.daddr, diff);
	return send_on(skb, q, flow->frontend, flow->backend, backend, flow->to.daddr, diff);
}

static __always_inline int answer_plain(struct __sk_buff *skb, struct plain *q,
					const struct flow *reply)
{
	__u32 diff;

	if (!goes_on(reply, TO_CLIENT) || reply->to.daddr != q->daddr || !same_ports(q, reply))
		return NOT_PLAIN;
	diff = diff_plain(q->saddr, reply->to.saddr);
	note_flow(skb, q, reply, TO_CLIENT, reply->to.saddr, diff);
	return answer_on(skb, q, reply->frontend, reply->backend, reply->to.saddr, diff);
}

/* What a task answers to a client of this node: others' answers are recorded elsewhere. */
static __always_inline int answer_here(struct __sk_buff *skb, struct plain *q, struct flow *reply)
{
	int verdict;

	if (is_forged(skb, q, reply))
		return NOT_PLAIN;
	verdict = answer_plain(skb, q, reply);
	if (verdict == TC_ACT_OK)
		mark_translated(skb);
	return verdict;
}

/* What this CPU has just had, in either direction; from whom it is known to be from. */
static __always_inline int recent_out(struct __sk_buff *skb, struct plain *q)
{
	const struct recent *recent = q->place.flow;
	struct backend *backend;
	int verdict;

	if (SPOOF_CHECK &&
	    (recent->ifindex != skb->ifindex || !same_mac(recent->mac, frame_of(q)->h_source)))
		return NOT_PLAIN;
	if (recent->direction == NOBODYS)
		return leave(HANDBACK_no_frontend, TC_ACT_UNSPEC);
	if (recent->direction == TO_BACKEND) {
		backend = plain_backend(recent->backend, recent->address, recent->pool);
		if (!backend)
			return NOT_PLAIN;
		return send_on(skb, q, recent->frontend, recent->backend, backend, recent->address,
			       recent->diff);
	}
	verdict =
		answer_on(skb, q, recent->frontend, recent->backend, recent->address, recent->diff);
	if (verdict == TC_ACT_OK)
		mark_translated(skb);
	return verdict;
}

/* Nothing is known of the packet: if it is none to a VIP, it passes; what is known of one to a VIP
 * is handed on. `before` is what moves_now() said.
 */
static __always_inline int pass_plain(struct __sk_buff *skb, const struct plain *q,
				      const struct flow_key *key, __u64 before,
				      struct looked *looked)
{
	struct frontend_key where = { .address = q->daddr, .vni = ATTACHED_VNI };
	struct frontend *frontend = frontends.lookup(&where);
	enum sender sender = SPOOF_CHECK ? plain_sender(skb, q) : SENDER_OWN;
	struct flow_key twin;

	if (sender == SENDER_FORGED)
		return NOT_PLAIN;
	if (frontend && frontend->kind != FRONTEND_DIRECT) {
		looked->frontend = frontend;
		looked->moves = before;
		return NOT_PLAIN;
	}
	if (frontend) {
		twin = twin_key(key, &key->t);
		if (reply_find(&twin)) /* it may meet a balanced flow */
			return NOT_PLAIN;
	}
	if (sender == SENDER_OWN)
		note_plain(skb, q, RECENT_NS / TICK_NS);
	return leave(HANDBACK_no_frontend, TC_ACT_UNSPEC);
}

/* What a container sends, of a flow that is looked up. */
static __always_inline int look_up_out(struct __sk_buff *skb, struct plain *q,
				       struct looked *looked)
{
	struct flow_key key = key_plain(q);
	__u64 before = moves_now(); /* see flow_find() */
	struct flow *flow = flows.lookup(&key), *reply;

	if (!flow) {
		reply = replies.lookup(&key);
		if (reply)
			return answer_here(skb, q, reply);
		flow = transient_flows.lookup(&key);
	}
	if (flow)
		return send_plain(skb, q, flow);
	return moves_now() == before ? pass_plain(skb, q, &key, before, looked) : NOT_PLAIN;
}

/* What a container sends. */
static __always_inline int vip_plain_out(struct __sk_buff *skb, struct looked *looked)
{
	int verdict = NOT_PLAIN;
	struct plain q;

	if (skb->vlan_present || !read_plain(skb, &q))
		return NOT_PLAIN;
	find_recent(&q, WAY_OUT);
	if (q.place.is_known)
		verdict = recent_out(skb, &q);
	return verdict == NOT_PLAIN ? look_up_out(skb, &q, looked) : verdict;
}

/* What comes to a container, of a flow that is looked up. */
static __always_inline int look_up_in(struct __sk_buff *skb, struct plain *q)
{
	struct flow_key key = key_plain(q);
	__u64 before = moves_now();
	struct flow *reply = replies.lookup(&key);

	if (!reply)
		reply = transient_replies.lookup(&key);
	if (reply)
		return answer_plain(skb, q, reply);
	if (moves_now() != before)
		return NOT_PLAIN;
	note_plain(skb, q, RECENT_NS / TICK_NS);
	newcomer_note(skb, q->saddr);
	return TC_ACT_UNSPEC;
}

/* What comes to a container. */
static __always_inline int vip_plain_in(struct __sk_buff *skb)
{
	const struct recent *recent;
	struct plain q;

	if (is_translated(skb))
		return TC_ACT_UNSPEC;
	if (!read_plain(skb, &q))
		return NOT_PLAIN;
	find_recent(&q, WAY_IN);
	recent = q.place.flow;
	if (!q.place.is_known)
		return look_up_in(skb, &q);
	if (recent->direction == NOBODYS)
		return TC_ACT_UNSPEC;
	return answer_on(skb, &q, recent->frontend, recent->backend, recent->address, recent->diff);
}

#endif
