// SPDX-License-Identifier: BSD-2-Clause
/*
 * receiver: see receiver.h.
 *
 * A stream is read through a small buffer that takes the next header along with the end
 * of a payload, so that a frame costs about one system call whatever its size. Pages are
 * read into a buffer that stays in the cache, hashed there, and written to the memfd in
 * one call: the kernel neither clears fresh memory first nor takes a fault for each page.
 *
 * Streams other than 0 end at END. Stream 0's thread, which is receiver_run()'s caller,
 * waits for them before it hands on a control frame. The first thread that fails shuts
 * all channels down, except that stream 0 stays writable for an ERROR.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "../fault.h"
#include "../text.h"
#include "receiver.h"

#define AHEAD	16384 /* bytes read beyond what is asked for, at most */
#define DEAD_MS CHAN_DEAD_MS

struct stream {
	struct receiver *r;
	unsigned int index;
	pthread_t thread;
	bool running, ended;
	struct chan *chan;
	uint32_t *seq;

	uint8_t *ahead;
	size_t pos, len; /* in ahead */
	uint8_t *buf;	 /* the pages of a frame */
	uint8_t *zbuf;
	ZSTD_DCtx *zstd;

	uint64_t received;     /* pages, for END */
	uint64_t sum, nonzero; /* of the digest */
	_Atomic uint64_t pages, zeros, bytes;
};

struct receiver {
	struct receiver_conf conf;
	struct stream stream[WIRE_MAX_STREAMS];
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned int open;   /* streams that have not sent END */
	unsigned int synced; /* streams that have sent SYNC number sync */
	uint64_t sync;
	int err;
	char error[256];
	atomic_bool cancelled;
	_Atomic uint32_t round;
};

/* Return: @err */
static int fail(struct stream *st, int err, const char *why)
{
	struct receiver *r = st->r;

	pthread_mutex_lock(&r->lock);
	if (!r->err) {
		r->err = atomic_load(&r->cancelled) ? -ECANCELED : err;
		snprintf(r->error, sizeof(r->error), "stream %u: %s", st->index, why);
		/* The others see it at once. */
		for (unsigned int i = 1; i < r->conf.streams; i++)
			if (i != st->index)
				chan_shutdown(r->conf.chan[i]);
		if (st->index)
			chan_stop_reading(r->conf.chan[0]);
	}
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
	return err;
}

/* ---- bytes ---------------------------------------------------------------------------
 */

static int read_failed(struct stream *st, int err)
{
	return fail(st, err,
		    err == -ENODATA || err == -EPIPE
			    ? "the source closed the connection before the end"
			    : chan_error());
}

/* Exactly @len bytes to @dst. */
static int take(struct stream *st, void *dst, size_t len)
{
	uint8_t *to = dst;
	size_t n = st->len - st->pos < len ? st->len - st->pos : len;

	memcpy(to, st->ahead + st->pos, n);
	st->pos += n;
	while (n < len) {
		struct iovec iov[2] = { { to + n, len - n }, { st->ahead, AHEAD } };
		ssize_t got = chan_readv(st->chan, iov, 2);

		if (got < 0)
			return read_failed(st, (int)got);
		if ((size_t)got > len - n) {
			st->pos = 0;
			st->len = (size_t)got - (len - n);
			got = (ssize_t)(len - n);
		}
		n += (size_t)got;
	}
	return 0;
}

/* ---- pages ---------------------------------------------------------------------------
 */

static void account(struct stream *st, uint64_t page, uint64_t hash)
{
	uint64_t known = digest_set(st->r->conf.digest, page, hash);

	st->sum += digest_mix(page, hash) - digest_mix(page, known);
	st->nonzero += (uint64_t)(hash != 0) - (uint64_t)(known != 0);
}

/* Does a run of pages exist, and belong to this stream? */
static bool belongs(const struct stream *st, const struct wire_head *h)
{
	const struct ram_block *b = ram_block_of(st->r->conf.ram, h->arg);

	return b && h->arg + h->count <= b->first_page + (b->size >> RAM_PAGE_SHIFT) &&
	       wire_stream_of(h->arg, st->r->conf.streams) == st->index;
}

static int put(struct stream *st, uint64_t page, unsigned int n, const void *from)
{
	int err = ram_write(st->r->conf.ram, page, n, from);
	char why[100];

	if (!err)
		return 0;
	snprintf(why, sizeof(why), "memory cannot be written: %s", strerror(-err));
	return fail(st, err, why);
}

static int take_zstd(struct stream *st, uint8_t *dst, size_t len, size_t zlen)
{
	size_t n;
	int err;

	if (!st->zbuf) {
		st->zbuf = malloc(WIRE_RUN_PAGES * RAM_PAGE_SIZE);
		st->zstd = ZSTD_createDCtx();
		if (!st->zbuf || !st->zstd)
			return fail(st, -ENOMEM, "out of memory");
	}
	err = take(st, st->zbuf, zlen);
	if (err)
		return err;
	n = ZSTD_decompressDCtx(st->zstd, dst, len, st->zbuf, zlen);
	if (ZSTD_isError(n) || n != len)
		return fail(st, -EBADMSG, "compressed pages are broken");
	return 0;
}

static int on_pages(struct stream *st, const struct wire_head *h)
{
	uint64_t hash[WIRE_RUN_PAGES];
	size_t hashes = h->count * sizeof(hash[0]), len = h->count * RAM_PAGE_SIZE;
	char why[100];
	int err;

	if (!belongs(st, h))
		return fail(st, -EBADMSG, "pages that this machine does not have");
	err = take(st, hash, hashes);
	if (err)
		return err;
	if (wire_sum(hash, hashes) != h->sum)
		return fail(st, -EBADMSG, "checksum of a frame is wrong");
	err = h->flags & WIRE_F_ZSTD ? take_zstd(st, st->buf, len, h->len - hashes)
				     : take(st, st->buf, len);
	for (uint32_t i = 0; i < h->count && !err; i++) {
		if (!hash[i] || digest_page(st->buf + i * RAM_PAGE_SIZE) != hash[i]) {
			snprintf(
				why, sizeof(why), "checksum of page %#llx is wrong",
				(unsigned long long)ram_gpa(st->r->conf.ram, h->arg + i));
			return fail(st, -EBADMSG, why);
		}
	}
	if (!err)
		err = put(st, h->arg, h->count, st->buf);
	if (err)
		return err;
	for (uint32_t i = 0; i < h->count; i++)
		account(st, h->arg + i, hash[i]);
	st->received += h->count;
	atomic_fetch_add_explicit(&st->pages, h->count, memory_order_relaxed);
	return 0;
}

static int on_zeros(struct stream *st, const struct wire_head *h)
{
	static const uint8_t zeros[RAM_PAGE_SIZE];
	int err;

	if (!belongs(st, h))
		return fail(st, -EBADMSG, "pages that this machine does not have");
	for (uint32_t i = 0; i < h->count; i++) {
		/* What is zero already may be a hole, which stays one. */
		err = digest_get(st->r->conf.digest, h->arg + i)
			      ? put(st, h->arg + i, 1, zeros)
			      : 0;
		if (err)
			return err;
		account(st, h->arg + i, 0);
	}
	st->received += h->count;
	atomic_fetch_add_explicit(&st->zeros, h->count, memory_order_relaxed);
	return 0;
}

/* ---- frames --------------------------------------------------------------------------
 */

static int on_end(struct stream *st, const struct wire_head *h)
{
	char why[100];

	if (h->arg != st->received) {
		snprintf(why, sizeof(why), "%llu pages were sent and %llu came",
			 (unsigned long long)h->arg, (unsigned long long)st->received);
		return fail(st, -EBADMSG, why);
	}
	pthread_mutex_lock(&st->r->lock);
	st->ended = true;
	st->r->open--;
	pthread_cond_broadcast(&st->r->changed);
	pthread_mutex_unlock(&st->r->lock);
	return 0;
}

static int on_sync(struct stream *st, const struct wire_head *h)
{
	struct receiver *r = st->r;
	int err = 0;

	pthread_mutex_lock(&r->lock);
	if (h->arg != r->sync + (r->synced == 0))
		err = -EBADMSG;
	else if (r->synced++ == 0)
		r->sync = h->arg;
	if (!err && r->synced == r->conf.streams) {
		r->synced = 0;
		err = r->conf.synced(r->conf.arg, r->sync);
	}
	pthread_mutex_unlock(&r->lock);
	return err == -EBADMSG ? fail(st, err, "SYNC at the wrong time")
	       : err	       ? fail(st, err, chan_error())
			       : 0;
}

static int await_ends(struct receiver *r)
{
	int err;

	pthread_mutex_lock(&r->lock);
	while (r->open && !r->err && !FAULT(FAULT_NO_END))
		pthread_cond_wait(&r->changed, &r->lock);
	err = r->err;
	pthread_mutex_unlock(&r->lock);
	return err;
}

static int on_text(struct stream *st, const struct wire_head *h, const char *text)
{
	char why[200];

	if (h->type == WIRE_CANCEL) {
		fail(st, -ECANCELED, "the source cancelled");
		return -ECANCELED;
	}
	snprintf(why, sizeof(why), "the source says: %.*s", (int)h->len, text);
	return fail(st, -EREMOTEIO, text_clean(why));
}

/* A frame that is not about pages. */
static int on_control(struct stream *st, const struct wire_head *h)
{
	const bool text = h->type == WIRE_ERROR || h->type == WIRE_CANCEL;
	char *payload = NULL;
	int err = 0;

	if (!text && (st->index || (!st->ended && h->type != WIRE_STATE)))
		return fail(st, -EBADMSG, "a frame at the wrong time");
	if (!text && !st->ended)
		return fail(st, -EBADMSG, "END is missing");
	/* All that a header may ask for was bounded by wire_head_check(). */
	if (h->len) {
		payload = malloc(h->len);
		if (!payload)
			return fail(st, -ENOMEM, "out of memory");
		err = take(st, payload, h->len);
	}
	if (!err && wire_sum(payload, h->len) != h->sum)
		err = fail(st, -EBADMSG, "checksum of a frame is wrong");
	if (err)
		goto out;
	if (text) {
		err = on_text(st, h, payload);
	} else {
		err = await_ends(st->r);
		if (!err)
			err = st->r->conf.control(st->r->conf.arg, h, payload);
		if (err < 0)
			fail(st, err, "the machine was refused");
	}
out:
	free(payload);
	return err;
}

static int on_frame(struct stream *st, const struct wire_head *h)
{
	bool about_pages = h->type == WIRE_PAGES || h->type == WIRE_ZERO ||
			   h->type == WIRE_ROUND || h->type == WIRE_SYNC ||
			   h->type == WIRE_END;

	if (about_pages && st->ended)
		return fail(st, -EBADMSG, "pages after END");
	switch (h->type) {
	case WIRE_PAGES: return on_pages(st, h);
	case WIRE_ZERO: return on_zeros(st, h);
	case WIRE_END: return on_end(st, h);
	case WIRE_SYNC: return on_sync(st, h);
	case WIRE_ROUND: atomic_store(&st->r->round, (uint32_t)h->arg); return 0;
	case WIRE_KEEPALIVE: return 0;
	default: return on_control(st, h);
	}
}

/* Return: 1: done; -errno */
static int run(struct stream *st)
{
	int err = 0;

	while (!err) {
		struct wire_head h;
		const char *why;

		err = take(st, &h, sizeof(h));
		if (err)
			break;
		err = wire_head_check(&h, *st->seq, &why);
		if (err) {
			fail(st, err, why);
			break;
		}
		(*st->seq)++;
		atomic_fetch_add_explicit(&st->bytes, sizeof(h) + h.len,
					  memory_order_relaxed);
		err = on_frame(st, &h);
		if (st->index && st->ended && !err)
			err = 1;
	}
	return err;
}

static void *stream_main(void *arg)
{
	run(arg);
	return NULL;
}

/* ---- life -------------------------------------------------------------------------- */

int receiver_create(const struct receiver_conf *conf, struct receiver **out)
{
	struct receiver *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	r->conf = *conf;
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->changed, NULL);
	for (unsigned int i = 0; i < conf->streams; i++) {
		struct stream *st = &r->stream[i];

		st->r = r;
		st->index = i;
		st->chan = conf->chan[i];
		st->seq = &conf->seq[i];
		st->ahead = malloc(AHEAD);
		st->buf = aligned_alloc(RAM_PAGE_SIZE, WIRE_RUN_PAGES * RAM_PAGE_SIZE);
		if (!st->ahead || !st->buf) {
			receiver_destroy(r);
			return -ENOMEM;
		}
	}
	*out = r;
	return 0;
}

int receiver_run(struct receiver *r)
{
	int err = 0;

	r->open = r->conf.streams;
	/* Stream 0 carries KEEPALIVE. */
	chan_set_read_timeout(r->conf.chan[0], DEAD_MS);
	for (unsigned int i = 1; i < r->conf.streams && !err; i++) {
		struct stream *st = &r->stream[i];

		err = -pthread_create(&st->thread, NULL, stream_main, st);
		st->running = !err;
	}
	if (err)
		fail(&r->stream[0], err, "no more threads");
	else
		err = run(&r->stream[0]);
	for (unsigned int i = 1; i < r->conf.streams; i++) {
		if (err < 0)
			chan_shutdown(r->conf.chan[i]);
		if (r->stream[i].running)
			pthread_join(r->stream[i].thread, NULL);
		r->stream[i].running = false;
	}
	return err < 0 ? r->err : 0;
}

void receiver_cancel(struct receiver *r)
{
	atomic_store(&r->cancelled, true);
	for (unsigned int i = 0; i < r->conf.streams; i++)
		chan_shutdown(r->conf.chan[i]);
}

void receiver_stats(const struct receiver *r, struct receiver_stats *stats)
{
	*stats = (struct receiver_stats){ .round = atomic_load(&r->round) };
	for (unsigned int i = 0; i < r->conf.streams; i++) {
		const struct stream *st = &r->stream[i];

		stats->pages += atomic_load_explicit(&st->pages, memory_order_relaxed);
		stats->zero_pages +=
			atomic_load_explicit(&st->zeros, memory_order_relaxed);
		stats->bytes += atomic_load_explicit(&st->bytes, memory_order_relaxed);
	}
}

uint64_t receiver_digest(const struct receiver *r, uint64_t *nonzero)
{
	uint64_t sum = 0, n = 0;

	for (unsigned int i = 0; i < r->conf.streams; i++) {
		sum += r->stream[i].sum;
		n += r->stream[i].nonzero;
	}
	*nonzero = n;
	return sum;
}

const char *receiver_error(const struct receiver *r)
{
	return r->error;
}

void receiver_destroy(struct receiver *r)
{
	if (!r)
		return;
	for (unsigned int i = 0; i < r->conf.streams; i++) {
		free(r->stream[i].ahead);
		free(r->stream[i].buf);
		free(r->stream[i].zbuf);
		ZSTD_freeDCtx(r->stream[i].zstd);
	}
	pthread_cond_destroy(&r->changed);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

int receiver_head(struct chan *chan, uint32_t seq, uint32_t types, struct wire_head *h,
		  void **payload, const char **why)
{
	char *p = NULL;
	int err = chan_read(chan, h, sizeof(*h));

	*why = chan_error();
	if (!err)
		err = wire_head_check(h, seq, why);
	if (!err && !(types & WIRE_BIT(h->type))) {
		*why = "a frame at the wrong time";
		err = -EBADMSG;
	}
	if (err)
		return err;
	if (h->len) {
		p = malloc(h->len + 1UL);
		*why = "out of memory";
		err = p ? chan_read(chan, p, h->len) : -ENOMEM;
		if (p && err)
			*why = chan_error();
	}
	if (!err && wire_sum(p, h->len) != h->sum) {
		*why = "checksum of a frame is wrong";
		err = -EBADMSG;
	}
	if (err) {
		free(p);
		return err;
	}
	if (p)
		p[h->len] = '\0';
	*payload = p;
	return 0;
}
