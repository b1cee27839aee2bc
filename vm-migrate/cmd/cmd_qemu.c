// SPDX-License-Identifier: BSD-2-Clause
/*
 * qemu: migrate the guest of one QEMU to another, and prove that it lost nothing.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "cmd.h"
#include "../qemu/qemu_migrate.h"

#define MAX_MS 60000

static volatile sig_atomic_t stop;
static struct qemu_conf conf = {
	.downtime_ms = 300,
	.max_downtime_ms = 2000,
	.streams = 1,
	.cancel = &stop,
};
static unsigned int on_stall, verify, src_pid, dst_pid;

static const char *const stalls[] = { "throttle", "raise", "abort", NULL };
static const char *const verifies[] = { "full", "device", "none", NULL };

static const struct opt opts[] = {
	OPT("qmp", 0, TEXT, &conf.src_path, "SOCKET",
	    "monitor of the QEMU that has the guest"),
	OPT("dest-qmp", 0, TEXT, &conf.dst_path, "SOCKET",
	    "monitor of the QEMU that gets it\n(-S -incoming defer)"),
	OPT("to", 't', TEXT, &conf.uri, "URI",
	    "where the destination listens: tcp:HOST:PORT,\nunix:PATH, ..."),
	OPT("instance", 'i', TEXT, &conf.instance, "NAME",
	    "of ghostnicd: log what its device writes"),
	OPT("iface", 0, TEXT, &conf.iface, "IF", "of the instance, if there are several"),
	OPT("ctl", 0, TEXT, &conf.ctl, "SOCKET", "control socket of ghostnicd"),
	OPT("downtime-ms", 'd', UINT, &conf.downtime_ms, "MS",
	    "QEMU's budget for it, default 300; comparing RAM\ncomes on top", 1, MAX_MS),
	OPT("max-downtime-ms", 0, UINT, &conf.max_downtime_ms, "MS",
	    "of --on-stall raise, default 2000", 1, MAX_MS),
	OPT("bandwidth", 'b', SIZE, &conf.bandwidth, "BYTES",
	    "a second, default: no limit", 65536, 1ULL << 40),
	OPT("streams", 's', UINT, &conf.streams, "N",
	    "connections (multifd), default 1: without", 1, 255),
	OPT("zstd", 'z', UINT, &conf.zstd, "LEVEL", "compress; needs --streams 2 or more",
	    1, 20),
	OPT("on-stall", 0, WORD, &on_stall, "WHAT",
	    "if it will never end: throttle the CPUs (default),\nraise the downtime, "
	    "abort",
	    .words = stalls),
	OPT("verify", 0, WORD, &verify, "WHAT",
	    "compare full RAM (default), what the device wrote,\nor none",
	    .words = verifies),
	OPT("timeout", 0, UINT, &conf.timeout_s, "SECONDS",
	    "of the transfer, default none", 1, 86400),
	OPT("tls-creds", 0, TEXT, &conf.tls_creds, "ID",
	    "of both QEMUs' tls-creds object"),
	OPT("tls-hostname", 0, TEXT, &conf.tls_hostname, "NAME",
	    "in the destination's certificate"),
	OPT("pid", 0, UINT, &src_pid, "PID",
	    "QEMU's, if its monitor is not its own socket", 1, 1 << 22),
	OPT("dest-pid", 0, UINT, &dst_pid, "PID", "the destination's, likewise", 1,
	    1 << 22),
	OPT("quit-source", 0, FLAG, &conf.quit_source, NULL,
	    "end the source's QEMU when the guest has gone"),
	OPT("check", 'n', FLAG, &conf.check_only, NULL, "only say what is missing"),
	OPT_END,
};

static void on_signal(int sig)
{
	(void)sig;
	stop = 1;
}

static void note(const char *text)
{
	cmd_note("%s", text);
}

static void problem(const char *text)
{
	if (cmd_as_json())
		cmd_json(json_pack("{s:s, s:s}", "event", "problem", "text", text));
	else
		cmd_note("%s", text);
}

static void progress(const struct qemu_progress *p)
{
	char rate[CMD_SIZE_MAX], dirty[CMD_SIZE_MAX], dev[CMD_SIZE_MAX], text[256];
	double done = p->total ? 1 - (double)p->remaining / (double)p->total : -1;
	double eta =
		p->send_rate > p->dirty_rate
			? (double)p->remaining / (double)(p->send_rate - p->dirty_rate)
			: -1;

	if (cmd_as_json()) {
		cmd_json(json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, "
				   "s:{s:I, s:I}, s:I, s:I, "
				   "s:f}",
				   "event", "progress", "phase", p->phase, "elapsed_ms",
				   (json_int_t)p->elapsed_ms, "round",
				   (json_int_t)p->round, "ram_bytes",
				   (json_int_t)p->total, "remaining",
				   (json_int_t)p->remaining, "bytes", (json_int_t)p->sent,
				   "send_rate", (json_int_t)p->send_rate, "dirty_rate",
				   (json_int_t)p->dirty_rate, "by", "device_rate",
				   (json_int_t)p->device_rate, "device_pages",
				   (json_int_t)p->device_pages, "throttle",
				   (json_int_t)p->throttle, "expected_downtime_ms",
				   (json_int_t)p->expected_downtime_ms, "eta_s", eta));
		return;
	}
	if (strcmp(p->phase, "transfer") != 0) {
		snprintf(text, sizeof(text), "%s", p->phase);
	} else {
		int n = snprintf(text, sizeof(text), "round %llu, %s/s, dirty %s/s",
				 (unsigned long long)p->round,
				 cmd_size((double)p->send_rate, rate),
				 cmd_size((double)p->dirty_rate, dirty));

		if (conf.instance)
			n += snprintf(text + n, sizeof(text) - (size_t)n,
				      " (device %s/s)",
				      cmd_size((double)p->device_rate, dev));
		if (p->throttle)
			n += snprintf(text + n, sizeof(text) - (size_t)n,
				      ", throttled %u %%", p->throttle);
		if (eta >= 0)
			snprintf(text + n, sizeof(text) - (size_t)n, ", %.1f s to go",
				 eta);
	}
	cmd_bar(done, text);
}

static int exit_code(int err)
{
	switch (err) {
	case 0: return EXIT_DONE;
	case -ECANCELED: return EXIT_CANCELLED;
	case -EBUSY: return EXIT_UNCERTAIN;
	case -EUCLEAN: return EXIT_LOST;
	case -EOPNOTSUPP: return EXIT_CANNOT;
	case -ENOENT:
	case -ECONNREFUSED: return EXIT_ABSENT;
	default: return EXIT_FAILED;
	}
}

static void print_json(const struct qemu_result *r, int err)
{
	json_t *o = json_pack(
		"{s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:I, s:I, s:I, s:I, s:I, "
		"s:b}",
		"ok", !err, "total_ms", (json_int_t)r->total_ms, "transfer_ms",
		(json_int_t)r->transfer_ms, "downtime_ms", (json_int_t)r->downtime_ms,
		"qemu_downtime_ms", (json_int_t)r->qemu_downtime_ms, "compare_ms",
		(json_int_t)r->compare_ms, "bytes", (json_int_t)r->bytes, "rounds",
		(json_int_t)r->rounds, "compared", r->compared, "pages_compared",
		(json_int_t)r->pages_compared, "pages_differ",
		(json_int_t)r->pages_differ, "device_differ",
		(json_int_t)r->device_differ, "device_pages", (json_int_t)r->device_pages,
		"device_late", (json_int_t)r->device_late, "rolled_back", r->rolled_back);

	if (err && o)
		json_object_set_new(o, "error", json_string(r->message));
	cmd_json(o);
}

static void print_text(const struct qemu_result *r)
{
	char a[CMD_SIZE_MAX];

	printf("migrated in %.2f s: %s in %llu rounds, downtime %llu ms\n",
	       (double)r->total_ms / 1000, cmd_size((double)r->bytes, a),
	       (unsigned long long)r->rounds, (unsigned long long)r->downtime_ms);
	if (conf.instance)
		printf("the device wrote %llu pages meanwhile\n",
		       (unsigned long long)r->device_pages);
	if (r->compared)
		printf("RAM is the same: %llu pages compared in %llu ms\n",
		       (unsigned long long)r->pages_compared,
		       (unsigned long long)r->compare_ms);
	else
		printf("RAM was not compared\n");
}

static int run_qemu(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = on_signal };
	struct qemu_result res;
	int err;

	(void)argc;
	(void)argv;
	if (!conf.src_path || !conf.dst_path || (!conf.uri && !conf.check_only)) {
		cmd_error("qemu needs --qmp, --dest-qmp and --to");
		return EXIT_USAGE;
	}
	if (conf.zstd && conf.streams < 2) {
		cmd_error(
			"--zstd needs --streams 2 or more: QEMU compresses with multifd");
		return EXIT_USAGE;
	}
	if (verify == QEMU_VERIFY_DEVICE && !conf.instance) {
		cmd_error(
			"--verify device needs --instance: who else wrote is not known");
		return EXIT_USAGE;
	}
	if (!conf.uri)
		conf.uri = "";
	conf.on_stall = (enum precopy_stall)on_stall;
	conf.verify = (enum qemu_verify)verify;
	conf.src_pid = (pid_t)src_pid;
	conf.dst_pid = (pid_t)dst_pid;
	conf.note = note;
	conf.problem = problem;
	conf.progress = progress;
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);

	err = qemu_migrate(&conf, &res);
	cmd_bar_end();
	if (conf.check_only && !err) {
		if (cmd_as_json())
			cmd_json(json_pack("{s:b}", "ok", 1));
		else
			puts("both are ready");
	} else if (cmd_as_json()) {
		print_json(&res, err);
	} else if (!err) {
		print_text(&res);
	} else {
		cmd_error("%s%s", res.message,
			  res.rolled_back ? "; the destination was ended, and the "
					    "source's guest runs on"
					  : "");
	}
	return exit_code(err);
}

const struct cmd cmd_qemu = {
	.name = "qemu",
	.run = run_qemu,
	.opts = opts,
	.usage = "qemu --qmp SOCKET --dest-qmp SOCKET --to URI [--instance NAME]",
	.summary = "migrate a QEMU's guest to another QEMU and compare their RAM",
};
