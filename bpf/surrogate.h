/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* IPv6 clients of published ports: tasks, flows and tables know IPv4 only, so the entry node gives
 * such a client an IPv4 address to stand for it, a surrogate, out of a range that no machine has.
 * It is known on that node alone: a flow with a surrogate always returns through its entry node.
 */
#ifndef EBPFMESH_SURROGATE_H
#define EBPFMESH_SURROGATE_H

#include "counters.h"
#include "maglev.h"

#define SURROGATE_TRIES 4
/* What IPv6's header is longer than IPv4's. */
#define IP6_EXTRA 20
/* Left in the control block for the next program at the same hook. Its first words are those of
 * sctp.h.
 */
#define CB_FROM_IP6 2
#define CB_COUNTED 3
#define COUNTED_ALREADY 0xebf0c0de
/* What comes from a wire or out of another namespace has no mark: nobody else can set this one. */
#define FROM_IP6_MARK 0xebf0da06

static __always_inline bool is_surrogate(__be32 address)
{
	return (address & bpf_htonl(SURROGATE_MASK)) == bpf_htonl(SURROGATE_NET);
}

/* Whether a task's answer goes back wrapped. `client` is the address that the task answers. */
static __always_inline bool returns_wrapped(__be32 entry, __be32 client)
{
	return entry && (!RETURN_DSR || is_surrogate(client));
}

static __always_inline bool same_ip6(const struct ip6 *a, const struct ip6 *b)
{
	return !((a->word[0] ^ b->word[0]) | (a->word[1] ^ b->word[1]) | (a->word[2] ^ b->word[2]) |
		 (a->word[3] ^ b->word[3]));
}

/* Every node begins with the same surrogate for a client, so that a flow which comes in at another
 * node finds the same backend.
 */
static __always_inline __u32 ip6_hash(const struct ip6 *a)
{
	__u64 high = (__u64)bpf_ntohl(a->word[0]) << 32 | bpf_ntohl(a->word[1]);
	__u64 low = (__u64)bpf_ntohl(a->word[2]) << 32 | bpf_ntohl(a->word[3]);

	return mix64(mix64(high) ^ low) >> 32;
}

static __always_inline __be32 surrogate_try(__u32 hash, int i)
{
	return bpf_htonl(SURROGATE_NET | ((hash + i) & ~SURROGATE_MASK));
}

static __always_inline bool stands_for(const struct surrogate *s, const struct surrogate *wanted)
{
	return same_ip6(&s->client, &wanted->client) && same_ip6(&s->node, &wanted->node);
}

/* How long ago: another CPU may be ahead. */
static __always_inline __u64 heard_of(const struct surrogate *s, __u64 now)
{
	return now > s->seen_ns ? now - s->seen_ns : 0;
}

/* The surrogate of a client and the address of the node that it asks, 0 if it has none. All places
 * are looked at, as the LRU may have emptied one before that of a living client.
 */
static __always_inline __be32 surrogate_find(const struct surrogate *wanted)
{
	__u32 hash = ip6_hash(&wanted->client);
	struct surrogate *s;
	__be32 address;

	for (int i = 0; i < SURROGATE_TRIES; i++) {
		address = surrogate_try(hash, i);
		s = surrogates.lookup(&address);
		if (!s || !stands_for(s, wanted))
			continue;
		if (heard_of(s, wanted->seen_ns) >= FLOW_TOUCH_NS)
			s->seen_ns = wanted->seen_ns;
		if (wanted->ifindex)
			s->ifindex = wanted->ifindex;
		return address;
	}
	return 0;
}

/* Gives a client a surrogate: a free one, or that of a client of whom nothing has been heard for as
 * long as makes a UDP flow die. Returns 0 if there is none.
 */
static __always_inline __be32 surrogate_claim(struct surrogate *wanted)
{
	__u32 hash = ip6_hash(&wanted->client);
	struct surrogate *s;
	__be32 address;

	for (int i = 0; i < SURROGATE_TRIES; i++) {
		address = surrogate_try(hash, i);
		if (surrogates.insert(&address, wanted) == 0)
			return address;
		s = surrogates.lookup(&address);
		if (s && stands_for(s, wanted))
			return address; /* another packet of the client was faster */
	}
	for (int i = 0; i < SURROGATE_TRIES; i++) {
		address = surrogate_try(hash, i);
		s = surrogates.lookup(&address);
		if (s && heard_of(s, wanted->seen_ns) <= UDP_TIMEOUT_NS)
			continue;
		surrogates.update(&address, wanted);
		return address;
	}
	return 0;
}

/* Hands the packet to another program, which has a stack of its own. Returns where there is none.
 */
static __always_inline int hand_over(struct __sk_buff *skb, enum program program)
{
	programs.call(skb, program);
	return leave(DROP_rewrite_failed, TC_ACT_SHOT);
}

/* What was made IPv4 goes on as if it had come in so. The control block keeps the packet's own
 * mark.
 */
static __always_inline int enter_as_ip4(struct __sk_buff *skb)
{
	skb->cb[CB_FROM_IP6] = skb->mark;
	skb->mark = FROM_IP6_MARK;
	return hand_over(skb, PROGRAM_NIC);
}

/* The first thing that nic_ingress does. Said in the control block and not in a variable, of which
 * the verifier would follow each value through all that is behind.
 */
static __always_inline void begin_from_ip6(struct __sk_buff *skb)
{
	bool from_ip6 = skb->mark == FROM_IP6_MARK;

	if (from_ip6)
		skb->mark = skb->cb[CB_FROM_IP6];
	skb->cb[CB_FROM_IP6] = from_ip6;
}

/* Whether the packet in nic_ingress is one of an IPv6 client, who has been let in. */
static __always_inline bool is_from_ip6(const struct __sk_buff *skb)
{
	asm volatile("" : "+r"(skb));
	return skb->cb[CB_FROM_IP6] & 1;
}

/* The kernel must not see a packet from a surrogate, whom nobody there would know how to answer. */
static __always_inline int finish_from_ip6(struct __sk_buff *skb, int verdict)
{
	if (verdict == TC_ACT_UNSPEC && is_from_ip6(skb)) {
		told(skb, verdict);
		return hand_over(skb, PROGRAM_REFUSE_IP6);
	}
	return verdict;
}

/* Back by the NIC that the client's packet came in by, with the Ethernet addresses swapped; to an
 * IPv6 client as IPv6.
 */
static __always_inline int answer_out(struct __sk_buff *skb, __be32 client, __u32 ifindex)
{
	if (is_surrogate(client))
		return hand_over(skb, PROGRAM_TO_IP6);
	return bpf_redirect(ifindex, 0);
}

#endif
