/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The layout of every map's keys and values, written once: Python reads it back through
 * bcc's ctypes. Addresses and ports are in network byte order unless a name says otherwise.
 * A change here needs a new LAYOUT_VERSION: pinned maps live longer than an agent.
 */
#ifndef EBPFMESH_TYPES_H
#define EBPFMESH_TYPES_H

#define LAYOUT_VERSION 1

/* Swarm's ids are 25 characters; the rest is zero. */
#define SWARM_ID_LEN 28

/* What a client addresses: a VIP (its network, no port) or a published port (vni 0, address 0).
 * Also a backend's own address, so that direct traffic is known when it meets a flow.
 */
struct frontend_key {
	__be32 address;
	__u32 vni;
	__be16 port;
	__u8 protocol;
	__u8 pad;
};

enum frontend_kind {
	FRONTEND_UNSET = 0,
	FRONTEND_VIP = 1,
	FRONTEND_PORT = 2,
	FRONTEND_DIRECT = 3,
};

struct frontend {
	__u32 id;   /* counters; 0 for FRONTEND_DIRECT */
	__u32 pool; /* maglev table */
	__be16 target_port;
	__u8 kind;
	__u8 flags;
};

/* The backends of one service on one network. The name is for whoever finds the map. */
struct pool {
	__u32 vni;
	__u32 ready; /* backends in its table; 0: nobody answers */
	char service[SWARM_ID_LEN];
};

enum backend_state {
	BACKEND_UNSET = 0,
	BACKEND_READY = 1,
	BACKEND_DRAINING = 2,
	BACKEND_GONE = 3,
};

/* One task's endpoint. Where gateway_ifindex is set, the task runs here and is reached
 * through docker_gwbridge.
 */
struct backend {
	__be32 address;
	__u32 vni;
	__be32 vtep;
	__u32 pool;
	__u8 mac[6];
	__u8 state;
	__u8 pad;
	__be32 gateway_address;
	__u32 gateway_ifindex;
	__u8 gateway_mac[6];
	__u16 pad2;
	char task[SWARM_ID_LEN];
};

enum direction {
	TO_BACKEND = 0,
	TO_CLIENT = 1,
};

/* Per CPU. connections counts new flows. */
struct counter {
	__u64 packets[2];
	__u64 bytes[2];
	__u64 connections;
};

#endif
