/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * nap: shall a worker that adapts wait for the next burst awake, or asleep?
 *
 * A wake-up is an interrupt to another CPU, dear where that one is virtual and halted, and who
 * pays is the driver's CPU. Besides, a ring deep enough for who is woken late (xsk_rx_deep())
 * has cold buffers. Both keep bursts so far apart that the worker sleeps before each of
 * them, and nothing ends that by itself. So:
 *
 * - bursts closer than NAP_GAP_NS are waited for awake, and so are bursts closer than
 *   NAP_GAP_BUSY_NS where work takes a sixth of the time and more;
 * - bursts closer than NAP_MAX_NS are tried both ways, NAP_TRY_NS each, and waited for awake
 *   as long as an eighth more comes so. After NAP_HOLD such tries both are tried again; what
 *   won nothing is tried again after twice as many as the last time;
 * - all else is slept for. Nobody waits awake for longer than NAP_MAX_NS.
 *
 * One thread, the worker's. No system calls, no clock of its own.
 */
#ifndef GN_NAP_H
#define GN_NAP_H

#include <stdbool.h>
#include <stdint.h>

#define NAP_GAP_NS	50000
#define NAP_GAP_BUSY_NS 120000
#define NAP_SHARE	6      /* of the time */
#define NAP_MAX_NS	200000 /* as long as KVM polls for a halted CPU */
#define NAP_TIME_NS	240000 /* longer times count as this: a lone one changes little */
#define NAP_TRY_NS	20000000 /* of which the second half counts */
#define NAP_HOLD	50
#define NAP_REST	8 /* tries; doubled up to NAP_REST_MAX */
#define NAP_REST_MAX	64

struct nap {
	uint64_t gap, work; /* moving averages over about eight bursts, ns */
	enum nap_state {
		NAP_ASLEEP,
		NAP_TRYING, /* awake for one try */
		NAP_HELD,   /* awake: it has won */
	} state;
	uint32_t left;		 /* tries until another state's turn */
	uint32_t rest;		 /* tries asleep after the next trial that wins nothing */
	uint64_t since, packets; /* the try that runs: its begin, 0: none; what counts */
	uint64_t asleep_rate;	 /* packets a second of the last try asleep */
};

/** nap_init() - before the first burst */
void nap_init(struct nap *n);

/**
 * nap_burst() - a burst has come
 * @gap_ns:	since the one before
 * @packets:	in it
 */
void nap_burst(struct nap *n, uint64_t now_ns, uint64_t gap_ns, uint32_t packets);

/** nap_work() - a burst took @ns until it was delivered */
void nap_work(struct nap *n, uint64_t ns);

/** nap_stays_awake() - is the next burst worth waiting for, after @idle_ns without one? */
bool nap_stays_awake(const struct nap *n, uint64_t idle_ns);

#endif
