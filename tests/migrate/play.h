/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * play: a destination that receives a whole machine, and then does as the test says.
 *
 * It is made of the receiver that the product has, serves one migration of one stream on
 * a thread of its own, and runs nothing.
 */
#ifndef TEST_PLAY_H
#define TEST_PLAY_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "../../vm-migrate/stream/receiver.h"

enum play_act {
	PLAY_NO_READY,	   /* takes HELLO and CONFIG, and says nothing */
	PLAY_NO_VERIFIED,  /* takes all up to DIGEST, and says nothing */
	PLAY_WRONG_DIGEST, /* says VERIFIED of another digest */
	/* After HANDOVER: */
	PLAY_RUNNING, /* says RUNNING */
	PLAY_SILENT,  /* says nothing, until play_stop() */
	PLAY_CLOSE,   /* closes in order */
	PLAY_TEAR,    /* closes without the end of TLS */
	PLAY_ERROR,   /* says ERROR */
	PLAY_CANCEL,  /* says CANCEL */
};

struct play {
	enum play_act act;
	void (*at_handover)(void *arg); /* before that act; NULL: nothing */
	void *arg;

	struct chan_listener *l;
	struct chan *chan;
	pthread_t thread;
	bool quit; /* atomic */
	uint32_t seq, out_seq;
	struct ram ram;
	struct digest digest;
	struct receiver *r;
	bool handed_over; /* HANDOVER came */
	int err;	  /* of the receiver; valid after play_stop() */
};

/** play_start() - listen on @uri; act, at_handover and arg are set. Return: 0, -errno */
int play_start(struct play *p, const char *uri, const struct chan_tls *tls);
const char *play_uri(const struct play *p);
/** play_wait() - until its thread has ended */
void play_wait(struct play *p);
/** play_stop() - end it, if it has not ended */
void play_stop(struct play *p);

#endif
