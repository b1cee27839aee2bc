// SPDX-License-Identifier: BSD-2-Clause
/* qemu_check: see qemu_check.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qemu_check.h"
#include "qemu_parse.h"

#define MAX_RAMBLOCKS 64

enum side { SRC, DST, SIDES };

struct check {
	struct qmp *q[SIDES];
	const struct qemu_check_conf *conf;
	int problems;
	int err; /* -errno of the one that does not answer */
	struct qmp *failed;
};

static void __attribute__((format(printf, 2, 3)))
problem(struct check *c, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	c->problems++;
	c->conf->problem(c->conf->arg, text);
}

static void __attribute__((format(printf, 2, 3)))
warning(struct check *c, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	c->conf->warning(c->conf->arg, text);
}

/* Return: the answer, or NULL: QEMU does not know the command, or c->err is set */
static json_t *ask(struct check *c, enum side s, const char *cmd, json_t *args)
{
	json_t *ret = NULL;
	int err = c->err;

	if (err) {
		json_decref(args);
		return NULL;
	}
	err = qmp_call(c->q[s], cmd, args, &ret);
	if (err && err != -EREMOTEIO) {
		c->err = err;
		c->failed = c->q[s];
	}
	return err ? NULL : ret;
}

static const char *text(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

/* ---- one by one ---------------------------------------------------------------------
 */

static void check_version(struct check *c)
{
	unsigned int v[SIDES] = { qmp_version(c->q[SRC]), qmp_version(c->q[DST]) };

	if (v[DST] / 1000 < v[SRC] / 1000)
		warning(c,
			"the destination's QEMU %u.%u is older than the source's %u.%u: "
			"only new enough ones load a guest for sure",
			v[DST] / 1000000, v[DST] / 1000 % 1000, v[SRC] / 1000000,
			v[SRC] / 1000 % 1000);
}

static void check_status(struct check *c, enum qemu_check_state *state)
{
	json_t *a[SIDES];
	const char *src, *dst;

	for (int s = 0; s < SIDES; s++)
		a[s] = ask(c, (enum side)s, "query-status", NULL);
	src = text(a[SRC], "status");
	dst = text(a[DST], "status");
	*state = QEMU_CHECK_READY;
	if (c->err)
		goto out;
	if (!strcmp(src, "postmigrate") &&
	    (!strcmp(dst, "paused") || !strcmp(dst, "prelaunch"))) {
		*state = QEMU_CHECK_TRANSFERRED;
		goto out;
	}
	if (!strcmp(src, "postmigrate"))
		problem(c, "source: a migration has left its guest stopped, and QEMU "
			   "migrates "
			   "it again only after QMP cont; only if it runs nowhere else");
	else if (strcmp(src, "running") != 0 && strcmp(src, "paused") != 0)
		problem(c,
			"source: its guest is \"%s\", neither running nor paused; bring "
			"it there first (QMP: cont)",
			src);
	if (strcmp(dst, "inmigrate") != 0)
		problem(c,
			"destination: its guest is \"%s\"; it has to wait for one: start "
			"it with the source's command line and -S -incoming defer",
			dst);
out:
	json_decref(a[SRC]);
	json_decref(a[DST]);
}

static void check_blockers(struct check *c)
{
	for (int s = 0; s < SIDES; s++) {
		json_t *a = ask(c, (enum side)s, "query-migrate", NULL), *why;
		const char *st = text(a, "status");
		size_t i;

		json_array_foreach(json_object_get(a, "blocked-reasons"), i, why)
			problem(c, "%s: QEMU says it cannot migrate: %s",
				qmp_name(c->q[s]), json_string_value(why));
		if (s == SRC && (!strcmp(st, "setup") || !strcmp(st, "active") ||
				 !strcmp(st, "cancelling")))
			problem(c,
				"source: it migrates already; wait, or migrate_cancel");
		json_decref(a);
	}
}

static json_t *machine_type(struct check *c, enum side s)
{
	return ask(c, s, "qom-get",
		   json_pack("{s:s, s:s}", "path", "/machine", "property", "type"));
}

static void check_machine(struct check *c)
{
	json_t *a = machine_type(c, SRC), *b = machine_type(c, DST);

	if (a && b && !json_equal(a, b))
		problem(c,
			"machine types differ: the source is a %s, the destination a "
			"%s; name the source's with -machine",
			json_string_value(a), json_string_value(b));
	json_decref(a);
	json_decref(b);
}

static void check_cpus(struct check *c)
{
	json_t *a = ask(c, SRC, "query-cpus-fast", NULL);
	json_t *b = ask(c, DST, "query-cpus-fast", NULL);
	json_t *ka = ask(c, SRC, "query-kvm", NULL), *kb = ask(c, DST, "query-kvm", NULL);
	json_t *type[SIDES] = { NULL, NULL };

	if (a && b && json_array_size(a) != json_array_size(b))
		problem(c,
			"CPUs differ: %zu in the source, %zu in the destination (-smp)",
			json_array_size(a), json_array_size(b));
	if (ka && kb &&
	    json_is_true(json_object_get(ka, "enabled")) !=
		    json_is_true(json_object_get(kb, "enabled")))
		problem(c, "only one of both runs with KVM; start both with the same "
			   "-accel");
	for (int s = 0; s < SIDES; s++) {
		const char *path = text(json_array_get(s == SRC ? a : b, 0), "qom-path");

		if (*path)
			type[s] = ask(c, (enum side)s, "qom-get",
				      json_pack("{s:s, s:s}", "path", path, "property",
						"type"));
	}
	if (type[SRC] && type[DST] && !json_equal(type[SRC], type[DST]))
		problem(c,
			"CPU models differ: %s in the source, %s in the destination "
			"(-cpu)",
			json_string_value(type[SRC]), json_string_value(type[DST]));
	json_decref(type[SRC]);
	json_decref(type[DST]);
	json_decref(a);
	json_decref(b);
	json_decref(ka);
	json_decref(kb);
}

/* ---- RAM, and the blocks that devices bring
 * --------------------------------------------- */

static int ramblocks(struct check *c, enum side s, struct qemu_ramblock *b)
{
	char *out = NULL;
	int n;

	if (c->err)
		return -1;
	n = qmp_hmp(c->q[s], "info ramblock", &out);
	if (n && n != -EREMOTEIO) {
		c->err = n;
		c->failed = c->q[s];
	}
	if (n)
		return -1;
	n = qemu_parse_ramblocks(out, b, MAX_RAMBLOCKS);
	free(out);
	if (n < 0)
		warning(c, "%s: cannot read \"info ramblock\"", qmp_name(c->q[s]));
	return n;
}

static void check_ramblocks(struct check *c)
{
	struct qemu_ramblock a[MAX_RAMBLOCKS], b[MAX_RAMBLOCKS];
	int na = ramblocks(c, SRC, a), nb = ramblocks(c, DST, b);

	for (int i = 0; i < na && nb > 0; i++) {
		int k = 0;

		while (k < nb && strcmp(a[i].name, b[k].name) != 0)
			k++;
		if (k == nb)
			problem(c,
				"memory block \"%s\" of the source is not in the "
				"destination: other devices or another -machine",
				a[i].name);
		else if (a[i].total != b[k].total)
			problem(c,
				"memory block \"%s\" has %" PRIu64
				" KiB in the source and %" PRIu64
				" KiB in the destination",
				a[i].name, a[i].total >> 10, b[k].total >> 10);
	}
}

/* ---- devices
 * ---------------------------------------------------------------------------- */

struct pci {
	long long bus, slot, function, vendor, device;
};

static long long num(const json_t *o, const char *key)
{
	return json_integer_value(json_object_get(o, key));
}

static bool has_pci(const json_t *buses, const struct pci *p)
{
	json_t *bus, *dev;
	size_t i, k;

	json_array_foreach(buses, i, bus)
	{
		json_array_foreach(json_object_get(bus, "devices"), k, dev)
		{
			const json_t *id = json_object_get(dev, "id");

			if (num(dev, "bus") == p->bus && num(dev, "slot") == p->slot &&
			    num(dev, "function") == p->function &&
			    num(id, "vendor") == p->vendor &&
			    num(id, "device") == p->device)
				return true;
		}
	}
	return false;
}

static void missing_pci(struct check *c, const json_t *of, const json_t *in,
			const char *where)
{
	json_t *bus, *dev;
	size_t i, k;

	json_array_foreach(of, i, bus)
	{
		json_array_foreach(json_object_get(bus, "devices"), k, dev)
		{
			const json_t *id = json_object_get(dev, "id");
			struct pci p = { num(dev, "bus"), num(dev, "slot"),
					 num(dev, "function"), num(id, "vendor"),
					 num(id, "device") };

			if (!has_pci(in, &p))
				problem(c,
					"PCI device %02llx:%02llx.%llx %04llx:%04llx "
					"(%s) is not in the %s",
					p.bus, p.slot, p.function, p.vendor, p.device,
					text(json_object_get(dev, "class_info"), "desc"),
					where);
		}
	}
}

/* Buses behind bridges have no numbers before the guest has given them: bus 0 only. */
static void check_devices(struct check *c)
{
	json_t *a = ask(c, SRC, "query-pci", NULL), *b = ask(c, DST, "query-pci", NULL);

	if (a && b) {
		json_t *a0 = json_pack("[O]", json_array_get(a, 0));
		json_t *b0 = json_pack("[O]", json_array_get(b, 0));

		missing_pci(c, a0, b0, "destination");
		missing_pci(c, b0, a0, "source");
		json_decref(a0);
		json_decref(b0);
	}
	json_decref(a);
	json_decref(b);
}

static bool has_cap(const json_t *caps, const char *name)
{
	json_t *cap;
	size_t i;

	json_array_foreach(caps, i,
			   cap) if (!strcmp(text(cap, "capability"), name)) return true;
	return false;
}

static void check_caps(struct check *c)
{
	for (int s = 0; s < SIDES; s++) {
		const char *const *want =
			s == SRC ? c->conf->src_caps : c->conf->dst_caps;
		json_t *a = ask(c, (enum side)s, "query-migrate-capabilities", NULL);

		for (; a && *want; want++)
			if (!has_cap(a, *want))
				problem(c,
					"%s: its QEMU %u.%u does not have the migration "
					"capability %s",
					qmp_name(c->q[s]), qmp_version(c->q[s]) / 1000000,
					qmp_version(c->q[s]) / 1000 % 1000, *want);
		json_decref(a);
	}
}

int qemu_check(struct qmp *src, struct qmp *dst, const struct qemu_check_conf *conf,
	       enum qemu_check_state *state, struct qmp **failed)
{
	struct check c = { .q = { src, dst }, .conf = conf };

	check_version(&c);
	check_status(&c, state);
	check_blockers(&c);
	check_machine(&c);
	check_cpus(&c);
	check_ramblocks(&c);
	check_devices(&c);
	check_caps(&c);
	if (c.err) {
		*failed = c.failed;
		return c.err;
	}
	return c.problems;
}
