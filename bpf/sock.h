/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Published ports, for the node's own processes: their traffic to localhost or to the node's own
 * addresses never crosses a NIC, so the backend is chosen at the socket. Containers have network
 * namespaces of their own and are told apart by these.
 */
#ifndef EBPFMESH_SOCK_H
#define EBPFMESH_SOCK_H

#include "entry.h"

#define SOCK_ALLOW 1

static __always_inline bool is_loopback(__be32 address)
{
	return (bpf_ntohl(address) >> 24) == 127;
}

static __always_inline bool is_own_address(__be32 address)
{
	return is_loopback(address) || addresses.lookup(&address);
}

/* What a socket is led to. A task of this node is reached through docker_gwbridge. For one of
 * another node that node's published port is asked: there XDP takes over.
 */
static __always_inline struct sock_key sock_backend_key(struct bpf_sock_addr *ctx,
							const struct backend *backend,
							const struct frontend *frontend)
{
	struct sock_key key = { .cookie = bpf_get_socket_cookie(ctx) };

	if (backend->gateway_ifindex) {
		key.address = backend->gateway_address;
		key.port = frontend->target_port;
	} else {
		key.address = backend->vtep;
		key.port = ctx->user_port;
	}
	return key;
}

static __always_inline void sock_lead(struct bpf_sock_addr *ctx, const struct backend *backend,
				      const struct frontend *frontend)
{
	struct sock_origin origin = { .address = ctx->user_ip4, .port = ctx->user_port };
	struct sock_key key = sock_backend_key(ctx, backend, frontend);

	sock_origins.update(&key, &origin);
	ctx->user_ip4 = key.address;
	ctx->user_port = key.port;
}

/* The exit of a socket that is not led anywhere. `asked` is 0 for an address of IPv6. */
static __always_inline int leave_socket(struct bpf_sock_addr *ctx, __be32 asked, enum reason reason,
					int verdict)
{
	count_reason(reason);
	tell_socket(reason, ctx->protocol, asked, ctx->user_port, 0, 0);
	return verdict;
}

/* The backend for a socket that asks a port of this node; NULL if there is none, and no frontend if
 * the port is not published. The socket's own address is not known yet: it counts as this node's,
 * which another node will take it for. Only who connects keeps what a scheduler gives it.
 */
static __always_inline struct backend *sock_choose(struct bpf_sock_addr *ctx, __u32 hash,
						   bool connects, struct frontend **frontend,
						   __u32 *id)
{
	*frontend = port_frontend(ctx->user_port, ctx->protocol);
	if (!*frontend)
		return NULL;
	*id = connects ? schedule_choose(*frontend, NODE_VTEP, hash, 0, ctx->protocol) :
			 schedule_rechoose(*frontend, NODE_VTEP, hash);
	return *id ? backends.lookup(id) : NULL;
}

static __always_inline int sock_balance(struct bpf_sock_addr *ctx, __u32 hash, bool connects)
{
	struct frontend *frontend = NULL;
	struct backend *backend;
	__u32 id = 0;

	if (bpf_get_netns_cookie(ctx) != NODE_COOKIE || !is_own_address(ctx->user_ip4))
		return SOCK_ALLOW;
	backend = sock_choose(ctx, hash, connects, &frontend, &id);
	if (!frontend)
		return SOCK_ALLOW;
	if (gives_back())
		return leave_socket(ctx, ctx->user_ip4, HANDBACK_giving_back, SOCK_ALLOW);
	if (!backend)
		return leave_socket(ctx, ctx->user_ip4, HANDBACK_no_backend, SOCK_ALLOW);
	if (connects) {
		count_new_entry(frontend->id);
		tell_socket(FLOW_BEGINS, ctx->protocol, ctx->user_ip4, ctx->user_port, frontend->id,
			    id);
	}
	sock_lead(ctx, backend, frontend);
	return SOCK_ALLOW;
}

static __always_inline int sock_connect(struct bpf_sock_addr *ctx)
{
	return sock_balance(ctx, bpf_get_prandom_u32(), true);
}

/* Every datagram of a socket that is not connected goes to the same backend while it is there. */
static __always_inline int sock_sendmsg(struct bpf_sock_addr *ctx)
{
	return sock_balance(ctx, mix64(bpf_get_socket_cookie(ctx)) >> 32, false);
}

/* The program sees the address that it had asked. */
static __always_inline int sock_restore(struct bpf_sock_addr *ctx)
{
	struct sock_key key = { .address = ctx->user_ip4, .port = ctx->user_port };
	struct sock_origin *origin;

	if (bpf_get_netns_cookie(ctx) != NODE_COOKIE)
		return SOCK_ALLOW;
	key.cookie = bpf_get_socket_cookie(ctx);
	origin = sock_origins.lookup(&key);
	if (!origin)
		return SOCK_ALLOW;
	ctx->user_ip4 = origin->address;
	ctx->user_port = origin->port;
	return SOCK_ALLOW;
}

#endif
