// SPDX-License-Identifier: BSD-2-Clause
/* precopy and incoming together: a machine of threads, migrated over real sockets. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "../../user/lib/clock.h"
#include "../../user/lib/log.h"
#include "source.h"

/* One migration of a fresh machine that has to succeed. @compare: all of its RAM */
static void migrate_and(bool compare, const struct machine_conf *mc,
			const struct precopy_conf *pc, bool unix_socket,
			struct precopy_status *st)
{
	char uri[CHAN_URI_MAX];
	struct incoming_conf ic = { .uri = test_uri(unix_socket, uri) };
	struct precopy_conf conf = *pc;
	struct precopy *p;
	struct machine *m;
	struct twin t;
	int err;

	ic.tls = pc->tls;
	assert_int_equal(twin_start(&t, &ic), 0);
	assert_int_equal(machine_start(mc, &m), 0);
	conf.uri = incoming_uri(t.in);
	assert_int_equal(precopy_create(&conf, &m->ram, m->dirty, MACHINE_CONFIG,
					&machine_ops, m, &p),
			 0);
	err = precopy_run(p);
	precopy_status(p, st);
	if (err)
		print_message("%s\n", st->message);
	assert_int_equal(err, 0);
	assert_int_equal(twin_join(&t), 0);
	if (compare)
		assert_int_equal(machine_differs(m, &t), 0);
	assert_int_equal(st->phase, PRECOPY_DONE);
	assert_int_equal(t.started, 1);
	assert_int_equal(t.abandoned, 0);
	assert_true(t.loaded);
	assert_int_equal(t.writes, machine_writes(m));
	assert_int_equal(m->releases, 1);
	assert_int_equal(m->resumes, 0);
	precopy_destroy(p);
	twin_fini(&t);
	machine_stop(m);
}

static void migrate(const struct machine_conf *mc, const struct precopy_conf *pc,
		    bool unix_socket, struct precopy_status *st)
{
	migrate_and(true, mc, pc, unix_socket, st);
}

static void migrate_only(const struct machine_conf *mc, const struct precopy_conf *pc,
			 bool unix_socket, struct precopy_status *st)
{
	migrate_and(false, mc, pc, unix_socket, st);
}

static void test_tcp(void **state)
{
	struct precopy_status st;
	uint64_t us = 0;

	migrate(&machine_small, &precopy_usual, false, &st);
	assert_true(st.sent.pages >= 1000);
	assert_int_equal(st.audit_bad, 0);
	/* Its steps are all of the downtime, but for what is lost by rounding. */
	for (unsigned int i = 0; i < PRECOPY_STEPS; i++)
		us += st.step_us[i];
	assert_true(us > 0 && us <= st.downtime_us);
	assert_true(st.last_pages > 0);
}

static void test_unix(void **state)
{
	struct precopy_status st;

	migrate(&machine_small, &precopy_usual, true, &st);
}

static void test_streams(void **state)
{
	struct precopy_status st;
	struct precopy_conf conf = precopy_usual;

	for (conf.streams = 2; conf.streams <= WIRE_MAX_STREAMS; conf.streams += 7)
		migrate(&machine_small, &conf, conf.streams % 2, &st);
}

/* 64 GiB with little in it: holes cost no bytes, and are not filled on either side. */
static void test_sparse(void **state)
{
	struct machine_conf mc = machine_small;
	struct precopy_status st;
	uint64_t began = clock_ns();

	mc.block[1].pages = 64ULL << 18;
	mc.span = 5000;
	mc.vhost = false;
	migrate_only(&mc, &precopy_usual, false, &st);
	assert_true(st.sent.bytes < 100 << 20);
	assert_true(clock_ns() - began < 10000000000ULL);
}

static void test_zstd(void **state)
{
	struct precopy_conf conf = precopy_usual;
	struct precopy_status plain, packed;

	migrate(&machine_small, &precopy_usual, false, &plain);
	conf.zstd_level = 1;
	migrate(&machine_small, &conf, false, &packed);
	assert_true(packed.sent.bytes < plain.sent.bytes / 2);
}

/* A vCPU that writes one page: every harvest finds it once, and the look whether anybody wrote
 * after the last one, which finds it again, does not count. */
static void test_counted_once(void **state)
{
	struct machine_conf mc = machine_small;
	struct precopy_status st;
	struct machine *m;

	mc.cpu_log = MACHINE_SCAN;
	mc.vcpus = 1;
	/* No balloon: a page that goes and comes back while the first round is sent makes its
	 * neighbours count, too. */
	mc.devices = 0;
	mc.vhost = false;
	mc.span = 1;
	mc.pace_us = 0;
	if (machine_start(&mc, &m) == -EOPNOTSUPP)
		skip();
	machine_stop(m);
	migrate(&mc, &precopy_usual, true, &st);
	assert_in_range(st.dirty_by[DIRTY_BY_CPU], 1, st.round + 1);
}

/* Of the pages of the first block, all of which have been sent by now */
static int pause_and_mark(void *vm)
{
	struct machine *m = vm;
	int err = machine_ops.pause(vm);

	for (uint64_t p = 10; p < 14; p++)
		machine_mark(m, p, false);
	for (uint64_t p = 13; p < 20; p++) /* one of them by both */
		machine_mark(m, p, true);
	/* Another content: not these */
	for (uint64_t p = 20; p < 23; p++) {
		*(uint64_t *)(void *)ram_at(&m->ram, p) += 1;
		machine_mark(m, p, p % 2);
	}
	return err;
}

/* A page that is marked, and is what it was, counts for who marked it, and is not sent. */
static void test_false_dirty(void **state)
{
	struct precopy_vm_ops ops = machine_ops;
	struct machine_conf mc = machine_small;
	struct incoming_conf ic = { .uri = "tcp:127.0.0.1:0" };
	struct source s;
	struct twin t;

	mc.vcpus = mc.devices = 0;
	mc.vhost = false;
	ops.pause = pause_and_mark;
	assert_int_equal(twin_start(&t, &ic), 0);
	source_start(&s, &mc);
	for (uint64_t p = 10; p < 23; p++) /* none of them a hole */
		*(uint64_t *)(void *)ram_at(&s.m->ram, p) = p;
	source_make(&s, &precopy_usual, incoming_uri(t.in), &ops, s.m);
	assert_int_equal(source_run(&s), 0);
	assert_int_equal(twin_join(&t), 0);
	assert_int_equal(machine_differs(s.m, &t), 0);
	assert_int_equal(s.st.sent.false_dirty[DIRTY_BY_CPU], 4);
	assert_int_equal(s.st.sent.false_dirty[DIRTY_BY_DEVICE], 7);
	/* Those, the page that saving writes, and the three */
	assert_int_equal(s.st.last_pages, 10 + 1 + 3);
	assert_true(s.st.sent.same_pages >= 10);
	machine_stop(s.m);
	twin_fini(&t);
}

static int pipe_fd[2];

static void release_ram(void *vm)
{
	struct machine *m = vm;

	machine_ops.release(vm);
	m->ram.block[1].fd = pipe_fd[0]; /* which cannot be searched for data */
}

/* An audit that cannot be made after the hand-over: the machine is there all the same. */
static void test_no_audit(void **state)
{
	struct precopy_vm_ops ops = machine_ops;
	struct incoming_conf ic = { .uri = "tcp:127.0.0.1:0" };
	struct source s;
	struct twin t;
	int fd;

	ops.release = release_ram;
	assert_int_equal(pipe(pipe_fd), 0);
	assert_int_equal(twin_start(&t, &ic), 0);
	source_start(&s, &machine_small);
	fd = s.m->ram.block[1].fd;
	source_make(&s, &precopy_usual, incoming_uri(t.in), &ops, s.m);
	assert_int_equal(source_run(&s), 0);
	s.m->ram.block[1].fd = fd;
	assert_int_equal(s.st.phase, PRECOPY_DONE);
	assert_int_equal(s.st.err, 0);
	assert_int_equal(s.st.audit_bad, -1);
	assert_non_null(strstr(s.st.message, "not compared"));
	assert_int_equal(s.m->releases, 1);
	assert_int_equal(s.m->resumes, 0);
	assert_int_equal(twin_join(&t), 0);
	assert_int_equal(t.started, 1);
	assert_int_equal(machine_differs(s.m, &t), 0);
	machine_stop(s.m);
	twin_fini(&t);
	close(pipe_fd[0]);
	close(pipe_fd[1]);
}

/* A guest that writes more than the line takes: known within three rounds. */
static void test_hopeless(void **state)
{
	struct machine_conf mc = machine_small;
	struct incoming_conf ic = { .uri = "tcp:127.0.0.1:0" };
	struct precopy_conf conf = precopy_usual;
	struct precopy_status st;
	struct precopy *p;
	struct machine *m;
	struct twin t;

	mc.pace_us = 0;
	conf.bandwidth = 40 << 20;
	conf.downtime_ms = 20;
	conf.on_stall = PRECOPY_ABORT;
	assert_int_equal(twin_start(&t, &ic), 0);
	assert_int_equal(machine_start(&mc, &m), 0);
	conf.uri = incoming_uri(t.in);
	assert_int_equal(precopy_create(&conf, &m->ram, m->dirty, MACHINE_CONFIG,
					&machine_ops, m, &p),
			 0);
	assert_int_equal(precopy_run(p), -ETIME);
	precopy_status(p, &st);
	assert_true(st.round <= 3);
	assert_int_equal(st.phase, PRECOPY_FAILED);
	assert_true(machine_runs(m));
	assert_int_equal(m->pauses, 0);
	precopy_destroy(p);
	machine_stop(m);
	twin_fini(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tcp),	 cmocka_unit_test(test_unix),
		cmocka_unit_test(test_streams),	 cmocka_unit_test(test_sparse),
		cmocka_unit_test(test_zstd),	 cmocka_unit_test(test_counted_once),
		cmocka_unit_test(test_hopeless), cmocka_unit_test(test_false_dirty),
		cmocka_unit_test(test_no_audit),
	};

	log_set_level(LOG_LVL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
