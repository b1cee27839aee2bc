// SPDX-License-Identifier: BSD-2-Clause
/*
 * qemu_migrate: see qemu_migrate.h. This file is the order of the steps and what undoes
 * them; qemu_transfer.c watches QEMU's own migration.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../user/lib/bitmap.h"
#include "../../user/lib/clock.h"
#include "../../user/lib/ghostnic.h"
#include "qemu_check.h"
#include "qemu_job.h"

#define CONNECT_MS 5000
#define SETTLE_MS  30000 /* for a guest to be loaded, to end, or to run */

int qemu_job_fail(struct qemu_job *j, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(j->res->message, sizeof(j->res->message), fmt, ap);
	va_end(ap);
	return err;
}

int qemu_job_qmp_fail(struct qemu_job *j, struct qmp *q, int err)
{
	return qemu_job_fail(j, err == -EREMOTEIO ? -EIO : err, "%s", qmp_error(q));
}

uint64_t qemu_job_ms(const struct qemu_job *j)
{
	return (clock_ns() - j->start_ns) / 1000000;
}

bool qemu_job_cancelled(const struct qemu_job *j)
{
	return j->conf->cancel && *j->conf->cancel;
}

void qemu_job_phase(struct qemu_job *j, const char *phase)
{
	j->progress.phase = phase;
	j->progress.elapsed_ms = qemu_job_ms(j);
	if (j->conf->progress)
		j->conf->progress(&j->progress);
}

/* Both guests' clocks are this machine's; the events carry its time. */
static void on_src_event(void *arg, const char *name, const json_t *data, uint64_t us)
{
	struct qemu_job *j = arg;

	(void)data;
	if (!strcmp(name, "STOP")) {
		j->stopped_us = us;
	} else if (!strcmp(name, "RESUME")) {
		j->stopped_us = 0;
		j->was_paused = false;
	}
}

static void on_dst_event(void *arg, const char *name, const json_t *data, uint64_t us)
{
	struct qemu_job *j = arg;

	(void)data;
	if (!strcmp(name, "RESUME"))
		j->resumed_us = us;
}

/* ---- connect, check -------------------------------------------------------------------
 */

static void on_problem(void *arg, const char *text)
{
	const struct qemu_job *j = arg;

	j->conf->problem(text);
}

static void on_warning(void *arg, const char *text)
{
	const struct qemu_job *j = arg;

	j->conf->note(text);
}

static int connect_both(struct qemu_job *j)
{
	char *why = j->res->message;
	size_t len = sizeof(j->res->message);
	int err;

	err = qmp_connect(j->conf->src_path, "source", CONNECT_MS, &j->src, why, len);
	if (!err)
		err = qmp_connect(j->conf->dst_path, "destination", CONNECT_MS, &j->dst,
				  why, len);
	if (err)
		return err;
	j->src_pid = j->conf->src_pid ? j->conf->src_pid : qmp_pid(j->src);
	j->dst_pid = j->conf->dst_pid ? j->conf->dst_pid : qmp_pid(j->dst);
	qmp_on_event(j->src, on_src_event, j);
	qmp_on_event(j->dst, on_dst_event, j);
	return 0;
}

/* A two-way connection lets the source learn that the destination has loaded the guest.
 */
static bool two_way(const char *uri)
{
	return !strncmp(uri, "tcp:", 4) || !strncmp(uri, "unix:", 5);
}

static json_t *source_caps(const struct qemu_conf *c)
{
	return json_pack("{s:b, s:b, s:b}", "multifd", c->streams > 1, "auto-converge",
			 c->on_stall == PRECOPY_THROTTLE, "return-path", two_way(c->uri));
}

static json_t *dest_caps(const struct qemu_conf *c)
{
	return json_pack("{s:b, s:b}", "multifd", c->streams > 1, "late-block-activate",
			 1);
}

static int find_ram(struct qemu_job *j)
{
	char *why = j->res->message;
	size_t len = sizeof(j->res->message);
	int err;

	if (j->conf->verify == QEMU_VERIFY_NONE && !j->conf->instance)
		return 0;
	err = qemu_ram_find(j->src, j->src_pid, &j->src_ram, why, len);
	if (err || j->conf->verify == QEMU_VERIFY_NONE)
		return err;
	err = qemu_ram_find(j->dst, j->dst_pid, &j->dst_ram, why, len);
	if (!err && !qemu_ram_same(&j->src_ram, &j->dst_ram, why, len))
		err = -EOPNOTSUPP;
	return err;
}

static int check(struct qemu_job *j, enum qemu_check_state *state)
{
	static const char *const src_plain[] = { "auto-converge", "return-path", NULL };
	static const char *const src_multi[] = { "auto-converge", "return-path",
						 "multifd", NULL };
	static const char *const dst_plain[] = { "late-block-activate", NULL };
	static const char *const dst_multi[] = { "late-block-activate", "multifd", NULL };
	bool multi = j->conf->streams > 1;
	struct qemu_check_conf cc = {
		.src_caps = multi ? src_multi : src_plain,
		.dst_caps = multi ? dst_multi : dst_plain,
		.problem = on_problem,
		.warning = on_warning,
		.arg = j,
	};
	struct qmp *failed;
	int err, n = qemu_check(j->src, j->dst, &cc, state, &failed);

	if (n < 0)
		return qemu_job_qmp_fail(j, failed, n);
	err = find_ram(j);
	if (err == -EREMOTEIO || err == -EPIPE || err == -ETIMEDOUT)
		return err;
	if (err) {
		j->conf->problem(j->res->message);
		n++;
	}
	if (n)
		return qemu_job_fail(j, -EOPNOTSUPP, "%d problem%s; nothing was changed",
				     n, n > 1 ? "s" : "");
	if (*state == QEMU_CHECK_TRANSFERRED && j->conf->verify != QEMU_VERIFY_FULL)
		return qemu_job_fail(j, -EOPNOTSUPP,
				     "an earlier run has transferred the guest and ended "
				     "before it decided; --verify full is needed now");
	return 0;
}

/* ---- hold, log
 * -------------------------------------------------------------------------- */

static int prepare(struct qemu_job *j)
{
	const struct qemu_conf *c = j->conf;
	json_t *sp = json_object(), *dp = json_object();
	int err;

	json_object_set_new(sp, "downtime-limit", json_integer(c->downtime_ms));
	/* QEMU's default is a limit; none is a number that no link reaches. */
	json_object_set_new(
		sp, "max-bandwidth",
		json_integer((json_int_t)(c->bandwidth ? c->bandwidth : 1ULL << 40)));
	for (int i = 0; i < 2; i++) {
		json_t *p = i ? dp : sp;

		if (c->streams > 1)
			json_object_set_new(p, "multifd-channels",
					    json_integer(c->streams));
		if (c->streams > 1)
			json_object_set_new(p, "multifd-compression",
					    json_string(c->zstd ? "zstd" : "none"));
		if (c->zstd)
			json_object_set_new(p, "multifd-zstd-level",
					    json_integer(c->zstd));
		if (c->tls_creds)
			json_object_set_new(p, "tls-creds", json_string(c->tls_creds));
	}
	if (c->tls_hostname)
		json_object_set_new(sp, "tls-hostname", json_string(c->tls_hostname));
	err = qemu_settings_apply(j->src, source_caps(c), sp, &j->src_saved);
	if (err) {
		json_decref(dp);
		return qemu_job_qmp_fail(j, j->src, err);
	}
	err = qemu_settings_apply(j->dst, dest_caps(c), dp, &j->dst_saved);
	if (!err)
		err = qmp_call(j->dst, "stop", NULL, NULL); /* when it has come */
	return err ? qemu_job_qmp_fail(j, j->dst, err) : 0;
}

static int log_start(struct qemu_job *j)
{
	const struct qemu_conf *c = j->conf;
	struct dirty_source *src;
	const char *failed;
	int err;

	if (!c->instance)
		return 0;
	j->by_device = calloc(ram_words(&j->src_ram.ram), sizeof(uint64_t));
	j->late = calloc(ram_words(&j->src_ram.ram), sizeof(uint64_t));
	err = j->by_device && j->late ? dirty_set_create(&j->src_ram.ram, &j->log)
				      : -ENOMEM;
	if (!err)
		err = dirty_daemon_create(&j->src_ram.ram, c->ctl, c->iface, c->instance,
					  &src);
	if (!err)
		err = dirty_set_add(j->log, src);
	if (!err)
		err = dirty_set_start(j->log, &failed);
	/* Not -errno of a QEMU that is absent. */
	if (err == -ENOENT || err == -ECONNREFUSED)
		return qemu_job_fail(j, -EIO, "no ghostnicd answers at %s (--ctl)",
				     ghostnic_socket(c->ctl));
	if (err)
		qemu_job_fail(j, err,
			      "ghostnicd's DMA log of instance %s: %s; `ghostnic dma-log "
			      "show --instance %s%s%s` says who has it",
			      c->instance, strerror(-err), c->instance,
			      c->iface ? " --iface " : "", c->iface ? c->iface : "");
	return err;
}

/* ---- compare
 * ------------------------------------------------------------------------------ */

bool qemu_job_runs(struct qmp *q, const char *status)
{
	const char *s;
	json_t *a;
	bool yes;

	if (qmp_call(q, "query-status", NULL, &a))
		return false;
	s = json_string_value(json_object_get(a, "status"));
	yes = s && !strcmp(s, status);
	json_decref(a);
	return yes;
}

/* "paused", or "prelaunch" if it was started with -S. Return: 0, -errno */
static int wait_loaded(struct qemu_job *j)
{
	uint64_t end = clock_ns() + SETTLE_MS * 1000000ULL;
	int n = 0;

	while (!qemu_job_runs(j->dst, "paused") && !qemu_job_runs(j->dst, "prelaunch")) {
		if (n >= 0)
			n = qmp_pump(j->dst, 5);
		if (n < 0)
			return qemu_job_qmp_fail(j, j->dst, n);
		if (clock_ns() > end)
			return qemu_job_fail(
				j, -ETIMEDOUT,
				"the destination does not get the guest ready");
	}
	return 0;
}

/* What the device wrote since the last time. Return: is that known? A log that failed
 * (the daemon is gone) marks all memory. */
static bool last_harvest(struct qemu_job *j, uint64_t *into)
{
	struct dirty_found found;

	if (!j->log)
		return false;
	dirty_set_harvest(j->log, into, NULL, &found);
	return !j->log->src[0]->in_doubt;
}

static int found_difference(struct qemu_job *j, const uint64_t *bad,
			    const struct qemu_ram_diff *d)
{
	struct qemu_result *r = j->res;
	size_t words = ram_words(&j->src_ram.ram);

	r->pages_differ = d->differ;
	r->first_gpa = d->page[0] == RAM_NO_PAGE ? UINT64_MAX
						 : ram_gpa(&j->src_ram.ram, d->page[0]);
	for (size_t i = 0; j->log && i < words; i++)
		r->device_differ +=
			(uint64_t)__builtin_popcountll(bad[i] & j->by_device[i]);
	return qemu_job_fail(j, -EUCLEAN,
			     "%" PRIu64 " of %" PRIu64
			     " pages differ at the destination, the first at 0x%" PRIx64
			     "%s",
			     d->differ, d->pages, r->first_gpa,
			     r->device_differ ? "; the device wrote some of them and its "
						"log lost that"
					      : "");
}

/* Only what the device wrote is read; a compare of few pages. */
static int compare_device(struct qemu_job *j, uint64_t *bad, struct qemu_ram_diff *d)
{
	const struct ram *a = &j->src_ram.ram, *b = &j->dst_ram.ram;

	for (uint64_t p = bitmap_next(j->by_device, 0, a->pages); p < a->pages;
	     p = bitmap_next(j->by_device, p + 1, a->pages)) {
		uint64_t other = ram_page_of(b, ram_gpa(a, p));

		if (other == RAM_NO_PAGE)
			return -EINVAL;
		d->pages++;
		if (!memcmp(ram_at(a, p), ram_at(b, other), RAM_PAGE_SIZE))
			continue;
		bitmap_set(bad, p);
		if (!d->differ++)
			d->page[0] = p;
	}
	return 0;
}

static int compare(struct qemu_job *j)
{
	size_t words = ram_words(&j->src_ram.ram);
	struct qemu_ram_diff d = { 0 };
	uint64_t then = clock_ns();
	uint64_t *bad;
	int err = 0;

	if (!last_harvest(j, j->by_device) && j->log)
		j->conf->note(
			"the device's log failed meanwhile: what it wrote is not known");
	if (j->conf->verify == QEMU_VERIFY_NONE)
		return 0;
	qemu_job_phase(j, "compare");
	bad = calloc(words, sizeof(*bad));
	if (!bad)
		err = -ENOMEM;
	else if (j->conf->verify == QEMU_VERIFY_DEVICE)
		err = compare_device(j, bad, &d);
	else
		err = qemu_ram_compare(&j->src_ram, &j->dst_ram, bad, 0, &d);
	j->res->compare_ms = (clock_ns() - then) / 1000000;
	j->res->pages_compared = d.pages;
	j->res->compared = !err;
	if (err)
		err = qemu_job_fail(j, err, "cannot compare RAM: %s", strerror(-err));
	else if (d.differ)
		err = found_difference(j, bad, &d);
	free(bad);
	if (err)
		return err;
	if (last_harvest(j, j->late))
		j->res->device_late = bitmap_count(j->late, words);
	if (j->res->device_late)
		return qemu_job_fail(j, -EUCLEAN,
				     "the device wrote %" PRIu64
				     " pages after the guest was stopped",
				     j->res->device_late);
	return 0;
}

/* ---- hand over, roll back
 * ------------------------------------------------------------------ */

static int let_run(struct qemu_job *j)
{
	uint64_t end = clock_ns() + SETTLE_MS * 1000000ULL;
	int err = qmp_call(j->dst, "cont", NULL, NULL);

	if (err == -EREMOTEIO)
		return qemu_job_qmp_fail(j, j->dst, err); /* and it does not run */
	while (!err && !j->resumed_us && !qemu_job_runs(j->dst, "running")) {
		int n = qmp_pump(j->dst, 5);

		if (n < 0)
			err = n;
		else if (clock_ns() > end)
			err = -ETIMEDOUT;
	}
	if (err)
		return qemu_job_fail(
			j, -EBUSY,
			"the destination was told to run and went silent; the "
			"source stays paused. If the destination is dead and "
			"wrote to no disk: QMP \"cont\" at the source");
	return 0;
}

static int hand_over(struct qemu_job *j)
{
	int err;

	qemu_job_phase(j, "hand over");
	if (qemu_job_cancelled(j))
		return qemu_job_fail(j, -ECANCELED, "cancelled");
	err = j->was_paused ? 0 : let_run(j);
	if (err)
		return err;
	/* Switches learn where it is now. Old QEMUs do not know how. */
	qmp_call(j->dst, "announce-self",
		 json_pack("{s:i, s:i, s:i, s:i}", "initial", 50, "max", 550, "rounds", 5,
			   "step", 100),
		 NULL);
	return 0;
}

/* Ends a QEMU whose guest must not run. Return: is it gone, or at least silent? */
static void end_destination(struct qemu_job *j)
{
	uint64_t end = clock_ns() + SETTLE_MS * 1000000ULL;

	if (qmp_call(j->dst, "quit", NULL, NULL))
		return;
	while (qmp_pump(j->dst, 100) >= 0 && clock_ns() < end)
		;
}

static void roll_back(struct qemu_job *j)
{
	bool paused = qemu_job_runs(j->src, "postmigrate") ||
		      qemu_job_runs(j->src, "finish-migrate") ||
		      qemu_job_runs(j->src, "paused");
	size_t len = strlen(j->res->message);
	int err;

	if (j->transfer_begun)
		end_destination(j);
	if (j->was_paused) {
		/* No command makes "paused" of it without letting it run. */
		if (qemu_job_runs(j->src, "postmigrate"))
			snprintf(j->res->message + len, sizeof(j->res->message) - len,
				 "; the source's guest stays stopped, and QEMU migrates "
				 "it again only when it has run (QMP: cont)");
		return;
	}
	/* Also one that runs: if its migration ends while the devices' state is sent,
	 * QEMU (7.2) leaves the disks inactive, and dies at the next migration. */
	if (!paused && !j->transfer_begun)
		return;
	err = qmp_call(j->src, "cont", NULL, NULL);
	j->res->rolled_back = paused && !err;
	if (!err)
		return;
	snprintf(j->res->message + len, sizeof(j->res->message) - len,
		 "; and the source's guest could not go on: %s", qmp_error(j->src));
}

/*
 * The guest is on both sides, paused. QEMU tells a guest that has only arrived from one
 * that has run, and was paused again, in no way: the latter's RAM is newer than the
 * source's, and so may its disks be. Nothing is rolled back then.
 */
static int decide(struct qemu_job *j)
{
	size_t len;
	int err;

	j->conf->note("an earlier run has transferred the guest; comparing and deciding "
		      "now");
	err = compare(j);
	if (!err)
		return hand_over(j);
	if (err != -EUCLEAN)
		return err;
	len = strlen(j->res->message);
	snprintf(
		j->res->message + len, sizeof(j->res->message) - len,
		": a write was lost, or the guest has run there since. Both stay paused. "
		"If it has run there, go on there (QMP: cont) and never here; if it has "
		"not, end that QEMU (QMP: quit), then go on here");
	return -EBUSY;
}

static int steps(struct qemu_job *j)
{
	enum qemu_check_state state;
	int err;

	qemu_job_phase(j, "check");
	err = connect_both(j);
	if (!err)
		err = check(j, &state);
	if (err || j->conf->check_only)
		return err;
	if (state == QEMU_CHECK_TRANSFERRED)
		return decide(j);
	j->was_paused = qemu_job_runs(j->src, "paused");
	err = prepare(j);
	if (!err)
		err = log_start(j);
	if (!err)
		err = qemu_transfer(j);
	if (!err)
		err = wait_loaded(j);
	if (!err)
		err = compare(j);
	if (!err)
		err = hand_over(j);
	if (err && err != -EBUSY)
		roll_back(j);
	return err;
}

static void finish(struct qemu_job *j, int err)
{
	if (j->log)
		dirty_set_stop(j->log);
	if (j->src && err)
		qemu_settings_restore(j->src, &j->src_saved);
	if (j->dst && (!err || !j->transfer_begun))
		qemu_settings_restore(j->dst, &j->dst_saved);
	if (j->src && !err && j->conf->quit_source && !j->conf->check_only)
		qmp_call(j->src, "quit", NULL, NULL);
}

int qemu_migrate(const struct qemu_conf *conf, struct qemu_result *res)
{
	struct qemu_job j = { .conf = conf, .res = res, .start_ns = clock_ns() };
	int err;

	memset(res, 0, sizeof(*res));
	err = steps(&j);
	finish(&j, err);
	if (j.by_device)
		res->device_pages = bitmap_count(j.by_device, ram_words(&j.src_ram.ram));
	if (!err && j.stopped_us && j.resumed_us > j.stopped_us)
		res->downtime_ms = (j.resumed_us - j.stopped_us + 999) / 1000;
	res->total_ms = qemu_job_ms(&j);
	dirty_set_destroy(j.log);
	free(j.by_device);
	free(j.late);
	qemu_settings_fini(&j.src_saved);
	qemu_settings_fini(&j.dst_saved);
	qemu_ram_fini(&j.src_ram);
	qemu_ram_fini(&j.dst_ram);
	qmp_close(j.src);
	qmp_close(j.dst);
	return err;
}
