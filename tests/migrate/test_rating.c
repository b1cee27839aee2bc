// SPDX-License-Identifier: BSD-2-Clause
/*
 * The dirty rate of a VM, through its control socket: a workload that writes a known
 * number of pages a second, round and round in a known set.
 */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "../../user/lib/ghostnic.h"
#include "../../user/lib/log.h"
#include "../../vm-migrate/rate/rate.h"
#include "../../vm-migrate/vmm/serve.h"

#define PATIENCE_MS 30000
#define PAGES_PER_S 2000.0
#define SET_PAGES   1024.0

static char path[64];

static void machine(enum vm_track track)
{
	struct serve_conf c = { .control = path, .console = "none" };
	char why[256];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	log_set_level(LOG_LVL_ERROR);
	strcpy(c.vm.accel, "process");
	c.vm.memory = 32 << 20;
	c.vm.vcpus = 1;
	c.vm.track = track;
	c.vm.console_fd = -1;
	if (workload_parse("rate=2000,pattern=sequential,set=4M,fill=8M", &c.vm.work, why,
			   sizeof(why)))
		_exit(2);
	_exit(serve_run(&c, why, sizeof(why)) == SERVE_QUIT ? 0 : 1);
}

/* One order; does the answer say so? */
static bool order(const char *request, const char *has)
{
	char *answer;
	bool yes;

	if (ghostnic_request(path, request, PATIENCE_MS, &answer))
		return false;
	yes = strstr(answer, has) != NULL;
	free(answer);
	return yes;
}

static pid_t start(enum vm_track track)
{
	static unsigned int n;
	pid_t pid;

	snprintf(path, sizeof(path), "/tmp/test_rating.%d.%u", getpid(), n++);
	pid = fork();
	if (!pid)
		machine(track);
	for (int ms = 0; !order("{\"cmd\":\"status\"}", "running"); ms += 10) {
		assert_in_range(ms, 0, PATIENCE_MS);
		poll(NULL, 0, 10);
	}
	return pid;
}

static void end(pid_t pid)
{
	int status;

	assert_true(order("{\"cmd\":\"quit\"}", "true"));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void between(double v, double lo, double hi)
{
	if (v < lo || v > hi)
		print_error("%f is not within %f and %f\n", v, lo, hi);
	assert_true(v >= lo && v <= hi);
}

static void measures(enum vm_track track, const char *method)
{
	struct rate_report *r = calloc(1, sizeof(*r));
	volatile sig_atomic_t cancel = 0;
	pid_t pid = start(track);
	char why[256] = "";

	assert_int_equal(rate_control(path, 0.1, 12, &cancel, NULL, r, why, sizeof(why)),
			 0);
	assert_int_equal(r->n, 12);
	assert_non_null(strstr(r->method, method));
	/* The pages, and with each interval a few of the table that the guest keeps. The
	 * guest may be slower than it was told on a busy machine, not faster. */
	between(rate_mean(r, false) / 4096, PAGES_PER_S / 10, PAGES_PER_S * 1.5);
	between(rate_within(r, 0.1) / 4096, PAGES_PER_S / 100, PAGES_PER_S * 0.15 + 16);
	between(r->interval[11].distinct / 4096, 100, SET_PAGES + 64);
	between(rate_within(r, 1) / 4096, 100, SET_PAGES + 64);
	between(r->ram_bytes / 4096, 2048, 2048 + 1200);
	assert_false(r->by_source);

	/* Nothing is left on, and a migration finds it free. */
	assert_true(order("{\"cmd\":\"rate-take\"}", "nothing is measured"));
	assert_true(order("{\"cmd\":\"rate-stop\"}", "nothing is measured"));
	assert_true(order("{\"cmd\":\"rate-start\"}", "true"));
	assert_true(order("{\"cmd\":\"rate-start\"}", "already"));
	assert_true(order("{\"cmd\":\"rate-take\"}", "dirty_bytes"));
	assert_true(order("{\"cmd\":\"status\"}", "running"));
	end(pid); /* while it is measured */
	free(r);
}

static void test_pagemap(void **state)
{
	measures(VM_TRACK_PAGEMAP, "pagemap");
}

static void test_self(void **state)
{
	measures(VM_TRACK_SELF, "");
}

static void test_absent(void **state)
{
	struct rate_report *r = calloc(1, sizeof(*r));
	char why[256];

	assert_int_equal(
		rate_control("/nowhere", 0.1, 1, NULL, NULL, r, why, sizeof(why)),
		-ENOENT);
	assert_non_null(strstr(why, "no VM answers"));
	free(r);
}

/* What a VM might say. */
static void test_foreign(void **state)
{
	static const char *const bad[] = {
		"{}",
		"{\"seconds\":0,\"dirty_bytes\":1,\"cpu_bytes\":1,\"device_bytes\":0,"
		"\"distinct_bytes\":1,\"ram_bytes\":1,\"method\":\"x\"}",
		"{\"seconds\":1,\"dirty_bytes\":-1,\"cpu_bytes\":1,\"device_bytes\":0,"
		"\"distinct_bytes\":1,\"ram_bytes\":1,\"method\":\"x\"}",
		"{\"seconds\":1,\"dirty_bytes\":\"1\",\"cpu_bytes\":1,\"device_bytes\":0,"
		"\"distinct_bytes\":1,\"ram_bytes\":1,\"method\":\"x\"}",
		"{\"seconds\":1,\"dirty_bytes\":1,\"cpu_bytes\":1,\"device_bytes\":0,"
		"\"distinct_bytes\":1,\"ram_bytes\":1}",
	};
	struct rate_report *r = calloc(1, sizeof(*r));
	json_t *o;

	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		o = json_loads(bad[i], 0, NULL);
		assert_non_null(o);
		assert_int_equal(rate_interval_parse(o, r), -EPROTO);
		json_decref(o);
	}
	assert_int_equal(r->n, 0);
	o = json_loads("[{\"seconds\":1,\"bytes\":1},{\"seconds\":1,\"bytes\":2}]", 0,
		       NULL);
	assert_int_equal(rate_points_parse(o, r), -EPROTO); /* not ascending */
	json_decref(o);
	o = json_array();
	for (int i = 0; i < RATE_LEVELS + 2; i++)
		json_array_append_new(
			o, json_pack("{s:i, s:i}", "seconds", i + 1, "bytes", i));
	assert_int_equal(rate_points_parse(o, r), -EPROTO); /* too many */
	json_decref(o);
	assert_int_equal(rate_points_parse(NULL, r), -EPROTO);
	free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_absent),
		cmocka_unit_test(test_foreign),
		cmocka_unit_test(test_self),
		cmocka_unit_test(test_pagemap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
