/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Published ports, for the node's own processes that ask by IPv6. A backend has an IPv4 address; an
 * IPv6 socket reaches it as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2), unless it was made IPV6_V6ONLY:
 * then the kernel refuses the connection ("network is unreachable"), which is better than to let it
 * wait for a listener that accepts nobody.
 */
#ifndef EBPFMESH_SOCK6_H
#define EBPFMESH_SOCK6_H

#include "sock.h"

#define MAPPED_PREFIX bpf_htonl(0xffff)
#define REFUSE_SOCKET 0

/* bcc of Debian 12 knows its number only. */
static int (*set_retval)(int retval) = (void *)BPF_FUNC_set_retval;
#define ECONNREFUSED 111

static __always_inline struct ip6 sock_ip6(struct bpf_sock_addr *ctx)
{
	struct ip6 a;

	a.word[0] = ctx->user_ip6[0];
	a.word[1] = ctx->user_ip6[1];
	a.word[2] = ctx->user_ip6[2];
	a.word[3] = ctx->user_ip6[3];
	return a;
}

static __always_inline void sock_set_ip6(struct bpf_sock_addr *ctx, const struct ip6 *a)
{
	ctx->user_ip6[0] = a->word[0];
	ctx->user_ip6[1] = a->word[1];
	ctx->user_ip6[2] = a->word[2];
	ctx->user_ip6[3] = a->word[3];
}

static __always_inline struct ip6 mapped(__be32 address)
{
	struct ip6 a = { .word = { 0, 0, MAPPED_PREFIX, address } };

	return a;
}

static __always_inline bool is_mapped(const struct ip6 *a)
{
	return !a->word[0] && !a->word[1] && a->word[2] == MAPPED_PREFIX;
}

/* ::1, and ::, which the kernel takes for it. */
static __always_inline bool is_loopback6(const struct ip6 *a)
{
	return !a->word[0] && !a->word[1] && !a->word[2] && !(a->word[3] & ~bpf_htonl(1));
}

static __always_inline bool is_own_ip6(const struct ip6 *a)
{
	struct ip6 key = *a;

	if (is_mapped(a))
		return is_own_address(a->word[3]);
	return is_loopback6(a) || addresses6.lookup(&key);
}

static __always_inline int sock_connect_ip6(struct bpf_sock_addr *ctx)
{
	struct sock_origin6 origin = { .address = sock_ip6(ctx), .port = ctx->user_port };
	struct frontend *frontend = NULL;
	struct backend *backend;
	struct sock_key key;
	struct ip6 to;
	__u32 id = 0;

	if (bpf_get_netns_cookie(ctx) != NODE_COOKIE || !is_own_ip6(&origin.address))
		return SOCK_ALLOW;
	backend = sock_choose(ctx, bpf_get_prandom_u32(), true, &frontend, &id);
	if (!frontend)
		return SOCK_ALLOW;
	if (gives_back())
		return leave_socket(ctx, 0, HANDBACK_giving_back, SOCK_ALLOW);
	if (!backend) {
		set_retval(-ECONNREFUSED);
		return leave_socket(ctx, 0, DROP_no_backend, REFUSE_SOCKET);
	}
	count_new_entry(frontend->id);
	tell_socket(FLOW_BEGINS, ctx->protocol, 0, ctx->user_port, frontend->id, id);
	key = sock_backend_key(ctx, backend, frontend);
	sock_origins6.update(&key, &origin);
	to = mapped(key.address);
	sock_set_ip6(ctx, &to);
	ctx->user_port = key.port;
	return SOCK_ALLOW;
}

/* A datagram of a socket that is not connected: the kernel lets no program turn its IPv6
 * destination into an IPv4 one (udpv6_sendmsg()), and nobody would answer. One to ::ffff:a.b.c.d is
 * seen by sock_sendmsg() instead.
 */
static __always_inline int sock_sendmsg_ip6(struct bpf_sock_addr *ctx)
{
	struct ip6 to = sock_ip6(ctx);

	if (bpf_get_netns_cookie(ctx) != NODE_COOKIE || !is_own_ip6(&to) ||
	    !port_frontend(ctx->user_port, ctx->protocol))
		return SOCK_ALLOW;
	if (gives_back())
		return leave_socket(ctx, 0, HANDBACK_giving_back, SOCK_ALLOW);
	set_retval(-ECONNREFUSED);
	return leave_socket(ctx, 0, DROP_ipv6_datagram, REFUSE_SOCKET);
}

/* The program sees the address that it had asked: by connect(), or by sendto() of an IPv4-mapped
 * one.
 */
static __always_inline int sock_restore_ip6(struct bpf_sock_addr *ctx)
{
	struct sock_key key = { .port = ctx->user_port };
	struct ip6 peer = sock_ip6(ctx);
	struct sock_origin6 *asked;
	struct sock_origin *origin;

	if (bpf_get_netns_cookie(ctx) != NODE_COOKIE || !is_mapped(&peer))
		return SOCK_ALLOW;
	key.cookie = bpf_get_socket_cookie(ctx);
	key.address = peer.word[3];
	asked = sock_origins6.lookup(&key);
	if (asked) {
		sock_set_ip6(ctx, &asked->address);
		ctx->user_port = asked->port;
		return SOCK_ALLOW;
	}
	origin = sock_origins.lookup(&key);
	if (!origin)
		return SOCK_ALLOW;
	peer = mapped(origin->address);
	sock_set_ip6(ctx, &peer);
	ctx->user_port = origin->port;
	return SOCK_ALLOW;
}

#endif
