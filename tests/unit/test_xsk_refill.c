// SPDX-License-Identifier: BSD-2-Clause
/*
 * The fill ring: every place its own chunk, and whatever ports keep, for however long,
 * the kernel has as many chunks as are to circulate, each of them once.
 *
 * The rings are the real ones, in plain memory; the test is the kernel at their other end,
 * and a port that keeps chunks.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../user/daemon/xsk.h"

#define CHUNKS	   8192
#define CHUNK_SIZE 2048
#define BURST	   64
#define HEADROOM   256

enum owner { FREE, FILL, RX, PORT, SENDING };

struct rig {
	struct xsk x;
	struct mbuf_pool pool;
	uint64_t fill[XSK_RX_SIZE];
	struct xdp_desc rx[XSK_RX_SIZE];
	/* As both sides see them, and the kernel's position, which it shows late. */
	uint32_t fill_prod, fill_cons, rx_prod, rx_cons, flags, taken;
	uint32_t seen; /* entries of the fill ring that the test has looked at */
	uint8_t owner[CHUNKS];
	uint32_t kept[CHUNKS], nkept;
};

static uint32_t chunk_of(uint64_t addr)
{
	assert_int_equal(addr % CHUNK_SIZE, 0);
	assert_in_range(addr / CHUNK_SIZE, 0, CHUNKS - 1);
	return (uint32_t)(addr / CHUNK_SIZE);
}

/* What was put into the fill ring since was free until then. */
static void look(struct rig *r)
{
	for (; r->seen != r->fill_prod; r->seen++) {
		uint32_t c = chunk_of(r->fill[r->seen % XSK_RX_SIZE]);

		assert_int_equal(r->owner[c], FREE);
		r->owner[c] = FILL;
	}
	assert_in_range(r->fill_prod - r->fill_cons, 0, XSK_RX_SIZE);
	/* In copy mode: what the kernel has, received or not. */
	if (!r->x.zerocopy)
		assert_int_equal(r->x.rx_out,
				 r->fill_prod - r->taken + r->rx_prod - r->rx_cons);
}

static void refill(struct rig *r)
{
	xsk_refill(&r->x);
	look(r);
}

static struct rig *rig_new(uint32_t nchunks)
{
	static uint8_t umem[1]; /* no packet is looked at */
	struct rig *r = calloc(1, sizeof(*r));

	assert_non_null(r);
	assert_int_equal(mbuf_pool_init(&r->pool, umem, nchunks, CHUNK_SIZE), 0);
	r->x = (struct xsk){
		.fd = -1,
		.pool = &r->pool,
		.tx_limit = nchunks / 4,
		.least = XSK_RX_DEPTH,
		.fill = { .mask = XSK_RX_SIZE - 1,
			  .size = XSK_RX_SIZE,
			  .cached_cons = XSK_RX_SIZE,
			  .producer = &r->fill_prod,
			  .consumer = &r->fill_cons,
			  .ring = r->fill,
			  .flags = &r->flags },
		.rx = { .mask = XSK_RX_SIZE - 1,
			.size = XSK_RX_SIZE,
			.producer = &r->rx_prod,
			.consumer = &r->rx_cons,
			.ring = r->rx,
			.flags = &r->flags },
	};
	/* Places a turn away from wrapping, as they do after 2^32 frames. */
	r->fill_prod = r->fill_cons = r->taken = r->seen = -3U * XSK_RX_SIZE;
	r->x.fill.cached_prod = r->fill_prod;
	r->x.fill.cached_cons = r->fill_prod + XSK_RX_SIZE;
	xsk_rx_deep(&r->x);
	refill(r);
	return r;
}

static void rig_free(struct rig *r)
{
	mbuf_pool_fini(&r->pool);
	free(r);
}

/* The kernel: up to @n frames. Return: how many it had a chunk for */
static uint32_t arrive(struct rig *r, uint32_t n)
{
	uint32_t i;

	for (i = 0; i < n && r->taken != r->fill_prod; i++, r->taken++) {
		uint64_t addr = r->fill[r->taken % XSK_RX_SIZE];

		r->owner[chunk_of(addr)] = RX;
		r->rx[r->rx_prod++ % XSK_RX_SIZE].addr = addr + HEADROOM;
	}
	return i;
}

/* It shows what it took after it shows what it received. */
static void flush(struct rig *r)
{
	r->fill_cons = r->taken;
}

static void give_back(struct rig *r, uint32_t i)
{
	uint32_t c = r->kept[i];

	r->kept[i] = r->kept[--r->nkept];
	r->owner[c] = FREE;
	mbuf_free(&r->pool, &r->pool.mbufs[c]);
}

/* The worker: one burst, of which the port keeps the first @keep. Return: its length */
static uint32_t take(struct rig *r, uint32_t keep)
{
	uint32_t idx = 0, n = xsk_rx_pending(&r->x);

	n = xsk_ring_cons__peek(&r->x.rx, n < BURST ? n : BURST, &idx);
	for (uint32_t i = 0; i < n; i++) {
		struct mbuf *m = mbuf_of(&r->pool,
					 xsk_ring_cons__rx_desc(&r->x.rx, idx + i)->addr);
		uint32_t c = mbuf_index(&r->pool, m);

		assert_int_equal(r->owner[c], RX);
		r->owner[c] = PORT;
		r->kept[r->nkept++] = c;
	}
	xsk_rx_release(&r->x, n);
	for (uint32_t i = keep; i < n; i++)
		give_back(r, r->nkept - 1);
	refill(r);
	return n;
}

/* @bursts bursts of 16 come and go; the kernel never lacks a chunk. */
static void run(struct rig *r, uint32_t bursts)
{
	for (uint32_t i = 0; i < bursts; i++) {
		assert_int_equal(arrive(r, 16), 16);
		take(r, 0);
		flush(r);
	}
}

#define TURN (XSK_RX_SIZE / 16) /* bursts of run() that go once round the ring */

static void check_home(const struct rig *r)
{
	for (uint32_t i = 0; i < XSK_RX_SIZE; i++)
		assert_int_equal(r->fill[i], (uint64_t)(i % r->x.depth) * CHUNK_SIZE);
}

static void settle(struct rig *r)
{
	/* Each halving takes 256 bursts, then what is too much has to come back. */
	run(r, 6 * TURN);
	assert_int_equal(r->x.depth, XSK_RX_DEPTH);
	assert_int_equal(r->x.rx_out, XSK_RX_DEPTH);
	check_home(r);
}

static void test_every_place_its_chunk(void **state)
{
	struct rig *r = rig_new(CHUNKS);

	assert_int_equal(r->x.rx_out, XSK_RX_SIZE);
	check_home(r);
	settle(r);
	for (int turn = 0; turn < 5; turn++) {
		run(r, TURN);
		check_home(r);
	}
	xsk_rx_deep(&r->x);
	refill(r);
	assert_int_equal(r->x.rx_out, XSK_RX_SIZE);
	settle(r);
	rig_free(r);
}

/* A worker that is away: the ring doubles, and nothing of it is lost. */
static void test_deeper(void **state)
{
	struct rig *r = rig_new(CHUNKS);

	settle(r);
	for (uint32_t depth = XSK_RX_DEPTH; depth < XSK_RX_SIZE; depth *= 2) {
		assert_int_equal(arrive(r, depth), depth);
		flush(r);
		take(r, 0);
		assert_int_equal(r->x.depth, 2 * depth);
		assert_int_equal(r->x.rx_out, 2 * depth);
		while (take(r, 0))
			;
		assert_int_equal(r->x.rx_out, r->fill_prod - r->fill_cons);
	}
	rig_free(r);
}

/* A port keeps chunks for many turns: the ring is as deep as ever meanwhile, and all is as
 * before when they are back. */
static void test_kept_for_long(void **state)
{
	for (uint32_t keep = 1; keep <= 3072; keep = keep * 4 + 3) {
		struct rig *r = rig_new(CHUNKS);

		settle(r);
		while (r->nkept < keep) {
			assert_int_equal(arrive(r, 16), 16);
			take(r, r->nkept + 16 <= keep ? 16 : keep - r->nkept);
			flush(r);
			assert_int_equal(r->x.rx_out, r->x.depth);
		}
		run(r, 8 * TURN);
		assert_int_equal(r->nkept, keep);
		assert_int_equal(r->x.rx_out, r->x.depth);
		for (uint32_t i = 0; r->nkept; i += 7)
			give_back(r, i % r->nkept);
		run(r, 3 * TURN);
		assert_int_equal(r->x.rx_out, r->x.depth);
		assert_int_equal(r->x.stats.fill_low, 0);
		check_home(r);
		rig_free(r);
	}
}

/* A port keeps all: reception ends, but for no longer than the port keeps them. */
static void test_all_kept(void **state)
{
	struct rig *r = rig_new(CHUNKS);

	settle(r);
	while (arrive(r, BURST)) {
		flush(r);
		take(r, BURST);
	}
	assert_int_equal(r->x.rx_out, 0);
	assert_int_equal(r->pool.nfree, r->x.tx_limit);
	assert_true(r->x.stats.fill_low > 0);
	/* One comes back, one can arrive. */
	give_back(r, 5);
	refill(r);
	assert_int_equal(r->x.rx_out, 1);
	assert_int_equal(arrive(r, BURST), 1);
	flush(r);
	take(r, 0);
	while (r->nkept)
		give_back(r, 0);
	refill(r);
	assert_int_equal(r->x.rx_out, r->x.depth);
	run(r, TURN);
	settle(r);
	rig_free(r);
}

/* Fewer chunks than places, and no power of two. */
static void test_small_pool(void **state)
{
	struct rig *r = rig_new(1500);

	assert_int_equal(r->x.rx_out, 1500 - 375);
	assert_int_equal(r->pool.nfree, 375);
	settle(r);
	rig_free(r);
}

/* Shown late, what the kernel took makes a full ring seem fuller; it is filled up later. */
static void test_full_ring(void **state)
{
	struct rig *r = rig_new(CHUNKS);

	r->x.least = XSK_RX_SIZE;
	for (int i = 0; i < 300; i++) {
		assert_int_equal(arrive(r, BURST), BURST);
		take(r, 0); /* before flush() */
		assert_true(r->x.rx_out >= XSK_RX_SIZE - BURST);
		flush(r);
		refill(r);
		assert_int_equal(r->x.rx_out, XSK_RX_SIZE);
	}
	check_home(r);
	rig_free(r);
}

/* A driver without copy keeps chunks in a ring of its own: the fill ring still gets its
 * depth beside these. */
static void test_zero_copy(void **state)
{
	struct rig *r = rig_new(CHUNKS);

	r->x.zerocopy = true;
	r->taken += 2048;
	flush(r);
	refill(r);
	assert_int_equal(r->fill_prod - r->fill_cons, r->x.depth);
	rig_free(r);
}

/* Whatever happens in whatever order: look() finds each chunk in one place, and when there
 * are chunks to spare the kernel has as many as it should. */
static void test_at_random(void **state)
{
	struct rig *r = rig_new(CHUNKS);
	struct mbuf *sending[64];
	uint32_t nsending = 0;

	srandom(7);
	for (int i = 0; i < 200000; i++) {
		uint32_t what = (uint32_t)random();

		switch (what % 8) {
		case 0:
		case 1: arrive(r, what >> 8 & 127); break;
		case 2:
		case 3: take(r, what & 1 << 8 ? 0 : what >> 9 & 63); break;
		case 4: flush(r); break;
		case 5:
			for (uint32_t n = what >> 8 & 511; n && r->nkept; n--)
				give_back(r, (uint32_t)random() % r->nkept);
			break;
		case 6:
			if (nsending == 64 || !(sending[nsending] = mbuf_alloc(&r->pool)))
				break;
			r->owner[mbuf_index(&r->pool, sending[nsending++])] = SENDING;
			r->x.tx_out++;
			break;
		case 7:
			if (!nsending)
				break;
			r->owner[mbuf_index(&r->pool, sending[--nsending])] = FREE;
			mbuf_free(&r->pool, sending[nsending]);
			r->x.tx_out--;
			break;
		}
		if (what % 8 == 4) {
			refill(r);
			if (r->pool.nfree > r->x.tx_limit)
				assert_true(r->x.rx_out >= r->x.depth);
		}
		if (!(what >> 20))
			xsk_rx_deep(&r->x);
	}
	flush(r);
	while (nsending) {
		r->owner[mbuf_index(&r->pool, sending[--nsending])] = FREE;
		mbuf_free(&r->pool, sending[nsending]);
		r->x.tx_out--;
	}
	while (r->nkept)
		give_back(r, 0);
	refill(r);
	while (take(r, 0))
		;
	settle(r);
	rig_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_place_its_chunk),
		cmocka_unit_test(test_deeper),
		cmocka_unit_test(test_kept_for_long),
		cmocka_unit_test(test_all_kept),
		cmocka_unit_test(test_small_pool),
		cmocka_unit_test(test_full_ring),
		cmocka_unit_test(test_zero_copy),
		cmocka_unit_test(test_at_random),
	};

	return cmocka_run_group_tests_name("xsk_refill", tests, NULL, NULL);
}
