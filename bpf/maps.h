/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Every map. Those with a state are pinned, so that they outlive the agent. */
#ifndef EBPFMESH_MAPS_H
#define EBPFMESH_MAPS_H

#include "config.h"
#include "reasons.h"
#include "types.h"

/* Made, and pinned by its name, by the loader, which reads name and type here. */
#define PINNED_MAP(name, type, key, leaf, entries, flags)                                          \
	BPF_F_TABLE(type, key, leaf, name, entries, flags)

/* Written by the agent. Id 0 is never given: a slot that holds it is empty. */
PINNED_MAP(frontends, "hash", struct frontend_key, struct frontend, 4 * MAX_FRONTENDS, 0);
/* Published ports (host order) that everyone may ask: PORT_BIT() of the protocols. */
PINNED_MAP(open_ports, "array", u32, u8, PORTS, 0);
/* Longest prefix wins, though any will do. The value says nothing. */
PINNED_MAP(allowed, "lpm_trie", struct allow_key, u32, MAX_ALLOWED, BPF_F_NO_PREALLOC);
PINNED_MAP(pools, "array", u32, struct pool, MAX_SERVICES, 0);
PINNED_MAP(backends, "array", u32, struct backend, MAX_BACKENDS, 0);
/* Pinned so that the size of the tables can be seen from outside. The loader makes its value as
 * long as MAGLEV_SIZE says. The agent writes tables while programs read them, slot by slot.
 */
PINNED_MAP(maglev_template, "array", u32, struct maglev_table, 1, BPF_F_MMAPABLE);
PINNED_MAP(maglev, "array_of_maps$maglev_template", u32, int, MAX_SERVICES, 0);
/* Whose turn it is, of pools that go round. The agent only makes it. */
PINNED_MAP(turns, "array", u32, u64, MAX_SERVICES, 0);
/* Connections of each backend through this node, for pools that want to know: see live.h. */
PINNED_MAP(live, "array", u32, s64, MAX_BACKENDS, 0);
/* By backend; the agent clears what a new one finds. */
PINNED_MAP(health, "array", u32, struct health, MAX_BACKENDS, 0);
PINNED_MAP(avoided, "array", u32, struct avoided, 1, 0);
PINNED_MAP(nodes, "hash", __be32, u32, MAX_NODES, 0);
PINNED_MAP(addresses, "hash", __be32, u32, MAX_ADDRESSES, 0);
PINNED_MAP(addresses6, "hash", struct ip6, u32, MAX_ADDRESSES, 0);
/* Address on the ingress network -> backend id, for the tasks of this node. */
PINNED_MAP(local_backends, "hash", __be32, u32, MAX_BACKENDS, 0);
/* Who is behind a veth, where that is known: see spoof.h. */
PINNED_MAP(endpoints, "hash", struct endpoint_key, struct endpoint, MAX_BACKENDS, 0);
/* By the cookie of a network namespace. Empty, unless VIPs are asked at sockets. */
PINNED_MAP(namespaces, "hash", u64, struct net_namespace, MAX_BACKENDS, BPF_F_NO_PREALLOC);
PINNED_MAP(settings, "array", u32, struct settings, 1, 0);

/* A note of one packet from one place to the next: the verifier forgets what it knows of it, and
 * does not follow each case through all that is behind.
 */
BPF_TABLE("percpu_array", u32, struct given_up, given_up, 1);

/* What the programs know of the way to each backend's node, by backend; see mesh_xdp.h. */
BPF_TABLE("array", u32, struct next_hop, next_hops, MAX_BACKENDS);
/* By a hash of network and address: see newcomer.h. */
BPF_TABLE("array", u32, struct newcomer, newcomers, MAX_NEWCOMERS);
/* What the clock is ahead of its ticks: see clock.h. */
BPF_TABLE("array", u32, u64, beyond_ticks, 1);

/* What `ebpfmesh trace` listens to: see trace.h. Every agent has its own, with its programs. */
BPF_TABLE("array", u32, struct tracing, tracing, 1);
BPF_TABLE("percpu_array", u32, u32, noted_reason, 1);
BPF_TABLE("percpu_array", u32, u64, lost_events, 1);
BPF_RINGBUF_OUTPUT(events, EVENT_PAGES);
/* Says what one is, to who reads the ring: a ring has no type. */
BPF_TABLE("array", u32, struct event, event_template, 1);

/* Constants, written by the loader. Not pinned: every load has its own. */
BPF_TABLE("array", u32, struct crc32c, crc32c, 1);

/* What a CPU notes of flows: see recent.h. */
BPF_TABLE("percpu_array", u32, struct recent, recent_flows, 1 << RECENT_BITS);

/* Written by the programs. How often flows have changed, by their keys: see recent.h. And how often
 * something has gone over to the maps of established flows: see flow_table.h.
 */
PINNED_MAP(flow_epochs, "array", u32, u64, 1 << EPOCH_BITS, 0);
PINNED_MAP(flow_moves, "array", u32, u64, 1, 0);
/* flows and replies are the two directions of a translation. */
PINNED_MAP(flows, "lru_hash", struct flow_key, struct flow, MAX_FLOWS, 0);
PINNED_MAP(replies, "lru_hash", struct flow_key, struct flow, MAX_FLOWS, 0);
PINNED_MAP(entries, "lru_hash", struct flow_key, struct entry, MAX_FLOWS, 0);
/* Of the same kinds, what is half-open, unanswered or closed: see flow_table.h. */
PINNED_MAP(transient_flows, "lru_hash", struct flow_key, struct flow, MAX_TRANSIENT, 0);
PINNED_MAP(transient_replies, "lru_hash", struct flow_key, struct flow, MAX_TRANSIENT, 0);
PINNED_MAP(transient_entries, "lru_hash", struct flow_key, struct entry, MAX_TRANSIENT, 0);
PINNED_MAP(fragments, "lru_hash", struct fragment_key, struct fragment, MAX_FRAGMENTS, 0);
PINNED_MAP(sock_origins, "lru_hash", struct sock_key, struct sock_origin, MAX_SOCKETS, 0);
PINNED_MAP(sock_origins6, "lru_hash", struct sock_key, struct sock_origin6, MAX_SOCKETS, 0);
PINNED_MAP(sock_choices, "lru_hash", struct sock_key, struct sock_choice, MAX_CHOICES, 0);
/* IPv4 address -> the IPv6 client for which it stands. */
PINNED_MAP(surrogates, "lru_hash", __be32, struct surrogate, MAX_SURROGATES, 0);

PINNED_MAP(programs, "prog", u32, u32, PROGRAM_MAX, 0);

PINNED_MAP(frontend_counters, "percpu_array", u32, struct counter, MAX_FRONTENDS, 0);
PINNED_MAP(backend_counters, "percpu_array", u32, struct counter, MAX_BACKENDS, 0);
/* What came in at this node for a published port, wherever its backend is. */
PINNED_MAP(entry_counters, "percpu_array", u32, struct counter, MAX_FRONTENDS, 0);
PINNED_MAP(reasons, "percpu_array", u32, u64, REASON_MAX, 0);

#endif
