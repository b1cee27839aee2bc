// SPDX-License-Identifier: BSD-2-Clause
/* ctl: the protocol, by ctl_handle(). The socket around it: test_ctl_socket.c. */
#include <bpf/bpf.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "../../user/daemon/ctl.h"
#include "still.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define SPEC	      "vm1,mac=52:54:00:12:34:56,port=null"

/* Parsed answer; it must be one line. */
static json_t *ask_n(struct daemon *d, const char *line, size_t len)
{
	struct ctl_fds fds = { .n = 9 };
	char *text = ctl_handle(d, line, len, &fds);
	json_t *ans;
	size_t n;

	assert_non_null(text);
	assert_int_equal(fds.n, 0);
	n = strlen(text);
	assert_ptr_equal(strchr(text, '\n'), text + n - 1);
	ans = json_loadb(text, n - 1, JSON_REJECT_DUPLICATES, NULL);
	if (!ans)
		fail_msg("no JSON: %s", text);
	assert_true(json_is_boolean(json_object_get(ans, "ok")));
	free(text);
	return ans;
}

static json_t *ask(struct daemon *d, const char *line)
{
	return ask_n(d, line, strlen(line));
}

static json_t *ask_ok(struct daemon *d, const char *line)
{
	json_t *ans = ask(d, line);

	if (!json_is_true(json_object_get(ans, "ok")))
		fail_msg("%s: %s", line,
			 json_string_value(json_object_get(ans, "error")));
	return ans;
}

static void refused_n(struct daemon *d, const char *line, size_t len, const char *why)
{
	json_t *ans = ask_n(d, line, len);
	const char *error = json_string_value(json_object_get(ans, "error"));

	if (!json_is_false(json_object_get(ans, "ok")) || !error || !strstr(error, why))
		fail_msg("%.60s: \"%s\" does not say \"%s\"", line, error, why);
	assert_int_equal(json_object_size(ans), 2);
	json_decref(ans);
}

static void refused(struct daemon *d, const char *line, const char *why)
{
	refused_n(d, line, strlen(line), why);
}

static void answers_version(void **state)
{
	struct daemon d = { .nifaces = 0 };
	json_t *ans = ask_ok(&d, "{\"cmd\":\"version\"}");

	assert_string_equal(json_string_value(json_object_get(ans, "version")),
			    GN_VERSION);
	assert_int_equal(json_integer_value(json_object_get(ans, "abi")), GN_ABI);
	json_decref(ans);
	/* Blanks around it, as a person types it. */
	json_decref(ask_ok(&d, "  { \"cmd\" : \"version\" } \r"));
}

static void refuses_garbage(void **state)
{
	static const char nul[] = "{\"cmd\":\"version\"}\0{}";
	static const char *const bad[][2] = {
		{ "", "not JSON" },
		{ "\n", "not JSON" },
		{ "{", "not JSON" },
		{ "{\"cmd\":\"version\"", "not JSON" },
		{ "{\"cmd\":\"version\"}x", "not JSON" },
		{ "{\"cmd\":\"version\"}{\"cmd\":\"version\"}", "not JSON" },
		{ "{\"cmd\":\"version\",\"cmd\":\"stats\"}", "duplicate" },
		{ "{\"cmd\":\"vers\\u0000ion\"}", "not JSON" },
		{ "{\"cmd\":\"\xff\"}", "not JSON" },
		{ "\xff\xfe", "not JSON" },
		{ "version", "not JSON" },
		{ "[]", "not an object" },
		{ "[\"version\"]", "not an object" },
		{ "{}", "no \"cmd\"" },
		{ "{\"cmd\":1}", "no \"cmd\"" },
		{ "{\"cmd\":null}", "no \"cmd\"" },
		{ "{\"Cmd\":\"version\"}", "no \"cmd\"" },
		{ "{\"cmd\":\"\"}", "unknown command \"\"; known are: version" },
		{ "{\"cmd\":\"versio\"}", "unknown command \"versio\"" },
		{ "{\"cmd\":\"\xc3\xa4\"}", "unknown command \"??\"" },
		{ "{\"cmd\":\"version\",\"x\":\"y\"}", "version does not take \"x\"" },
		{ "{\"cmd\":\"instance-del\",\"names\":\"v\"}", "it takes: name iface" },
		{ "{\"cmd\":\"instance-del\",\"nam\":\"v\"}", "it takes: name iface" },
		{ "{\"cmd\":\"instance-del\",\"\":\"v\"}", "it takes: name iface" },
		{ "{\"cmd\":\"instance-del\",\"name\":7}", "\"name\" is not a string" },
		{ "{\"cmd\":\"stats\",\"a\":[[[[0]]]]}", "nested deeper than 4" },
		{ "{\"a\\\"\":[[[[0]]]]}", "nested deeper than 4" },
		{ "{\"cmd\":\"[[[[[[{{{{{{\"}", "unknown command" },
		{ "{\"cmd\":\"\\\"[[[[[[\"}", "unknown command" },
	};
	struct daemon d = { .nifaces = 0 };
	char *deep;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		refused(&d, bad[i][0], bad[i][1]);
	refused_n(&d, nul, sizeof(nul) - 1, "not JSON");
	deep = malloc(CTL_MAX_LINE + 1);
	assert_non_null(deep);
	memset(deep, '[', CTL_MAX_LINE + 1);
	refused_n(&d, deep, CTL_MAX_LINE, "nested deeper");
	refused_n(&d, deep, CTL_MAX_LINE + 1, "longer than 4096");
	memset(deep, 'x', CTL_MAX_LINE);
	refused_n(&d, deep, CTL_MAX_LINE, "not JSON");
	free(deep);
}

static void answers_stats(void **state)
{
	struct still s;
	json_t *ans;
	const json_t *inst;

	still_init(&s, "veth0");
	still_add(&s, SPEC, 0);
	ans = ask_ok(&s.d, "{\"cmd\":\"stats\"}");
	assert_int_equal(json_array_size(json_object_get(ans, "interfaces")), 1);
	assert_non_null(json_object_get(ans, "uptime_s"));
	json_decref(ans);
	ans = ask_ok(&s.d, "{\"cmd\":\"instances\"}");
	inst = json_array_get(json_object_get(ans, "instances"), 0);
	assert_string_equal(json_string_value(json_object_get(inst, "interface")),
			    "veth0");
	assert_string_equal(json_string_value(json_object_get(inst, "name")), "vm1");
	json_decref(ans);
	ans = ask_ok(&s.d, "{\"cmd\":\"metrics\"}");
	assert_non_null(strstr(json_string_value(json_object_get(ans, "text")),
			       "\nghostnic_port_rx_packets_total{"));
	json_decref(ans);
	still_fini(&s);
}

static void answers_flows(void **state)
{
	struct still s;
	const json_t *list, *f;
	struct flow *flow;
	json_t *ans;

	still_init(&s, "veth0");
	still_add(&s, SPEC, 5);
	ans = ask_ok(&s.d, "{\"cmd\":\"flows\"}");
	assert_int_equal(json_array_size(json_object_get(ans, "flows")), 0);
	json_decref(ans);

	still_flow(&s, 0, 7, 5, 1000);
	flow = still_flow(&s, 1, 9, 5, 3000);
	flow->packets = 30;
	flow->frames = 3;
	flow->bytes = 45000;
	/* Of an instance that has gone: another generation of the slot. */
	flow = still_flow(&s, 0, 8, 5 + GN_MAX_INSTANCES, 2000);
	flow->flags = GN_F_UDP;
	ans = ask_ok(&s.d, "{\"cmd\":\"flows\"}");
	list = json_object_get(ans, "flows");
	assert_int_equal(json_array_size(list), 3);
	f = json_array_get(list, 0);
	assert_string_equal(json_string_value(json_object_get(f, "flow")),
			    "10.0.0.1:9 > 10.0.0.2:80");
	assert_string_equal(json_string_value(json_object_get(f, "interface")), "veth0");
	assert_string_equal(json_string_value(json_object_get(f, "instance")), "vm1");
	assert_string_equal(json_string_value(json_object_get(f, "proto")), "tcp");
	assert_int_equal(json_integer_value(json_object_get(f, "queue")), 1);
	assert_int_equal(json_integer_value(json_object_get(f, "packets")), 30);
	assert_int_equal(json_integer_value(json_object_get(f, "frames")), 3);
	assert_int_equal(json_integer_value(json_object_get(f, "bytes")), 45000);
	assert_true(json_integer_value(json_object_get(f, "idle_ms")) > 0);
	f = json_array_get(list, 1);
	assert_string_equal(json_string_value(json_object_get(f, "instance")), "?");
	assert_string_equal(json_string_value(json_object_get(f, "proto")), "udp");
	f = json_array_get(list, 2);
	assert_int_equal(json_integer_value(json_object_get(f, "queue")), 0);
	json_decref(ans);
	/* At most 1000, the newest. */
	for (unsigned int n = 0; n < FLOW_SETS * FLOW_WAYS; n++)
		still_flow(&s, 0, n, 5, n);
	ans = ask_ok(&s.d, "{\"cmd\":\"flows\"}");
	list = json_object_get(ans, "flows");
	assert_int_equal(json_array_size(list), 1000);
	f = json_array_get(list, 999);
	assert_string_equal(json_string_value(json_object_get(f, "flow")),
			    "10.0.0.1:25 > 10.0.0.2:80");
	json_decref(ans);
	still_fini(&s);
}

static void checks_instance_commands(void **state)
{
	struct daemon none = { .nifaces = 0 };
	struct still s, t;

	refused(&none, "{\"cmd\":\"instance-add\",\"spec\":\"" SPEC "\"}",
		"which interface");
	still_init(&s, "veth0");
	still_init(&t, "veth1");
	still_add(&s, SPEC, 0);
	refused(&s.d, "{\"cmd\":\"instance-add\"}", "no \"spec\"");
	refused(&s.d, "{\"cmd\":\"instance-add\",\"spec\":\"vm2\"}", "add mac=MAC");
	refused(&s.d, "{\"cmd\":\"instance-add\",\"spec\":\"" SPEC "\"}",
		"exists already");
	refused(&s.d,
		"{\"cmd\":\"instance-add\",\"spec\":\"vm2,mac=52:54:00:12:34:56,port="
		"null\"}",
		"vm1 and vm2 have the same address and VLAN");
	refused(&s.d, "{\"cmd\":\"instance-add\",\"iface\":\"x\",\"spec\":\"" SPEC "\"}",
		"no interface x");
	refused(&s.d,
		"{\"cmd\":\"instance-add\",\"iface\":\"veth0\",\"spec\":\"" SPEC
		",iface=veth1\"}",
		"name one");
	refused(&s.d, "{\"cmd\":\"instance-del\"}", "no \"name\"");
	refused(&s.d, "{\"cmd\":\"instance-del\",\"name\":\"vm9\"}",
		"no instance vm9 on veth0");
	/* Two interfaces: which one must be said. */
	s.d.iface[1] = &t.iface;
	s.d.nifaces = 2;
	refused(&s.d, "{\"cmd\":\"instance-del\",\"name\":\"vm1\"}", "which interface");
	refused(&s.d, "{\"cmd\":\"instance-del\",\"name\":\"vm1\",\"iface\":\"veth1\"}",
		"no instance vm1 on veth1");
	json_decref(ask_ok(
		&s.d, "{\"cmd\":\"instance-del\",\"name\":\"vm1\",\"iface\":\"veth0\"}"));
	assert_null(s.iface.instance[0]);
	/* A port has one instance, whichever interface it is on. */
	strcpy(still_add(&t, SPEC, 1)->conf.port.kind, "tap");
	strcpy(t.iface.instance[1]->conf.port.arg, "tap1");
	refused(&s.d,
		"{\"cmd\":\"instance-add\",\"iface\":\"veth0\",\"spec\":\"vm2,mac=52:54:"
		"00:"
		"12:34:57,port=tap:tap1\"}",
		"vm1 and vm2 have the same port tap:tap1");
	still_fini(&t);
	still_fini(&s);
}

/* Down to XDP's map; needs the right to make one. */
static void adds_instance(void **state)
{
	struct gn_instance_key key = { .mac = { 0x52, 0x54, 0, 0x12, 0x34, 0x56 } };
	struct gn_instance value;
	struct still s;
	int fd = bpf_map_create(BPF_MAP_TYPE_HASH, "test", sizeof(key), sizeof(value), 4,
				NULL);

	if (fd < 0) {
		print_message("no right to create a BPF map: %s\n", strerror(errno));
		skip();
	}
	still_init(&s, "veth0");
	s.iface.map_instances = fd;
	json_decref(ask_ok(&s.d, "{\"cmd\":\"instance-add\",\"spec\":\"" SPEC "\"}"));
	assert_non_null(s.iface.instance[0]);
	assert_string_equal(s.iface.instance[0]->conf.iface, "veth0");
	assert_int_equal(bpf_map_lookup_elem(fd, &key, &value), 0);
	assert_int_equal(value.id, s.iface.instance[0]->id);
	json_decref(ask_ok(
		&s.d, "{\"cmd\":\"instance-del\",\"name\":\"vm1\",\"iface\":\"veth0\"}"));
	assert_int_equal(bpf_map_lookup_elem(fd, &key, &value), -ENOENT);
	still_fini(&s);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers_version),
		cmocka_unit_test(refuses_garbage),
		cmocka_unit_test(answers_stats),
		cmocka_unit_test(answers_flows),
		cmocka_unit_test(checks_instance_commands),
		cmocka_unit_test(adds_instance),
	};

	return cmocka_run_group_tests_name("ctl", tests, NULL, NULL);
}
