// SPDX-License-Identifier: BSD-2-Clause
/* precopy_peer: see precopy_peer.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "../../user/lib/clock.h"
#include "../text.h"
#include "precopy_peer.h"
#include "../stream/receiver.h"

#define SLICE_MS 20 /* to look at "cancelled" */
#define ANSWERS                                                                          \
	(WIRE_BIT(WIRE_READY) | WIRE_BIT(WIRE_SYNC) | WIRE_BIT(WIRE_VERIFIED) |          \
	 WIRE_BIT(WIRE_RUNNING) | WIRE_BIT(WIRE_ERROR) | WIRE_BIT(WIRE_CANCEL) |         \
	 WIRE_BIT(WIRE_KEEPALIVE))

/* ---- what it says ------------------------------------------------------------------ */

static void end(struct peer *p, int err, bool over, const char *why)
{
	pthread_mutex_lock(&p->lock);
	p->err = err;
	p->over = over;
	snprintf(p->why, sizeof(p->why), "%s", why);
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
	p->lost(p->arg);
}

/* Return: 0: go on */
static int on_frame(struct peer *p, const struct wire_head *h, char *payload)
{
	char why[WIRE_MAX_TEXT + 32];

	switch (h->type) {
	case WIRE_SYNC:
	case WIRE_VERIFIED:
	case WIRE_READY:
	case WIRE_RUNNING:
		pthread_mutex_lock(&p->lock);
		if (h->type == WIRE_VERIFIED)
			memcpy(&p->digest, payload, sizeof(p->digest));
		if (h->type == WIRE_SYNC)
			p->synced = h->arg;
		p->seen |= 1U << h->type;
		pthread_cond_broadcast(&p->changed);
		pthread_mutex_unlock(&p->lock);
		/* Nothing comes after that; what ends the connection is no failure. */
		return h->type == WIRE_RUNNING;
	case WIRE_ERROR:
		if (payload)
			text_clean(payload);
		snprintf(why, sizeof(why), "the destination says: %s",
			 payload ? payload : "it failed");
		end(p, -EREMOTEIO, true, why);
		return 1;
	case WIRE_CANCEL: end(p, -ECANCELED, true, "the destination cancelled"); return 1;
	default: return 0; /* KEEPALIVE */
	}
}

/*
 * After a connection ended, can the machine be running there? See wire.h. -ENODATA is an
 * end in order: FIN, or with TLS what the peer signed.
 */
static bool is_over(const struct peer *p, int err)
{
	if (chan_is_tls(p->chan[0]))
		return err == -ENODATA;
	return err == -ENODATA || err == -EPIPE || err == -ECONNRESET;
}

static void *peer_main(void *arg)
{
	struct peer *p = arg;
	uint32_t seq = 0;
	int stop = 0;

	while (!stop) {
		struct wire_head h;
		void *payload = NULL;
		const char *why;
		int err = receiver_head(p->chan[0], seq++, ANSWERS, &h, &payload, &why);

		if (err) {
			if (err == -ENODATA || err == -EPIPE || err == -ECONNRESET)
				why = "the destination closed the connection";
			end(p, err == -ENODATA ? -ECONNRESET : err, is_over(p, err), why);
			break;
		}
		stop = on_frame(p, &h, payload);
		free(payload);
	}
	return NULL;
}

/* Under the lock. A frame of @type, or the SYNC @n */
static bool has_come(const struct peer *p, enum wire_type type, uint64_t n)
{
	return type == WIRE_SYNC ? p->synced >= n : p->seen & 1U << type;
}

static int await(struct peer *p, enum wire_type type, uint64_t n, unsigned int timeout_ms,
		 const atomic_bool *cancelled)
{
	uint64_t deadline = clock_ns() + (uint64_t)timeout_ms * 1000000;
	int err = 0;

	pthread_mutex_lock(&p->lock);
	while (!has_come(p, type, n)) {
		struct timespec ts;

		err = p->err;
		if (!err && cancelled && atomic_load(cancelled))
			err = -ECANCELED;
		if (!err && clock_ns() >= deadline) {
			err = -ETIMEDOUT;
			snprintf(p->why, sizeof(p->why),
				 "the destination did not answer within %u s",
				 timeout_ms / 1000);
		}
		if (err)
			break;
		clock_gettime(CLOCK_MONOTONIC, &ts);
		ts.tv_nsec += SLICE_MS * 1000000L;
		if (ts.tv_nsec >= 1000000000) {
			ts.tv_sec++;
			ts.tv_nsec -= 1000000000;
		}
		pthread_cond_timedwait(&p->changed, &p->lock, &ts);
	}
	pthread_mutex_unlock(&p->lock);
	return err;
}

int peer_await(struct peer *p, enum wire_type type, unsigned int timeout_ms,
	       const atomic_bool *cancelled)
{
	return await(p, type, 0, timeout_ms, cancelled);
}

int peer_await_sync(struct peer *p, uint64_t n, unsigned int timeout_ms,
		    const atomic_bool *cancelled)
{
	return await(p, WIRE_SYNC, n, timeout_ms, cancelled);
}

size_t peer_unsent(const struct peer *p)
{
	size_t sum = 0;

	for (unsigned int i = 0; i < p->streams; i++)
		sum += chan_unsent(p->chan[i]);
	return sum;
}

/* ---- connecting -------------------------------------------------------------------- */

static int send_frame(struct peer *p, unsigned int stream, enum wire_type type,
		      const void *payload, uint32_t len)
{
	struct wire_head h;
	struct iovec iov[2] = { { &h, sizeof(h) }, { (void *)(uintptr_t)payload, len } };

	wire_head_init(&h, type, 0, 0);
	wire_seal(&h, p->seq[stream]++, len, wire_sum(payload, len));
	return chan_write(p->chan[stream], iov, 2);
}

static uint32_t fill_hello(struct wire_hello *hello, const struct ram *ram,
			   unsigned int stream)
{
	hello->stream = stream;
	hello->nblocks = stream ? 0 : ram->nblocks;
	for (uint32_t i = 0; i < hello->nblocks; i++)
		hello->block[i] =
			(struct wire_block){ ram->block[i].gpa, ram->block[i].size };
	return (uint32_t)(sizeof(*hello) + hello->nblocks * sizeof(hello->block[0]));
}

static int connect_all(struct peer *p, const struct precopy_conf *conf,
		       const struct ram *ram, const atomic_bool *cancelled)
{
	union {
		struct wire_hello hello;
		uint8_t bytes[sizeof(struct wire_hello) +
			      RAM_MAX_BLOCKS * sizeof(struct wire_block)];
	} u = { .hello = { .streams = conf->streams, .page_size = RAM_PAGE_SIZE } };
	int err;

	if (getrandom(u.hello.id, sizeof(u.hello.id), 0) != sizeof(u.hello.id))
		return -errno;
	for (unsigned int i = 0; i < conf->streams; i++) {
		err = chan_connect(conf->uri, &conf->tls, (int)conf->connect_timeout_ms,
				   cancelled, &p->chan[i]);
		if (err)
			return err;
		p->streams = i + 1;
		err = send_frame(p, i, WIRE_HELLO, &u, fill_hello(&u.hello, ram, i));
		if (err)
			return err;
	}
	return 0;
}

int peer_open(struct peer *p, const struct precopy_conf *conf, const struct ram *ram,
	      const char *config_json, const atomic_bool *cancelled,
	      void (*lost)(void *arg), void *arg)
{
	pthread_condattr_t attr;
	int err;

	*p = (struct peer){ .lost = lost, .arg = arg };
	pthread_mutex_init(&p->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&p->changed, &attr);
	pthread_condattr_destroy(&attr);
	err = connect_all(p, conf, ram, cancelled);
	if (!err)
		err = send_frame(p, 0, WIRE_CONFIG, config_json,
				 (uint32_t)strlen(config_json));
	if (err) {
		if (p->streams && (err == -EPIPE || err == -ECONNRESET))
			chan_last_words(p->chan[p->streams - 1]);
		snprintf(p->why, sizeof(p->why), "%s", chan_error());
		return err;
	}
	err = -pthread_create(&p->thread, NULL, peer_main, p);
	p->running = !err;
	if (err)
		snprintf(p->why, sizeof(p->why), "no more threads");
	return err;
}

void peer_close(struct peer *p)
{
	if (p->running) {
		chan_stop_reading(p->chan[0]);
		pthread_join(p->thread, NULL);
	}
	for (unsigned int i = 0; i < p->streams; i++)
		chan_close(p->chan[i]);
	pthread_cond_destroy(&p->changed);
	pthread_mutex_destroy(&p->lock);
}
