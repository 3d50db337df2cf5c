/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Why a packet was dropped, handed back to the kernel, or given to another backend. The names are
 * those of the metrics; Python reads these lists.
 */
#ifndef EBPFMESH_REASONS_H
#define EBPFMESH_REASONS_H

#define DROP_REASONS(X)                                                                            \
	X(backend_gone)     /* a flow whose backend has left */                                    \
	X(no_backend)       /* a frontend without ready backends */                                \
	X(not_allowed)      /* a client that the service's list does not let in */                 \
	X(early_refusal)    /* by a task that starts, or has just ended, and others are ready */   \
	X(late_answer)      /* of a backend that was given up */                                   \
	X(no_port)          /* every source port tried is taken at the task */                     \
	X(bad_outer_source) /* wrapped by someone who is no node of this Swarm */                  \
	X(bad_inner)        /* wrapped, but not a packet that an entry node sends */               \
	X(forged_tunnel)    /* VXLAN to a node, sent by a container */                             \
	X(spoofed_source)   /* a container sends in another's name */                              \
	X(not_local)        /* wrapped for a task that is not here */                              \
	X(not_published)    /* wrapped for a port that its task does not publish */                \
	X(too_big)          /* no room to wrap it */                                               \
	X(fragment)         /* a later one, out of the tunnel, whose first is not known */         \
	X(ttl_exceeded)     /* no hop left: the sender is told */                                  \
	X(rewrite_failed)   /* the kernel refused to change the packet */                          \
	X(ipv6_datagram)    /* of the node itself, by a socket that is not connected */            \
	X(no_checksum)      /* a UDP datagram without one, from or for an IPv6 client */           \
	X(no_surrogate)     /* none is free for an IPv6 client, or it has been forgotten */        \
	X(surrogate_source) /* IPv4 from an address that stands for IPv6 clients */                \
	X(ipv6_fragment)    /* a fragment of an answer to an IPv6 client */                        \
	X(no_icmp6)         /* an ICMP message for an IPv6 client that ICMPv6 does not know */     \
	X(moving)           /* begins a flow while all flows move to other maps: is sent again */

#define HANDBACK_REASONS(X)                                                                        \
	X(not_ipv4)        /* IPv6, ARP for others, anything else */                               \
	X(truncated)       /* headers do not fit the packet */                                     \
	X(ip_options)      /* an IPv4 header with options */                                       \
	X(fragment)        /* a later one whose first is not known, or one without ports */        \
	X(bad_fragment)    /* one that no sender makes */                                          \
	X(other_protocol)  /* not TCP, UDP or SCTP */                                              \
	X(no_frontend)     /* nothing that is balanced */                                          \
	X(foreign_address) /* a published port, but of another machine */                          \
	X(no_backend)      /* the node itself asks a port without backends: the kernel answers */  \
	X(unknown_flow)    /* while taking over: a connection of the path before */                \
	X(giving_back)     /* a new flow while all is given back */                                \
	X(vlan)            /* a tagged frame */                                                    \
	X(local_socket)    /* a connection that the node itself has opened */                      \
	X(ipv6_extension)  /* an IPv6 fragment, or another extension header */

/* Of packets that are carried on: why their flow has got another backend. */
#define RETRY_REASONS(X)                                                                           \
	X(no_answer)     /* its SYN came again, unanswered */                                      \
	X(second_chance) /* the entry node did not know yet that its backend takes no new ones */

#define DROP_REASON(name) DROP_##name,
#define HANDBACK_REASON(name) HANDBACK_##name,
#define RETRY_REASON(name) RETRY_##name,

enum reason {
	REASON_NONE = 0,
	DROP_REASONS(DROP_REASON)
	HANDBACK_REASONS(HANDBACK_REASON) RETRY_REASONS(RETRY_REASON) REASON_MAX,
};

_Static_assert(REASON_MAX <= 64, "each has its bit in struct tracing");

#endif
