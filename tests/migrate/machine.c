// SPDX-License-Identifier: BSD-2-Clause
/* machine: see machine.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "../../user/lib/bitmap.h"
#include "../../user/lib/clock.h"
#include "machine.h"

#define GATE_CPU    1U
#define GATE_DEVICE 2U
#define RUNS_MS	    30000 /* until every writer has had a CPU, on a machine with much to do */

/* ---- a log that is cleared by hand, as KVM's --------------------------------------- */

struct manual {
	struct dirty_source src;
	uint64_t *map;
};

static int manual_start(struct dirty_source *src)
{
	struct manual *l = (struct manual *)src;

	for (size_t i = 0; i < ram_words(src->ram); i++)
		__atomic_store_n(&l->map[i], 0, __ATOMIC_SEQ_CST);
	return 0;
}

static int64_t manual_harvest(struct dirty_source *src, uint64_t *bitmap)
{
	struct manual *l = (struct manual *)src;
	int64_t n = 0;

	for (size_t i = 0; i < ram_words(src->ram); i++) {
		uint64_t bits = __atomic_load_n(&l->map[i], __ATOMIC_SEQ_CST);

		bitmap[i] |= bits;
		n += __builtin_popcountll(bits);
	}
	return n;
}

static int manual_clear(struct dirty_source *src, uint64_t first, uint64_t n,
			const uint64_t *taken)
{
	struct manual *l = (struct manual *)src;

	for (uint64_t i = 0; i < n / 64; i++)
		__atomic_fetch_and(&l->map[first / 64 + i], ~taken[i], __ATOMIC_SEQ_CST);
	return 0;
}

/* KVM's log is gone with the flag of the slot. */
static void manual_stop(struct dirty_source *src)
{
	manual_start(src);
}

static void manual_destroy(struct dirty_source *src)
{
	free(((struct manual *)src)->map);
	free(src);
}

static const struct dirty_ops manual_ops = {
	.name = "manual",
	.by = DIRTY_BY_CPU,
	.start = manual_start,
	.harvest = manual_harvest,
	.clear = manual_clear,
	.stop = manual_stop,
	.destroy = manual_destroy,
};

static int manual_create(const struct ram *ram, struct dirty_source **src)
{
	struct manual *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	l->src = (struct dirty_source){ .ops = &manual_ops, .ram = ram };
	l->map = calloc(ram_words(ram) + 1, sizeof(*l->map));
	if (!l->map) {
		free(l);
		return -ENOMEM;
	}
	*src = &l->src;
	return 0;
}

/* ---- writers ----------------------------------------------------------------------- */

static void mark(struct writer *w, uint64_t page)
{
	struct machine *m = w->m;
	uint64_t gpa = ram_gpa(&m->ram, page);

	if (w->vhost)
		__atomic_fetch_or((uint8_t *)m->vhost_log + (gpa >> 12) / 8,
				  (uint8_t)(1U << ((gpa >> 12) % 8)), __ATOMIC_SEQ_CST);
	else if (w->device)
		dirty_user_mark(m->user, gpa, 1);
	else if (m->conf.cpu_log == MACHINE_MANUAL)
		bitmap_set_atomic(((struct manual *)m->cpu)->map, page);
}

void machine_mark(struct machine *m, uint64_t page, bool device)
{
	mark(&(struct writer){ .m = m, .device = device }, page);
}

/* A page that exists, by the number @n among all that do */
static uint64_t pick(const struct machine *m, uint64_t n, uint8_t **at, bool alias)
{
	unsigned int b = 0;

	while (n >= m->conf.block[b].pages)
		n -= m->conf.block[b++].pages;
	*at = (alias ? m->alias[b] : m->ram.block[b].hva) + n * RAM_PAGE_SIZE;
	return m->ram.block[b].first_page + n;
}

static uint64_t all_pages(const struct machine *m)
{
	return m->ram.bytes >> RAM_PAGE_SHIFT;
}

/* Two pages trade places. */
static void swap_with(struct writer *w, uint8_t *at, uint64_t other, bool alias)
{
	uint8_t a[RAM_PAGE_SIZE], *to;
	uint64_t page = pick(w->m, other, &to, alias);

	memcpy(a, at, sizeof(a));
	memmove(at, to, sizeof(a));
	memcpy(to, a, sizeof(a));
	mark(w, page);
}

static void write_once(struct writer *w, uint64_t *seed)
{
	struct machine *m = w->m;
	uint64_t span = m->conf.span ? m->conf.span : all_pages(m), r = rnd(seed);
	bool alias = !w->device && m->conf.cpu_log == MACHINE_SCAN;
	uint64_t page, off = (r >> 40) % 512 * 8;
	uint8_t *at;

	page = pick(m, rnd(seed) % span, &at, alias);
	switch (r % 16) {
	case 3:
		if (w->device) { /* a balloon */
			const struct ram_block *b = ram_block_of(&m->ram, page);

			fallocate(b->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				  (off_t)((page - b->first_page) << RAM_PAGE_SHIFT),
				  RAM_PAGE_SIZE);
		} else {
			swap_with(w, at, rnd(seed) % span, alias);
		}
		break;
	case 0: memset(at, 0, RAM_PAGE_SIZE); break;
	case 1: memset(at, (int)(r >> 8 | 1), RAM_PAGE_SIZE); break;
	/* What is there already: dirty, and the same */
	case 2:
		__atomic_fetch_add((uint64_t *)(void *)(at + off), 0, __ATOMIC_RELAXED);
		break;
	default: __atomic_store_n((uint64_t *)(void *)(at + off), r, __ATOMIC_RELAXED);
	}
	mark(w, page);
}

static void rest(const struct machine *m)
{
	struct timespec ts = { .tv_nsec = (long)m->conf.pace_us * 1000 };

	if (m->conf.pace_us)
		nanosleep(&ts, NULL);
}

static bool may_run(const struct writer *w)
{
	return w->device ? w->m->devices_run : w->m->cpus_run;
}

static void *writer_main(void *arg)
{
	struct writer *w = arg;
	struct machine *m = w->m;
	unsigned int mine = w->device ? GATE_DEVICE : GATE_CPU;
	uint64_t seed = m->conf.seed * 977 + w->index + 1;
	bool quit = false;

	while (!quit) {
		if (atomic_load(&m->gate) & mine) {
			write_once(w, &seed);
			atomic_fetch_add(&w->writes, 1);
			rest(m);
			continue;
		}
		pthread_mutex_lock(&m->lock);
		m->parked[w->device]++;
		pthread_cond_broadcast(&m->changed);
		while (!may_run(w) && !m->quit)
			pthread_cond_wait(&m->changed, &m->lock);
		m->parked[w->device]--;
		quit = m->quit;
		pthread_mutex_unlock(&m->lock);
	}
	return NULL;
}

static void set_gate(struct machine *m, bool cpus, bool devices)
{
	m->cpus_run = cpus;
	m->devices_run = devices;
	atomic_store(&m->gate, (cpus ? GATE_CPU : 0) | (devices ? GATE_DEVICE : 0));
	pthread_cond_broadcast(&m->changed);
}

/* ---- what a migration asks for ----------------------------------------------------- */

static void await_parked(struct machine *m, bool devices)
{
	unsigned int n = devices ? m->conf.devices : m->conf.vcpus;

	while (m->parked[devices] < n)
		pthread_cond_wait(&m->changed, &m->lock);
}

static int machine_pause(void *vm)
{
	struct machine *m = vm;

	pthread_mutex_lock(&m->lock);
	m->pauses++;
	set_gate(m, false, m->devices_run);
	await_parked(m, false);
	pthread_mutex_unlock(&m->lock);
	return 0;
}

static int machine_drain(void *vm)
{
	struct machine *m = vm;

	pthread_mutex_lock(&m->lock);
	m->drains++;
	set_gate(m, m->cpus_run, false);
	await_parked(m, true);
	pthread_mutex_unlock(&m->lock);
	if (!m->fail_drain)
		return 0;
	m->fail_drain = false;
	return -ENODEV;
}

/* Saving writes guest memory, as a ring's index that is flushed does. */
static int machine_save(void *vm, struct state_writer *w)
{
	struct machine *m = vm;
	uint8_t *at = m->ram.block[0].hva;

	m->saves++;
	if (m->fail_save) {
		m->fail_save = false;
		return -ENODEV;
	}
	*(uint64_t *)(void *)at = machine_writes(m) ^ m->saves;
	dirty_user_mark(m->user, m->ram.block[0].gpa, 8);
	state_begin(w, "machine", 0, 1);
	state_put_u64(w, MACHINE_STATE_MAGIC);
	state_put_u64(w, machine_writes(m));
	state_end(w);
	return 0;
}

static void machine_resume(void *vm)
{
	struct machine *m = vm;

	pthread_mutex_lock(&m->lock);
	m->resumes++;
	set_gate(m, true, true);
	pthread_mutex_unlock(&m->lock);
}

static void machine_release(void *vm)
{
	((struct machine *)vm)->releases++;
}

static int machine_throttle(void *vm, unsigned int percent)
{
	struct machine *m = vm;

	m->throttle = percent;
	return 0;
}

const struct precopy_vm_ops machine_ops = {
	.pause = machine_pause,
	.drain = machine_drain,
	.save = machine_save,
	.resume = machine_resume,
	.release = machine_release,
	.throttle = machine_throttle,
};

uint64_t machine_writes(const struct machine *m)
{
	uint64_t n = 0;

	for (unsigned int i = 0; i < m->nwriters; i++)
		n += atomic_load(&m->writer[i].writes);
	return n;
}

bool machine_runs(struct machine *m)
{
	const struct timespec tick = { .tv_nsec = 1000000 };
	uint64_t deadline = clock_ns() + RUNS_MS * 1000000ULL;

	/* Nobody will open it any more. */
	if (atomic_load(&m->gate) != (GATE_CPU | GATE_DEVICE))
		return false;
	for (unsigned int i = 0; i < m->nwriters; i++) {
		uint64_t before = atomic_load(&m->writer[i].writes);

		while (atomic_load(&m->writer[i].writes) == before) {
			if (clock_ns() > deadline)
				return false;
			nanosleep(&tick, NULL);
		}
	}
	return true;
}

/* ---- source ------------------------------------------------------------------------ */

/* The vCPUs' own mapping of each block, watched by PAGEMAP_SCAN. */
static int add_scan(struct machine *m)
{
	uint64_t va[3] = { 0 };
	int fd, err;

	for (unsigned int b = 0; b < m->ram.nblocks; b++) {
		const struct ram_block *k = &m->ram.block[b];
		void *p = mmap(NULL, k->size, PROT_READ | PROT_WRITE, MAP_SHARED, k->fd,
			       (off_t)k->fd_offset);

		if (p == MAP_FAILED)
			return -errno;
		m->alias[b] = p;
		va[b] = (uintptr_t)p;
		m->uffd[b] = dirty_pagemap_register(p, k->size);
		if (m->uffd[b] < 0)
			return m->uffd[b];
	}
	fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	err = dirty_pagemap_create(&m->ram, fd, va, &m->cpu);
	close(fd);
	return err;
}

static int add_vhost(struct machine *m)
{
	const struct ram_block *last = &m->ram.block[m->ram.nblocks - 1];
	struct dirty_source *src;
	int err;

	m->vhost_bytes = ((last->gpa + last->size) >> 15) + 64;
	m->vhost_bytes &= ~63UL;
	m->vhost_log = aligned_alloc(64, m->vhost_bytes);
	if (!m->vhost_log)
		return -ENOMEM;
	memset(m->vhost_log, 0, m->vhost_bytes);
	err = dirty_vhost_log_create(&m->ram, m->vhost_log, m->vhost_bytes, NULL, NULL,
				     &src);
	return err ? err : dirty_set_add(m->dirty, src);
}

static int make(struct machine *m)
{
	uint64_t seed = m->conf.seed * 31 + 7;
	int err = 0;

	for (unsigned int b = 0; b < m->conf.nblocks && !err; b++)
		err = ram_add(&m->ram, m->conf.block[b].gpa,
			      m->conf.block[b].pages * RAM_PAGE_SIZE, 0);
	for (unsigned int b = 0; b < m->ram.nblocks && !err; b++)
		for (uint64_t n = m->conf.block[b].filled; n; n--) {
			uint64_t page = rnd(&seed) % m->conf.block[b].pages;
			uint64_t *at = (uint64_t *)(void *)(m->ram.block[b].hva +
							    page * RAM_PAGE_SIZE);

			for (unsigned int i = 0; i < 512; i += 64)
				at[i] = rnd(&seed);
		}
	if (!err)
		err = dirty_set_create(&m->ram, &m->dirty);
	if (!err)
		err = dirty_user_create(&m->ram, &m->user);
	if (!err)
		err = dirty_set_add(m->dirty, m->user);
	if (!err)
		err = m->conf.cpu_log == MACHINE_SCAN ? add_scan(m)
						      : manual_create(&m->ram, &m->cpu);
	if (!err)
		err = dirty_set_add(m->dirty, m->cpu);
	if (!err && m->conf.vhost)
		err = add_vhost(m);
	return err;
}

int machine_start(const struct machine_conf *conf, struct machine **out)
{
	struct machine *m = calloc(1, sizeof(*m));
	int err;

	if (!m)
		return -ENOMEM;
	m->conf = *conf;
	m->uffd[0] = m->uffd[1] = m->uffd[2] = -1;
	pthread_mutex_init(&m->lock, NULL);
	pthread_cond_init(&m->changed, NULL);
	set_gate(m, true, true);
	err = make(m);
	for (unsigned int i = 0; i < conf->vcpus + conf->devices && !err; i++) {
		struct writer *w = &m->writer[i];

		w->m = m;
		w->index = i;
		w->device = i >= conf->vcpus;
		w->vhost = w->device && conf->vhost && i % 2;
		err = -pthread_create(&w->thread, NULL, writer_main, w);
		m->nwriters += !err;
	}
	if (err)
		machine_stop(m);
	else
		*out = m;
	return err;
}

void machine_stop(struct machine *m)
{
	if (!m)
		return;
	pthread_mutex_lock(&m->lock);
	m->quit = true;
	set_gate(m, false, false);
	pthread_mutex_unlock(&m->lock);
	for (unsigned int i = 0; i < m->nwriters; i++)
		pthread_join(m->writer[i].thread, NULL);
	dirty_set_destroy(m->dirty);
	for (unsigned int b = 0; b < 3; b++) {
		if (m->alias[b])
			munmap(m->alias[b], m->ram.block[b].size);
		if (m->uffd[b] >= 0)
			close(m->uffd[b]);
	}
	ram_fini(&m->ram);
	free(m->vhost_log);
	pthread_cond_destroy(&m->changed);
	pthread_mutex_destroy(&m->lock);
	free(m);
}
