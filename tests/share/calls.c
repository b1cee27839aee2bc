// SPDX-License-Identifier: BSD-2-Clause
/*
 * calls: libghostmem's calls between two nodes, in one process.
 *
 *	calls OWNERS-SOCKET IMPORTERS-SOCKET
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../user/share/ghostmem.h"
#include "check.h"

#define MIB	(1ull << 20)
#define THREADS 64
#define ADDS	50

static struct ghostmem_region *owner, *user;

/* Of a process that has but loaded and stored so far. What a child closes is its own. */
static void closed_in_child(struct ghostmem *a, struct ghostmem *b)
{
	volatile uint8_t *p = ghostmem_addr(user), *q = ghostmem_addr(owner);
	pid_t pid;
	int st;

	p[5000] = 3;
	CHECK(q[5000] == 3);
	/* Instead of a load that nobody serves */
	alarm(30);
	pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		alarm(20);
		ghostmem_close(b);
		ghostmem_close(a);
		_exit(0);
	}
	CHECK(waitpid(pid, &st, 0) == pid && !st);
	q[5000] = 4;
	CHECK(p[5000] == 4);
	p[9000] = 5;
	CHECK(q[9000] == 5);
	alarm(0);
}

static void *adder(void *arg)
{
	for (int i = 0; i < ADDS; i++) {
		uint64_t v;

		CHECK(!ghostmem_fetch_add(user, 64, 1, NULL));
		CHECK(!ghostmem_lock(user, 72, 20000));
		CHECK(!ghostmem_get(user, 80, &v, 8));
		v++;
		CHECK(!ghostmem_put(user, 80, &v, 8));
		CHECK(!ghostmem_unlock(user, 72));
	}
	CHECK(!ghostmem_barrier(user, 88, THREADS, 20000));
	return NULL;
}

static void threads(void)
{
	pthread_t t[THREADS];
	uint64_t sum, locked;

	for (int i = 0; i < THREADS; i++)
		CHECK(!pthread_create(&t[i], NULL, adder, NULL));
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	CHECK(!ghostmem_get(owner, 64, &sum, 8) && !ghostmem_get(owner, 80, &locked, 8));
	CHECK(sum == THREADS * ADDS && locked == THREADS * ADDS);
	CHECK(ghostmem_unlock(user, 72) == -EPERM);
	CHECK(ghostmem_barrier(user, 96, 2, 50) == -ETIMEDOUT);
	CHECK(!ghostmem_get(user, 96, &sum, 8) && !(uint32_t)sum);
}

static void vectors(void)
{
	static uint8_t a[200][32], b[200][32], big[3 * MIB], back[3 * MIB];
	struct ghostmem_vec v[200];
	struct ghostmem_async x, y;

	for (unsigned int i = 0; i < 200; i++) {
		memset(a[i], (int)i, sizeof(a[i]));
		v[i] = (struct ghostmem_vec){ 8192 + i * 5000, a[i], sizeof(a[i]) };
	}
	CHECK(!ghostmem_putv(user, v, 200));
	for (unsigned int i = 0; i < 200; i++)
		v[i].buf = b[i];
	CHECK(!ghostmem_getv(owner, v, 200) && !memcmp(a, b, sizeof(a)));
	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (uint8_t)(i * 2654435761u >> 24);
	CHECK(!ghostmem_put_async(user, 4 * MIB, big, sizeof(big), &x));
	CHECK(!ghostmem_get_async(user, 8192, b[0], 32, &y));
	CHECK(!ghostmem_fence(user) && !ghostmem_wait(user, &x) &&
	      !ghostmem_wait(user, &y));
	CHECK(!memcmp((uint8_t *)ghostmem_addr(owner) + 4 * MIB, big, sizeof(big)));
	CHECK(!ghostmem_get(owner, 4 * MIB, back, sizeof(back)) &&
	      !memcmp(back, big, sizeof(big)));
	CHECK(ghostmem_get(user, 8 * MIB - 1, back, 2) == -ERANGE);
	CHECK(ghostmem_fetch_add(user, 4, 1, NULL) == -EINVAL);
	CHECK(!ghostmem_prefetch(user, 4 * MIB, MIB));
	CHECK(!memcmp((uint8_t *)ghostmem_addr(user) + 4 * MIB, big, MIB));
	memset((uint8_t *)ghostmem_addr(user) + 5 * MIB, 9, 4096);
	CHECK(!ghostmem_flush(user, 5 * MIB, 4096));
	CHECK(((uint8_t *)ghostmem_addr(owner))[5 * MIB + 100] == 9);
}

static void forked(void)
{
	pid_t pid = fork();
	uint64_t old;
	int st;

	CHECK(pid >= 0);
	if (!pid) {
		if (ghostmem_fetch_add(user, 104, 5, &old) || old ||
		    ghostmem_prefetch(user, 0, 4096) != -ECHILD)
			_exit(1);
		signal(SIGSEGV, SIG_DFL);
		_exit(*(volatile uint8_t *)ghostmem_addr(user) ? 2 : 3); /* no window */
	}
	CHECK(waitpid(pid, &st, 0) == pid);
	CHECK(WIFSIGNALED(st) && WTERMSIG(st) == SIGSEGV);
	CHECK(!ghostmem_fetch_add(user, 104, 1, &old) && old == 5);
}

static void unmapped(void)
{
	uint8_t *p = ghostmem_addr(user), byte = 0;

	p[7 * MIB] = 42;
	CHECK(!munmap(p + 7 * MIB, 65536));
	CHECK(!ghostmem_get(owner, 7 * MIB, &byte, 1) && byte == 42);
	((uint8_t *)ghostmem_addr(owner))[7 * MIB] = 43;
	CHECK(!ghostmem_get(user, 7 * MIB, &byte, 1) && byte == 43);
}

static sigjmp_buf on_bus;

static void bus_error(int sig)
{
	siglongjmp(on_bus, 1);
}

static bool sigbus(uint8_t *p, bool write)
{
	if (sigsetjmp(on_bus, 1))
		return true;
	if (write)
		*(volatile uint8_t *)p = 1;
	else
		(void)*(volatile uint8_t *)p;
	return false;
}

/* Moved parts give SIGBUS, whatever was there; the rest goes on, and nothing that was
 * mapped in their place since is touched. */
static void moved(void)
{
	struct sigaction sa = { .sa_handler = bus_error, .sa_flags = SA_NODEFER };
	uint8_t *p = ghostmem_addr(user), *q, *mine, byte;

	CHECK(!sigaction(SIGBUS, &sa, NULL));
	p[6 * MIB] = 51;
	p[6 * MIB - 4096] = 52;
	q = mremap(p + 6 * MIB, 65536, 65536, MREMAP_MAYMOVE | MREMAP_FIXED,
		   mmap(NULL, 65536, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	CHECK(q != MAP_FAILED);
	mine = mmap(p + 6 * MIB, 65536, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	CHECK(mine == p + 6 * MIB);
	mine[0] = 99;
	/* The library covers it as soon as it hears of it. */
	for (int i = 0; i < 5000 && !sigbus(q, false); i++)
		poll(NULL, 0, 1);
	for (int i = 0; i < 16; i++)
		CHECK(sigbus(q + i * 4096, i % 2));
	CHECK(!ghostmem_get(owner, 6 * MIB, &byte, 1) && byte == 51);
	((uint8_t *)ghostmem_addr(owner))[6 * MIB] = 53;
	CHECK(!ghostmem_get(user, 6 * MIB, &byte, 1) && byte == 53);
	CHECK(sigbus(q, false) && sigbus(q, true));
	CHECK(p[6 * MIB - 4096] == 52);
	ghostmem_release(user);
	CHECK(mine[0] == 99);
	user = NULL;
}

int main(int argc, char **argv)
{
	struct ghostmem_export e = { .name = "calls",
				     .size = 8 * MIB,
				     .key = "k",
				     .key_len = 1,
				     .read_key = "reader",
				     .read_key_len = 6,
				     .memfd = -1 };
	struct ghostmem_import in = { .name = "calls", .key = "k", .key_len = 1 };
	struct ghostmem_region *reader;
	struct ghostmem *a, *b;
	uint64_t v;

	CHECK(argc == 3);
	CHECK(!ghostmem_open(argv[1], &a) && !ghostmem_open(argv[2], &b));
	CHECK(!ghostmem_export(a, &e, &owner) && !ghostmem_import(b, &in, &user));
	closed_in_child(a, b);
	threads();
	vectors();
	forked();
	unmapped();
	in.key = "reader";
	in.key_len = 6;
	in.flags = GHOSTMEM_NO_MAP | GHOSTMEM_READ_ONLY;
	CHECK(!ghostmem_import(b, &in, &reader));
	CHECK(!ghostmem_get(reader, 64, &v, 8) && v == THREADS * ADDS);
	CHECK(ghostmem_put(reader, 64, &v, 8) == -EPERM);
	moved();
	ghostmem_close(b);
	ghostmem_close(a);
	puts("done");
	return 0;
}
