// SPDX-License-Identifier: BSD-2-Clause
/*
 * top: rates and drop reasons from two snapshots. See top.h.
 */
#include <stdlib.h>
#include <string.h>

#include "out.h"
#include "snapshot.h"
#include "top.h"

/* Counters of packets that did not reach whom they were for. An owner matches by
 * its first word and its last, so that queues and instances need no names here. */
static const struct {
	const char *first, *last; /* of sample.owner; last "": any */
	const char *name, *reason;
} drop[] = {
	{ "xdp", "", "pass_no_socket", "no daemon on the queue; the host got them" },
	{ "xdp", "", "pass_oversize", "longer than the MTU; the host got them" },
	{ "xdp", "", "drop_meta", "no room for metadata in the driver's buffer" },
	/* What rx_fill_ring_empty counts is among these. */
	{ "queue", "kernel", "rx_dropped", "kernel: out of chunks, or longer than one" },
	{ "queue", "kernel", "rx_ring_full", "receive ring full: worker too slow" },
	{ "queue", "kernel", "rx_invalid",
	  "kernel: invalid descriptor in the fill ring" },
	{ "queue", "kernel", "tx_invalid", "kernel: invalid descriptor to send" },
	{ "queue", "worker", "rx_bad_meta", "no valid metadata" },
	{ "queue", "worker", "rx_bad_bounds", "metadata contradicts the length" },
	{ "queue", "worker", "rx_no_instance", "instance was removed" },
	{ "queue", "worker", "rx_truncated", "buffers of a frame missing" },
	{ "queue", "worker", "flood_lost", "broadcast lost: socket full" },
	{ "queue", "xsk", "tx_full", "transmit ring full or no chunk" },
	{ "instance", "", "rx_dropped", "instance too slow to read" },
	{ "instance", "", "tx_dropped", "no transmit chunk" },
	{ "instance", "", "tx_bad", "malformed or too long" },
	{ "instance", "", "tx_spoofed", "not from the instance's address or VLAN" },
	{ "instance", "", "tx_disabled", "the instance disabled the queue" },
};

static const char *drop_reason(const struct sample *s)
{
	const char *last = strrchr(s->owner, ' ');
	size_t i, first = strcspn(s->owner, " ");

	last = last ? last + 1 : "";
	for (i = 0; i < sizeof(drop) / sizeof(drop[0]); i++)
		if (!strcmp(drop[i].name, s->name) && strlen(drop[i].first) == first &&
		    !strncmp(drop[i].first, s->owner, first) &&
		    (!*drop[i].last || !strcmp(drop[i].last, last)))
			return drop[i].reason;
	return NULL;
}

struct losses {
	double seconds;
	json_t *list;
};

static void add_drop(const struct sample *s, void *arg)
{
	struct losses *l = arg;
	const char *why = drop_reason(s);
	char where[192];

	if (!why || !s->value)
		return;
	snprintf(where, sizeof(where), "%s %s", s->iface, s->owner);
	json_array_append_new(l->list,
			      json_pack("{s:s, s:s, s:s, s:f, s:I}", "where", where,
					"counter", s->name, "reason", why, "per_s",
					snapshot_rate(s->before, s->value, l->seconds),
					"total", (json_int_t)s->value));
}

/* Growth of a counter between two objects of the same owner; NULL has zeros. */
static double grown(const json_t *before, const json_t *now, const char *name)
{
	return snapshot_rate(json_integer_value(json_object_get(before, name)),
			     json_integer_value(json_object_get(now, name)), 1);
}

static json_t *one_instance(const json_t *before, const json_t *now, double dt,
			    const char *iface, const char *name)
{
	const json_t *b = json_object_get(before, "stats");
	const json_t *n = json_object_get(now, "stats");
	double rx, frames, lost = 0;

	for (size_t i = 0; i < sizeof(drop) / sizeof(drop[0]); i++)
		if (!strcmp(drop[i].first, "instance"))
			lost += grown(b, n, drop[i].name);
	rx = grown(b, n, "rx_packets");
	/* Frames of other instances were no packets on the wire. */
	frames = grown(b, n, "rx_frames") - grown(b, n, "rx_local");
	return json_pack("{s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:f}", "name", name,
			 "interface", iface, "rx_pps", rx / dt, "rx_gbps",
			 grown(b, n, "rx_bytes") * 8 / 1e9 / dt, "packets_per_super",
			 frames > 0 ? rx / frames : 0.0, "tx_pps",
			 grown(b, n, "tx_wire") / dt, "tx_gbps",
			 grown(b, n, "tx_bytes") * 8 / 1e9 / dt, "drops_per_s",
			 lost / dt);
}

static void add_instances(json_t *list, const json_t *before, const json_t *now,
			  double dt, const char *iface)
{
	const json_t *old = json_object_get(before, "instances");
	size_t k, at = 0;
	json_t *in;

	json_array_foreach(json_object_get(now, "instances"), k, in)
	{
		const char *name = json_string_value(json_object_get(in, "name"));

		if (name)
			json_array_append_new(list,
					      one_instance(snapshot_named(old, name, &at),
							   in, dt, iface, name));
	}
}

static json_t *one_iface(const json_t *before, const json_t *now, double dt,
			 const char *name)
{
	const json_t *b = json_object_get(before, "xdp");
	const json_t *n = json_object_get(now, "xdp");
	double seen = grown(b, n, "rx");
	double redirect = grown(b, n, "redirect");
	double lost = grown(b, n, "drop_meta");
	double host = seen > redirect + lost ? seen - redirect - lost : 0;

	return json_pack("{s:s, s:f, s:f, s:f, s:i}", "name", name, "seen_pps", seen / dt,
			 "redirect_pps", redirect / dt, "host_pps", host / dt, "queues",
			 (int)json_array_size(json_object_get(now, "queues")));
}

json_t *top_compute(const json_t *before, const json_t *now)
{
	json_t *instances = json_array(), *ifaces = json_array(), *i, *d;
	const json_t *list = json_object_get(before, "interfaces"), *old;
	struct losses l = {
		.seconds = snapshot_seconds(before, now),
		.list = json_array(),
	};
	size_t k, at = 0;

	json_array_foreach(json_object_get(now, "interfaces"), k, i)
	{
		const char *name = json_string_value(json_object_get(i, "name"));

		if (!name)
			continue;
		old = snapshot_named(list, name, &at);
		json_array_append_new(ifaces, one_iface(old, i, l.seconds, name));
		add_instances(instances, old, i, l.seconds, name);
	}
	snapshot_each(before, now, add_drop, &l);
	d = json_object_get(now, "daemon");
	return json_pack("{s:f, s:O, s:o, s:o, s:o}", "interval_s", l.seconds, "daemon",
			 d ? d : json_null(), "instances", instances, "interfaces",
			 ifaces, "drops", l.list);
}

static double num(const json_t *o, const char *key)
{
	return json_number_value(json_object_get(o, key));
}

static const char *str(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

static void render_instances(const json_t *list, FILE *f)
{
	static const char *const title[] = { "INSTANCE",  "INTERFACE", "RX PKT/S",
					     "RX GBIT/S", "PKT/SUPER", "TX PKT/S",
					     "TX GBIT/S", "DROPS/S" };
	char rx[FMT_MAX], tx[FMT_MAX], dr[FMT_MAX];
	struct table t;
	size_t k;
	json_t *i;

	table_init(&t, title, "<<>>>>>>");
	json_array_foreach(list, k, i) table_row(
		&t, "%s\t%s\t%s\t%.3f\t%.1f\t%s\t%.3f\t%s", str(i, "name"),
		str(i, "interface"), fmt_si(num(i, "rx_pps"), rx), num(i, "rx_gbps"),
		num(i, "packets_per_super"), fmt_si(num(i, "tx_pps"), tx),
		num(i, "tx_gbps"), fmt_si(num(i, "drops_per_s"), dr));
	if (!t.nrows)
		fputs("no instances\n", f);
	table_print(&t, f);
}

void top_render(const json_t *r, FILE *f)
{
	static const char *const if_title[] = { "INTERFACE", "QUEUES", "SEEN/S",
						"TO INSTANCES/S", "TO HOST/S" };
	static const char *const drop_title[] = { "DROPS", "REASON", "PER SECOND",
						  "TOTAL" };
	const json_t *d = json_object_get(r, "daemon");
	char a[FMT_MAX], b[FMT_MAX], c[FMT_MAX];
	struct table t;
	size_t k;
	json_t *i;

	if (json_is_object(d))
		fprintf(f, "ghostnicd %s, up %.0f s\n\n", str(d, "version"),
			num(d, "uptime_s"));
	else
		fputs("no daemon\n\n", f);
	render_instances(json_object_get(r, "instances"), f);
	fputc('\n', f);
	table_init(&t, if_title, "<>>>>");
	json_array_foreach(json_object_get(r, "interfaces"), k, i) table_row(
		&t, "%s\t%.0f\t%s\t%s\t%s", str(i, "name"), num(i, "queues"),
		fmt_si(num(i, "seen_pps"), a), fmt_si(num(i, "redirect_pps"), b),
		fmt_si(num(i, "host_pps"), c));
	table_print(&t, f);
	fputc('\n', f);
	table_init(&t, drop_title, "<<>>");
	json_array_foreach(json_object_get(r, "drops"), k, i)
		table_row(&t, "%s\t%s\t%s\t%s", str(i, "where"), str(i, "reason"),
			  fmt_si(num(i, "per_s"), a), fmt_si(num(i, "total"), b));
	if (!t.nrows)
		fputs("no drops\n", f);
	table_print(&t, f);
}
