/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The Internet checksum of headers that are made here. RFC 1071. */
#ifndef EBPFMESH_CHECKSUM_H
#define EBPFMESH_CHECKSUM_H

#include "parse.h"

static __always_inline __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* Words of 32 bits, added up, as one of them. */
static __always_inline __u32 fold64(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	return (sum & 0xffffffff) + (sum >> 32);
}

/* Of a header whose own checksum is 0. Added up here: a helper's call costs more. */
static __always_inline __sum16 ip_checksum(const struct iphdr *ip)
{
	__be32 words[sizeof(*ip) / 4];
	__u64 sum = 0;

	__builtin_memcpy(words, ip, sizeof(words));
#pragma unroll
	for (int i = 0; i < (int)(sizeof(words) / 4); i++)
		sum += words[i];
	return (__sum16)~fold(fold64(sum));
}

/* A checksum after what it covers has changed by `diff`. RFC 1624, equation 3. */
static __always_inline __sum16 checksum_changed(__sum16 checksum, __u32 diff)
{
	return (__sum16)~fold(fold64((__u64)(__u32)~checksum + diff));
}

/* What TCP and UDP cover besides themselves; `length` is theirs, in host order. */
static __always_inline __u32 pseudo_sum(const struct iphdr *ip, __u16 length)
{
	__be32 pseudo[3] = { ip->saddr, ip->daddr, bpf_htonl((__u32)ip->protocol << 16 | length) };

	return bpf_csum_diff(0, 0, pseudo, sizeof(pseudo), 0);
}

/* Sets the checksum at `offset`, of `size` bytes at `header` whose own checksum is 0 and has been
 * written to the packet. Where the card is to finish it (offload), the first helper leaves it
 * alone and the second writes the part that the card expects: so neither case need be known.
 */
static __always_inline int l4_checksum_set(struct __sk_buff *skb, int offset, void *header,
					   __u32 size, __u32 pseudo)
{
	__sum16 nothing = 0xffff; /* the complement of a sum of 0 */

	if (bpf_skb_store_bytes(skb, offset, &nothing, sizeof(nothing), 0))
		return -1;
	if (bpf_l4_csum_replace(skb, offset, 0, bpf_csum_diff(0, 0, header, size, 0), 0))
		return -1;
	return bpf_l4_csum_replace(skb, offset, 0, pseudo, BPF_F_PSEUDO_HDR);
}

#endif
