// SPDX-License-Identifier: BSD-2-Clause
/*
 * ghostnic top: a screen of rates, renewed until a key or a signal ends it. Not on
 * a terminal it prints one frame.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"
#include "out.h"
#include "snapshot.h"
#include "term.h"
#include "top.h"

static void show(const struct opts *o, bool screen, json_t *rates)
{
	char *buf = NULL;
	size_t len;
	FILE *f;

	if (o->json) {
		out_json(json_incref(rates));
		return;
	}
	f = open_memstream(&buf, &len);
	if (!f)
		return;
	top_render(rates, f);
	fclose(f);
	if (screen)
		term_frame(buf);
	else
		fputs(buf, stdout);
	fflush(stdout);
	free(buf);
}

int cmd_top(const struct opts *o, int argc, char **argv)
{
	bool once = o->once || (!isatty(STDOUT_FILENO) && !o->count);
	json_t *before, *now, *rates;
	unsigned int n = 0;
	bool screen;
	int rc;

	rc = snapshot_take(o, NULL, &before);
	if (rc)
		return rc;
	screen = term_open(!once && !o->json);
	if (screen)
		term_frame("ghostnic top: counting; q quits\n");
	while (term_wait(o->interval_s) == TERM_TICK) {
		rc = snapshot_take(o, NULL, &now);
		if (rc)
			break;
		rates = top_compute(before, now);
		show(o, screen, rates);
		json_decref(rates);
		json_decref(before);
		before = now;
		if (once || (o->count && ++n == o->count) || ferror(stdout))
			break;
	}
	json_decref(before);
	term_close();
	return rc;
}
