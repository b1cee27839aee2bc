// SPDX-License-Identifier: BSD-2-Clause
/*
 * kind_native: the logs that need nothing but this kernel.
 *
 * The writers behind PAGEMAP_SCAN are a child with mappings of its own, as a VM's process
 * is to its migration: it registers them, and this process scans it.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "kinds.h"

#define WRITERS 3U

/* ---- threads ------------------------------------------------------------------------
 */

struct threads {
	unsigned int n;
	pthread_t id[CONFORM_MAX_WRITERS];
	struct conform_writer w[CONFORM_MAX_WRITERS];
};

static void fill(struct threads *t, struct conform *c, unsigned int n,
		 void (*mark)(struct conform *c, uint64_t page))
{
	t->n = n;
	for (unsigned int i = 0; i < n; i++) {
		struct conform_writer *w = &t->w[i];

		*w = (struct conform_writer){
			.c = c, .mark = mark, .seed = conform_random(&c->seed), .pause = 1
		};
		for (unsigned int b = 0; b < c->ram.nblocks; b++)
			w->base[b] = c->ram.block[b].hva;
		w->npages = conform_pages(c, &w->page);
	}
}

struct threads *threads_start(struct conform *c, unsigned int n,
			      void (*mark)(struct conform *c, uint64_t page))
{
	struct threads *t = calloc(1, sizeof(*t));

	assert_non_null(t);
	fill(t, c, n, mark);
	for (unsigned int i = 0; i < n; i++)
		assert_int_equal(
			pthread_create(&t->id[i], NULL, conform_writer_main, &t->w[i]),
			0);
	return t;
}

void threads_go(struct threads *t)
{
	for (unsigned int i = 0; i < t->n; i++)
		__atomic_store_n(&t->w[i].pause, 0, __ATOMIC_RELEASE);
	for (unsigned int i = 0; i < t->n; i++)
		conform_wait(&t->w[i].parked, 0);
}

void threads_halt(struct threads *t)
{
	for (unsigned int i = 0; i < t->n; i++)
		__atomic_store_n(&t->w[i].pause, 1, __ATOMIC_RELEASE);
	for (unsigned int i = 0; i < t->n; i++)
		conform_wait(&t->w[i].parked, 1);
}

uint64_t threads_end(struct threads *t)
{
	uint64_t writes = 0;

	for (unsigned int i = 0; i < t->n; i++)
		__atomic_store_n(&t->w[i].quit, 1, __ATOMIC_RELEASE);
	for (unsigned int i = 0; i < t->n; i++) {
		pthread_join(t->id[i], NULL);
		writes += t->w[i].writes;
		free(t->w[i].page);
	}
	free(t);
	return writes;
}

/* ---- the three kinds, each alone or all
 * ------------------------------------------------ */

struct native {
	struct threads *user, *vhost, *child; /* child: in shared memory */
	struct dirty_source *user_src;
	uint64_t *log;
	size_t log_bytes;
	uint32_t logging; /* atomic: VHOST_F_LOG_ALL is on */
	pid_t pid;
};

static struct native *native(const struct conform *c)
{
	return c->priv;
}

static int native_open(struct conform *c)
{
	struct native *n = calloc(1, sizeof(*n));

	assert_non_null(n);
	conform_layout(c);
	c->priv = n;
	assert_int_equal(dirty_set_create(&c->ram, &c->set), 0);
	return 0;
}

static void add(struct conform *c, struct dirty_source *src)
{
	assert_int_equal(dirty_set_add(c->set, src), 0);
}

static void user_mark(struct conform *c, uint64_t page)
{
	dirty_user_mark(native(c)->user_src, ram_gpa(&c->ram, page) + 17, 5);
}

static void add_user(struct conform *c)
{
	struct native *n = native(c);

	assert_int_equal(dirty_user_create(&c->ram, &n->user_src), 0);
	add(c, n->user_src);
	n->user = threads_start(c, WRITERS, user_mark);
}

static int user_open(struct conform *c)
{
	int err = native_open(c);

	add_user(c);
	return err;
}

/* A byte at a time, as vhost-user back ends do. */
static void vhost_mark(struct conform *c, uint64_t page)
{
	struct native *n = native(c);
	uint64_t bit = ram_gpa(&c->ram, page) >> RAM_PAGE_SHIFT;

	if (__atomic_load_n(&n->logging, __ATOMIC_RELAXED))
		__atomic_fetch_or((uint8_t *)n->log + bit / 8, (uint8_t)(1 << bit % 8),
				  __ATOMIC_SEQ_CST);
}

static int vhost_enable(void *arg, bool on)
{
	__atomic_store_n(&((struct native *)arg)->logging, on, __ATOMIC_SEQ_CST);
	return 0;
}

static void add_vhost(struct conform *c)
{
	struct native *n = native(c);
	const struct ram_block *last = &c->ram.block[c->ram.nblocks - 1];
	struct dirty_source *src;

	n->log_bytes = (((last->gpa + last->size) >> RAM_PAGE_SHIFT) + 63) / 64 *
		       sizeof(*n->log);
	n->log = calloc(1, n->log_bytes);
	assert_non_null(n->log);
	assert_int_equal(dirty_vhost_log_create(&c->ram, n->log, n->log_bytes - 8,
						vhost_enable, n, &src),
			 -EINVAL);
	assert_int_equal(dirty_vhost_log_create(&c->ram, n->log, n->log_bytes,
						vhost_enable, n, &src),
			 0);
	add(c, src);
	n->vhost = threads_start(c, WRITERS, vhost_mark);
}

static int vhost_open(struct conform *c)
{
	int err = native_open(c);

	add_vhost(c);
	return err;
}

/* The child: mappings of its own, which it registers; its threads; until it is killed. */
static void child_main(struct conform *c, struct threads *t, uint64_t *va,
		       uint32_t *state)
{
	pthread_t id;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (unsigned int b = 0; b < c->ram.nblocks; b++) {
		const struct ram_block *block = &c->ram.block[b];
		void *p = mmap(NULL, block->size, PROT_READ | PROT_WRITE, MAP_SHARED,
			       block->fd, 0);
		int fd =
			p == MAP_FAILED ? -errno : dirty_pagemap_register(p, block->size);

		if (fd < 0) {
			__atomic_store_n(state, fd == -EOPNOTSUPP ? 3 : 2,
					 __ATOMIC_RELEASE);
			_exit(1);
		}
		va[b] = (uintptr_t)p;
		for (unsigned int i = 0; i < t->n; i++)
			t->w[i].base[b] = p;
	}
	for (unsigned int i = 1; i < t->n; i++)
		if (pthread_create(&id, NULL, conform_writer_main, &t->w[i]))
			_exit(1);
	__atomic_store_n(state, 1, __ATOMIC_RELEASE);
	conform_writer_main(&t->w[0]);
	_exit(0);
}

static void *shared(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		       -1, 0);

	assert_true(p != MAP_FAILED);
	return p;
}

struct child_mem {
	struct threads t;
	uint64_t va[RAM_MAX_BLOCKS];
	uint32_t state; /* 0: not yet, 1: it runs, 2: no, 3: not on this kernel */
};

/* Before any thread runs. */
static int add_pagemap(struct conform *c)
{
	struct native *n = native(c);
	struct child_mem *m = shared(sizeof(*m));
	struct dirty_source *src;
	char path[64];
	int fd, status;

	fill(&m->t, c, WRITERS, NULL);
	n->child = &m->t;
	n->pid = fork();
	assert_true(n->pid >= 0);
	if (!n->pid)
		child_main(c, &m->t, m->va, &m->state);
	while (!__atomic_load_n(&m->state, __ATOMIC_ACQUIRE))
		if (waitpid(n->pid, &status, WNOHANG) == n->pid)
			break;
	if (m->state == 3)
		return -EOPNOTSUPP;
	assert_int_equal(m->state, 1);
	snprintf(path, sizeof(path), "/proc/%d/pagemap", n->pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(dirty_pagemap_create(&c->ram, fd, m->va, &src), 0);
	close(fd);
	add(c, src);
	return 0;
}

static void native_go(struct conform *c)
{
	struct native *n = native(c);

	if (n->user)
		threads_go(n->user);
	if (n->vhost)
		threads_go(n->vhost);
	if (n->child)
		threads_go(n->child);
}

static void native_halt(struct conform *c)
{
	struct native *n = native(c);

	if (n->child)
		threads_halt(n->child);
	if (n->vhost)
		threads_halt(n->vhost);
	if (n->user)
		threads_halt(n->user);
}

static void native_close(struct conform *c)
{
	struct native *n = native(c);

	if (n->child) {
		if (n->pid > 0) {
			kill(n->pid, SIGKILL);
			waitpid(n->pid, NULL, 0);
		}
		for (unsigned int i = 0; i < n->child->n; i++) {
			c->writes += n->child->w[i].writes;
			free(n->child->w[i].page);
		}
		munmap(n->child, sizeof(struct child_mem));
	}
	if (n->vhost)
		c->writes += threads_end(n->vhost);
	if (n->user)
		c->writes += threads_end(n->user);
	dirty_set_destroy(c->set);
	free(n->log);
	free(n);
}

static int pagemap_open(struct conform *c)
{
	int err = native_open(c);

	if (!err)
		err = add_pagemap(c);
	if (err)
		native_close(c);
	return err;
}

static int mixed_open(struct conform *c)
{
	int err = pagemap_open(c);

	if (err)
		return err;
	add_user(c);
	add_vhost(c);
	return 0;
}

const struct conform_kind kind_user = {
	.name = "user",
	.open = user_open,
	.go = native_go,
	.halt = native_halt,
	.close = native_close,
	.marks = true,
};
const struct conform_kind kind_vhost_log = {
	.name = "vhost log",
	.open = vhost_open,
	.go = native_go,
	.halt = native_halt,
	.close = native_close,
	.marks = true,
};
const struct conform_kind kind_pagemap = {
	.name = "pagemap",
	.open = pagemap_open,
	.go = native_go,
	.halt = native_halt,
	.close = native_close,
	.lazy = true,
};
const struct conform_kind kind_mixed = {
	.name = "mixed",
	.open = mixed_open,
	.go = native_go,
	.halt = native_halt,
	.close = native_close,
	.marks = true,
};
