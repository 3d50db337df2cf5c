/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* SCTP (RFC 9260): how its checksum, CRC32c of the whole packet (appendix A), follows a change of
 * ports, and the refusal of an association.
 *
 * A CRC is linear over GF(2): the CRCs of two packets of one length differ by the CRC, begun with
 * 0, of their difference. So nothing but the ports need be read to change them: their difference, a
 * polynomial, is shifted by the packet's length, which is a multiplication modulo the generator.
 *
 * Polynomials are written as the wire has them, reflected: bit 31 is the coefficient of x^0.
 */
#ifndef EBPFMESH_SCTP_H
#define EBPFMESH_SCTP_H

#include "counters.h"
#include "parse.h"

#define CRC32C_BEGIN 0xffffffff /* also what the result is complemented by */

/* The common header. The checksum's bytes go from low to high, unlike all else. */
struct sctp_header {
	__be16 source;
	__be16 dest;
	__be32 tag;
	__le32 checksum;
};

/* A word of the packet as a polynomial, and back. */
static __always_inline __u32 crc32c_word(__u32 word)
{
	return __builtin_bswap32(bpf_ntohl(word));
}

static __always_inline struct crc32c *crc32c_constants(void)
{
	__u32 zero = 0;

	return crc32c.lookup(&zero);
}

/* `word` shifted by its own length, modulo the generator. */
static __always_inline __u32 crc32c_reduce(const struct crc32c *c, __u32 word)
{
	return c->byte[768 + (word & 0xff)] ^ c->byte[512 + (word >> 8 & 0xff)] ^
	       c->byte[256 + (word >> 16 & 0xff)] ^ c->byte[word >> 24];
}

#define EVERY_FOURTH 0x1111111111111111ULL

/* Every fourth bit of the carry-less product, by an integer multiplication of operands that have
 * only every fourth bit: up to eight ones meet in a place, and the three bits above have room for
 * what they carry.
 */
#define HOLES(x, i) ((x) & (EVERY_FOURTH << (i)))

/* The carry-less product. */
static __always_inline __u64 carryless_multiply(__u64 a, __u64 b)
{
	__u64 a0 = HOLES(a, 0), a1 = HOLES(a, 1), a2 = HOLES(a, 2), a3 = HOLES(a, 3);
	__u64 b0 = HOLES(b, 0), b1 = HOLES(b, 1), b2 = HOLES(b, 2), b3 = HOLES(b, 3);

	return HOLES(a0 * b0 ^ a1 * b3 ^ a2 * b2 ^ a3 * b1, 0) |
	       HOLES(a0 * b1 ^ a1 * b0 ^ a2 * b3 ^ a3 * b2, 1) |
	       HOLES(a0 * b2 ^ a1 * b1 ^ a2 * b0 ^ a3 * b3, 2) |
	       HOLES(a0 * b3 ^ a1 * b2 ^ a2 * b1 ^ a3 * b0, 3);
}

/* a * b modulo the generator. Of the product's 63 bits the upper 32 are less than the generator
 * already. No branch and no loop: the verifier walks this in some hundred steps, where a loop over
 * bits takes it five times as many, at every place and on every path.
 */
static __always_inline __u32 crc32c_multiply(const struct crc32c *c, __u32 a, __u32 b)
{
	__u64 product = carryless_multiply(a, b) << 1;

	return product >> 32 ^ crc32c_reduce(c, product);
}

/* Where a program keeps, until its end, what it has changed: in the control block. */
#define SCTP_CHANGE 0 /* difference of the ports, 0 for none */
#define SCTP_PLACE 1  /* length in the upper half, offset of the header in the lower one */

static __always_inline void sctp_begin(struct __sk_buff *skb)
{
	skb->cb[SCTP_CHANGE] = 0;
}

/* New ports. The checksum waits for sctp_finish(): it is written in one place for each program, and
 * not wherever a packet is translated, which the verifier comes to a thousand times.
 */
static __always_inline void sctp_new_ports(struct __sk_buff *skb, __u16 length, __be32 from,
					   __be32 to)
{
	skb->cb[SCTP_CHANGE] = from ^ to;
	skb->cb[SCTP_PLACE] = (__u32)length << 16 | L4_OFFSET;
}

/* The packet was wrapped since. */
static __always_inline void sctp_moved(struct __sk_buff *skb, __u16 by)
{
	skb->cb[SCTP_PLACE] += by;
}

/* Makes up for new ports. A checksum of 0 stays: the card is to fill it in (offload leaves the
 * field empty until then), or both ends have agreed to do without (RFC 9653). A true checksum of 0,
 * one in 2^32, is mistaken, and its packet lost.
 */
static __always_inline int sctp_checksum(struct __sk_buff *skb, __u32 diff)
{
	__u32 checksum, place = skb->cb[SCTP_PLACE];
	struct crc32c *c = crc32c_constants();
	__u32 offset = (place & 0xffff) + offsetof(struct sctp_header, checksum);

	if (!c || bpf_skb_load_bytes(skb, offset, &checksum, sizeof(checksum)))
		return -1;
	if (!checksum)
		return 0;
	diff = crc32c_multiply(c, crc32c_word(diff), c->shift[place >> 16]);
	checksum ^= crc32c_word(diff);
	return bpf_skb_store_bytes(skb, offset, &checksum, sizeof(checksum), BPF_F_RECOMPUTE_CSUM);
}

/* The last thing that a program does. */
static __always_inline int sctp_finish(struct __sk_buff *skb, int verdict)
{
	__u32 diff = skb->cb[SCTP_CHANGE];

	if (!diff || verdict == TC_ACT_SHOT)
		return verdict;
	return sctp_checksum(skb, diff) ? leave(DROP_rewrite_failed, TC_ACT_SHOT) : verdict;
}

#define SCTP_ERROR 9
#define SCTP_COOKIE_ACK 11
#define SCTP_REFLECTED 1 /* the T bit: the tag is that of the packet that is answered */

struct sctp_chunk {
	__u8 type;
	__u8 flags;
	__be16 length;
};

/* A packet's beginning; `tag` is that of an INIT. And all of an answer, up to there. */
struct sctp_start {
	struct sctp_header header;
	struct sctp_chunk chunk;
	__be32 tag;
};

#define SCTP_ANSWER_LEN ((int)offsetof(struct sctp_start, tag))

/* What 8.4 has for a packet of no association: the type of chunk, or 0 for none. */
static __always_inline __u8 sctp_answer_type(__u8 type)
{
	if (type == SCTP_ABORT || type == SCTP_SHUTDOWN_COMPLETE || type == SCTP_COOKIE_ACK ||
	    type == SCTP_ERROR)
		return 0;
	return type == SCTP_SHUTDOWN_ACK ? SCTP_SHUTDOWN_COMPLETE : SCTP_ABORT;
}

/* Turns the beginning of a packet into the answer to it. Where the card was to fill in the packet's
 * checksum, it will do so with the answer's.
 */
static __always_inline int sctp_answer(struct sctp_start *s)
{
	bool offloaded = !s->header.checksum;
	bool init = s->chunk.type == SCTP_INIT && !s->header.tag;
	struct crc32c *c = crc32c_constants();
	__u32 *words = (__u32 *)s, crc = CRC32C_BEGIN;
	__be16 source = s->header.source;

	s->chunk.type = sctp_answer_type(s->chunk.type);
	if (!c || !s->chunk.type)
		return -1;
	s->header.source = s->header.dest;
	s->header.dest = source;
	s->header.checksum = 0;
	if (init)
		s->header.tag = s->tag;
	s->chunk.flags = init ? 0 : SCTP_REFLECTED;
	s->chunk.length = bpf_htons(sizeof(s->chunk));
	if (offloaded)
		return 0;
	for (int i = 0; i < SCTP_ANSWER_LEN / 4; i++)
		crc = crc32c_reduce(c, crc ^ crc32c_word(words[i]));
	s->header.checksum = crc32c_word(~crc);
	return 0;
}

#endif
