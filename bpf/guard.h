/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the programs do not read is left to the kernel; where Docker has a path of its own there,
 * that must not be a way round a list of allowed clients. An IPv4 header with options, and the
 * first fragment of a packet, say their ports, and are judged by them. Later fragments are of no
 * use to the kernel without their first, and do not overwrite what that says (RFC 5722).
 */
#ifndef EBPFMESH_GUARD_H
#define EBPFMESH_GUARD_H

#include "entry.h"

static __always_inline bool is_unread(enum reason why)
{
	return why == HANDBACK_ip_options || why == HANDBACK_fragment ||
	       why == HANDBACK_bad_fragment || why == HANDBACK_truncated;
}

/* Reads no more than who asks whom. */
static __always_inline bool read_ports(struct __sk_buff *skb, struct packet *p)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, L3_OFFSET, &ip, sizeof(ip)) || ip.version != 4)
		return false;
	if (ip.frag_off & bpf_htons(IP_OFFSET))
		return false;
	p->protocol = ip.protocol;
	p->t.saddr = ip.saddr;
	p->t.daddr = ip.daddr;
	return !bpf_skb_load_bytes(skb, L3_OFFSET + ip.ihl * 4, &p->t.sport, 4);
}

/* The exit of a packet that was not understood. */
static __always_inline int leave_to_kernel(struct __sk_buff *skb, enum reason why)
{
	struct frontend *frontend;
	struct packet p = {};

	if (!is_unread(why) || !read_ports(skb, &p))
		return leave(why, TC_ACT_UNSPEC);
	frontend = port_frontend(p.t.dport, p.protocol);
	if (frontend && !may_ask(&p, frontend))
		return leave(DROP_not_allowed, TC_ACT_SHOT);
	return leave(why, TC_ACT_UNSPEC);
}

#endif
