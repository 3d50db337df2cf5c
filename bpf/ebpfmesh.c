/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The programs: one thin entry point for each hook. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include "mesh_nic.h"
#include "mesh_task.h"
#include "mesh_xdp.h"
#include "outer_error.h"
#include "sock.h"
#include "sock6.h"
#include "to_ip6.h"
#include "vip.h"
#include "vip_plain.h"
#include "vip_sock.h"

int overlay_ingress(struct __sk_buff *skb)
{
	struct looked looked = {};
	int verdict;

	/* It stays in memory: else the compiler sets it anew at each place where the short way
	 * ends.
	 */
	asm volatile("" : : "r"(&looked) : "memory");
	verdict = vip_plain_out(skb, &looked);
	if (verdict != NOT_PLAIN)
		return told(skb, verdict);
	sctp_begin(skb);
	return told(skb, sctp_finish(skb, vip_from_container(skb, &looked)));
}

int overlay_egress(struct __sk_buff *skb)
{
	int verdict = vip_plain_in(skb);

	if (verdict == TC_ACT_UNSPEC) /* nothing to tell */
		return verdict;
	if (verdict != NOT_PLAIN)
		return told(skb, verdict);
	sctp_begin(skb);
	return told(skb, sctp_finish(skb, vip_to_container(skb)));
}

int nic_xdp(struct xdp_md *ctx)
{
	return told_xdp(ctx, mesh_xdp(ctx));
}

int nic_ingress(struct __sk_buff *skb)
{
	sctp_begin(skb);
	begin_from_ip6(skb);
	return told(skb, sctp_finish(skb, finish_from_ip6(skb, mesh_nic(skb))));
}

int nic_ip6(struct __sk_buff *skb)
{
	return told(skb, mesh_ip6(skb));
}

/* Handed over to, by PROGRAM_REFUSE_IP6 and PROGRAM_TO_IP6. */
int nic_refuse_ip6(struct __sk_buff *skb)
{
	return told(skb, mesh_refuse_ip6(skb));
}

int nic_to_ip6(struct __sk_buff *skb)
{
	return told(skb, mesh_to_ip6(skb));
}

/* Handed over to, by PROGRAM_OUTER_ERROR. */
int nic_outer_error(struct __sk_buff *skb)
{
	return told(skb, mesh_outer_error(skb));
}

int gateway_ingress(struct __sk_buff *skb)
{
	sctp_begin(skb);
	return told(skb, sctp_finish(skb, mesh_from_task(skb)));
}

int gateway_egress(struct __sk_buff *skb)
{
	sctp_begin(skb);
	return told(skb, sctp_finish(skb, mesh_to_task(skb)));
}

int sock_connect4(struct bpf_sock_addr *ctx)
{
	return sock_connect(ctx);
}

int sock_sendmsg4(struct bpf_sock_addr *ctx)
{
	return sock_sendmsg(ctx);
}

int sock_recvmsg4(struct bpf_sock_addr *ctx)
{
	return sock_restore(ctx);
}

int sock_getpeername4(struct bpf_sock_addr *ctx)
{
	return sock_restore(ctx);
}

int sock_connect6(struct bpf_sock_addr *ctx)
{
	return sock_connect_ip6(ctx);
}

int sock_sendmsg6(struct bpf_sock_addr *ctx)
{
	return sock_sendmsg_ip6(ctx);
}

int sock_recvmsg6(struct bpf_sock_addr *ctx)
{
	return sock_restore_ip6(ctx);
}

int sock_getpeername6(struct bpf_sock_addr *ctx)
{
	return sock_restore_ip6(ctx);
}

int vip_connect4(struct bpf_sock_addr *ctx)
{
	return vip_sock_connect(ctx);
}

int vip_sendmsg4(struct bpf_sock_addr *ctx)
{
	return vip_sock_sendmsg(ctx);
}

int vip_recvmsg4(struct bpf_sock_addr *ctx)
{
	return vip_sock_restore(ctx);
}

int vip_getpeername4(struct bpf_sock_addr *ctx)
{
	return vip_sock_restore(ctx);
}
