/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A task of this node whose link has gone. The agent says so within milliseconds, unless it is
 * away, to be started again: then the program that meets such a link does. It leaves what the agent
 * would have written first, so that all programs look past the task: datagrams that come again go
 * to another, and so does a new SYN. Connections find out by themselves.
 */
#ifndef EBPFMESH_VANISHED_H
#define EBPFMESH_VANISHED_H

#include "health.h"
#include "takeover.h"

#define NO_SUCH_LINK (-19) /* ENODEV */

static __always_inline bool is_link(struct __sk_buff *skb, __u32 ifindex)
{
	__u32 mtu = 0;

	return bpf_check_mtu(skb, ifindex, &mtu, 0, 0) != NO_SUCH_LINK;
}

/* Asked for what may begin a flow alone. If it has not been put right after AVOID_S, the next such
 * packet finds the same.
 */
static __always_inline bool has_vanished(struct __sk_buff *skb, const struct packet *p, __u32 id,
					 struct backend *backend)
{
	if (!may_begin(p) || is_link(skb, backend->gateway_ifindex))
		return false;
	if (backend->state != BACKEND_GONE)
		backend->state = BACKEND_STOPPING;
	avoid_until(id, avoid_clock() + AVOID_S);
	return true;
}

#endif
