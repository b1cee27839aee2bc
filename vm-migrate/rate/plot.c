// SPDX-License-Identifier: BSD-2-Clause
/* plot: see plot.h. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "plot.h"

#define MAX_WIDTH 200
#define STEPS	  8 /* heights of a character */

bool plot_utf8(void)
{
	/* The first of them that is set decides: locale(7). */
	static const char *const name[] = { "LC_ALL", "LC_CTYPE", "LANG" };

	for (unsigned int i = 0; i < 3; i++) {
		const char *s = getenv(name[i]);

		if (s && *s)
			return strcasestr(s, "utf-8") || strcasestr(s, "utf8");
	}
	return false;
}

/* Columns: the mean of the values that share one. Return: columns */
static unsigned int columns(const double *v, unsigned int n, unsigned int width,
			    double *col)
{
	unsigned int cols = n < width ? n : width;

	for (unsigned int c = 0; c < cols; c++) {
		unsigned int from = n * c / cols, to = n * (c + 1) / cols;

		col[c] = 0;
		for (unsigned int i = from; i < to; i++)
			col[c] += v[i] / (to - from);
	}
	return cols;
}

static void cell(FILE *f, double filled, bool utf8)
{
	static const char *const block[STEPS + 1] = { " ", "▁", "▂", "▃", "▄",
						      "▅", "▆", "▇", "█" };
	int step = filled <= 0 ? 0 : filled >= 1 ? STEPS : (int)(filled * STEPS + 0.5);

	if (utf8)
		fputs(block[step], f);
	else
		fputc(step > STEPS / 2 ? '#' : step ? '.' : ' ', f);
}

void plot_bars(FILE *f, const double *v, unsigned int n, unsigned int width,
	       unsigned int rows, bool utf8, const char *(*label)(double value),
	       double seconds)
{
	const char *bar = utf8 ? "┤" : "|", *corner = utf8 ? "└" : "+",
		   *line = utf8 ? "─" : "-";
	double col[MAX_WIDTH], top = 0;
	unsigned int cols;

	if (!n || !rows)
		return;
	cols = columns(v, n, width < MAX_WIDTH ? width : MAX_WIDTH, col);
	for (unsigned int c = 0; c < cols; c++)
		if (col[c] > top)
			top = col[c];
	for (unsigned int row = rows; row-- > 0;) {
		fprintf(f, "%11s %s", row == rows - 1 ? label(top) : "", bar);
		for (unsigned int c = 0; c < cols; c++)
			cell(f, top > 0 ? col[c] / top * rows - row : 0, utf8);
		fputc('\n', f);
	}
	fprintf(f, "%11s %s", label(0), corner);
	for (unsigned int c = 0; c < cols; c++)
		fputs(line, f);
	fprintf(f, " %.1f s\n", seconds);
}
