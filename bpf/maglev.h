/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Choosing a backend: Eisenbud et al., "Maglev", NSDI 2016. The agent builds the tables. */
#ifndef EBPFMESH_MAGLEV_H
#define EBPFMESH_MAGLEV_H

#include "maps.h"
#include "parse.h"

/* Mixes 64 bits; the finalizer of splitmix64 (Steele et al., OOPSLA 2014). */
static __always_inline __u64 mix64(__u64 x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ULL;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebULL;
	x ^= x >> 31;
	return x;
}

/* Every node gets the same hash for a flow. The address that the client used is not part of it:
 * a flow that comes in at another node finds the same backend.
 */
static __always_inline __u32 flow_hash(const struct packet *p)
{
	__u64 ports = (__u64)bpf_ntohs(p->t.sport) << 16 | bpf_ntohs(p->t.dport);
	__u64 client = (__u64)bpf_ntohl(p->t.saddr) << 32;

	return mix64((client | ports) + (__u64)p->protocol * SPREAD) >> 32;
}

static __always_inline __u32 maglev_slot(__u32 hash)
{
	return ((__u64)hash * MAGLEV_SIZE) >> 32;
}

/* A pool's table, NULL if it has no backend that is ready. */
static __always_inline struct maglev_table *maglev_table(__u32 pool)
{
	__u32 zero = 0;
	void *inner = maglev.lookup(&pool);

	if (!inner)
		return NULL;
	return bpf_map_lookup_elem(inner, &zero);
}

/* The id of the backend in a slot. */
static __always_inline __u32 maglev_at(const struct maglev_table *table, __u64 slot)
{
	/* The compiler knows the bound and leaves the test out; the verifier wants to see it. */
	asm volatile("" : "+r"(slot));
	if (slot >= MAGLEV_SIZE)
		return 0;
	return table->backend[slot];
}

#endif
