/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * wire: the frames of a migration stream. No I/O: sender.c and receiver.c move them,
 *tests and fuzzers call the same functions.
 *
 * A frame is struct wire_head and `len` bytes. All integers are little-endian. The
 * header has a CRC of its own, and a payload is covered by `sum`:
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
 *	END (each stream)   ->	`seq` says whether a frame is missing
 *	STATE		    ->	loads it
 *	DIGEST		    ->	compares with its own
 *			   <-	VERIFIED, or ERROR text
 *	HANDOVER	    ->
 *			   <-	RUNNING, sent before the first vCPU runs
 *
 * Either side may send ERROR or CANCEL at any time, and the source KEEPALIVE.
 * Who runs the machine: the source until it sends HANDOVER; then the destination, once it
 * has sent RUNNING. A stream that ends in order after HANDOVER and without RUNNING proves
 * that the destination never ran it: the source goes on. If the connection just goes
 * silent nobody can know; the source then stays paused and says so.
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
#define WIRE_MAX_CONTROL (65u << 20) /* bytes of any other payload */

enum wire_type {
	WIRE_HELLO = 1, /* struct wire_hello */
	WIRE_CONFIG,	/* JSON: struct of the machine, see vm.h */
	WIRE_READY,
	WIRE_PAGES,    /* arg: first page number; count: pages; raw or WIRE_F_ZSTD */
	WIRE_ZERO,     /* arg: first page number; count: pages that are all zeros */
	WIRE_ROUND,    /* arg: number of the round that begins */
	WIRE_END,      /* arg: pages that were sent on this stream */
	WIRE_STATE,    /* state.h */
	WIRE_DIGEST,   /* struct wire_digest */
	WIRE_VERIFIED, /* struct wire_digest */
	WIRE_HANDOVER,
	WIRE_RUNNING,
	WIRE_ERROR, /* text, not NUL-terminated */
	WIRE_CANCEL,
	WIRE_KEEPALIVE,
	WIRE_TYPES
};

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
	uint32_t reserved;
	uint64_t sum;
	uint32_t pad; /* 0 */
	uint32_t crc; /* CRC-32C or XXH32 of the header's bytes before it */
};
_Static_assert(sizeof(struct wire_head) == 48, "wire format");

struct wire_hello {
	uint8_t id[16];	 /* of this migration, random; the same on all its streams */
	uint32_t stream; /* this one */
	uint32_t streams;
	uint32_t page_size;
	uint32_t nblocks; /* blocks that follow, on stream 0; 0 on others */
	struct {
		uint64_t gpa, size;
	} block[];
};

struct wire_digest {
	uint64_t digest; /* see digest.h */
	uint64_t pages;	 /* that are not zero */
};

/** wire_head_init() - fill @h for a payload that wire_seal() is then told about */
void wire_head_init(struct wire_head *h, enum wire_type type, uint64_t arg,
		    uint32_t count);

/** wire_seal() - set seq, len, sum and crc */
void wire_seal(struct wire_head *h, uint32_t seq, uint32_t len, uint64_t sum);

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

#endif
