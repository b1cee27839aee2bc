/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * stat: how a counter is written and read.
 *
 * A counter is one aligned uint64_t with one writer, the worker that owns it;
 * anyone reads it. Relaxed atomics say so to the compiler and to the thread
 * sanitizer, and cost what plain loads and stores cost: with one writer no
 * read-modify-write has to be atomic, so there is no lock prefix. Counters are
 * not ordered against each other; a reader's sums may be a burst apart.
 */
#ifndef GN_STAT_H
#define GN_STAT_H

#include <stdint.h>

/** stat_add() - the counter's one writer: add @n */
static inline void stat_add(uint64_t *c, uint64_t n)
{
	__atomic_store_n(c, __atomic_load_n(c, __ATOMIC_RELAXED) + n, __ATOMIC_RELAXED);
}

/** stat_read() - any thread */
static inline uint64_t stat_read(const uint64_t *c)
{
	return __atomic_load_n(c, __ATOMIC_RELAXED);
}

#endif
