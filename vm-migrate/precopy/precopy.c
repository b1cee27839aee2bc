// SPDX-License-Identifier: BSD-2-Clause
/*
 * precopy: beginning, rounds and undoing; the end is in precopy_stop.c. See precopy.h.
 *
 * The first round sends what is populated, found after the logs were started: who
 * populates a page later is in a log. How it is found, and what a log reports of pages that
 * were never populated: precopy_holes.c.
 */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../user/lib/bitmap.h"
#include "../../user/lib/clock.h"
#include "../../user/lib/log.h"
#include "../fault.h"
#include "../table.h"
#include "precopy_impl.h"

#define READY_MS       30000 /* the destination makes its machine */
#define MAX_ROUNDS     60
#define POLISH_ROUNDS  6 /* more than the budget needs, while they are short and pay */
#define POLISH_NS      50000000ULL
#define SMALL_PAGES    64
#define PATIENT_ROUNDS 2  /* while harvests take too long */
#define THROTTLE_STEP  20 /* percent */
#define THROTTLE_MOST  99
#define LAST_WORDS_MS  200 /* for telling the destination why */

int precopy_fail(struct precopy *p, int err, const char *fmt, ...)
{
	va_list ap;

	pthread_mutex_lock(&p->lock);
	if (!p->status.err) {
		p->status.err = err;
		va_start(ap, fmt);
		vsnprintf(p->status.message, sizeof(p->status.message), fmt, ap);
		va_end(ap);
	}
	pthread_mutex_unlock(&p->lock);
	return err;
}

int precopy_send_failed(struct precopy *p, int err)
{
	if (atomic_load(&p->cancelled))
		return precopy_fail(p, -ECANCELED, "cancelled");
	/* The kernel gave it up, and says so once: who reads sees an end like any other.
	 */
	if (err == -ETIMEDOUT)
		return precopy_fail(p, err, "%s", sender_error(p->sender));
	/* What it says may still be on its way. */
	peer_await(&p->peer, WIRE_ERROR, LAST_WORDS_MS, NULL);
	if (p->peer.err)
		return precopy_fail(p, p->peer.err, "%s", p->peer.why);
	return precopy_fail(p, err, "%s", sender_error(p->sender));
}

void precopy_phase(struct precopy *p, enum precopy_phase phase)
{
	pthread_mutex_lock(&p->lock);
	p->status.phase = phase;
	pthread_mutex_unlock(&p->lock);
}

/* On the thread that reads the peer. */
static void on_lost(void *arg)
{
	struct precopy *p = arg;

	pthread_mutex_lock(&p->lock);
	atomic_store(&p->lost, true);
	if (p->sender && !atomic_load(&p->committed))
		sender_cancel(p->sender);
	pthread_mutex_unlock(&p->lock);
}

/* ---- harvest -------------------------------------------------------------------------
 */

/* Pages of p->by[@i] that are in p->bitmap; the others are taken out. */
static uint64_t count_by(struct precopy *p, unsigned int i)
{
	for (size_t w = 0; w < ram_words(p->ram); w++)
		p->by[i][w] &= p->bitmap[w];
	return bitmap_count(p->by[i], ram_words(p->ram));
}

uint64_t precopy_harvest(struct precopy *p, bool count)
{
	struct dirty_found found;
	uint64_t began = clock_ns(), holes;

	for (unsigned int i = 0; i < DIRTY_BY_COUNT && count; i++)
		memset(p->by[i], 0, ram_words(p->ram) * sizeof(uint64_t));
	dirty_set_harvest(p->dirty, p->bitmap, count ? p->by : NULL, &found);
	holes = precopy_drop_holes(p);
	for (unsigned int i = 0; i < DIRTY_BY_COUNT && count && holes; i++)
		found.by[i] = count_by(p, i);
	p->harvested_ns = clock_ns();
	p->harvest_ns = p->harvested_ns - began;
	pthread_mutex_lock(&p->lock);
	for (unsigned int i = 0; i < DIRTY_BY_COUNT && count; i++)
		p->status.dirty_by[i] += found.by[i];
	pthread_mutex_unlock(&p->lock);
	return found.merged - holes;
}

/* ---- beginning --------------------------------------------------------------------- */

static int allocate(struct precopy *p)
{
	size_t words = ram_words(p->ram) + 1;
	int err = digest_init(&p->digest, p->ram->pages);

	p->bitmap = table_alloc(words, sizeof(*p->bitmap));
	p->populated = table_alloc(words, sizeof(*p->populated));
	for (unsigned int i = 0; i < DIRTY_BY_COUNT; i++) {
		p->by[i] = table_alloc(words, sizeof(*p->by[i]));
		if (!p->by[i])
			err = -ENOMEM;
	}
	if (!p->bitmap || !p->populated)
		err = -ENOMEM;
	return err ? precopy_fail(p, err, "out of memory") : 0;
}

static int connect_peer(struct precopy *p)
{
	int err;

	precopy_phase(p, PRECOPY_CONNECT);
	p->peer_opened = true;
	err = peer_open(&p->peer, &p->conf, p->ram, p->config, &p->cancelled, on_lost, p);
	/* While the destination makes its machine */
	if (!err && allocate(p))
		return -ENOMEM;
	if (!err)
		err = peer_await(&p->peer, WIRE_READY, READY_MS, &p->cancelled);
	if (err == -ECANCELED && atomic_load(&p->cancelled))
		return precopy_fail(p, err, "cancelled");
	return err ? precopy_fail(p, err, "%s", p->peer.why) : 0;
}

static int make_sender(struct precopy *p)
{
	struct sender_conf conf = {
		.ram = p->ram,
		.dirty = p->dirty,
		.digest = &p->digest,
		.chan = p->peer.chan,
		.seq = p->peer.seq,
		.streams = p->conf.streams,
		.zstd_level = p->conf.zstd_level,
		.bandwidth = p->conf.bandwidth,
		.by = { p->by[0], p->by[1] },
		.find = precopy_find,
		.find_arg = p,
		.find_pages = ram_guess_populated(p->ram),
	};
	struct sender *s;
	int err = sender_create(&conf, &s);

	if (err)
		return precopy_fail(p, err, "cannot start streams: %s", strerror(-err));
	pthread_mutex_lock(&p->lock);
	p->sender = s;
	if (atomic_load(&p->cancelled) || atomic_load(&p->lost))
		sender_cancel(s);
	pthread_mutex_unlock(&p->lock);
	return 0;
}

/* Every write from here on is in a log, or to what is not armed and counts as written. */
static int start_logs(struct precopy *p)
{
	const char *who = "dirty log";
	int err;

	dirty_set_lazy(p->dirty);
	err = dirty_set_start(p->dirty, &who);
	if (err)
		return precopy_fail(p, err, "%s cannot be started: %s", who,
				    strerror(-err));
	p->harvested_ns = clock_ns();
	return 0;
}

/* ---- rounds ------------------------------------------------------------------------ */

/*
 * Until the destination has all of it. No deadline but that something moves: a socket
 * that takes nothing for CHAN_DEAD_MS has failed the sender, and what is in flight after
 * that is bounded by the buffers.
 */
static int await_sync(struct precopy *p, uint64_t n)
{
	size_t left, now = 0;
	int err = sender_sync(p->sender, n);

	if (err)
		return precopy_send_failed(p, err);
	do {
		left = now;
		err = peer_await_sync(&p->peer, n, CHAN_DEAD_MS, &p->cancelled);
		now = peer_unsent(&p->peer);
	} while (err == -ETIMEDOUT && now != left);
	if (err == -ECANCELED && atomic_load(&p->cancelled))
		return precopy_fail(p, err, "cancelled");
	return err ? precopy_fail(p, err, "%s", p->peer.why) : 0;
}

/* Send p->bitmap; measure the line. */
static int one_round(struct precopy *p, unsigned int round)
{
	uint64_t began = clock_ns(), bytes, pages;
	struct sender_stats st;
	double seconds;
	int err;

	pthread_mutex_lock(&p->lock);
	p->status.round = round;
	pthread_mutex_unlock(&p->lock);
	err = sender_control(p->sender, WIRE_ROUND, round, NULL, 0);
	if (!err)
		err = sender_round(p->sender, p->bitmap);
	if (err)
		return precopy_send_failed(p, err);
	err = await_sync(p, round);
	if (err)
		return err;
	seconds = (double)(clock_ns() - began) * 1e-9;
	sender_stats(p->sender, &st);
	bytes = st.bytes - p->sent_bytes;
	pages = st.pages - p->sent_pages;
	p->sent_bytes = st.bytes;
	p->sent_pages = st.pages;
	predict_sent(&p->predict, bytes, pages, seconds);
	pthread_mutex_lock(&p->lock);
	if (seconds > 0)
		p->status.send_rate = (uint64_t)((double)bytes / seconds);
	pthread_mutex_unlock(&p->lock);
	return 0;
}

/* The first was thorough, and tells what that takes: dirty_set_thorough_ns(). */
static void note_harvest(struct precopy *p, unsigned int round)
{
	uint64_t thorough = round == 1 ? dirty_set_thorough_ns(p->dirty) : 0;
	uint64_t ns = p->harvest_ns > thorough ? p->harvest_ns - thorough : 0;

	p->shorter = round == 1 || ns < p->least_ns - p->least_ns / 4;
	if (round == 1 || ns < p->least_ns)
		p->least_ns = ns;
}

static void judge(struct precopy *p, double seconds, uint64_t pages,
		  struct predict_verdict *v)
{
	predict_dirty(&p->predict, seconds, pages);
	predict_judge(&p->predict, (double)p->budget_ns * 1e-9,
		      predict_overhead((double)p->least_ns * 1e-9,
				       (double)dirty_set_thorough_ns(p->dirty) * 1e-9),
		      v);
	pthread_mutex_lock(&p->lock);
	p->status.dirty_rate = (uint64_t)((double)(pages * RAM_PAGE_SIZE) / seconds);
	p->status.remaining = pages * RAM_PAGE_SIZE;
	p->status.expected_downtime_us = (uint64_t)(v->expected_seconds * 1e6);
	p->status.eta_ms =
		v->eta_seconds < 0 ? UINT64_MAX : (uint64_t)(v->eta_seconds * 1e3);
	pthread_mutex_unlock(&p->lock);
}

static int hopeless(struct precopy *p, const struct predict_verdict *v)
{
	return precopy_fail(
		p, -ETIME,
		"the guest writes %llu MiB/s and %llu MiB/s are sent: the downtime would "
		"be %.0f ms, %.0f ms at best: allow more, or throttle",
		(unsigned long long)p->status.dirty_rate >> 20,
		(unsigned long long)p->status.send_rate >> 20, v->expected_seconds * 1e3,
		v->floor_seconds * 1e3);
}

/* More downtime, up to the limit. */
static int raise_budget(struct precopy *p, const struct predict_verdict *v)
{
	double least = v->floor_seconds * 1.2, most = p->conf.max_downtime_ms * 1e-3;

	/* It will not get better than now. */
	if (least > v->expected_seconds || least <= (double)p->budget_ns * 1e-9)
		least = v->expected_seconds * 1.02;
	if (least > most)
		return hopeless(p, v);
	p->budget_ns = (uint64_t)(least * 1e9);
	pthread_mutex_lock(&p->lock);
	p->status.downtime_budget_ms = (unsigned int)ceil(least * 1e3);
	pthread_mutex_unlock(&p->lock);
	return 0;
}

static int throttle(struct precopy *p, const struct predict_verdict *v)
{
	unsigned int now = p->status.throttle, want;
	int err;

	if (!p->ops->throttle || now == THROTTLE_MOST || v->overhead)
		return raise_budget(p, v);
	/* Of what is left to the vCPUs now. */
	want = 100 - (unsigned int)((100 - now) * v->share);
	if (want < now + THROTTLE_STEP)
		want = now + THROTTLE_STEP;
	if (want > THROTTLE_MOST)
		want = THROTTLE_MOST;
	err = p->ops->throttle(p->vm, want);
	if (err)
		return precopy_fail(p, err, "vCPUs cannot be throttled: %s",
				    strerror(-err));
	predict_reset(&p->predict);
	pthread_mutex_lock(&p->lock);
	p->status.throttle = want;
	pthread_mutex_unlock(&p->lock);
	return 0;
}

static int on_stall(struct precopy *p, const struct predict_verdict *v)
{
	p->overheads = v->overhead ? p->overheads + 1 : 0;
	/* The first harvests find most and take longest: while they get shorter. */
	if (v->overhead && p->shorter && p->overheads <= PATIENT_ROUNDS)
		return 0;
	switch (p->conf.on_stall) {
	case PRECOPY_THROTTLE: return throttle(p, v);
	case PRECOPY_RAISE: return raise_budget(p, v);
	default: return hopeless(p, v);
	}
}

/*
 * It fits. A round that takes next to no time and leaves much less is worth it all the
 * same: downtime is what the users of the guest see.
 */
static bool polish(const struct precopy *p, uint64_t pages, unsigned int done)
{
	double least = PREDICT_ROUND_TRIPS + (double)p->least_ns * 1e-9;

	return done < POLISH_ROUNDS && pages > SMALL_PAGES &&
	       predict_pays(&p->predict, least, POLISH_NS * 1e-9);
}

/* Until the rest fits the budget: then it is in p->bitmap. */
static int rounds(struct precopy *p)
{
	struct predict_verdict v;
	unsigned int polished = 0;
	int err;

	precopy_phase(p, PRECOPY_ROUNDS);
	for (unsigned int round = 1;; round++) {
		uint64_t last = p->harvested_ns, pages;
		double share = round == 1 ? dirty_set_share(p->dirty) : 1;

		err = one_round(p, round);
		if (err)
			return err;
		pages = precopy_harvest(p, true);
		note_harvest(p, round);
		dirty_set_hasty(p->dirty, true);
		judge(p, (double)(p->harvested_ns - last) * 1e-9 * share, pages, &v);
		if (v.fits) {
			if (!polish(p, pages, polished++))
				return 0;
			continue;
		}
		if (round >= MAX_ROUNDS)
			v.never = true;
		if (!v.never)
			continue;
		err = on_stall(p, &v);
		if (err)
			return err;
		/* The budget may have been raised to what it takes now. */
		if (v.expected_seconds <= (double)p->budget_ns * 1e-9)
			return 0;
	}
}

/* ---- undoing ----------------------------------------------------------------------- */

static void unthrottle(struct precopy *p)
{
	if (p->status.throttle)
		p->ops->throttle(p->vm, 0);
}

/* The vCPUs first: everything else can wait. */
static void resume(struct precopy *p)
{
	if (p->paused && !FAULT(FAULT_STOP_AFTER_RESUME))
		p->ops->resume(p->vm);
	p->paused = false;
	unthrottle(p);
}

static void tell_peer(struct precopy *p)
{
	const char *why = p->status.message;

	if (!p->sender || atomic_load(&p->lost) || atomic_load(&p->committed))
		return;
	chan_set_write_timeout(p->peer.chan[0], LAST_WORDS_MS);
	if (p->status.err == -ECANCELED)
		sender_control(p->sender, WIRE_CANCEL, 0, NULL, 0);
	else
		sender_control(p->sender, WIRE_ERROR, 0, why, (uint32_t)strlen(why));
}

static void undo(struct precopy *p, int err)
{
	resume(p);
	if (err != -ETIMEDOUT)
		tell_peer(p);
}

static void close_all(struct precopy *p)
{
	struct sender *s = p->sender;

	if (s) {
		pthread_mutex_lock(&p->lock);
		sender_stats(s, &p->status.sent);
		p->sender = NULL;
		pthread_mutex_unlock(&p->lock);
		sender_destroy(s);
	}
	if (p->peer_opened)
		peer_close(&p->peer);
	p->peer_opened = false;
}

int precopy_run(struct precopy *p)
{
	enum precopy_phase last = PRECOPY_DONE;
	int err;

	p->began_ns = clock_ns();
	err = connect_peer(p);
	if (!err)
		err = make_sender(p);
	if (!err)
		err = start_logs(p);
	if (!err)
		err = rounds(p);
	if (!err)
		err = precopy_hand_over(p);
	if (err == -EBUSY && atomic_load(&p->committed)) {
		last = PRECOPY_UNCERTAIN;
		unthrottle(p); /* whoever resumes it */
	} else if (err) {
		undo(p, err);
		last = err == -ECANCELED ? PRECOPY_CANCELLED : PRECOPY_FAILED;
	} else {
		pthread_mutex_lock(&p->lock);
		p->status.total_us = (clock_ns() - p->began_ns) / 1000;
		pthread_mutex_unlock(&p->lock);
		p->ops->release(p->vm);
	}
	close_all(p);
	if (!err)
		err = precopy_audit(p);
	dirty_set_stop(p->dirty);
	pthread_mutex_lock(&p->lock);
	p->status.elapsed_ms = (clock_ns() - p->began_ns) / 1000000;
	p->status.phase = last;
	pthread_mutex_unlock(&p->lock);
	return err;
}

/* ---- life -------------------------------------------------------------------------- */

static bool conf_ok(const struct precopy_conf *c)
{
	return c->uri && c->streams && c->streams <= WIRE_MAX_STREAMS && c->downtime_ms;
}

/* Return: a copy, NULL for NULL; *@err: -ENOMEM */
static char *copy(const char *s, int *err)
{
	char *c = s ? strdup(s) : NULL;

	if (s && !c)
		*err = -ENOMEM;
	return c;
}

int precopy_create(const struct precopy_conf *conf, const struct ram *ram,
		   struct dirty_set *dirty, const char *config_json,
		   const struct precopy_vm_ops *ops, void *vm, struct precopy **out)
{
	struct precopy *p;
	int err = 0;

	if (!conf_ok(conf))
		return -EINVAL;
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->conf = *conf;
	p->conf.uri = copy(conf->uri, &err);
	p->conf.tls.dir = copy(conf->tls.dir, &err);
	p->conf.tls.hostname = copy(conf->tls.hostname, &err);
	p->config = copy(config_json, &err);
	if (!p->conf.connect_timeout_ms)
		p->conf.connect_timeout_ms = CHAN_HANDSHAKE_MS;
	p->ram = ram;
	p->dirty = dirty;
	p->ops = ops;
	p->vm = vm;
	p->budget_ns = conf->downtime_ms * 1000000ULL;
	predict_init(&p->predict);
	p->status.audit_bad = -1;
	p->status.eta_ms = UINT64_MAX;
	p->status.ram_bytes = ram->bytes;
	p->status.downtime_budget_ms = conf->downtime_ms;
	pthread_mutex_init(&p->lock, NULL);
	pthread_mutex_init(&p->find_lock, NULL);
	if (err)
		precopy_destroy(p);
	else
		*out = p;
	return err;
}

void precopy_destroy(struct precopy *p)
{
	if (!p)
		return;
	digest_fini(&p->digest);
	free(p->bitmap);
	free(p->populated);
	for (unsigned int i = 0; i < DIRTY_BY_COUNT; i++)
		free(p->by[i]);
	free((char *)(uintptr_t)p->conf.uri);
	free((char *)(uintptr_t)p->conf.tls.dir);
	free((char *)(uintptr_t)p->conf.tls.hostname);
	free(p->config);
	pthread_mutex_destroy(&p->lock);
	pthread_mutex_destroy(&p->find_lock);
	free(p);
}

bool precopy_cancel(struct precopy *p)
{
	bool late;

	pthread_mutex_lock(&p->lock);
	late = atomic_load(&p->committed);
	if (!late) {
		atomic_store(&p->cancelled, true);
		if (p->sender)
			sender_cancel(p->sender);
	}
	pthread_mutex_unlock(&p->lock);
	return !late;
}

void precopy_set_bandwidth(struct precopy *p, uint64_t bytes_per_s)
{
	pthread_mutex_lock(&p->lock);
	p->conf.bandwidth = bytes_per_s;
	if (p->sender)
		sender_set_bandwidth(p->sender, bytes_per_s);
	pthread_mutex_unlock(&p->lock);
}

void precopy_status(struct precopy *p, struct precopy_status *st)
{
	pthread_mutex_lock(&p->lock);
	*st = p->status;
	if (p->sender) {
		sender_stats(p->sender, &st->sent);
		if (st->sent.left)
			st->remaining = st->sent.left * RAM_PAGE_SIZE;
	}
	if (st->phase != PRECOPY_IDLE && st->phase < PRECOPY_DONE)
		st->elapsed_ms = (clock_ns() - p->began_ns) / 1000000;
	pthread_mutex_unlock(&p->lock);
}
