/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* MAC addresses, those of containers above all. */
#ifndef EBPFMESH_MAC_H
#define EBPFMESH_MAC_H

#include <linux/bpf.h>
#include <linux/if_ether.h>

#include "types.h"

/* Docker gives an endpoint the MAC 02:42 and the bytes of its address; so do we for a VIP. */
static __always_inline void docker_mac(__u8 mac[6], __be32 address)
{
	mac[0] = 0x02;
	mac[1] = 0x42;
	__builtin_memcpy(mac + 2, &address, 4);
}

static __always_inline bool same_mac(const __u8 a[6], const __u8 b[6])
{
	return *(const __u32 *)a == *(const __u32 *)b &&
	       *(const __u16 *)(a + 4) == *(const __u16 *)(b + 4);
}

/* Whether the packet bears a source MAC; nothing is looked up, no helper called. */
static __always_inline bool is_from_mac(const struct __sk_buff *skb, const __u8 mac[6])
{
	const struct ethhdr *eth;

	/* Else the compiler may take half of an earlier read of the pointer, and the verifier not.
	 */
	asm volatile("" ::: "memory");
	eth = (void *)(long)skb->data;
	return (void *)(eth + 1) <= (void *)(long)skb->data_end && same_mac(mac, eth->h_source);
}

#endif
