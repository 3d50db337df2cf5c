/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Service VIPs, at the sockets of containers: a TCP connection is led to its task before it begins,
 * a datagram before it is sent. Attached only where the agent was told so (vip_mode).
 *
 * What is not certain to be right here is left as it is: it then goes to the VIP, and meets the tc
 * programs, which are there in any case (vip.h). So are sockets of namespaces that are not known
 * (yet); services that count their connections, for which only packets tell when they end; UDP
 * sockets that are connected, as their datagrams could not be led away from a task that ends;
 * sockets that chose their port themselves, which may meet another connection at the task; and all
 * that finds no backend, which is refused there.
 */
#ifndef EBPFMESH_VIP_SOCK_H
#define EBPFMESH_VIP_SOCK_H

#include "counters.h"
#include "flow.h"
#include "schedule.h"
#include "sock.h"
#include "takeover.h"

#define AF_INET 2

/* What a socket asks, and who asks. */
struct vip_asked {
	__u32 vni;
	__be32 client; /* the container's address on that network */
	__be32 vip;
};

/* The VIP's frontend, NULL if it asks something else. */
static __always_inline struct frontend *vip_find(struct bpf_sock_addr *ctx, struct vip_asked *asked)
{
	struct frontend_key where = { .address = ctx->user_ip4 };
	__u64 cookie = bpf_get_netns_cookie(ctx);
	struct net_namespace *known = namespaces.lookup(&cookie);
	struct frontend *frontend;

	if (!known)
		return NULL;
#pragma unroll
	for (int i = 0; i < NAMESPACE_NETWORKS; i++) {
		where.vni = known->vni[i];
		if (!where.vni)
			return NULL;
		frontend = frontends.lookup(&where);
		if (!frontend)
			continue;
		asked->vni = where.vni;
		asked->client = known->address[i];
		asked->vip = where.address;
		return frontend;
	}
	return NULL;
}

/* Whether sockets may be led to this service's backends now. */
static __always_inline bool vip_is_led(const struct frontend *frontend)
{
	__u32 zero = 0;
	struct settings *set = settings.lookup(&zero);

	if (frontend->kind != FRONTEND_VIP ||
	    (frontend->flags & FRONTEND_SCHEDULER) == SCHEDULE_LEAST_CONN)
		return false;
	return set && set->mode != MODE_GIVING_BACK && !moves(set);
}

/* The backend for a socket, and its id; NULL if none is found that gets new flows. The table may be
 * a moment behind what is known of its backends.
 */
static __always_inline struct backend *vip_sock_choose(const struct frontend *frontend,
						       __be32 client, __u8 protocol, __u32 *id)
{
	__u32 hash = bpf_get_prandom_u32();
	struct backend *backend;

	*id = schedule_choose(frontend, client, hash, 0, protocol);
	backend = backends.lookup(id);
	if (backend && backend->state == BACKEND_READY)
		return backend;
	*id = schedule_other(frontend, client, hash, *id, protocol);
	backend = backends.lookup(id);
	return backend && backend->state == BACKEND_READY ? backend : NULL;
}

static __always_inline void tell_vip_socket(struct bpf_sock_addr *ctx,
					    const struct vip_asked *asked, __u32 frontend,
					    __u32 backend)
{
	struct event *e;

	if (!is_traced(FLOW_BEGINS))
		return;
	e = event_begin(FLOW_BEGINS);
	if (!e)
		return;
	e->vni = asked->vni;
	e->path = PATH_SOCKET;
	e->protocol = ctx->protocol;
	e->t.saddr = asked->client;
	e->t.daddr = asked->vip;
	e->t.dport = ctx->user_port;
	e->frontend = frontend;
	e->backend = backend;
	events.ringbuf_submit(e, NO_WAKEUP);
}

/* The program shall see the VIP as its peer: vip_sock_restore(). */
static __always_inline void vip_sock_lead(struct bpf_sock_addr *ctx, __be32 address)
{
	struct sock_origin asked = { .address = ctx->user_ip4, .port = ctx->user_port };
	struct sock_key key = { .address = address, .port = ctx->user_port };
	struct sock_origin *known;

	key.cookie = bpf_get_socket_cookie(ctx);
	known = sock_origins.lookup(&key);
	if (!known || known->address != asked.address)
		sock_origins.update(&key, &asked);
	ctx->user_ip4 = address;
}

static __always_inline int vip_sock_connect(struct bpf_sock_addr *ctx)
{
	struct vip_asked asked = {};
	struct frontend *frontend;
	struct backend *backend;
	__u32 id = 0;

	if (ctx->protocol != IPPROTO_TCP || ctx->sk->src_port)
		return SOCK_ALLOW;
	frontend = vip_find(ctx, &asked);
	if (!frontend || !vip_is_led(frontend))
		return SOCK_ALLOW;
	backend = vip_sock_choose(frontend, asked.client, IPPROTO_TCP, &id);
	if (!backend)
		return SOCK_ALLOW;
	count_new_flow(frontend->id, id);
	tell_vip_socket(ctx, &asked, frontend->id, id);
	vip_sock_lead(ctx, backend->address);
	return SOCK_ALLOW;
}

/* The backend that a socket's datagrams go to already, NULL if they have to go elsewhere: as
 * flow_backend() and flow_expired().
 */
static __always_inline struct backend *vip_sock_known(struct sock_key *key,
						      const struct frontend *frontend)
{
	struct sock_choice *choice = sock_choices.lookup(key);
	__u64 seen_ns = choice ? choice->seen_ns : 0;
	__u64 now = bpf_ktime_get_coarse_ns(); /* after that was read: never before it */
	struct backend *backend;
	__u32 id;

	if (!choice || now - seen_ns > UDP_TIMEOUT_NS)
		return NULL;
	id = choice->backend;
	backend = backends.lookup(&id);
	if (!backend || !is_same_backend(backend, choice->address, frontend->pool))
		return NULL;
	if (backend->state != BACKEND_READY && backend->state != BACKEND_DRAINING)
		return NULL;
	if (now - seen_ns > FLOW_TOUCH_NS)
		choice->seen_ns = now;
	return backend;
}

static __always_inline struct backend *vip_sock_begin(struct bpf_sock_addr *ctx,
						      const struct frontend *frontend,
						      const struct vip_asked *asked,
						      struct sock_key *key)
{
	struct sock_choice choice = { .seen_ns = bpf_ktime_get_coarse_ns() };
	struct backend *backend;
	__u32 id = 0;

	backend = vip_sock_choose(frontend, asked->client, IPPROTO_UDP, &id);
	if (!backend)
		return NULL;
	choice.backend = id;
	choice.address = backend->address;
	sock_choices.update(key, &choice);
	count_new_flow(frontend->id, id);
	tell_vip_socket(ctx, asked, frontend->id, id);
	return backend;
}

/* A datagram of a socket that is not connected. Those of an IPv6 socket come here, too: what they
 * receive does not come by vip_sock_restore().
 */
static __always_inline int vip_sock_sendmsg(struct bpf_sock_addr *ctx)
{
	struct sock_key key = { .address = ctx->user_ip4, .port = ctx->user_port };
	struct vip_asked asked = {};
	struct frontend *frontend;
	struct backend *backend;

	if (ctx->family != AF_INET)
		return SOCK_ALLOW;
	frontend = vip_find(ctx, &asked);
	if (!frontend || !vip_is_led(frontend))
		return SOCK_ALLOW;
	key.cookie = bpf_get_socket_cookie(ctx);
	backend = vip_sock_known(&key, frontend);
	if (!backend)
		backend = vip_sock_begin(ctx, frontend, &asked, &key);
	if (backend)
		vip_sock_lead(ctx, backend->address);
	return SOCK_ALLOW;
}

/* The program sees the VIP that it had asked. */
static __always_inline int vip_sock_restore(struct bpf_sock_addr *ctx)
{
	struct sock_key key = { .address = ctx->user_ip4, .port = ctx->user_port };
	__u64 cookie = bpf_get_netns_cookie(ctx);
	struct sock_origin *asked;

	if (!namespaces.lookup(&cookie))
		return SOCK_ALLOW;
	key.cookie = bpf_get_socket_cookie(ctx);
	asked = sock_origins.lookup(&key);
	if (asked)
		ctx->user_ip4 = asked->address;
	return SOCK_ALLOW;
}

#endif
