// SPDX-License-Identifier: BSD-2-Clause
/*
 * huge: what the library says of page sizes; memory of huge pages that a program had before it
 * shares it; many pages that are wanted at the same time.
 *
 *	huge OWNERS-SOCKET IMPORTERS-SOCKET
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../user/share/ghostmem.h"
#include "check.h"

#define PAGE   ((uint64_t)2 << 20)
#define PAGES  40 /* wanted at once: more than may be under way, and than are kept */
#define SIZE   (PAGES * PAGE)
#define ROUNDS 4

static struct ghostmem_export region(const char *name)
{
	return (struct ghostmem_export){
		.name = name, .size = PAGE, .key = "k", .key_len = 1, .memfd = -1
	};
}

static int memory(uint64_t size, unsigned int flags)
{
	int fd = memfd_create("given", MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);

	CHECK(fd >= 0 && !ftruncate(fd, (off_t)size));
	return fd;
}

/* What is no region, and leaves nothing behind: the name is free. */
static void refused(struct ghostmem *a)
{
	struct ghostmem_export e = region("refused");
	struct ghostmem_region *r;

	e.page_size = 8192;
	CHECK(ghostmem_export(a, &e, &r) == -EINVAL);
	e.page_size = 1 << 30;
	e.size = 1 << 30;
	CHECK(ghostmem_export(a, &e, &r) == -EINVAL);
	e.page_size = PAGE;
	e.size = PAGE + 4096;
	CHECK(ghostmem_export(a, &e, &r) == -EINVAL);
	/* Pages of the given memory are others than those that are wanted. */
	e.size = PAGE;
	e.memfd = memory(PAGE, 0);
	CHECK(ghostmem_export(a, &e, &r) == -EINVAL);
	close(e.memfd);
	e.memfd = memory(PAGE, MFD_HUGETLB | MFD_HUGE_2MB);
	e.page_size = 4096;
	CHECK(ghostmem_export(a, &e, &r) == -EINVAL);
	/* Not a whole one of them. */
	e.page_size = 0;
	e.size = 4096;
	CHECK(ghostmem_export(a, &e, &r) == -EINVAL);
	close(e.memfd);
	e = region("refused");
	CHECK(!ghostmem_export(a, &e, &r) && ghostmem_page_size(r) == 4096);
	ghostmem_release(r);
}

/* Its page size is what the region has, and its bytes are the region's. */
static void given(struct ghostmem *a, struct ghostmem *b)
{
	struct ghostmem_import in = { .name = "given", .key = "k", .key_len = 1 };
	struct ghostmem_export e = region("given");
	struct ghostmem_region *owner, *user;
	uint64_t *bytes, *p, *q;

	e.size = 2 * PAGE;
	e.memfd = memory(e.size, MFD_HUGETLB | MFD_HUGE_2MB);
	bytes = mmap(NULL, e.size, PROT_READ | PROT_WRITE, MAP_SHARED, e.memfd, 0);
	CHECK(bytes != MAP_FAILED);
	bytes[5] = 55;
	bytes[PAGE / 8 + 6] = 66;
	CHECK(!ghostmem_export(a, &e, &owner) && ghostmem_page_size(owner) == PAGE);
	CHECK(ghostmem_bus(owner) % PAGE == 0);
	/* An address that is none of such a page. */
	in.addr = (uint8_t *)ghostmem_addr(owner) + 64 * PAGE + 4096;
	CHECK(ghostmem_import(b, &in, &user) == -EINVAL);
	in.addr = NULL;
	CHECK(!ghostmem_import(b, &in, &user) && ghostmem_page_size(user) == PAGE);
	p = ghostmem_addr(owner);
	q = ghostmem_addr(user);
	CHECK(q[5] == 55 && q[PAGE / 8 + 6] == 66 && p[5] == 55 && q[7] == 0);
	q[5]++;
	CHECK(p[5] == 56 && bytes[5] == 56);
	CHECK(!ghostmem_prefetch(user, 1, e.size - 1) &&
	      !ghostmem_flush(user, 0, e.size));
	ghostmem_release(user);
	ghostmem_release(owner);
	munmap(bytes, e.size);
	close(e.memfd);
}

struct worker {
	pthread_t thread;
	pthread_barrier_t *together;
	uint64_t *mine, *theirs; /* the same page, in the windows of two nodes */
};

/* All threads at once: each page goes to one node to write, then to the other, and back. */
static void *to_and_fro(void *arg)
{
	struct worker *w = arg;

	for (uint64_t i = 1; i <= ROUNDS; i++) {
		pthread_barrier_wait(w->together);
		w->theirs[0]++;
		w->theirs[PAGE / 8 - 1] = i;
		pthread_barrier_wait(w->together);
		CHECK(w->mine[0] == 2 * i - 1 && w->mine[PAGE / 8 - 1] == i);
		pthread_barrier_wait(w->together);
		w->mine[0]++;
	}
	return NULL;
}

static void many(struct ghostmem *a, struct ghostmem *b)
{
	struct ghostmem_import in = { .name = "many", .key = "k", .key_len = 1 };
	struct ghostmem_export e = region("many");
	struct ghostmem_region *owner, *user;
	struct worker w[PAGES];
	pthread_barrier_t together;

	e.size = SIZE;
	e.page_size = PAGE;
	CHECK(!ghostmem_export(a, &e, &owner) && !ghostmem_import(b, &in, &user));
	CHECK(!pthread_barrier_init(&together, NULL, PAGES));
	for (uint64_t i = 0; i < PAGES; i++) {
		w[i].together = &together;
		w[i].mine = (uint64_t *)ghostmem_addr(owner) + i * PAGE / 8;
		w[i].theirs = (uint64_t *)ghostmem_addr(user) + i * PAGE / 8;
		CHECK(!pthread_create(&w[i].thread, NULL, to_and_fro, &w[i]));
	}
	for (uint64_t i = 0; i < PAGES; i++)
		CHECK(!pthread_join(w[i].thread, NULL));
	ghostmem_release(user);
	ghostmem_release(owner);
}

int main(int argc, char **argv)
{
	struct ghostmem *a, *b;

	CHECK(argc == 3);
	CHECK(!ghostmem_open(argv[1], &a) && !ghostmem_open(argv[2], &b));
	refused(a);
	given(a, b);
	many(a, b);
	ghostmem_close(b);
	ghostmem_close(a);
	puts("done");
	return 0;
}
