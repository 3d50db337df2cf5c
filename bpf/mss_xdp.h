/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* mss_clamp() of nat.h where there is no socket buffer yet. */
#ifndef EBPFMESH_MSS_XDP_H
#define EBPFMESH_MSS_XDP_H

#include "icmp.h"
#include "nat.h"

#define TCP_OPTIONS_LEN 40

static __always_inline void xdp_mss_lower(struct tcphdr *tcp, __be16 *mss, bool odd, __u16 limit)
{
	__be16 old = *mss, new = bpf_htons(limit);

	if (bpf_ntohs(old) <= limit)
		return;
	*mss = new;
	/* A checksum adds 16-bit words: at an odd offset the bytes lie the other way round. */
	if (odd) {
		old = __builtin_bswap16(old);
		new = __builtin_bswap16(new);
	}
	tcp->check = checksum_replaced(tcp->check, old, new);
}

/* Lowers the MSS option of a SYN to `limit`; `length` is that of the IPv4 packet (host order). */
static __always_inline void xdp_mss_clamp(struct xdp_md *ctx, __u32 length, __u16 limit)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct tcphdr *tcp = data + L4_OFFSET;
	__u32 options, offset = 0;
	__u8 *option;

	if ((void *)(tcp + 1) > end)
		return;
	options = tcp->doff * 4 - sizeof(*tcp);
	if (options > TCP_OPTIONS_LEN || options + sizeof(struct iphdr) + sizeof(*tcp) > length)
		return;
	for (int i = 0; i < TCP_OPTIONS; i++) {
		if (offset + 4 > options)
			return;
		/* The compiler knows the bound; the verifier wants to see it. */
		asm volatile("" : "+r"(offset));
		if (offset > TCP_OPTIONS_LEN - 4)
			return;
		option = (void *)(tcp + 1) + offset;
		if ((void *)(option + 4) > end)
			return;
		if (option[0] == 1) { /* no operation */
			offset += 1;
			continue;
		}
		if (option[0] == 2 && option[1] == 4) {
			xdp_mss_lower(tcp, (__be16 *)(option + 2), offset & 1, limit);
			return;
		}
		if (option[0] == 0 || option[1] < 2)
			return;
		offset += option[1];
	}
}

#endif
