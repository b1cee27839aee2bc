/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * wire: the frames of a migration stream. No I/O: sender.c and receiver.c move them;
 * tests and fuzzers call the same functions.
 *
 * A frame is struct wire_head and `len` bytes. All integers are little-endian. The
 * header has a checksum of its own, and a payload is covered by `sum`:
 *
 * - WIRE_PAGES: the payload starts with one 64-bit XXH3 hash per page. The hash of a
 *   page is both its checksum on the wire and its part of the RAM digest, so each byte
 *   is hashed once on either side. `sum` covers the hashes only.
 * - others: XXH3-64 of the whole payload.
 *
 * Order. There are 1 to WIRE_MAX_STREAMS connections. Page p always travels on stream
 * (p / 64) % streams, so that two versions of a page cannot overtake one another and no
 * barrier between rounds is needed. Stream 0 also carries everything else.
 *
 *	source			destination
 *	HELLO (each stream) ->
 *	CONFIG		    ->	makes a machine of that shape
 *			   <-	READY, or ERROR text
 *	PAGES ZERO ROUND ...->	into RAM
 *	SYNC (each stream)  ->	what was sent before is in RAM
 *			   <-	SYNC
 *	END (each stream)   ->	`seq` and `arg` say whether a frame is missing
 *	STATE		    ->	loads it
 *	DIGEST		    ->	compares with its own
 *			   <-	VERIFIED, or ERROR text
 *	HANDOVER	    ->
 *			   <-	RUNNING, sent before the first vCPU runs
 *
 * The destination may send ERROR or CANCEL at any time before RUNNING, the source ERROR,
 * CANCEL and KEEPALIVE at any time before HANDOVER, and nothing after it.
 *
 * Who runs the machine: the source until it sends HANDOVER; then the destination, once it
 * has sent RUNNING. What if a connection ends after HANDOVER and without RUNNING?
 *
 * - ERROR or CANCEL instead of RUNNING: it never ran there, the source goes on.
 * - TLS: the same if the destination closed the session in order, which nobody between
 *   the two can forge. Else nobody can know.
 * - Without TLS: a connection that the peer's kernel closed (FIN or RST) proves that no
 *   RUNNING was sent: the source sends nothing after HANDOVER, so the peer has nothing
 *   unread when it sends RUNNING, and FIN comes after that. This holds for a direct
 *   connection. A proxy that may cut a connection needs TLS through it.
 * - Silence: nobody can know. The source then stays paused and says so.
 */
#ifndef VMM_WIRE_H
#define VMM_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WIRE_MAGIC	 0x474d5647u /* "GVMG" */
#define WIRE_VERSION	 1
#define WIRE_MAX_STREAMS 16
#define WIRE_RUN_PAGES	 64	     /* most pages in a frame: one word of a bitmap */
#define WIRE_MAX_CONTROL (65u << 20) /* bytes of any payload but PAGES */
#define WIRE_MAX_TEXT	 1024	     /* bytes of an ERROR */
#define WIRE_MAX_CONFIG	 (1u << 20)  /* bytes of a CONFIG */

enum wire_type {
	WIRE_HELLO = 1, /* struct wire_hello */
	WIRE_CONFIG,	/* JSON: struct of the machine, see vm.h */
	WIRE_READY,
	WIRE_PAGES,    /* arg: first page number; count: pages; raw or WIRE_F_ZSTD */
	WIRE_ZERO,     /* arg: first page number; count: pages that are all zeros */
	WIRE_ROUND,    /* arg: number of the round that begins */
	WIRE_END,      /* arg: pages that were sent on this stream, PAGES and ZERO */
	WIRE_STATE,    /* state.h */
	WIRE_DIGEST,   /* struct wire_digest */
	WIRE_VERIFIED, /* struct wire_digest */
	WIRE_HANDOVER,
	WIRE_RUNNING,
	WIRE_ERROR, /* text, not NUL-terminated */
	WIRE_CANCEL,
	WIRE_KEEPALIVE,
	WIRE_SYNC, /* arg: number. The destination sends it back when it came on all
		      streams */
	WIRE_TYPES
};
#define WIRE_BIT(type) (1U << (type)) /* of a set of types */

#define WIRE_F_ZSTD (1U << 0) /* the pages, not their hashes, are one zstd frame */

struct wire_head {
	uint32_t magic;
	uint16_t version;
	uint8_t type;
	uint8_t flags;
	uint32_t seq; /* frames sent before on this stream, modulo 2^32 */
	uint32_t len; /* payload, bytes */
	uint64_t arg;
	uint32_t count;
	uint32_t reserved; /* 0 */
	uint64_t sum;
	uint32_t pad; /* 0 */
	uint32_t crc; /* XXH32 of the header's bytes before it */
};
_Static_assert(sizeof(struct wire_head) == 48, "wire format");

struct wire_hello {
	uint8_t id[16];	 /* of this migration, random; the same on all its streams */
	uint32_t stream; /* this one */
	uint32_t streams;
	uint32_t page_size;
	uint32_t nblocks; /* blocks that follow, on stream 0; 0 on others */
	struct wire_block {
		uint64_t gpa, size;
	} block[];
};
_Static_assert(sizeof(struct wire_hello) == 32, "wire format");

struct wire_digest {
	uint64_t digest; /* see digest.h */
	uint64_t pages;	 /* that are not zero */
};

/** wire_head_init() - fill @h for a payload that wire_seal() is then told about */
void wire_head_init(struct wire_head *h, enum wire_type type, uint64_t arg,
		    uint32_t count);

/** wire_seal() - set seq, len, sum and crc */
void wire_seal(struct wire_head *h, uint32_t seq, uint32_t len, uint64_t sum);

/** wire_sum() - what `sum` has to be for a payload, or for the hashes of PAGES */
uint64_t wire_sum(const void *payload, size_t len);

/**
 * wire_head_check() - is this the header that must come next?
 * @seq:	expected
 * @why:	set on failure to what is wrong, for people
 *
 * Checks magic, version, crc, type, sequence, and that len and count are possible for the
 * type, so that a caller may allocate len bytes. Return: 0, -EPROTONOSUPPORT: another
 * version, -EBADMSG
 */
int wire_head_check(const struct wire_head *h, uint32_t seq, const char **why);

/**
 * wire_hello_check() - is a HELLO's payload of @len bytes one that makes sense?
 *
 * Blocks are then ascending, disjoint, page aligned and at most RAM_MAX_BLOCKS.
 * Return: 0, -EBADMSG and @why
 */
int wire_hello_check(const struct wire_hello *hello, size_t len, const char **why);

/** wire_type_name() - for messages */
const char *wire_type_name(unsigned int type);

/** wire_stream_of() - the stream that page @page travels on */
static inline unsigned int wire_stream_of(uint64_t page, unsigned int streams)
{
	return (unsigned int)(page / WIRE_RUN_PAGES % streams);
}

#endif
