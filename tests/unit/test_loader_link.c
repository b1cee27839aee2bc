// SPDX-License-Identifier: BSD-2-Clause
/*
 * What the command asks of the kernel where no right is needed: interfaces (link.c), and what
 * libbpf tells on the way (xdp.c).
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/libbpf.h>
#include <cmocka.h>

#include "../../loader/link.h"
#include "../../loader/xdp.h"

static void test_lo(void **state)
{
	struct link_info l;

	assert_int_equal(link_get("lo", &l), 0);
	assert_string_equal(l.name, "lo");
	assert_int_equal(l.ifindex, if_nametoindex("lo"));
	assert_true(l.mtu > 0);
	assert_string_equal(l.kind, "");
	assert_int_equal(l.peer_ifindex, 0);
	assert_string_equal(l.peer, "");
	assert_false(l.peer_elsewhere);
}

/* Nothing is written when there is no such interface. */
static void test_no_link(void **state)
{
	static const char *const name[] = { "", "gn-none", "a-name-too-long-for-one" };
	struct link_info l, before;

	memset(&l, 0x5a, sizeof(l));
	before = l;
	for (size_t i = 0; i < sizeof(name) / sizeof(name[0]); i++) {
		assert_int_equal(link_get(name[i], &l), -ENODEV);
		assert_memory_equal(&l, &before, sizeof(l));
	}
}

static void test_features(void **state)
{
	uint32_t on = 0x5a5a, fixed = 0x5a5a;

	for (int f = 0; f < LINK_FEAT_MAX; f++) {
		assert_true(strlen(link_feature_name((enum link_feature)f)) > 0);
		assert_true(strlen(link_feature_why((enum link_feature)f)) > 0);
	}
	assert_true(link_features_get("gn-none", &on, &fixed) < 0);
	assert_int_equal(on, 0x5a5a);
	assert_int_equal(link_features_get("lo", &on, &fixed), 0);
	assert_int_equal((on | fixed) >> LINK_FEAT_MAX, 0);
	/* lo never leaves the host, so it has none of a NIC's. */
	assert_false(on >> LINK_FEAT_LRO & 1);
	assert_true(fixed >> LINK_FEAT_LRO & 1);
	assert_int_equal(link_features_set("lo", 0, true), 0);
	assert_true(link_txvlan_on("gn-none") < 0);
}

/* ---- xdp.c ---- */

static libbpf_print_fn_t print;

static void say(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	print(LIBBPF_WARN, fmt, ap);
	va_end(ap);
}

/* The kernel's own reason is picked out of what libbpf says, its last one is kept. */
static void test_messages(void **state)
{
	char long_text[2000];

	unsetenv(XDP_BPFFS_ENVVAR);
	xdp_init("/nowhere", false);
	assert_string_equal(getenv(XDP_BPFFS_ENVVAR), "/nowhere");
	print = libbpf_set_print(NULL);
	assert_non_null(print);
	assert_string_equal(xdp_message(), "");
	say("libbpf: something else\n");
	assert_string_equal(xdp_message(), "");
	say("libbpf: %s%s\n", "Kernel error message: ", "Peer MTU is too large");
	assert_string_equal(xdp_message(), "Peer MTU is too large");
	say("libbpf: something else\n");
	assert_string_equal(xdp_message(), "Peer MTU is too large");
	memset(long_text, 'x', sizeof(long_text));
	long_text[sizeof(long_text) - 1] = '\0';
	say("Kernel error message: %s\n", long_text);
	assert_in_range(strlen(xdp_message()), 100, 300);
	/* A place that the user chose for libxdp stays. */
	setenv(XDP_BPFFS_ENVVAR, "/chosen", 1);
	xdp_init("/nowhere", false);
	assert_string_equal(getenv(XDP_BPFFS_ENVVAR), "/chosen");
}

static void test_modes(void **state)
{
	assert_string_equal(xdp_mode_name(XDP_MODE_NATIVE), "native");
	assert_string_equal(xdp_mode_name(XDP_MODE_SKB), "generic");
	assert_string_equal(xdp_mode_name(XDP_MODE_HW), "offload");
	assert_string_equal(xdp_mode_name(XDP_MODE_UNSPEC), "none");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lo),	 cmocka_unit_test(test_no_link),
		cmocka_unit_test(test_features), cmocka_unit_test(test_messages),
		cmocka_unit_test(test_modes),
	};

	return cmocka_run_group_tests_name("loader_link", tests, NULL, NULL);
}
