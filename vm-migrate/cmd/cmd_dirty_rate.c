// SPDX-License-Identifier: BSD-2-Clause
/*
 * dirty-rate: how fast a process or a VM dirties its memory, how much of it, and what a
 * migration would take.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "cmd.h"
#include "../rate/plot.h"
#include "../rate/rate.h"

#define PLOT_WIDTH 60
#define PLOT_ROWS  5

static volatile sig_atomic_t stop;
static unsigned int pid, qemu_pid, method, samples = 16384, budget_ms = 100;
static const char *qmp_path, *control, *instance, *iface, *ctl;
static double seconds = 5, interval_s = 0.25;
static uint64_t bandwidth;
static struct rate_report report;

static const char *const methods[] = { "auto", "pagemap", "soft-dirty", "hashes", NULL };

static const struct opt opts[] = {
	OPT("pid", 'p', UINT, &pid, "PID", "of any process", 1, 1 << 22),
	OPT("control", 'c', TEXT, &control, "SOCKET",
	    "control socket of a VM of this program"),
	OPT("qmp", 0, TEXT, &qmp_path, "SOCKET", "monitor of a QEMU"),
	OPT("seconds", 's', SECS, &seconds, "SECONDS", "to measure, default 5"),
	OPT("interval", 0, SECS, &interval_s, "SECONDS",
	    "between harvests, default 0.25"),
	OPT("method", 'm', WORD, &method, "WORD",
	    "of --pid: pagemap, if the process has registered\nits memory; soft-dirty, "
	    "if "
	    "the kernel has it;\nhashes of sampled pages; default the first that works",
	    .words = methods),
	OPT("samples", 0, UINT, &samples, "N", "pages to hash, default 16384", 16,
	    1 << 20),
	OPT("bandwidth", 'b', SIZE, &bandwidth, "BYTES",
	    "a second to predict for, default 1, 10, 25 and\n100 Gbit/s", 1024,
	    1ULL << 45),
	OPT("downtime-ms", 'd', UINT, &budget_ms, "MS", "allowed, default 100", 1, 60000),
	OPT("instance", 'i', TEXT, &instance, "NAME",
	    "of --qmp: ghostnicd's, to know what its device\nwrites"),
	OPT("iface", 0, TEXT, &iface, "IF", "of the instance, if there are several"),
	OPT("ctl", 0, TEXT, &ctl, "SOCKET", "control socket of ghostnicd"),
	OPT("qemu-pid", 0, UINT, &qemu_pid, "PID",
	    "QEMU's, if its monitor is not its own socket", 1, 1 << 22),
	OPT_END,
};

static void on_signal(int sig)
{
	(void)sig;
	stop = 1;
}

/* ---- output -------------------------------------------------------------------------
 */

static const char *size_label(double v)
{
	static char buf[CMD_SIZE_MAX];

	return cmd_size(v, buf);
}

static void tick(const struct rate_report *r)
{
	const struct rate_interval *i = &r->interval[r->n - 1];
	char a[CMD_SIZE_MAX], b[CMD_SIZE_MAX], text[128];

	if (cmd_as_json()) {
		json_t *o = json_pack("{s:s, s:f, s:f}", "event", "interval", "seconds",
				      i->seconds, "dirty_bytes", i->dirty);

		if (o && r->by_source)
			json_object_set_new(o, "by",
					    json_pack("{s:f, s:f}", "cpu_bytes", i->cpu,
						      "device_bytes", i->device));
		if (o && i->distinct >= 0)
			json_object_set_new(o, "distinct_bytes", json_real(i->distinct));
		cmd_json(o);
		return;
	}
	snprintf(text, sizeof(text), "%s/s, %s in all",
		 cmd_size(i->dirty / i->seconds, a),
		 i->distinct >= 0 ? cmd_size(i->distinct, b) : "?");
	cmd_bar(-1, text);
}

static double measured_s(void)
{
	double s = 0;

	for (unsigned int i = 0; i < report.n; i++)
		s += report.interval[i].seconds;
	return s;
}

static json_t *forecast_json(double bw)
{
	struct rate_forecast f;

	rate_forecast(&report, bw, budget_ms / 1000.0, &f);
	if (!f.converges)
		return json_pack("{s:f, s:b}", "bandwidth", bw, "converges", 0);
	return json_pack("{s:f, s:b, s:i, s:f, s:f, s:f}", "bandwidth", bw, "converges",
			 1, "rounds", (int)f.rounds, "total_s", f.total_s, "downtime_s",
			 f.downtime_s, "bytes", f.bytes);
}

static void print_forecast(double bw)
{
	char a[CMD_SIZE_MAX], b[CMD_SIZE_MAX];
	struct rate_forecast f;

	rate_forecast(&report, bw, budget_ms / 1000.0, &f);
	printf("%14s/s  ", cmd_size(bw, a));
	if (f.converges)
		printf("%6u %10.2f s %9.1f ms %12s\n", f.rounds, f.total_s,
		       f.downtime_s * 1000, cmd_size(f.bytes, b));
	else
		printf("never: what is dirtied meanwhile takes as long to send\n");
}

static void each_bandwidth(void (*text)(double bw), json_t *list)
{
	static const double gbit[] = { 1, 10, 25, 100 };

	for (unsigned int i = 0; i < sizeof(gbit) / sizeof(gbit[0]); i++) {
		double bw = bandwidth ? (double)bandwidth : gbit[i] * 1e9 / 8;

		if (list)
			json_array_append_new(list, forecast_json(bw));
		else
			text(bw);
		if (bandwidth)
			break;
	}
}

static void print_json(void)
{
	json_t *forecasts = json_array(), *o;

	each_bandwidth(NULL, forecasts);
	o = json_pack("{s:b, s:s, s:s, s:f, s:f, s:f, s:i, s:f, s:o, s:o}", "ok", 1,
		      "method", report.method, "note", report.note, "seconds",
		      measured_s(), "ram_bytes", report.ram_bytes, "bytes_per_s",
		      rate_mean(&report, false), "samples", (int)report.samples,
		      "margin_bytes_per_s", report.margin, "within",
		      rate_points_json(&report), "forecast", forecasts);
	if (o && report.by_source)
		json_object_set_new(o, "device_bytes_per_s",
				    json_real(rate_mean(&report, true)));
	cmd_json(o);
}

static void print_plots(void)
{
	double v[RATE_MAX_INTERVALS];
	bool utf8 = plot_utf8();

	for (unsigned int i = 0; i < report.n; i++)
		v[i] = report.interval[i].dirty / report.interval[i].seconds;
	puts("\ndirty a second");
	plot_bars(stdout, v, report.n, PLOT_WIDTH, PLOT_ROWS, utf8, size_label,
		  measured_s());
	if (report.interval[0].distinct < 0)
		return;
	for (unsigned int i = 0; i < report.n; i++)
		v[i] = report.interval[i].distinct;
	puts("written so far");
	plot_bars(stdout, v, report.n, PLOT_WIDTH, PLOT_ROWS, utf8, size_label,
		  measured_s());
}

static void print_text(void)
{
	char a[CMD_SIZE_MAX], b[CMD_SIZE_MAX];
	double rate = rate_mean(&report, false);

	printf("method: %s", report.method);
	if (report.samples)
		printf(", %u pages", report.samples);
	printf("%s%s\n", *report.note ? "; " : "", report.note);
	printf("memory: %s\n", cmd_size(report.ram_bytes, a));
	printf("dirty: %s/s", cmd_size(rate, a));
	if (report.margin > 0)
		printf(" +- %s/s (95 %% confidence)", cmd_size(report.margin, b));
	if (report.by_source)
		printf(", of which the device %s/s",
		       cmd_size(rate_mean(&report, true), b));
	putchar('\n');
	print_plots();
	puts("within a time, distinct:");
	for (unsigned int i = 0; i < report.npoints; i++)
		printf("%12.2f s  %s\n", report.point[i].seconds,
		       cmd_size(report.point[i].bytes, a));
	printf("\na migration with %u ms of downtime:\n%16s  %6s %12s %12s %12s\n",
	       budget_ms, "at", "rounds", "total", "downtime", "bytes");
	each_bandwidth(print_forecast, NULL);
}

/* ---- run ------------------------------------------------------------------------------
 */

static int failed(int err, const char *why)
{
	cmd_error("%s", why);
	switch (err) {
	case -ENOENT:
	case -ESRCH:
	case -ECONNREFUSED: return EXIT_ABSENT;
	case -EOPNOTSUPP: return EXIT_CANNOT;
	case -ECANCELED: return EXIT_CANCELLED;
	default: return EXIT_FAILED;
	}
}

static int measure_pid(char *why, size_t len)
{
	struct rate_source *src;
	int err = rate_pid_create((int)pid, (enum rate_method)method, samples, &src, why,
				  len);

	if (err)
		return err;
	err = rate_measure(src, interval_s, (unsigned int)(seconds / interval_s + 0.5),
			   &stop, tick, &report);
	if (err)
		snprintf(why, len, "process %u: %s", pid,
			 err == -ESRCH ? "it has ended, or unmapped its memory"
				       : strerror(-err));
	src->ops->destroy(src);
	return err;
}

static int measure_qmp(char *why, size_t len)
{
	const struct rate_qmp_conf c = {
		.path = qmp_path,
		.pid = (int)qemu_pid,
		.instance = instance,
		.iface = iface,
		.ctl = ctl,
		.seconds = seconds,
		.interval_s = interval_s,
		.samples = samples,
		.cancel = &stop,
		.tick = tick,
	};

	return rate_qmp(&c, &report, why, len);
}

static int run_dirty_rate(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = on_signal };
	char why[512] = "";
	int err;

	(void)argc;
	(void)argv;
	if (!!pid + !!qmp_path + !!control != 1) {
		cmd_error("dirty-rate needs one of --pid, --control and --qmp");
		return EXIT_USAGE;
	}
	if (interval_s > seconds || seconds / interval_s > RATE_MAX_INTERVALS) {
		cmd_error("--seconds has to be 1 to %d times --interval",
			  RATE_MAX_INTERVALS);
		return EXIT_USAGE;
	}
	if (control && interval_s > RATE_CONTROL_MAX_S) {
		cmd_error("--interval of --control is at most %d s", RATE_CONTROL_MAX_S);
		return EXIT_USAGE;
	}
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	if (control)
		err = rate_control(control, interval_s,
				   (unsigned int)(seconds / interval_s + 0.5), &stop,
				   tick, &report, why, sizeof(why));
	else
		err = pid ? measure_pid(why, sizeof(why)) : measure_qmp(why, sizeof(why));
	cmd_bar_end();
	if (!err && !report.n) {
		err = -ECANCELED;
		snprintf(why, sizeof(why), "stopped before anything was measured");
	}
	if (err)
		return failed(err, why);
	if (cmd_as_json())
		print_json();
	else
		print_text();
	return EXIT_DONE;
}

const struct cmd cmd_dirty_rate = {
	.name = "dirty-rate",
	.run = run_dirty_rate,
	.opts = opts,
	.usage = "dirty-rate (--pid PID | --control SOCKET | --qmp SOCKET)",
	.summary = "how fast memory is dirtied, and what a migration would take",
};
