// SPDX-License-Identifier: BSD-2-Clause
/*
 * What a running ghostnicd does in a given time, by its own counters.
 *
 *	gnstat --ctl SOCKET --size BYTES [COMMON] [--subject NAME]
 *	gnstat --ctl SOCKET --size BYTES --meter [--subject NAME]
 *	gnstat --ctl SOCKET --tracker INSTANCE [--seconds S]
 *
 * Asks for {"cmd":"stats"} before and after, so the daemon's packet path is the one
 * that ships: nothing is added to it for the benchmark. All traffic is the generator's,
 * so bytes are packets times their size.
 *
 * Prints one JSON line, see bench_print(), then what the kernel's rings lost; with
 * --meter a line on each SIGUSR1, see meter.h. With --tracker the DMA log of an instance
 * is on and off by turns of TURN_NS under traffic that runs already, and each pair of turns
 * gives a line: the packets a second with it over those without it.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <jansson.h>

#include "bench.h"
#include "meter.h"

#define ANSWER_MAX (1U << 20) /* bytes */
#define POLL_NS	   20000000   /* between two looks while waiting */
#define TURN_NS	   20000000   /* with the DMA log, or without it */
#define SETTLE_NS  2000000    /* after each change; not counted */

struct counters {
	uint64_t packets, supers, merged, agg_ns;
	uint64_t lost; /* kernel: ring full, no chunk, other reasons */
};

static int open_ctl(const char *path)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), err;

	if (fd < 0)
		return -errno;
	if (strlen(path) >= sizeof(sun.sun_path)) {
		close(fd);
		return -ENAMETOOLONG;
	}
	strcpy(sun.sun_path, path);
	if (connect(fd, (struct sockaddr *)&sun, sizeof(sun))) {
		err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

static uint64_t member(const json_t *group, const char *name)
{
	return (uint64_t)json_integer_value(json_object_get(group, name));
}

/* Sum over all queues of all interfaces. Return: 0, -EPROTO */
static int add_up(const json_t *answer, struct counters *c)
{
	const json_t *ifaces = json_object_get(answer, "interfaces"), *iface, *queue;
	size_t i, q;

	memset(c, 0, sizeof(*c));
	if (!json_array_size(ifaces))
		return -EPROTO;
	json_array_foreach(ifaces, i, iface)
	{
		const json_t *queues = json_object_get(iface, "queues");

		if (!json_array_size(queues))
			return -EPROTO;
		json_array_foreach(queues, q, queue)
		{
			const json_t *agg = json_object_get(queue, "agg");
			const json_t *kernel = json_object_get(queue, "kernel");

			if (!json_object_get(agg, "packets"))
				return -EPROTO;
			c->packets += member(agg, "packets");
			c->supers += member(agg, "supers");
			c->merged += member(agg, "merged");
			c->agg_ns += member(json_object_get(queue, "worker"), "agg_ns");
			/* For want of a chunk, too: rx_fill_ring_empty counts the
			 * same frames once more. */
			c->lost += member(kernel, "rx_dropped") +
				   member(kernel, "rx_ring_full");
		}
	}
	return 0;
}

/* Return: 0 and *@answer, the caller's; -errno */
static int request(int fd, const char *question, json_t **answer)
{
	static char buf[ANSWER_MAX];
	size_t have = 0, len = strlen(question);
	json_error_t jerr;

	if (write(fd, question, len) != (ssize_t)len)
		return -EPIPE;
	while (!have || buf[have - 1] != '\n') {
		ssize_t n = read(fd, buf + have, sizeof(buf) - have);

		if (n < 0)
			return -errno;
		if (!n)
			return -EPROTO;
		have += (size_t)n;
	}
	*answer = json_loadb(buf, have, 0, &jerr);
	return *answer ? 0 : -EPROTO;
}

static int ask(int fd, struct counters *c)
{
	json_t *answer;
	int err = request(fd, "{\"cmd\":\"stats\"}\n", &answer);

	if (err)
		return err;
	err = add_up(answer, c);
	json_decref(answer);
	return err;
}

static void nap(const struct bench_window *w)
{
	struct timespec ts = { .tv_nsec = POLL_NS };
	uint64_t now = bench_now();

	if (w->begun) {
		uint64_t end = w->begin + w->len_ns;

		if (end <= now)
			return;
		ts.tv_sec = (time_t)((end - now) / 1000000000);
		ts.tv_nsec = (long)((end - now) % 1000000000);
	}
	nanosleep(&ts, NULL);
}

static void difference(const struct counters *first, const struct counters *last,
		       struct bench_result *res)
{
	res->packets = last->packets - first->packets;
	res->frames = res->packets - (last->merged - first->merged) +
		      (last->supers - first->supers);
	res->agg_ns = last->agg_ns - first->agg_ns;
}

static int measure(int fd, struct bench_window *w, struct bench_result *res,
		   uint64_t *lost)
{
	struct counters first, last, now;
	enum bench_state st = BENCH_BEFORE;
	int err = ask(fd, &last);

	first = last;
	while (!err && st != BENCH_DONE && !bench_stop) {
		nap(w);
		err = ask(fd, &now);
		if (err)
			break;
		st = bench_window_state(w, (unsigned int)(now.packets - last.packets));
		if (st == BENCH_BEGIN)
			first = now;
		last = now;
	}
	if (err)
		return err;
	difference(&first, &last, res);
	*lost = last.lost - first.lost;
	return 0;
}

/* What came between two looks, seen by the counters once it is wanted: asking all the
 * time would be measured. */
static int meter(int fd, const char *subject, uint32_t size)
{
	struct counters first = { 0 }, last, now;
	struct timespec nap = { .tv_nsec = POLL_NS };
	struct meter m;
	int err = meter_init(&m, subject);

	if (!err)
		err = ask(fd, &first);
	last = first;
	while (!err && !bench_stop) {
		nanosleep(&nap, NULL);
		if (!meter_wanted())
			continue;
		err = ask(fd, &now);
		if (err)
			break;
		if (now.packets != last.packets) {
			last = now;
			meter_arrived(&m, bench_now());
			continue;
		}
		difference(&first, &last, &m.res);
		m.res.frame_bytes = m.res.packets * size;
		if (meter_idle(&m))
			first = last;
	}
	meter_fini(&m);
	return err;
}

/* Return: 0, -errno; what ghostnicd says against it goes to stderr */
static int set_log(int fd, const char *instance, bool on)
{
	struct timespec settle = { .tv_nsec = SETTLE_NS };
	char question[256];
	const char *why;
	json_t *answer;
	int err;

	snprintf(question, sizeof(question),
		 "{\"cmd\":\"dma-log-%s\",\"instance\":\"%s\"}\n", on ? "start" : "stop",
		 instance);
	err = request(fd, question, &answer);
	if (err)
		return err;
	why = json_string_value(json_object_get(answer, "error"));
	if (why)
		fprintf(stderr, "gnstat: %s\n", why);
	err = why ? -EPROTO : 0;
	json_decref(answer);
	nanosleep(&settle, NULL);
	return err;
}

/* What comes in TURN_NS. Return: 0 and *@pps, -errno */
static int turn(int fd, double *pps)
{
	struct timespec rest = { .tv_nsec = TURN_NS };
	struct counters first, last;
	uint64_t then;
	int err = ask(fd, &first);

	then = bench_now();
	nanosleep(&rest, NULL);
	if (!err)
		err = ask(fd, &last);
	if (!err)
		*pps = (double)(last.packets - first.packets) * 1e9 /
		       (double)(bench_now() - then);
	return err;
}

static int tracker(int fd, const char *instance, double seconds)
{
	uint64_t end = bench_now() + (uint64_t)(seconds * 1e9);
	unsigned int n = 0;
	bool on = false;
	int err = 0;

	while (!err && !bench_stop && bench_now() < end) {
		double pps[2];

		/* Off, on, on, off: each is first in every other pair. */
		err = turn(fd, &pps[on]);
		on = !on;
		if (!err)
			err = set_log(fd, instance, on);
		if (!err)
			err = turn(fd, &pps[on]);
		/* Without packets: the worker had to leave its CPU to others. */
		if (!err && pps[false] > 0 && pps[true] > 0)
			printf("{\"pair\":%u,\"ratio\":%.4f}\n", ++n,
			       pps[true] / pps[false]);
	}
	return err || n ? err : -ENODATA;
}

int main(int argc, char **argv)
{
	static const struct option opts[] = {
		{ "ctl", required_argument, NULL, 'c' },
		{ "size", required_argument, NULL, 'z' },
		{ "seconds", required_argument, NULL, 's' },
		{ "warmup", required_argument, NULL, 'w' },
		{ "busy", required_argument, NULL, 'B' },
		{ "subject", required_argument, NULL, 'n' },
		{ "meter", no_argument, NULL, 'm' },
		{ "tracker", required_argument, NULL, 't' },
		{ 0 },
	};
	const char *ctl = "/run/ghostnic/ctl.sock", *subject = "ghostnic",
		   *tracked = NULL;
	double seconds = 1, warmup = 0.3;
	bool metered = false;
	int busy_cpu = -1;
	struct bench_result res = { 0 };
	struct bench_window win;
	uint64_t lost = 0;
	uint32_t size = 0;
	int o, fd, err;

	while ((o = getopt_long(argc, argv, "", opts, NULL)) != -1) {
		switch (o) {
		case 'c': ctl = optarg; break;
		case 'z': size = (uint32_t)atoi(optarg); break;
		case 's': seconds = atof(optarg); break;
		case 'w': warmup = atof(optarg); break;
		case 'B': busy_cpu = atoi(optarg); break;
		case 'n': subject = optarg; break;
		case 'm': metered = true; break;
		case 't': tracked = optarg; break;
		default: return 2;
		}
	}
	fd = open_ctl(ctl);
	if (fd < 0) {
		fprintf(stderr, "gnstat: cannot reach ghostnicd at %s: %s\n", ctl,
			strerror(-fd));
		return 1;
	}
	bench_signals();
	err = busy_cpu >= 0 ? bench_busy_start((unsigned int)busy_cpu) : 0;
	if (err)
		goto close;
	fprintf(stderr, "ready\n");
	if (metered || tracked) {
		err = metered ? meter(fd, subject, size) : tracker(fd, tracked, seconds);
		if (err)
			fprintf(stderr, "gnstat: %s: %s\n", ctl, strerror(-err));
		goto close;
	}
	bench_window_init(&win, warmup, seconds);
	err = measure(fd, &win, &res, &lost);
	if (err) {
		fprintf(stderr, "gnstat: %s: %s\n", ctl, strerror(-err));
		goto close;
	}
	res.frame_bytes = res.packets * size;
	bench_print(subject, &win, &res, NULL);
	fprintf(stderr, "lost in the kernel's rings: %llu\n", (unsigned long long)lost);
close:
	close(fd);
	return err ? 1 : 0;
}
