// SPDX-License-Identifier: BSD-2-Clause
/*
 * The DMA log in a migration: while a worker writes into a guest without a pause, its
 * pages are copied by the bitmaps that "dma-log-swap" gives, and in the end the copy is
 * equal.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../user/lib/log.h"
#include "dma_rig.h"

#define PAGE 4096U

#define CMD(c) "{\"cmd\":\"dma-log-" c "\",\"instance\":\"vm1\"}"

#define ROUNDS 300U
#define PLACES 40U /* as many slots as the first region has */
#define FRAME  1500U

/*
 * A worker that never stops: frames go into the guest all the time, and calls of the
 * control thread are served between two. Queue 1 has no worker.
 */
struct mover {
	struct dma_rig *r;
	pthread_t thread;
	bool stop;
	struct mover_call {
		void (*fn)(void *arg);
		void *arg;
		bool done;
	} * call;
	unsigned int round;
	uint64_t frames;
	uint8_t *copy[GUEST_REGIONS]; /* the destination's memory */
};

/* Where the frames of a round go. */
static uint64_t place(unsigned int round)
{
	return GUEST_DATA + round % PLACES * DMA_SLOT_LEN + round * 32 % 3000;
}

static void *move(void *arg)
{
	struct mover *m = arg;
	struct driver_buf b = { 0, DMA_BUF_LEN };
	uint8_t fill = 1;

	while (!__atomic_load_n(&m->stop, __ATOMIC_ACQUIRE)) {
		struct mover_call *c = __atomic_load_n(&m->call, __ATOMIC_ACQUIRE);
		uint64_t cookie;
		uint32_t len;

		if (c) {
			__atomic_store_n(&m->call, NULL, __ATOMIC_RELAXED);
			c->fn(c->arg);
			__atomic_store_n(&c->done, true, __ATOMIC_RELEASE);
		}
		while (driver_get(&m->r->rx, &cookie, &len))
			;
		b.gpa = place(__atomic_load_n(&m->round, __ATOMIC_ACQUIRE));
		if (!driver_add(&m->r->rx, &b, 0, 1, 0, 0))
			dma_inject(m->r, 0, FRAME, fill++);
		__atomic_fetch_add(&m->frames, 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

static void call_mover(void *owner, unsigned int queue, void (*fn)(void *arg), void *arg)
{
	struct mover *m = owner;
	struct mover_call c = { fn, arg, false };

	if (queue || !m->thread) {
		fn(arg);
		return;
	}
	__atomic_store_n(&m->call, &c, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&c.done, __ATOMIC_ACQUIRE))
		sched_yield();
}

/* The mover is told of the log by the calls alone. */
static void changed(void *owner)
{
}

/* A page that is being written is copied as it is, and again when it is marked again:
 * what a thread sanitizer calls a race is how a migration works. */
__attribute__((no_sanitize_thread)) static void
copy_bytes(uint8_t *to, const volatile uint8_t *from, uint64_t len)
{
	for (uint64_t i = 0; i < len; i++)
		to[i] = from[i];
}

static void copy_page(struct mover *m, uint64_t page)
{
	for (unsigned int i = 0; i < GUEST_REGIONS; i++) {
		const struct guest_region *g = &m->r->g.region[i];
		uint64_t from = page * PAGE, to = from + PAGE;

		if (from < g->gpa)
			from = g->gpa;
		if (to > g->gpa + g->size)
			to = g->gpa + g->size;
		if (from < to)
			copy_bytes(m->copy[i] + (from - g->gpa),
				   g->base + (from - g->gpa), to - from);
	}
}

/* Copy what is marked, clear the bitmap. Return: pages */
static uint64_t harvest(struct mover *m, uint8_t *map, size_t len)
{
	uint64_t n = 0;

	for (uint64_t p = 0; p < len * 8; p++) {
		if (!map[p / 8]) {
			p |= 7;
			continue;
		}
		if (!(map[p / 8] & 1U << p % 8))
			continue;
		n++;
		copy_page(m, p);
	}
	memset(map, 0, len);
	return n;
}

/* A frame of this round, at least. */
static void wait_for_frame(struct mover *m)
{
	uint64_t n = __atomic_load_n(&m->frames, __ATOMIC_ACQUIRE);

	while (__atomic_load_n(&m->frames, __ATOMIC_ACQUIRE) < n + 2)
		sched_yield();
}

/* Has all of a round been copied? */
static bool copied(const struct mover *m, unsigned int round)
{
	uint64_t at = place(round), len = FRAME + 12;

	return !memcmp(m->copy[0] + (at - GUEST_DATA), guest_ptr(&m->r->g, at, len), len);
}

/*
 * A round writes in a place of its own, again and again; when the next one is announced
 * it is over by the end of the swap, and all of it must have been copied by the end of
 * the one after: a mark that comes late, or in a bitmap that has been harvested, is
 * found.
 */
static void migrates(void **state)
{
	struct dma_rig *r = *state;
	struct mover m = { .r = r };
	/* Only the guest's part: the holes of the rest would be filled. */
	const size_t len =
		((GUEST_RING + GUEST_RING_LEN) / PAGE / 8 + PAGE) & ~(PAGE - 1UL);
	struct ctl_fds fds;
	unsigned int lost = 0;
	uint64_t pages = 0;
	uint8_t *map[2];
	json_t *o;

	dma_connect(r, false);
	r->in->env.call = call_mover;
	r->in->env.changed = changed;
	r->in->env.owner = &m;
	for (unsigned int i = 0; i < GUEST_REGIONS; i++) {
		m.copy[i] = malloc(r->g.region[i].size);
		assert_non_null(m.copy[i]);
	}
	assert_int_equal(pthread_create(&m.thread, NULL, move, &m), 0);
	json_decref(dma_ask_ok(r, CMD("start"), &fds));
	for (unsigned int i = 0; i < 2; i++) {
		map[i] =
			mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fds.fd[i], 0);
		assert_ptr_not_equal(map[i], MAP_FAILED);
	}
	ctl_fds_close(&fds);
	for (unsigned int i = 0; i < GUEST_REGIONS; i++)
		copy_bytes(m.copy[i], r->g.region[i].base, r->g.region[i].size);
	for (unsigned int i = 0; i < ROUNDS; i++) {
		wait_for_frame(&m);
		__atomic_store_n(&m.round, i + 1, __ATOMIC_RELEASE);
		o = dma_ask_ok(r, CMD("swap"), &fds);
		ctl_fds_close(&fds);
		pages += harvest(&m, map[dma_number(o, "harvest")], len);
		json_decref(o);
		if (i && !copied(&m, i - 1))
			lost++;
	}
	__atomic_store_n(&m.stop, true, __ATOMIC_RELEASE);
	pthread_join(m.thread, NULL);
	m.thread = 0;
	o = dma_ask_ok(r, CMD("stop"), &fds);
	ctl_fds_close(&fds);
	pages += harvest(&m, map[dma_number(o, "harvest")], len);
	json_decref(o);

	assert_int_equal(lost, 0);
	assert_true(pages > ROUNDS);
	for (unsigned int i = 0; i < GUEST_REGIONS - 1; i++)
		assert_memory_equal(m.copy[i], r->g.region[i].base, r->g.region[i].size);
	/* Of the rings' region, what the device writes: the driver's part is the CPU's.
	 */
	assert_memory_equal(m.copy[GUEST_REGIONS - 1] + (r->rx.used - GUEST_RING),
			    guest_ptr(&r->g, r->rx.used, 4 + 8 * DMA_RING_SIZE),
			    4 + 8 * DMA_RING_SIZE);
	for (unsigned int i = 0; i < 2; i++)
		munmap(map[i], len);
	for (unsigned int i = 0; i < GUEST_REGIONS; i++)
		free(m.copy[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(migrates, dma_setup, dma_teardown),
	};

	log_set_level(LOG_LVL_ERROR);
	alarm(60);
	return cmocka_run_group_tests_name("dma_migrate", tests, NULL, NULL);
}
