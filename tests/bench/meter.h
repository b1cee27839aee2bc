/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the readers behind a port share: they run as long as the port does, count the
 * generator's frames, and say on SIGUSR1 what came since the last time. So one start,
 * with its handshakes and memory, serves measurements at many rates, and no packet of
 * any is missed: what was sent and did not arrive is lost. One thread uses it.
 */
#ifndef GN_BENCH_METER_H
#define GN_BENCH_METER_H

#include <stdbool.h>
#include <sys/uio.h>

#include "bench.h"

struct meter {
	const char *subject;
	struct bench_result res;
	struct bench_lat lat;
	uint64_t first_ns, last_ns; /* arrivals since the last report; 0: none */
};

/** meter_init() - catch SIGUSR1, SIGTERM, SIGINT. Return: 0, -ENOMEM */
int meter_init(struct meter *m, const char *subject);
void meter_fini(struct meter *m);

/** meter_arrived() - something came at @now_ns */
static inline void meter_arrived(struct meter *m, uint64_t now_ns)
{
	if (!m->first_ns)
		m->first_ns = now_ns;
	m->last_ns = now_ns;
}

/** meter_wanted() - has SIGUSR1 come, and no report been printed since? */
bool meter_wanted(void);

/**
 * meter_idle() - to be called when there is nothing to receive, at least every 10 ms
 *
 * If a report is wanted and nothing came for 50 ms, print it, see bench_print(), and
 * begin anew. What arrived all at once has no rate: 1 ns.
 *
 * Return: was it printed?
 */
bool meter_idle(struct meter *m);

/**
 * frame_count() - add one frame of the generator's, or a super-packet of them
 * @iov:	[@niov] its bytes, from the Ethernet header on; headers in one piece
 * @gso_size:	payload of a segment, 0: it is a single one
 * @lat:	NULL: do not look at the stamps
 *
 * Segments count as packets with their own headers, as they were on the wire.
 *
 * Return: number of segments, 0: not the generator's, counted as bad
 */
unsigned int frame_count(const struct iovec *iov, unsigned int niov, uint32_t gso_size,
			 struct bench_result *res, struct bench_lat *lat,
			 uint64_t now_ns);

#endif
