// SPDX-License-Identifier: BSD-2-Clause
/*
 * lib_sync: a lock and a barrier out of the atomics. Contract in ghostmem.h; any thread.
 *
 * Lock: the word is 0, or the number of the thread that holds it: random, so that it is
 * unique over all nodes without an authority; whoever unlocks must be whoever locked.
 *
 * Barrier: number of the round << 32 | how many wait. When all have come, (1 << 32) -
 * parties is added: with one atomic the round is over and the count 0 again, so those who
 * come for the next round need not wait until everybody has left. The last one to come
 * does so, or who sees before it that all are there: then nobody may leave any more, for
 * the last one has not waited.
 */
#include <errno.h>
#include <sys/random.h>
#include <time.h>

#include "lib.h"
#include "../../lib/clock.h"

#define WAIT_MIN_NS 20000
#define WAIT_MAX_NS 1000000

/* Wait, each time twice as long. Return: false: the time is up */
static bool wait_more(uint64_t *ns, uint64_t start, int timeout_ms)
{
	struct timespec ts = { .tv_nsec = (long)*ns };

	if (timeout_ms >= 0 && clock_ns() - start >= (uint64_t)timeout_ms * 1000000)
		return false;
	nanosleep(&ts, NULL);
	if (*ns < WAIT_MAX_NS)
		*ns *= 2;
	return true;
}

static uint64_t self(void)
{
	static __thread uint64_t number;
	static __thread unsigned int generation;

	while (!number || generation != lib_generation) {
		generation = lib_generation;
		if (getrandom(&number, sizeof(number), 0) != sizeof(number))
			number = 0;
	}
	return number;
}

int ghostmem_lock(struct ghostmem_region *r, uint64_t off, int timeout_ms)
{
	uint64_t start = clock_ns(), ns = WAIT_MIN_NS, old;

	for (;;) {
		int err = ghostmem_compare_swap(r, off, 0, self(), &old);

		if (err || !old)
			return err;
		if (old == self())
			return -EDEADLK;
		if (!wait_more(&ns, start, timeout_ms))
			return -ETIMEDOUT;
	}
}

int ghostmem_unlock(struct ghostmem_region *r, uint64_t off)
{
	uint64_t old;
	int err = ghostmem_compare_swap(r, off, self(), 0, &old);

	return err ? err : old == self() ? 0 : -EPERM;
}

/* All have come, so until the round is over nobody changes @now but to end it. */
static int end_round(struct ghostmem_region *r, uint64_t off, uint64_t now,
		     unsigned int parties)
{
	return ghostmem_compare_swap(r, off, now, now + (1ull << 32) - parties, NULL);
}

int ghostmem_barrier(struct ghostmem_region *r, uint64_t off, unsigned int parties,
		     int timeout_ms)
{
	uint64_t start = clock_ns(), ns = WAIT_MIN_NS, old, now, seen;
	int err;

	if (!parties)
		return -EINVAL;
	err = ghostmem_fetch_add(r, off, 1, &old);
	if (err)
		return err;
	if ((uint32_t)old + 1 == parties)
		return end_round(r, off, old + 1, parties);
	for (;;) {
		err = ghostmem_get(r, off, &now, sizeof(now));
		if (err || now >> 32 != old >> 32)
			return err;
		if ((uint32_t)now == parties)
			return end_round(r, off, now, parties);
		if (wait_more(&ns, start, timeout_ms))
			continue;
		/* Leave, unless somebody comes or leaves at this very moment. */
		err = ghostmem_compare_swap(r, off, now, now - 1, &seen);
		if (err || seen == now)
			return err ? err : -ETIMEDOUT;
	}
}
