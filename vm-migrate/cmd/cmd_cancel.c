// SPDX-License-Identifier: BSD-2-Clause
/*
 * cancel, pause, resume, quit: one order to a running VM, through its control socket.
 */
#include <stdio.h>

#include "cmd.h"

static const char *control;

static const struct opt opts[] = {
	OPT("control", 'c', TEXT, &control, "SOCKET", "control socket of the VM"),
	OPT_END,
};

static int order(const char *name, const char *said)
{
	json_t *answer;
	int rc;

	if (!control) {
		cmd_error("%s needs --control SOCKET, as given to run or recv", name);
		return EXIT_USAGE;
	}
	rc = cmd_call(control, json_pack("{s:s}", "cmd", name), &answer);
	if (rc)
		return rc;
	if (cmd_as_json())
		cmd_json(answer);
	else
		json_decref(answer);
	if (!cmd_as_json())
		puts(said);
	return EXIT_DONE;
}

static int run_cancel(int argc, char **argv)
{
	return order("cancel", "cancelled; the source runs on");
}

static int run_pause(int argc, char **argv)
{
	return order("pause", "paused");
}

static int run_resume(int argc, char **argv)
{
	return order("resume", "running");
}

static int run_quit(int argc, char **argv)
{
	return order("quit", "ended");
}

const struct cmd cmd_cancel = {
	.name = "cancel",
	.run = run_cancel,
	.opts = opts,
	.usage = "cancel --control SOCKET",
	.summary = "stop a migration that runs; the VM goes on where it is",
};

const struct cmd cmd_pause = {
	.name = "pause",
	.run = run_pause,
	.opts = opts,
	.usage = "pause --control SOCKET",
	.summary = "stop the VM's CPUs",
};

const struct cmd cmd_resume = {
	.name = "resume",
	.run = run_resume,
	.opts = opts,
	.usage = "resume --control SOCKET",
	.summary = "let them run again, also after a hand-over whose end is uncertain",
};

const struct cmd cmd_quit = {
	.name = "quit",
	.run = run_quit,
	.opts = opts,
	.usage = "quit --control SOCKET",
	.summary = "end the VM",
};
