/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the benchmark's receivers share: when to measure, CPU time of the receive
 * path on all CPUs, latency from the stamps in the payload. One thread uses it.
 *
 * COMMON options of every receiver: --seconds S, how long to measure; --warmup S, time
 * after the first packet that does not count; --busy CPU, measure CPU time, the
 * generator being on CPU.
 */
#ifndef GN_BENCH_H
#define GN_BENCH_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BENCH_MAX_SAMPLES (1U << 20) /* latencies kept */

/* SIGTERM or SIGINT arrived, after bench_signals(). */
extern volatile sig_atomic_t bench_stop;

/** bench_signals() - end loops by bench_stop, and system calls by EINTR */
void bench_signals(void);

/** bench_now() - CLOCK_MONOTONIC, ns: the clock of the stamps */
uint64_t bench_now(void);

/**
 * bench_busy_start() - measure CPU time
 * @gen_cpu:	the generator's CPU: of it only the network softirqs count, of the others
 *		all that is not idle
 *
 * Return: 0, -errno (said on stderr). Without it results have no CPU time.
 */
int bench_busy_start(unsigned int gen_cpu);

/**
 * bench_busy_process() - the same, but beside the softirqs count only process @pid,
 * all its threads, in kernel and user space
 */
int bench_busy_process(unsigned int gen_cpu, int pid);

/** bench_busy_ns() - CPU time up to now, 0 if it is not measured; differences tell */
uint64_t bench_busy_ns(void);

/*
 * The measured time: it begins @warm_ns after the first packet and takes @len_ns.
 * A receiver asks bench_window_state() once a burst.
 */
enum bench_state {
	BENCH_BEFORE, /* do not count */
	BENCH_BEGIN,  /* said once: reset counters */
	BENCH_DURING,
	BENCH_DONE,
};

struct bench_window {
	uint64_t warm_ns, len_ns, give_up_ns; /* no packet for so long: done */
	uint64_t created, first, begin, end;  /* times; 0: not yet */
	uint64_t busy_ns; /* CPU time of the receive path; set when done */
	bool begun;
};

/** bench_window_init() - times in seconds; gives up 10 s after the last-due event */
void bench_window_init(struct bench_window *w, double warm_s, double len_s);

/** bench_window_state() - @packets: received since the last call; reads the clock */
enum bench_state bench_window_state(struct bench_window *w, unsigned int packets);

/* Latencies: kept up to BENCH_MAX_SAMPLES, ns. */
struct bench_lat {
	uint32_t *ns;
	size_t n;
};

/** bench_lat_init() - Return: 0, -ENOMEM */
int bench_lat_init(struct bench_lat *l);

/** bench_lat_add() - @payload: TCP payload of one segment, @len bytes; unstamped: ignored
 */
void bench_lat_add(struct bench_lat *l, const void *payload, size_t len, uint64_t now_ns);

struct bench_result {
	uint64_t packets, frames; /* segments, and what they arrived in */
	uint64_t frame_bytes;	  /* bytes as on the wire */
	uint64_t agg_ns;	  /* time spent aggregating, 0: not measured */
	uint64_t bad;		  /* frames that were not the generator's */
};

/** bench_print() - one JSON object, one line */
void bench_print(const char *subject, const struct bench_window *w,
		 const struct bench_result *r, struct bench_lat *l);

#endif
