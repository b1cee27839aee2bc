// SPDX-License-Identifier: BSD-2-Clause
/* qemu_transfer: start QEMU's migration, watch it, end it. See qemu_job.h. */
#include <errno.h>
#include <string.h>

#include "../../user/lib/clock.h"
#include "qemu_job.h"

#define TICK_MS	    100
#define QUICK_MS    5	/* when it may be over any moment: this is downtime */
#define HARVEST_MS  500 /* of the device's log */
#define CANCEL_MS   20000
#define STALL_ROUND 4 /* QEMU's first three passes say whether it converges */

struct watch {
	struct qemu_job *j;
	char status[32];
	uint64_t harvested_ns;
	uint64_t stall_round; /* the last one that was judged */
	unsigned int downtime_ms;
};

static uint64_t num(const json_t *o, const char *key)
{
	const json_t *v = json_object_get(o, key);

	return json_is_integer(v) && json_integer_value(v) > 0
		       ? (uint64_t)json_integer_value(v)
		       : 0;
}

static double real(const json_t *o, const char *key)
{
	return json_number_value(json_object_get(o, key));
}

static void harvest(struct watch *w)
{
	struct qemu_job *j = w->j;
	uint64_t now = clock_ns();
	struct dirty_found found;

	if (!j->log || now - w->harvested_ns < HARVEST_MS * 1000000ULL)
		return;
	dirty_set_harvest(j->log, j->by_device, NULL, &found);
	j->progress.device_pages += found.by[DIRTY_BY_DEVICE];
	j->progress.device_rate =
		(uint64_t)((double)found.by[DIRTY_BY_DEVICE] * RAM_PAGE_SIZE * 1e9 /
			   (double)(now - w->harvested_ns));
	w->harvested_ns = now;
}

/* Return: 0, -errno */
static int look(struct watch *w)
{
	struct qemu_job *j = w->j;
	struct qemu_progress *p = &j->progress;
	const json_t *ram, *err_desc;
	const char *s;
	json_t *a;
	int err = qmp_call(j->src, "query-migrate", NULL, &a);

	if (err)
		return qemu_job_qmp_fail(j, j->src, err);
	s = json_string_value(json_object_get(a, "status"));
	strncpy(w->status, s ? s : "none", sizeof(w->status) - 1);
	ram = json_object_get(a, "ram");
	if (ram) {
		p->total = num(ram, "total");
		p->remaining = num(ram, "remaining");
		p->sent = num(ram, "transferred");
		p->round = num(ram, "dirty-sync-count");
		p->send_rate = (uint64_t)(real(ram, "mbps") * 1e6 / 8);
		p->dirty_rate = num(ram, "dirty-pages-rate") * num(ram, "page-size");
	}
	p->expected_downtime_ms = num(a, "expected-downtime");
	p->throttle = (unsigned int)num(a, "cpu-throttle-percentage");
	j->res->transfer_ms = num(a, "total-time");
	j->res->qemu_downtime_ms = num(a, "downtime");
	j->res->bytes = p->sent;
	j->res->rounds = p->round;
	err_desc = json_object_get(a, "error-desc");
	if (!strcmp(w->status, "failed"))
		err = qemu_job_fail(j, -EIO, "QEMU's migration failed%s%s",
				    err_desc ? ": " : "",
				    err_desc ? json_string_value(err_desc)
					     : "; the destination's output says why");
	json_decref(a);
	return err;
}

static bool is(const struct watch *w, const char *status)
{
	return !strcmp(w->status, status);
}

static bool over(const struct watch *w)
{
	return is(w, "completed") || is(w, "failed") || is(w, "cancelled") ||
	       is(w, "none");
}

/* What the user chose, if what is dirtied in a pass cannot be sent in the next. */
static int judge(struct watch *w)
{
	struct qemu_job *j = w->j;
	const struct qemu_conf *c = j->conf;
	const struct qemu_progress *p = &j->progress;
	int err;

	if (p->round < STALL_ROUND || p->round == w->stall_round || !p->send_rate)
		return 0;
	w->stall_round = p->round;
	if (p->expected_downtime_ms <= w->downtime_ms ||
	    p->dirty_rate < p->send_rate / 10 * 9)
		return 0;
	if (c->on_stall == PRECOPY_THROTTLE)
		return 0; /* QEMU's auto-converge does it */
	if (c->on_stall == PRECOPY_ABORT || w->downtime_ms >= c->max_downtime_ms)
		return qemu_job_fail(
			j, -ETIME,
			"the guest dirties %.1f MB/s and the link takes %.1f "
			"MB/s: it would never end. Allow more bandwidth, "
			"more downtime, or --on-stall throttle",
			(double)p->dirty_rate / 1e6, (double)p->send_rate / 1e6);
	w->downtime_ms = (unsigned int)(p->expected_downtime_ms * 5 / 4);
	if (w->downtime_ms > c->max_downtime_ms)
		w->downtime_ms = c->max_downtime_ms;
	err = qmp_call(j->src, "migrate-set-parameters",
		       json_pack("{s:i}", "downtime-limit", (int)w->downtime_ms), NULL);
	return err ? qemu_job_qmp_fail(j, j->src, err) : 0;
}

/* The migration goes on in vain: end it. Return: @why */
static int cancel(struct watch *w, int why)
{
	uint64_t end = clock_ns() + CANCEL_MS * 1000000ULL;
	char message[sizeof(w->j->res->message)];

	memcpy(message, w->j->res->message, sizeof(message));
	qmp_call(w->j->src, "migrate_cancel", NULL, NULL);
	do {
		int err = look(w);

		if ((err && err != -EIO) || over(w))
			break;
		qmp_pump(w->j->src, TICK_MS);
	} while (clock_ns() < end);
	memcpy(w->j->res->message, message, sizeof(message));
	return why;
}

static int incoming(struct qemu_job *j)
{
	/* Started with -incoming URI, it listens already, and says so in the words of
	 * QEMU since 5.2, or before. Whatever else it refuses, such as an address that is
	 * in use, "migrate" must not go to: somebody else may listen there. */
	static const char *const listens[] = { "has already been started",
					       "For use with '-incoming defer'" };
	int err = qmp_call(j->dst, "migrate-incoming",
			   json_pack("{s:s}", "uri", j->conf->uri), NULL);

	for (unsigned int i = 0; err == -EREMOTEIO && i < 2; i++)
		if (strstr(qmp_error(j->dst), listens[i]))
			err = 0;
	return err ? qemu_job_qmp_fail(j, j->dst, err) : 0;
}

int qemu_transfer(struct qemu_job *j)
{
	struct watch w = { .j = j,
			   .harvested_ns = clock_ns(),
			   .downtime_ms = j->conf->downtime_ms };
	uint64_t end = j->conf->timeout_s
			       ? clock_ns() + j->conf->timeout_s * 1000000000ULL
			       : UINT64_MAX;
	int err = incoming(j);

	if (err)
		return err;
	j->transfer_begun = true;
	err = qmp_call(j->src, "migrate", json_pack("{s:s}", "uri", j->conf->uri), NULL);
	if (err)
		return qemu_job_qmp_fail(j, j->src, err);
	for (;;) {
		int n;

		err = look(&w);
		if (err || is(&w, "completed"))
			return err;
		harvest(&w);
		qemu_job_phase(j, "transfer");
		if (is(&w, "cancelled") || is(&w, "none"))
			return qemu_job_fail(j, -ECANCELED, "cancelled by somebody else");
		if (qemu_job_cancelled(j))
			return cancel(&w, qemu_job_fail(j, -ECANCELED, "cancelled"));
		if (clock_ns() > end)
			return cancel(&w,
				      qemu_job_fail(j, -ETIMEDOUT, "not done after %u s",
						    j->conf->timeout_s));
		err = judge(&w);
		if (err)
			return cancel(&w, err);
		/* A STOP event ends the wait. */
		n = qmp_pump(j->src, j->stopped_us ? QUICK_MS : TICK_MS);
		if (n < 0)
			return qemu_job_qmp_fail(j, j->src, n);
		/* For the switch-over, or by its user? */
		if (j->stopped_us && !j->was_paused)
			j->was_paused = qemu_job_runs(j->src, "paused");
	}
}
