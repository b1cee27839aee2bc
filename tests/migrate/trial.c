// SPDX-License-Identifier: BSD-2-Clause
/* trial: see trial.h. */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "machine.h"
#include "trial.h"

#define CONFIG "{\"machine\":\"test\"}"

struct run {
	struct trial *t;
	uint64_t seed;
	struct machine *m;
	struct twin twin;
	struct precopy_conf conf;
};

static bool wrong(struct run *r, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
static bool wrong(struct run *r, const char *fmt, ...)
{
	va_list ap;

	if (!r->t->why[0]) {
		va_start(ap, fmt);
		vsnprintf(r->t->why, sizeof(r->t->why), fmt, ap);
		va_end(ap);
	}
	return false;
}

static uint64_t below(struct run *r, uint64_t n)
{
	return rnd(&r->seed) % n;
}

static bool one_in(struct run *r, uint64_t n)
{
	return !below(r, n);
}

static int make_machine(struct run *r)
{
	struct machine_conf c = {
		.nblocks = 1 + (unsigned int)below(r, 3),
		.vcpus = 1 + (unsigned int)below(r, 2),
		.devices = 1 + (unsigned int)below(r, 2),
		.vhost = one_in(r, 2),
		.cpu_log = one_in(r, 2) ? MACHINE_SCAN : MACHINE_MANUAL,
		.pace_us = one_in(r, 4) ? 0 : (unsigned int)below(r, 100),
		.seed = r->t->seed + 1,
	};
	uint64_t gpa = 0;
	int err;

	for (unsigned int b = 0; b < c.nblocks; b++) {
		c.block[b].gpa = gpa;
		c.block[b].pages = 1 + below(r, one_in(r, 8) ? 1500 : 200);
		c.block[b].filled = below(r, c.block[b].pages + 1);
		gpa += c.block[b].pages * RAM_PAGE_SIZE + below(r, 100) * RAM_PAGE_SIZE;
	}
	c.span = one_in(r, 2) ? 1 + below(r, c.block[0].pages) : 0;
	err = machine_start(&c, &r->m);
	if (err == -EOPNOTSUPP || err == -EPERM) {
		c.cpu_log = MACHINE_MANUAL;
		err = machine_start(&c, &r->m);
	}
	return err;
}

static void pick_conf(struct run *r)
{
	r->t->streams = 1 + (unsigned int)(one_in(r, 2) ? 0 : below(r, 4));
	r->conf = (struct precopy_conf){
		.uri = incoming_uri(r->twin.in),
		.streams = r->t->streams,
		.downtime_ms = 100 + (unsigned int)below(r, 300),
		.max_downtime_ms = 5000,
		.bandwidth = one_in(r, 16) ? 20000000 + below(r, 100000000) : 0,
		.zstd_level = one_in(r, 4) ? 1 : 0,
		.on_stall = one_in(r, 2) ? PRECOPY_RAISE : PRECOPY_THROTTLE,
		.verify = one_in(r, 4) ? PRECOPY_VERIFY_FULL : PRECOPY_VERIFY_DIGEST,
	};
}

struct canceller {
	struct precopy *p;
	unsigned int after_us;
};

static void *cancel_main(void *arg)
{
	struct canceller *c = arg;
	struct timespec ts = { .tv_nsec = (long)c->after_us * 1000 };

	nanosleep(&ts, NULL);
	precopy_cancel(c->p);
	return NULL;
}

/* Return: of precopy_run() */
static int attempt(struct run *r, unsigned int cancel_us, struct precopy_status *st)
{
	struct canceller c = { .after_us = cancel_us };
	pthread_t thread;
	int err = precopy_create(&r->conf, &r->m->ram, r->m->dirty, CONFIG, &machine_ops,
				 r->m, &c.p);

	memset(st, 0, sizeof(*st));
	if (err)
		return err;
	atomic_store(&r->twin.source, c.p);
	if (cancel_us && pthread_create(&thread, NULL, cancel_main, &c))
		cancel_us = 0;
	err = precopy_run(c.p);
	if (cancel_us)
		pthread_join(thread, NULL);
	precopy_status(c.p, st);
	if (!err)
		twin_join(&r->twin);
	atomic_store(&r->twin.source, NULL);
	precopy_destroy(c.p);
	return err;
}

static bool check_done(struct run *r, const struct precopy_status *st)
{
	struct twin *t = &r->twin;
	uint64_t bad;

	if (t->early)
		return wrong(r, "the destination ran before the source had handed over");
	if (t->result || t->started != 1 || t->abandoned != t->prepared - 1)
		return wrong(r,
			     "destination: result %d, started %u, prepared %u, abandoned "
			     "%u times",
			     t->result, t->started, t->prepared, t->abandoned);
	bad = machine_differs(r->m, t);
	if (bad)
		return wrong(r, "%llu pages differ", (unsigned long long)bad);
	if (!t->loaded || t->writes != machine_writes(r->m))
		return wrong(r, "the state is not that of the end");
	if (st->phase != PRECOPY_DONE || r->m->releases != 1)
		return wrong(r, "phase %d, released %u times", st->phase, r->m->releases);
	r->t->pages = st->sent.pages;
	r->t->zero = st->sent.zero_pages;
	r->t->same = st->sent.same_pages;
	r->t->rounds = st->round;
	r->t->writes = machine_writes(r->m);
	return true;
}

/* An attempt that did not succeed has left nothing behind. */
static bool check_undone(struct run *r)
{
	if (r->twin.early || r->twin.started)
		return wrong(r, "the destination runs, and so does the source");
	if (r->m->releases)
		return wrong(r, "released after a failure");
	if (!machine_runs(r->m))
		return wrong(r, "the machine stands still after a failed migration");
	if (r->m->throttle)
		return wrong(r, "the machine is still throttled");
	return true;
}

/* Return: is a second attempt due? */
static bool first_attempt(struct run *r, bool *ok)
{
	unsigned int how = (unsigned int)below(r, 16), cancel_us = 0;
	struct precopy_status st;
	int err, want;

	*ok = true;
	if (how > 4)
		return true;
	r->m->fail_drain = how == 0;
	r->m->fail_save = how == 1;
	r->twin.refuse = how == 2;
	if (how >= 3)
		cancel_us = 1 + (unsigned int)below(r, 6000);
	want = how < 2 ? -ENODEV : how == 2 ? -EREMOTEIO : -ECANCELED;
	err = attempt(r, cancel_us, &st);
	if (!err && how >= 3) { /* it was faster */
		*ok = check_done(r, &st);
		return false;
	}
	r->t->cancelled = how >= 3;
	r->t->failed = how < 3;
	if (err != want)
		*ok = wrong(r, "error %d where %d was to come: %s", err, want,
			    st.message);
	else
		*ok = check_undone(r);
	return *ok;
}

void trial_run(struct trial *t)
{
	char uri[CHAN_URI_MAX];
	struct run r = { .t = t, .seed = t->seed * 0x9e3779b97f4a7c15ULL + 1 };
	struct incoming_conf ic = { .uri = test_uri(one_in(&r, 2), uri) };
	struct precopy_status st;
	int err;

	t->why[0] = '\0';
	t->ok = false;
	if (twin_start(&r.twin, &ic)) {
		wrong(&r, "no destination");
		return;
	}
	err = make_machine(&r);
	if (err) {
		wrong(&r, "no machine: %d", err);
		twin_fini(&r.twin);
		return;
	}
	pick_conf(&r);
	if (first_attempt(&r, &t->ok)) {
		err = attempt(&r, 0, &st);
		t->ok = err ? wrong(&r, "error %d: %s", err, st.message)
			    : check_done(&r, &st);
	}
	machine_stop(r.m);
	twin_fini(&r.twin);
}
