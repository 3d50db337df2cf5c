/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Constants of this node, baked in by the loader's -D flags. The defaults let the programs be
 * compiled, and tested, by themselves.
 */
#ifndef EBPFMESH_CONFIG_H
#define EBPFMESH_CONFIG_H

#ifndef PIN_DIR
#define PIN_DIR "/sys/fs/bpf/ebpfmesh/test"
#endif

/* Sizes. MAGLEV_SIZE is a prime. */
#ifndef MAGLEV_SIZE
#define MAGLEV_SIZE 16381
#endif
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
#define MAX_SOCKETS 65536
#define MAX_FRAGMENTS 65536
#define MAX_NODES 4096
#define MAX_ADDRESSES 1024
#define MAX_ALLOWED 65536
#define MAX_SURROGATES 65536

/* This node on the underlay. NODE_VTEP is in network byte order. */
#ifndef NODE_VTEP
#define NODE_VTEP 0
#endif
#ifndef NIC_IFINDEX
#define NIC_IFINDEX 0
#endif
#ifndef UNDERLAY_MTU
#define UNDERLAY_MTU 1500
#endif
#ifndef NODE_COOKIE
#define NODE_COOKIE 0
#endif

/* Whence IPv6 clients get the IPv4 address that stands for them: 240.0.0.0/5, of a class that RFC
 * 1112 has reserved. Linux takes such an address for any other. In host byte order.
 */
#define SURROGATE_NET 0xf0000000
#define SURROGATE_MASK 0xf8000000

/* The tunnel between entry node and backend node. */
#ifndef MESH_VNI
#define MESH_VNI 15461121
#endif
#ifndef VXLAN_PORT
#define VXLAN_PORT 4789
#endif
/* Whether containers are held to their own addresses. */
#ifndef SPOOF_CHECK
#define SPOOF_CHECK 1
#endif
#ifndef RETURN_DSR
#define RETURN_DSR 0
#endif

#define SECOND_NS 1000000000ULL
/* How stale the time stamp of a flow may be before a packet renews it, and its twin. */
#define FLOW_TOUCH_NS (1 * SECOND_NS)
/* How long an entry without packets still owns its 4-tuple. */
#ifndef SYN_TIMEOUT_NS
#define SYN_TIMEOUT_NS (60 * SECOND_NS)
#endif
#ifndef UDP_TIMEOUT_NS
#define UDP_TIMEOUT_NS (180 * SECOND_NS)
#endif
#ifndef TCP_TIMEOUT_NS
#define TCP_TIMEOUT_NS (5ULL * 24 * 3600 * SECOND_NS)
#endif
/* How long a fragment waits for the others. RFC 1122, 3.3.2, wants 60 to 120 s of a host, as much
 * as a host's memory allows; Linux gives it 30.
 */
#define FRAGMENT_TIMEOUT_NS (30 * SECOND_NS)
/* How many source ports a flow tries before it gives up. */
#define CLAIM_TRIES 16
/* How long the next hop towards a node is believed. */
#define NEXT_HOP_NS (1 * SECOND_NS)

#endif
