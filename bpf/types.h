/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The layout of every map's keys and values, written once: Python reads it back through
 * bcc's ctypes. Addresses and ports are in network byte order unless a name says otherwise.
 * A change here needs a new LAYOUT_VERSION: pinned maps live longer than an agent.
 */
#ifndef EBPFMESH_TYPES_H
#define EBPFMESH_TYPES_H

#include "compat.h"

#define LAYOUT_VERSION 2

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

/* How a new flow gets its backend. */
enum scheduler {
	SCHEDULE_MAGLEV = 0,
	SCHEDULE_RANDOM = 1,
	SCHEDULE_RR = 2,
	SCHEDULE_LEAST_CONN = 3,
};

enum frontend_flags {
	FRONTEND_SCHEDULER = 3 << 0,  /* a mask: enum scheduler */
	FRONTEND_AFFINITY = 1 << 2,   /* the client's address alone decides */
	FRONTEND_RESTRICTED = 1 << 3, /* only clients in `allowed` */
};

struct frontend {
	__u32 id;   /* counters; 0 for FRONTEND_DIRECT */
	__u32 pool; /* maglev table */
	__be16 target_port;
	__u8 kind;
	__u8 flags;
};

#define PORTS 65536
/* Of a protocol, in a byte: the last three bits of TCP, UDP and SCTP differ. */
#define PORT_BIT(protocol) (1U << ((protocol) & 7))

/* Clients of a restricted frontend, for a trie of prefixes (kernel: map_lpm_trie). An IPv4 address
 * lies in the first word; pools of IPv6 clients are marked, so that ::/0 lets no IPv4 client in.
 */
struct allow_key {
	__u32 prefix; /* bits that count, from `pool` on */
	__u32 pool;
	__be32 address[4];
};

#define ALLOW_IPV6 (1U << 31)
#define ALLOW_PREFIX(length) (32 + (length))

/* The backends of one service on one network. The name is for whoever finds the map. */
struct pool {
	__u32 vni;
	__u32 ready; /* backends in its table, on this node; 0: nobody answers */
	char service[SWARM_ID_LEN];
};

enum backend_state {
	BACKEND_UNSET = 0,
	BACKEND_READY = 1,
	BACKEND_DRAINING = 2,
	BACKEND_GONE = 3,
	BACKEND_STOPPING = 4, /* drains, and has been told to stop */
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
	__u8 pad2[2];
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

/* Addresses and ports, laid out as in an IPv4 packet without options. */
struct tuple {
	__be32 saddr;
	__be32 daddr;
	__be16 sport;
	__be16 dport;
};

/* A 5-tuple as one side sends it, on one network; vni is 0 for published ports. */
struct flow_key {
	struct tuple t;
	__u32 vni;
	__u8 protocol;
	__u8 pad[3];
};

enum flow_flags {
	FLOW_FIN_CLIENT = 1 << 0,
	FLOW_FIN_SERVER = 1 << 1,
	FLOW_RST = 1 << 2,
	FLOW_ANSWERED = 1 << 3,
	FLOW_DIRECT = 1 << 4,      /* not balanced; tracked because it may meet a balanced one */
	FLOW_FROM_TASK = 1 << 5,   /* the client is a container of this node */
	FLOW_VIA_KERNEL = 1 << 6,  /* the kernel carries it on, nothing is redirected */
	FLOW_ESTABLISHED = 1 << 7, /* both sides speak: not kept among the transient ones */
	FLOW_COUNTED = 1 << 8,     /* among the live ones of its backend: see live.h */
	FLOW_ABANDONED = 1 << 9,   /* a reply of a backend that was too slow: see retry.h */
	FLOW_ATTEMPT = 15 << 12,   /* a mask: how often its SYN has got another backend */
};

/* One direction of a translated flow. Its twin lies in the other map under the reverse of `to`,
 * so either can be made again from the other.
 */
struct flow {
	__u64 seen_ns;
	struct tuple to; /* what the packet is rewritten to */
	__u32 backend;
	__u32 frontend;
	__be32 entry;  /* VTEP of the entry node, 0 if that is this node */
	__u32 ifindex; /* where answers leave; a client's veth, if FLOW_FROM_TASK; on an overlay
			* that of who sends this direction's packets
			*/
	__u8 mac[6];   /* of the container behind that veth */
	__u16 flags;
	__u32 pool; /* the backend's, to notice that its id, and its address, were given to another
		     */
};

/* What a CPU notes of a flow that it has just had, for what comes next of it: see recent.h. The
 * first three are its key, laid out as the packet has it.
 */
struct recent {
	__be32 saddr;
	__be32 daddr;
	__u64 network; /* and where the packet was seen, and its protocol: see recent_network() */
	__u32 ports;
	__be32 address; /* that is written in place of the packet's: of the backend, or of the VIP
			 */
	__u32 epoch;
	__u32 pool;        /* of the backend, as in a flow */
	__u64 until_ticks; /* of jiffies */
	__u32 diff;        /* what that address changes in a checksum */
	__u32 backend;
	__u32 frontend;
	__u32 ifindex; /* of who sends this, with the MAC */
	__u8 mac[6];
	__u8 direction; /* enum direction, or NOBODYS: the packet is of no flow, nor to a VIP */
	__u8 pad;
};

#define NOBODYS 2

/* What an entry node remembers of a flow: whom it gave it to. */
struct entry {
	__u64 seen_ns;
	__u32 backend;
	__u32 frontend;
	__be32 address; /* the backend's, and its pool: to notice that its id was given to another
			 */
	__u32 pool;
	__u16 flags;
	__u8 attempt; /* how often its SYN has got another backend */
	__u8 pad[5];
};

/* What a backend has made of the connections that it was given through this node: see health.h. */
struct health {
	__u64 refused_ns; /* when it first refused one */
	__u32 silent;     /* unanswered ones in a row */
	__u32 accepted;   /* on which ports it has ever answered: a bit each, by hash */
};

/* What an entry node gives up to choose anew. */
struct given_up {
	__u32 backend; /* 0: nothing */
	__u16 flags;
	__u16 attempt;
};

/* Till when each backend is avoided, in seconds of CLOCK_MONOTONIC. One value, as it is read
 * without branches: see schedule.h.
 */
#define AVOIDED_SLOTS 65536

struct avoided {
	__u32 until_s[AVOIDED_SLOTS];
};

/* The node's end of a container's veth; vni is 0 for what is not an overlay's. Link numbers are
 * those of the overlay's own namespace; number 0 stands for Docker's own load balancer there.
 */
struct endpoint_key {
	__u32 vni;
	__u32 ifindex;
};

/* The container behind it, by whose address and MAC its packets have to be sent. */
struct endpoint {
	__be32 address;
	__u8 mac[6];
	__u8 pad[2];
};

/* A datagram that comes in fragments: what tells it from others (RFC 791), on one network. */
struct fragment_key {
	__be32 saddr;
	__be32 daddr;
	__u32 vni;
	__be16 id;
	__u8 protocol;
	__u8 pad;
};

/* What only its first fragment says. */
struct fragment {
	__u64 seen_ns;
	__be16 sport;
	__be16 dport;
	__u8 pad[4];
};

/* A socket of the node's own processes, and the backend that it was led to. */
struct sock_key {
	__u64 cookie;
	__be32 address;
	__be16 port;
	__u8 pad[2];
};

/* What the program had asked for. */
struct sock_origin {
	__be32 address;
	__be16 port;
	__u8 pad[2];
};

/* A container's networks that have VIPs, and its address on each: who is asked at its sockets, see
 * vip_sock.h. The key is the cookie of its network namespace; a vni of 0 ends the list.
 */
#define NAMESPACE_NETWORKS 8

struct net_namespace {
	__u32 vni[NAMESPACE_NETWORKS];
	__be32 address[NAMESPACE_NETWORKS];
};

/* The backend that the datagrams of a socket get, under what it asks. */
struct sock_choice {
	__u64 seen_ns;
	__u32 backend;
	__be32 address; /* the backend's, to notice that its id was given to another */
};

/* An IPv6 address. */
struct ip6 {
	__be32 word[4];
};

/* The same for a program that asked by IPv6. */
struct sock_origin6 {
	struct ip6 address;
	__be16 port;
	__u8 pad[2];
};

/* An IPv6 client, and the address of this node that it asks. */
struct surrogate {
	__u64 seen_ns;
	struct ip6 client;
	struct ip6 node;
	__u32 ifindex; /* where the client's packets come in */
	__u32 pad;
};

/* Programs that others hand a packet over to. */
enum program {
	PROGRAM_REFUSE_IP6 = 0,
	PROGRAM_TO_IP6 = 1,
	PROGRAM_OUTER_ERROR = 2,
	PROGRAM_NIC = 3,
	PROGRAM_MAX,
};

/* The way to another node of the Swarm, as the kernel's tables had it a moment ago. */
struct next_hop {
	__u64 resolved_ns;
	__be32 vtep; /* of that node, to notice that the backend is on another now */
	__u32 ifindex;
	__u8 smac[6];
	__u8 dmac[6];
	__u8 pad[4];
};

/* Who has sent something to a container here: see newcomer.h. */
struct newcomer {
	__u64 who; /* network, address */
	__u64 seen_ns;
};

/* One value, so that a table is written by one system call. MAGLEV_SIZE of them are there. */
struct maglev_table {
	__u32 backend[MAGLEV_MAX];
};

enum mode {
	MODE_UNSET = 0,
	MODE_SERVING = 1,
	MODE_GIVING_BACK = 2, /* new flows are left to the kernel, known ones go on */
	MODE_MOVING = 3,      /* to other maps: nothing begins, known flows go on */
};

/* What all programs are told while they run. Times are those of CLOCK_MONOTONIC. */
struct settings {
	__u64 takeover_until_ns; /* till then, packets of unknown connections are the kernel's */
	__u64 since_ns;          /* when the mode began */
	__u32 mode;
	__u32 pad;
};

/* Constants of CRC32c, modulo its generator: shift[n] is x^(8 n); byte[256 * i + b] is what the
 * byte b adds with i bytes of its word behind it (bcc knows of no array of arrays). See sctp.h.
 */
struct crc32c {
	__u32 shift[65536];
	__u32 byte[4 * 256];
};

/* What XDP tells tc of a packet, in the metadata in front of it. */
enum tag_kind {
	TAG_DELIVER = 1, /* to a task of this node */
	TAG_FORWARD = 2, /* to a backend on another node; XDP could not */
	TAG_RETURN = 3,  /* an answer, unwrapped, to its client */
};

struct tag {
	__u32 magic;
	__u32 kind; /* enum tag_kind, with the tunnel's mark above */
	__u32 backend;
	__be32 entry;
};

#define TAG_MAGIC 0xebf0da7a

/* What whoever watches wants to hear of: bit n is reason n, bit 0 flows that begin. Till then:
 * CLOCK_MONOTONIC.
 */
struct tracing {
	__u64 wanted;
	__u64 until_ns;
};

/* How a flow that begins gets to its backend. */
enum event_path {
	PATH_UNSET = 0,
	PATH_VIP = 1,     /* on its overlay network, from the client's own node */
	PATH_LOCAL = 2,   /* in at this node, to a task of it */
	PATH_WRAPPED = 3, /* in at this node, through the tunnel to another */
	PATH_MESH = 4,    /* out of the tunnel, to a task of this node */
	PATH_SOCKET = 5,  /* of a process of this node, or of a container, at its socket */
};

#define EVENT_HEAD 120

/* Something that was decided: see trace.h. Either the packet has been read, and `t` and what goes
 * with it are set, or its first bytes are in `head`.
 */
struct event {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	struct tuple t;
	__u32 vni;
	__u32 frontend;
	__u32 backend;
	__be32 entry;
	__u32 ifindex;
	__u32 length; /* of the IPv4 packet, or, with a head, of the frame */
	__u32 ethertype;
	__u8 what; /* enum reason; 0: a flow begins */
	__u8 path; /* enum event_path */
	__u8 protocol;
	__u8 tcp_flags;
	__u8 program; /* its place among the object's */
	__u8 head_length;
	__u8 pad[2];
	__u8 head[EVENT_HEAD];
};

_Static_assert(sizeof(struct frontend_key) == 12, "frontend_key has no holes");
_Static_assert(sizeof(struct frontend) == 12, "frontend has no holes");
_Static_assert(sizeof(struct allow_key) == 24, "allow_key has no holes");
_Static_assert(sizeof(struct pool) == 36, "pool has no holes");
_Static_assert(sizeof(struct backend) == 68, "backend has no holes");
_Static_assert(sizeof(struct counter) == 40, "counter has no holes");
_Static_assert(sizeof(struct tuple) == 12, "tuple has no holes");
_Static_assert(sizeof(struct flow_key) == 20, "flow_key has no holes");
_Static_assert(sizeof(struct flow) == 48, "flow has no holes");
_Static_assert(sizeof(struct recent) == 64, "recent has no holes, and fits a cache line");
_Static_assert(sizeof(struct entry) == 32, "entry has no holes");
_Static_assert(sizeof(struct health) == 16, "health has no holes");
_Static_assert(sizeof(struct endpoint_key) == 8, "endpoint_key has no holes");
_Static_assert(sizeof(struct endpoint) == 12, "endpoint has no holes");
_Static_assert(sizeof(struct fragment_key) == 16, "fragment_key has no holes");
_Static_assert(sizeof(struct fragment) == 16, "fragment has no holes");
_Static_assert(sizeof(struct sock_key) == 16, "sock_key has no holes");
_Static_assert(sizeof(struct sock_origin) == 8, "sock_origin has no holes");
_Static_assert(sizeof(struct net_namespace) == 64, "net_namespace has no holes");
_Static_assert(sizeof(struct sock_choice) == 16, "sock_choice has no holes");
_Static_assert(sizeof(struct ip6) == 16, "ip6 has no holes");
_Static_assert(sizeof(struct sock_origin6) == 20, "sock_origin6 has no holes");
_Static_assert(sizeof(struct surrogate) == 48, "surrogate has no holes");
_Static_assert(sizeof(struct next_hop) == 32, "next_hop has no holes");
_Static_assert(sizeof(struct newcomer) == 16, "newcomer has no holes");
_Static_assert(sizeof(struct settings) == 24, "settings has no holes");
_Static_assert(sizeof(struct crc32c) == 4 * (65536 + 1024), "crc32c has no holes");
_Static_assert(sizeof(struct event) == 176, "event has no holes");
_Static_assert(sizeof(struct tag) % 4 == 0, "metadata is a multiple of 4");

#endif
