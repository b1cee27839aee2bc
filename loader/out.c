// SPDX-License-Identifier: BSD-2-Clause
/*
 * out: messages, JSON and tables of the commands. See out.h.
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "out.h"

static bool as_json;
static json_t *notes;

void out_init(bool json)
{
	as_json = json;
	json_decref(notes);
	notes = json_array();
}

/* Bytes of the UTF-8 character at @s, as JSON takes it; 0: there is none. */
static size_t char_bytes(const char *s)
{
	size_t max = strnlen(s, 4);

	for (size_t n = 1; n <= max; n++) {
		json_t *c = json_stringn(s, n);
		bool ok = c;

		json_decref(c);
		if (ok)
			return n;
	}
	return 0;
}

/* Names of files and arguments may be anything, and a long message is cut anywhere. */
static void make_utf8(char *s)
{
	while (*s) {
		size_t n = char_bytes(s);

		if (!n)
			*s = '?';
		s += n ? n : 1;
	}
}

void out_error(const char *fmt, ...)
{
	char msg[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	if (!as_json) {
		fprintf(stderr, "ghostnic: %s\n", msg);
		return;
	}
	make_utf8(msg);
	out_json(json_pack("{s:b, s:s}", "ok", 0, "error", msg));
}

void out_note(const char *fmt, ...)
{
	char msg[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	if (!as_json) {
		fprintf(stderr, "ghostnic: note: %s\n", msg);
		return;
	}
	make_utf8(msg);
	json_array_append_new(notes, json_string(msg));
}

void out_json(json_t *obj)
{
	json_t *o = json_object();

	if (!obj)
		obj = json_pack(
			"{s:b, s:s}", "ok", 0, "error",
			"the result is no JSON: out of memory, or a name in it is "
			"not UTF-8");
	if (!json_object_get(obj, "ok"))
		json_object_set_new(o, "ok", json_true());
	json_object_update(o, obj);
	if (json_array_size(notes))
		json_object_set(o, "notes", notes);
	if (json_dumpf(o, stdout, JSON_COMPACT | JSON_REAL_PRECISION(12)))
		fprintf(stderr, "ghostnic: cannot print the result\n");
	putchar('\n');
	fflush(stdout);
	json_array_clear(notes);
	json_decref(o);
	json_decref(obj);
}

void table_init(struct table *t, const char *const *title, const char *align)
{
	*t = (struct table){
		.ncols = (unsigned int)strlen(align),
		.title = title,
		.align = align,
	};
}

void table_row(struct table *t, const char *fmt, ...)
{
	char line[1024], *p = line, *tab;
	unsigned int i;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (t->nrows == t->room) {
		unsigned int want = t->room ? 2 * t->room : 16;
		char **c = realloc(t->cell, (size_t)want * t->ncols * sizeof(*c));

		if (!c)
			return;
		t->cell = c;
		t->room = want;
	}
	for (i = 0; i < t->ncols; i++) {
		tab = i + 1 < t->ncols ? strchr(p, '\t') : NULL;
		if (tab)
			*tab = '\0';
		t->cell[t->nrows * t->ncols + i] = clean_text(strdup(p));
		p = tab ? tab + 1 : p + strlen(p);
	}
	t->nrows++;
}

static void print_cells(FILE *f, const struct table *t, const char *const *cell,
			const int *width)
{
	unsigned int i;

	for (i = 0; i < t->ncols; i++) {
		const char *s = cell[i] ? cell[i] : "";
		bool last = i + 1 == t->ncols;

		/* No blanks at the end of a line. */
		if (i + 2 == t->ncols && t->align[i + 1] == '<' &&
		    !(cell[i + 1] && *cell[i + 1]))
			last = true;

		if (t->align[i] == '>')
			fprintf(f, "%*s", width[i], s);
		else
			fprintf(f, "%-*s", last ? 0 : width[i], s);
		fputs(last ? "\n" : "  ", f);
		if (last)
			break;
	}
}

void table_print(struct table *t, FILE *f)
{
	int width[TABLE_MAX_COLS] = { 0 };
	unsigned int i, r;

	for (i = 0; i < t->ncols; i++) {
		width[i] = (int)strlen(t->title[i]);
		for (r = 0; r < t->nrows; r++) {
			const char *s = t->cell[r * t->ncols + i];
			int len = s ? (int)strlen(s) : 0;

			if (len > width[i])
				width[i] = len;
		}
	}
	if (t->nrows)
		print_cells(f, t, t->title, width);
	for (r = 0; r < t->nrows; r++)
		print_cells(f, t, (const char *const *)t->cell + r * t->ncols, width);
	for (r = 0; r < t->nrows * t->ncols; r++)
		free(t->cell[r]);
	free(t->cell);
	t->cell = NULL;
	t->nrows = t->room = 0;
}

const char *fmt_si(double v, char buf[FMT_MAX])
{
	static const char unit[] = " kMGTPE";
	unsigned int u = 0;

	while (v >= 999.5 && u + 2 < sizeof(unit)) {
		v /= 1000;
		u++;
	}
	if (u == 0)
		snprintf(buf, FMT_MAX, "%.0f", v);
	else
		snprintf(buf, FMT_MAX, "%.*f%c",
			 v < 9.995   ? 2
			 : v < 99.95 ? 1
				     : 0,
			 v, unit[u]);
	return buf;
}

char *clean_text(char *s)
{
	unsigned char *p;

	for (p = (unsigned char *)s; p && *p; p++)
		if (*p < 0x20 || *p == 0x7f)
			*p = '?';
	return s;
}
