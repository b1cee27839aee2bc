// SPDX-License-Identifier: BSD-2-Clause
/*
 * workload: parser, layout, and the guest's steps as C. See workload.h.
 *
 * Layout: WORKLOAD_LOW bytes are left alone (KVM's flat guest has its code and page
 * tables there), then the table of versions, 4 bytes a page, then data pages. A vCPU's
 * pages have numbers of their own, from 0 to the last that it ever writes; they lie one
 * behind the other or in pieces, and the table has them one behind the other always.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../text.h"
#include "workload.h"

#define LOW_PAGES      256
#define STAMP_MULT     0x9e3779b97f4a7c15ULL
#define WORDS	       (RAM_PAGE_SIZE / 8)
#define TABLE_PER_PAGE (RAM_PAGE_SIZE / 4)

static const char *const pattern_name[] = { "random", "sequential", "hot" };

/* ---- text -------------------------------------------------------------------------- */

static int parse_amount(const char *s, uint64_t *bytes, unsigned int *percent)
{
	unsigned long v;
	char *end;

	*bytes = 0;
	*percent = 0;
	if (!strchr(s, '%'))
		return text_size(s, bytes) || !*bytes ? -EINVAL : 0;
	v = strtoul(s, &end, 10);
	if (*s < '0' || *s > '9' || strcmp(end, "%") || !v || v > 100)
		return -EINVAL;
	*percent = (unsigned int)v;
	return 0;
}

static int parse_count(const char *s, uint64_t *out)
{
	char *end;

	errno = 0;
	*out = strtoull(s, &end, 10);
	return *s < '0' || *s > '9' || *end || errno || *out > 1ULL << 40 ? -EINVAL : 0;
}

static int parse_pattern(const char *s, enum workload_pattern *out)
{
	for (unsigned int i = 0; i < sizeof(pattern_name) / sizeof(pattern_name[0]); i++)
		if (!strcmp(s, pattern_name[i])) {
			*out = (enum workload_pattern)i;
			return 0;
		}
	return -EINVAL;
}

static int parse_piece(const char *s, uint64_t *out)
{
	unsigned int percent;
	int err = parse_amount(s, out, &percent);

	return err || percent || *out < RAM_PAGE_SIZE || *out & (*out - 1) ? -EINVAL : 0;
}

static int parse_one(struct workload *w, const char *key, const char *v)
{
	if (!strcmp(key, "rate"))
		return parse_count(v, &w->rate);
	if (!strcmp(key, "pattern"))
		return parse_pattern(v, &w->pattern);
	if (!strcmp(key, "set"))
		return parse_amount(v, &w->set, &w->set_percent);
	if (!strcmp(key, "fill"))
		return parse_amount(v, &w->fill, &w->fill_percent);
	if (!strcmp(key, "piece"))
		return parse_piece(v, &w->piece);
	if (!strcmp(key, "stop"))
		return parse_count(v, &w->stop);
	if (!strcmp(key, "write") && (!strcmp(v, "line") || !strcmp(v, "page"))) {
		w->whole_pages = *v == 'p';
		return 0;
	}
	return strcmp(key, "write") != 0 ? -ENOENT : -EINVAL;
}

int workload_parse(const char *text, struct workload *w, char *why, size_t why_len)
{
	struct workload out = { .on = true };
	char copy[WORKLOAD_TEXT_MAX], *save = NULL;

	if (strlen(text) >= sizeof(copy)) {
		snprintf(why, why_len, "workload: longer than %d bytes",
			 WORKLOAD_TEXT_MAX - 1);
		return -EINVAL;
	}
	strcpy(copy, text);
	for (char *t = strtok_r(copy, ",", &save); t; t = strtok_r(NULL, ",", &save)) {
		char *eq = strchr(t, '=');
		int err;

		if (eq)
			*eq = '\0';
		err = eq ? parse_one(&out, t, eq + 1) : -ENOENT;
		if (err == -ENOENT)
			snprintf(why, why_len,
				 "workload: no parameter \"%s\"; there are rate=, "
				 "pattern=, set=, fill=, piece=, write= and "
				 "stop=",
				 t);
		else if (err)
			snprintf(why, why_len, "workload: %s cannot be \"%s\"", t,
				 eq + 1);
		if (err)
			return -EINVAL;
	}
	*w = out;
	return 0;
}

static size_t put_amount(char *text, size_t at, const char *key, uint64_t bytes,
			 unsigned int percent)
{
	size_t room = WORKLOAD_TEXT_MAX - at;

	if (percent)
		return at + (size_t)snprintf(text + at, room, ",%s=%u%%", key, percent);
	if (bytes)
		return at + (size_t)snprintf(text + at, room, ",%s=%llu", key,
					     (unsigned long long)bytes);
	return at;
}

void workload_text(const struct workload *w, char text[WORKLOAD_TEXT_MAX])
{
	size_t at;

	at = (size_t)snprintf(text, WORKLOAD_TEXT_MAX, "rate=%llu,pattern=%s,write=%s",
			      (unsigned long long)w->rate, pattern_name[w->pattern],
			      w->whole_pages ? "page" : "line");
	at = put_amount(text, at, "set", w->set, w->set_percent);
	at = put_amount(text, at, "fill", w->fill, w->fill_percent);
	at = put_amount(text, at, "piece", w->piece, 0);
	put_amount(text, at, "stop", w->stop, 0);
}

/* ---- layout ------------------------------------------------------------------------ */

static uint64_t amount(uint64_t bytes, unsigned int percent, uint64_t all_pages)
{
	uint64_t pages = percent ? all_pages * percent / 100 : bytes / RAM_PAGE_SIZE;

	if (bytes && !pages)
		pages = 1;
	return pages > all_pages ? all_pages : pages;
}

/* Where the pages of a vCPU lie that has @part of them. */
static int spread(const struct workload *w, uint64_t data, unsigned int n, uint64_t part,
		  struct workload_plan *plan)
{
	uint64_t fill = amount(w->fill, w->fill_percent, data) / n, pieces;

	plan->used = fill > plan->pages ? fill : plan->pages;
	plan->piece = w->piece / RAM_PAGE_SIZE;
	if (!plan->piece)
		return 0;
	pieces = (plan->used + plan->piece - 1) / plan->piece;
	plan->stride = part / pieces;
	return plan->stride < plan->piece ? -EINVAL : 0;
}

int workload_plan(const struct workload *w, const struct ram *ram, unsigned int i,
		  unsigned int n, struct workload_plan *plan)
{
	const uint64_t all = ram->bytes / RAM_PAGE_SIZE;
	uint64_t rest, table, data, part;

	if (!ram->nblocks || ram->nblocks > 2 || all <= LOW_PAGES + 2 * n)
		return -EINVAL;
	rest = all - LOW_PAGES;
	table = (rest * 4 + RAM_PAGE_SIZE - 1) / RAM_PAGE_SIZE;
	data = rest - table;
	part = data / n;
	*plan = (struct workload_plan){
		.low_pages = ram->block[0].size / RAM_PAGE_SIZE,
		.table = LOW_PAGES,
		.data = LOW_PAGES + table,
		.first = LOW_PAGES + table + part * i,
		.pages = amount(w->set, w->set_percent, data) / n,
		.sequential = w->pattern == WORKLOAD_SEQUENTIAL,
		.whole = w->whole_pages,
		.stop = w->stop,
	};
	/* A table that reached above the hole would need two addresses. */
	if (plan->data > plan->low_pages || !part)
		return -EINVAL;
	if (!w->set && !w->set_percent)
		plan->pages = part;
	if (!plan->pages)
		plan->pages = 1;
	plan->hot_pages = plan->pages / 10 ? plan->pages / 10 : 1;
	plan->hot = w->pattern == WORKLOAD_HOT ? 230 : 0;
	return spread(w, data, n, part, plan);
}

void workload_regs_init(struct workload_regs *r, unsigned int i)
{
	*r = (struct workload_regs){ .rng = STAMP_MULT * (i + 1) };
}

/* ---- the steps --------------------------------------------------------------------- */

static uint64_t *page_at(const struct workload_plan *p, uint64_t page)
{
	uint64_t a = page < p->low_pages
			     ? p->base[0] + page * RAM_PAGE_SIZE
			     : p->base[1] + (page - p->low_pages) * RAM_PAGE_SIZE;

	return (uint64_t *)(uintptr_t)a;
}

/* Of this vCPU's page number @i */
static uint64_t page_of(const struct workload_plan *p, uint64_t i)
{
	if (!p->stride)
		return p->first + i;
	return p->first + i / p->piece * p->stride + (i & (p->piece - 1));
}

static uint32_t *version_at(const struct workload_plan *p, uint64_t i)
{
	return (uint32_t *)(uintptr_t)(p->base[0] + p->table * RAM_PAGE_SIZE) +
	       (p->first - p->data + i);
}

static uint64_t stamp(uint64_t page, uint32_t version)
{
	return version * (STAMP_MULT * (2 * page + 1));
}

static uint64_t next_random(uint64_t x)
{
	x ^= x << 13;
	x ^= x >> 7;
	return x ^ x << 17;
}

/* A migration reads the pages meanwhile: volatile, so that what is written last is
 * written last, and whole words. */
static void put_words(uint64_t *page, uint64_t r)
{
	for (unsigned int i = 1; i < WORDS - 1; i++) {
		r = next_random(r);
		*(volatile uint64_t *)&page[i] = r;
	}
}

uint64_t workload_step(const struct workload_plan *plan, struct workload_regs *r,
		       uint64_t *table)
{
	uint64_t x = next_random(r->rng), i, n, page, mark;
	volatile uint64_t *words;
	volatile uint32_t *version;

	r->rng = x;
	if (plan->sequential) {
		i = r->next;
		r->next = i + 1 < plan->pages ? i + 1 : 0;
	} else {
		n = (x >> 40 & 255) < plan->hot ? plan->hot_pages : plan->pages;
		i = (x & 0xffffffff) * n >> 32;
	}
	page = page_of(plan, i);
	words = page_at(plan, page);
	version = version_at(plan, i);
	*table = plan->table + (plan->first - plan->data + i) / TABLE_PER_PAGE;
	mark = stamp(page, *version);
	if (words[0] != mark || words[WORDS - 1] != mark)
		r->errors++;
	mark = stamp(page, ++*version);
	words[0] = mark;
	if (plan->whole)
		put_words((uint64_t *)words, x);
	words[WORDS - 1] = mark;
	r->writes++;
	return page;
}

void workload_fill(const struct workload *w, const struct ram *ram, unsigned int i,
		   unsigned int n, const struct workload_plan *plan)
{
	const uint64_t all = ram->bytes / RAM_PAGE_SIZE - plan->data;
	uint64_t pages = amount(w->fill, w->fill_percent, all) / n;
	uint64_t r = STAMP_MULT + i;

	for (uint64_t k = 0; k < pages; k++) {
		uint64_t p = page_of(plan, k), *words = page_at(plan, p);

		*version_at(plan, k) = 1;
		words[0] = words[WORDS - 1] = stamp(p, 1);
		put_words(words, r);
		r = words[WORDS - 2]; /* else the next page is this one, a word on */
	}
}

/* Pages of one vCPU. */
static uint64_t check_part(const struct workload_plan *plan, uint64_t pages)
{
	uint64_t bad = 0;

	for (uint64_t k = 0; k < pages; k++) {
		uint64_t p = page_of(plan, k), mark = stamp(p, *version_at(plan, k));
		const uint64_t *words = page_at(plan, p);

		bad += words[0] != mark || words[WORDS - 1] != mark;
	}
	return bad;
}

int64_t workload_check(const struct workload *w, const struct ram *ram, unsigned int n,
		       uint64_t *bad)
{
	const uint64_t all = ram->bytes / RAM_PAGE_SIZE;
	struct workload_plan plan;
	int64_t looked = 0;
	uint64_t pages;

	*bad = 0;
	for (unsigned int i = 0; i < n; i++) {
		int err = workload_plan(w, ram, i, n, &plan);

		if (err)
			return err;
		plan.base[0] = (uintptr_t)ram->block[0].hva;
		plan.base[1] = ram->nblocks > 1 ? (uintptr_t)ram->block[1].hva : 0;
		/* Also pages that are never written, but for those between pieces */
		pages = plan.stride  ? plan.used
			: i + 1 == n ? all - plan.first
				     : (all - plan.data) / n;
		*bad += check_part(&plan, pages);
		looked += (int64_t)pages;
	}
	return looked;
}
