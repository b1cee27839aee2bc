/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * precopy_peer: the connections of a migration's source, and what the destination says.
 *
 * A thread reads stream 0 all the time, so that an ERROR interrupts a round that blocks.
 * The engine thread waits for the answer it needs. All functions on the engine thread;
 * @lost is called on the reading thread.
 */
#ifndef VMM_PRECOPY_PEER_H
#define VMM_PRECOPY_PEER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "../stream/chan.h"
#include "precopy.h"
#include "../stream/wire.h"

struct peer {
	struct chan *chan[WIRE_MAX_STREAMS];
	uint32_t seq[WIRE_MAX_STREAMS];
	unsigned int streams;

	pthread_t thread;
	bool running;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	uint32_t seen;		   /* bit n: frame type n came */
	uint64_t synced;	   /* number of the last SYNC that came back */
	struct wire_digest digest; /* of VERIFIED */
	int err;		   /* the end of it */
	bool over;		   /* no RUNNING can come any more, see wire.h */
	char why[WIRE_MAX_TEXT + 64];
	void (*lost)(void *arg);
	void *arg;
};

/**
 * peer_open() - connect all streams, send HELLO and CONFIG, start reading
 * @cancelled:	give up when it gets true
 * @lost:	the peer failed; called once, on the reading thread
 *
 * peer_close() even after a failure. Return: 0, -ECANCELED, -errno and why in peer->why
 */
int peer_open(struct peer *p, const struct precopy_conf *conf, const struct ram *ram,
	      const char *config_json, const atomic_bool *cancelled,
	      void (*lost)(void *arg), void *arg);
void peer_close(struct peer *p);

/**
 * peer_await() - until a frame of @type came
 * @cancelled:	give up when it gets true; NULL: never
 *
 * Return: 0; -ECANCELED; -ETIMEDOUT; another -errno: the peer failed, peer->why
 */
int peer_await(struct peer *p, enum wire_type type, unsigned int timeout_ms,
	       const atomic_bool *cancelled);

/** peer_await_sync() - until SYNC number @n came back; else as peer_await() */
int peer_await_sync(struct peer *p, uint64_t n, unsigned int timeout_ms,
		    const atomic_bool *cancelled);

/** peer_unsent() - chan_unsent() of all streams */
size_t peer_unsent(const struct peer *p);

#endif
