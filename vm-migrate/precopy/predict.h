/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * predict: will the rounds of a pre-copy get short enough, and when?
 *
 * A round that lasts t leaves d(t) pages dirty. A guest that writes all over dirties in
 * proportion to t; one that rewrites a working set dirties hardly more in a longer round.
 * Between the two, d(t) = a t^b with b from 0 to 1 fits well enough over the few octaves
 * of t that matter, and two rounds determine a and b.
 *
 * The next round sends these pages: t' = d / bandwidth, and so on: a sequence that goes
 * to a fixed point, r = (a c^b)^(1 / (1 - b)) pages with c = seconds a page takes. If
 * that is more than the downtime budget has room for, no number of rounds will do. So two
 * rounds suffice to know.
 *
 * Pure arithmetic, no state but the samples. Any thread, one at a time.
 */
#ifndef VMM_PREDICT_H
#define VMM_PREDICT_H

#include <stdbool.h>
#include <stdint.h>

#define PREDICT_ROUND_TRIPS 1e-3 /* seconds: pausing, state, answers */

struct predict_sample {
	double seconds; /* the round lasted */
	double pages;	/* dirty at its end */
};

struct predict {
	struct predict_sample last, before;
	unsigned int samples; /* since predict_reset() */
	double page_bytes;    /* on the wire */
	double bandwidth;     /* bytes per second; 0: not known yet */
};

struct predict_verdict {
	bool fits;		 /* what is dirty now fits the budget: stop */
	bool never;		 /* it will not, however many rounds */
	double expected_seconds; /* downtime if it stopped now */
	double eta_seconds;	 /* until it fits, downtime included; < 0: never */
	unsigned int rounds;	 /* still needed */
	double floor_seconds;	 /* downtime at the fixed point: the least to hope for */
	bool overhead;		 /* without any page it is too long already */
	double share;		 /* of the dirty rate that would converge, 0..1 */
};

void predict_init(struct predict *p);

/** predict_reset() - the guest's rate was changed: samples no longer hold */
void predict_reset(struct predict *p);

/**
 * predict_sent() - how fast it went
 * @bytes:	that the peer has
 *
 * Small amounts measure round trips, not the line, and are ignored.
 */
void predict_sent(struct predict *p, uint64_t bytes, uint64_t pages, double seconds);

/** predict_dirty() - a round lasted @seconds and left @pages dirty */
void predict_dirty(struct predict *p, double seconds, uint64_t pages);

/**
 * predict_overhead() - of a downtime without any page
 * @harvest:	the shortest of the rounds' harvests, seconds. They protect what they find,
 *		which the two of the downtime do not; so the shortest, which found least,
 *		is the most like them
 * @thorough:	what the last harvest takes longer, as it is not hasty
 */
static inline double predict_overhead(double harvest, double thorough)
{
	return PREDICT_ROUND_TRIPS + 2 * harvest + thorough;
}

/**
 * predict_judge()
 * @budget:	downtime, seconds
 * @overhead:	of a downtime without any page: pausing, state, round trips
 */
void predict_judge(const struct predict *p, double budget, double overhead,
		   struct predict_verdict *v);

/**
 * predict_pays() - would one more round leave clearly less than there is now?
 * @least:	what a round takes with hardly any page, seconds
 * @most:	what it may take, seconds
 *
 * It is asked of what is left now and how long a round takes, not of whether the last one
 * left less than that before: one that something disturbed leaves more, and is the one to
 * make up for.
 */
bool predict_pays(const struct predict *p, double least, double most);

#endif
