/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Every map. Those with a state are pinned, so that they outlive the agent. */
#ifndef EBPFMESH_MAPS_H
#define EBPFMESH_MAPS_H

#include "config.h"
#include "reasons.h"
#include "types.h"

/* Written by the agent. Id 0 is never given: a slot that holds it is empty. */
BPF_TABLE_PINNED("hash", struct frontend_key, struct frontend, frontends, 4 * MAX_FRONTENDS,
		 PIN_DIR "/frontends");
/* Longest prefix wins, though any will do. The value says nothing. */
BPF_F_TABLE("lpm_trie:" PIN_DIR "/allowed", struct allow_key, u32, allowed, MAX_ALLOWED,
	    BPF_F_NO_PREALLOC);
BPF_TABLE_PINNED("array", u32, struct pool, pools, MAX_SERVICES, PIN_DIR "/pools");
BPF_TABLE_PINNED("array", u32, struct backend, backends, MAX_BACKENDS, PIN_DIR "/backends");
/* Pinned so that the size of the tables can be seen from outside. It goes without the type
 * information (BTF) that bcc gives to maps: the agent's tables have none, and up to Linux 6.1 a
 * table must be like its template in that, too.
 */
#pragma push_macro("BPF_ANNOTATE_KV_PAIR")
#undef BPF_ANNOTATE_KV_PAIR
#define BPF_ANNOTATE_KV_PAIR(name, key, value) _Static_assert(1, "")
BPF_TABLE_PINNED("array", u32, struct maglev_table, maglev_template, 1, PIN_DIR "/maglev_template");
#pragma pop_macro("BPF_ANNOTATE_KV_PAIR")
BPF_TABLE_PINNED("array_of_maps$maglev_template", u32, int, maglev, MAX_SERVICES,
		 PIN_DIR "/maglev");
/* Whose turn it is, of pools that go round. The agent only makes it. */
BPF_TABLE_PINNED("array", u32, u64, turns, MAX_SERVICES, PIN_DIR "/turns");
/* Connections of each backend through this node, for pools that want to know: see live.h. */
BPF_TABLE_PINNED("array", u32, s64, live, MAX_BACKENDS, PIN_DIR "/live");
BPF_TABLE_PINNED("hash", __be32, struct node, nodes, MAX_NODES, PIN_DIR "/nodes");
BPF_TABLE_PINNED("hash", __be32, u32, addresses, MAX_ADDRESSES, PIN_DIR "/addresses");
BPF_TABLE_PINNED("hash", struct ip6, u32, addresses6, MAX_ADDRESSES, PIN_DIR "/addresses6");
/* Address on the ingress network -> backend id, for the tasks of this node. */
BPF_TABLE_PINNED("hash", __be32, u32, local_backends, MAX_BACKENDS, PIN_DIR "/local_backends");
/* Who is behind a veth, where that is known: see spoof.h. */
BPF_TABLE_PINNED("hash", struct endpoint_key, struct endpoint, endpoints, MAX_BACKENDS,
		 PIN_DIR "/endpoints");
BPF_TABLE_PINNED("array", u32, struct settings, settings, 1, PIN_DIR "/settings");

/* Constants, written by the loader. Not pinned: every load has its own. */
BPF_TABLE("array", u32, struct crc32c, crc32c, 1);

/* Written by the programs. flows and replies are the two directions of a translation. */
BPF_TABLE_PINNED("lru_hash", struct flow_key, struct flow, flows, MAX_FLOWS, PIN_DIR "/flows");
BPF_TABLE_PINNED("lru_hash", struct flow_key, struct flow, replies, MAX_FLOWS, PIN_DIR "/replies");
BPF_TABLE_PINNED("lru_hash", struct flow_key, struct entry, entries, MAX_FLOWS, PIN_DIR "/entries");
/* Of the same kinds, what is half-open, unanswered or closed: see flow_table.h. */
BPF_TABLE_PINNED("lru_hash", struct flow_key, struct flow, transient_flows, MAX_TRANSIENT,
		 PIN_DIR "/transient_flows");
BPF_TABLE_PINNED("lru_hash", struct flow_key, struct flow, transient_replies, MAX_TRANSIENT,
		 PIN_DIR "/transient_replies");
BPF_TABLE_PINNED("lru_hash", struct flow_key, struct entry, transient_entries, MAX_TRANSIENT,
		 PIN_DIR "/transient_entries");
BPF_TABLE_PINNED("lru_hash", struct fragment_key, struct fragment, fragments, MAX_FRAGMENTS,
		 PIN_DIR "/fragments");
BPF_TABLE_PINNED("lru_hash", struct sock_key, struct sock_origin, sock_origins, MAX_SOCKETS,
		 PIN_DIR "/sock_origins");
BPF_TABLE_PINNED("lru_hash", struct sock_key, struct sock_origin6, sock_origins6, MAX_SOCKETS,
		 PIN_DIR "/sock_origins6");
/* IPv4 address -> the IPv6 client for which it stands. */
BPF_TABLE_PINNED("lru_hash", __be32, struct surrogate, surrogates, MAX_SURROGATES,
		 PIN_DIR "/surrogates");

BPF_TABLE_PINNED("prog", u32, u32, programs, PROGRAM_MAX, PIN_DIR "/programs");

BPF_TABLE_PINNED("percpu_array", u32, struct counter, frontend_counters, MAX_FRONTENDS,
		 PIN_DIR "/frontend_counters");
BPF_TABLE_PINNED("percpu_array", u32, struct counter, backend_counters, MAX_BACKENDS,
		 PIN_DIR "/backend_counters");
/* What came in at this node for a published port, wherever its backend is. */
BPF_TABLE_PINNED("percpu_array", u32, struct counter, entry_counters, MAX_FRONTENDS,
		 PIN_DIR "/entry_counters");
BPF_TABLE_PINNED("percpu_array", u32, u64, reasons, REASON_MAX, PIN_DIR "/reasons");

#endif
