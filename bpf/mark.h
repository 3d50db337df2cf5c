/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A sign on a packet that a program of this node has translated, on its way to a task of this node:
 * at that task's veth nothing is left to be done, and nothing is looked up. Nobody else can set it:
 * what comes from a wire or out of another namespace has no mark, and has none again when it leaves
 * this one (skb_scrub_packet() of the kernel, for veth and for vxlan). A packet that has a mark
 * keeps that, and one that comes without the sign is looked up: then there is nothing to be found.
 *
 * It is one value of 32 bits, not a bit of them: Docker's marks count up from 256, in other
 * namespaces, and 0xd0c4e3 is that of encrypted networks, in the node's. None of the bits that
 * Kubernetes (0xe000), Cilium (0xf00) or Tailscale (0xff0000) ask for is set, should one of these
 * packets ever be routed.
 */
#ifndef EBPFMESH_MARK_H
#define EBPFMESH_MARK_H

#include "config.h"
#include "types.h"

#define TRANSLATED_MARK 0xeb00006d

static __always_inline bool is_here(const struct backend *backend)
{
	return NODE_VTEP && backend->vtep == NODE_VTEP;
}

/* Others' marks stay. */
static __always_inline void mark_translated(struct __sk_buff *skb)
{
	if (!skb->mark)
		skb->mark = TRANSLATED_MARK;
}

/* Takes the sign off. */
static __always_inline bool is_translated(struct __sk_buff *skb)
{
	if (skb->mark != TRANSLATED_MARK)
		return false;
	skb->mark = 0;
	return true;
}

#endif
