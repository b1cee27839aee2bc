// SPDX-License-Identifier: BSD-2-Clause
/*
 * What migrate.sh needs beside vm-migrate itself:
 *
 *	migrate fill FILE FROM TO	random bytes into [FROM, TO) of a RAM image
 *	migrate peek FILE AT		the 32-bit number there
 *	migrate raw BYTES		copy so many over a TCP connection on the
 *					loopback, memfd to memfd, with write() and read()
 *					of mappings
 *	migrate raw-io BYTES		the same through buffers of 256 KiB, with pread()
 *					and pwrite() of the memfds
 *	migrate qemu SRC DST URI DOWNTIME_MS CHANNELS
 *					QEMU's own migration between two monitors, without
 *					limit of bandwidth; CHANNELS above 1: multifd
 *	migrate cpu FILE PID PID CMD...	run CMD; CPU seconds that it and the two processes
 *					took meanwhile, without what the two take in half
 *					a second before
 *
 * raw, raw-io and qemu print a JSON object. Judges nothing.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../user/lib/clock.h"
#include "../../vm-migrate/qemu/qmp.h"

#define CHUNK	   (256u << 10) /* of one write() or read() */
#define LIMIT_NS   120000000000ULL
#define UNLIMITED  (1LL << 40)
#define CONNECT_MS 10000

static void die(const char *what, const char *why)
{
	fprintf(stderr, "migrate: %s: %s\n", what, why);
	exit(1);
}

static void check(const char *what, int failed)
{
	if (failed)
		die(what, strerror(errno));
}

/* ---- memory ---------------------------------------------------------------------------
 */

static void fill(uint8_t *at, uint64_t len)
{
	uint64_t x = 0x9e3779b97f4a7c15ULL;

	for (uint64_t i = 0; i + 8 <= len; i += 8) {
		x ^= x << 13; /* xorshift64: Marsaglia 2003 */
		x ^= x >> 7;
		x ^= x << 17;
		memcpy(at + i, &x, sizeof(x));
	}
}

static uint8_t *map(int fd, uint64_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	check("mmap", p == MAP_FAILED);
	return p;
}

static int memory(uint64_t len)
{
	int fd = memfd_create("bench", MFD_CLOEXEC);

	check("memfd", fd < 0 || ftruncate(fd, (off_t)len));
	return fd;
}

static int cmd_fill(const char *file, uint64_t from, uint64_t to)
{
	int fd = open(file, O_RDWR | O_CLOEXEC);

	check(file, fd < 0);
	fill(map(fd, to) + from, to - from);
	return 0;
}

static int cmd_peek(const char *file, uint64_t at)
{
	int fd = open(file, O_RDONLY | O_CLOEXEC);
	uint32_t v = 0;

	check(file, fd < 0 || pread(fd, &v, sizeof(v), (off_t)at) != sizeof(v));
	printf("%u\n", v);
	return 0;
}

/* ---- raw copy
 * --------------------------------------------------------------------------- */

static uint8_t chunk[CHUNK];

static uint64_t at_most(uint64_t left)
{
	return left < CHUNK ? left : CHUNK;
}

/* @io: through a buffer, else into the mapping */
static void receive(int listener, uint64_t len, bool io)
{
	int memfd = memory(len), fd = accept(listener, NULL, NULL);
	uint8_t *to = io ? NULL : map(memfd, len);

	check("accept", fd < 0);
	for (uint64_t at = 0; at < len;) {
		ssize_t n = read(fd, io ? chunk : to + at, at_most(len - at));

		check("read", n <= 0);
		check("pwrite", io && pwrite(memfd, chunk, (size_t)n, (off_t)at) != n);
		at += (uint64_t)n;
	}
	check("answer", write(fd, "k", 1) != 1);
	_exit(0);
}

static void send_all(int fd, int memfd, const uint8_t *from, uint64_t len, bool io)
{
	for (uint64_t at = 0; at < len;) {
		uint64_t want = at_most(len - at), done = 0;

		check("pread",
		      io && pread(memfd, chunk, want, (off_t)at) != (ssize_t)want);
		while (done < want) {
			ssize_t n =
				write(fd, (io ? chunk : from + at) + done, want - done);

			check("write", n <= 0);
			done += (uint64_t)n;
		}
		at += want;
	}
}

static double cpu_s(int who)
{
	struct rusage u;

	check("getrusage", getrusage(who, &u));
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static int cmd_raw(uint64_t len, bool io)
{
	struct sockaddr_in sin = { .sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(sin);
	int memfd = memory(len);
	uint8_t *from = map(memfd, len);
	int listener = socket(AF_INET, SOCK_STREAM, 0), fd, status;
	uint64_t then, took;
	double cpu;
	pid_t pid;
	char c;

	fill(from, len);
	check("listen", bind(listener, (struct sockaddr *)&sin, size) ||
				listen(listener, 1) ||
				getsockname(listener, (struct sockaddr *)&sin, &size));
	pid = fork();
	if (!pid)
		receive(listener, len, io);
	cpu = cpu_s(RUSAGE_SELF);
	then = clock_ns();
	fd = socket(AF_INET, SOCK_STREAM, 0);
	check("connect", connect(fd, (struct sockaddr *)&sin, size));
	send_all(fd, memfd, from, len, io);
	check("answer", read(fd, &c, 1) != 1);
	took = clock_ns() - then;
	check("wait", waitpid(pid, &status, 0) != pid || status);
	cpu = cpu_s(RUSAGE_SELF) - cpu + cpu_s(RUSAGE_CHILDREN);
	printf("{\"total_s\":%.6f,\"bytes\":%llu,\"cpu_s\":%.6f}\n", (double)took / 1e9,
	       (unsigned long long)len, cpu);
	return 0;
}

/* ---- QEMU
 * ------------------------------------------------------------------------------- */

static uint64_t stopped_us, resumed_us;

static void on_event(void *arg, const char *name, const json_t *data, uint64_t us)
{
	uint64_t *when = arg;

	(void)data;
	if (!strcmp(name, arg == &stopped_us ? "STOP" : "RESUME"))
		*when = us;
}

static struct qmp *dial(const char *path, const char *name, uint64_t *event)
{
	struct qmp *q;
	char why[512];

	if (qmp_connect(path, name, CONNECT_MS, &q, why, sizeof(why)))
		die("qemu", why);
	qmp_on_event(q, on_event, event);
	return q;
}

static json_t *ask(struct qmp *q, const char *cmd, json_t *args)
{
	json_t *ret;

	if (qmp_call(q, cmd, args, &ret))
		die("qemu", qmp_error(q));
	return ret;
}

static void order(struct qmp *q, const char *cmd, json_t *args)
{
	json_decref(ask(q, cmd, args));
}

static void set_up(struct qmp *q, unsigned int downtime_ms, unsigned int channels)
{
	order(q, "migrate-set-capabilities",
	      json_pack("{s:[{s:s, s:b}]}", "capabilities", "capability", "multifd",
			"state", channels > 1));
	order(q, "migrate-set-parameters",
	      json_pack("{s:I, s:i, s:i}", "max-bandwidth", (json_int_t)UNLIMITED,
			"downtime-limit", (int)downtime_ms, "multifd-channels",
			(int)channels));
}

static void pump(struct qmp *q, int ms)
{
	if (qmp_pump(q, ms) < 0)
		die("qemu", qmp_error(q));
}

static int cmd_qemu(const char *const *path, const char *uri, unsigned int downtime_ms,
		    unsigned int channels)
{
	struct qmp *src = dial(path[0], "source", &stopped_us);
	struct qmp *dst = dial(path[1], "destination", &resumed_us);
	uint64_t end = clock_ns() + LIMIT_NS;
	const json_t *ram;
	json_t *a;

	set_up(src, downtime_ms, channels);
	set_up(dst, downtime_ms, channels);
	order(dst, "migrate-incoming", json_pack("{s:s}", "uri", uri));
	order(src, "migrate", json_pack("{s:s}", "uri", uri));
	for (;;) {
		const char *s;

		a = ask(src, "query-migrate", NULL);
		s = json_string_value(json_object_get(a, "status"));
		if (s && !strcmp(s, "completed"))
			break;
		if (!s || !strcmp(s, "failed") || clock_ns() > end)
			die("qemu", s ? s : "no status");
		json_decref(a);
		pump(src, 20);
	}
	while (!resumed_us) {
		if (clock_ns() > end)
			die("qemu", "the destination does not run");
		pump(dst, 100);
	}
	ram = json_object_get(a, "ram");
	printf("{\"total_s\":%.3f,\"downtime_ms\":%.3f,\"bytes\":%lld,\"rounds\":%lld}\n",
	       json_number_value(json_object_get(a, "total-time")) / 1e3,
	       (double)(resumed_us - stopped_us) / 1e3,
	       (long long)json_integer_value(json_object_get(ram, "transferred")),
	       (long long)json_integer_value(json_object_get(ram, "dirty-sync-count")));
	json_decref(a);
	qmp_close(src);
	qmp_close(dst);
	return 0;
}

/* ---- CPU time
 * --------------------------------------------------------------------------- */

#define SAMPLE_US 2000 /* one that ends itself is gone at once, so look often */
#define BASE_US	  500000

/* Nanoseconds that a process ran until now, threads that have ended included; @last if it
 * is gone. */
static uint64_t cpu_of(pid_t pid, uint64_t last)
{
	struct timespec ts;
	clockid_t clock;

	if (clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &ts))
		return last;
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static int cmd_cpu(const char *file, const pid_t *pid, char **cmd)
{
	uint64_t base[2], began[2], now[2] = { 0, 0 }, then, took;
	double load = 0, cpu;
	int status;
	pid_t child;
	FILE *out;

	for (int i = 0; i < 2; i++)
		base[i] = cpu_of(pid[i], 0);
	then = clock_ns();
	usleep(BASE_US); /* a window, not a condition */
	took = clock_ns() - then;
	for (int i = 0; i < 2; i++) {
		now[i] = began[i] = cpu_of(pid[i], 0);
		if (!began[i])
			die("cpu", "no such process");
		load += (double)(began[i] - base[i]) / (double)took;
	}
	then = clock_ns();
	child = fork();
	if (!child) {
		execvp(cmd[0], cmd);
		_exit(127);
	}
	check("fork", child < 0);
	do {
		usleep(SAMPLE_US);
		for (int i = 0; i < 2; i++)
			now[i] = cpu_of(pid[i], now[i]);
	} while (!waitpid(child, &status, WNOHANG));
	cpu = (double)(now[0] - began[0] + now[1] - began[1]) / 1e9 +
	      cpu_s(RUSAGE_CHILDREN) - load * (double)(clock_ns() - then) / 1e9;
	out = fopen(file, "w");
	check(file, !out || fprintf(out, "%.6f\n", cpu) < 0 || fclose(out));
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (!strcmp(what, "fill") && argc == 5)
		return cmd_fill(argv[2], strtoull(argv[3], NULL, 0),
				strtoull(argv[4], NULL, 0));
	if (!strcmp(what, "peek") && argc == 4)
		return cmd_peek(argv[2], strtoull(argv[3], NULL, 0));
	if (!strcmp(what, "raw") && argc == 3)
		return cmd_raw(strtoull(argv[2], NULL, 0), false);
	if (!strcmp(what, "raw-io") && argc == 3)
		return cmd_raw(strtoull(argv[2], NULL, 0), true);
	if (!strcmp(what, "qemu") && argc == 7) {
		const char *const path[2] = { argv[2], argv[3] };

		return cmd_qemu(path, argv[4], (unsigned int)atoi(argv[5]),
				(unsigned int)atoi(argv[6]));
	}
	if (!strcmp(what, "cpu") && argc > 5) {
		const pid_t pid[2] = { atoi(argv[3]), atoi(argv[4]) };

		return cmd_cpu(argv[2], pid, argv + 5);
	}
	fprintf(stderr, "usage: see the beginning of tests/bench/migrate.c\n");
	return 2;
}
