/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * sender_frames: the frames of one stream, gathered and written.
 *
 * Pages are copied, hashed and framed until there is no room; then one writev sends all
 * frames. The pages that were added belong to one thread; the
 * lock is for frames_control(), which another thread may call between two flushes.
 */
#ifndef VMM_SENDER_FRAMES_H
#define VMM_SENDER_FRAMES_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/uio.h>

#include "sender.h"
#include "wire.h"

#define FRAMES_PAGES (2 * WIRE_RUN_PAGES) /* of a flush: 512 KiB */
/* Runs of a word: at worst every second page, and each run one frame. */
#define FRAMES_MAX (FRAMES_PAGES + WIRE_RUN_PAGES)

struct frame {
	struct wire_head head;
	uint64_t hash[WIRE_RUN_PAGES];
};

struct frames {
	const struct sender_conf *conf;
	struct chan *chan;
	uint32_t *seq;
	pthread_mutex_t lock; /* chan's writing side, *seq */
	uint8_t *buf;	      /* copies of pages */
	unsigned int pages;   /* in buf */
	struct frame *frame;
	unsigned int nframes;
	struct iovec *iov;
	unsigned int niov;
	uint64_t bytes; /* of what was gathered */
	void *zstd;	/* ZSTD_CCtx */
	uint8_t *zbuf;
	size_t zlen, zcap;

	uint64_t sent;		   /* pages, for END */
	uint64_t sum, nonzero;	   /* of the digest */
	_Atomic uint64_t count[8]; /* struct sender_stats; written by one thread */
};

int frames_init(struct frames *f, const struct sender_conf *conf, unsigned int stream);
void frames_fini(struct frames *f);

/** frames_room() - for @n pages of another word? */
static inline bool frames_room(const struct frames *f, unsigned int n)
{
	return f->pages + n <= FRAMES_PAGES && f->nframes + WIRE_RUN_PAGES <= FRAMES_MAX;
}

/**
 * frames_add() - pages of one word of the bitmap
 * @first:	page number of bit 0
 * @bits:	those to send; all exist
 *
 * There is room. Return: 0, -EIO: zstd, -errno of ram_read()
 */
int frames_add(struct frames *f, uint64_t first, uint64_t bits);

static inline uint64_t frames_bytes(const struct frames *f)
{
	return f->bytes;
}

/** frames_flush() - Return: 0, -errno of chan_write() */
int frames_flush(struct frames *f);

/** frames_control() - one frame at once, before what is gathered; any thread */
int frames_control(struct frames *f, enum wire_type type, uint64_t arg,
		   const void *payload, uint32_t len);

/** frames_stats() - add to @stats; any thread */
void frames_stats(const struct frames *f, struct sender_stats *stats);

#endif
