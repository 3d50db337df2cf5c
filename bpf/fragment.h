/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Fragments (RFC 791): only the first has ports. Where it is translated they are noted, and the
 * later ones take them from there. Nothing is put together.
 */
#ifndef EBPFMESH_FRAGMENT_H
#define EBPFMESH_FRAGMENT_H

#include <linux/in.h>
#include <linux/ip.h>
#include <linux/tcp.h>

#include "maps.h"

#define IP_OFFSET 0x1fff /* in units of 8 bytes */
#define IP_MF 0x2000
#define IP_FRAGMENT (IP_OFFSET | IP_MF)

enum fragment_kind {
	FRAGMENT_NONE = 0, /* a whole packet */
	FRAGMENT_FIRST = 1,
	FRAGMENT_LATER = 2,
};

/* By arithmetic, and by a read of its own: told by comparisons, the verifier would follow each kind
 * through all that is behind.
 */
static __always_inline __u8 fragment_kind(const struct iphdr *ip)
{
	__u32 bits = bpf_ntohs(*(const volatile __be16 *)&ip->frag_off);
	__u32 later = ((bits & IP_OFFSET) + IP_OFFSET) >> 13;
	__u32 more = bits >> 13 & 1;

	return later << 1 | (more & ~later);
}

/* What would lie over the header of TCP (RFC 3128), and what goes beyond the longest packet. */
static __always_inline bool fragment_is_bad(const struct iphdr *ip)
{
	__u32 offset = (bpf_ntohs(ip->frag_off) & IP_OFFSET) * 8;

	return offset + bpf_ntohs(ip->tot_len) > 0xffff ||
	       (ip->protocol == IPPROTO_TCP && offset && offset < sizeof(struct tcphdr));
}

static __always_inline void fragment_learn(struct fragment_key *key, const struct tuple *t)
{
	struct fragment first = {};

	first.seen_ns = bpf_ktime_get_coarse_ns();
	first.sport = t->sport;
	first.dport = t->dport;
	fragments.update(key, &first);
}

/* Fills in the ports of the first fragment. False if that is not known. */
static __always_inline bool fragment_find(struct fragment_key *key, struct tuple *t)
{
	struct fragment *first = fragments.lookup(key);

	if (!first || bpf_ktime_get_coarse_ns() - first->seen_ns > FRAGMENT_TIMEOUT_NS)
		return false;
	t->sport = first->sport;
	t->dport = first->dport;
	return true;
}

#endif
