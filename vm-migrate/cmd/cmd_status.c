// SPDX-License-Identifier: BSD-2-Clause
/*
 * status: what a VM does, and how its migration goes.
 */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../text.h"
#include "cmd.h"

static const char *control;
static bool watch;
static double interval_s = 1;

static const struct opt opts[] = {
	OPT("control", 'c', TEXT, &control, "SOCKET", "control socket of the VM"),
	OPT("watch", 'w', FLAG, &watch, NULL, "again and again, until the VM ends"),
	OPT("interval", 0, SECS, &interval_s, "SECONDS", "of --watch, default 1"),
	OPT_END,
};

static void print_value(const char *key, const json_t *v, unsigned int depth);

static void print_object(json_t *o, unsigned int depth)
{
	const char *key;
	json_t *v;

	json_object_foreach(o, key, v) if (strcmp(key, "ok") != 0)
		print_value(key, v, depth);
}

static void print_value(const char *key, const json_t *v, unsigned int depth)
{
	char text[256];

	if (depth > 8)
		return;
	printf("%*s%-*s ", (int)depth * 2, "", 22 - (int)depth * 2, key);
	switch (json_typeof(v)) {
	case JSON_OBJECT:
		putchar('\n');
		print_object((json_t *)v, depth + 1);
		return;
	case JSON_STRING:
		snprintf(text, sizeof(text), "%s", json_string_value(v));
		puts(text_clean(text));
		return;
	case JSON_INTEGER: printf("%lld\n", (long long)json_integer_value(v)); return;
	case JSON_REAL: printf("%.3f\n", json_real_value(v)); return;
	case JSON_TRUE: puts("yes"); return;
	case JSON_FALSE: puts("no"); return;
	case JSON_NULL: puts("-"); return;
	case JSON_ARRAY:
		putchar('\n');
		for (size_t i = 0; i < json_array_size(v); i++) {
			snprintf(text, sizeof(text), "%zu", i);
			print_value(text, json_array_get(v, i), depth + 1);
		}
		return;
	}
}

static int run_status(int argc, char **argv)
{
	json_t *answer;
	int rc;

	if (!control) {
		cmd_error("status needs --control SOCKET, as given to run or recv");
		return EXIT_USAGE;
	}
	for (unsigned int i = 0;; i++) {
		rc = cmd_call(control, json_pack("{s:s}", "cmd", "status"), &answer);
		if (rc == EXIT_ABSENT && watch && i)
			return EXIT_DONE;
		if (rc)
			return rc;
		if (cmd_as_json()) {
			cmd_json(answer);
		} else {
			if (i)
				putchar('\n');
			print_object(answer, 0);
			fflush(stdout);
			json_decref(answer);
		}
		if (!watch)
			return EXIT_DONE;
		poll(NULL, 0, (int)(interval_s * 1000));
	}
}

const struct cmd cmd_status = {
	.name = "status",
	.run = run_status,
	.opts = opts,
	.usage = "status --control SOCKET [--watch]",
	.summary = "what a VM does, and how its migration goes",
};
