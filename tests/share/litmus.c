// SPDX-License-Identifier: BSD-2-Clause
/*
 * litmus: one thread of a litmus test, by plain loads and stores on a shared region.
 *
 *	litmus SOCKET REGION KEY TEST THREAD RUNS
 *
 * A run takes one word x and one word y, zero at first, in different pages. Runs are done
 * in batches of words, each thread going through them in bursts of its own order, so that
 * pages go to and fro in the middle of what others do. After a batch thread 0 looks at
 * what all have read, counts outcomes that no sequential order explains, and zeroes the
 * words. It prints: TEST runs N forbidden N mixed N (runs whose outcome shows that
 * threads overlapped). Exit status 1: a forbidden outcome, or an error.
 *
 * With LITMUS_STOP, the same for all threads, it says "begun" when it has the region, and
 * ends once that file is there, if not before.
 *
 * Region, in its pages: barrier, and whether thread 0 has seen that file; x, y, WORDS of
 * each page; results, by register.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../user/lib/clock.h"
#include "../../user/share/ghostmem.h"

#define PAGES 4	  /* of x, and of y */
#define WORDS 512 /* that are used of each; what a page of 4 KiB has */
#define BATCH (PAGES * WORDS)
#define REGS  4
#define STOP  64

/* Of word k */
#define x(k) (*word(1, k))
#define y(k) (*word(1 + PAGES, k))

static char *base;
static uint64_t page_size;
static uint64_t reg[REGS][BATCH];

static inline volatile uint64_t *word(int page, int k)
{
	return (volatile uint64_t *)(base + ((uint64_t)page + (uint64_t)(k / WORDS)) *
						    page_size) +
	       k % WORDS;
}

static unsigned int turn;

/* Its pages come less often, so all are to be wanted at the same time. */
static bool huge(void)
{
	return page_size > 4096;
}

/* Between two accesses, in one run of 16: long enough for a page to come and go. */
static void gap(int k)
{
	if (((unsigned int)k + turn) % 16 == 0) {
		uint64_t end = clock_ns() + (huge() ? 300000 : 20000);

		while (clock_ns() < end)
			;
	}
}

static void sb(int t, int k)
{
	if (t) {
		y(k) = 1;
		gap(k);
		reg[1][k] = x(k);
	} else {
		x(k) = 1;
		gap(k);
		reg[0][k] = y(k);
	}
}

static void mp(int t, int k)
{
	if (t) {
		reg[0][k] = y(k);
		gap(k);
		reg[1][k] = x(k);
	} else {
		x(k) = 1;
		gap(k);
		y(k) = 1;
	}
}

static void lb(int t, int k)
{
	if (t) {
		reg[1][k] = x(k);
		gap(k);
		y(k) = 1;
	} else {
		reg[0][k] = y(k);
		gap(k);
		x(k) = 1;
	}
}

static void iriw(int t, int k)
{
	switch (t) {
	case 0: x(k) = 1; break;
	case 1: y(k) = 1; break;
	case 2:
		reg[0][k] = x(k);
		gap(k);
		reg[1][k] = y(k);
		break;
	default:
		reg[2][k] = y(k);
		gap(k);
		reg[3][k] = x(k);
		break;
	}
}

static void corr(int t, int k)
{
	if (!t) {
		x(k) = 1;
		return;
	}
	reg[2 * t - 2][k] = x(k);
	gap(k);
	reg[2 * t - 1][k] = x(k);
}

static void w22(int t, int k)
{
	if (t) {
		y(k) = 1;
		gap(k);
		x(k) = 2;
	} else {
		x(k) = 1;
		gap(k);
		y(k) = 2;
	}
}

#define R(i) r[i][k]
static int sb_bad(uint64_t r[REGS][BATCH], int k)
{
	return !R(0) && !R(1);
}

static int mp_bad(uint64_t r[REGS][BATCH], int k)
{
	return R(0) && !R(1);
}

static int lb_bad(uint64_t r[REGS][BATCH], int k)
{
	return R(0) && R(1);
}

static int iriw_bad(uint64_t r[REGS][BATCH], int k)
{
	return R(0) && !R(1) && R(2) && !R(3);
}

static int corr_bad(uint64_t r[REGS][BATCH], int k)
{
	return (R(0) && !R(1)) || (R(2) && !R(3));
}

static int w22_bad(uint64_t r[REGS][BATCH], int k)
{
	return x(k) == 1 && y(k) == 1;
}

static const struct test {
	const char *name;
	int threads;
	void (*run)(int t, int k);
	int (*bad)(uint64_t r[REGS][BATCH], int k);
	int owner[REGS]; /* thread that fills the register, -1: none */
} tests[] = {
	{ "SB", 2, sb, sb_bad, { 0, 1, -1, -1 } },
	{ "MP", 2, mp, mp_bad, { 1, 1, -1, -1 } },
	{ "LB", 2, lb, lb_bad, { 0, 1, -1, -1 } },
	{ "IRIW", 4, iriw, iriw_bad, { 2, 2, 3, 3 } },
	{ "CoRR", 3, corr, corr_bad, { 1, 1, 2, 2 } },
	{ "2+2W", 2, w22, w22_bad, { -1, -1, -1, -1 } },
};

static int fail(const char *what, int err)
{
	fprintf(stderr, "litmus: %s: %s\n", what, strerror(-err));
	return 1;
}

/* Outcomes that show that the threads' accesses of this run interleaved. */
static int mixed(const struct test *t, uint64_t r[REGS][BATCH], int k)
{
	if (t->run == sb)
		return R(0) && R(1);
	if (t->run == mp)
		return !R(0) && R(1);
	if (t->run == lb)
		return !R(0) && !R(1);
	if (t->run == w22)
		return x(k) == y(k);
	return R(0) != R(1) || R(2) != R(3);
}

static int batch(struct ghostmem_region *r, const struct test *t, int thread,
		 unsigned int round)
{
	static const unsigned int bursts[] = { 64, 1, 16, 4 };
	unsigned int burst = bursts[round % 4] * (huge() ? 8 : 1);
	unsigned int n = BATCH / burst;
	/* Every other four rounds all begin at the same word. */
	unsigned int start =
		round & 4 || huge() ? 0 : (round * 7u + (unsigned int)thread * 13u) % n;
	int err;

	turn = round * 5 + (unsigned int)thread;
	/* Bursts are a page and a bit apart: the next one is on another page. */
	for (unsigned int b = 0; b < n; b++) {
		unsigned int at = (start + b) % n;

		at = (at % PAGES * (n / PAGES) + at / PAGES) * burst;
		for (unsigned int i = 0; i < burst; i++)
			t->run(thread, (int)(at + i));
	}
	for (int i = 0; i < REGS; i++) {
		if (t->owner[i] != thread)
			continue;
		err = ghostmem_put(
			r, (1 + 2 * PAGES) * page_size + (uint64_t)i * sizeof(reg[i]),
			reg[i], sizeof(reg[i]));
		if (err)
			return err;
	}
	return 0;
}

/* Thread 0, before a barrier. */
static int say_stop(struct ghostmem_region *r, const char *file)
{
	uint64_t yes = 1;

	return access(file, F_OK) ? 0 : ghostmem_put(r, STOP, &yes, sizeof(yes));
}

/* All, after it. Return: 1: stop, also the others; 0; -errno */
static int hear_stop(struct ghostmem_region *r, int thread, unsigned int threads)
{
	uint64_t stop, no = 0;
	int err = ghostmem_get(r, STOP, &stop, sizeof(stop));

	if (err || !stop)
		return err;
	err = ghostmem_barrier(r, 0, threads, 20000);
	if (!err && !thread)
		err = ghostmem_put(r, STOP, &no, sizeof(no));
	return err ? err : 1;
}

int main(int argc, char **argv)
{
	static uint64_t all[REGS][BATCH], zero[WORDS];
	struct ghostmem_import in = { 0 };
	const struct test *t = NULL;
	struct ghostmem_region *r;
	struct ghostmem *g;
	unsigned long runs, done = 0, bad = 0, overlapped = 0;
	const char *stop = getenv("LITMUS_STOP");
	int thread, err;

	if (argc != 7)
		return 2;
	for (size_t i = 0; i < sizeof(tests) / sizeof(*tests); i++)
		if (!strcmp(argv[4], tests[i].name))
			t = &tests[i];
	thread = atoi(argv[5]);
	runs = strtoul(argv[6], NULL, 10);
	if (!t || thread < 0 || thread >= t->threads)
		return 2;
	in.name = argv[2];
	in.key = argv[3];
	in.key_len = strlen(argv[3]);
	err = ghostmem_open(argv[1], &g);
	if (err)
		return fail("open", err);
	err = ghostmem_import(g, &in, &r);
	if (err)
		return fail("import", err);
	if (stop) {
		printf("begun\n");
		fflush(stdout);
	}
	base = ghostmem_addr(r);
	page_size = ghostmem_page_size(r);
	for (unsigned int round = 0; done < runs; round++, done += BATCH) {
		for (uint64_t i = 1; !thread && !err && i <= 2 * PAGES; i++)
			err = ghostmem_put(r, i * page_size, zero, sizeof(zero));
		if (!err && !thread && stop)
			err = say_stop(r, stop);
		if (!err)
			err = ghostmem_barrier(r, 0, (unsigned int)t->threads, 20000);
		if (!err && stop)
			err = hear_stop(r, thread, (unsigned int)t->threads);
		if (err > 0)
			break;
		if (!err)
			err = batch(r, t, thread, round);
		if (!err)
			err = ghostmem_barrier(r, 0, (unsigned int)t->threads, 20000);
		if (err)
			return fail(t->name, err);
		if (thread)
			continue;
		err = ghostmem_get(r, (1 + 2 * PAGES) * page_size, all, sizeof(all));
		if (err)
			return fail(t->name, err);
		for (int k = 0; k < BATCH; k++) {
			bad += (unsigned long)t->bad(all, k);
			overlapped += (unsigned long)mixed(t, all, k);
		}
	}
	if (!thread)
		printf("%s runs %lu forbidden %lu mixed %lu\n", t->name, done, bad,
		       overlapped);
	ghostmem_close(g);
	return bad != 0;
}
