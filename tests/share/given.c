// SPDX-License-Identifier: BSD-2-Clause
/*
 * given: memory that a program had before it shares it, and windows that are only read.
 *
 *	given OWNERS-SOCKET IMPORTERS-SOCKET
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../user/share/ghostmem.h"
#include "check.h"

#define SIZE (64 * 4096)

static sigjmp_buf on_fault;

static void fault(int sig)
{
	siglongjmp(on_fault, sig);
}

/* Return: the signal it gives, 0: none */
static int store(void *p)
{
	int sig = sigsetjmp(on_fault, 1);

	if (!sig)
		*(volatile uint8_t *)p = 1;
	return sig;
}

static int memory(uint64_t size, unsigned int flags)
{
	int fd = memfd_create("given", MFD_CLOEXEC | flags);

	CHECK(fd >= 0 && !ftruncate(fd, (off_t)size));
	return fd;
}

/* Memory that cannot be shared, and leaves nothing behind: the name is free. */
static void refused(struct ghostmem *a, struct ghostmem_export e)
{
	struct ghostmem_region *r;

	e.memfd = memory(SIZE, 0);
	CHECK(ghostmem_export(a, &e, &r) == -EINVAL);
	close(e.memfd);
	e.memfd = memory(SIZE - 4096, MFD_ALLOW_SEALING);
	CHECK(ghostmem_export(a, &e, &r) == -EINVAL);
	close(e.memfd);
}

static void reads(struct ghostmem *b, const char *key, uint8_t *owner)
{
	struct ghostmem_import in = { .name = "given",
				      .key = key,
				      .key_len = strlen(key),
				      .flags = GHOSTMEM_READ_ONLY };
	struct ghostmem_region *r;
	uint8_t *p, v = 9;
	uint64_t old;

	CHECK(!ghostmem_import(b, &in, &r));
	p = ghostmem_addr(r);
	CHECK(p[0] == owner[0] && p[SIZE - 1] == 77);
	CHECK(store(p) == SIGSEGV && store(p + 5 * 4096) == SIGSEGV);
	CHECK(ghostmem_put(r, 0, &v, 1) == -EPERM);
	CHECK(ghostmem_fetch_add(r, 0, 1, &old) == -EPERM);
	owner[0]++;
	CHECK(p[0] == owner[0]);
	CHECK(!ghostmem_get(r, 0, &v, 1) && v == owner[0]);
	ghostmem_release(r);
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = fault, .sa_flags = SA_NODEFER };
	struct ghostmem_export e = { .name = "given",
				     .size = SIZE,
				     .key = "k",
				     .key_len = 1,
				     .read_key = "reader",
				     .read_key_len = 6 };
	struct ghostmem_import in = { .name = "given", .key = "k", .key_len = 1 };
	struct ghostmem_region *owner, *user;
	struct ghostmem *a, *b;
	uint8_t byte = 77, *p;

	CHECK(argc == 3);
	CHECK(!sigaction(SIGSEGV, &sa, NULL) && !sigaction(SIGBUS, &sa, NULL));
	CHECK(!ghostmem_open(argv[1], &a) && !ghostmem_open(argv[2], &b));
	refused(a, e);
	e.memfd = memory(SIZE + 4096, MFD_ALLOW_SEALING);
	CHECK(pwrite(e.memfd, &byte, 1, SIZE - 1) == 1 &&
	      pwrite(e.memfd, "abc", 3, 0) == 3);
	/* Sealed already, as it will be by the agent: that is fine too. */
	CHECK(!fcntl(e.memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_SEAL));
	CHECK(!ghostmem_export(a, &e, &owner) && ghostmem_size(owner) == SIZE);
	p = ghostmem_addr(owner);
	CHECK(!memcmp(p, "abc", 4) && p[SIZE - 1] == 77);
	CHECK(!ghostmem_import(b, &in, &user));
	CHECK(!memcmp(ghostmem_addr(user), "abc", 4));
	((uint8_t *)ghostmem_addr(user))[4096] = 5;
	CHECK(p[4096] == 5);
	CHECK(pread(e.memfd, &byte, 1, 4096) == 1 && byte == 5);
	reads(b, "reader", p);
	reads(b, "k", p);
	/* The other window goes on as before. */
	((uint8_t *)ghostmem_addr(user))[1] = 'x';
	CHECK(p[1] == 'x');
	close(e.memfd);
	ghostmem_close(b);
	ghostmem_close(a);
	puts("done");
	return 0;
}
