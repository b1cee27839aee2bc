// SPDX-License-Identifier: BSD-2-Clause
/* What the benchmark's receivers share, see bench.h. */
#include "bench.h"
#include "tests/bench/cpu.skel.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define NS 1000000000ULL

volatile sig_atomic_t bench_stop;

static void on_signal(int sig)
{
	bench_stop = 1;
}

void bench_signals(void)
{
	struct sigaction sa = { .sa_handler = on_signal };

	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
}

static uint64_t clock_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * NS + (uint64_t)ts.tv_nsec;
}

uint64_t bench_now(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

static struct cpu_bpf *cpu_skel;
static unsigned int cpu_gen;
static clockid_t process_clock;
static bool by_process;

int bench_busy_start(unsigned int gen_cpu)
{
	struct cpu_bpf *skel = cpu_bpf__open();
	int err = skel ? 0 : -errno;

	if (!err) {
		skel->rodata->cfg_cpu = gen_cpu;
		err = cpu_bpf__load(skel);
	}
	if (!err)
		err = cpu_bpf__attach(skel);
	if (err) {
		fprintf(stderr, "cannot measure softirqs: %s\n", strerror(-err));
		cpu_bpf__destroy(skel);
		return err;
	}
	cpu_skel = skel;
	cpu_gen = gen_cpu;
	return 0;
}

int bench_busy_process(unsigned int gen_cpu, int pid)
{
	int err = -clock_getcpuclockid(pid, &process_clock);

	if (err) {
		fprintf(stderr, "no process %d to measure: %s\n", pid, strerror(-err));
		return err;
	}
	by_process = true;
	return bench_busy_start(gen_cpu);
}

/*
 * The tick samples who runs, and a load that comes at regular times is in step with it:
 * user and system time would be guesses. Idle time is measured at its ends (NO_HZ), so
 * busy is what remains of a CPU's time.
 */
uint64_t bench_busy_ns(void)
{
	unsigned long long user, nice, sys, idle, iowait;
	uint64_t tick = NS / (uint64_t)sysconf(_SC_CLK_TCK), sum;
	unsigned int cpu;
	char line[512];
	FILE *f;

	if (!cpu_skel)
		return 0;
	if (by_process)
		return cpu_skel->bss->softirq_ns + clock_ns(process_clock);
	f = fopen("/proc/stat", "re");
	if (!f)
		return 0;
	sum = cpu_skel->bss->softirq_ns;
	while (fgets(line, sizeof(line), f))
		/* Not the line of all CPUs, "cpu  ": %u would skip the blanks. */
		if (isdigit((unsigned char)line[3]) &&
		    sscanf(line, "cpu%u %llu %llu %llu %llu %llu", &cpu, &user, &nice,
			   &sys, &idle, &iowait) == 6 &&
		    cpu != cpu_gen)
			sum += clock_ns(CLOCK_BOOTTIME) - (idle + iowait) * tick;
	fclose(f);
	return sum;
}

void bench_window_init(struct bench_window *w, double warm_s, double len_s)
{
	memset(w, 0, sizeof(*w));
	w->warm_ns = (uint64_t)(warm_s * NS);
	w->len_ns = (uint64_t)(len_s * NS);
	w->give_up_ns = 10 * NS;
	w->created = bench_now();
}

enum bench_state bench_window_state(struct bench_window *w, unsigned int packets)
{
	uint64_t now = bench_now();

	if (!w->first) {
		if (packets)
			w->first = now;
		else if (now - w->created > w->give_up_ns)
			return BENCH_DONE;
		return BENCH_BEFORE;
	}
	if (!w->begun) {
		if (now - w->first < w->warm_ns)
			return BENCH_BEFORE;
		w->begun = true;
		w->busy_ns = bench_busy_ns();
		w->begin = bench_now();
		return BENCH_BEGIN;
	}
	if (now - w->begin < w->len_ns)
		return BENCH_DURING;
	w->end = now;
	w->busy_ns = bench_busy_ns() - w->busy_ns;
	return BENCH_DONE;
}

int bench_lat_init(struct bench_lat *l)
{
	l->n = 0;
	l->ns = calloc(BENCH_MAX_SAMPLES, sizeof(*l->ns));
	if (!l->ns)
		return -ENOMEM;
	return 0;
}

void bench_lat_add(struct bench_lat *l, const void *payload, size_t len, uint64_t now_ns)
{
	uint64_t s[2];

	if (len < sizeof(s) || l->n == BENCH_MAX_SAMPLES)
		return;
	memcpy(s, payload, sizeof(s));
	if (!s[0] || s[0] != ~s[1] || now_ns < s[0] || now_ns - s[0] > UINT32_MAX)
		return;
	l->ns[l->n++] = (uint32_t)(now_ns - s[0]);
}

static int cmp_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

void bench_print(const char *subject, const struct bench_window *w,
		 const struct bench_result *r, struct bench_lat *l)
{
	double s = (double)(w->end - w->begin) / 1e9;

	if (!w->begun || !w->end) {
		printf("{\"subject\":\"%s\",\"packets\":0}\n", subject);
		return;
	}
	printf("{\"subject\":\"%s\",\"packets\":%" PRIu64 ",\"frames\":%" PRIu64
	       ",\"bytes\":%" PRIu64 ",\"bad\":%" PRIu64 ",\"seconds\":%.6f,\"pps\":%.0f,"
	       "\"gbps\":%.4f",
	       subject, r->packets, r->frames, r->frame_bytes, r->bad, s,
	       (double)r->packets / s, (double)r->frame_bytes * 8 / s / 1e9);
	if (w->busy_ns)
		printf(",\"busy_s\":%.4f", (double)w->busy_ns / 1e9);
	if (r->packets && r->frames)
		printf(",\"packets_per_super\":%.3f",
		       (double)r->packets / (double)r->frames);
	if (r->packets && r->agg_ns)
		printf(",\"user_ns_per_packet\":%.3f",
		       (double)r->agg_ns / (double)r->packets);
	if (l && l->n) {
		qsort(l->ns, l->n, sizeof(*l->ns), cmp_u32);
		printf(",\"latency_us_p50\":%.2f,\"latency_us_p99\":%.2f",
		       l->ns[l->n / 2] / 1e3, l->ns[l->n * 99 / 100] / 1e3);
		printf(",\"latency_samples\":%zu", l->n);
	}
	printf("}\n");
}
