// SPDX-License-Identifier: BSD-2-Clause
/*
 * dma_log: exactly the pages that were written are marked, by address arithmetic and by
 * a ring under random traffic, compared with what changed in the guest's memory; and a
 * writer that never stops loses no page over swaps and changes of the front end's log.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../user/daemon/dma_log.h"
#include "driver.h"

#define PAGE  4096ULL
#define GUARD 64 /* bytes around a map that must stay zero */

/* A test with no worker beside it waits for nobody. */
static void no_wait(void *arg)
{
	unsigned int *calls = arg;

	(*calls)++;
}

static unsigned int waited;
static const struct dma_log_grace nobody = { .wait = no_wait, .arg = &waited };

static bool bit(const uint8_t *map, uint64_t page)
{
	return map[page / 8] >> page % 8 & 1;
}

/* ---- addresses ------------------------------------------------------------------- */

#define MAP_BYTES 9U /* 72 pages */

static void test_mark(void **state)
{
	static const struct {
		uint64_t gpa, len, first, n, beyond;
	} t[] = {
		{ 0, 1, 0, 1, 0 },
		{ 4095, 1, 0, 1, 0 },
		{ 4095, 2, 0, 2, 0 },
		{ 4096, 4096, 1, 1, 0 },
		{ 7 * PAGE, 2 * PAGE, 7, 2, 0 },
		{ 8 * PAGE, 8 * PAGE, 8, 8, 0 },
		{ 3 * PAGE + 5, 40 * PAGE, 3, 41, 0 },
		{ 71 * PAGE + 4095, 1, 71, 1, 0 },
		{ 71 * PAGE + 4095, 2, 71, 1, 1 },
		{ 72 * PAGE, 1, 0, 0, 1 },
		{ 100 * PAGE, 3 * PAGE, 0, 0, 3 },
		{ 0, 100 * PAGE, 0, 72, 28 },
		{ 5, 0, 0, 0, 0 },
		{ UINT64_MAX, 1, 0, 0, 1 },
		{ UINT64_MAX - 5, 100, 0, 0, 1 },
	};

	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		uint8_t buf[GUARD + MAP_BYTES + GUARD] = { 0 };
		struct dma_log log;

		dma_log_init(&log);
		dma_log_mark(&log, t[i].gpa, t[i].len); /* off: nobody notices */
		assert_int_equal(log.marked + log.beyond, 0);
		dma_log_set_front(&log, buf + GUARD, MAP_BYTES, &nobody);
		dma_log_mark(&log, t[i].gpa, t[i].len);
		for (unsigned int p = 0; p < MAP_BYTES * 8; p++)
			assert_int_equal(bit(buf + GUARD, p), p - t[i].first < t[i].n);
		for (unsigned int k = 0; k < GUARD; k++)
			assert_int_equal(buf[k] | buf[GUARD + MAP_BYTES + k], 0);
		assert_int_equal(log.marked, t[i].n);
		assert_int_equal(log.beyond, t[i].beyond);
		dma_log_set_front(&log, NULL, 0, &nobody);
		assert_false(dma_log_on(&log));
		dma_log_fini(&log);
	}
}

/* ---- the pair, as its harvester sees it ------------------------------------------ */

static void test_pair(void **state)
{
	uint8_t front[16] = { 0 };
	struct dma_log log;
	uint8_t *map[2];

	dma_log_init(&log);
	assert_int_equal(dma_log_swap(&log, &nobody), -ENOENT);
	assert_int_equal(dma_log_enable_pair(&log, 0, &nobody), -EINVAL);
	assert_int_equal(dma_log_enable_pair(&log, 1ULL << 41, &nobody), -EINVAL);
	assert_int_equal(log.pair_fd[0], -1);
	waited = 0;
	assert_int_equal(dma_log_enable_pair(&log, 100, &nobody), 0);
	assert_int_equal(waited, 1);
	assert_int_equal(dma_log_enable_pair(&log, 100, &nobody), -EALREADY);
	for (unsigned int i = 0; i < 2; i++) {
		/* The other holder of the memory cannot pull it away. */
		assert_int_equal(ftruncate(log.pair_fd[i], 0), -1);
		map[i] = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
			      log.pair_fd[i], 0);
		assert_ptr_not_equal(map[i], MAP_FAILED);
	}

	dma_log_set_front(&log, front, sizeof(front), &nobody);
	dma_log_mark(&log, 5 * PAGE, 1);
	dma_log_mark_pair(&log, 6 * PAGE, 1);
	dma_log_mark_front(&log, 7 * PAGE, 1);
	assert_int_equal(map[0][0], 0x60);
	assert_int_equal(map[1][0], 0);
	assert_int_equal(front[0], 0xa0);

	assert_int_equal(dma_log_swap(&log, &nobody), 0);
	dma_log_mark(&log, 0, 1);
	assert_int_equal(map[0][0], 0x60);
	assert_int_equal(map[1][0], 0x01);
	map[0][0] = 0;
	assert_int_equal(dma_log_swap(&log, &nobody), 1);
	dma_log_mark(&log, PAGE, 1);
	assert_int_equal(map[0][0], 0x02);
	/* Beyond the pair, not beyond the front end's log. */
	dma_log_mark(&log, 100 * PAGE, 2);
	assert_int_equal(log.beyond, 1);

	dma_log_disable_pair(&log, &nobody);
	assert_int_equal(log.pair_fd[0], -1);
	assert_true(dma_log_on(&log));
	dma_log_mark(&log, 2 * PAGE, 1);
	assert_int_equal(map[0][0], 0x02);
	assert_int_equal(front[0], 0xa7);
	dma_log_set_front(&log, NULL, 0, &nobody);
	assert_false(dma_log_on(&log));
	/* A second migration, after one that failed. */
	assert_int_equal(dma_log_enable_pair(&log, 8, &nobody), 0);
	assert_true(dma_log_on(&log));
	dma_log_fini(&log);
	munmap(map[0], PAGE);
	munmap(map[1], PAGE);
}

/* ---- a ring ---------------------------------------------------------------------- */

#define SLOTS	 16U
#define SLOT_LEN 0x6000U /* bytes of guest memory for each chain's buffers */
#define USED_AT	 (GUEST_RING + 0x8ffc) /* the index ends a page, the entries follow */
#define LOG_GPA	 0x3000000ffcULL       /* in no region; as far into its page */
#define LOG_SIZE ((LOG_GPA >> 12) / 8 + 4096)

struct shadow {
	uint8_t *copy[GUEST_REGIONS];
};

/* Guest pages that differ from the shadow, as bits by gpa. */
static void diff(const struct guest *g, struct shadow *s, uint8_t *dirty)
{
	for (unsigned int i = 0; i < GUEST_REGIONS; i++) {
		const struct guest_region *r = &g->region[i];

		for (uint64_t k = 0, n; k < r->size; k += n) {
			uint64_t page = (r->gpa + k) / PAGE;

			n = (page + 1) * PAGE - (r->gpa + k);
			if (n > r->size - k)
				n = r->size - k;
			if (memcmp(r->base + k, s->copy[i] + k, n))
				dirty[page / 8] |= (uint8_t)(1U << page % 8);
		}
	}
}

static void snapshot(const struct guest *g, struct shadow *s)
{
	for (unsigned int i = 0; i < GUEST_REGIONS; i++)
		memcpy(s->copy[i], g->region[i].base, g->region[i].size);
}

static void *bitmap(void)
{
	void *p = mmap(NULL, LOG_SIZE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	return p;
}

/* Every dirty page of @dirty is marked, and of the data region no other is. Ring pages
 * may be marked without a change: an entry can be written as it was. */
static void compare(const uint8_t *marked, const uint8_t *dirty, bool ring)
{
	uint64_t first = GUEST_RING / PAGE, n = GUEST_RING_LEN / PAGE;

	for (uint64_t p = GUEST_DATA / PAGE; p <= (GUEST_DATA + GUEST_DATA_LEN) / PAGE;
	     p++)
		assert_int_equal(bit(marked, p), bit(dirty, p));
	for (uint64_t p = first; ring && p < first + n; p++)
		if (bit(dirty, p))
			assert_true(bit(marked, p));
}

static void burst(struct driver *d, struct vring *v, struct shadow *s, unsigned int round)
{
	static struct iovec iov[SLOTS * 16];
	static uint64_t gpa[SLOTS * 16];
	struct vring_vec vec = { .max = SLOTS * 16, .iov = iov, .gpa = gpa };
	unsigned int n = 1 + round % SLOTS, taken = 0;
	uint64_t cookie;
	uint32_t len;

	for (unsigned int i = 0; i < n; i++) {
		unsigned int slot = (round * 7 + i) % SLOTS;
		uint64_t at = GUEST_DATA + slot * SLOT_LEN + round % 3000;
		const struct driver_buf b[] = { { at, 100 },
						{ at + 200, 12 },
						{ at + 5000, 4096 + round % 4096 },
						{ at + 14000, 1 } };

		if (driver_add(d, b, 1, 3, 0, i))
			break;
	}
	snapshot(d->g, s);
	for (struct vring_chain c; vring_take(v, &vec, &c) == 1; taken++) {
		/* Any length, the last byte of a page and none at all among them. */
		uint32_t w = (round * 977 + taken * 311) % (c.in_len + 1), left = w;

		for (unsigned int e = c.first + c.nout; left; e++)
			for (size_t k = 0; left && k < iov[e].iov_len; k++, left--)
				((uint8_t *)iov[e].iov_base)[k] ^= 0xff;
		vring_put(v, &vec, &c, w);
	}
	assert_true(taken);
	vring_publish(v);
	vring_should_notify(v);
	assert_false(vring_set_wakeup(v, true));
	while (driver_get(d, &cookie, &len))
		;
}

static void run_ring(const struct vring_conf *conf)
{
	uint8_t *front = bitmap(), *dirty = bitmap(), *pair[2];
	struct vring_conf c;
	struct shadow s;
	struct dma_log log;
	struct driver d;
	struct guest g;
	struct vring *v;

	guest_init(&g, false);
	driver_init(&d, &g, conf);
	if (!conf->packed)
		d.used = USED_AT;
	c = driver_conf(&d);
	for (unsigned int i = 0; i < GUEST_REGIONS; i++) {
		s.copy[i] = malloc(g.region[i].size);
		assert_non_null(s.copy[i]);
	}
	dma_log_init(&log);
	assert_int_equal(
		vring_create(&c, &g.mem, &log, conf->packed ? 0x80008000 : 0, &v), 0);
	dma_log_set_front(&log, front, LOG_SIZE, &nobody);
	assert_int_equal(
		dma_log_enable_pair(&log, (GUEST_RING + GUEST_RING_LEN) / PAGE, &nobody),
		0);
	for (unsigned int i = 0; i < 2; i++) {
		pair[i] = mmap(NULL, (GUEST_RING + GUEST_RING_LEN) / PAGE / 8,
			       PROT_READ | PROT_WRITE, MAP_SHARED, log.pair_fd[i], 0);
		assert_ptr_not_equal(pair[i], MAP_FAILED);
	}
	for (unsigned int round = 0; round < 200; round++) {
		bool log_used = round & 1;
		uint64_t first = GUEST_RING / PAGE, used = LOG_GPA / PAGE;
		unsigned int n = 0;
		int old;

		vring_set_log(v, log_used, LOG_GPA);
		burst(&d, v, &s, round);
		diff(&g, &s, dirty);
		compare(front, dirty, conf->packed && log_used && !conf->event_idx);
		old = dma_log_swap(&log, &nobody);
		assert_in_range(old, 0, 1);
		compare(pair[old], dirty, true);

		/* The used ring goes where the front end said, and only if it did. */
		for (uint64_t p = first; p < first + GUEST_RING_LEN / PAGE; p++)
			n += bit(front, p);
		assert_int_equal(!!n, conf->packed && log_used);
		n = 0;
		for (uint64_t p = used; p < used + 8; p++) {
			n += bit(front, p);
			if (log_used && !conf->packed &&
			    bit(dirty, USED_AT / PAGE + p - used))
				assert_true(bit(front, p));
		}
		assert_int_equal(!!n, log_used && (!conf->packed || conf->event_idx));

		memset(pair[old], 0, (GUEST_RING + GUEST_RING_LEN) / PAGE / 8);
		madvise(front, LOG_SIZE, MADV_DONTNEED);
		madvise(dirty, LOG_SIZE, MADV_DONTNEED);
	}
	assert_int_equal(log.beyond, 0);
	vring_destroy(v);
	dma_log_fini(&log);
	for (unsigned int i = 0; i < 2; i++)
		munmap(pair[i], (GUEST_RING + GUEST_RING_LEN) / PAGE / 8);
	for (unsigned int i = 0; i < GUEST_REGIONS; i++)
		free(s.copy[i]);
	driver_fini(&d);
	guest_fini(&g);
	munmap(front, LOG_SIZE);
	munmap(dirty, LOG_SIZE);
}

/* Rings of several pages, so that a burst's entries lie in one or two of them. */
static void test_ring(void **state)
{
	for (unsigned int f = 0; f < 4; f++)
		run_ring(&(struct vring_conf){ .packed = f & 1,
					       .event_idx = f & 2,
					       .size = f & 1 ? 1000 : 1024 });
}

/* ---- writers that never stop ----------------------------------------------------- */

#define WRITERS	 2U
#define PAGES	 64U
#define HARVESTS 400U

/*
 * The guest's pages are counters, each of one writer's. A harvester copies the pages that
 * are marked; when all is over its copy must be equal. Workers announce that they passed
 * a quiescent point as the daemon's do: when asked, between two bursts.
 */
struct race {
	struct dma_log log;
	uint64_t page[PAGES], copy[PAGES];
	unsigned int asked, passed[WRITERS];
	bool stop;
	uint8_t *front[2];
};

struct writer {
	struct race *r;
	unsigned int index;
	pthread_t thread;
	uint64_t bursts;
};

static void *write_pages(void *arg)
{
	struct writer *w = arg;
	struct race *r = w->r;
	uint64_t x = 12345 + w->index;

	while (!__atomic_load_n(&r->stop, __ATOMIC_ACQUIRE)) {
		for (unsigned int i = 0; i < 8; i++) {
			unsigned int p;

			x = x * 6364136223846793005ULL + 1442695040888963407ULL;
			p = (unsigned int)(x >> 33) % (PAGES / WRITERS) * WRITERS +
			    w->index;
			/* No locked operation: a mark must order it by itself. */
			__atomic_store_n(&r->page[p], r->page[p] + 1, __ATOMIC_RELAXED);
			dma_log_mark(&r->log, p * PAGE + 8, 8);
		}
		w->bursts++;
		__atomic_store_n(&r->passed[w->index],
				 __atomic_load_n(&r->asked, __ATOMIC_ACQUIRE),
				 __ATOMIC_RELEASE);
	}
	return NULL;
}

static void wait_passed(void *arg)
{
	struct race *r = arg;
	unsigned int n = __atomic_add_fetch(&r->asked, 1, __ATOMIC_RELEASE);

	for (unsigned int i = 0; i < WRITERS; i++)
		while (__atomic_load_n(&r->passed[i], __ATOMIC_ACQUIRE) != n)
			sched_yield();
}

/* Clear, then read the page. Return: pages */
static unsigned int harvest(struct race *r, uint8_t *map)
{
	unsigned int n = 0;

	for (unsigned int byte = 0; byte < PAGES / 8; byte++) {
		uint8_t bits = __atomic_exchange_n(&map[byte], 0, __ATOMIC_ACQ_REL);

		for (unsigned int p = byte * 8; bits; p++, bits >>= 1) {
			if (!(bits & 1))
				continue;
			r->copy[p] = __atomic_load_n(&r->page[p], __ATOMIC_RELAXED);
			n++;
		}
	}
	return n;
}

static void run_race(bool use_pair)
{
	struct race *r = calloc(1, sizeof(*r));
	struct dma_log_grace grace = { .wait = wait_passed, .arg = r };
	struct writer w[WRITERS] = { 0 };
	unsigned int harvested = 0;

	assert_non_null(r);
	dma_log_init(&r->log);
	for (unsigned int i = 0; i < 2; i++) {
		r->front[i] = calloc(1, PAGES / 8);
		assert_non_null(r->front[i]);
	}
	for (unsigned int i = 0; i < WRITERS; i++) {
		w[i] = (struct writer){ .r = r, .index = i };
		assert_int_equal(pthread_create(&w[i].thread, NULL, write_pages, &w[i]),
				 0);
	}
	/* Not logged until here: the first copy has all, as a first round does. */
	if (use_pair)
		assert_int_equal(dma_log_enable_pair(&r->log, PAGES, &grace), 0);
	else
		dma_log_set_front(&r->log, r->front[0], PAGES / 8, &grace);
	for (unsigned int p = 0; p < PAGES; p++)
		r->copy[p] = __atomic_load_n(&r->page[p], __ATOMIC_RELAXED);

	for (unsigned int i = 0; i < HARVESTS; i++) {
		if (use_pair) {
			int old = dma_log_swap(&r->log, &grace);

			assert_int_equal(old, i % 2);
			harvested += harvest(r, r->log.pair_map[old].base);
		} else if (i % 8) {
			/* As QEMU does, while it is being marked. */
			harvested += harvest(r, r->front[i / 8 % 2]);
		} else {
			/* Another log: the old one is read once more, then freed. */
			uint8_t *old = r->front[(i / 8 + 1) % 2];

			dma_log_set_front(&r->log, r->front[i / 8 % 2], PAGES / 8,
					  &grace);
			harvested += harvest(r, old);
			memset(old, 0, PAGES / 8);
		}
	}
	__atomic_store_n(&r->stop, true, __ATOMIC_RELEASE);
	for (unsigned int i = 0; i < WRITERS; i++) {
		pthread_join(w[i].thread, NULL);
		assert_true(w[i].bursts);
	}
	/* The rings have stopped: the last round. */
	for (unsigned int i = 0; i < 2; i++)
		harvested += harvest(r, use_pair ? r->log.pair_map[i].base : r->front[i]);
	assert_memory_equal(r->page, r->copy, sizeof(r->page));
	assert_true(harvested > HARVESTS);
	assert_int_equal(r->log.beyond, 0);
	dma_log_fini(&r->log);
	free(r->front[0]);
	free(r->front[1]);
	free(r);
}

static void test_race_pair(void **state)
{
	run_race(true);
}

static void test_race_front(void **state)
{
	run_race(false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mark),	   cmocka_unit_test(test_pair),
		cmocka_unit_test(test_ring),	   cmocka_unit_test(test_race_pair),
		cmocka_unit_test(test_race_front),
	};

	return cmocka_run_group_tests_name("dma_log", tests, NULL, NULL);
}
