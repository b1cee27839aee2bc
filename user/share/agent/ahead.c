// SPDX-License-Identifier: BSD-2-Clause
/*
 * ahead: reads that follow one another. Contract in peer_int.h; agent's thread.
 *
 * Each of a few streams is a place at which the next read of an absent page is expected.
 * Reads there double what is asked for with them, on the first connection, up to
 * GM_BATCH_PAGES. From RUN_BULK pages on the stream is asked for ahead of the reads, on
 * the bulk connection, in pieces whose first page is a marker (bulk.h): when the
 * application comes there, the next piece is asked for. What is ahead doubles at each
 * marker up to AHEAD_MAX: then four pieces of 1 MiB are here or in flight, and the
 * application takes one short fault for each. Huge pages are a piece each, and a stream
 * from the second on.
 */
#include "../../lib/clock.h"
#include "bulk.h"
#include "peer_int.h"
#include "reserve.h"

/* In pages of the smallest size; dir_batch() */
#define RUN_BULK      8 /* a run that is a stream */
#define AHEAD_MIN     64
#define AHEAD_MAX     1024 /* more than a fast network has on its way */
#define PIECES	      4	   /* of what is ahead; of as many pages at least */
#define RESERVE_PAGES 8192 /* memory made ready further on */

static bool free_page(struct peer *p, uint64_t page)
{
	return p->held[page] == ABSENT && !bulk_has(p, page);
}

/* The stream that a read of @page continues: at its end, or in what is ahead. */
static struct stream *match(struct peer *p, uint64_t page)
{
	for (int i = 0; i < PEER_STREAMS; i++) {
		struct stream *s = &p->streams[i];

		if (s->used &&
		    (page == s->next || (s->ahead && page >= s->here && page < s->next)))
			return s;
	}
	return NULL;
}

/* The application is at @page: have enough in flight. */
static void advance(struct peer *p, struct stream *s, uint64_t page, uint32_t clients)
{
	uint32_t least = dir_batch(&p->desc, AHEAD_MIN),
		 most = dir_batch(&p->desc, AHEAD_MAX);
	uint32_t piece, ready = dir_batch(&p->desc, RESERVE_PAGES);
	uint64_t pages = window_pages(p->win), goal;

	most = most > PIECES ? most : PIECES;
	s->here = page;
	s->used = clock_boot_ns();
	s->ahead = s->ahead ? 2 * s->ahead : least > 1 ? least : 2;
	if (s->ahead > most)
		s->ahead = most;
	piece = s->ahead / PIECES + !(s->ahead / PIECES);
	goal = page + s->ahead < pages ? page + s->ahead : pages;
	while (s->next < goal && (goal - s->next >= piece || goal == pages)) {
		uint32_t n = 0;

		while (s->next < goal && !free_page(p, s->next))
			s->next++;
		while (n < piece && s->next + n < goal && free_page(p, s->next + n))
			n++;
		if (n && !bulk_ask(p, s->next, n, clients, true))
			break;
		s->next += n;
	}
	if (p->bulk && s->ahead == most && s->next > s->reserved) {
		s->reserved = s->next + ready / 2;
		window_reserve(p->win, s->next, ready);
	}
}

void ahead_touch(struct peer *p, uint64_t page, uint32_t clients)
{
	struct stream *s = match(p, page);

	if (s && s->ahead && page < s->next && page > s->here)
		advance(p, s, page, clients);
}

void ahead_read(struct peer *p, uint64_t page, uint32_t clients)
{
	uint32_t n = 1, most = dir_batch(&p->desc, GM_BATCH_PAGES);
	uint64_t left = window_pages(p->win) - page;
	struct stream *s = match(p, page);
	bool stream = false;

	if (!s) {
		s = &p->streams[0];
		for (int i = 1; i < PEER_STREAMS; i++)
			if (p->streams[i].used < s->used)
				s = &p->streams[i];
		*s = (struct stream){ .next = page + 1, .run = 1 };
	} else {
		s->run = 2 * s->run > GM_BATCH_PAGES ? GM_BATCH_PAGES : 2 * s->run;
		stream = s->run >= RUN_BULK || most == 1;
	}
	s->used = clock_boot_ns();
	while (n < s->run && n < most && n < left && free_page(p, page + n))
		n++;
	if (page + n > s->next)
		s->next = page + n;
	peer_ask(p, page, n, clients, false);
	if (stream)
		advance(p, s, page, clients);
}

void ahead_prefetch(struct peer *p, uint64_t page, uint64_t end)
{
	if (page <= p->want_to && end >= p->want_from) {
		p->want_from = page < p->want_from ? page : p->want_from;
		p->want_to = end > p->want_to ? end : p->want_to;
	} else {
		p->want_from = page;
		p->want_to = end;
	}
	ahead_pump(p);
}

void ahead_pump(struct peer *p)
{
	while (p->want_from < p->want_to) {
		uint32_t n = 0;

		while (n < dir_batch(&p->desc, GM_READ_PAGES) &&
		       p->want_from + n < p->want_to && free_page(p, p->want_from + n))
			n++;
		if (n && !bulk_ask(p, p->want_from, n, p->clients, false))
			return;
		p->want_from += n ? n : 1;
	}
}
