/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A packet is read once, into struct packet. */
#ifndef EBPFMESH_PARSE_H
#define EBPFMESH_PARSE_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include "fragment.h"
#include "reasons.h"
#include "types.h"

#define PROTO_SCTP 132
#define IP_DF 0x4000

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

/* SCTP's chunks that begin or end an association. RFC 9260, 3.2. */
#define SCTP_INIT 1
#define SCTP_INIT_ACK 2
#define SCTP_ABORT 6
#define SCTP_SHUTDOWN 7
#define SCTP_SHUTDOWN_ACK 8
#define SCTP_SHUTDOWN_COMPLETE 14
#define SCTP_MIN_LEN 16 /* the common header and that of one chunk */
#define SCTP_CHUNK 12   /* where the first chunk begins */

/* Without IPv4 options, everything has its fixed place behind the Ethernet header. */
#define L3_OFFSET ETH_HLEN
#define L4_OFFSET (ETH_HLEN + 20)
/* The largest prefix that any program reads: two stacks of headers up to the TCP flags. */
#define PULL_LEN 128

struct packet {
	struct tuple t;
	__u16 length; /* of the IPv4 packet, as its header says; host order */
	__u8 protocol;
	__u8 tcp_flags; /* of SCTP, the flags that mean what its first chunk does */
	__u8 dont_fragment;
	__u8 fragment; /* enum fragment_kind */
	__be16 id;
	__u32 vni; /* of the network that it is on; the reader of a packet leaves it alone */
	__u8 ttl;
	__u8 judged; /* may ask: an IPv6 client, by its own address */
	__u8 pad[2];
};

/* Opens a connection, or an association. */
static __always_inline bool is_syn(const struct packet *p)
{
	return (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

static __always_inline bool is_tcp_syn(const struct packet *p)
{
	return p->protocol == IPPROTO_TCP && is_syn(p);
}

static __always_inline bool is_syn_ack(const struct packet *p)
{
	return p->protocol == IPPROTO_TCP &&
	       (p->tcp_flags & (TCP_SYN | TCP_ACK)) == (TCP_SYN | TCP_ACK);
}

static __always_inline bool has_flows(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == PROTO_SCTP;
}

/* Four bits for each type of chunk below 16: FIN, SYN, RST, and ACK above them. */
#define CHUNK_FLAGS(type, flags) ((__u64)(((flags) & 7) | ((flags) & TCP_ACK) >> 1) << 4 * (type))
#define CHUNKS                                                                                     \
	(CHUNK_FLAGS(SCTP_INIT, TCP_SYN) | CHUNK_FLAGS(SCTP_INIT_ACK, TCP_SYN | TCP_ACK) |         \
	 CHUNK_FLAGS(SCTP_ABORT, TCP_RST) | CHUNK_FLAGS(SCTP_SHUTDOWN, TCP_FIN) |                  \
	 CHUNK_FLAGS(SCTP_SHUTDOWN_ACK, TCP_FIN) | CHUNK_FLAGS(SCTP_SHUTDOWN_COMPLETE, TCP_RST))

/* The flags that mean for TCP what the chunk does for SCTP: one that opens or ends an association
 * stands first, and mostly alone. After SHUTDOWN COMPLETE nothing comes any more, from neither
 * side. By a shift, not by comparisons: the verifier would follow each outcome through all that is
 * behind.
 */
static __always_inline __u8 flags_of_chunk(__u64 type)
{
	__u64 below_16 = (type - 16) >> 63;
	__u64 flags = CHUNKS >> 4 * (type & 15) & 15 * below_16;

	return (flags & 7) | (flags & 8) << 1;
}

static __always_inline struct fragment_key fragment_key_of(const struct packet *p)
{
	struct fragment_key key = { .saddr = p->t.saddr,
				    .daddr = p->t.daddr,
				    .vni = p->vni,
				    .id = p->id,
				    .protocol = p->protocol };

	return key;
}

/* For who carries a fragment on: the later ones shall follow the first. */
static __always_inline void note_first_fragment(const struct packet *p)
{
	struct fragment_key key;

	if (p->fragment != FRAGMENT_FIRST)
		return;
	key = fragment_key_of(p);
	fragment_learn(&key, &p->t);
}

/* For a packet that parse_ipv4() found to be HANDBACK_fragment: its ports are those of the first.
 */
static __always_inline enum reason find_first_fragment(struct packet *p)
{
	struct fragment_key key = fragment_key_of(p);

	return fragment_find(&key, &p->t) ? REASON_NONE : HANDBACK_fragment;
}

/* Reads the IPv4 packet at l3. Returns 0, or why it is left to the kernel. For a protocol
 * without ports that is HANDBACK_other_protocol, with p's addresses and protocol set; for a
 * fragment that does not say its ports HANDBACK_fragment, with all else set.
 */
static __always_inline enum reason parse_ipv4(void *l3, void *end, struct packet *p)
{
	struct iphdr *ip = l3;
	__be16 *ports = l3 + sizeof(*ip);

	if ((void *)(ip + 1) > end)
		return HANDBACK_truncated;
	if (ip->version != 4)
		return HANDBACK_not_ipv4;
	if (ip->ihl != 5)
		return HANDBACK_ip_options;
	p->t.saddr = ip->saddr;
	p->t.daddr = ip->daddr;
	p->protocol = ip->protocol;
	p->length = bpf_ntohs(ip->tot_len);
	p->ttl = ip->ttl;
	p->dont_fragment = !!(ip->frag_off & bpf_htons(IP_DF));
	p->id = ip->id;
	p->fragment = fragment_kind(ip);
	if (ip->frag_off & bpf_htons(IP_FRAGMENT)) {
		if (fragment_is_bad(ip))
			return HANDBACK_bad_fragment;
		if (ip->frag_off & bpf_htons(IP_OFFSET) || !has_flows(p->protocol))
			return HANDBACK_fragment;
	}
	if (!has_flows(p->protocol))
		return HANDBACK_other_protocol;
	if ((void *)(ports + 4) > end)
		return HANDBACK_truncated;
	p->t.sport = ports[0];
	p->t.dport = ports[1];
	p->tcp_flags = 0;
	if (p->protocol == IPPROTO_TCP) {
		if ((void *)ports + sizeof(struct tcphdr) > end)
			return HANDBACK_truncated;
		p->tcp_flags = ((__u8 *)ports)[13];
	}
	if (p->protocol == PROTO_SCTP) {
		if ((void *)ports + SCTP_MIN_LEN > end)
			return HANDBACK_truncated;
		p->tcp_flags = flags_of_chunk(((__u8 *)ports)[SCTP_CHUNK]);
	}
	/* Read once more, or the verifier would follow each protocol through all that is behind. */
	p->protocol = *(volatile __u8 *)&ip->protocol;
	return REASON_NONE;
}

/* In place of a frame's length, for what may be longer than an IPv4 header can say. */
#define ANY_LENGTH 0x7fffffff

/* Whether the length in the IPv4 header can be true: Ethernet may pad a packet, nothing may cut it.
 * `frame` is what there is, from the Ethernet header on.
 */
static __always_inline bool length_is_true(const struct packet *p, __u32 frame)
{
	__u32 l4 = sizeof(struct udphdr);

	if (p->protocol == IPPROTO_TCP)
		l4 = sizeof(struct tcphdr);
	if (p->protocol == PROTO_SCTP)
		l4 = SCTP_MIN_LEN;
	if (p->fragment == FRAGMENT_LATER)
		l4 = 1;
	return p->length >= sizeof(struct iphdr) + l4 && p->length + ETH_HLEN <= frame;
}

static __always_inline enum reason parse_ethernet(void *data, void *end, struct packet *p)
{
	struct ethhdr *eth = data;

	if ((void *)(eth + 1) > end)
		return HANDBACK_truncated;
	if (eth->h_proto != bpf_htons(ETH_P_IP))
		return HANDBACK_not_ipv4;
	return parse_ipv4(data + ETH_HLEN, end, p);
}

static __always_inline enum reason parse_xdp(void *data, void *end, struct packet *p)
{
	enum reason why = parse_ethernet(data, end, p);

	if (!why && !length_is_true(p, end - data))
		return HANDBACK_truncated;
	return why;
}

/* How many segments a socket buffer will be cut into; 0 or 1 if it is one packet. Read from a
 * pointer that the compiler knows nothing of: else it may keep that to the field, which the
 * verifier refuses.
 */
static __always_inline __u32 segments(const struct __sk_buff *skb)
{
	asm volatile("" : "+r"(skb));
	return skb->gso_segs;
}

/* The link that a socket buffer came in by, read in the same manner. */
static __always_inline __u32 came_in_by(const struct __sk_buff *skb)
{
	asm volatile("" : "+r"(skb));
	return skb->ifindex;
}

/* Where the packet lies now: helpers that change it may have moved it, and the compiler must not
 * take what it has read before.
 */
static __always_inline void *start_of(const struct __sk_buff *skb)
{
	asm volatile("" : "+r"(skb) : : "memory");
	return (void *)(long)skb->data;
}

static __always_inline void *end_of(const struct __sk_buff *skb)
{
	asm volatile("" : "+r"(skb) : : "memory");
	return (void *)(long)skb->data_end;
}

/* A socket buffer may hold headers in pages: they are brought in where they are missing. */
static __always_inline int pull_headers(struct __sk_buff *skb)
{
	__u32 there = (void *)(long)skb->data_end - (void *)(long)skb->data;

	if (there >= PULL_LEN || there >= skb->len)
		return 0;
	return bpf_skb_pull_data(skb, skb->len < PULL_LEN ? skb->len : PULL_LEN);
}

/* A socket buffer of many segments may be longer than an IPv4 header can say. */
static __always_inline enum reason parse_skb(struct __sk_buff *skb, struct packet *p)
{
	enum reason why = parse_ethernet((void *)(long)skb->data, (void *)(long)skb->data_end, p);

	if (why == HANDBACK_truncated) {
		if (pull_headers(skb))
			return HANDBACK_truncated;
		why = parse_ethernet((void *)(long)skb->data, (void *)(long)skb->data_end, p);
	}
	if (why == HANDBACK_fragment)
		why = find_first_fragment(p);
	if (!why && segments(skb) <= 1 && !length_is_true(p, skb->len))
		return HANDBACK_truncated;
	return why;
}

#endif
