/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* "Port unreachable" about a datagram, from a task that has answered some on that port: its process
 * has just died. While others are ready the client does not hear it. It sends the datagram again,
 * as if that had been lost, and then another task gets it.
 */
#ifndef EBPFMESH_ENDING_H
#define EBPFMESH_ENDING_H

#include "icmp_error.h"
#include "refuse.h"
#include "retry.h"

static __always_inline bool is_port_unreachable(struct __sk_buff *skb)
{
	__u8 icmp[2];

	return !bpf_skb_load_bytes(skb, L4_OFFSET, icmp, sizeof(icmp)) &&
	       icmp[0] == ICMP_UNREACHABLE && icmp[1] == ICMP_PORT;
}

static __always_inline bool has_answered(__u32 backend, __u32 bit)
{
	struct health *h = health.lookup(&backend);

	return h && h->accepted & bit;
}

/* Takes the flow away from the task if p, an ICMP error about `quoted`, says that it has ended.
 * `key` is that of the task's answers, `reply` what lies there.
 */
static __always_inline bool ends_datagrams(struct __sk_buff *skb, const struct packet *p,
					   const struct packet *quoted, struct flow_key *key,
					   struct flow *reply)
{
	struct flow_key twin;
	__u32 id = reply->backend, bit = health_bit(IPPROTO_UDP, quoted->t.dport);

	if (quoted->protocol != IPPROTO_UDP || p->t.saddr != quoted->t.daddr ||
	    reply->flags & (FLOW_DIRECT | FLOW_VIA_KERNEL) || !is_port_unreachable(skb))
		return false;
	if (!has_answered(id, bit) || !has_others(id) || !is_between(id, bit))
		return false;
	twin = twin_key(key, &reply->to);
	entries.delete(&twin);
	transient_entries.delete(&twin);
	flow_retire(key, reply);
	return true;
}

#endif
