// SPDX-License-Identifier: BSD-2-Clause
/* rate: windows, curve, forecast, measuring. See rate.h. */
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../user/lib/bitmap.h"
#include "../../user/lib/clock.h"
#include "rate.h"

/* ---- windows ------------------------------------------------------------------------
 */

/* What was written in the window of level @l that is open. */
static uint64_t *window(const struct rate_windows *w, unsigned int l)
{
	return w->all + (l + 1) * (w->words + 1);
}

int rate_windows_init(struct rate_windows *w, uint64_t bits, unsigned int max)
{
	memset(w, 0, sizeof(*w));
	w->words = bitmap_words(bits);
	w->levels = 1;
	while (w->levels < RATE_LEVELS && (1U << w->levels) <= max)
		w->levels++;
	w->all = calloc(w->levels + 1, (w->words + 1) * sizeof(uint64_t));
	return w->all ? 0 : -ENOMEM;
}

void rate_windows_fini(struct rate_windows *w)
{
	free(w->all);
	memset(w, 0, sizeof(*w));
}

void rate_windows_add(struct rate_windows *w, const uint64_t *bitmap)
{
	w->n++;
	for (unsigned int l = 0; l < w->levels; l++) {
		uint64_t *acc = window(w, l);

		bitmap_merge(acc, bitmap, w->words);
		if (w->n & ((1U << l) - 1))
			continue;
		w->sum[l] += bitmap_count(acc, w->words);
		w->closed[l]++;
		memset(acc, 0, w->words * sizeof(uint64_t));
	}
	bitmap_merge(w->all, bitmap, w->words);
	w->distinct = bitmap_count(w->all, w->words);
}

/* ---- curve --------------------------------------------------------------------------
 */

static double seconds_of(const struct rate_report *r)
{
	double s = 0;

	for (unsigned int i = 0; i < r->n; i++)
		s += r->interval[i].seconds;
	return s;
}

double rate_mean(const struct rate_report *r, bool device)
{
	double bytes = 0, s = seconds_of(r);

	for (unsigned int i = 0; i < r->n; i++)
		bytes += device ? r->interval[i].device : r->interval[i].dirty;
	return s > 0 ? bytes / s : 0;
}

void rate_points(struct rate_report *r, const struct rate_windows *w, double bit_bytes,
		 double growth)
{
	double each = w->n ? seconds_of(r) / w->n : 0;

	r->npoints = 0;
	for (unsigned int l = 0; l < w->levels && w->closed[l]; l++) {
		struct rate_point *p = &r->point[r->npoints++];

		p->seconds = each * (double)(1U << l);
		p->bytes = (double)w->sum[l] / w->closed[l] * bit_bytes +
			   growth * p->seconds;
	}
	/* The whole, unless it is the last window. */
	if (r->npoints && (1U << (r->npoints - 1)) < w->n)
		r->point[r->npoints++] = (struct rate_point){
			each * w->n,
			(double)w->distinct * bit_bytes + growth * each * w->n,
		};
}

double rate_within(const struct rate_report *r, double seconds)
{
	const struct rate_point *p = r->point;
	unsigned int n = r->npoints;
	double bytes;

	if (!n || p[0].seconds <= 0)
		return 0;
	if (seconds <= p[0].seconds) {
		bytes = p[0].bytes * seconds / p[0].seconds;
	} else {
		unsigned int i = 1;
		double slope;

		while (i + 1 < n && seconds > p[i].seconds)
			i++;
		/* One point: nothing is known of what is written twice. */
		slope = n == 1 ? p[0].bytes / p[0].seconds
			       : (p[i].bytes - p[i - 1].bytes) /
					 (p[i].seconds - p[i - 1].seconds);
		if (slope < 0)
			slope = 0;
		i = n == 1 ? 0 : i - 1;
		bytes = p[i].bytes + slope * (seconds - p[i].seconds);
	}
	return bytes > r->ram_bytes ? r->ram_bytes : bytes;
}

void rate_forecast(const struct rate_report *r, double bandwidth, double budget_s,
		   struct rate_forecast *f)
{
	double rest = r->ram_bytes;

	*f = (struct rate_forecast){ .converges = true };
	while (rest / bandwidth > budget_s) {
		double t = rest / bandwidth;

		if (++f->rounds == RATE_FOREVER) {
			f->converges = false;
			break;
		}
		f->total_s += t;
		f->bytes += rest;
		rest = rate_within(r, t);
		/* Rounds that get no shorter never will; the first is all memory. */
		if (f->rounds > 1 && rest / bandwidth > t * 0.98) {
			f->converges = false;
			break;
		}
	}
	f->rounds++;
	f->downtime_s = rest / bandwidth;
	f->total_s += f->downtime_s;
	f->bytes += rest;
}

/* ---- measuring -----------------------------------------------------------------------
 */

void rate_wait(uint64_t at, const volatile sig_atomic_t *cancel)
{
	uint64_t now;

	while ((now = clock_ns()) < at && !(cancel && *cancel)) {
		struct timespec ts = { (time_t)((at - now) / 1000000000),
				       (long)((at - now) % 1000000000) };

		ppoll(NULL, 0, &ts, NULL); /* a signal ends it */
	}
}

static void add_interval(struct rate_report *r, const struct rate_source *s,
			 const struct rate_windows *w, uint64_t dirty,
			 const uint64_t by[2], double seconds, double growth)
{
	r->interval[r->n++] = (struct rate_interval){
		.seconds = seconds,
		.dirty = (double)dirty * s->bit_bytes + s->growth,
		.cpu = (double)by[0] * s->bit_bytes + s->growth,
		.device = (double)by[1] * s->bit_bytes,
		.distinct = (double)w->distinct * s->bit_bytes + growth,
	};
}

/* Half the width of Wilson's interval for a share @p of @n, 95 %. */
static double margin(double p, double n)
{
	const double z = 1.96;

	return z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n));
}

int rate_begin(struct rate_run *run, struct rate_source *s, unsigned int n,
	       struct rate_report *r)
{
	int err;

	memset(r, 0, sizeof(*r));
	snprintf(r->method, sizeof(r->method), "%s", s->method);
	snprintf(r->note, sizeof(r->note), "%s", s->note);
	r->by_source = s->by_source;
	r->samples = s->samples;
	*run = (struct rate_run){ .src = s, .report = r };
	run->bitmap = calloc(bitmap_words(s->bits) + 1, sizeof(*run->bitmap));
	err = run->bitmap ? rate_windows_init(&run->windows, s->bits, n) : -ENOMEM;
	if (err)
		free(run->bitmap);
	run->then_ns = s->since_ns ? s->since_ns : clock_ns();
	return err;
}

int rate_step(struct rate_run *run)
{
	struct rate_source *s = run->src;
	struct rate_report *r = run->report;
	size_t words = bitmap_words(s->bits);
	uint64_t by[2] = { 0, 0 }, now, found;
	int err;

	if (r->n == RATE_MAX_INTERVALS)
		return -ENOSPC;
	memset(run->bitmap, 0, words * sizeof(*run->bitmap));
	err = s->ops->harvest(s, run->bitmap, by);
	if (err)
		return err;
	now = clock_ns();
	rate_windows_add(&run->windows, run->bitmap);
	found = bitmap_count(run->bitmap, words);
	run->bits += found;
	run->growth += s->growth;
	add_interval(r, s, &run->windows, found, by,
		     (double)((s->until_ns ? s->until_ns : now) - run->then_ns) / 1e9,
		     run->growth);
	r->ram_bytes = s->ram_bytes;
	run->then_ns = s->since_ns ? s->since_ns : now;
	return 0;
}

void rate_end(struct rate_run *run)
{
	const struct rate_source *s = run->src;
	struct rate_report *r = run->report;

	if (r->n) {
		double total = seconds_of(r);

		rate_points(r, &run->windows, s->bit_bytes, run->growth / total);
		if (s->samples)
			r->margin = margin((double)run->bits / r->n / s->samples,
					   s->samples) *
				    s->samples * s->bit_bytes * r->n / total;
	}
	rate_windows_fini(&run->windows);
	free(run->bitmap);
	run->bitmap = NULL;
}

int rate_measure(struct rate_source *s, double interval_s, unsigned int n,
		 volatile sig_atomic_t *cancel, void (*tick)(const struct rate_report *r),
		 struct rate_report *r)
{
	uint64_t begun = clock_ns();
	struct rate_run run;
	int err = rate_begin(&run, s, n, r);

	if (err)
		return err;
	while (!err && r->n < n && !(cancel && *cancel)) {
		rate_wait(begun + (uint64_t)(interval_s * 1e9 * (r->n + 1)), cancel);
		err = rate_step(&run);
		if (!err && tick)
			tick(r);
	}
	rate_end(&run);
	return err;
}
