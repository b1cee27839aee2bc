// SPDX-License-Identifier: BSD-2-Clause
/*
 * How far apart are two CPUs? A cache line goes back and forth between them.
 *
 *	pingpong CPU CPU	prints ns for one way
 *
 * A hypervisor moves virtual CPUs about: two of them share a core, a cache, or nothing.
 * Whatever hands packets from one to the other is fast or slow with it.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

#define ROUNDS 500 /* there and back, in one try: too short to be preempted in most */
#define TRIES  200

static _Alignas(64) _Atomic unsigned int ball;

static int pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((unsigned int)cpu, &set);
	return sched_setaffinity(0, sizeof(set), &set) ? -errno : 0;
}

static void *other(void *arg)
{
	if (pin(*(int *)arg))
		return NULL;
	/* Odd: ours. Both sides' accesses are a pair of acquire and release. */
	for (unsigned int i = 1; i < 2 * ROUNDS * TRIES; i += 2) {
		while (atomic_load_explicit(&ball, memory_order_acquire) != i)
			;
		atomic_store_explicit(&ball, i + 1, memory_order_release);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	int a = argc == 3 ? atoi(argv[1]) : -1, b = argc == 3 ? atoi(argv[2]) : -1, err;
	double best = 0;
	pthread_t t;

	if (a < 0 || b < 0 || a == b) {
		fprintf(stderr, "pingpong: two different CPUs are needed\n");
		return 2;
	}
	err = pin(b); /* may we? the thread cannot say */
	if (!err)
		err = pin(a);
	if (!err)
		err = -pthread_create(&t, NULL, other, &b);
	if (err) {
		fprintf(stderr, "pingpong: %s\n", strerror(-err));
		return 1;
	}
	/* The fastest try: nobody was preempted in it. */
	for (unsigned int i = 0; i < TRIES; i++) {
		uint64_t t0 = bench_now();
		double ns;

		for (unsigned int k = 0; k < ROUNDS; k++) {
			unsigned int n = 2 * (i * ROUNDS + k);

			atomic_store_explicit(&ball, n + 1, memory_order_release);
			while (atomic_load_explicit(&ball, memory_order_acquire) != n + 2)
				;
		}
		ns = (double)(bench_now() - t0) / (2.0 * ROUNDS);
		if (!i || ns < best)
			best = ns;
	}
	pthread_join(t, NULL);
	printf("%.1f\n", best);
	return 0;
}
