// SPDX-License-Identifier: BSD-2-Clause
/*
 * ghostnic stats: every counter, once or as rates.
 */
#include <stdlib.h>
#include <string.h>

#include "cmd.h"
#include "out.h"
#include "snapshot.h"
#include "term.h"

struct print {
	double seconds;	     /* 0: totals only */
	struct table *table; /* text */
	json_t *rates;	     /* JSON: interface → owner → counter → rate */
	char where[160];     /* of the row before */
};

static void print_sample(const struct sample *s, void *arg)
{
	struct print *p = arg;
	char where[160], rate[FMT_MAX] = "";
	bool again;

	/* Zeros say nothing, and there are many. */
	if (!s->value)
		return;
	snprintf(where, sizeof(where), "%s %s", s->iface, s->owner);
	again = !strcmp(where, p->where);
	strcpy(p->where, where);
	if (p->seconds > 0)
		fmt_si(snapshot_rate(s->before, s->value, p->seconds), rate);
	table_row(p->table, "%s\t%s\t%lld\t%s\t%s", again ? "" : where, s->name,
		  (long long)s->value, rate, s->help);
}

static json_t *child(json_t *o, const char *key)
{
	json_t *c = json_object_get(o, key);

	if (!c) {
		c = json_object();
		json_object_set_new(o, key, c);
	}
	return c;
}

static void add_rate(const struct sample *s, void *arg)
{
	struct print *p = arg;
	double r = snapshot_rate(s->before, s->value, p->seconds);

	json_object_set_new(child(child(p->rates, s->iface), s->owner), s->name,
			    json_real(r));
}

static void print_text(const json_t *before, const json_t *now)
{
	static const char *const title[] = { "WHERE", "COUNTER", "TOTAL", "PER SECOND",
					     "MEANING" };
	struct table t;
	struct print p = { .table = &t };

	if (before)
		p.seconds = snapshot_seconds(before, now);
	table_init(&t, title, "<<>><");
	snapshot_each(before, now, print_sample, &p);
	if (!t.nrows)
		puts("all counters are 0");
	table_print(&t, stdout);
	fflush(stdout);
}

static void print_json(const json_t *before, const json_t *now)
{
	struct print p = { .seconds = 0 };
	json_t *o = json_copy((json_t *)now);

	if (before) {
		p.seconds = snapshot_seconds(before, now);
		p.rates = json_object();
		snapshot_each(before, now, add_rate, &p);
		json_object_set_new(o, "interval_s", json_real(p.seconds));
		json_object_set_new(o, "rates", p.rates);
	}
	out_json(o);
}

int cmd_stats(const struct opts *o, int argc, char **argv)
{
	json_t *before = NULL, *now;
	unsigned int n = 0;
	int rc;

	if (o->watch)
		term_open(false);
	for (;;) {
		rc = snapshot_take(o, argc ? argv[0] : NULL, &now);
		if (rc)
			break;
		/* With --watch the first one only starts the clock. */
		if (before || !o->watch) {
			if (o->json)
				print_json(before, now);
			else
				print_text(before, now);
			n++;
		}
		json_decref(before);
		before = now;
		if (!o->watch || (o->count && n == o->count) || ferror(stdout))
			break;
		if (term_wait(o->interval_s) == TERM_QUIT)
			break;
		if (n && !o->json)
			putchar('\n');
	}
	json_decref(before);
	term_close();
	return rc;
}
