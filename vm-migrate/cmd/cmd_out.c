// SPDX-License-Identifier: BSD-2-Clause
/*
 * cmd_out: what the commands say, and how they ask a running VM. See cmd.h.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "../../user/lib/ghostnic.h"
#include "../text.h"
#include "cmd.h"

#define BAR_WIDTH 24

static bool json_wanted;
static bool bar_shown;

bool cmd_as_json(void)
{
	return json_wanted;
}

void cmd_set_json(bool json)
{
	json_wanted = json;
}

void cmd_json(json_t *obj)
{
	if (!obj || json_dumpf(obj, stdout, JSON_COMPACT | JSON_REAL_PRECISION(12)))
		fprintf(stderr, "vm-migrate: cannot print the result\n");
	putchar('\n');
	fflush(stdout);
	json_decref(obj);
}

static void say(bool error, const char *fmt, va_list ap)
{
	char msg[1024];

	vsnprintf(msg, sizeof(msg), fmt, ap);
	text_clean(msg);
	cmd_bar_end();
	if (!json_wanted)
		fprintf(stderr, "vm-migrate: %s\n", msg);
	else if (error)
		cmd_json(json_pack("{s:b, s:s}", "ok", 0, "error", msg));
	else
		cmd_json(json_pack("{s:s, s:s}", "event", "note", "text", msg));
}

void cmd_error(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(true, fmt, ap);
	va_end(ap);
}

void cmd_note(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(false, fmt, ap);
	va_end(ap);
}

const char *cmd_size(double bytes, char buf[CMD_SIZE_MAX])
{
	static const char *const unit[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB" };
	unsigned int i = 0;

	while (bytes >= 1024 && i + 1 < sizeof(unit) / sizeof(unit[0])) {
		bytes /= 1024;
		i++;
	}
	snprintf(buf, CMD_SIZE_MAX, "%.*f %s", i && bytes < 100 ? 1 : 0, bytes, unit[i]);
	return buf;
}

void cmd_bar(double done, const char *text)
{
	char bar[BAR_WIDTH + 1];
	struct winsize ws;
	int cols = 80, full;

	if (json_wanted || !isatty(STDERR_FILENO))
		return;
	if (!ioctl(STDERR_FILENO, TIOCGWINSZ, &ws) && ws.ws_col > 40)
		cols = ws.ws_col;
	memset(bar, ' ', BAR_WIDTH);
	bar[BAR_WIDTH] = '\0';
	full = done < 0 ? 0 : (int)((done > 1 ? 1 : done) * BAR_WIDTH + 0.5);
	memset(bar, '#', (size_t)full);
	fprintf(stderr, "\r[%s] %.*s\033[K", bar, cols - BAR_WIDTH - 4, text);
	fflush(stderr);
	bar_shown = true;
}

void cmd_bar_end(void)
{
	if (bar_shown)
		fputc('\n', stderr);
	bar_shown = false;
}

/* ---- control socket ---------------------------------------------------------------- */

static int explain(int err, const char *path)
{
	switch (err) {
	case -ENOENT:
	case -ECONNREFUSED:
		cmd_error("no VM answers on %s; is its \"vm-migrate run\" or \"recv\" "
			  "running, with this --control?",
			  path);
		return EXIT_ABSENT;
	case -EACCES:
	case -EPERM:
		cmd_error("may not open %s; run this as the VM's user", path);
		return EXIT_FAILED;
	case -ETIMEDOUT:
		cmd_error("the VM on %s did not answer in time", path);
		return EXIT_ABSENT;
	case -EPIPE:
		cmd_error("the VM on %s closed the connection: it has ended, or has too "
			  "many clients",
			  path);
		return EXIT_ABSENT;
	case -ENAMETOOLONG:
		cmd_error("%s: too long for a socket's path", path);
		return EXIT_USAGE;
	default:
		cmd_error("control socket %s: %s", path, strerror(-err));
		return EXIT_FAILED;
	}
}

int cmd_call(const char *path, json_t *request, json_t **answer)
{
	char *text = request ? json_dumps(request, JSON_COMPACT) : NULL, *line;
	const char *msg;
	json_t *a, *ok;
	int err;

	json_decref(request);
	err = text ? ghostnic_request(path, text, -1, &line) : -ENOMEM;
	free(text);
	if (err)
		return explain(err, path);
	a = json_loads(line, 0, NULL);
	free(line);
	ok = json_object_get(a, "ok");
	if (json_is_true(ok)) {
		*answer = a;
		return EXIT_DONE;
	}
	msg = json_string_value(json_object_get(a, "error"));
	if (json_is_false(ok))
		cmd_error("%s", msg ? msg : "the VM refused without a reason");
	else
		cmd_error("%s does not speak vm-migrate's control protocol", path);
	json_decref(a);
	return EXIT_FAILED;
}
