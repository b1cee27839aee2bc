// SPDX-License-Identifier: BSD-2-Clause
/* predict: see predict.h. */
#include <math.h>
#include <string.h>

#include "predict.h"

#define PAGE	      4096.0
#define PAGE_OVERHEAD 56.0	   /* header and hash, at worst */
#define MEASURABLE    (4ULL << 20) /* bytes */
#define GUESS	      100e6	   /* bytes per second, before anything was measured */
#define MAX_ROUNDS    100
#define OCTAVE	      0.1 /* least difference of ln t between two samples */
#define SHRINKING     0.7 /* a round that leaves less than this of the last is hopeful */
#define STEEPEST      0.999
#define PAYING	      0.75 /* a round that leaves less than this of what there is */

void predict_init(struct predict *p)
{
	*p = (struct predict){ .page_bytes = PAGE + PAGE_OVERHEAD };
}

void predict_reset(struct predict *p)
{
	p->samples = 0;
}

void predict_sent(struct predict *p, uint64_t bytes, uint64_t pages, double seconds)
{
	double rate;

	if (bytes < MEASURABLE || seconds <= 0)
		return;
	rate = (double)bytes / seconds;
	/* The latest counts most: lines and limits change. */
	p->bandwidth = p->bandwidth ? (p->bandwidth + 2 * rate) / 3 : rate;
	if (pages)
		p->page_bytes = (double)bytes / (double)pages;
}

void predict_dirty(struct predict *p, double seconds, uint64_t pages)
{
	if (seconds < 1e-6)
		seconds = 1e-6;
	p->before = p->last;
	p->last = (struct predict_sample){ seconds, (double)pages };
	p->samples++;
}

/* d(t) = a t^b through the samples. */
static void fit(const struct predict *p, double *a, double *b)
{
	const struct predict_sample *l = &p->last, *k = &p->before;
	double dt;

	*b = 1;
	if (p->samples >= 2 && l->pages > 0 && k->pages > 0) {
		dt = log(l->seconds / k->seconds);
		/* Rounds of one length: it is at its fixed point. */
		*b = fabs(dt) < OCTAVE ? 0 : log(l->pages / k->pages) / dt;
	}
	*b = *b < 0 ? 0 : *b > 1 ? 1 : *b;
	*a = l->pages / pow(l->seconds, *b);
}

void predict_judge(const struct predict *p, double budget, double overhead,
		   struct predict_verdict *v)
{
	double bw = p->bandwidth ? p->bandwidth : GUESS, c = p->page_bytes / bw;
	double room = budget - overhead, a, b, pages = p->last.pages, fixed, time;

	memset(v, 0, sizeof(*v));
	fit(p, &a, &b);
	if (b < STEEPEST)
		fixed = pow(a * pow(c, b), 1 / (1 - b));
	else
		fixed = a * c < 1 ? 0 : INFINITY;
	if (fixed > pages)
		fixed = pages;

	v->expected_seconds = pages * c + overhead;
	v->floor_seconds = fixed * c + overhead;
	v->fits = v->expected_seconds <= budget;
	v->overhead = room <= 0;
	/* a becomes a s^b if the guest writes at a share s of its rate. */
	v->share = 1;
	if (room > 0 && fixed * c > room) {
		double want = room * 0.8 / c; /* pages */
		double at = pow(want, 1 - b) /
			    pow(c, b); /* a that has its fixed point there */

		v->share = b > 0.05 ? pow(at / a, 1 / b) : want / pages;
		if (v->share > 1)
			v->share = 1;
	}

	/* Go on as the fit says until it fits. */
	time = 0;
	for (v->rounds = 0; pages * c > room && v->rounds < MAX_ROUNDS; v->rounds++) {
		double t = pages * c;

		time += t;
		pages = a * pow(t, b);
	}
	v->eta_seconds = pages * c > room ? -1 : time + pages * c + overhead;
	v->never = !v->fits && v->eta_seconds < 0 && p->samples >= 2 &&
		   (p->samples >= 3 || p->last.pages > SHRINKING * p->before.pages);
	if (!v->fits && v->overhead)
		v->never = true;
}

bool predict_pays(const struct predict *p, double least, double most)
{
	double bw = p->bandwidth ? p->bandwidth : GUESS, a, b;
	double t = p->last.pages * p->page_bytes / bw + least;

	fit(p, &a, &b);
	return t < most && a * pow(t, b) < PAYING * p->last.pages;
}
