/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Who may ask a published port whose service has a list of allowed clients. It is looked at where
 * the true address of the client is, at the entry node, for every packet: who is taken off the list
 * is cut off at once. Frontends without a list pay nothing.
 */
#ifndef EBPFMESH_ALLOW_H
#define EBPFMESH_ALLOW_H

#include "maps.h"
#include "parse.h"

static __always_inline bool is_listed(__u32 pool, __be32 client)
{
	struct allow_key key = { .prefix = ALLOW_PREFIX(32), .pool = pool };

	key.address[0] = client;
	return allowed.lookup(&key);
}

static __always_inline bool is_listed6(__u32 pool, const struct ip6 *client)
{
	struct allow_key key = { .prefix = ALLOW_PREFIX(128), .pool = pool | ALLOW_IPV6 };

	__builtin_memcpy(key.address, client, sizeof(*client));
	return allowed.lookup(&key);
}

/* Only what this node, or another of the Swarm, publishes is ours to refuse: a node may route, and
 * its containers ask the whole world. Nodes themselves may always ask; what they masquerade, the
 * questions of their containers, was judged by this test before.
 */
static __always_inline bool may_ask(const struct packet *p, const struct frontend *frontend)
{
	__be32 client = p->t.saddr, asked = p->t.daddr;

	if (!(frontend->flags & FRONTEND_RESTRICTED) || p->judged)
		return true;
	if (is_listed(frontend->pool, client))
		return true;
	if (nodes.lookup(&client))
		return true;
	return !addresses.lookup(&asked) && !nodes.lookup(&asked);
}

#endif
