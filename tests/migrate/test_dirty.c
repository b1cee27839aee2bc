// SPDX-License-Identifier: BSD-2-Clause
/*
 * Every kind of dirty log under one oracle (conform.h), and every rule broken once, which
 * the oracle has to notice.
 *
 *	test_dirty		the kinds that need nothing
 *	test_dirty kvm		KVM's; in a guest that has a usable /dev/kvm (kvm.sh)
 *	test_dirty daemon CTL SOCKET SOCKET
 *				ghostnicd's (daemon.sh)
 *
 * CONFORM_MS: how long for each kind without a fault. CONFORM_SEED.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kinds.h"

#define MAX_TESTS (8 * FAULT_COUNT)

struct one {
	const struct conform_kind *kind;
	enum conform_fault fault;
	char name[64];
};

static struct one ones[MAX_TESTS];
static struct CMUnitTest tests[MAX_TESTS];
static unsigned int ntests;

static uint64_t number(const char *name, uint64_t otherwise)
{
	const char *s = getenv(name);

	return s ? strtoull(s, NULL, 0) : otherwise;
}

static void test(void **state)
{
	const struct one *o = *state;
	struct conform c = { .kind = o->kind,
			     .fault = o->fault,
			     .seed = number("CONFORM_SEED", 0x243f6a8885a308d3ULL) };
	int err = conform_run(&c, (unsigned int)number("CONFORM_MS", 1500));

	if (err == -EOPNOTSUPP) {
		print_message("not on this kernel\n");
		skip();
	}
	assert_int_equal(err, 0);
	print_message("# %s: %llu harvests, %llu pages, %llu writes, %llu differ, %llu "
		      "never written, %llu late\n",
		      o->name, (unsigned long long)c.harvests,
		      (unsigned long long)c.pages, (unsigned long long)c.writes,
		      (unsigned long long)c.bad, (unsigned long long)c.extra,
		      (unsigned long long)c.late);
	assert_true(c.harvests && c.pages && c.writes);
	if (o->fault) {
		assert_true(c.bad);
		return;
	}
	assert_int_equal(c.bad, 0);
	assert_int_equal(c.extra, 0);
	assert_int_equal(c.late, 0);
	assert_int_equal(c.in_doubt, 0);
}

/* Sanitizers look for other things, and are too slow for faults to show in time. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define FAULTS false
#elif defined(__has_feature)
#define FAULTS (!__has_feature(thread_sanitizer) && !__has_feature(address_sanitizer))
#else
#define FAULTS true
#endif

static bool applies(const struct conform_kind *k, enum conform_fault f)
{
	if (f && !FAULTS)
		return false;
	switch (f) {
	case FAULT_CLEAR_LATE: return k->clears || k->lazy;
	case FAULT_CLEAR_ALL: return k->clears;
	case FAULT_NO_MARK:
	case FAULT_MARK_FIRST: return k->marks;
	case FAULT_NO_KICK: return k->kicks;
	default: return true;
	}
}

static void add(const struct conform_kind *k)
{
	for (int f = FAULT_NONE; f < FAULT_COUNT; f++) {
		struct one *o = &ones[ntests];

		if (!applies(k, f))
			continue;
		o->kind = k;
		o->fault = f;
		snprintf(o->name, sizeof(o->name), "%s%s%s", k->name, f ? " fault: " : "",
			 f ? conform_fault_name[f] : "");
		/* Names of cases have no spaces in the runner's eyes. */
		for (char *p = o->name; *p; p++)
			if (*p == ' ' || *p == ':')
				*p = '_';
		tests[ntests++] = (struct CMUnitTest){ .name = o->name,
						       .test_func = test,
						       .initial_state = o };
	}
}

/* No argument; kvm FROM, how many cases are left out; daemon CTL SOCKET SOCKET. */
int main(int argc, char **argv)
{
	size_t from = 0;

	if (argc == 1) {
		add(&kind_user);
		add(&kind_vhost_log);
		add(&kind_pagemap);
		add(&kind_mixed);
		add(&kind_ring);
		tests[ntests++] = (struct CMUnitTest)cmocka_unit_test(test_sparse);
	} else if (argc == 3 && !strcmp(argv[1], "kvm")) {
		from = strtoul(argv[2], NULL, 10);
		add(&kind_kvm_bitmap);
		add(&kind_kvm_ring);
		add(&kind_kvm_ring_small);
		add(&kind_kvm_mixed);
	} else if (argc == 5 && !strcmp(argv[1], "daemon")) {
		kind_daemon_ctl = argv[2];
		kind_daemon_socket[0] = argv[3];
		kind_daemon_socket[1] = argv[4];
		add(&kind_daemon);
		tests[ntests++] = (struct CMUnitTest)cmocka_unit_test(test_daemon_owner);
	} else {
		return 2;
	}
	if (from >= ntests)
		return 2;
	return _cmocka_run_group_tests("dirty", tests + from, ntests - from, NULL, NULL);
}
