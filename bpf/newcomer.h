/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Clients whom their backend's node has not heard of yet.
 *
 * A backend sees the client's own address, and has to ask for its MAC before it can answer. Only
 * Docker's vxlan device tells it, out of a table that dockerd fills by gossip: up to some tenths of
 * a second after the client has sent its first packet. An answer that comes too late is asked for
 * again a second later. So where a container has just been sent something, the question who has
 * sent it is answered here, if the MAC is the one that Docker gives: then its table will say the
 * same. The packet itself has taught the bridge and the vxlan device where that MAC is.
 */
#ifndef EBPFMESH_NEWCOMER_H
#define EBPFMESH_NEWCOMER_H

#include "mac.h"
#include "maps.h"
#include "parse.h"

#define NEWCOMER_NS (2 * SECOND_NS)

static __always_inline struct newcomer *newcomer_of(__be32 address, __u32 vni, __u64 *who)
{
	__u32 slot;

	*who = (__u64)vni << 32 | address;
	slot = *who * SPREAD >> (64 - NEWCOMER_BITS);
	return newcomers.lookup(&slot);
}

/* A container receives a packet of no flow of its own. Whoever had the slot has been answered. */
static __always_inline void newcomer_note(const struct __sk_buff *skb, __be32 address)
{
	struct newcomer *newcomer;
	__u8 mac[6] __attribute__((aligned(4)));
	__u64 who;

	docker_mac(mac, address);
	if (!is_from_mac(skb, mac))
		return;
	newcomer = newcomer_of(address, ATTACHED_VNI, &who);
	if (!newcomer)
		return;
	newcomer->who = who;
	newcomer->seen_ns = bpf_ktime_get_coarse_ns();
}

static __always_inline bool is_newcomer(__be32 address, __u32 vni)
{
	struct newcomer *newcomer;
	__u64 who;

	newcomer = newcomer_of(address, vni, &who);
	return newcomer && newcomer->who == who &&
	       bpf_ktime_get_coarse_ns() - newcomer->seen_ns < NEWCOMER_NS;
}

#endif
