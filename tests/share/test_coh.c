// SPDX-License-Identifier: BSD-2-Clause
/*
 * coh against a model: importers with mailboxes, random requests, random delivery,
 * deaths. After every step: one writer or many readers; every byte read is the last one
 * written.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "../../user/share/agent/coh.h"

#define SLOTS 5
#define PAGES 3
#define BOX   4096

enum { NONE, READ, WRITE };

struct mail {
	bool inv, excl, data;
	uint64_t version;
	uint64_t page;
	uint64_t value;
	int status;
};

struct node {
	uint8_t held[PAGES];
	uint64_t value[PAGES];
	bool asked[PAGES];
	struct mail box[BOX];
	unsigned int head, tail;
};

struct world {
	struct coh *c;
	struct node n[SLOTS];
	uint64_t home[PAGES]; /* bytes at home */
	uint64_t last[PAGES]; /* what was written last, wherever */
	uint64_t next;
	unsigned int done, lost, grants;
};

static void act(void *arg, const struct coh_act *a)
{
	struct world *w = arg;
	struct node *n;

	switch (a->type) {
	case COH_PROTECT:
	case COH_KEEP: return;
	case COH_DONE:
		w->done++;
		if (a->status) {
			w->lost++;
			return;
		}
		if (a->cookie == COH_WANT_READ) {
			assert_int_equal(w->home[a->page], w->last[a->page]);
		} else {
			for (int i = 0; i < SLOTS; i++)
				assert_int_equal(w->n[i].held[a->page], NONE);
			w->home[a->page] = w->last[a->page] = ++w->next;
		}
		return;
	case COH_GRANT:
	case COH_INV:
		if (a->slot >= SLOTS)
			return; /* request of a node that died */
		n = &w->n[a->slot];
		n->box[n->head++ % BOX] = (struct mail){ .inv = a->type == COH_INV,
							 .excl = a->excl,
							 .data = a->data,
							 .version = a->version,
							 .page = a->page,
							 .value = w->home[a->page],
							 .status = a->status };
		assert_true(n->head - n->tail < BOX);
	}
}

static void deliver(struct world *w, uint8_t slot)
{
	struct node *n = &w->n[slot];
	struct mail m;
	bool wrote;

	if (n->head == n->tail)
		return;
	m = n->box[n->tail++ % BOX];
	if (!m.inv) {
		n->asked[m.page] = false;
		if (m.status) {
			n->held[m.page] = NONE;
			return;
		}
		w->grants++;
		if (m.data)
			n->value[m.page] = m.value;
		else
			assert_int_equal(n->held[m.page], READ);
		n->held[m.page] = m.excl ? WRITE : READ;
		assert_int_equal(n->value[m.page], w->last[m.page]);
		return;
	}
	wrote = n->held[m.page] == WRITE;
	if (wrote)
		w->home[m.page] = n->value[m.page];
	if (n->held[m.page] != NONE)
		n->held[m.page] = m.excl ? NONE : READ;
	assert_int_equal(coh_ack(w->c, slot, m.page, !m.excl && n->held[m.page] == READ,
				 m.version, m.data && !wrote),
			 0);
}

static void check(const struct world *w)
{
	for (int p = 0; p < PAGES; p++) {
		int readers = 0, writers = 0;

		for (int i = 0; i < SLOTS; i++) {
			readers += w->n[i].held[p] == READ;
			writers += w->n[i].held[p] == WRITE;
			if (w->n[i].held[p] != NONE)
				assert_int_equal(w->n[i].value[p], w->last[p]);
		}
		assert_true(writers <= 1);
		assert_false(writers && readers);
	}
}

static unsigned int runs; /* pages granted behind the first */

/* Stores in order: what nobody else has, at once. */
static void ask_run(struct world *w, uint8_t slot, uint64_t page)
{
	struct node *n = &w->n[slot];
	unsigned int most = 0, got;

	while (page + most < PAGES && !n->asked[page + most] &&
	       n->held[page + most] == NONE)
		most++;
	got = coh_try_write(w->c, slot, page, most);
	assert_true(got <= most);
	for (unsigned int i = 0; i < got; i++) {
		uint64_t at = page + i;

		n->asked[at] = true;
		n->box[n->head++ % BOX] = (struct mail){ .excl = true,
							 .data = true,
							 .version = coh_version(w->c, at),
							 .page = at,
							 .value = w->home[at] };
		assert_true(n->head - n->tail < BOX);
		runs += i > 0;
	}
}

static void step(struct world *w, bool deaths)
{
	uint8_t slot = (uint8_t)(rand() % SLOTS);
	uint64_t page = (uint64_t)(rand() % PAGES);
	struct node *n = &w->n[slot];
	int what = rand() % (deaths ? 100 : 98);

	if (what < 50) {
		deliver(w, slot);
	} else if (what < 70) {
		enum coh_want want = rand() % 2 ? COH_WANT_READ : COH_WANT_WRITE;

		if (rand() % 4 == 0) {
			ask_run(w, slot, page);
			check(w);
			return;
		}
		if (n->asked[page] || n->held[page] == WRITE ||
		    (n->held[page] == READ && want == COH_WANT_READ))
			return;
		n->asked[page] = true;
		assert_int_equal(
			coh_request(w->c, slot, page, want, n->held[page] == READ, 0), 0);
	} else if (what < 80) {
		if (n->held[page] == WRITE)
			n->value[page] = w->last[page] = ++w->next;
	} else if (what < 90) {
		enum coh_want want = (enum coh_want)(rand() % 3);

		assert_int_equal(
			coh_request(w->c, COH_HOME_SLOT, page, want, false, want), 0);
	} else if (what < 98) {
		bool keep = rand() % 2;

		if (n->held[page] != WRITE)
			return;
		w->home[page] = n->value[page];
		n->held[page] = keep ? READ : NONE;
		assert_int_equal(coh_ack(w->c, slot, page, keep, 0, false), 0);
	} else {
		n->head = n->tail = 0;
		memset(n->held, NONE, sizeof(n->held));
		memset(n->asked, 0, sizeof(n->asked));
		coh_slot_dead(w->c, slot);
		/* What was sent to it meanwhile goes nowhere. */
		n->head = n->tail = 0;
	}
	check(w);
}

static void run(bool deaths)
{
	for (unsigned int seed = 1; seed <= 200; seed++) {
		struct world *w = calloc(1, sizeof(*w));

		srand(seed);
		assert_int_equal(coh_create(PAGES, NULL, seed, act, w, &w->c), 0);
		for (int i = 0; i < 5000; i++)
			step(w, deaths);
		/* Everybody answers: nothing stays busy. */
		for (int i = 0; i < 100000; i++)
			deliver(w, (uint8_t)(rand() % SLOTS));
		for (uint64_t p = 0; p < PAGES; p++)
			assert_int_equal(coh_page(w->c, p)->txn, 0);
		assert_true(w->grants > 100 && w->done > 100);
		assert_true(deaths || !w->lost);
		coh_destroy(w->c);
		free(w);
	}
	assert_true(runs > 100);
	runs = 0;
}

static void random_walk(void **state)
{
	run(false);
}

static void with_deaths(void **state)
{
	run(true);
}

/* The table can be written to by programs here: numbers of transactions in it that are
 * none, or another page's. */
static void foreign_numbers(void **state)
{
	static struct coh_page table[PAGES];
	struct world *w = calloc(1, sizeof(*w));
	uint16_t busy;

	memset(table, 0, sizeof(table));
	assert_int_equal(coh_create(PAGES, table, 1, act, w, &w->c), 0);
	for (uint64_t p = 0; p < PAGES; p++)
		table[p].txn = UINT16_MAX;
	assert_int_equal(coh_request(w->c, 1, 0, COH_WANT_WRITE, false, 0), 0);
	assert_int_equal(coh_page(w->c, 0)->state, COH_EXCL);
	assert_false(coh_awaits(w->c, 1, 1, 0));
	assert_int_equal(coh_ack(w->c, 1, 1, false, 0, false), -EPROTO);
	table[0].txn = 0;
	/* Page 0 is busy. What is said of page 1 does not go to it. */
	assert_int_equal(coh_request(w->c, 2, 0, COH_WANT_WRITE, false, 0), 0);
	busy = table[0].txn;
	assert_int_not_equal(busy, 0);
	table[1].txn = busy;
	assert_int_equal(coh_request(w->c, 2, 1, COH_WANT_WRITE, false, 0), 0);
	assert_int_equal(coh_page(w->c, 1)->state, COH_EXCL);
	table[2].txn = (uint16_t)(busy + 1); /* unused */
	assert_int_equal(coh_request(w->c, 2, 2, COH_WANT_WRITE, false, 0), 0);
	assert_int_equal(coh_page(w->c, 2)->state, COH_EXCL);
	assert_int_equal(coh_page(w->c, 0)->holder, 1);
	assert_int_equal(coh_busy(w->c), 1);
	assert_int_equal(coh_ack(w->c, 1, 0, false, 0, false), 0);
	assert_int_equal(coh_page(w->c, 0)->holder, 2);
	assert_int_equal(coh_busy(w->c), 0);
	coh_destroy(w->c);
	free(w);
}

struct healing {
	struct coh *c;
	bool room;
	int status;
};

static void heal(void *arg, const struct coh_act *a)
{
	struct healing *h = arg;

	assert_int_equal(a->type, COH_DONE);
	h->status = a->status;
	if (!h->room)
		coh_not_healed(h->c);
}

/* A page that was lost is there again with its bytes, not before. */
static void healed_with_bytes(void **state)
{
	struct healing h = { .room = false };

	assert_int_equal(coh_create(1, NULL, 1, heal, &h, &h.c), 0);
	coh_load(h.c, 0, 1, COH_LOST, 0, 0);
	assert_int_equal(coh_request(h.c, COH_HOME_SLOT, 0, COH_WANT_REPLACE, false, 1),
			 0);
	assert_int_equal(h.status, 0);
	assert_int_equal(coh_page(h.c, 0)->state, COH_LOST);
	assert_int_equal(coh_request(h.c, COH_HOME_SLOT, 0, COH_WANT_READ, false, 1), 0);
	assert_int_equal(h.status, -EIO);
	h.room = true;
	assert_int_equal(coh_request(h.c, COH_HOME_SLOT, 0, COH_WANT_REPLACE, false, 1),
			 0);
	assert_int_equal(coh_page(h.c, 0)->state, COH_HOME);
	assert_int_equal(coh_request(h.c, COH_HOME_SLOT, 0, COH_WANT_READ, false, 1), 0);
	assert_int_equal(h.status, 0);
	coh_destroy(h.c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_walk),
		cmocka_unit_test(with_deaths),
		cmocka_unit_test(healed_with_bytes),
		cmocka_unit_test(foreign_numbers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
