/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* IPv4 options (RFC 791, 3.1) of a packet that is to be balanced are taken off, and it goes on like
 * any other: nobody but these programs answers for a VIP, so left alone it would be lost. Routes
 * and time stamps that the sender asked for are not recorded then; source routes are not followed.
 */
#ifndef EBPFMESH_IP_OPTIONS_H
#define EBPFMESH_IP_OPTIONS_H

#include "checksum.h"
#include "flow_table.h"
#include "maps.h"
#include "parse.h"

#define IP_HEADER_MAX 60

/* A header with its options, padded with zeros. */
union ip_header {
	struct iphdr ip;
	__be32 words[IP_HEADER_MAX / 4];
};

/* Reads a whole header. False if it is not one, by its checksum too: a new one must not hide that.
 */
static __always_inline bool options_read(struct __sk_buff *skb, union ip_header *h)
{
	__u32 length;

	if (bpf_skb_load_bytes(skb, L3_OFFSET, h, sizeof(h->ip)))
		return false;
	length = h->ip.ihl * 4;
	if (length <= sizeof(h->ip) || bpf_ntohs(h->ip.tot_len) < length)
		return false;
	/* The compiler knows the bounds and leaves the tests out; the verifier wants to see them.
	 */
	asm volatile("" : "+r"(length));
	if (length < sizeof(h->ip))
		return false;
	asm volatile("" : "+r"(length));
	if (length > IP_HEADER_MAX || bpf_skb_load_bytes(skb, L3_OFFSET, h, length))
		return false;
	return fold(bpf_csum_diff(0, 0, h->words, sizeof(*h), 0)) == 0xffff;
}

static __always_inline bool options_strip(struct __sk_buff *skb, union ip_header *h)
{
	__s32 length = h->ip.ihl * 4 - (__s32)sizeof(h->ip);

	h->ip.ihl = 5;
	h->ip.tot_len = bpf_htons(bpf_ntohs(h->ip.tot_len) - length);
	h->ip.check = 0;
	h->ip.check = ip_checksum(&h->ip);
	return !bpf_skb_adjust_room(skb, -length, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO) &&
	       !bpf_skb_store_bytes(skb, L3_OFFSET, h, sizeof(h->ip), 0);
}

/* For a packet that was found to be HANDBACK_ip_options. True if it is for a VIP, and has none now.
 */
static __always_inline bool vip_strip_options(struct __sk_buff *skb, __u32 vni)
{
	struct frontend_key key = { .vni = vni };
	struct frontend *frontend;
	union ip_header h = {};

	if (!options_read(skb, &h))
		return false;
	key.address = h.ip.daddr;
	frontend = frontends.lookup(&key);
	return frontend && frontend->kind == FRONTEND_VIP && options_strip(skb, &h);
}

/* Reads a whole header, and whose packet it is. False for a fragment, too. */
static __always_inline bool options_read_flow(struct __sk_buff *skb, union ip_header *h,
					      struct flow_key *key)
{
	if (!options_read(skb, h) || h->ip.frag_off & bpf_htons(IP_FRAGMENT) ||
	    bpf_skb_load_bytes(skb, L3_OFFSET + h->ip.ihl * 4, &key->t.sport, 4))
		return false;
	key->t.saddr = h->ip.saddr;
	key->t.daddr = h->ip.daddr;
	key->protocol = h->ip.protocol;
	return true;
}

static __always_inline bool asks_port(const struct flow_key *key)
{
	struct frontend_key where = { .port = key->t.dport, .protocol = key->protocol };
	__be32 address = key->t.daddr;

	return frontends.lookup(&where) && addresses.lookup(&address);
}

/* The same for a published port of this node. */
static __always_inline bool port_strip_options(struct __sk_buff *skb)
{
	struct flow_key key = {};
	union ip_header h = {};

	return options_read_flow(skb, &h, &key) && asks_port(&key) && options_strip(skb, &h);
}

/* The same for an answer to a client of a VIP. */
static __always_inline bool answer_strip_options(struct __sk_buff *skb, __u32 vni)
{
	struct flow_key key = { .vni = vni };
	union ip_header h = {};

	return options_read_flow(skb, &h, &key) && reply_find(&key) && options_strip(skb, &h);
}

/* The same for what a container sends out of its overlays: a question, or an answer. */
static __always_inline bool task_strip_options(struct __sk_buff *skb)
{
	struct flow_key key = {};
	union ip_header h = {};

	return options_read_flow(skb, &h, &key) && (reply_find(&key) || asks_port(&key)) &&
	       options_strip(skb, &h);
}

#endif
