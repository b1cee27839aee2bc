// SPDX-License-Identifier: BSD-2-Clause
/*
 * sender: threads that walk a bitmap and send; see sender.h.
 *
 * A round is a generation: sender_round() publishes the bitmap under the lock, every
 * thread does its words and reports, and the last report wakes sender_round(). Between
 * rounds only stream 0 is written by somebody else (sender_control(), and its thread's
 * KEEPALIVE), under that stream's lock.
 *
 * Words are armed in batches (dirty_set_clear() and dirty_set_arm() are system calls), then
 * read one by one. Arming comes before reading: a write in between is found by the next harvest.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../user/lib/bitmap.h"
#include "../../user/lib/clock.h"
#include "../fault.h"
#include "sender.h"
#include "sender_frames.h"

#define BATCH_WORDS  64	 /* armed at a time: 16 MiB */
#define CANCEL_MS    200 /* for a frame that is on its way */
#define KEEPALIVE_MS 1000
#define SLICE_MS     10 /* of waiting for the bandwidth limit */

struct stream {
	struct sender *s;
	unsigned int index;
	pthread_t thread;
	bool running;
	struct frames frames; /* the stream's lock is in it */
	uint64_t done;	      /* generation */
	uint64_t wrote_ns;    /* its thread, last, in the round that runs */
	_Atomic uint64_t left;
};

struct sender {
	struct sender_conf conf;
	bool clear; /* a source wants dirty_set_clear() */
	struct stream stream[WIRE_MAX_STREAMS];

	pthread_mutex_t lock;
	pthread_cond_t go, done; /* monotonic clock */
	uint64_t generation;
	uint64_t *bitmap;
	bool stop, quiet, shut;
	int err;
	char error[200];

	atomic_bool cancelled, still;

	pthread_mutex_t limit_lock;
	uint64_t bandwidth, last_ns;
	_Atomic uint64_t limited_ns;
	double tokens; /* bytes that may go now; a debt if below 0 */
};

static void fail(struct stream *st, int err, const char *what)
{
	struct sender *s = st->s;

	pthread_mutex_lock(&s->lock);
	if (!s->err) {
		s->err = err;
		snprintf(s->error, sizeof(s->error), "stream %u: %s", st->index, what);
	}
	pthread_mutex_unlock(&s->lock);
}

/* ---- bandwidth ----------------------------------------------------------------------
 */

static struct timespec deadline_in(unsigned int ms)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_sec += ms / 1000;
	ts.tv_nsec += (long)(ms % 1000) * 1000000;
	if (ts.tv_nsec >= 1000000000) {
		ts.tv_sec++;
		ts.tv_nsec -= 1000000000;
	}
	return ts;
}

/* Pay for @bytes. A bucket that may go into debt: whoever finds it empty waits. */
static bool pay(struct sender *s, uint64_t bytes)
{
	uint64_t now = clock_ns();
	bool ok = true;

	if (s->bandwidth) {
		double most = (double)s->bandwidth * SLICE_MS / 1000;

		s->tokens += (double)(now - s->last_ns) * 1e-9 * (double)s->bandwidth;
		if (s->tokens > most)
			s->tokens = most;
		ok = s->tokens >= 0;
		if (ok)
			s->tokens -= (double)bytes;
	}
	s->last_ns = now;
	return ok;
}

/* In a round that sends nothing the peer must not take us for dead. */
static int beat(struct stream *st)
{
	int err;

	if (st->index || clock_ns() - st->wrote_ns < KEEPALIVE_MS * 1000000ULL)
		return 0;
	err = frames_control(&st->frames, WIRE_KEEPALIVE, 0, NULL, 0);
	if (err)
		fail(st, err, chan_error());
	st->wrote_ns = clock_ns();
	return err;
}

static void limit(struct stream *st, uint64_t bytes)
{
	struct sender *s = st->s;
	uint64_t began = 0;

	if (atomic_load(&s->still))
		return;
	pthread_mutex_lock(&s->limit_lock);
	while (!pay(s, bytes) && !atomic_load(&s->cancelled)) {
		struct timespec slice = { .tv_nsec = SLICE_MS * 1000000L };

		pthread_mutex_unlock(&s->limit_lock);
		if (!began)
			began = clock_ns();
		nanosleep(&slice, NULL);
		beat(st);
		pthread_mutex_lock(&s->limit_lock);
	}
	if (began)
		s->limited_ns += clock_ns() - began;
	pthread_mutex_unlock(&s->limit_lock);
}

static int flush(struct stream *st)
{
	uint64_t bytes = frames_bytes(&st->frames);
	int err;

	if (bytes)
		limit(st, bytes);
	if (atomic_load(&st->s->cancelled))
		return -ECANCELED;
	err = frames_flush(&st->frames);
	if (err)
		fail(st, err, chan_error());
	else if (bytes)
		st->wrote_ns = clock_ns();
	return err;
}

/* ---- a round ----------------------------------------------------------------------- */

/* The stream that sends word @w. */
static unsigned int stream_of(const struct sender *s, uint64_t w, uint64_t generation)
{
	if (FAULT(FAULT_WRONG_STREAM))
		return (unsigned int)((w + generation) % s->conf.streams);
	return wire_stream_of(w * BITMAP_BITS, s->conf.streams);
}

/* Words [@w, @end) of one block: arm those of this stream that have bits. */
static int arm(struct stream *st, uint64_t w, uint64_t end, const uint64_t *bitmap)
{
	struct sender *s = st->s;
	uint64_t taken[BATCH_WORDS], any = 0;
	int err = dirty_set_arm(s->conf.dirty, w * BITMAP_BITS, (end - w) * BITMAP_BITS,
				bitmap + w);

	if (err)
		fail(st, err, "the dirty log cannot be armed");
	if (err || !s->clear)
		return err;
	for (uint64_t i = w; i < end; i++) {
		bool mine = stream_of(s, i, s->generation) == st->index;

		taken[i - w] = mine ? bitmap[i] : 0;
		if (mine && bitmap[i] && FAULT(FAULT_CLEAR_UNHARVESTED))
			taken[i - w] = UINT64_MAX;
		any |= taken[i - w];
	}
	if (!any)
		return 0;
	err = dirty_set_clear(s->conf.dirty, w * BITMAP_BITS, (end - w) * BITMAP_BITS,
			      taken);
	if (err)
		fail(st, err, "the dirty log cannot be armed");
	return err;
}

static int send_word(struct stream *st, uint64_t w, uint64_t bits)
{
	int err = 0;

	if (!frames_room(&st->frames, (unsigned int)__builtin_popcountll(bits)))
		err = flush(st);
	if (!err) {
		err = frames_add(&st->frames, w * BITMAP_BITS, bits);
		if (err)
			fail(st, err, "pages cannot be read or compressed");
	}
	return err;
}

/* What is left was perhaps a guess; its only writer is the stream's thread. */
static void done(struct stream *st, uint64_t pages)
{
	uint64_t left = atomic_load_explicit(&st->left, memory_order_relaxed);

	atomic_store_explicit(&st->left, left > pages ? left - pages : 0,
			      memory_order_relaxed);
}

/* Words [@w, @end), all of one block. */
static int send_batch(struct stream *st, uint64_t w, uint64_t end, uint64_t *bitmap,
		      uint64_t generation)
{
	bool late = FAULT(FAULT_READ_BEFORE_CLEAR);
	int err = late ? 0 : arm(st, w, end, bitmap);

	for (uint64_t i = w; i < end && !err; i++) {
		uint64_t bits;

		if (stream_of(st->s, i, generation) != st->index || !bitmap[i])
			continue;
		bits = bitmap[i];
		err = send_word(st, i, bits);
		if (late && !err)
			err = arm(st, i, i + 1, bitmap);
		__atomic_store_n(&bitmap[i], 0, __ATOMIC_RELAXED);
		done(st, (uint64_t)__builtin_popcountll(bits));
	}
	return err;
}

/* Pages of the stream in this round, for the display */
static uint64_t count_todo(const struct stream *st, const uint64_t *bitmap,
			   uint64_t generation)
{
	const struct sender *s = st->s;
	uint64_t todo = 0;

	for (uint64_t w = 0; w < ram_words(s->conf.ram); w++)
		if (stream_of(s, w, generation) == st->index && bitmap[w])
			todo += (uint64_t)__builtin_popcountll(bitmap[w]);
	return todo;
}

/* Words before @to are to be looked at. *@known: those before it are complete */
static int find(struct stream *st, uint64_t to, uint64_t *known)
{
	const struct sender_conf *c = &st->s->conf;
	int err = 0;

	while (*known < to && !err) {
		err = c->find(c->find_arg, *known, known);
		if (err)
			fail(st, err, "holes of the RAM are not found");
		else
			err = beat(st);
	}
	return err;
}

static int walk(struct stream *st, uint64_t *bitmap, uint64_t generation)
{
	const struct ram *ram = st->s->conf.ram;
	bool finds = generation == 1 && st->s->conf.find;
	uint64_t known = finds ? 0 : UINT64_MAX;
	int err = 0;

	st->wrote_ns = clock_ns();
	atomic_store_explicit(&st->left,
			      finds ? st->s->conf.find_pages / st->s->conf.streams
				    : count_todo(st, bitmap, generation),
			      memory_order_relaxed);

	for (unsigned int b = 0; b < ram->nblocks && !err; b++) {
		uint64_t w = ram->block[b].first_page / BITMAP_BITS;
		uint64_t end = w + bitmap_words(ram->block[b].size >> RAM_PAGE_SHIFT);

		while (w < end && !err) {
			uint64_t to;

			err = find(st, w + 1, &known);
			if (err)
				break;
			/* Perhaps another stream's, whose thread clears it at this time:
			 * either value will do, send_batch() looks at our own only. */
			if (!__atomic_load_n(&bitmap[w], __ATOMIC_RELAXED)) {
				w++;
				continue;
			}
			to = w + BATCH_WORDS < end ? w + BATCH_WORDS : end;
			err = atomic_load(&st->s->cancelled) ? -ECANCELED
							     : find(st, to, &known);
			if (!err)
				err = send_batch(st, w, to, bitmap, generation);
			if (!err)
				err = beat(st);
			w = to;
		}
	}
	atomic_store_explicit(&st->left, 0, memory_order_relaxed);
	return err ? err : flush(st);
}

static void keep_alive(struct stream *st)
{
	if (!st->index && !st->s->quiet && !atomic_load(&st->s->cancelled) &&
	    frames_control(&st->frames, WIRE_KEEPALIVE, 0, NULL, 0) && !st->s->err) {
		st->s->err = -EPIPE;
		snprintf(st->s->error, sizeof(st->s->error), "%s", chan_error());
	}
}

static void *stream_main(void *arg)
{
	struct stream *st = arg;
	struct sender *s = st->s;

	pthread_mutex_lock(&s->lock);
	while (!s->stop) {
		uint64_t generation = s->generation;

		if (st->done == generation) {
			struct timespec until = deadline_in(KEEPALIVE_MS);

			if (pthread_cond_timedwait(&s->go, &s->lock, &until) ==
				    ETIMEDOUT &&
			    st->done == s->generation && !s->stop)
				keep_alive(st);
			continue;
		}
		pthread_mutex_unlock(&s->lock);
		walk(st, s->bitmap, generation);
		pthread_mutex_lock(&s->lock);
		st->done = generation;
		pthread_cond_broadcast(&s->done);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

static bool all_done(const struct sender *s)
{
	for (unsigned int i = 0; i < s->conf.streams; i++)
		if (s->stream[i].done != s->generation)
			return false;
	return true;
}

int sender_round(struct sender *s, uint64_t *bitmap)
{
	bool patient = true;
	int err;

	pthread_mutex_lock(&s->lock);
	s->bitmap = bitmap;
	s->generation++;
	pthread_cond_broadcast(&s->go);
	while (!all_done(s)) {
		struct timespec until = deadline_in(CANCEL_MS);

		/* A stream that failed ends the round of the others, too. */
		if (s->err)
			atomic_store(&s->cancelled, true);
		if (patient) {
			int late = pthread_cond_timedwait(&s->done, &s->lock, &until);

			if (late != ETIMEDOUT || !atomic_load(&s->cancelled))
				continue;
			for (unsigned int i = 0; i < s->conf.streams; i++)
				chan_shutdown(s->conf.chan[i]);
			patient = false;
			s->shut = true;
		} else {
			pthread_cond_wait(&s->done, &s->lock);
		}
	}
	err = s->err ? s->err : atomic_load(&s->cancelled) ? -ECANCELED : 0;
	pthread_mutex_unlock(&s->lock);
	return err;
}

int sender_sync(struct sender *s, uint64_t n)
{
	int err = 0;

	for (unsigned int i = 0; i < s->conf.streams && !err; i++) {
		err = frames_control(&s->stream[i].frames, WIRE_SYNC, n, NULL, 0);
		if (err)
			fail(&s->stream[i], err, chan_error());
	}
	return err;
}

int sender_end(struct sender *s)
{
	int err = 0;

	for (unsigned int i = 0; i < s->conf.streams && !err; i++) {
		struct frames *f = &s->stream[i].frames;

		if (i && FAULT(FAULT_NO_END))
			continue;
		err = frames_control(f, WIRE_END, f->sent, NULL, 0);
		if (err)
			fail(&s->stream[i], err, chan_error());
	}
	return err;
}

int sender_control(struct sender *s, enum wire_type type, uint64_t arg,
		   const void *payload, uint32_t len)
{
	int err = frames_control(&s->stream[0].frames, type, arg, payload, len);

	if (err)
		fail(&s->stream[0], err, chan_error());
	return err;
}

/* ---- life -------------------------------------------------------------------------- */

static bool wants_clear(const struct dirty_set *set)
{
	for (unsigned int i = 0; i < set->nsrc; i++)
		if (set->src[i]->ops->clear)
			return true;
	return false;
}

int sender_create(const struct sender_conf *conf, struct sender **out)
{
	struct sender *s = calloc(1, sizeof(*s));
	pthread_condattr_t attr;
	int err = 0;

	if (!s)
		return -ENOMEM;
	s->conf = *conf;
	s->clear = wants_clear(conf->dirty);
	s->bandwidth = conf->bandwidth;
	s->last_ns = clock_ns();
	pthread_mutex_init(&s->lock, NULL);
	pthread_mutex_init(&s->limit_lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->go, &attr);
	pthread_cond_init(&s->done, &attr);
	pthread_condattr_destroy(&attr);
	for (unsigned int i = 0; i < conf->streams && !err; i++) {
		struct stream *st = &s->stream[i];

		st->s = s;
		st->index = i;
		err = frames_init(&st->frames, &s->conf, i);
		if (err)
			break;
		err = -pthread_create(&st->thread, NULL, stream_main, st);
		st->running = !err;
	}
	if (err)
		sender_destroy(s);
	else
		*out = s;
	return err;
}

void sender_destroy(struct sender *s)
{
	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_cond_broadcast(&s->go);
	pthread_mutex_unlock(&s->lock);
	for (unsigned int i = 0; i < s->conf.streams; i++) {
		if (s->stream[i].running)
			pthread_join(s->stream[i].thread, NULL);
		frames_fini(&s->stream[i].frames);
	}
	pthread_cond_destroy(&s->go);
	pthread_cond_destroy(&s->done);
	pthread_mutex_destroy(&s->lock);
	pthread_mutex_destroy(&s->limit_lock);
	free(s);
}

void sender_set_still(struct sender *s, bool still)
{
	atomic_store(&s->still, still);
}

void sender_quiet(struct sender *s)
{
	pthread_mutex_lock(&s->lock);
	s->quiet = true;
	pthread_mutex_unlock(&s->lock);
}

uint64_t sender_digest(const struct sender *s, uint64_t *nonzero)
{
	uint64_t sum = 0, n = 0;

	for (unsigned int i = 0; i < s->conf.streams; i++) {
		sum += s->stream[i].frames.sum;
		n += s->stream[i].frames.nonzero;
	}
	*nonzero = n;
	return sum;
}

void sender_set_bandwidth(struct sender *s, uint64_t bytes_per_s)
{
	pthread_mutex_lock(&s->limit_lock);
	s->bandwidth = bytes_per_s;
	s->tokens = 0;
	pthread_mutex_unlock(&s->limit_lock);
}

void sender_stats(const struct sender *s, struct sender_stats *stats)
{
	*stats = (struct sender_stats){ .limited_ns = s->limited_ns };
	for (unsigned int i = 0; i < s->conf.streams; i++) {
		frames_stats(&s->stream[i].frames, stats);
		stats->left +=
			atomic_load_explicit(&s->stream[i].left, memory_order_relaxed);
	}
}

void sender_cancel(struct sender *s)
{
	atomic_store(&s->cancelled, true);
}

const char *sender_error(const struct sender *s)
{
	return s->error;
}
