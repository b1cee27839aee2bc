// SPDX-License-Identifier: BSD-2-Clause
/*
 * metrics: the counters, read through tables that the X-macros make.
 *
 * Control thread, while workers write (stat.h). Prometheus text follows
 * https://prometheus.io/docs/instrumenting/exposition_formats/: all samples of
 * one metric stand together, so each metric walks over all its owners.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "metrics.h"
#include "stat.h"
#include "../lib/log.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* One counter of a struct. */
struct field {
	const char *name;
	const char *help;
	size_t off;
};

#define FIELD(type, f, text)  { #f, text, offsetof(struct type, f) },
#define WORKER_ENTRY(f, text) FIELD(worker_stats, f, text)
#define AGG_ENTRY(f, text)    FIELD(agg_stats, f, text)
#define XSK_ENTRY(f, text)    FIELD(xsk_stats, f, text)
#define PORT_ENTRY(f, text)   FIELD(port_stats, f, text)

static const struct field worker_fields[] = { WORKER_COUNTERS(WORKER_ENTRY) };
static const struct field agg_fields[] = { AGG_COUNTERS(AGG_ENTRY) };
static const struct field xsk_fields[] = { XSK_COUNTERS(XSK_ENTRY) };
static const struct field port_fields[] = { PORT_COUNTERS(PORT_ENTRY) };

/* The kernel's own counters of the socket; if_xdp.h, struct xdp_statistics. */
static const struct field kernel_fields[] = {
	{ "rx_dropped",
	  "frames dropped by the kernel: no chunk in the fill ring, or other reasons",
	  offsetof(struct xdp_statistics, rx_dropped) },
	{ "rx_ring_full", "frames dropped by the kernel: receive ring full",
	  offsetof(struct xdp_statistics, rx_ring_full) },
	{ "rx_fill_ring_empty", "times the kernel found no chunk in the fill ring",
	  offsetof(struct xdp_statistics, rx_fill_ring_empty_descs) },
	{ "rx_invalid", "invalid descriptors in the fill ring",
	  offsetof(struct xdp_statistics, rx_invalid_descs) },
	{ "tx_invalid", "invalid descriptors in the transmit ring",
	  offsetof(struct xdp_statistics, tx_invalid_descs) },
};

static const struct {
	uint32_t flag;
	const char *name;
} gso_names[] = {
	{ GN_INSTANCE_TSO4, "tso4" },
	{ GN_INSTANCE_TSO6, "tso6" },
	{ GN_INSTANCE_USO, "uso" },
};

static uint64_t field_read(const void *base, const struct field *f)
{
	return stat_read((const uint64_t *)((const char *)base + f->off));
}

static double uptime_s(const struct daemon *d)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)((uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec -
			d->start_ns) /
	       1e9;
}

/* Sum over the queues. */
static uint64_t port_read(const struct port *p, const struct field *f)
{
	uint64_t sum = 0;

	for (unsigned int q = 0; q < p->nqueues; q++)
		sum += field_read(&p->queue[q]->stats, f);
	return sum;
}

/* All of them, into a struct of its own. */
static struct port_stats port_sum(const struct port *p)
{
	struct port_stats sum;

	for (size_t f = 0; f < ARRAY_SIZE(port_fields); f++)
		*(uint64_t *)((char *)&sum + port_fields[f].off) =
			port_read(p, &port_fields[f]);
	return sum;
}

static void format_mac(const uint8_t m[6], char *buf, size_t size)
{
	snprintf(buf, size, "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4],
		 m[5]);
}

static void format_port(const struct port_conf *c, char *buf, size_t size)
{
	snprintf(buf, size, "%s%s%s%s%s", c->kind, *c->arg ? ":" : "", c->arg,
		 c->client ? ",client" : "", c->copy ? ",copy" : "");
}

/* ---- JSON ------------------------------------------------------------------- */

static json_t *json_fields(const void *base, const struct field *f, size_t n)
{
	json_t *o = json_object();

	for (size_t i = 0; o && i < n; i++)
		json_object_set_new(o, f[i].name,
				    json_integer((json_int_t)field_read(base, &f[i])));
	return o;
}

static json_t *json_queue(const struct worker *w)
{
	struct xdp_statistics st;
	json_t *kernel;

	if (xsk_kernel_stats(&w->xsk, &st))
		kernel = json_null();
	else
		kernel = json_fields(&st, kernel_fields, ARRAY_SIZE(kernel_fields));
	return json_pack(
		"{s:i, s:b, s:b, s:o, s:o, s:o, s:o}", "queue", (int)w->conf.queue,
		"zerocopy", w->xsk.zerocopy, "multi_buffer", w->xsk.multi_buffer,
		"worker",
		json_fields(&w->stats, worker_fields, ARRAY_SIZE(worker_fields)), "agg",
		json_fields(&w->agg.stats, agg_fields, ARRAY_SIZE(agg_fields)), "xsk",
		json_fields(&w->xsk.stats, xsk_fields, ARRAY_SIZE(xsk_fields)), "kernel",
		kernel);
}

static json_t *json_instance(const struct iface *i, const struct instance *in,
			     bool name_iface)
{
	struct port_stats sum = port_sum(in->port);
	char mac[18], port[sizeof(in->conf.port.kind) + sizeof(in->conf.port.arg) + 16];
	json_t *o, *gso = json_array();

	for (size_t g = 0; g < ARRAY_SIZE(gso_names); g++)
		if (in->port->gso & gso_names[g].flag)
			json_array_append_new(gso, json_string(gso_names[g].name));
	format_mac(in->conf.mac, mac, sizeof(mac));
	format_port(&in->conf.port, port, sizeof(port));
	o = json_pack("{s:s, s:s, s:i, s:s, s:i, s:I, s:b, s:o, s:o}", "name",
		      in->conf.name, "mac", mac, "vlan", in->conf.vlan, "port", port,
		      "id", in->id, "rate", (json_int_t)in->rate.bits, "allow_spoof",
		      in->conf.allow_spoof, "gso", gso, "stats",
		      json_fields(&sum, port_fields, ARRAY_SIZE(port_fields)));
	if (o && name_iface)
		json_object_set_new(o, "interface", json_string(i->name));
	return o;
}

static void append_instances(json_t *list, const struct iface *i, bool name_iface)
{
	for (unsigned int s = 0; s < GN_MAX_INSTANCES; s++)
		if (i->instance[s])
			json_array_append_new(
				list, json_instance(i, i->instance[s], name_iface));
}

json_t *metrics_instances(const struct daemon *d)
{
	json_t *list = json_array();

	for (unsigned int n = 0; list && n < d->nifaces; n++)
		append_instances(list, d->iface[n], true);
	return list;
}

static json_t *json_iface(const struct iface *i)
{
	json_t *queues = json_array(), *instances = json_array();

	for (unsigned int q = 0; q < i->nworkers; q++)
		json_array_append_new(queues, json_queue(i->worker[q]));
	if (instances)
		append_instances(instances, i, false);
	return json_pack("{s:s, s:i, s:o, s:o}", "name", i->name, "mtu", (int)i->mtu,
			 "queues", queues, "instances", instances);
}

json_t *metrics_json(const struct daemon *d)
{
	json_t *ifaces = json_array();

	for (unsigned int n = 0; n < d->nifaces; n++)
		json_array_append_new(ifaces, json_iface(d->iface[n]));
	return json_pack("{s:s, s:i, s:f, s:o}", "version", GN_VERSION, "abi", GN_ABI,
			 "uptime_s", uptime_s(d), "interfaces", ifaces);
}

/* ---- Prometheus ------------------------------------------------------------- */

/* Label values: backslash, quote and newline are escaped. */
static void put_label(FILE *f, const char *name, const char *value)
{
	fprintf(f, "%s=\"", name);
	for (; *value; value++) {
		if (*value == '\n')
			fputs("\\n", f);
		else if (*value == '\\' || *value == '"')
			fprintf(f, "\\%c", *value);
		else
			fputc(*value, f);
	}
	fputc('"', f);
}

static void put_help(FILE *f, const char *name, const char *help, const char *type)
{
	fprintf(f, "# HELP ghostnic_%s %s\n# TYPE ghostnic_%s %s\n", name, help, name,
		type);
}

static void put_queue_sample(FILE *f, const char *name, const struct iface *i,
			     const struct worker *w, uint64_t value)
{
	fprintf(f, "ghostnic_%s{", name);
	put_label(f, "interface", i->name);
	fprintf(f, ",queue=\"%u\"} %llu\n", w->conf.queue, (unsigned long long)value);
}

/* A struct of counters that every worker has; @get finds it, fills @tmp, or NULL. */
static void put_queue_counters(FILE *f, const struct daemon *d, const char *group,
			       const struct field *field, size_t n,
			       const void *(*get)(const struct worker *w, void *tmp))
{
	struct xdp_statistics tmp; /* the kernel's have no home of their own */

	for (size_t k = 0; k < n; k++) {
		char name[64];

		snprintf(name, sizeof(name), "%s_%s_total", group, field[k].name);
		put_help(f, name, field[k].help, "counter");
		for (unsigned int a = 0; a < d->nifaces; a++) {
			const struct iface *i = d->iface[a];

			for (unsigned int q = 0; q < i->nworkers; q++) {
				const void *base = get(i->worker[q], &tmp);

				if (base)
					put_queue_sample(f, name, i, i->worker[q],
							 field_read(base, &field[k]));
			}
		}
	}
}

static const void *get_worker(const struct worker *w, void *tmp)
{
	return &w->stats;
}

static const void *get_agg(const struct worker *w, void *tmp)
{
	return &w->agg.stats;
}

static const void *get_xsk(const struct worker *w, void *tmp)
{
	return &w->xsk.stats;
}

static const void *get_kernel(const struct worker *w, void *tmp)
{
	return xsk_kernel_stats(&w->xsk, tmp) ? NULL : tmp;
}

static void put_port_counters(FILE *f, const struct daemon *d)
{
	for (size_t k = 0; k < ARRAY_SIZE(port_fields); k++) {
		char name[64];

		snprintf(name, sizeof(name), "port_%s_total", port_fields[k].name);
		put_help(f, name, port_fields[k].help, "counter");
		for (unsigned int a = 0; a < d->nifaces; a++) {
			const struct iface *i = d->iface[a];

			for (unsigned int s = 0; s < GN_MAX_INSTANCES; s++) {
				const struct instance *in = i->instance[s];

				if (!in)
					continue;
				fprintf(f, "ghostnic_%s{", name);
				put_label(f, "interface", i->name);
				fputc(',', f);
				put_label(f, "instance", in->conf.name);
				fprintf(f, "} %llu\n",
					(unsigned long long)port_read(in->port,
								      &port_fields[k]));
			}
		}
	}
}

static void put_gauges(FILE *f, const struct daemon *d)
{
	put_help(f, "info", "version of the daemon and of its ABI with XDP", "gauge");
	fputs("ghostnic_info{", f);
	put_label(f, "version", GN_VERSION);
	fprintf(f, ",abi=\"%d\"} 1\n", GN_ABI);
	put_help(f, "uptime_seconds", "time since the daemon started", "gauge");
	fprintf(f, "ghostnic_uptime_seconds %.3f\n", uptime_s(d));
	put_help(f, "interface_mtu_bytes", "MTU of the interface", "gauge");
	for (unsigned int a = 0; a < d->nifaces; a++) {
		fputs("ghostnic_interface_mtu_bytes{", f);
		put_label(f, "interface", d->iface[a]->name);
		fprintf(f, "} %u\n", d->iface[a]->mtu);
	}
	put_help(f, "queue_zerocopy", "1 if the driver receives into packet memory",
		 "gauge");
	for (unsigned int a = 0; a < d->nifaces; a++)
		for (unsigned int q = 0; q < d->iface[a]->nworkers; q++)
			put_queue_sample(f, "queue_zerocopy", d->iface[a],
					 d->iface[a]->worker[q],
					 d->iface[a]->worker[q]->xsk.zerocopy);
}

char *metrics_text(const struct daemon *d)
{
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);
	bool bad;

	if (!f)
		return NULL;
	put_gauges(f, d);
	put_queue_counters(f, d, "worker", worker_fields, ARRAY_SIZE(worker_fields),
			   get_worker);
	put_queue_counters(f, d, "agg", agg_fields, ARRAY_SIZE(agg_fields), get_agg);
	put_queue_counters(f, d, "xsk", xsk_fields, ARRAY_SIZE(xsk_fields), get_xsk);
	put_queue_counters(f, d, "kernel", kernel_fields, ARRAY_SIZE(kernel_fields),
			   get_kernel);
	put_port_counters(f, d);
	bad = ferror(f);
	if (fclose(f) || bad) {
		free(text);
		return NULL;
	}
	return text;
}

/* ---- log -------------------------------------------------------------------- */

/* Only what happened: a line has to fit into a log message (log.c). */
static size_t append(char *buf, size_t size, size_t n, const char *group,
		     const void *base, const struct field *f, size_t nf)
{
	for (size_t i = 0; i < nf && n < size; i++) {
		uint64_t v = field_read(base, &f[i]);

		if (v)
			n += (size_t)snprintf(buf + n, size - n, " %s%s=%llu", group,
					      f[i].name, (unsigned long long)v);
	}
	return n;
}

void metrics_log(const struct daemon *d)
{
	char buf[2048];

	for (unsigned int a = 0; a < d->nifaces; a++) {
		const struct iface *i = d->iface[a];

		for (unsigned int q = 0; q < i->nworkers; q++) {
			const struct worker *w = i->worker[q];
			struct xdp_statistics st;
			size_t n = 0;

			buf[0] = '\0';
			n = append(buf, sizeof(buf), n, "", &w->stats, worker_fields,
				   ARRAY_SIZE(worker_fields));
			n = append(buf, sizeof(buf), n, "agg_", &w->agg.stats, agg_fields,
				   ARRAY_SIZE(agg_fields));
			n = append(buf, sizeof(buf), n, "xsk_", &w->xsk.stats, xsk_fields,
				   ARRAY_SIZE(xsk_fields));
			if (!xsk_kernel_stats(&w->xsk, &st))
				append(buf, sizeof(buf), n, "kernel_", &st, kernel_fields,
				       ARRAY_SIZE(kernel_fields));
			log_info("final counters of %s queue %u:%s", i->name,
				 w->conf.queue, *buf ? buf : " none");
		}
		for (unsigned int s = 0; s < GN_MAX_INSTANCES; s++) {
			const struct instance *in = i->instance[s];
			struct port_stats sum;

			if (!in)
				continue;
			sum = port_sum(in->port);
			buf[0] = '\0';
			append(buf, sizeof(buf), 0, "", &sum, port_fields,
			       ARRAY_SIZE(port_fields));
			log_info("final counters of %s instance %s:%s", i->name,
				 in->conf.name, *buf ? buf : " none");
		}
	}
}
