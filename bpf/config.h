/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What is not the same on every node, and sizes. */
#ifndef EBPFMESH_CONFIG_H
#define EBPFMESH_CONFIG_H

/* A number of this node, 64 bits wide. The loader writes it over the placeholder in the compiled
 * instructions, so that one object serves every node; the verifier knows it like any constant, and
 * leaves out what it rules out. `otherwise` is what the loader takes where nothing is said; it
 * reads it here. See datapath/object.py.
 */
#define NODE_CONSTANT(placeholder, otherwise)                                                      \
	({                                                                                         \
		__u64 constant_;                                                                   \
		asm volatile("%0 = " #placeholder " ll" : "=r"(constant_));                        \
		constant_;                                                                         \
	})

/* This node on the underlay. NODE_VTEP is in network byte order. */
#define NODE_VTEP NODE_CONSTANT(0xebf0c0de00000001, 0)
#define NIC_IFINDEX NODE_CONSTANT(0xebf0c0de00000002, 0)
#define UNDERLAY_MTU NODE_CONSTANT(0xebf0c0de00000003, 1500)
#define NODE_COOKIE NODE_CONSTANT(0xebf0c0de00000004, 0)

/* The network whose veth a program is attached to. */
#define ATTACHED_VNI NODE_CONSTANT(0xebf0c0de00000005, 0)

/* The tunnel between entry node and backend node. */
#define MESH_VNI NODE_CONSTANT(0xebf0c0de00000006, 15461121)
#define VXLAN_PORT NODE_CONSTANT(0xebf0c0de00000007, 4789)
/* Whether containers are held to their own addresses. */
#define SPOOF_CHECK NODE_CONSTANT(0xebf0c0de00000008, 1)
#define RETURN_DSR NODE_CONSTANT(0xebf0c0de00000009, 0)

/* How long an entry without packets still owns its 4-tuple: a minute, three, five days. */
#define SYN_TIMEOUT_NS NODE_CONSTANT(0xebf0c0de0000000a, 60000000000)
#define UDP_TIMEOUT_NS NODE_CONSTANT(0xebf0c0de0000000b, 180000000000)
#define TCP_TIMEOUT_NS NODE_CONSTANT(0xebf0c0de0000000c, 432000000000000)

/* Its place among those of the object; the loader knows it. */
#define THIS_PROGRAM NODE_CONSTANT(0xebf0c0de0000000e, 0)

/* How far the kernel's clock goes on with each tick. */
#define TICK_NS NODE_CONSTANT(0xebf0c0de0000000f, 4000000)

/* Slots of a pool's table: a prime. The object is compiled for the largest. */
#define MAGLEV_SIZE NODE_CONSTANT(0xebf0c0de0000000d, 16381)
#define MAGLEV_MAX 131071

/* Sizes of maps. Those with a guard may be given to the loader. */
#ifndef MAX_FRONTENDS
#define MAX_FRONTENDS 8192
#endif
#ifndef MAX_SERVICES
#define MAX_SERVICES 4096
#endif
#ifndef MAX_BACKENDS
#define MAX_BACKENDS 16384
#endif
#ifndef MAX_FLOWS
#define MAX_FLOWS 262144
#endif
#define MAX_TRANSIENT (MAX_FLOWS / 2)
/* Flows that each CPU notes, and slots in which changes of flows are counted: see recent.h. */
#define RECENT_BITS 12
#define EPOCH_BITS 16
#define MAX_SOCKETS 65536
#define MAX_CHOICES 16384
#define MAX_FRAGMENTS 65536
#define MAX_NODES 4096
#define MAX_ADDRESSES 1024
#define MAX_ALLOWED 65536
#define MAX_SURROGATES 65536
#define NEWCOMER_BITS 6
#define MAX_NEWCOMERS (1 << NEWCOMER_BITS)

/* Room for events that nobody has read yet, in pages of PAGE_SIZE bytes: a power of 2. */
#define EVENT_PAGES 64

/* Whence IPv6 clients get the IPv4 address that stands for them: 240.0.0.0/5, of a class that RFC
 * 1112 has reserved. Linux takes such an address for any other. In host byte order.
 */
#define SURROGATE_NET 0xf0000000
#define SURROGATE_MASK 0xf8000000

#define SECOND_NS 1000000000ULL
/* 2^64 over the golden ratio: its products are spread best in their upper bits. */
#define SPREAD 0x9e3779b97f4a7c15ULL
/* How stale the time stamp of a flow may be before a packet renews it, and its twin. */
#define FLOW_TOUCH_NS (1 * SECOND_NS)
/* For how long a CPU may go by what it has noted of a flow. */
#define RECENT_NS (SECOND_NS / 8)
/* How long a fragment waits for the others. RFC 1122, 3.3.2, wants 60 to 120 s of a host, as much
 * as a host's memory allows; Linux gives it 30.
 */
#define FRAGMENT_TIMEOUT_NS (30 * SECOND_NS)
/* A SYN that comes again after that long has not been answered. Linux waits for 1 s (RFC 6298). */
#define SYN_RETRY_NS (SECOND_NS / 2)
/* So many unanswered connections in a row make a backend suspect. */
#define SILENT_LIMIT 3
/* For how long it is avoided then, and how often that doubles. */
#define AVOID_S 10
#define AVOID_DOUBLINGS 3
/* How much longer datagrams avoid it: till the next connections have gone unanswered, too. */
#define PROBE_S 3
/* How long a backend that has not accepted anything yet may be starting, and one that refuses where
 * it has accepted may be ending; then it means it. How long till it may be ending once more.
 */
#define START_NS (30 * SECOND_NS)
#define REFUSAL_REST_NS (4 * START_NS)
/* How many slots of a table are looked at for a backend that is not avoided. */
#define CHOICE_TRIES 16
/* How many source ports a flow tries before it gives up. */
#define CLAIM_TRIES 16
/* How long nothing begins at most while flows move: an agent may die over it. */
#define MOVING_NS (10 * SECOND_NS)

#endif
