// SPDX-License-Identifier: BSD-2-Clause
/*
 * wire: headers of frames, made and checked; see wire.h.
 *
 * Integers are used as they are in memory: big-endian machines are refused below.
 */
#include <errno.h>
#include <string.h>
#include <xxhash.h>

#include "../ram.h"
#include "../state.h"
#include "wire.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire is little-endian");

#define MAX_ADDRESS (1ULL << 52) /* of guest-physical memory */

static const char *const names[WIRE_TYPES] = {
	[WIRE_HELLO] = "HELLO",
	[WIRE_CONFIG] = "CONFIG",
	[WIRE_READY] = "READY",
	[WIRE_PAGES] = "PAGES",
	[WIRE_ZERO] = "ZERO",
	[WIRE_ROUND] = "ROUND",
	[WIRE_END] = "END",
	[WIRE_STATE] = "STATE",
	[WIRE_DIGEST] = "DIGEST",
	[WIRE_VERIFIED] = "VERIFIED",
	[WIRE_HANDOVER] = "HANDOVER",
	[WIRE_RUNNING] = "RUNNING",
	[WIRE_ERROR] = "ERROR",
	[WIRE_CANCEL] = "CANCEL",
	[WIRE_KEEPALIVE] = "KEEPALIVE",
	[WIRE_SYNC] = "SYNC",
};

/* Bytes that a payload may have. PAGES is looked at more closely. */
static const struct {
	uint32_t min, max;
} lengths[WIRE_TYPES] = {
	[WIRE_HELLO] = { sizeof(struct wire_hello),
			 sizeof(struct wire_hello) +
				 RAM_MAX_BLOCKS * sizeof(struct wire_block) },
	[WIRE_CONFIG] = { 1, WIRE_MAX_CONFIG },
	[WIRE_PAGES] = { 1, WIRE_RUN_PAGES *(sizeof(uint64_t) + RAM_PAGE_SIZE) },
	[WIRE_STATE] = { 0, STATE_MAX_BYTES },
	[WIRE_DIGEST] = { sizeof(struct wire_digest), sizeof(struct wire_digest) },
	[WIRE_VERIFIED] = { sizeof(struct wire_digest), sizeof(struct wire_digest) },
	[WIRE_ERROR] = { 0, WIRE_MAX_TEXT },
};
_Static_assert(STATE_MAX_BYTES <= WIRE_MAX_CONTROL, "a state fits a frame");

const char *wire_type_name(unsigned int type)
{
	return type < WIRE_TYPES && names[type] ? names[type] : "unknown";
}

void wire_head_init(struct wire_head *h, enum wire_type type, uint64_t arg,
		    uint32_t count)
{
	*h = (struct wire_head){
		.magic = WIRE_MAGIC,
		.version = WIRE_VERSION,
		.type = (uint8_t)type,
		.arg = arg,
		.count = count,
	};
}

static uint32_t crc_of(const struct wire_head *h)
{
	return XXH32(h, offsetof(struct wire_head, crc), 0);
}

void wire_seal(struct wire_head *h, uint32_t seq, uint32_t len, uint64_t sum)
{
	h->seq = seq;
	h->len = len;
	h->sum = sum;
	h->crc = crc_of(h);
}

uint64_t wire_sum(const void *payload, size_t len)
{
	return XXH3_64bits(payload, len);
}

/* A run of pages within one word of the bitmap. */
static bool run_ok(const struct wire_head *h)
{
	return h->count && h->count <= WIRE_RUN_PAGES &&
	       h->arg % WIRE_RUN_PAGES + h->count <= WIRE_RUN_PAGES &&
	       h->arg < MAX_ADDRESS >> RAM_PAGE_SHIFT;
}

static bool pages_ok(const struct wire_head *h)
{
	uint32_t hashes = h->count * (uint32_t)sizeof(uint64_t);
	uint32_t raw = hashes + h->count * (uint32_t)RAM_PAGE_SIZE;

	if (!run_ok(h))
		return false;
	return h->flags & WIRE_F_ZSTD ? h->len > hashes && h->len < raw : h->len == raw;
}

int wire_head_check(const struct wire_head *h, uint32_t seq, const char **why)
{
	*why = "this is not a migration stream";
	if (h->magic != WIRE_MAGIC)
		return -EBADMSG;
	/* Before the checksum: another version may compute it differently. */
	*why = "the peer speaks another version of the stream: use the same vm-migrate "
	       "on both sides";
	if (h->version != WIRE_VERSION)
		return -EPROTONOSUPPORT;
	*why = "checksum of a frame's header is wrong";
	if (h->crc != crc_of(h))
		return -EBADMSG;
	*why = "unknown frame";
	if (h->type >= WIRE_TYPES || !names[h->type] || h->reserved || h->pad ||
	    h->flags & ~(h->type == WIRE_PAGES ? WIRE_F_ZSTD : 0))
		return -EBADMSG;
	*why = "a frame is missing or came twice";
	if (h->seq != seq)
		return -EBADMSG;
	*why = "impossible length of a frame";
	if (h->len < lengths[h->type].min || h->len > lengths[h->type].max)
		return -EBADMSG;
	*why = "impossible pages in a frame";
	if ((h->type == WIRE_PAGES && !pages_ok(h)) ||
	    (h->type == WIRE_ZERO && !run_ok(h)))
		return -EBADMSG;
	*why = NULL;
	return 0;
}

int wire_hello_check(const struct wire_hello *hello, size_t len, const char **why)
{
	uint64_t end = 0;

	*why = "HELLO has an impossible length";
	if (len < sizeof(*hello) || hello->nblocks > RAM_MAX_BLOCKS ||
	    len != sizeof(*hello) + hello->nblocks * sizeof(hello->block[0]))
		return -EBADMSG;
	*why = "HELLO has an impossible stream";
	if (!hello->streams || hello->streams > WIRE_MAX_STREAMS ||
	    hello->stream >= hello->streams || !hello->nblocks != !!hello->stream)
		return -EBADMSG;
	*why = "the peer has another page size";
	if (hello->page_size != RAM_PAGE_SIZE)
		return -EBADMSG;
	*why = "HELLO has impossible blocks of memory";
	for (uint32_t i = 0; i < hello->nblocks; i++) {
		const struct wire_block *b = &hello->block[i];

		if (b->gpa < end || b->gpa % RAM_PAGE_SIZE || !b->size ||
		    b->size % RAM_PAGE_SIZE || b->size > MAX_ADDRESS ||
		    b->gpa > MAX_ADDRESS - b->size)
			return -EBADMSG;
		end = b->gpa + b->size;
	}
	*why = NULL;
	return 0;
}
