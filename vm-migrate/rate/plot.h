/* SPDX-License-Identifier: BSD-2-Clause */
/* plot: a small bar chart over time, in text. One thread. */
#ifndef VMM_PLOT_H
#define VMM_PLOT_H

#include <stdbool.h>
#include <stdio.h>

/** plot_utf8() - does the user's locale show block characters? */
bool plot_utf8(void);

/**
 * plot_bars() - from 0 to the highest of @v
 * @v:		[@n] values, not below 0; more than @width of them are put together
 * @width:	columns of the chart
 * @rows:	its height
 * @label:	text for a value, for the axis; a buffer that the next call may reuse
 * @seconds:	what the chart's length is
 */
void plot_bars(FILE *f, const double *v, unsigned int n, unsigned int width,
	       unsigned int rows, bool utf8, const char *(*label)(double value),
	       double seconds);

#endif
