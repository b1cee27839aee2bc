// SPDX-License-Identifier: BSD-2-Clause
/* peer_pages: which pages are here. Contract in peer_int.h; agent's thread. */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "../local.h"
#include "bulk.h"
#include "peer_int.h"
#include "../../lib/clock.h"
#include "../../lib/log.h"

#define SETTLE_NS 50000 /* a page granted on a fault is used before it is given up */

static struct pending **find_pending(struct peer *p, uint64_t page)
{
	struct pending **q = &p->pending[page % PEER_BUCKETS];

	while (*q && (*q)->page != page)
		q = &(*q)->next;
	return q;
}

void peer_poison(struct peer *p, uint64_t page, uint32_t clients)
{
	window_drop(p->win, page, 1);
	window_poison(p->win, page, 1, clients);
	p->meta->hdr->poisoned = 1;
	counters.poisoned++;
}

void peer_request(struct peer *p, struct pending *q)
{
	struct gm_hdr h = {
		.op = q->want_write ? GM_OP_WRITE : GM_OP_READ,
		.bus = dir_page_bus(&p->desc, q->page),
	};

	/* Asked for to read, with others: those were not meant to be written. */
	if (q->want_write && !q->write)
		q->pages = 1;
	h.size = q->pages << p->desc.page_shift;
	if (p->asked && p->asked + h.size > PEER_FLIGHT) {
		q->since = ++p->since;
		p->unsent++;
		return;
	}
	q->sent = h.size;
	p->asked += h.size;
	q->write = q->want_write;
	if (q->write && q->pages == 1 && p->held[q->page] == READ)
		h.flags = GM_F_UPGRADE;
	peer_send(p, &h, NULL);
}

void peer_request_waiting(struct peer *p)
{
	while (p->unsent) {
		struct pending *first = NULL;

		for (int i = 0; i < PEER_BUCKETS; i++)
			for (struct pending *q = p->pending[i]; q; q = q->next)
				if (!q->sent && (!first || q->since < first->since))
					first = q;
		if (!first ||
		    (p->asked &&
		     p->asked + (first->pages << p->desc.page_shift) > PEER_FLIGHT))
			return;
		p->unsent--;
		peer_request(p, first);
	}
}

void peer_ask(struct peer *p, uint64_t page, uint32_t pages, uint32_t clients, bool write)
{
	struct pending *q = calloc(1, sizeof(*q));

	if (!q) {
		peer_poison(p, page, clients);
		return;
	}
	*q = (struct pending){ .next = p->pending[page % PEER_BUCKETS],
			       .page = page,
			       .pages = pages,
			       .clients = clients,
			       .write = write,
			       .want_write = write };
	for (int i = 0; write && pages > 1; i++) {
		if (i == PEER_RUNS) {
			q->pages = pages = 1;
		} else if (!p->runs[i]) {
			p->runs[i] = q;
			break;
		}
	}
	p->pending[page % PEER_BUCKETS] = q;
	peer_request(p, q);
}

static struct pending *find_run(struct peer *p, uint64_t page)
{
	for (int i = 0; i < PEER_RUNS; i++)
		if (p->runs[i] && page - p->runs[i]->page < p->runs[i]->pages)
			return p->runs[i];
	return NULL;
}

bool peer_asked(struct peer *p, uint64_t page)
{
	return *find_pending(p, page) || find_run(p, page);
}

static void pending_free(struct peer *p, struct pending **at)
{
	struct pending *q = *at;

	if (q->sent)
		p->asked -= q->sent;
	else
		p->unsent--;
	for (int i = 0; i < PEER_RUNS; i++)
		if (p->runs[i] == q)
			p->runs[i] = NULL;
	*at = q->next;
	free(q);
}

/* What is here, or was asked for already. Return: that is enough */
static bool have(struct peer *p, uint64_t page, uint32_t clients, bool write)
{
	struct pending *q = *find_pending(p, page);

	if (page + 1 == p->stores.marker)
		p->stores.marker = 0;
	if (p->dead || (write && p->read_only)) {
		peer_poison(p, page, clients);
		return true;
	}
	if (p->held[page] == WRITE || (p->held[page] == READ && !write)) {
		counters.faults_local++;
		window_map(p->win, page, 1, clients, p->held[page] == WRITE);
		return true;
	}
	if (q) {
		q->clients |= clients;
		q->want_write |= write;
		return true;
	}
	/* To ask again for what was granted to write and is on its way would say that it
	 * is lost. */
	q = find_run(p, page);
	if (q) {
		q->clients |= clients;
		q->waited |= 1ull << (page - q->page);
	}
	return q;
}

/* How many pages from @page on nobody has asked for, @most of them */
static uint32_t unasked(struct peer *p, uint64_t page, uint32_t most)
{
	uint64_t left = window_pages(p->win) - page;
	uint32_t n = 0;

	while (n < most && n < left && p->held[page + n] == ABSENT &&
	       !peer_asked(p, page + n) && !bulk_has(p, page + n))
		n++;
	return n;
}

/* The run behind the last one, while the application is busy with that. */
static void next_run(struct peer *p, uint32_t clients)
{
	uint64_t page = p->stores.next;
	uint32_t n = unasked(p, page, dir_batch(&p->desc, GM_BATCH_PAGES));
	int slot = 0;

	while (slot < PEER_RUNS && p->runs[slot])
		slot++;
	if (n < 2 || slot == PEER_RUNS)
		return;
	p->stores.next = page + n;
	p->stores.marker = page + 1;
	peer_ask(p, page, n, clients, true);
}

/* Stores that follow one another ask for more and more pages; the owner gives what
 * nobody else has. */
static void write_ahead(struct peer *p, uint64_t page, uint32_t clients)
{
	uint32_t run = 1, n = 1, most = dir_batch(&p->desc, GM_BATCH_PAGES);

	if (page == p->stores.next && p->stores.run)
		run = 2 * p->stores.run;
	if (run > most)
		run = most;
	if (p->held[page] == ABSENT)
		n = 1 + unasked(p, page + 1, run - 1);
	p->stores.next = page + n;
	p->stores.run = run;
	peer_ask(p, page, n, clients, true);
	if (n == most)
		next_run(p, clients);
}

void peer_forget(struct peer *p)
{
	for (int i = 0; i < PEER_BUCKETS; i++) {
		struct pending **at = &p->pending[i], *q;

		while ((q = *at)) {
			if (!q->sent) {
				pending_free(p, at);
				continue;
			}
			q->want_write = q->write;
			q->waited = 0;
			at = &q->next;
		}
	}
	p->want_from = p->want_to = 0;
}

bool peer_owed(const struct peer *p)
{
	for (int i = 0; i < PEER_BUCKETS; i++)
		for (const struct pending *q = p->pending[i]; q; q = q->next)
			if (q->write)
				return true;
	return false;
}

void peer_need(struct peer *p, uint64_t page, uint32_t clients)
{
	if (!have(p, page, clients, false))
		peer_ask(p, page, 1, clients, false);
}

void peer_fault(struct peer *p, int client, uint64_t page, bool write)
{
	uint32_t clients = 1u << client;
	bool marker = write && page + 1 == p->stores.marker;

	counters.faults++;
	if (!write)
		ahead_touch(p, page, clients);
	if (have(p, page, clients, write)) {
		if (marker)
			next_run(p, clients);
		return;
	}
	if (write)
		write_ahead(p, page, clients);
	else if (!bulk_wait(p, page, clients))
		ahead_read(p, page, clients);
}

void peer_faults(struct peer *p, int client)
{
	uint64_t page;
	bool write;

	peer_over(p);
	while (window_fault(p->win, client, &page, &write) > 0)
		peer_fault(p, client, page, write);
}

void peer_prefetch(struct peer *p, uint64_t off, uint64_t len)
{
	uint64_t page = off >> p->desc.page_shift;
	uint64_t end = (off + len + dir_page_size(&p->desc) - 1) >> p->desc.page_shift;

	if (p->bulk && end - page > 1) {
		ahead_prefetch(p, page, end);
		return;
	}
	while (!p->dead && page < end) {
		uint32_t n = 0;

		while (page < end && (p->held[page] != ABSENT || peer_asked(p, page)))
			page++;
		while (page + n < end && n < dir_batch(&p->desc, GM_BATCH_PAGES) &&
		       p->held[page + n] == ABSENT)
			n++;
		if (n)
			peer_ask(p, page, n, p->clients, false);
		page += n;
	}
}

/* A request is over: was it all that those who wait need? */
static void answered(struct peer *p, struct pending **at, bool write)
{
	struct pending *q = *at;

	if (!q->want_write || write) {
		pending_free(p, at);
		return;
	}
	p->asked -= q->sent;
	q->sent = 0;
	peer_request(p, q);
}

static void ask_again(struct peer *p, uint64_t page, uint32_t clients)
{
	if (p->held[page] == ABSENT && !peer_asked(p, page))
		peer_ask(p, page, 1, clients, true);
}

static void poison_too(struct peer *p, uint64_t page, uint32_t clients)
{
	peer_poison(p, page, clients);
}

void peer_poison_pending(struct peer *p, struct pending **at)
{
	struct pending *q = *at;

	peer_poison(p, q->page, q->clients);
	peer_waiters(p, q, poison_too);
	pending_free(p, at);
}

/* There is no huge page for the one that was granted: who waits gets SIGBUS, and bytes that
 * are nowhere else go home. */
static void decline(struct peer *p, struct pending **at, const struct gm_hdr *h,
		    const uint8_t *bytes)
{
	struct gm_hdr back = {
		.op = GM_OP_FLUSH, .len = h->len, .size = h->size, .bus = h->bus
	};

	log_limited(LOG_LVL_ERROR,
		    "region %s: no huge page for what came: see vm.nr_hugepages",
		    p->desc.name);
	if (h->flags & GM_F_EXCL) {
		for (uint32_t i = 0; i < h->size; i += dir_page_size(&p->desc))
			bulk_void(p, dir_page(&p->desc, h->bus + i));
		p->grants++;
		peer_send(p, &back, bytes);
	}
	peer_poison_pending(p, at);
}

void peer_grant(struct peer *p, const struct gm_hdr *h, const uint8_t *bytes)
{
	uint64_t page = dir_page(&p->desc, h->bus);
	uint32_t n = h->size >> p->desc.page_shift, from = 0;
	bool write = h->flags & GM_F_EXCL;
	bool marker = page + 1 == p->stores.marker;
	struct pending **at, *q, left;

	if (!gm_in_range(h->bus, h->size, p->desc.bus, p->desc.size) ||
	    h->bus % dir_page_size(&p->desc) || h->size % dir_page_size(&p->desc)) {
		chan_fail(p->chan, -EBADMSG);
		return;
	}
	at = find_pending(p, page);
	q = *at;
	if (!q || !q->sent || (write && n > q->pages)) {
		chan_fail(p->chan, -EBADMSG);
		return;
	}
	left = *q;
	/* Its owner has given the region to this node, which is not one yet. Who waits is
	 * handed over then (peer_yield()); what was copied here is the page's only home. */
	if (h->status == -EREMCHG && p->still)
		return;
	if (h->status) {
		/* Nobody has asked for that page. */
		if (marker)
			p->stores.marker = 0;
		else
			peer_poison(p, page, q->clients);
		pending_free(p, at);
		peer_waiters(p, &left, ask_again);
		return;
	}
	if (write && !h->len) {
		if (p->held[page] != READ) {
			chan_fail(p->chan, -EBADMSG);
			return;
		}
		counters.upgrades++;
	}
	for (uint32_t i = 0, run; i < n && h->len; i += run) {
		for (run = 0; i + run < n && p->held[page + i + run] == ABSENT; run++)
			counters.prefetched += i + run > 0;
		if (window_fill(p->win, page + i, run,
				bytes + ((size_t)i << p->desc.page_shift), write)) {
			decline(p, at, h, bytes);
			return;
		}
		counters.pages_in += run;
		run += !run;
	}
	for (uint32_t i = 0; i < n; i++)
		if (p->held[page + i] == ABSENT || write)
			p->held[page + i] = write ? WRITE : READ;
	p->grants += write;
	from = write && marker;
	/* One call for a run of pages of one kind. */
	for (uint32_t i = from + 1; i <= n; i++) {
		if (i < n && p->held[page + i] == p->held[page + from])
			continue;
		window_map(p->win, page + from, i - from, q->clients,
			   p->held[page + from] == WRITE);
		from = i;
	}
	p->recent[p->nrecent].page = page;
	p->recent[p->nrecent].ns = clock_boot_ns();
	p->nrecent = (p->nrecent + 1) % PEER_RECENT;
	answered(p, at, write);
	if (write)
		peer_waiters(p, &left, ask_again);
}

/* Let a thread that was just given the page use it once: who only steals never ends. */
static void let_settle(struct peer *p, uint64_t page)
{
	for (int i = 0; i < PEER_RECENT; i++) {
		if (p->recent[i].page == page && p->recent[i].ns &&
		    clock_boot_ns() - p->recent[i].ns < SETTLE_NS) {
			p->recent[i].ns = 0;
			sched_yield();
		}
	}
}

/* The only copy leaves. One stays until the owner has it: there is room for it. Return: it;
 * NULL: not now */
static const uint8_t *give(struct peer *p, uint64_t page, uint64_t version, bool shared)
{
	struct keep_entry e = { .page = page,
				.session = p->session,
				.seq = p->seq + 1,
				.version = version,
				.shared = shared };
	int err = window_protect(p->win, page, 1);

	if (err) {
		log_limited(LOG_LVL_ERROR, "cannot write-protect: %s", strerror(-err));
		peer_die(p, GM_EV_OWNER_GONE);
		return NULL;
	}
	return keep_put(&p->meta->given, &e, window_page(p->win, page));
}

/* Is as much under way to the owner as may be? What is, is kept until it has come. */
static bool given_enough(const struct peer *p)
{
	const struct keep *k = &p->meta->given;

	return k->n && (!k->nunused || (uint64_t)(k->n + 1) << k->shift > PEER_FLIGHT);
}

/* From @at on. */
static void inv_later(struct peer *p, const struct gm_hdr *h, uint32_t at)
{
	struct gm_hdr *later;

	if (!p->invs)
		p->invs = calloc(PEER_INVS, sizeof(*p->invs));
	if (!p->invs || p->ninvs == PEER_INVS) {
		/* On a new connection the owner first says what it has. */
		chan_fail(p->chan, -ENOBUFS);
		return;
	}
	later = &p->invs[(p->inv_head + p->ninvs++) % PEER_INVS];
	*later = *h;
	later->bus += at;
	later->size -= at;
}

void peer_inv_again(struct peer *p)
{
	while (p->chan && p->ninvs && !given_enough(p)) {
		struct gm_hdr h = p->invs[p->inv_head];

		p->inv_head = (p->inv_head + 1) % PEER_INVS;
		p->ninvs--;
		peer_inv(p, &h);
	}
}

void peer_inv(struct peer *p, const struct gm_hdr *h)
{
	bool keep = h->flags & GM_F_SHARED;

	for (uint32_t at = 0; at < h->size; at += dir_page_size(&p->desc)) {
		uint64_t page = dir_page(&p->desc, h->bus + at);
		struct gm_hdr ack = { .op = GM_OP_ACK,
				      .bus = h->bus + at,
				      .size = dir_page_size(&p->desc),
				      .arg = h->arg };
		uint8_t had = p->held[page];
		const uint8_t *bytes = NULL;

		if (had == WRITE && given_enough(p)) {
			inv_later(p, h, at);
			return;
		}
		let_settle(p, page);
		counters.inv_in++;
		bulk_void(p, page);
		if (had == WRITE) {
			bytes = give(p, page, h->arg, keep);
			if (!bytes)
				return;
			ack.len = ack.size;
		}
		if (keep && had != ABSENT) {
			ack.flags = GM_F_SHARED;
			p->held[page] = READ;
		} else if (had != ABSENT) {
			/* Before the answer: nobody reads old bytes once it is out. */
			p->held[page] = ABSENT;
			window_drop(p->win, page, 1);
		}
		peer_send(p, &ack, bytes);
	}
}
