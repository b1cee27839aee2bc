// SPDX-License-Identifier: BSD-2-Clause
/*
 * metrics: every declared counter is exported, with its own value, in the right
 * place, and the text is one that Prometheus takes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../user/daemon/metrics.h"
#include "../../user/lib/ghostnic.h"
#include "still.h"

#define SPEC "vm1,mac=52:54:00:12:34:56,vlan=7,port=null,copy"

/* Give each counter a number of its own. */
static void number(void *counters, size_t size, uint64_t first)
{
	uint64_t *c = counters;

	for (size_t i = 0; i < size / sizeof(*c); i++)
		c[i] = first + i;
}

static struct instance *fill(struct still *s, const char *iface)
{
	struct instance *in;

	still_init(s, iface);
	in = still_add(s, SPEC, 3 + GN_MAX_INSTANCES);
	for (unsigned int q = 0; q < STILL_QUEUES; q++) {
		struct worker *w = &s->worker[q];

		number(&w->stats, sizeof(w->stats), 1000 * (q + 1));
		number(&w->agg.stats, sizeof(w->agg.stats), 1100 * (q + 1));
		number(&w->xsk.stats, sizeof(w->xsk.stats), 1200 * (q + 1));
		number(&in->port->queue[q]->stats, sizeof(struct port_stats),
		       1300 * (q + 1));
	}
	return in;
}

static json_int_t get_int(const json_t *o, const char *key)
{
	const json_t *v = json_object_get(o, key);

	if (!json_is_integer(v))
		fail_msg("%s is no integer", key);
	return json_integer_value(v);
}

static void writes_json(void **state)
{
	struct still s;
	const struct instance *in = fill(&s, "veth0");
	json_t *m = metrics_json(&s.d);
	const json_t *iface, *queue, *inst, *sub;

	assert_non_null(m);
	assert_string_equal(json_string_value(json_object_get(m, "version")), GN_VERSION);
	assert_int_equal(get_int(m, "abi"), GN_ABI);
	assert_true(json_real_value(json_object_get(m, "uptime_s")) > 0);
	iface = json_array_get(json_object_get(m, "interfaces"), 0);
	assert_string_equal(json_string_value(json_object_get(iface, "name")), "veth0");
	assert_int_equal(get_int(iface, "mtu"), 1500);
	assert_int_equal(json_array_size(json_object_get(iface, "queues")), STILL_QUEUES);
	for (unsigned int q = 0; q < STILL_QUEUES; q++) {
		const struct worker *w = &s.worker[q];

		queue = json_array_get(json_object_get(iface, "queues"), q);
		assert_int_equal(get_int(queue, "queue"), q);
		assert_true(json_is_false(json_object_get(queue, "zerocopy")));
		assert_true(json_is_false(json_object_get(queue, "multi_buffer")));
		/* No socket, so no counters of the kernel: not zeros. */
		assert_true(json_is_null(json_object_get(queue, "kernel")));
		sub = json_object_get(queue, "worker");
#define CHECK(f, help) assert_int_equal(get_int(sub, #f), w->stats.f);
		WORKER_COUNTERS(CHECK)
#undef CHECK
		sub = json_object_get(queue, "agg");
#define CHECK(f, help) assert_int_equal(get_int(sub, #f), w->agg.stats.f);
		AGG_COUNTERS(CHECK)
#undef CHECK
		sub = json_object_get(queue, "xsk");
#define CHECK(f, help) assert_int_equal(get_int(sub, #f), w->xsk.stats.f);
		XSK_COUNTERS(CHECK)
#undef CHECK
	}
	assert_int_equal(json_array_size(json_object_get(iface, "instances")), 1);
	inst = json_array_get(json_object_get(iface, "instances"), 0);
	assert_string_equal(json_string_value(json_object_get(inst, "name")), "vm1");
	assert_string_equal(json_string_value(json_object_get(inst, "mac")),
			    "52:54:00:12:34:56");
	assert_int_equal(get_int(inst, "vlan"), 7);
	assert_string_equal(json_string_value(json_object_get(inst, "port")),
			    "null,copy");
	assert_int_equal(get_int(inst, "id"), 3 + GN_MAX_INSTANCES);
	assert_int_equal(json_array_size(json_object_get(inst, "gso")), 3);
	assert_null(json_object_get(inst, "interface"));
	sub = json_object_get(inst, "stats");
#define CHECK(f, help)                                                                   \
	assert_int_equal(get_int(sub, #f),                                               \
			 in->port->queue[0]->stats.f + in->port->queue[1]->stats.f);
	PORT_COUNTERS(CHECK)
#undef CHECK
	json_decref(m);

	m = metrics_instances(&s.d);
	assert_int_equal(json_array_size(m), 1);
	assert_string_equal(
		json_string_value(json_object_get(json_array_get(m, 0), "interface")),
		"veth0");
	json_decref(m);
	still_fini(&s);
}

static void expect(const char *text, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static void expect(const char *text, const char *fmt, ...)
{
	char line[256];
	va_list ap;

	line[0] = '\n';
	va_start(ap, fmt);
	vsnprintf(line + 1, sizeof(line) - 2, fmt, ap);
	va_end(ap);
	strcat(line, "\n");
	if (!strstr(text, line))
		fail_msg("missing:%s", line);
}

static void writes_text(void **state)
{
	struct still s;
	const struct instance *in = fill(&s, "veth0");
	char *text = metrics_text(&s.d);

	assert_non_null(text);
	expect(text, "ghostnic_info{version=\"%s\",abi=\"%d\"} 1", GN_VERSION, GN_ABI);
	expect(text, "ghostnic_interface_mtu_bytes{interface=\"veth0\"} 1500");
	for (unsigned int q = 0; q < STILL_QUEUES; q++) {
		const struct worker *w = &s.worker[q];

#define CHECK(group, stats, f)                                                           \
	expect(text,                                                                     \
	       "ghostnic_" group "_" #f "_total{interface=\"veth0\",queue=\"%u\"} %llu", \
	       q, (unsigned long long)(stats).f);
#define WORKER(f, help) CHECK("worker", w->stats, f)
#define AGG(f, help)	CHECK("agg", w->agg.stats, f)
#define XSK(f, help)	CHECK("xsk", w->xsk.stats, f)
#define PORT(f, help)                                                                    \
	expect(text,                                                                     \
	       "ghostnic_port_" #f "_total{interface=\"veth0\","                         \
	       "instance=\"vm1\"} %llu",                                                 \
	       (unsigned long long)(in->port->queue[0]->stats.f +                        \
				    in->port->queue[1]->stats.f));
		WORKER_COUNTERS(WORKER)
		AGG_COUNTERS(AGG)
		XSK_COUNTERS(XSK)
	}
	PORT_COUNTERS(PORT)
	free(text);
	still_fini(&s);
}

/* HELP, TYPE, then the samples of this metric and of no other; each metric once. */
static void keeps_metrics_together(void **state)
{
	struct still s;
	char *text, *line, *rest, seen[65536] = "\n", name[128] = "", key[160];

	fill(&s, "veth0");
	text = rest = metrics_text(&s.d);
	assert_non_null(text);
	assert_int_equal(text[strlen(text) - 1], '\n');
	while ((line = strsep(&rest, "\n")) && *line) {
		if (!strncmp(line, "# HELP ", 7)) {
			assert_int_equal(sscanf(line + 7, "%127s", name), 1);
			snprintf(key, sizeof(key), "\n%s\n", name);
			assert_null(strstr(seen, key));
			strcat(seen, key + 1);
		} else if (!strncmp(line, "# TYPE ", 7)) {
			assert_memory_equal(line + 7, name, strlen(name));
			line += 7 + strlen(name);
			assert_true(!strcmp(line, " counter") || !strcmp(line, " gauge"));
			assert_int_equal(!strcmp(line, " counter"),
					 !!strstr(name, "_total"));
		} else {
			assert_memory_equal(line, name, strlen(name));
			assert_true(strchr("{ ", line[strlen(name)]) != NULL);
		}
	}
	assert_null(rest && *rest ? rest : NULL);
	free(text);
	still_fini(&s);
}

/* The kernel takes such interface names; the format needs them escaped. */
static void escapes_labels(void **state)
{
	struct still s;
	char *text;

	fill(&s, "a\"b\\c\nd");
	text = metrics_text(&s.d);
	expect(text, "ghostnic_interface_mtu_bytes{interface=\"a\\\"b\\\\c\\nd\"} 1500");
	free(text);
	still_fini(&s);
}

/* Bytes of the answer that has the text in a string of JSON. */
static size_t text_bytes(const struct daemon *d)
{
	char *text = metrics_text(d);
	json_t *o = json_string(text);
	size_t n = json_dumpb(o, NULL, 0, JSON_ENCODE_ANY);

	assert_int_not_equal(n, 0);
	json_decref(o);
	free(text);
	return n;
}

static size_t json_bytes(const struct daemon *d)
{
	json_t *o = metrics_json(d);
	size_t n = json_dumpb(o, NULL, 0, JSON_COMPACT);

	assert_int_not_equal(n, 0);
	json_decref(o);
	return n;
}

/* As many interfaces, queues and instances as a daemon may have, with the longest names
 * and numbers: a client takes the answer. */
static void fits_an_answer(void **state)
{
	size_t (*const bytes[])(const struct daemon *) = { text_bytes, json_bytes };
	char spec[] = "a234567890123456789012345678901,mac=52:54:00:12:34:56,port=null";

	for (size_t k = 0; k < sizeof(bytes) / sizeof(bytes[0]); k++) {
		struct still s;
		struct instance *in;
		size_t queues, instance;

		still_init(&s, "interface012345");
		for (unsigned int q = 0; q < STILL_QUEUES; q++) {
			struct worker *w = &s.worker[q];

			number(&w->stats, sizeof(w->stats), INT64_MAX - 100);
			number(&w->agg.stats, sizeof(w->agg.stats), INT64_MAX - 100);
			number(&w->xsk.stats, sizeof(w->xsk.stats), INT64_MAX - 100);
		}
		queues = bytes[k](&s.d);
		in = still_add(&s, spec, 3);
		strcpy(in->conf.port.kind, "vhost-user");
		memset(in->conf.port.arg, '/', sizeof(in->conf.port.arg) - 1);
		number(&in->port->queue[0]->stats, sizeof(struct port_stats),
		       INT64_MAX - 100);
		instance = bytes[k](&s.d) - queues;
		assert_in_range(CONF_MAX_IFACES * (GN_MAX_QUEUES / STILL_QUEUES * queues +
						   GN_MAX_INSTANCES * instance),
				1, GHOSTNIC_MAX_ANSWER);
		still_fini(&s);
	}
}

/* No interface: still a document, with the daemon's own metrics. */
static void works_without_ifaces(void **state)
{
	struct daemon d = { .nifaces = 0 };
	json_t *m = metrics_json(&d);
	char *text = metrics_text(&d);

	assert_true(json_is_array(json_object_get(m, "interfaces")));
	expect(text, "ghostnic_info{version=\"%s\",abi=\"%d\"} 1", GN_VERSION, GN_ABI);
	json_decref(m);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(writes_json),
		cmocka_unit_test(writes_text),
		cmocka_unit_test(keeps_metrics_together),
		cmocka_unit_test(escapes_labels),
		cmocka_unit_test(fits_an_answer),
		cmocka_unit_test(works_without_ifaces),
	};

	return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
