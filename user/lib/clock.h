/* SPDX-License-Identifier: BSD-2-Clause */
/* clock: the one clock of everything that measures, CLOCK_MONOTONIC in ns; and the one of
 * leases, which run on while the machine is suspended. Any thread. */
#ifndef GN_CLOCK_H
#define GN_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/** clock_boot_ns() - CLOCK_BOOTTIME */
static inline uint64_t clock_boot_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

#endif
