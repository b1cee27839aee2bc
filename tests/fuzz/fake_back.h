/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fake_back: a vhost-user back end, played where the front end calls the socket, without a
 * thread: connect(), sendmsg(), recv() and shutdown() of the program.
 *
 * It answers well but for the one request that it was told to spoil. What it is given is
 * checked: rings that lie in memory, features that were offered, a log before it has to be
 * written. And it knows who may write memory: a connection whose rings were given and not
 * taken back by an answer, nor by its end.
 */
#ifndef FUZZ_FAKE_BACK_H
#define FUZZ_FAKE_BACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../vm-migrate/ram.h"

enum fake_back_spoil {
	BACK_FINE,
	BACK_RAW,    /* other bytes instead of the answer */
	BACK_VALUE,  /* the same with another value */
	BACK_CUT,    /* as much of it, then the end */
	BACK_END,    /* hung up before the request */
	BACK_RESET,  /* hung up, with bytes of ours unread */
	BACK_SILENT, /* no answer, and no end when we hang up */
	BACK_FULL,   /* it does not read */
	BACK_SPOILS
};

/** fake_back_begin() - no connections; @features: of virtio that it offers */
void fake_back_begin(const struct ram *ram, uint64_t features);
/** fake_back_spoil() - the request after @after others; @raw: [@len] kept by the caller */
void fake_back_spoil(enum fake_back_spoil how, unsigned int after, const uint8_t *raw,
		     size_t len);
/** fake_back_let_go() - connections that we gave up end */
void fake_back_let_go(void);
/** fake_back_forget() - the front end is gone, and with it all connections */
void fake_back_forget(void);
uint64_t fake_back_features(void);
/** fake_back_allow() - @features: all that a driver may ever have taken */
void fake_back_allow(uint64_t features);
/** fake_back_must_log() - rings are given with a log from now on, or need not be */
void fake_back_must_log(bool must);

/** fake_back_writes() - may any connection write memory? Unless @log it counts only if it does
 * not log */
bool fake_back_writes(bool log);
/** fake_back_marks() - put bytes into the log, at a place of it */
void fake_back_marks(uint64_t at, const uint8_t *p, size_t len);

#endif
