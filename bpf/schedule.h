/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which backend a new flow gets: by its service's labels, which the agent has put into the flags of
 * the frontend. All of them read the pool's table; for those but Maglev it has the backends in
 * turn.
 */
#ifndef EBPFMESH_SCHEDULE_H
#define EBPFMESH_SCHEDULE_H

#include "health.h"
#include "live.h"
#include "maglev.h"
#include "maps.h"

/* How many backends the table holds. */
static __always_inline __u32 pool_size(__u32 id)
{
	struct pool *pool = pools.lookup(&id);
	__u32 size = pool ? pool->ready : 0;

	return size < MAGLEV_SIZE ? size : MAGLEV_SIZE;
}

/* One client, one backend: neither ports nor protocol, nor the address that it asked. */
static __always_inline __u32 client_hash(__be32 address)
{
	return mix64((__u64)bpf_ntohl(address) << 32) >> 32;
}

/* A slot from 0 to below `size`, each as likely. */
static __always_inline __u32 random_below(__u32 size)
{
	return ((__u64)bpf_get_prandom_u32() * size) >> 32;
}

/* The pool's next slot. One instruction counts and reads, so that no two flows get the same turn,
 * whatever CPUs they are on.
 */
static __always_inline __u32 next_turn(__u32 pool, __u32 size)
{
	__u64 *turn = turns.lookup(&pool);

	if (!turn || !size)
		return 0;
	return __sync_fetch_and_add(turn, 1) % size;
}

/* The slot of the less busy of two at random: nearly as good as the least busy of all (Mitzenmacher
 * 2001), at a cost that does not grow with their number, and without a rush of all nodes to the
 * same one.
 */
static __always_inline __u32 least_busy(const struct maglev_table *table, __u32 size)
{
	__u32 one = random_below(size), other;

	if (size < 2)
		return one;
	other = one + 1 + random_below(size - 1);
	if (other >= size)
		other -= size;
	return live_of(maglev_at(table, other)) < live_of(maglev_at(table, one)) ? other : one;
}

/* The same slot for the same `hash`, or client: for what leaves no record of its choice. */
static __always_inline __u32 schedule_fixed(const struct frontend *frontend, __be32 client,
					    __u32 hash)
{
	return maglev_slot(frontend->flags & FRONTEND_AFFINITY ? client_hash(client) : hash);
}

static __always_inline __u32 schedule_slot(const struct frontend *frontend, __be32 client,
					   __u32 hash)
{
	__u32 pool = frontend->pool;

	switch (frontend->flags & FRONTEND_SCHEDULER) {
	case SCHEDULE_RANDOM:
		return random_below(pool_size(pool));
	case SCHEDULE_RR:
		return next_turn(pool, pool_size(pool));
	}
	return schedule_fixed(frontend, client, hash);
}

/* 1 if `a` is above `b`, else 0, for numbers below 2^63. Nothing to branch on, and nothing that the
 * compiler could take for a comparison. It is multiplied by, as the verifier follows both values of
 * a mask.
 */
static __always_inline __u64 one_if_above(__u64 a, __u64 b)
{
	__u64 below = b - a;

	asm volatile("" : "+r"(below));
	below >>= 63;
	asm volatile("" : "+r"(below));
	return below;
}

/* How willingly a backend is given a new flow, in the upper half, and its id. */
static __always_inline __u64 ranked(__u32 id, __u32 silent, __u32 avoided_until_s, __u32 now_s)
{
	__u64 fresh = one_if_above(id ^ silent, 0);
	__u64 avoided = one_if_above(avoided_until_s, now_s);

	return id | (1 + fresh * (2 - avoided)) << 32;
}

/* By a hash, the first backend that is not avoided; `first` is the one that the scheduler has
 * chosen. So only flows of avoided ones move. Where all are avoided, none is. Any but `silent`,
 * which has just not answered, if there is another. Datagrams come back to it a little later than
 * connections, which find out what has become of it. Without branches: the verifier would follow
 * each outcome through all that is behind.
 */
static __always_inline __u32 first_able(const struct maglev_table *table, __u32 first, __u32 hash,
					__u32 silent, __u8 protocol)
{
	__u32 zero = 0, now_s = avoid_clock() - (protocol == IPPROTO_UDP) * PROBE_S, id = first;
	struct avoided *a = avoided.lookup(&zero);
	__u64 best = 0, next, better, slot;

	if (!a)
		return first;
	if (id != silent && a->until_s[id & (AVOIDED_SLOTS - 1)] <= now_s)
		return first;
#pragma unroll
	for (int i = 0; i < CHOICE_TRIES; i++) {
		next = ranked(id, silent, a->until_s[id & (AVOIDED_SLOTS - 1)], now_s);
		better = one_if_above(next >> 32, best >> 32);
		best += (next - best) * better;
		hash = hash * 0x9e3779b1 + 1;
		slot = maglev_slot(hash);
		/* As in maglev_at(); the verifier of Linux 6.1 does not know the bound. */
		asm volatile("" : "+r"(slot));
		if (slot >= MAGLEV_SIZE)
			break;
		id = table->backend[slot];
	}
	return best;
}

/* Returns the id of the backend for a new flow, 0 if the pool has none that is ready. `client` is
 * who asks, `hash` what tells its flows apart: the same at every node. `silent` is the backend that
 * has not answered before, or 0.
 */
static __always_inline __u32 schedule_choose(const struct frontend *frontend, __be32 client,
					     __u32 hash, __u32 silent, __u8 protocol)
{
	struct maglev_table *table = maglev_table(frontend->pool);
	__u32 slot;

	if (!table)
		return 0;
	if ((frontend->flags & FRONTEND_SCHEDULER) == SCHEDULE_LEAST_CONN)
		slot = least_busy(table, pool_size(frontend->pool));
	else
		slot = schedule_slot(frontend, client, hash);
	if (frontend->flags & FRONTEND_AFFINITY && !silent)
		hash = client_hash(client); /* whoever is avoided, a client's flows stay together */
	return first_able(table, maglev_at(table, slot), hash, silent, protocol);
}

/* As schedule_rechoose(), but another than `silent`, if there is one. */
static __always_inline __u32 schedule_other(const struct frontend *frontend, __be32 client,
					    __u32 hash, __u32 silent, __u8 protocol)
{
	struct maglev_table *table = maglev_table(frontend->pool);
	__u32 slot;

	if (!table)
		return 0;
	slot = schedule_fixed(frontend, client, hash);
	return first_able(table, maglev_at(table, slot), hash, silent, protocol);
}

/* As schedule_choose(), but each time the same for the same hash: no record is kept of it. */
static __always_inline __u32 schedule_rechoose(const struct frontend *frontend, __be32 client,
					       __u32 hash)
{
	struct maglev_table *table = maglev_table(frontend->pool);

	if (!table)
		return 0;
	return maglev_at(table, schedule_fixed(frontend, client, hash));
}

#endif
