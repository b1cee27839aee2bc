// SPDX-License-Identifier: BSD-2-Clause
/*
 * rate_qmp: a QEMU guest's dirty rate.
 *
 * With KVM QEMU counts for us (calc-dirty-rate, mode dirty-bitmap: every page that is
 * written within the time, whoever wrote it), in whole seconds and MiB/s. The curve needs
 * windows of two lengths: the first half of the time is measured second by second, the
 * second half at once.
 *
 * Without KVM that mode must not be asked for: QEMU 7.2 crashes in it. Pages of the
 * guest's RAM are hashed then (rate_hashes.c).
 *
 * What of it the device wrote, ghostnicd's log tells.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../user/lib/bitmap.h"
#include "../../user/lib/clock.h"
#include "../dirty/dirty.h"
#include "../qemu/qemu_ram.h"
#include "rate_pid.h"

#define CONNECT_MS 5000
#define POLL_MS	   20
#define GRACE_MS   10000 /* beyond the time that was asked for */
#define MIB	   (1024.0 * 1024.0)

struct measure {
	const struct rate_qmp_conf *conf;
	struct rate_report *r;
	struct qmp *q;
	int pid;
	struct qemu_ram ram;
	struct dirty_set *log; /* of the device, NULL: none */
	uint64_t *bitmap;
	char *why;
	size_t why_len;
};

#define fail(m, err, ...) (snprintf((m)->why, (m)->why_len, __VA_ARGS__), (err))

static int log_start(struct measure *m)
{
	const struct rate_qmp_conf *c = m->conf;
	struct dirty_source *src;
	int err;

	if (!c->instance)
		return 0;
	err = qemu_ram_find(m->q, m->pid, &m->ram, m->why, m->why_len);
	if (err)
		return err;
	m->bitmap = calloc(ram_words(&m->ram.ram), sizeof(*m->bitmap));
	err = m->bitmap ? dirty_set_create(&m->ram.ram, &m->log) : -ENOMEM;
	if (!err)
		err = dirty_daemon_create(&m->ram.ram, c->ctl, c->iface, c->instance,
					  &src);
	if (!err)
		err = dirty_set_add(m->log, src);
	if (!err)
		err = dirty_set_start(m->log, NULL);
	m->r->by_source = !err;
	return err ? fail(m, err, "ghostnicd's DMA log of instance %s: %s", c->instance,
			  strerror(-err))
		   : 0;
}

/* Distinct bytes that the device wrote since the last call. */
static double device_bytes(struct measure *m)
{
	struct dirty_found found;

	if (!m->log)
		return 0;
	memset(m->bitmap, 0, ram_words(&m->ram.ram) * sizeof(*m->bitmap));
	dirty_set_harvest(m->log, m->bitmap, NULL, &found);
	return (double)found.merged * RAM_PAGE_SIZE;
}

static int begin(struct measure *m, unsigned int seconds)
{
	int err = qmp_call(m->q, "calc-dirty-rate",
			   json_pack("{s:i, s:s}", "calc-time", (int)seconds, "mode",
				     "dirty-bitmap"),
			   NULL);

	return err ? fail(m, err == -EREMOTEIO ? -EIO : err, "%s", qmp_error(m->q)) : 0;
}

/* Bytes per second. Return: 0, -ECANCELED, -errno */
static int finish(struct measure *m, unsigned int seconds, double *rate)
{
	uint64_t end = clock_ns() + (seconds * 1000ULL + GRACE_MS) * 1000000;
	const char *s;
	bool measured;
	json_t *a;
	int err;

	for (;;) {
		err = qmp_call(m->q, "query-dirty-rate", NULL, &a);
		if (err)
			return fail(m, err == -EREMOTEIO ? -EIO : err, "%s",
				    qmp_error(m->q));
		s = json_string_value(json_object_get(a, "status"));
		measured = s && !strcmp(s, "measured");
		*rate = json_number_value(json_object_get(a, "dirty-rate")) * MIB;
		json_decref(a);
		if (measured)
			return 0;
		if (m->conf->cancel && *m->conf->cancel)
			return -ECANCELED;
		if (clock_ns() > end)
			return fail(m, -ETIMEDOUT, "QEMU does not finish measuring");
		err = qmp_pump(m->q, POLL_MS);
		if (err < 0)
			return fail(m, err, "%s", qmp_error(m->q));
	}
}

static int one(struct measure *m, unsigned int seconds)
{
	struct rate_report *r = m->r;
	double rate = 0, device;
	int err;

	device_bytes(m);
	err = begin(m, seconds);
	if (!err)
		err = finish(m, seconds, &rate);
	if (err)
		return err;
	device = device_bytes(m);
	r->interval[r->n] = (struct rate_interval){
		.seconds = seconds,
		.dirty = rate * seconds,
		.device = device,
		.cpu = rate * seconds > device ? rate * seconds - device : 0,
		.distinct = -1,
	};
	r->n++;
	if (m->conf->tick)
		m->conf->tick(r);
	return 0;
}

static void points(struct rate_report *r, unsigned int singles)
{
	double bytes = 0;

	for (unsigned int i = 0; i < singles; i++)
		bytes += r->interval[i].dirty;
	r->point[r->npoints++] = (struct rate_point){ 1, bytes / singles };
	if (r->n > singles)
		r->point[r->npoints++] =
			(struct rate_point){ r->interval[singles].seconds,
					     r->interval[singles].dirty };
}

/* What the guest has written so far is not known from outside: all its memory. */
static int ram_bytes(struct measure *m)
{
	json_t *a;
	int err = qmp_call(m->q, "query-memory-size-summary", NULL, &a);

	if (err)
		return fail(m, err == -EREMOTEIO ? -EIO : err, "%s", qmp_error(m->q));
	m->r->ram_bytes = json_number_value(json_object_get(a, "base-memory")) +
			  json_number_value(json_object_get(a, "plugged-memory"));
	json_decref(a);
	return 0;
}

static int by_qemu(struct measure *m)
{
	unsigned int seconds = m->conf->seconds < 1 ? 1 : (unsigned int)m->conf->seconds;
	unsigned int whole = seconds / 2, singles = seconds - whole;
	struct rate_report *r = m->r;
	int err = 0;

	strcpy(r->method, "QEMU's dirty bitmap");
	strcpy(r->note, "QEMU says whole MiB/s");
	for (unsigned int i = 0; i < singles && !err; i++)
		err = one(m, 1);
	if (!err && whole > 1)
		err = one(m, whole);
	if (err == -ECANCELED && r->n)
		err = 0;
	if (!err)
		points(r, r->n < singles ? r->n : singles);
	return err;
}

/* ---- hashes of the guest's RAM
 * ------------------------------------------------------------ */

struct hashed {
	struct rate_source src;
	struct rate_source *pages;
	struct measure *m;
};

/* Pages are samples there and all that were written here: in their units. */
static int hashed_harvest(struct rate_source *s, uint64_t *bitmap, uint64_t by[2])
{
	struct hashed *h = (struct hashed *)s;
	int err = h->pages->ops->harvest(h->pages, bitmap, by);

	s->growth = h->pages->growth;
	s->ram_bytes = h->pages->ram_bytes;
	by[1] = (uint64_t)(device_bytes(h->m) / s->bit_bytes + 0.5);
	/* A page that both wrote counts as the device's. */
	by[0] = by[0] > by[1] ? by[0] - by[1] : 0;
	return err;
}

/* Only memfds: the guest's RAM, not QEMU's own memory. */
static void keep_ram(struct pid_areas *a)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < a->n; i++)
		if (a->area[i].map.memfd && a->area[i].map.shared)
			a->area[n++] = a->area[i];
	a->n = n;
}

static int by_hashes(struct measure *m)
{
	static const struct rate_source_ops ops = { hashed_harvest, NULL };
	const struct rate_qmp_conf *c = m->conf;
	struct hashed h = { .m = m };
	struct pid_areas a;
	int err = pid_areas_find(m->pid, &a, m->why, m->why_len);

	if (err)
		return err;
	keep_ram(&a);
	if (!a.n) {
		pid_areas_fini(&a);
		return fail(m, -EOPNOTSUPP,
			    "QEMU: without KVM its RAM has to be a shared memfd, to be "
			    "looked at: -object memory-backend-memfd,...,share=on");
	}
	err = rate_hashes_create(&a, c->samples, &h.pages, m->why, m->why_len);
	if (err) {
		pid_areas_fini(&a);
		return err;
	}
	h.src = *h.pages;
	h.src.ops = &ops;
	h.src.by_source = m->log != NULL;
	err = rate_measure(&h.src, c->interval_s,
			   (unsigned int)(c->seconds / c->interval_s + 0.5), c->cancel,
			   c->tick, m->r);
	if (err)
		err = fail(m, err, "the memory of process %d: %s", m->pid,
			   strerror(-err));
	h.pages->ops->destroy(h.pages);
	return err;
}

static int has_kvm(struct measure *m, bool *kvm)
{
	json_t *a;
	int err = qmp_call(m->q, "query-kvm", NULL, &a);

	if (err)
		return fail(m, err == -EREMOTEIO ? -EIO : err, "%s", qmp_error(m->q));
	*kvm = json_is_true(json_object_get(a, "enabled"));
	json_decref(a);
	return 0;
}

int rate_qmp(const struct rate_qmp_conf *conf, struct rate_report *r, char *why,
	     size_t why_len)
{
	struct measure m = { .conf = conf, .r = r, .why = why, .why_len = why_len };
	bool kvm;
	int err;

	memset(r, 0, sizeof(*r));
	err = qmp_connect(conf->path, "QEMU", CONNECT_MS, &m.q, why, why_len);
	if (err)
		return err;
	m.pid = conf->pid ? conf->pid : qmp_pid(m.q);
	err = has_kvm(&m, &kvm);
	/* The mode is in QEMU since 6.2. */
	if (!err && kvm && qmp_version(m.q) < 6002000)
		kvm = false;
	if (!err)
		err = ram_bytes(&m);
	if (!err)
		err = log_start(&m);
	if (!err)
		err = kvm ? by_qemu(&m) : by_hashes(&m);
	dirty_set_destroy(m.log);
	free(m.bitmap);
	qemu_ram_fini(&m.ram);
	qmp_close(m.q);
	return err;
}
