// SPDX-License-Identifier: BSD-2-Clause
/*
 * snapshot: gather counters, walk over them, compare two. See snapshot.h.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../bpf/offload_shared.h"
#include "call.h"
#include "out.h"
#include "pin.h"
#include "snapshot.h"
#include "xdp.h"

static const struct {
	const char *name, *help;
} xdp_counter[GN_CNT_MAX] = {
#define XDP_COUNTER(id, n, h) [GN_CNT_##id] = { n, h },
	GN_COUNTERS(XDP_COUNTER)
#undef XDP_COUNTER
};

static const char *xdp_help(const char *name)
{
	unsigned int i;

	for (i = 0; i < GN_CNT_MAX; i++)
		if (!strcmp(xdp_counter[i].name, name))
			return xdp_counter[i].help;
	return "";
}

json_t *snapshot_xdp(const char *bpffs, const char *ifname)
{
	int ncpus = libbpf_num_possible_cpus(), fd, cpu;
	struct bpf_map_info info = { 0 };
	uint32_t len = sizeof(info), key = 0, i;
	struct gn_counters *c = NULL;
	json_t *o = NULL;

	fd = pin_open(bpffs, ifname, BPFFS_COUNTERS);
	if (fd < 0)
		return NULL;
	/* Pins of another version: the kernel would write past our buffer. */
	if (ncpus <= 0 || bpf_obj_get_info_by_fd(fd, &info, &len) ||
	    info.value_size != sizeof(*c) || info.type != BPF_MAP_TYPE_PERCPU_ARRAY)
		goto out;
	c = calloc((size_t)ncpus, sizeof(*c));
	if (!c || bpf_map_lookup_elem(fd, &key, c))
		goto out;
	o = json_object();
	for (i = 0; i < GN_CNT_MAX; i++) {
		uint64_t sum = 0;

		for (cpu = 0; cpu < ncpus; cpu++)
			sum += c[cpu].v[i];
		json_object_set_new(o, xdp_counter[i].name,
				    json_integer((json_int_t)sum));
	}
out:
	free(c);
	close(fd);
	return o;
}

static json_t *find_named(const json_t *list, const char *name)
{
	return snapshot_named(list, name, &(size_t){ 0 });
}

static json_t *array_or_empty(const json_t *o, const char *key)
{
	json_t *a = json_object_get(o, key);

	return json_is_array(a) ? json_incref(a) : json_array();
}

static void add_iface(json_t *list, const char *bpffs, const char *name,
		      const json_t *from_daemon)
{
	json_t *xdp = snapshot_xdp(bpffs, name);

	json_array_append_new(list, json_pack("{s:s, s:o, s:o, s:o}", "name", name, "xdp",
					      xdp ? xdp : json_null(), "queues",
					      array_or_empty(from_daemon, "queues"),
					      "instances",
					      array_or_empty(from_daemon, "instances")));
}

/* The daemon's part of a snapshot, or null. */
static json_t *daemon_facts(const json_t *stats)
{
	static const char *const key[] = { "version", "abi", "uptime_s" };
	json_t *o, *v;
	size_t i;

	if (!stats)
		return json_null();
	o = json_object();
	for (i = 0; i < sizeof(key) / sizeof(key[0]); i++) {
		v = json_object_get(stats, key[i]);
		if (v)
			json_object_set(o, key[i], v);
	}
	return o;
}

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

int snapshot_take(const struct opts *o, const char *ifname, json_t **out)
{
	json_t *stats = NULL, *list, *req, *i, *ifaces;
	char bpffs[BPFFS_MAX] = "", msg[256], **names = NULL;
	int err, rc = EXIT_DONE, n;
	size_t k;

	err = bpffs_dir(o->bpffs, bpffs, sizeof(bpffs));
	if (err && o->bpffs) {
		out_error("no bpffs: %s", bpffs_remedy(err));
		return EXIT_FAILED;
	}
	req = json_pack("{s:s}", "cmd", "stats");
	err = ctl_call(o->ctl, req, &stats, msg, sizeof(msg));
	json_decref(req);
	if (err && !ctl_no_daemon(err)) {
		out_error("%s", msg);
		return EXIT_FAILED;
	}
	ifaces = json_object_get(stats, "interfaces");
	list = json_array();
	n = pin_list(bpffs, &names);
	for (int p = 0; p < n; p++)
		if (!ifname || !strcmp(ifname, names[p]))
			add_iface(list, bpffs, names[p], find_named(ifaces, names[p]));
	if (n >= 0)
		pin_list_free(names);
	json_array_foreach(ifaces, k, i)
	{
		const char *name = json_string_value(json_object_get(i, "name"));

		if (name && (!ifname || !strcmp(ifname, name)) && !find_named(list, name))
			add_iface(list, bpffs, name, i);
	}
	if (!json_array_size(list) && (ifname || !stats)) {
		if (ifname)
			out_error("%s is not attached; run: ghostnic attach %s", ifname,
				  ifname);
		else
			out_error("no interface is attached and no daemon answers on %s",
				  ghostnic_socket(o->ctl));
		rc = EXIT_ABSENT;
		json_decref(list);
	} else {
		*out = json_pack("{s:f, s:o, s:o}", "time_s", now_s(), "daemon",
				 daemon_facts(stats), "interfaces", list);
	}
	json_decref(stats);
	return rc;
}

/* ---- walking -------------------------------------------------------------- */

json_t *snapshot_named(const json_t *list, const char *name, size_t *at)
{
	size_t n = json_array_size(list);

	for (size_t i = 0; i < n; i++) {
		size_t k = (*at + i) % n;
		json_t *o = json_array_get(list, k);
		const char *s = json_string_value(json_object_get(o, "name"));

		if (s && !strcmp(s, name)) {
			*at = k + 1;
			return o;
		}
	}
	return NULL;
}

static json_t *find_queue(const json_t *list, int queue)
{
	for (size_t i = 0; i < json_array_size(list); i++) {
		json_t *o = json_array_get(list, i);

		if (json_integer_value(json_object_get(o, "queue")) == queue)
			return o;
	}
	return NULL;
}

struct walk {
	void (*fn)(const struct sample *s, void *arg);
	void *arg;
	const char *iface;
};

static void each_in(const struct walk *w, const char *owner, const json_t *before,
		    const json_t *counters, bool xdp)
{
	const char *name;
	json_t *v;

	json_object_foreach((json_t *)counters, name, v)
	{
		struct sample s = {
			.iface = w->iface,
			.owner = owner,
			.name = name,
			.help = xdp ? xdp_help(name) : "",
			.value = json_integer_value(v),
			.before = json_integer_value(json_object_get(before, name)),
		};

		if (json_is_integer(v))
			w->fn(&s, w->arg);
	}
}

static void each_queue(const struct walk *w, const json_t *before, const json_t *now)
{
	static const char *const part[] = { "worker", "agg", "xsk", "kernel" };
	const json_t *old;
	char owner[128];
	size_t k, p;
	json_t *o;

	json_array_foreach(now, k, o)
	{
		int q = (int)json_integer_value(json_object_get(o, "queue"));

		old = find_queue(before, q);
		for (p = 0; p < sizeof(part) / sizeof(part[0]); p++) {
			snprintf(owner, sizeof(owner), "queue %d %s", q, part[p]);
			each_in(w, owner, json_object_get(old, part[p]),
				json_object_get(o, part[p]), false);
		}
	}
}

static void each_instance(const struct walk *w, const json_t *before, const json_t *now)
{
	char owner[128];
	size_t k, at = 0;
	json_t *o;

	json_array_foreach(now, k, o)
	{
		const char *n = json_string_value(json_object_get(o, "name"));
		const json_t *old = n ? snapshot_named(before, n, &at) : NULL;

		snprintf(owner, sizeof(owner), "instance %s", n ? n : "?");
		each_in(w, owner, json_object_get(old, "stats"),
			json_object_get(o, "stats"), false);
	}
}

void snapshot_each(const json_t *before, const json_t *now,
		   void (*fn)(const struct sample *s, void *arg), void *arg)
{
	const json_t *list = json_object_get(before, "interfaces"), *old;
	struct walk w = { .fn = fn, .arg = arg };
	size_t i, at = 0;
	json_t *iface;

	json_array_foreach(json_object_get(now, "interfaces"), i, iface)
	{
		w.iface = json_string_value(json_object_get(iface, "name"));
		if (!w.iface)
			continue;
		old = snapshot_named(list, w.iface, &at);
		each_in(&w, "xdp", json_object_get(old, "xdp"),
			json_object_get(iface, "xdp"), true);
		each_queue(&w, json_object_get(old, "queues"),
			   json_object_get(iface, "queues"));
		each_instance(&w, json_object_get(old, "instances"),
			      json_object_get(iface, "instances"));
	}
}

double snapshot_rate(int64_t before, int64_t after, double seconds)
{
	if (after < before)
		before = 0;
	return (double)(after - before) / seconds;
}

double snapshot_seconds(const json_t *before, const json_t *after)
{
	double dt = json_number_value(json_object_get(after, "time_s")) -
		    json_number_value(json_object_get(before, "time_s"));

	return dt > 1e-6 ? dt : 1e-6;
}
