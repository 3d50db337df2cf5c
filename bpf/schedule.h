/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which backend a new flow gets: by its service's labels, which the agent has put into the flags of
 * the frontend. All of them read the pool's table; for those but Maglev it has the backends in
 * turn.
 */
#ifndef EBPFMESH_SCHEDULE_H
#define EBPFMESH_SCHEDULE_H

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

/* The less busy of two at random: nearly as good as the least busy of all (Mitzenmacher 2001), at a
 * cost that does not grow with their number, and without a rush of all nodes to the same one.
 */
static __always_inline __u32 least_busy(const struct maglev_table *table, __u32 size)
{
	__u32 slot = random_below(size), one = maglev_at(table, slot), other;

	if (size < 2)
		return one;
	slot += 1 + random_below(size - 1);
	if (slot >= size)
		slot -= size;
	other = maglev_at(table, slot);
	return live_of(other) < live_of(one) ? other : one;
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

/* Returns the id of the backend for a new flow, 0 if the pool has none that is ready. `client` is
 * who asks, `hash` what tells its flows apart: the same at every node.
 */
static __always_inline __u32 schedule_choose(const struct frontend *frontend, __be32 client,
					     __u32 hash)
{
	struct maglev_table *table = maglev_table(frontend->pool);

	if (!table)
		return 0;
	if ((frontend->flags & FRONTEND_SCHEDULER) == SCHEDULE_LEAST_CONN)
		return least_busy(table, pool_size(frontend->pool));
	return maglev_at(table, schedule_slot(frontend, client, hash));
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
