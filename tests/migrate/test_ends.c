// SPDX-License-Identifier: BSD-2-Clause
/*
 * How a migration ends, other than at once and well: with TLS and with wrong keys; by a
 * cancel in each phase; in doubt, when the line breaks between the hand-over and its
 * answer. test_stall.c has what the user chose for a guest that is faster than the line.
 *
 * Two roles for tests/migrate/ends.sh, which uses vm-migrate itself:
 *
 *	test_ends creds DIR			credentials as creds.h says
 *	test_ends play URI ACT [DIR MODE]	a destination as play.h says; ACT by number
 */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "../../user/lib/clock.h"
#include "../../user/lib/log.h"
#include "../../user/lib/tls.h"
#include "creds.h"
#include "play.h"
#include "source.h"

#define PATIENCE_S 60

/* ---- TLS --------------------------------------------------------------------------- */

static void tls_whole(enum chan_tls_mode mode, const char *name, unsigned int streams)
{
	struct incoming_conf ic = { .uri = "tcp:127.0.0.1:0" };
	struct precopy_conf pc = precopy_usual;
	struct source s;
	struct twin t;
	char dir[100];

	creds_tls(&pc.tls, dir, mode, name);
	ic.tls = pc.tls;
	pc.streams = streams;
	assert_int_equal(twin_start(&t, &ic), 0);
	source_start(&s, &machine_small);
	source_arrives(&s, &t, &pc);
	assert_int_equal(s.st.audit_bad, 0);
	machine_stop(s.m);
	twin_fini(&t);
}

static void test_tls_whole(void **state)
{
	tls_whole(CHAN_TLS_PSK, "psk", 1);
	tls_whole(CHAN_TLS_PSK, "psk", 3);
	tls_whole(CHAN_TLS_X509, "good", 1);
	tls_whole(CHAN_TLS_X509, "good", 3);
}

/* Refused, says @says; the guest runs on, and the right credentials get in after that. */
static void tls_refused(enum chan_tls_mode mode, const char *theirs, const char *ours,
			const char *says)
{
	struct incoming_conf ic = { .uri = "tcp:127.0.0.1:0" };
	struct precopy_conf pc = precopy_usual;
	char dir[100], other[100];
	struct source s;
	struct twin t;
	int err;

	creds_tls(&ic.tls, dir, mode, theirs);
	creds_tls(&pc.tls, other, mode, ours);
	assert_int_equal(twin_start(&t, &ic), 0);
	source_start(&s, &machine_small);
	err = source_send(&s, &pc, incoming_uri(t.in));
	assert_true(err < 0);
	assert_int_equal(s.st.phase, PRECOPY_FAILED);
	if (!strstr(s.st.message, says))
		fail_msg("%s, %s: \"%s\", not: %s", theirs, ours, s.st.message, says);
	assert_int_equal(s.m->pauses, 0);
	source_runs_on(&s);
	assert_int_equal(t.prepared, 0);
	/* What is expired there stays so. */
	if (strcmp(theirs, "expired") != 0) {
		pc.tls = ic.tls;
		source_arrives(&s, &t, &pc);
	}
	machine_stop(s.m);
	twin_fini(&t);
}

static void test_tls_refused(void **state)
{
	tls_refused(CHAN_TLS_PSK, "psk", "psk2", "check the credentials");
	tls_refused(CHAN_TLS_X509, "good", "other", "certificate is refused");
	tls_refused(CHAN_TLS_X509, "expired", "good", "expired");
	tls_refused(CHAN_TLS_X509, "good", "expired", "check the credentials");
	tls_refused(CHAN_TLS_X509, "good", "none", "ca-cert.pem");
}

/* ---- cancel ------------------------------------------------------------------------ */

/* Where the cancel comes from */
enum at {
	AT_IDLE,
	AT_CONNECT,
	AT_ROUNDS,
	AT_PAUSE,
	AT_DRAIN,
	AT_SAVE,
	AT_VERIFYING,
	/* Too late: */
	AT_HANDOVER,
	AT_RELEASE,
};

static struct {
	struct source *s;
	enum at at;
	bool heard; /* precopy_cancel()'s */
} cancels;

static void cancel_at(enum at at)
{
	if (cancels.at == at)
		cancels.heard = precopy_cancel(cancels.s->p);
}

static int cancel_pause(void *vm)
{
	int err = machine_ops.pause(vm);

	cancel_at(AT_PAUSE);
	return err;
}

static int cancel_drain(void *vm)
{
	int err = machine_ops.drain(vm);

	cancel_at(AT_DRAIN);
	return err;
}

static int cancel_save(void *vm, struct state_writer *w)
{
	int err = machine_ops.save(vm, w);

	cancel_at(AT_SAVE);
	return err;
}

static void cancel_release(void *vm)
{
	machine_ops.release(vm);
	cancel_at(AT_RELEASE);
}

static void cancel_handover(void *arg)
{
	cancel_at(AT_HANDOVER);
}

/* Waits for the phase, for those in which none of our functions is called. */
static void *cancel_main(void *arg)
{
	enum precopy_phase phase = cancels.at == AT_CONNECT  ? PRECOPY_CONNECT
				   : cancels.at == AT_ROUNDS ? PRECOPY_ROUNDS
							     : PRECOPY_VERIFYING;
	uint64_t deadline = clock_ns() + PATIENCE_S * 1000000000ULL;
	struct timespec ts = { .tv_nsec = 1000000 };
	struct precopy_status st;

	do {
		nanosleep(&ts, NULL);
		precopy_status(cancels.s->p, &st);
	} while (st.phase < phase && clock_ns() < deadline);
	cancels.heard = precopy_cancel(cancels.s->p);
	return NULL;
}

/* Return: of precopy_run(), with @play or else @t as the destination */
static int cancelled_run(struct source *s, enum at at, struct play *play, struct twin *t)
{
	struct precopy_vm_ops ops = machine_ops;
	struct precopy_conf pc = precopy_usual;
	bool waits = at == AT_CONNECT || at == AT_ROUNDS || at == AT_VERIFYING;
	pthread_t thread;
	int err;

	ops.pause = cancel_pause;
	ops.drain = cancel_drain;
	ops.save = cancel_save;
	ops.release = cancel_release;
	if (at == AT_ROUNDS)
		pc.bandwidth = 500000; /* eight seconds */
	cancels.s = s;
	cancels.at = at;
	source_make(s, &pc, play ? play_uri(play) : incoming_uri(t->in), &ops, s->m);
	cancel_at(AT_IDLE);
	if (waits)
		assert_int_equal(pthread_create(&thread, NULL, cancel_main, NULL), 0);
	err = precopy_run(s->p);
	if (waits)
		pthread_join(thread, NULL);
	precopy_status(s->p, &s->st);
	precopy_destroy(s->p);
	return err;
}

static void cancelled_in(enum at at, unsigned int pauses)
{
	struct incoming_conf ic = { .uri = "tcp:127.0.0.1:0" };
	struct play play = { .act = at == AT_CONNECT ? PLAY_NO_READY : PLAY_NO_VERIFIED };
	bool plays = at == AT_CONNECT || at == AT_VERIFYING;
	uint64_t began = clock_ns();
	struct source s;
	struct twin t;
	int err;

	assert_int_equal(twin_start(&t, &ic), 0);
	if (plays)
		assert_int_equal(play_start(&play, "tcp:127.0.0.1:0", NULL), 0);
	source_start(&s, &machine_small);
	err = cancelled_run(&s, at, plays ? &play : NULL, &t);
	if (err != -ECANCELED)
		fail_msg("%d: %d %s", at, err, s.st.message);
	assert_true(cancels.heard);
	/* Without waiting for anything that takes its time */
	assert_true(clock_ns() - began < 5000000000ULL);
	assert_int_equal(s.st.phase, PRECOPY_CANCELLED);
	assert_int_equal(s.m->pauses, pauses);
	source_runs_on(&s);
	if (plays)
		play_wait(&play);
	/* And the next one goes through. */
	assert_int_equal(t.started, 0);
	source_arrives(&s, &t, &precopy_usual);
	assert_int_equal(t.abandoned, t.prepared - 1);
	machine_stop(s.m);
	twin_fini(&t);
}

static void test_cancel(void **state)
{
	cancelled_in(AT_IDLE, 0);
	cancelled_in(AT_CONNECT, 0);
	cancelled_in(AT_ROUNDS, 0);
	cancelled_in(AT_PAUSE, 1);
	cancelled_in(AT_DRAIN, 1);
	cancelled_in(AT_SAVE, 1);
	cancelled_in(AT_VERIFYING, 1);
}

/* Our connection to @port is not answered, as the kernel's table says. */
static bool unanswered(unsigned int port)
{
	FILE *f = fopen("/proc/net/tcp", "r");
	unsigned int to, state;
	bool is = false;
	char line[256];

	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		is |= sscanf(line, " %*u: %*x:%*x %*x:%x %x", &to, &state) == 2 &&
		      to == port && state == 2; /* TCP_SYN_SENT */
	fclose(f);
	return is;
}

static struct {
	int listener;
	bool answers; /* the kernel does, and nobody else */
	unsigned int port;
} deaf;

static bool connects(void)
{
	struct pollfd p = { .fd = deaf.listener, .events = POLLIN };

	return deaf.answers ? poll(&p, 1, 0) > 0 : unanswered(deaf.port);
}

static void *cancel_connecting(void *arg)
{
	uint64_t deadline = clock_ns() + PATIENCE_S * 1000000000ULL;
	struct source *s = arg;

	while (!connects() && clock_ns() < deadline)
		poll(NULL, 0, 1);
	assert_true(precopy_cancel(s->p));
	return NULL;
}

/* Nobody accepts; without @tls its queue is full, too. The user need not wait for that. */
static void cancelled_connecting(const char *tls)
{
	struct sockaddr_in sin = { .sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int l = socket(AF_INET, SOCK_STREAM, 0), first = socket(AF_INET, SOCK_STREAM, 0);
	struct precopy_conf pc = precopy_usual;
	socklen_t len = sizeof(sin);
	char uri[CHAN_URI_MAX], dir[100];
	uint64_t began = clock_ns();
	pthread_t thread;
	struct source s;

	assert_int_equal(bind(l, (struct sockaddr *)&sin, len), 0);
	assert_int_equal(listen(l, 0), 0);
	assert_int_equal(getsockname(l, (struct sockaddr *)&sin, &len), 0);
	if (tls)
		creds_tls(&pc.tls, dir, CHAN_TLS_PSK, tls);
	else
		assert_int_equal(connect(first, (struct sockaddr *)&sin, len), 0);
	deaf.listener = l;
	deaf.answers = tls;
	deaf.port = ntohs(sin.sin_port);
	snprintf(uri, sizeof(uri), "tcp:127.0.0.1:%u", deaf.port);
	pc.connect_timeout_ms = PATIENCE_S * 1000;
	source_start(&s, &machine_small);
	source_make(&s, &pc, uri, &machine_ops, s.m);
	assert_int_equal(pthread_create(&thread, NULL, cancel_connecting, &s), 0);
	assert_int_equal(precopy_run(s.p), -ECANCELED);
	pthread_join(thread, NULL);
	precopy_status(s.p, &s.st);
	precopy_destroy(s.p);
	assert_true(clock_ns() - began < PATIENCE_S * 500000000ULL);
	assert_int_equal(s.st.phase, PRECOPY_CANCELLED);
	assert_int_equal(s.m->pauses, 0);
	source_runs_on(&s);
	machine_stop(s.m);
	close(first);
	close(l);
}

static void test_cancel_connecting(void **state)
{
	cancelled_connecting(NULL);
	cancelled_connecting("psk");
}

/* After HANDOVER the machine is there, whatever the user wants, who is told so. */
static void test_cancel_late(void **state)
{
	static const enum at late[] = { AT_HANDOVER, AT_RELEASE };

	for (unsigned int i = 0; i < 2; i++) {
		struct play play = { .act = PLAY_RUNNING,
				     .at_handover = cancel_handover };
		struct source s;

		assert_int_equal(play_start(&play, "tcp:127.0.0.1:0", NULL), 0);
		source_start(&s, &machine_small);
		cancels.heard = true;
		assert_int_equal(cancelled_run(&s, late[i], &play, NULL), 0);
		assert_false(cancels.heard);
		assert_int_equal(s.st.phase, PRECOPY_DONE);
		assert_int_equal(s.m->releases, 1);
		assert_int_equal(s.m->resumes, 0);
		play_wait(&play);
		assert_true(play.handed_over);
		machine_stop(s.m);
	}
}

/* ---- between the hand-over and its answer ------------------------------------------ */

/* @tls: NULL: without. Return: of precopy_run(); the machine is stopped, s->st is there
 */
static int answered(enum play_act act, const char *tls, struct source *s)
{
	struct play play = { .act = act };
	struct precopy_conf pc = precopy_usual;
	char dir[100];
	int err;

	if (tls)
		creds_tls(&pc.tls, dir, strcmp(tls, "psk") ? CHAN_TLS_X509 : CHAN_TLS_PSK,
			  tls);
	assert_int_equal(play_start(&play, "tcp:127.0.0.1:0", tls ? &pc.tls : NULL), 0);
	source_start(s, &machine_small);
	err = source_send(s, &pc, play_uri(&play));
	play_stop(&play);
	assert_int_equal(play.handed_over, act != PLAY_WRONG_DIGEST);
	return err;
}

/* Nobody can know: paused, with all that is needed to go on. */
static void uncertain(enum play_act act, const char *tls)
{
	struct source s;
	uint64_t writes;

	assert_int_equal(answered(act, tls, &s), -EBUSY);
	assert_int_equal(s.st.phase, PRECOPY_UNCERTAIN);
	assert_int_equal(s.m->pauses, 1);
	assert_int_equal(s.m->resumes, 0);
	assert_int_equal(s.m->releases, 0);
	assert_non_null(strstr(s.st.message, "not known"));
	writes = machine_writes(s.m);
	/* The user has looked there: it does not run. */
	machine_ops.resume(s.m);
	assert_true(machine_runs(s.m));
	assert_true(machine_writes(s.m) > writes);
	machine_stop(s.m);
}

/* It is certain that it does not run there. */
static void certain(enum play_act act, const char *tls, int want, const char *says)
{
	struct source s;
	int err = answered(act, tls, &s);

	if (err != want || !strstr(s.st.message, says))
		fail_msg("act %d, %s: %d %s", act, tls ? tls : "no TLS", err,
			 s.st.message);
	assert_int_equal(s.st.phase,
			 want == -ECANCELED ? PRECOPY_CANCELLED : PRECOPY_FAILED);
	source_runs_on(&s);
	machine_stop(s.m);
}

static void test_uncertain(void **state)
{
	uint64_t began;

	uncertain(PLAY_TEAR, "psk");
	uncertain(PLAY_TEAR, "good");
	/* Silence is bounded, too. */
	began = clock_ns();
	uncertain(PLAY_SILENT, NULL);
	assert_true(clock_ns() - began >= CHAN_DEAD_MS * 900000ULL);
	assert_true(clock_ns() - began < 3 * CHAN_DEAD_MS * 1000000ULL);
}

static void *widen(void *arg)
{
	uint64_t deadline = clock_ns() + PATIENCE_S * 1000000000ULL;
	struct source *s = arg;
	struct precopy_status st;

	do {
		poll(NULL, 0, 1);
		precopy_status(s->p, &st);
	} while (!st.throttle && clock_ns() < deadline);
	precopy_set_bandwidth(s->p, 0);
	return NULL;
}

/* Whoever resumes it gets all of its vCPUs' time back. */
static void test_uncertain_throttled(void **state)
{
	struct machine_conf mc = machine_small;
	struct precopy_conf pc = precopy_usual;
	struct play play = { .act = PLAY_TEAR };
	pthread_t thread;
	struct source s;
	char dir[100];

	/* More than the line takes, until it is wider; enough to measure it by */
	mc.block[1].pages = 1600;
	mc.block[1].filled = 4000;
	mc.pace_us = 0;
	pc.bandwidth = 8 << 20;
	pc.downtime_ms = 400;
	pc.on_stall = PRECOPY_THROTTLE;
	creds_tls(&pc.tls, dir, CHAN_TLS_PSK, "psk");
	assert_int_equal(play_start(&play, "tcp:127.0.0.1:0", &pc.tls), 0);
	source_start(&s, &mc);
	source_make(&s, &pc, play_uri(&play), &machine_ops, s.m);
	assert_int_equal(pthread_create(&thread, NULL, widen, &s), 0);
	assert_int_equal(precopy_run(s.p), -EBUSY);
	pthread_join(thread, NULL);
	precopy_status(s.p, &s.st);
	precopy_destroy(s.p);
	play_stop(&play);
	assert_int_equal(s.st.phase, PRECOPY_UNCERTAIN);
	assert_true(s.st.throttle > 0);
	assert_int_equal(s.m->throttle, 0);
	machine_stop(s.m);
}

static void test_certain(void **state)
{
	static const char *const tls[] = { NULL, "psk", "good" };

	for (unsigned int i = 0; i < 3; i++) {
		certain(PLAY_CLOSE, tls[i], -ECONNRESET, "closed the connection");
		certain(PLAY_ERROR, tls[i], -EREMOTEIO, "as the test wants it");
		certain(PLAY_CANCEL, tls[i], -ECANCELED, "the destination cancelled");
		certain(PLAY_WRONG_DIGEST, tls[i], -EBADMSG, "another digest");
	}
	/* Without TLS an end by the peer's kernel says it, too. */
	certain(PLAY_TEAR, NULL, -ECONNRESET, "closed the connection");
}

/* ---- roles ---------------------------------------------------------------------------
 */

static int role_play(int argc, char **argv)
{
	struct play play = { 0 };
	struct chan_tls tls = { .mode = CHAN_TLS_OFF };

	if (argc > 5) {
		tls.dir = argv[4];
		tls.mode = strcmp(argv[5], "psk") ? CHAN_TLS_X509 : CHAN_TLS_PSK;
	}
	play.act = (enum play_act)strtol(argv[3], NULL, 10);
	if (play_start(&play, argv[2], &tls)) {
		fprintf(stderr, "%s\n", chan_error());
		return 1;
	}
	printf("%s\n", play_uri(&play));
	fflush(stdout);
	play_wait(&play);
	return play.err != 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tls_whole),
		cmocka_unit_test(test_tls_refused),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_cancel_late),
		cmocka_unit_test(test_uncertain),
		cmocka_unit_test(test_certain),
		cmocka_unit_test(test_cancel_connecting),
		cmocka_unit_test(test_uncertain_throttled),
	};

	log_set_level(LOG_LVL_ERROR);
	if (argc > 2 && !strcmp(argv[1], "creds"))
		return creds_make_in(argv[2]);
	if (argc > 3 && !strcmp(argv[1], "play"))
		return role_play(argc, argv);
	return cmocka_run_group_tests(tests, creds_make, creds_remove);
}
