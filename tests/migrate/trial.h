/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * trial: one randomised migration, and a verdict.
 *
 * The seed decides everything but the timing: sizes, holes, writers and their logs,
 * sockets, streams, compression, limits, and whether a first attempt is cancelled or made
 * to fail, in which case the machine must go on and a second attempt must succeed.
 */
#ifndef TEST_TRIAL_H
#define TEST_TRIAL_H

#include <stdbool.h>
#include <stdint.h>

struct trial {
	uint64_t seed;
	bool ok;
	char why[300];	/* what was wrong */
	bool cancelled; /* the first attempt was */
	bool failed;	/* the first attempt was made to fail */
	unsigned int streams;
	uint64_t pages, zero, same, rounds, writes;
};

/** trial_run() - t->seed is set, the rest is filled */
void trial_run(struct trial *t);

#endif
