// SPDX-License-Identifier: BSD-2-Clause
/*
 * From two snapshots to rates, reasons and text: snapshot.c, top.c, out.c.
 */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../loader/out.h"
#include "../../loader/snapshot.h"
#include "../../loader/top.h"

static json_t *snap(double time, long long n)
{
	return json_pack("{s:f, s:{s:s, s:f}, s:[{s:s, s:{s:I, s:I, s:I, s:I},"
			 " s:[{s:i, s:{s:I}, s:{s:I}, s:{s:I}}], s:[{s:s, s:{s:I, s:I, "
			 "s:I, s:I, s:I, s:I}}]}]}",
			 "time_s", time, "daemon", "version", "9.9", "uptime_s", 65.0,
			 "interfaces", "name", "v0", "xdp", "rx", (json_int_t)(100 * n),
			 "redirect", (json_int_t)(60 * n), "drop_meta",
			 (json_int_t)(10 * n), "pass_no_socket", (json_int_t)0, "queues",
			 "queue", 3, "worker", "rx_no_instance", (json_int_t)(2 * n),
			 "xsk", "tx_full", (json_int_t)5, "kernel", "rx_ring_full",
			 (json_int_t)n, "instances", "name", "vm1", "stats", "rx_packets",
			 (json_int_t)(1000 * n), "rx_frames", (json_int_t)(57 * n),
			 "rx_local", (json_int_t)(7 * n), "rx_bytes",
			 (json_int_t)(125000000 * n), "tx_wire", (json_int_t)(20 * n),
			 "rx_dropped", (json_int_t)(4 * n));
}

static double num(const json_t *o, const char *key)
{
	assert_true(json_is_number(json_object_get(o, key)));
	return json_number_value(json_object_get(o, key));
}

#define NEAR(a, b) assert_true((a) - (b) < 1e-6 && (b) - (a) < 1e-6)

static void test_rates(void **state)
{
	json_t *a = snap(10, 1), *b = snap(12, 3), *r = top_compute(a, b), *i;

	NEAR(num(r, "interval_s"), 2);
	i = json_array_get(json_object_get(r, "instances"), 0);
	assert_string_equal(json_string_value(json_object_get(i, "name")), "vm1");
	NEAR(num(i, "rx_pps"), 1000);
	NEAR(num(i, "rx_gbps"), 1);
	NEAR(num(i, "packets_per_super"), 20);
	NEAR(num(i, "tx_pps"), 20);
	NEAR(num(i, "drops_per_s"), 4);
	i = json_array_get(json_object_get(r, "interfaces"), 0);
	NEAR(num(i, "seen_pps"), 100);
	NEAR(num(i, "redirect_pps"), 60);
	NEAR(num(i, "host_pps"), 30); /* neither redirected nor dropped */
	NEAR(num(i, "queues"), 1);
	json_decref(r);
	json_decref(a);
	json_decref(b);
}

static const json_t *drop_of(const json_t *r, const char *counter)
{
	json_t *d;
	size_t k;

	json_array_foreach(
		json_object_get(r, "drops"), k,
		d) if (!strcmp(json_string_value(json_object_get(d, "counter")),
			       counter)) return d;
	return NULL;
}

static void test_drops(void **state)
{
	json_t *a = snap(10, 1), *b = snap(12, 3), *r = top_compute(a, b);
	const json_t *d;

	/* 0 is not listed, nor is what is no loss. */
	assert_int_equal(json_array_size(json_object_get(r, "drops")), 5);
	assert_null(drop_of(r, "pass_no_socket"));
	assert_null(drop_of(r, "rx_packets"));
	d = drop_of(r, "rx_ring_full");
	assert_non_null(d);
	assert_string_equal(json_string_value(json_object_get(d, "where")),
			    "v0 queue 3 kernel");
	NEAR(num(d, "per_s"), 1);
	NEAR(num(d, "total"), 3);
	/* Old losses stay, at rate 0. */
	d = drop_of(r, "tx_full");
	assert_non_null(d);
	NEAR(num(d, "per_s"), 0);
	NEAR(num(d, "total"), 5);
	json_decref(r);
	json_decref(a);
	json_decref(b);
}

/* Each way in which an instance's frames are lost is listed, and in its sum. */
static void test_instance_drops(void **state)
{
	static const char *const name[] = { "rx_dropped", "tx_dropped", "tx_bad",
					    "tx_spoofed", "tx_disabled" };
	json_t *a = snap(10, 1), *b = snap(12, 3), *stats, *r;
	double sum = 0;
	size_t i;

	stats = json_object_get(
		json_array_get(
			json_object_get(
				json_array_get(json_object_get(b, "interfaces"), 0),
				"instances"),
			0),
		"stats");
	json_object_set_new(stats, "rx_dropped", json_integer(4 + 2));
	for (i = 1; i < 5; i++)
		json_object_set_new(stats, name[i], json_integer(2 << i));
	r = top_compute(a, b);
	for (i = 0; i < 5; i++) {
		const json_t *d = drop_of(r, name[i]);

		assert_non_null(d);
		NEAR(num(d, "per_s"), 1 << i);
		sum += 1 << i;
	}
	NEAR(num(json_array_get(json_object_get(r, "instances"), 0), "drops_per_s"), sum);
	json_decref(r);
	json_decref(a);
	json_decref(b);
}

/* The kernel counts a frame without a chunk twice; it was lost once. */
static void test_no_chunk(void **state)
{
	json_t *a = snap(10, 1), *b = snap(12, 3), *kernel, *r;

	kernel = json_object_get(
		json_array_get(
			json_object_get(
				json_array_get(json_object_get(b, "interfaces"), 0),
				"queues"),
			0),
		"kernel");
	json_object_set_new(kernel, "rx_dropped", json_integer(9));
	json_object_set_new(kernel, "rx_fill_ring_empty", json_integer(9));
	r = top_compute(a, b);
	assert_int_equal(json_array_size(json_object_get(r, "drops")), 6);
	assert_null(drop_of(r, "rx_fill_ring_empty"));
	json_decref(r);
	json_decref(a);
	json_decref(b);
}

/* A restarted daemon counts from 0: no negative rates. */
static void test_restart(void **state)
{
	json_t *a = snap(10, 9), *b = snap(11, 2), *r = top_compute(a, b), *i;

	i = json_array_get(json_object_get(r, "instances"), 0);
	NEAR(num(i, "rx_pps"), 2000);
	json_decref(r);
	json_decref(a);
	json_decref(b);
}

/* The daemon comes and goes between two snapshots. */
static void test_no_daemon(void **state)
{
	json_t *a = snap(1, 1),
	       *b = json_pack("{s:f, s:n, s:[]}", "time_s", 2.0, "daemon", "interfaces"),
	       *r;

	r = top_compute(a, b);
	assert_int_equal(json_array_size(json_object_get(r, "instances")), 0);
	json_decref(r);
	json_object_set_new(b, "time_s", json_real(0.5));
	r = top_compute(b, a);
	NEAR(num(json_array_get(json_object_get(r, "instances"), 0), "rx_pps"), 2000);
	json_decref(r);
	json_decref(a);
	json_decref(b);
}

#define MANY_IFACES    16
#define MANY_INSTANCES 1024

/* Instances @first and on of each interface, instance n with n times @factor packets. */
static json_t *many(double time, unsigned int first, json_int_t factor)
{
	json_t *ifaces = json_array();
	char name[16];

	for (unsigned int i = 0; i < MANY_IFACES; i++) {
		json_t *list = json_array();

		for (unsigned int n = first; n < first + MANY_INSTANCES; n++) {
			snprintf(name, sizeof(name), "vm%u", n);
			json_array_append_new(list,
					      json_pack("{s:s, s:{s:I, s:I}}", "name",
							name, "stats", "rx_packets",
							(json_int_t)n * factor,
							"rx_dropped", factor));
		}
		snprintf(name, sizeof(name), "v%u", i);
		json_array_append_new(ifaces,
				      json_pack("{s:s, s:n, s:[], s:o}", "name", name,
						"xdp", "queues", "instances", list));
	}
	return json_pack("{s:f, s:n, s:o}", "time_s", time, "daemon", "interfaces",
			 ifaces);
}

/* As many as a daemon may have, some of which have come and gone meanwhile. Of each a look
 * through all of them would take an hour. */
static void test_many(void **state)
{
	json_t *a = many(10, 1, 1), *b = many(12, 3, 2), *r = top_compute(a, b);
	const json_t *list = json_object_get(r, "instances");

	assert_int_equal(json_array_size(list), MANY_IFACES * MANY_INSTANCES);
	for (unsigned int i = 0; i < MANY_IFACES * MANY_INSTANCES; i++) {
		const json_t *in = json_array_get(list, i);
		unsigned int n = 3 + i % MANY_INSTANCES;
		bool old = n < 1 + MANY_INSTANCES;
		char name[16];

		snprintf(name, sizeof(name), "vm%u", n);
		assert_string_equal(json_string_value(json_object_get(in, "name")), name);
		snprintf(name, sizeof(name), "v%u", i / MANY_INSTANCES);
		assert_string_equal(json_string_value(json_object_get(in, "interface")),
				    name);
		NEAR(num(in, "rx_pps"), old ? n / 2.0 : n);
		NEAR(num(in, "drops_per_s"), old ? 0.5 : 1);
	}
	list = json_object_get(r, "drops");
	assert_int_equal(json_array_size(list), MANY_IFACES * MANY_INSTANCES);
	NEAR(num(json_array_get(list, 0), "per_s"), 0.5);
	NEAR(num(json_array_get(list, MANY_INSTANCES - 1), "per_s"), 1);
	json_decref(r);
	json_decref(a);
	json_decref(b);
}

static char *rendered(const json_t *r)
{
	char *buf = NULL;
	size_t len;
	FILE *f = open_memstream(&buf, &len);

	assert_non_null(f);
	top_render(r, f);
	fclose(f);
	return buf;
}

static void test_render(void **state)
{
	json_t *a = snap(10, 1), *b = snap(12, 3), *r = top_compute(a, b);
	char *text = rendered(r);

	assert_non_null(strstr(text, "ghostnicd 9.9, up 65 s"));
	assert_non_null(
		strstr(text, "vm1       v0            1.00k      1.000       20.0"));
	assert_non_null(strstr(text, "receive ring full: worker too slow"));
	free(text);
	json_decref(r);
	json_decref(a);
	json_decref(b);
}

/* A name in the daemon's answer never reaches the terminal as a command to it. */
static void test_terminal_safe(void **state)
{
	static const char *const title[] = { "A", "B" };
	char *buf = NULL, s[] = "a\033[2Jb\x7f";
	struct table t;
	size_t len;
	FILE *f;

	assert_string_equal(clean_text(s), "a?[2Jb?");
	f = open_memstream(&buf, &len);
	table_init(&t, title, "<>");
	table_row(&t, "%s\t%d", "x\033x", 12345);
	table_row(&t, "%s\t%d", "long name", 1);
	table_print(&t, f);
	fclose(f);
	assert_string_equal(buf, "A              B\n"
				 "x?x        12345\n"
				 "long name      1\n");
	free(buf);
}

static void test_fmt_si(void **state)
{
	static const struct {
		double v;
		const char *s;
	} c[] = {
		{ 0, "0" },	    { 7, "7" },		 { 999, "999" },
		{ 999.6, "1.00k" }, { 1000, "1.00k" },	 { 12345, "12.3k" },
		{ 999499, "999k" }, { 999600, "1.00M" }, { 4.8e6, "4.80M" },
		{ 1e9, "1.00G" },   { 1e22, "10000E" },
	};
	char buf[FMT_MAX];
	size_t i;

	for (i = 0; i < sizeof(c) / sizeof(c[0]); i++)
		assert_string_equal(fmt_si(c[i].v, buf), c[i].s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rates),	       cmocka_unit_test(test_drops),
		cmocka_unit_test(test_instance_drops), cmocka_unit_test(test_no_chunk),
		cmocka_unit_test(test_restart),	       cmocka_unit_test(test_no_daemon),
		cmocka_unit_test(test_many),	       cmocka_unit_test(test_render),
		cmocka_unit_test(test_terminal_safe),  cmocka_unit_test(test_fmt_si),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
