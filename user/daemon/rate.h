/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * rate: how fast an instance may send, over all its queues.
 *
 * A token bucket, kept as one number: the time until which what was sent would keep a
 * link of that rate busy. Sending is allowed while that time is not ahead of now, and
 * moves it on; an idle sender saves up RATE_BURST_NS of it and no more. The frame that
 * passes "now" is sent whole, so no frame is too long, and the next one waits for it.
 *
 * Any worker of the instance, at once, without a lock: a check that two of them pass
 * together costs a frame's time, which both have to wait for later.
 */
#ifndef GN_RATE_H
#define GN_RATE_H

#include <stdbool.h>
#include <stdint.h>

#define RATE_MIN      64000ULL	       /* bits/s: a full frame waits some 0.2 s */
#define RATE_MAX      1000000000000ULL /* bits/s */
#define RATE_BURST_NS 4000000ULL       /* sent at line rate after a pause */

struct rate {
	uint64_t bits;	     /* per second; 0: no limit */
	uint64_t busy_until; /* CLOCK_MONOTONIC, ns; atomic */
};

/** rate_wait() - ns until the next frame may be sent; 0: now */
static inline uint64_t rate_wait(const struct rate *r, uint64_t now_ns)
{
	uint64_t busy = __atomic_load_n(&r->busy_until, __ATOMIC_RELAXED);

	return busy > now_ns ? busy - now_ns : 0;
}

/** rate_charge() - a frame of @bytes is sent; up to 64 KiB */
static inline void rate_charge(struct rate *r, uint64_t now_ns, uint32_t bytes)
{
	uint64_t cost = (uint64_t)bytes * 8 * 1000000000 / r->bits;
	uint64_t oldest = now_ns > RATE_BURST_NS ? now_ns - RATE_BURST_NS : 0;
	uint64_t busy = __atomic_load_n(&r->busy_until, __ATOMIC_RELAXED), next;

	do {
		next = (busy > oldest ? busy : oldest) + cost;
	} while (!__atomic_compare_exchange_n(&r->busy_until, &busy, next, true,
					      __ATOMIC_RELAXED, __ATOMIC_RELAXED));
}

#endif
