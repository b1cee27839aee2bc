// SPDX-License-Identifier: BSD-2-Clause
/* calls: what the library makes of owners that move, fall silent, hang up. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "owners.h"

/* ---- the region moves under a call ------------------------------------------------ */

#define MOVE_EVERY 40

static int move_often(const struct gm_hdr *h)
{
	if (!owners.done || owners.done % MOVE_EVERY)
		return DO;
	owners.done++;
	owners.epoch++;
	return -EREMCHG;
}

/* More is refused, in all, than can be under way; some of it more than once. */
static void test_moves(void **state)
{
	static uint8_t small[200][32];
	struct ghostmem_vec v[200];
	uint8_t *a = malloc(OWNERS_SIZE), *b = calloc(1, OWNERS_SIZE);
	struct ghostmem_region *r;
	struct ghostmem *g;

	assert_true(a && b);
	for (size_t i = 0; i < OWNERS_SIZE; i++)
		a[i] = (uint8_t)(i * 2654435761u >> 22);
	owners.rule = move_often;
	r = owners_begin(&g);
	assert_int_equal(ghostmem_put(r, 0, a, OWNERS_SIZE), 0);
	owners_look();
	assert_memory_equal(owners.memory, a, OWNERS_SIZE);
	assert_int_equal(ghostmem_get(r, 0, b, OWNERS_SIZE), 0);
	assert_memory_equal(a, b, OWNERS_SIZE);
	for (unsigned int i = 0; i < 200; i++) {
		memset(small[i], (int)i + 1, sizeof(small[i]));
		v[i] = (struct ghostmem_vec){ 8192 + i * 5000, small[i], 32 };
	}
	assert_int_equal(ghostmem_putv(r, v, 200), 0);
	owners_look();
	for (unsigned int i = 0; i < 200; i++)
		assert_memory_equal(owners.memory + v[i].off, small[i], 32);
	memset(small, 0, sizeof(small));
	assert_int_equal(ghostmem_getv(r, v, 200), 0);
	owners_look();
	for (unsigned int i = 0; i < 200; i++)
		assert_memory_equal(owners.memory + v[i].off, small[i], 32);
	assert_true(owners.epoch > 10);
	owners_end(g);
	free(a);
	free(b);
}

/* ---- a child ---------------------------------------------------------------------- */

static int free_port(void)
{
	struct sockaddr_in sin = { .sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(sin);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&sin, len), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sin, &len), 0);
	close(fd);
	return ntohs(sin.sin_port);
}

/* What a forked child closes is its own: its parent's connection stays, though both know
 * the session's keys. */
static void test_child(void **state)
{
	struct tls_conf conf = { .mode = TLS_PSK, .dir = owners.dir };
	char file[64], unix_addr[64];
	struct ghostmem_region *r;
	struct net_tls *tls;
	struct ghostmem *g;
	uint64_t v = 7;
	pid_t pid;
	FILE *f;
	int st;

	snprintf(file, sizeof(file), "%s/keys.psk", owners.dir);
	f = fopen(file, "w");
	assert_non_null(f);
	fputs(NET_TLS_USER ":0123456789abcdef0123456789abcdef\n", f);
	fclose(f);
	assert_int_equal(net_tls_create(&conf, true, NULL, &tls), 0);
	strcpy(unix_addr, owners.addr[1]);
	snprintf(owners.addr[1], sizeof(owners.addr[1]), "tls:127.0.0.1:%d", free_port());
	owners.tls = tls;
	r = owners_begin(&g);
	assert_int_equal(ghostmem_put(r, 8, &v, sizeof(v)), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		alarm(20);
		ghostmem_close(g);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &st, 0), pid);
	assert_int_equal(st, 0);
	v = 0;
	assert_int_equal(ghostmem_get(r, 8, &v, sizeof(v)), 0);
	assert_int_equal(v, 7);
	owners_look();
	assert_int_equal(owners.connections, 1);
	strcpy(owners.addr[1], unix_addr);
	owners_end(g);
	net_tls_destroy(tls);
	unlink(file);
}

/* ---- a barrier -------------------------------------------------------------------- */

#define ROUND (1ull << 32)

/* A waits for one other, and leaves. Just before, that one comes. */
static int last_comes(const struct gm_hdr *h)
{
	uint64_t *word = (uint64_t *)owners.memory;

	if (h->op == GM_OP_CAS && *word == 1)
		*word = 2;
	return DO;
}

static void test_barrier_left(void **state)
{
	struct ghostmem_region *r;
	struct ghostmem *g;

	owners.rule = last_comes;
	r = owners_begin(&g);
	assert_int_equal(ghostmem_barrier(r, 0, 2, 1), 0);
	owners_look();
	assert_true(*(uint64_t *)owners.memory == ROUND);
	owners_end(g);
}

/* A comes last, and before it can end the round one that waits has seen that all are there,
 * and come again for the next one. */
static int others_go_on(const struct gm_hdr *h)
{
	uint64_t *word = (uint64_t *)owners.memory;

	if (h->op != GM_OP_GET && *word == 2)
		*word = ROUND + 1;
	return DO;
}

static void test_barrier_ended(void **state)
{
	struct ghostmem_region *r;
	struct ghostmem *g;
	uint64_t old;

	owners.rule = others_go_on;
	r = owners_begin(&g);
	assert_int_equal(ghostmem_fetch_add(r, 0, 1, &old), 0);
	assert_int_equal(ghostmem_barrier(r, 0, 2, OWNERS_WAIT_MS), 0);
	owners_look();
	assert_true(*(uint64_t *)owners.memory == ROUND + 1);
	owners_end(g);
}

/* ---- signals ---------------------------------------------------------------------- */

static int silent(const struct gm_hdr *h)
{
	return SILENT;
}

static volatile sig_atomic_t ticks;

static void tick(int sig)
{
	static const struct itimerval off;

	if (++ticks == 500) /* for ever, were it not for this */
		setitimer(ITIMER_REAL, &off, NULL);
}

/* A signal, and another one, put off the end of no call. */
static void test_signals(void **state)
{
	static const struct itimerval often = { { 0, 20000 }, { 0, 20000 } }, off;
	struct sigaction sa = { .sa_handler = tick }, old;
	struct ghostmem_region *r;
	struct ghostmem *g;
	uint64_t v;

	owners.rule = silent;
	r = owners_begin(&g);
	assert_int_equal(sigaction(SIGALRM, &sa, &old), 0);
	assert_int_equal(setitimer(ITIMER_REAL, &often, NULL), 0);
	assert_int_equal(ghostmem_get(r, 0, &v, sizeof(v)), -EIO);
	assert_int_equal(setitimer(ITIMER_REAL, &off, NULL), 0);
	assert_int_equal(sigaction(SIGALRM, &old, NULL), 0);
	assert_in_range(ticks, 1, 499);
	owners_end(g);
}

/* ---- pages ------------------------------------------------------------------------ */

static unsigned int split;

/* Part of a page in one request, part of it in the next one */
static int count_split(const struct gm_hdr *h)
{
	uint64_t end = h->bus + h->size;

	split += end % GM_PAGE_SIZE && end != GM_BUS_MIN + 100 + 3 * MIB;
	return DO;
}

/* A page that was lost is whole again by one put of all of it, and so are those within a
 * large one, wherever that begins. */
static void test_whole_pages(void **state)
{
	uint8_t *a = malloc(3 * MIB);
	struct ghostmem_region *r;
	struct ghostmem *g;

	assert_non_null(a);
	memset(a, 9, 3 * MIB);
	owners.rule = count_split;
	r = owners_begin(&g);
	assert_int_equal(ghostmem_put(r, 100, a, 3 * MIB), 0);
	owners_look();
	assert_int_equal(split, 0);
	assert_memory_equal(owners.memory + 100, a, 3 * MIB);
	assert_int_equal(owners.memory[99] || owners.memory[100 + 3 * MIB], 0);
	owners_end(g);
	free(a);
}

/* ---- time ------------------------------------------------------------------------- */

/* Not before the owner has given up who is silent, and as soon as the guide says. */
static void test_limit(void **state)
{
	for (uint32_t lease = 100; lease <= 60000; lease += 100) {
		struct ghostmem_region r = { .lease_ms = lease };

		assert_true(lib_limit_ms(&r) >= (int)lease * 9 / 8 + 500);
		assert_true(lib_limit_ms(&r) <= (int)lease + 1000 || lease > 2000);
	}
}

/* ---- a connection is lost --------------------------------------------------------- */

/* When as many requests have been done as the test says; 0: never */
static unsigned int hang_up_at;
static int hang_up_how;

static int hang_up(const struct gm_hdr *h)
{
	if (!hang_up_at || owners.done + 1 != hang_up_at)
		return DO;
	hang_up_at = 0;
	return hang_up_how;
}

static void set_hang_up(int how, unsigned int after)
{
	pthread_mutex_lock(&owners.lock);
	hang_up_how = how;
	hang_up_at = owners.done + after;
	pthread_mutex_unlock(&owners.lock);
}

/* Whenever it is, and whether what was asked for last was done or not. */
static void test_async(void **state)
{
	static uint8_t a[3][MIB], b[MIB];
	struct ghostmem_async put[3], get;
	struct ghostmem_region *r;
	struct ghostmem *g;

	owners.rule = hang_up;
	r = owners_begin(&g);
	for (unsigned int at = 1; at <= 13; at++) {
		set_hang_up(at % 2 ? HANG_UP : DO_AND_HANG_UP, at);
		for (unsigned int i = 0; i < 3; i++) {
			memset(a[i], (int)(at * 3 + i), MIB);
			assert_int_equal(
				ghostmem_put_async(r, i * MIB + 100, a[i], MIB, &put[i]),
				0);
		}
		assert_int_equal(ghostmem_get_async(r, 8 * MIB, b, 8, &get), 0);
		for (unsigned int i = 0; i < 3; i++)
			assert_int_equal(ghostmem_wait(r, &put[i]), 0);
		assert_int_equal(ghostmem_wait(r, &get), 0);
		owners_look();
		assert_memory_equal(owners.memory + 100, a, 3 * MIB);
	}
	/* While nothing is under way */
	set_hang_up(ANSWER_AND_HANG_UP, 1);
	assert_int_equal(ghostmem_get(r, 100, b, 1), 0);
	assert_int_equal(ghostmem_get_async(r, 100, b, MIB, &get), 0);
	assert_int_equal(ghostmem_wait(r, &get), 0);
	assert_memory_equal(a[0], b, MIB);
	owners_end(g);
}

/* After a fence it is done, though nobody has waited for it. */
static void test_fence(void **state)
{
	uint64_t v[2] = { 5, 6 }, got;
	struct ghostmem_async put[2];
	struct ghostmem_region *r;
	struct ghostmem *g;

	owners.rule = hang_up;
	r = owners_begin(&g);
	assert_int_equal(ghostmem_get(r, 0, &got, 8), 0);
	for (int busy = 0; busy < 2; busy++) {
		set_hang_up(HANG_UP, 1);
		for (unsigned int i = 0; i < 2; i++)
			assert_int_equal(ghostmem_put_async(r, 8 * i, &v[i], 8, &put[i]),
					 0);
		/* Finds out, and goes on by another connection */
		if (!busy)
			assert_int_equal(ghostmem_get(r, 64, &got, 8), 0);
		assert_int_equal(ghostmem_fence(r), 0);
		owners_look();
		assert_memory_equal(owners.memory, v, sizeof(v));
		assert_int_equal(ghostmem_wait(r, &put[0]), 0);
		assert_int_equal(ghostmem_wait(r, &put[1]), 0);
		v[0]++;
	}
	owners_end(g);
}

/* An atomic that the next owner never heard of, for the connection to it was lost with what
 * was sent before: not the one that is counted there. */
static void test_never_sent(void **state)
{
	static uint8_t a[3 * MIB];
	struct ghostmem_async put;
	struct ghostmem_region *r;
	struct ghostmem *g;
	uint64_t old;

	r = owners_begin(&g);
	assert_int_equal(ghostmem_fetch_add(r, 0, 1, &old), 0);
	memset(a, 7, sizeof(a));
	pthread_mutex_lock(&owners.lock);
	owners.epoch++;
	owners.leave = 1;
	pthread_mutex_unlock(&owners.lock);
	assert_int_equal(ghostmem_put_async(r, 4096, a, sizeof(a), &put), 0);
	assert_int_equal(ghostmem_fetch_add(r, 0, 1, &old), 0);
	assert_int_equal(old, 1);
	assert_int_equal(ghostmem_wait(r, &put), 0);
	owners_look();
	assert_int_equal(*(uint64_t *)owners.memory, 2);
	assert_memory_equal(owners.memory + 4096, a, sizeof(a));
	owners_end(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_moves),	     cmocka_unit_test(test_child),
		cmocka_unit_test(test_barrier_left), cmocka_unit_test(test_barrier_ended),
		cmocka_unit_test(test_signals),	     cmocka_unit_test(test_async),
		cmocka_unit_test(test_fence),	     cmocka_unit_test(test_never_sent),
		cmocka_unit_test(test_whole_pages),  cmocka_unit_test(test_limit),
	};
	int rc = owners_init();

	if (!rc)
		rc = cmocka_run_group_tests(tests, NULL, NULL);
	return owners_fini() ? 1 : rc;
}
