// SPDX-License-Identifier: BSD-2-Clause
/*
 * Dirty rate: a child writes exactly the pages it is told to, and each way to watch it
 * has to find them. The forecast is compared with a migration that is played through.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "../../user/lib/bitmap.h"
#include "../../user/lib/clock.h"
#include "../../vm-migrate/dirty/dirty.h"
#include "../../vm-migrate/kernel.h"
#include "../../vm-migrate/rate/plot.h"
#include "../../vm-migrate/rate/rate_pid.h"

#define PAGES	 16384 /* the child's, 64 MiB */
#define MAX_BITS (1U << 22)

/* ---- a child that writes
 * ---------------------------------------------------------------- */

enum { GO_WRITE = 'w', GO_END = 'e', DONE = 'd', CANNOT = 'c' };

struct order {
	char what;
	unsigned int first, pages; /* of the memory that is written */
	unsigned int value;
};

struct writer {
	pid_t pid;
	int to, from;
};

static char *child_memory(bool memfd)
{
	int fd = memfd ? memfd_create("test", 0) : -1;
	char *p;

	if (memfd && ftruncate(fd, (off_t)PAGES * 4096))
		_exit(1);
	p = mmap(NULL, PAGES * 4096UL, PROT_READ | PROT_WRITE,
		 memfd ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, fd, 0);
	/* A huge page is dirty as a whole. */
	madvise(p, PAGES * 4096UL, MADV_NOHUGEPAGE);
	return p;
}

static void child(int in, int out, bool memfd, bool registers)
{
	char *mem = child_memory(memfd), reply = DONE;
	struct order o;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (unsigned int i = 0; i < PAGES / 2; i++)
		mem[i * 4096UL] = 1;
	if (registers && dirty_pagemap_register(mem, PAGES * 4096UL) < 0)
		reply = CANNOT;
	if (write(out, &reply, 1) != 1)
		_exit(1);
	while (read(in, &o, sizeof(o)) == sizeof(o) && o.what == GO_WRITE) {
		for (unsigned int i = o.first; i < o.first + o.pages; i++)
			*(volatile unsigned int *)(mem + i * 4096UL) = o.value;
		if (write(out, &reply, 1) != 1)
			_exit(1);
	}
	_exit(0);
}

static bool writer_start(struct writer *w, bool memfd, bool registers)
{
	int a[2], b[2];
	char reply = 0;

	assert_int_equal(pipe(a), 0);
	assert_int_equal(pipe(b), 0);
	w->pid = fork();
	if (!w->pid) {
		close(a[1]);
		close(b[0]);
		child(a[0], b[1], memfd, registers);
	}
	close(a[0]);
	close(b[1]);
	w->to = a[1];
	w->from = b[0];
	assert_int_equal(read(w->from, &reply, 1), 1);
	return reply == DONE;
}

static void writer_write(const struct writer *w, unsigned int first, unsigned int pages,
			 unsigned int value)
{
	struct order o = { GO_WRITE, first, pages, value };
	char reply;

	assert_int_equal(write(w->to, &o, sizeof(o)), sizeof(o));
	assert_int_equal(read(w->from, &reply, 1), 1);
}

static void writer_end(struct writer *w)
{
	close(w->to);
	close(w->from);
	kill(w->pid, SIGKILL);
	waitpid(w->pid, NULL, 0);
}

/* ---- counting
 * --------------------------------------------------------------------------- */

static uint64_t harvest(struct rate_source *s)
{
	static uint64_t bitmap[MAX_BITS / 64];
	uint64_t by[2] = { 0, 0 };

	assert_true(s->bits <= MAX_BITS);
	memset(bitmap, 0, sizeof(bitmap));
	assert_int_equal(s->ops->harvest(s, bitmap, by), 0);
	return bitmap_count(bitmap, bitmap_words(s->bits));
}

/* The child's own pages (stack, pipes) come on top of those it is told to write. */
static void assert_pages(uint64_t found, unsigned int wanted)
{
	assert_in_range(found, wanted, wanted + 16);
}

static void counts(const struct writer *w, struct rate_source *s)
{
	harvest(s);
	assert_pages(harvest(s), 0);
	writer_write(w, 0, 1000, 2);
	assert_pages(harvest(s), 1000);
	assert_pages(harvest(s), 0);
	writer_write(w, 500, 1, 3);
	writer_write(w, 500, 1, 4);
	assert_pages(harvest(s), 1);
	writer_write(w, 100, 3000, 5); /* all of them, not a sample */
	writer_write(w, 100, 3000, 5); /* the same value: written all the same */
	assert_pages(harvest(s), 3000);
	assert_in_range((uint64_t)(s->ram_bytes / 4096), PAGES / 2, PAGES / 2 + 2000);
}

static void test_pagemap(void **state)
{
	char why[256];
	struct rate_source *s;
	struct writer w;
	bool can;
	int err;

	for (int memfd = 0; memfd < 2; memfd++) {
		can = writer_start(&w, memfd, true);
		err = rate_pid_create(w.pid, RATE_PAGEMAP, 100, &s, why, sizeof(why));
		if (can) {
			assert_int_equal(err, 0);
			counts(&w, s);
			s->ops->destroy(s);
		} else {
			assert_int_equal(err, -EOPNOTSUPP);
			print_message("this kernel is older than 6.7\n");
		}
		writer_end(&w);
	}
	writer_start(&w, false, false);
	assert_int_equal(rate_pid_create(w.pid, RATE_PAGEMAP, 100, &s, why, sizeof(why)),
			 -EOPNOTSUPP);
	assert_non_null(strstr(why, "has registered no memory"));
	writer_end(&w);
}

/* tests/migrate/rate61.sh runs this where the kernel has it. */
static void test_soft_dirty(void **state)
{
	const char *must = getenv("RATE_MUST_SOFT_DIRTY");
	struct rate_source *s;
	struct writer w;
	char why[256];
	int err;

	if (must)
		assert_true(rate_soft_supported());
	for (int memfd = 0; memfd < 2; memfd++) {
		writer_start(&w, memfd, false);
		err = rate_pid_create(w.pid, RATE_SOFT_DIRTY, 100, &s, why, sizeof(why));
		if (rate_soft_supported()) {
			uint64_t since = s->since_ns;

			assert_int_equal(err, 0);
			assert_in_range(since, 1, clock_ns());
			counts(&w, s);
			/* Amid the walk; and the next one amid the clearing after that. */
			assert_in_range(s->until_ns, since + 1, s->since_ns - 1);
			assert_in_range(s->since_ns, since, clock_ns());
			s->ops->destroy(s);
		} else {
			assert_int_equal(err, -EOPNOTSUPP);
			assert_non_null(strstr(why, "CONFIG_MEM_SOFT_DIRTY"));
		}
		writer_end(&w);
	}
}

static void test_hashes(void **state)
{
	const unsigned int samples = 2048;
	struct rate_source *s;
	struct writer w;
	char why[256];

	for (int memfd = 0; memfd < 2; memfd++) {
		double pages, sigma, share;

		writer_start(&w, memfd, false);
		assert_int_equal(rate_pid_create(w.pid, RATE_HASHES, samples, &s, why,
						 sizeof(why)),
				 0);
		assert_int_equal(s->samples, samples);
		pages = s->ram_bytes / 4096;
		assert_in_range((uint64_t)pages, PAGES / 2, PAGES / 2 + 4000);
		harvest(s);
		assert_in_range(harvest(s), 0, 4);
		/* A tenth of the memory; five sigma of a binomial, and more strata than
		 * that. */
		share = 0.1 * (PAGES / 2.0) / pages;
		sigma = sqrt(samples * share * (1 - share));
		writer_write(&w, 1000, PAGES / 20, 7);
		assert_true(fabs((double)harvest(s) - samples * share) < 5 * sigma + 4);
		writer_write(&w, 1000, PAGES / 20, 7); /* the same: not seen */
		assert_in_range(harvest(s), 0, 4);
		/* New pages are in no stratum. */
		writer_write(&w, PAGES / 2, 1000, 8);
		assert_in_range(harvest(s), 0, 4);
		/* And a little of the writer's own. */
		assert_in_range((uint64_t)(s->growth / 4096), 1000, 1300);
		s->ops->destroy(s);
		writer_end(&w);
	}
}

/* Can this kernel leave out what was never there? */
static bool scans(void)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	struct pm_scan_arg arg = { .size = sizeof(arg),
				   .start = (uintptr_t)&fd & ~4095UL,
				   .end = ((uintptr_t)&fd & ~4095UL) + 4096,
				   .category_mask = PAGE_IS_PRESENT };
	bool yes = fd >= 0 && ioctl(fd, PAGEMAP_SCAN, &arg) >= 0;

	close(fd);
	return yes;
}

/* Terabytes that a process has reserved and does not use cost no time. */
static void test_reserved(void **state)
{
	const uint64_t step = 1UL << 30, n = scans() ? 8192 : 16;
	uint64_t began = clock_ns();
	struct rate_source *s;
	char why[256], byte = 0;
	int ready[2];
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (!pid) {
		char *p = mmap(NULL, n * step, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (p == MAP_FAILED)
			_exit(1);
		madvise(p, n * step, MADV_NOHUGEPAGE);
		for (uint64_t i = 0; i < n; i += 8)
			p[i * step] = 1;
		if (write(ready[1], &byte, 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	assert_int_equal(rate_pid_create(pid, RATE_HASHES, 1000, &s, why, sizeof(why)),
			 0);
	/* And a little of the child's own, more of it under a sanitizer */
	assert_in_range((uint64_t)(s->ram_bytes / 4096), n / 8, n / 8 + 20000);
	assert_int_equal(harvest(s), 0);
	s->ops->destroy(s);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	print_message("%llu GiB: %llu ms\n", (unsigned long long)n,
		      (unsigned long long)(clock_ns() - began) / 1000000);
	/* Entry by entry it is 16 GiB that the kernel writes, four times. */
	assert_true(clock_ns() - began < 8000000000ULL);
}

static void test_process(void **state)
{
	struct rate_report *r = calloc(1, sizeof(*r));
	volatile sig_atomic_t cancel = 0;
	struct rate_source *s;
	struct writer w;
	char why[256];

	assert_int_equal(rate_pid_create(1 << 22, RATE_AUTO, 10, &s, why, sizeof(why)),
			 -ESRCH);
	assert_non_null(strstr(why, "no process"));
	assert_int_equal(rate_pid_create(2, RATE_AUTO, 10, &s, why, sizeof(why)),
			 -ESRCH); /* a thread of the kernel, or nothing */
	writer_start(&w, false, false);
	assert_int_equal(rate_pid_create(w.pid, RATE_AUTO, 100, &s, why, sizeof(why)), 0);
	assert_string_equal(s->method,
			    rate_soft_supported() ? "soft-dirty" : "page hashes");
	assert_int_equal(rate_measure(s, 0.01, 3, &cancel, NULL, r), 0);
	assert_int_equal(r->n, 3);
	assert_true(r->npoints >= 2);
	/* It ends while it is watched. */
	kill(w.pid, SIGKILL);
	assert_int_equal(waitpid(w.pid, NULL, 0), w.pid);
	assert_true(rate_measure(s, 0.01, 3, &cancel, NULL, r) < 0);
	s->ops->destroy(s);
	writer_end(&w);
	free(r);
}

/* ---- windows, curve, forecast
 * -------------------------------------------------------------- */

static void test_windows(void **state)
{
	struct rate_report *r = calloc(1, sizeof(*r));
	struct rate_windows w;
	uint64_t map[2];

	/* Bit 0 in every interval, and a new one beside it. */
	assert_int_equal(rate_windows_init(&w, 128, 10), 0);
	for (unsigned int i = 0; i < 10; i++) {
		memset(map, 0, sizeof(map));
		bitmap_set(map, 0);
		bitmap_set(map, 60 + i);
		rate_windows_add(&w, map);
		r->interval[r->n++].seconds = 0.5;
	}
	assert_int_equal(w.distinct, 11);
	r->ram_bytes = 1e9;
	rate_points(r, &w, 4096, 0);
	assert_int_equal(r->npoints, 5); /* 1, 2, 4, 8 intervals, and all 10 */
	for (unsigned int l = 0; l < 4; l++) {
		assert_true(fabs(r->point[l].seconds - 0.5 * (1 << l)) < 1e-9);
		assert_true(fabs(r->point[l].bytes - 4096.0 * ((1 << l) + 1)) < 1e-6);
	}
	assert_true(fabs(r->point[4].seconds - 5) < 1e-9);
	assert_true(fabs(r->point[4].bytes - 4096 * 11) < 1e-6);
	assert_true(fabs(rate_within(r, 0.25) - 4096) < 1e-6); /* half of the first */
	assert_true(fabs(rate_within(r, 1.5) - 4096 * 4) < 1e-6);
	assert_true(fabs(rate_within(r, 50) - 4096 * 101) < 1e-3); /* goes on like that */
	r->ram_bytes = 4096 * 20;
	assert_true(fabs(rate_within(r, 50) - 4096 * 20) < 1e-6);
	rate_windows_fini(&w);
	free(r);
}

/* Half of what it takes to look at all is at the end of an interval, half in none. */
static int slow_harvest(struct rate_source *s, uint64_t *bitmap, uint64_t by[2])
{
	s->until_ns = s->since_ns + 2000000000;
	s->since_ns += 3000000000;
	return 0;
}

static void test_slow_harvest(void **state)
{
	static const struct rate_source_ops ops = { .harvest = slow_harvest };
	struct rate_report *r = calloc(1, sizeof(*r));
	struct rate_source s = { .ops = &ops, .bits = 64, .bit_bytes = 4096 };
	struct rate_run run;

	s.since_ns = clock_ns();
	assert_int_equal(rate_begin(&run, &s, 3, r), 0);
	for (unsigned int i = 0; i < 3; i++) {
		assert_int_equal(rate_step(&run), 0);
		assert_true(fabs(r->interval[i].seconds - 2) < 1e-9);
	}
	rate_end(&run);
	free(r);
}

/* A process that writes round and round in @ws pages, @rate a second: the curve is exact,
 * and so has the forecast to be. */
static void test_forecast(void **state)
{
	struct rate_report *r = calloc(1, sizeof(*r));
	const double ws = 40e6, rate = 160e6, ram = 1e9;
	struct rate_forecast f;
	double t, rest, total = 0;
	unsigned int rounds = 0;

	r->ram_bytes = ram;
	for (unsigned int i = 0; i < 6; i++) {
		t = 0.25 * (1 << i);
		r->point[r->npoints++] =
			(struct rate_point){ t, t * rate < ws ? t * rate : ws };
	}
	for (rest = ram; rest / 1e9 > 0.01;) {
		t = rest / 1e9;
		total += t;
		rounds++;
		rest = t * rate < ws ? t * rate : ws;
	}
	rate_forecast(r, 1e9, 0.01, &f);
	assert_true(f.converges);
	assert_int_equal(f.rounds, rounds + 1);
	assert_true(fabs(f.total_s - (total + rest / 1e9)) < 1e-6);
	assert_true(fabs(f.downtime_s - rest / 1e9) < 1e-9);
	/* Slower than it writes, but the working set fits the budget... */
	rate_forecast(r, 100e6, 0.5, &f);
	assert_true(f.converges);
	assert_true(fabs(f.downtime_s - 0.4) < 1e-6);
	/* ...or does not. */
	rate_forecast(r, 100e6, 0.1, &f);
	assert_false(f.converges);
	/* Nothing is written. */
	r->npoints = 0;
	rate_forecast(r, 1e9, 0.1, &f);
	assert_true(f.converges && f.rounds == 2 && f.downtime_s == 0);
	free(r);
}

static const char *label(double v)
{
	static char buf[32];

	snprintf(buf, sizeof(buf), "%g", v);
	return buf;
}

static void test_plot(void **state)
{
	static const double v[] = { 0, 1, 2, 4 };
	static const char want[] = "          4 |   #\n"
				   "            | .##\n"
				   "          0 +---- 2.0 s\n";
	static const double many[400];
	char *got = NULL;
	size_t len;
	FILE *f = open_memstream(&got, &len);

	plot_bars(f, v, 4, 60, 2, false, label, 2);
	fflush(f);
	assert_string_equal(got, want);
	plot_bars(f, many, 400, 1000, 2, true, label,
		  2); /* wider than it can be, all zero */
	plot_bars(f, many, 0, 10, 2, true, label, 2);
	fclose(f);
	free(got);
	setenv("LC_ALL", "C.UTF-8", 1);
	assert_true(plot_utf8());
	setenv("LC_ALL", "C", 1);
	assert_false(plot_utf8());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_windows),	     cmocka_unit_test(test_forecast),
		cmocka_unit_test(test_plot),	     cmocka_unit_test(test_pagemap),
		cmocka_unit_test(test_slow_harvest), cmocka_unit_test(test_soft_dirty),
		cmocka_unit_test(test_hashes),	     cmocka_unit_test(test_reserved),
		cmocka_unit_test(test_process),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
