// SPDX-License-Identifier: BSD-2-Clause
/* nap: awake or asleep until the next burst. Contract in nap.h. */
#include "nap.h"

#define NSEC 1000000000ULL

static void average(uint64_t *mean, uint64_t ns)
{
	*mean += (ns < NAP_TIME_NS ? ns : NAP_TIME_NS) / 8 - *mean / 8;
}

void nap_init(struct nap *n)
{
	*n = (struct nap){ .gap = NAP_TIME_NS, .left = 1, .rest = NAP_REST };
}

/* Close enough, or with enough to do, to be waited for whatever a trial says? */
static bool is_near(const struct nap *n)
{
	return n->gap < NAP_GAP_NS ||
	       (n->gap < NAP_GAP_BUSY_NS && n->work * NAP_SHARE >= n->gap);
}

static void enter(struct nap *n, enum nap_state state, uint32_t tries)
{
	n->state = state;
	n->left = tries;
}

/* A try of NAP_TRY_NS is over, with @rate packets a second. */
static void tried(struct nap *n, uint64_t rate)
{
	bool won = rate * 8 >= n->asleep_rate * 9;

	switch (n->state) {
	case NAP_ASLEEP:
		n->asleep_rate = rate;
		if (!--n->left)
			enter(n, NAP_TRYING, 1);
		break;
	case NAP_TRYING:
		if (won) {
			enter(n, NAP_HELD, NAP_HOLD);
			n->rest = NAP_REST;
			break;
		}
		enter(n, NAP_ASLEEP, n->rest);
		n->rest = n->rest * 2 < NAP_REST_MAX ? n->rest * 2 : NAP_REST_MAX;
		break;
	case NAP_HELD:
		if (!won)
			enter(n, NAP_ASLEEP, n->rest);
		else if (!--n->left)
			enter(n, NAP_ASLEEP, 1);
	}
}

void nap_burst(struct nap *n, uint64_t now_ns, uint64_t gap_ns, uint32_t packets)
{
	average(&n->gap, gap_ns);
	if (n->gap >= NAP_MAX_NS) {
		n->state = NAP_ASLEEP;
		n->since = 0;
		return;
	}
	/* Waited for anyway; once it is not, that is tried at once. */
	if (n->state == NAP_ASLEEP && is_near(n)) {
		n->left = 1;
		n->since = 0;
		return;
	}
	if (!n->since || gap_ns >= NAP_TRY_NS / 4) {
		n->since = now_ns;
		n->packets = 0;
		return;
	}
	/* Rings and caches have to get used to it first. */
	if (now_ns - n->since > NAP_TRY_NS / 2)
		n->packets += packets;
	if (now_ns - n->since < NAP_TRY_NS)
		return;
	tried(n, n->packets * NSEC / (now_ns - n->since - NAP_TRY_NS / 2));
	n->since = now_ns;
	n->packets = 0;
}

void nap_work(struct nap *n, uint64_t ns)
{
	average(&n->work, ns);
}

bool nap_stays_awake(const struct nap *n, uint64_t idle_ns)
{
	return idle_ns < NAP_MAX_NS && (n->state != NAP_ASLEEP || is_near(n));
}
