// SPDX-License-Identifier: BSD-2-Clause
/* reserve: pages made ready. Contract in reserve.h; the thread touches its queue alone.
 */
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/mman.h>

#include "reserve.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* 5.14 */
#endif

#define QUEUE 32
/* Bytes between looks at the queue, with the address space locked */
#define SLICE (64u << 10)

struct job {
	const uint8_t *map;
	uint8_t *at;
	uint64_t len;
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t work, idle;
	bool started;
	struct job jobs[QUEUE]; /* the last one is done first */
	unsigned int n;
	const uint8_t *busy;  /* mapping that is being touched */
	uint64_t limit, used; /* of the agent's thread */
} r = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.work = PTHREAD_COND_INITIALIZER,
	.idle = PTHREAD_COND_INITIALIZER,
	.limit = 256ull << 20,
};

static void *run(void *arg)
{
	pthread_mutex_lock(&r.lock);
	for (;;) {
		struct job *j, now;

		while (!r.n)
			pthread_cond_wait(&r.work, &r.lock);
		j = &r.jobs[r.n - 1];
		now = *j;
		if (now.len > SLICE) {
			now.len = SLICE;
			j->at += SLICE;
			j->len -= SLICE;
		} else {
			r.n--;
		}
		r.busy = now.map;
		pthread_mutex_unlock(&r.lock);
		/* A kernel that cannot, or has no memory: pages are made when they come.
		 */
		madvise(now.at, now.len, MADV_POPULATE_WRITE);
		pthread_mutex_lock(&r.lock);
		r.busy = NULL;
		pthread_cond_broadcast(&r.idle);
	}
	return NULL;
}

static bool start(void)
{
	sigset_t all, old;
	pthread_t t;

	if (r.started)
		return true;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r.started = !pthread_create(&t, NULL, run, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r.started)
		pthread_detach(t);
	return r.started;
}

void reserve_limit(uint64_t bytes)
{
	r.limit = bytes;
}

void reserve_ahead(const uint8_t *map, uint8_t *at, uint64_t len)
{
	if (!len || !start())
		return;
	pthread_mutex_lock(&r.lock);
	if (r.n < QUEUE) {
		r.jobs[r.n++] = (struct job){ map, at, len };
		pthread_cond_signal(&r.work);
	}
	pthread_mutex_unlock(&r.lock);
}

uint64_t reserve_first(uint8_t *at, uint64_t len)
{
	uint64_t free_bytes = r.limit > r.used ? r.limit - r.used : 0;

	if (len > free_bytes)
		len = free_bytes & ~(uint64_t)4095;
	r.used += len;
	reserve_ahead(at, at, len);
	return len;
}

void reserve_end(const uint8_t *map, uint64_t used)
{
	unsigned int n = 0;

	r.used -= used;
	pthread_mutex_lock(&r.lock);
	for (unsigned int i = 0; i < r.n; i++)
		if (r.jobs[i].map != map)
			r.jobs[n++] = r.jobs[i];
	r.n = n;
	while (r.busy == map)
		pthread_cond_wait(&r.idle, &r.lock);
	pthread_mutex_unlock(&r.lock);
}
