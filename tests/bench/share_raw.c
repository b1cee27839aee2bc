// SPDX-License-Identifier: BSD-2-Clause
/*
 * share_raw: what a TCP connection by itself can do: the measure for ghostmem.
 *
 *	share_raw serve PORT		one client, then ends
 *	share_raw run HOST PORT		METRIC VALUE UNIT, a line each
 *
 * A request is 8 bytes: how many bytes to answer. One send, one receive, TCP_NODELAY,
 * blocking sockets on both sides.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../user/lib/clock.h"

#define N     20000
#define BULK  (1u << 20)
#define BULKS 512
#define KEPT  64 /* as many BULK as ghostmem's scan has */

static uint8_t buf[BULK];

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static int all(int fd, void *p, size_t n, int out)
{
	for (size_t at = 0; at < n;) {
		ssize_t r = out ? send(fd, (char *)p + at, n - at, MSG_NOSIGNAL)
				: recv(fd, (char *)p + at, n - at, 0);

		if (r <= 0)
			return -1;
		at += (size_t)r;
	}
	return 0;
}

static int serve(int port)
{
	struct sockaddr_in in = { .sin_family = AF_INET,
				  .sin_port = htons((uint16_t)port) };
	int l = socket(AF_INET, SOCK_STREAM, 0), fd, one = 1;
	uint64_t want;

	setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(l, (struct sockaddr *)&in, sizeof(in)) || listen(l, 1)) {
		perror("share_raw");
		return 1;
	}
	fd = accept(l, NULL, NULL);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	while (!all(fd, &want, sizeof(want), 0))
		for (; want; want -= want < BULK ? want : BULK)
			if (all(fd, buf, want < BULK ? want : BULK, 1))
				return 1;
	return 0;
}

static void round_trips(int fd, const char *name, uint64_t size)
{
	static uint64_t ns[N];

	for (int i = 0; i < N; i++) {
		uint64_t t = clock_ns();

		if (all(fd, &size, sizeof(size), 1) || all(fd, buf, size, 0))
			exit(1);
		ns[i] = clock_ns() - t;
	}
	qsort(ns, N, sizeof(*ns), by_value);
	printf("%s_us_p50 %.3f us\n", name, (double)ns[N / 2] / 1e3);
	printf("%s_us_p99 %.3f us\n", name, (double)ns[N * 99 / 100] / 1e3);
}

/*
 * The least that a scan of another node's memory has to do on the reader's CPU: each byte
 * received into a page of its own, which is there already, and read once. Gbit/s.
 */
static double kept(int fd)
{
	uint64_t want = (uint64_t)BULK * KEPT, sum = 0, t;
	uint8_t *mem = mmap(NULL, want, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (mem == MAP_FAILED)
		exit(1);
	t = clock_ns();
	if (all(fd, &want, sizeof(want), 1))
		exit(1);
	for (size_t at = 0; at < want; at += BULK) {
		if (all(fd, mem + at, BULK, 0))
			exit(1);
		for (size_t i = 0; i < BULK; i += sizeof(uint64_t))
			sum += *(const volatile uint64_t *)(mem + at + i);
	}
	t = clock_ns() - t;
	if (sum)
		exit(1); /* the server sends zeros */
	munmap(mem, want);
	return (double)want * 8 / (double)t;
}

static int run(const char *host, int port)
{
	struct sockaddr_in in = { .sin_family = AF_INET,
				  .sin_port = htons((uint16_t)port) };
	uint64_t want = (uint64_t)BULK * BULKS, t;
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	if (inet_pton(AF_INET, host, &in.sin_addr) != 1 ||
	    connect(fd, (struct sockaddr *)&in, sizeof(in))) {
		perror("share_raw");
		return 1;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	round_trips(fd, "echo8", 8);
	round_trips(fd, "get4k", 4096);
	t = clock_ns();
	if (all(fd, &want, sizeof(want), 1))
		return 1;
	for (int i = 0; i < BULKS; i++)
		if (all(fd, buf, BULK, 0))
			return 1;
	t = clock_ns() - t;
	printf("bulk_gbps %.3f Gbit/s\n", (double)BULK * BULKS * 8 / (double)t);
	printf("bulk_kept_gbps %.3f Gbit/s\n", kept(fd));
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "serve"))
		return serve(atoi(argv[2]));
	if (argc == 4 && !strcmp(argv[1], "run"))
		return run(argv[2], atoi(argv[3]));
	return 2;
}
