// SPDX-License-Identifier: BSD-2-Clause
/*
 * Crashes: at GN_CRASHES random points (500) the destination or the source is killed by
 * SIGKILL, or the connection is cut. Then the source runs on (unless it is the one that
 * was killed), a retry succeeds, no page differs, and nothing is left behind.
 *
 * Source and destination are processes forked from this one. What they have to say is in
 * a page of memory that all share; RAM contents are compared by their digest.
 */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "../../user/lib/clock.h"
#include "../../user/lib/log.h"
#include "machine.h"

#define CONFIG	   "{\"machine\":\"test\"}"
#define PATIENCE_S 60 /* for anything that has to happen */

enum { KILL_DESTINATION, KILL_SOURCE, CUT };

/* Shared by all processes */
struct board {
	atomic_bool listening, again; /* again: the source may retry */
	_Atomic int src_err, dst_err, src_state, src_fds[2], dst_fds[2];
	atomic_bool src_runs, src_done, dst_done, src_failed_once;
	atomic_uint dst_started, dst_kept; /* kept: RAM while it listens */
	_Atomic uint64_t src_digest, dst_digest;
	char why[200];
	char uri[CHAN_URI_MAX]; /* where the destination listens */
};

struct point {
	unsigned int kind;
	uint64_t seed;
	unsigned int after_us; /* kill */
	uint64_t after_bytes;  /* cut */
	char uri[CHAN_URI_MAX], far[CHAN_URI_MAX];
	struct board *b;
};

static void nap(unsigned int us)
{
	struct timespec ts = { .tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000L };

	nanosleep(&ts, NULL);
}

static bool await(atomic_bool *flag)
{
	uint64_t deadline = clock_ns() + PATIENCE_S * 1000000000ULL;

	while (!atomic_load(flag)) {
		if (clock_ns() > deadline)
			return false;
		nap(200);
	}
	return true;
}

static int open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

static uint64_t digest_of(const struct ram *ram)
{
	uint64_t sum = 0;

	for (uint64_t p = 0; p < ram->pages; p++) {
		const uint8_t *at = ram_at(ram, p);

		if (at)
			sum += digest_mix(p, digest_page(at));
	}
	return sum;
}

/* ---- processes --------------------------------------------------------------------- */

static void destination(const struct point *pt)
{
	struct incoming_conf ic = { .uri = pt->far[0]	  ? pt->far
					   : pt->seed % 2 ? "tcp:127.0.0.1:0"
							  : pt->uri };
	struct board *b = pt->b;
	struct incoming_status st;
	struct twin t;

	b->dst_fds[0] = open_fds();
	if (twin_start(&t, &ic)) {
		b->dst_err = -1;
		_exit(1);
	}
	snprintf(b->uri, sizeof(b->uri), "%s", incoming_uri(t.in));
	atomic_store(&b->listening, true);
	b->dst_err = twin_join(&t);
	incoming_status(t.in, &st);
	atomic_store(&b->dst_started, t.started);
	/* What failed before was given up whole. */
	b->dst_kept = t.prepared - t.abandoned;
	b->dst_digest = digest_of(&t.ram);
	twin_fini(&t);
	b->dst_fds[1] = open_fds();
	atomic_store(&b->dst_done, true);
	_exit(0);
}

static void source(const struct point *pt)
{
	struct machine_conf mc = {
		.block = { { 0, 60 + pt->seed % 100, 50 },
			   { 0x10000000, 100 + pt->seed % 300, 200 } },
		.nblocks = 2,
		.vcpus = 1,
		.devices = 1,
		.pace_us = 50,
		.seed = pt->seed,
	};
	struct precopy_conf pc = { .streams = 1 + pt->seed % 3,
				   .downtime_ms = 300,
				   .max_downtime_ms = 5000,
				   .on_stall = PRECOPY_RAISE };
	struct board *b = pt->b;
	struct precopy_status st;
	struct machine *m;
	int err = -1;

	b->src_fds[0] = open_fds();
	if (machine_start(&mc, &m))
		_exit(1);
	for (int tries = 0; tries < 5 && err; tries++) {
		struct precopy *p;

		pc.uri = pt->far[0] ? pt->uri : b->uri;
		if (precopy_create(&pc, &m->ram, m->dirty, CONFIG, &machine_ops, m, &p))
			_exit(1);
		err = precopy_run(p);
		precopy_status(p, &st);
		precopy_destroy(p);
		snprintf(b->why, sizeof(b->why), "%s", st.message);
		b->src_err = err;
		if (!err)
			break;
		b->src_runs = machine_runs(m) && !m->releases;
		atomic_store(&b->src_failed_once, true);
		/* Somebody has to be there again. */
		if (!b->src_runs || !await(&b->again))
			_exit(1);
	}
	b->src_digest = digest_of(&m->ram);
	machine_stop(m);
	b->src_fds[1] = open_fds();
	atomic_store(&b->src_done, true);
	_exit(0);
}

static pid_t spawn(void (*run)(const struct point *), const struct point *pt)
{
	pid_t parent = getpid(), pid = fork();

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		run(pt);
	}
	return pid;
}

/* Did the source say how its first attempt went? Not if it died, or stands still. */
static bool await_source(const struct board *b, pid_t pid)
{
	uint64_t deadline = clock_ns() + PATIENCE_S * 1000000000ULL;
	siginfo_t info = { 0 };

	while (!atomic_load(&b->src_failed_once) && !atomic_load(&b->src_done) &&
	       clock_ns() < deadline) {
		if (!waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) &&
		    info.si_pid)
			break;
		nap(200);
	}
	return atomic_load(&b->src_failed_once) || atomic_load(&b->src_done);
}

static void reap(pid_t pid)
{
	int status;

	kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
}

/* ---- a connection that is cut -------------------------------------------------------
 */

struct proxy {
	const struct point *pt;
	int listener;
	atomic_bool quit;
	_Atomic uint64_t left; /* bytes towards the destination before the cut */
	atomic_bool cut;
	pthread_t thread;
};

struct link {
	struct proxy *p;
	int near, far;
	bool near_open, far_open;
};

static int connect_unix(const char *uri)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", uri + 5);
	if (connect(fd, (struct sockaddr *)&sun, sizeof(sun))) {
		close(fd);
		return -1;
	}
	return fd;
}

static bool send_all(int fd, const char *buf, size_t n)
{
	while (n) {
		ssize_t w = send(fd, buf, n, MSG_NOSIGNAL);

		if (w <= 0)
			return false;
		buf += w;
		n -= (size_t)w;
	}
	return true;
}

/*
 * Forwards both ways. The cut ends what goes to the destination, as a network does whose
 * one direction failed; what the destination has said still arrives, in order.
 */
static void *link_main(void *arg)
{
	struct link *l = arg;
	char buf[16384];

	while (l->near_open || l->far_open) {
		struct pollfd f[2] = {
			{ .fd = l->near_open ? l->near : -1, .events = POLLIN },
			{ .fd = l->far_open ? l->far : -1, .events = POLLIN }
		};

		if (poll(f, 2, 100) < 0 || atomic_load(&l->p->quit))
			break;
		if (atomic_load(&l->p->cut) && l->near_open) {
			shutdown(l->far, SHUT_WR);
			l->near_open = false;
		}
		if (f[0].revents && l->near_open) {
			ssize_t n = recv(l->near, buf, sizeof(buf), 0);
			uint64_t left = atomic_load(&l->p->left);

			if (n > 0 && (uint64_t)n > left) {
				n = (ssize_t)left;
				atomic_store(&l->p->cut, true);
			}
			if (n > 0)
				atomic_fetch_sub(&l->p->left, (uint64_t)n);
			if (n <= 0 || !send_all(l->far, buf, (size_t)n)) {
				shutdown(l->far, SHUT_WR);
				l->near_open = false;
			}
		}
		if (f[1].revents) {
			ssize_t n = recv(l->far, buf, sizeof(buf), 0);

			if (n <= 0 || !send_all(l->near, buf, (size_t)n)) {
				l->far_open = l->near_open = false;
				break;
			}
		}
	}
	close(l->near);
	close(l->far);
	free(l);
	return NULL;
}

static void *proxy_main(void *arg)
{
	struct proxy *p = arg;
	pthread_t thread[64];
	unsigned int n = 0;

	while (!atomic_load(&p->quit) && n < 64) {
		struct pollfd f = { .fd = p->listener, .events = POLLIN };
		struct link *l;
		int near;

		if (poll(&f, 1, 20) <= 0)
			continue;
		near = accept(p->listener, NULL, NULL);
		l = calloc(1, sizeof(*l));
		*l = (struct link){ .p = p,
				    .near = near,
				    .far = connect_unix(p->pt->far),
				    .near_open = true,
				    .far_open = true };
		if (l->far < 0 || pthread_create(&thread[n], NULL, link_main, l)) {
			close(near);
			free(l);
		} else {
			n++;
		}
	}
	while (n)
		pthread_join(thread[--n], NULL);
	close(p->listener);
	return NULL;
}

/* From here on connections wait; proxy_start() serves them. */
static bool proxy_listen(struct proxy *p, const struct point *pt)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };

	memset(p, 0, sizeof(*p));
	p->pt = pt;
	p->left = pt->after_bytes;
	p->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", pt->uri + 5);
	return !bind(p->listener, (struct sockaddr *)&sun, sizeof(sun)) &&
	       !listen(p->listener, 16);
}

static bool proxy_start(struct proxy *p)
{
	return !pthread_create(&p->thread, NULL, proxy_main, p);
}

/* ---- one point ----------------------------------------------------------------------
 */

struct sum {
	unsigned int points, failed,
		first_go; /* first_go: it was done before the crash */
};

static bool complain(const struct point *pt, const char *what)
{
	static const char *const kinds[] = { "destination killed", "source killed",
					     "cut" };

	print_message("seed %llu, %s (%u us, %llu bytes): %s; source: %d %s\n",
		      (unsigned long long)pt->seed, kinds[pt->kind], pt->after_us,
		      (unsigned long long)pt->after_bytes, what, pt->b->src_err,
		      pt->b->why);
	return false;
}

/* Both have ended well: is there one machine, and is it whole? */
static bool check_end(const struct point *pt)
{
	struct board *b = pt->b;

	if (!await(&b->src_done))
		return complain(pt, "the source did not finish");
	if (!await(&b->dst_done))
		return complain(pt, "the destination did not finish");
	if (b->src_err || b->dst_err || b->dst_started != 1 || b->dst_kept != 1)
		return complain(pt, "not exactly one machine");
	if (b->src_digest != b->dst_digest)
		return complain(pt, "RAM differs");
	if (b->src_fds[0] != b->src_fds[1] || b->dst_fds[0] != b->dst_fds[1])
		return complain(pt, "descriptors are left");
	return true;
}

static bool kill_destination(const struct point *pt, struct sum *sum)
{
	struct board *b = pt->b;
	pid_t dst = spawn(destination, pt), src;
	bool ok = true;

	if (!await(&b->listening)) {
		reap(dst);
		return complain(pt, "nobody listens");
	}
	src = spawn(source, pt);
	nap(pt->after_us);
	reap(dst);
	/* A machine that was handed over has died with its process. */
	if (!await_source(b, src)) {
		ok = complain(pt, "the source ended, or stands still");
	} else if (atomic_load(&b->src_failed_once)) {
		sum->failed++;
		if (!b->src_runs)
			ok = complain(pt, "the source does not run");
		b->dst_started = 0;
		b->dst_done = b->listening = false;
		dst = spawn(destination, pt);
		if (ok)
			ok = await(&b->listening) || complain(pt, "nobody listens again");
		atomic_store(&b->again, true);
		ok = ok && check_end(pt);
		reap(dst);
	} else {
		sum->first_go++;
	}
	reap(src);
	return ok;
}

static bool kill_source(const struct point *pt, struct sum *sum)
{
	struct board *b = pt->b;
	pid_t dst = spawn(destination, pt), src;
	uint64_t deadline;
	bool ok = await(&b->listening);

	if (!ok) {
		reap(dst);
		return complain(pt, "nobody listens");
	}
	src = spawn(source, pt);
	nap(pt->after_us);
	reap(src);
	/* Either it had been handed over and runs, or the next one gets in. */
	deadline = clock_ns() + 30000000;
	while (!atomic_load(&b->dst_done) && clock_ns() < deadline)
		nap(200);
	if (atomic_load(&b->dst_done)) {
		sum->first_go++;
		ok = (!b->dst_err && b->dst_started == 1 && b->dst_kept == 1) ||
		     complain(pt, "the destination ended badly");
	} else {
		sum->failed++;
		b->src_done = b->src_failed_once = false;
		atomic_store(&b->again, true);
		src = spawn(source, pt);
		ok = check_end(pt);
		reap(src);
	}
	reap(dst);
	return ok;
}

static bool cut(struct point *pt, struct sum *sum)
{
	struct board *b = pt->b;
	struct proxy proxy;
	pid_t dst, src;
	bool ok;

	test_uri(true, pt->far);
	dst = spawn(destination, pt);
	ok = await(&b->listening) && proxy_listen(&proxy, pt);
	/*
	 * Forked before the proxy's thread is there: a lock of the sanitizer's that a thread
	 * holds at the fork stays locked in the child for ever.
	 */
	src = ok ? spawn(source, pt) : -1;
	if (ok && proxy_start(&proxy)) {
		if (!await_source(b, src))
			ok = complain(pt, "the source ended, or stands still");
		sum->failed += b->src_failed_once;
		sum->first_go += !b->src_failed_once;
		if (b->src_failed_once && !b->src_runs)
			ok = complain(pt, "the source does not run");
		/* The line is whole again. */
		atomic_store(&proxy.left, UINT64_MAX);
		atomic_store(&proxy.cut, false);
		atomic_store(&b->again, true);
		ok = ok && check_end(pt);
		atomic_store(&proxy.quit, true);
		pthread_join(proxy.thread, NULL);
	} else {
		ok = complain(pt, "no connection to cut");
	}
	unlink(pt->uri + 5);
	if (src > 0)
		reap(src);
	reap(dst);
	return ok;
}

static void run_kind(unsigned int kind, unsigned long n)
{
	struct board *b = mmap(NULL, sizeof(*b), PROT_READ | PROT_WRITE,
			       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t seed = 77 + kind;
	struct sum sum = { 0 };
	int fds = open_fds();

	assert_true(b != MAP_FAILED);
	for (unsigned long i = 0; i < n; i++) {
		struct point pt = { .kind = kind,
				    .seed = rnd(&seed) % 100000 + 1,
				    .b = b };
		bool ok;

		memset(b, 0, sizeof(*b));
		test_uri(true, pt.uri);
		pt.after_us =
			(unsigned int)(rnd(&seed) % (kind == KILL_SOURCE ? 6000 : 5000));
		pt.after_bytes = rnd(&seed) % 1100000;
		sum.points++;
		ok = kind == KILL_DESTINATION ? kill_destination(&pt, &sum)
		     : kind == KILL_SOURCE    ? kill_source(&pt, &sum)
					      : cut(&pt, &sum);
		/* Who was killed could not remove its socket. */
		unlink(pt.uri + 5);
		if (pt.far[0])
			unlink(pt.far + 5);
		assert_true(ok);
		assert_int_equal(open_fds(), fds);
	}
	print_message("%u points: %u in the middle, %u when it was done\n", sum.points,
		      sum.failed, sum.first_go);
	assert_true(n < 20 || sum.failed > n / 10);
	munmap(b, sizeof(*b));
}

static unsigned long points(void)
{
	const char *s = getenv("GN_CRASHES");

	return s && *s ? strtoul(s, NULL, 10) : 500;
}

static void test_kill_destination(void **state)
{
	run_kind(KILL_DESTINATION, points() * 2 / 5);
}

static void test_kill_source(void **state)
{
	run_kind(KILL_SOURCE, points() * 3 / 10);
}

static void test_cut(void **state)
{
	run_kind(CUT, points() * 3 / 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kill_destination),
		cmocka_unit_test(test_kill_source),
		cmocka_unit_test(test_cut),
	};

	log_set_level(LOG_LVL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
