// SPDX-License-Identifier: BSD-2-Clause
/* coh: the owner's page directory. Theory and contract in coh.h; one thread, no I/O. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "coh.h"

#define TXN_MAX	  65534
#define DEAD_SLOT 0xfe /* requester that died while its request waited */

struct req {
	struct req *next;
	uint64_t cookie;
	uint8_t slot;
	uint8_t want; /* enum coh_want */
	bool has;
};

struct txn {
	uint64_t page;
	uint64_t waiting; /* slots that owe an answer to an INV */
	struct req *head; /* the one that runs, then those behind it */
	struct req **tail;
	bool used;
};

struct coh {
	uint64_t n;
	uint32_t era;
	uint64_t lost;
	bool not_healed; /* coh_not_healed() */
	struct coh_page *pages;
	void *own; /* pages, if allocated here */
	void (*act)(void *arg, const struct coh_act *a);
	void *arg;
	struct txn *txns;
	unsigned int ntxns;
	unsigned int *unused; /* stack of free transactions */
	unsigned int nunused;
};

int coh_create(uint64_t pages, void *mem, uint32_t era,
	       void (*act)(void *arg, const struct coh_act *a), void *arg,
	       struct coh **out)
{
	struct coh *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->n = pages;
	c->era = era;
	c->act = act;
	c->arg = arg;
	c->pages = mem;
	if (!mem) {
		c->own = calloc(pages, sizeof(struct coh_page));
		if (!c->own) {
			free(c);
			return -ENOMEM;
		}
		c->pages = c->own;
	}
	*out = c;
	return 0;
}

static void lose(struct coh *c, struct coh_page *p)
{
	p->state = COH_LOST;
	c->lost++;
}

uint64_t coh_lost(const struct coh *c)
{
	return c->lost;
}

void coh_recover(struct coh *c)
{
	for (uint64_t i = 0; i < c->n; i++) {
		struct coh_page *p = &c->pages[i];

		if (p->txn)
			p->txn = 0;
		if (p->state > COH_LOST ||
		    (p->state == COH_EXCL && p->holder >= GM_SLOT_MAX))
			lose(c, p);
	}
}

void coh_destroy(struct coh *c)
{
	if (!c)
		return;
	for (unsigned int i = 0; i < c->ntxns; i++) {
		struct req *r = c->txns[i].used ? c->txns[i].head : NULL;

		while (r) {
			struct req *next = r->next;

			free(r);
			r = next;
		}
	}
	free(c->txns);
	free(c->unused);
	free(c->own);
	free(c);
}

const struct coh_page *coh_page(const struct coh *c, uint64_t page)
{
	return &c->pages[page];
}

uint64_t coh_version(const struct coh *c, uint64_t page)
{
	return (uint64_t)c->era << 32 | c->pages[page].version;
}

void coh_shut(struct coh *c, uint64_t page, bool shut)
{
	c->pages[page].holder = shut ? COH_SHUT : 0;
}

/* The table may be in memory that others write to (meta.h): a number that is not that of
 * a transaction of this page is none. */
static struct txn *find_txn(const struct coh *c, uint64_t page)
{
	uint16_t n = __atomic_load_n(&c->pages[page].txn, __ATOMIC_RELAXED);
	struct txn *t = n && n <= c->ntxns ? &c->txns[n - 1] : NULL;

	return t && t->used && t->page == page ? t : NULL;
}

void coh_not_healed(struct coh *c)
{
	c->not_healed = true;
}

static uint64_t bit(uint8_t slot)
{
	return slot < GM_SLOT_MAX ? 1ull << slot : 0;
}

static void emit(struct coh *c, enum coh_act_type type, uint8_t slot, uint64_t page,
		 bool excl, bool data, int status, uint64_t cookie)
{
	struct coh_act a = {
		.type = type,
		.slot = slot,
		.excl = excl,
		.data = data,
		.status = status,
		.version = coh_version(c, page),
		.page = page,
		.cookie = cookie,
	};

	c->act(c->arg, &a);
}

/* Slots that hold what @r cannot bear. */
static uint64_t obstacles(const struct coh_page *p, const struct req *r)
{
	if (p->state == COH_EXCL)
		return bit(p->holder) & ~bit(r->slot);
	if (p->state == COH_SHARED && r->want != COH_WANT_READ)
		return p->sharers & ~bit(r->slot);
	return 0;
}

/* What windows may do there nobody knows, unless it is at home already. */
static void set_home(struct coh_page *p)
{
	if (p->state != COH_HOME)
		p->holder = 0;
	p->sharers = 0;
	p->state = COH_HOME;
}

static void new_version(struct coh_page *p)
{
	if (!++p->version)
		p->version = 1; /* 0: no INV */
}

/* Nothing is in the way of @r any more. Who dies with us between two steps leaves a page
 * that is at home still, or one that is away and kept (COH_KEEP). */
static void grant(struct coh *c, uint64_t page, const struct req *r)
{
	struct coh_page *p = &c->pages[page];
	bool write = r->want != COH_WANT_READ, data;

	if (r->slot == DEAD_SLOT) {
		emit(c, COH_GRANT, DEAD_SLOT, page, false, false, -ECONNABORTED,
		     r->cookie);
		return;
	}
	/* It asks for what it has to write: its bytes went with an agent that died. */
	if (p->state == COH_EXCL)
		lose(c, p);
	if (p->state == COH_LOST && r->want == COH_WANT_REPLACE) {
		/* Healed once the bytes are there. */
		c->not_healed = false;
		emit(c, COH_DONE, r->slot, page, write, false, 0, r->cookie);
		if (!c->not_healed)
			set_home(p);
		return;
	}
	if (p->state == COH_LOST) {
		emit(c, r->slot == COH_HOME_SLOT ? COH_DONE : COH_GRANT, r->slot, page,
		     false, false, -EIO, r->cookie);
		return;
	}
	if (r->slot == COH_HOME_SLOT) {
		if (write)
			set_home(p);
		emit(c, COH_DONE, r->slot, page, write, false, 0, r->cookie);
		return;
	}
	if (p->state == COH_HOME)
		emit(c, COH_PROTECT, r->slot, page, false, false, 0, 0);
	if (!write) {
		p->state = COH_SHARED;
		p->sharers |= bit(r->slot);
		emit(c, COH_GRANT, r->slot, page, false, true, 0, r->cookie);
		return;
	}
	data = !(r->has && p->state == COH_SHARED && p->sharers & bit(r->slot));
	new_version(p);
	emit(c, COH_KEEP, r->slot, page, true, data, 0, 0);
	p->holder = r->slot;
	p->sharers = 0;
	p->state = COH_EXCL;
	emit(c, COH_GRANT, r->slot, page, true, data, 0, r->cookie);
}

static struct txn *txn_new(struct coh *c, uint64_t page)
{
	struct txn *t;
	unsigned int i;

	if (!c->nunused) {
		unsigned int n = c->ntxns ? 2 * c->ntxns : 64;
		struct txn *txns;
		unsigned int *unused;

		if (n > TXN_MAX)
			n = TXN_MAX;
		if (n == c->ntxns)
			return NULL;
		unused = reallocarray(c->unused, n, sizeof(*unused));
		if (!unused)
			return NULL;
		c->unused = unused;
		txns = calloc(n, sizeof(*txns));
		if (!txns)
			return NULL;
		for (i = 0; i < c->ntxns; i++) {
			txns[i] = c->txns[i];
			if (txns[i].used && !txns[i].head)
				txns[i].tail = &txns[i].head;
		}
		free(c->txns);
		c->txns = txns;
		for (i = n; i-- > c->ntxns;)
			c->unused[c->nunused++] = i;
		c->ntxns = n;
	}
	i = c->unused[--c->nunused];
	t = &c->txns[i];
	*t = (struct txn){ .page = page, .used = true };
	t->tail = &t->head;
	c->pages[page].txn = (uint16_t)(i + 1);
	return t;
}

static void txn_free(struct coh *c, struct txn *t)
{
	t->used = false;
	c->pages[t->page].txn = 0;
	c->unused[c->nunused++] = (unsigned int)(t - c->txns);
}

/* Ask for everything that is in the way of the transaction's first request. */
static void invalidate(struct coh *c, struct txn *t)
{
	struct coh_page *p = &c->pages[t->page];
	bool excl = t->head->want != COH_WANT_READ;
	uint64_t left = t->waiting = obstacles(p, t->head);

	new_version(p);
	for (; left; left &= left - 1)
		emit(c, COH_INV, (uint8_t)__builtin_ctzll(left), t->page, excl,
		     p->state == COH_EXCL, 0, 0);
}

/* The first request may go; then those behind it, until one has to wait. */
static void advance(struct coh *c, struct txn *t)
{
	while (!t->waiting) {
		struct req *r = t->head;

		if (r) {
			grant(c, t->page, r);
			t->head = r->next;
			if (!t->head)
				t->tail = &t->head;
			free(r);
		}
		if (!t->head) {
			txn_free(c, t);
			return;
		}
		if (obstacles(&c->pages[t->page], t->head))
			invalidate(c, t);
	}
}

int coh_request(struct coh *c, uint8_t slot, uint64_t page, enum coh_want want, bool has,
		uint64_t cookie)
{
	struct coh_page *p = &c->pages[page];
	struct req r = {
		.cookie = cookie, .slot = slot, .want = (uint8_t)want, .has = has
	};
	struct req *waits;
	struct txn *t;

	assert(page < c->n && (slot < GM_SLOT_MAX || slot == COH_HOME_SLOT));
	t = find_txn(c, page);
	if (!t && !obstacles(p, &r)) {
		grant(c, page, &r);
		return 0;
	}
	waits = malloc(sizeof(*waits));
	if (!waits)
		return -ENOMEM;
	*waits = r;
	if (t) {
		*t->tail = waits;
		t->tail = &waits->next;
		return 0;
	}
	t = txn_new(c, page);
	if (!t) {
		free(waits);
		return -ENOMEM;
	}
	t->head = waits;
	t->tail = &waits->next;
	invalidate(c, t);
	return 0;
}

unsigned int coh_try_read(struct coh *c, uint8_t slot, uint64_t page, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n && page + i < c->n; i++) {
		struct coh_page *p = &c->pages[page + i];

		if (p->txn || p->state > COH_SHARED)
			break;
		if (p->state == COH_HOME)
			emit(c, COH_PROTECT, slot, page + i, false, false, 0, 0);
		p->state = COH_SHARED;
		p->sharers |= bit(slot);
	}
	return i;
}

unsigned int coh_try_write(struct coh *c, uint8_t slot, uint64_t page, unsigned int n)
{
	unsigned int i, have;

	for (have = 0; have < n && page + have < c->n; have++) {
		if (c->pages[page + have].txn || c->pages[page + have].state != COH_HOME)
			break;
		emit(c, COH_PROTECT, slot, page + have, false, false, 0, 0);
	}
	for (i = 0; i < have; i++) {
		struct coh_page *p = &c->pages[page + i];

		new_version(p);
		emit(c, COH_KEEP, slot, page + i, true, true, 0, 0);
		p->holder = slot;
		p->sharers = 0;
		p->state = COH_EXCL;
	}
	return have;
}

bool coh_ready(const struct coh *c, uint64_t page, uint64_t n, bool write)
{
	for (uint64_t i = page; i < page + n; i++)
		if (c->pages[i].txn ||
		    c->pages[i].state > (write ? COH_HOME : COH_SHARED))
			return false;
	return true;
}

int coh_ack(struct coh *c, uint8_t slot, uint64_t page, bool kept, uint64_t version,
	    bool lost)
{
	struct coh_page *p = &c->pages[page];
	struct txn *t = find_txn(c, page);
	bool awaited = t && t->waiting & bit(slot);

	/* Late answer to an INV that a FLUSH had answered: the slot may have been granted
	 * the page anew by now, so it says nothing about what the slot holds. */
	if (version && (!awaited || version != coh_version(c, page)))
		return 0;
	if (p->state == COH_EXCL && p->holder == slot) {
		if (lost) {
			lose(c, p);
		} else if (kept) {
			p->state = COH_SHARED;
			p->sharers = bit(slot);
		} else {
			set_home(p);
		}
	} else if (p->state == COH_SHARED && p->sharers & bit(slot)) {
		if (!kept)
			p->sharers &= ~bit(slot);
		if (!p->sharers)
			set_home(p);
	} else if (!awaited) {
		return -EPROTO;
	}
	if (!awaited)
		return 0;
	/* It still has what is in the way: this was a FLUSH that crossed the INV. */
	if (obstacles(p, t->head) & bit(slot))
		return version ? -EPROTO : 0;
	t->waiting &= ~bit(slot);
	advance(c, t);
	return 0;
}

bool coh_awaits(const struct coh *c, uint8_t slot, uint64_t page, uint64_t version)
{
	const struct txn *t = find_txn(c, page);

	return t && t->waiting & bit(slot) && version == coh_version(c, page);
}

void coh_cancel(struct coh *c, uint8_t slot)
{
	for (unsigned int i = 0; i < c->ntxns; i++)
		for (struct req *r = c->txns[i].used ? c->txns[i].head : NULL; r;
		     r = r->next)
			if (r->slot == slot)
				r->slot = DEAD_SLOT;
}

uint64_t coh_slot_dead(struct coh *c, uint8_t slot)
{
	uint64_t lost = 0;

	coh_cancel(c, slot);
	for (uint64_t i = 0; i < c->n; i++) {
		struct coh_page *p = &c->pages[i];

		if (p->state == COH_EXCL && p->holder == slot) {
			lose(c, p);
			lost++;
		} else if (p->state == COH_SHARED && p->sharers & bit(slot)) {
			p->sharers &= ~bit(slot);
			if (!p->sharers)
				set_home(p);
		}
	}
	for (unsigned int i = 0; i < c->ntxns; i++) {
		struct txn *t = &c->txns[i];

		if (t->used && t->waiting & bit(slot)) {
			t->waiting &= ~bit(slot);
			advance(c, t);
		}
	}
	return lost;
}

void coh_resend(struct coh *c, uint8_t slot)
{
	for (unsigned int i = 0; i < c->ntxns; i++) {
		struct txn *t = &c->txns[i];

		if (t->used && t->waiting & bit(slot))
			emit(c, COH_INV, slot, t->page, t->head->want != COH_WANT_READ,
			     c->pages[t->page].state == COH_EXCL, 0, 0);
	}
}

unsigned int coh_busy(const struct coh *c)
{
	return c->ntxns - c->nunused;
}

void coh_load(struct coh *c, uint64_t page, uint64_t n, enum coh_state state,
	      uint8_t holder, uint64_t sharers)
{
	assert(page <= c->n && n <= c->n - page);
	for (uint64_t i = page; i < page + n; i++)
		c->pages[i] = (struct coh_page){ .state = (uint8_t)state,
						 .holder = holder,
						 .sharers = sharers };
}

void coh_abort(struct coh *c, int status)
{
	for (unsigned int i = 0; i < c->ntxns; i++) {
		struct txn *t = &c->txns[i];

		if (!t->used)
			continue;
		while (t->head) {
			struct req *r = t->head;

			t->head = r->next;
			emit(c, r->slot == COH_HOME_SLOT ? COH_DONE : COH_GRANT, r->slot,
			     t->page, false, false, status, r->cookie);
			free(r);
		}
		txn_free(c, t);
	}
}
