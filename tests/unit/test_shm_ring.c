// SPDX-License-Identifier: BSD-2-Clause
/*
 * shm_ring: what the client gets, what it gives back, and every lie it can tell. The
 * client here writes the shared memory by hand.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../user/daemon/shm_ring.h"

#define HOLD  128
#define SLOTS 40
#define TX    131072U

struct fix {
	struct gn_shm_queue l;
	struct shm_ring r;
	uint8_t *mem;
	uint32_t ret; /* client's position */
	uint32_t tx;
};

static int setup(void **state)
{
	const struct shm_ring_conf conf = { HOLD, SLOTS, TX };
	struct fix *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	assert_int_equal(shm_ring_layout(&conf, &f->l), 0);
	f->mem = aligned_alloc(64, (f->l.map_size + 63) / 64 * 64);
	assert_non_null(f->mem);
	memset(f->mem, 0, f->l.map_size);
	assert_int_equal(shm_ring_init(&f->r, f->mem, &f->l, &conf), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fix *f = *state;

	shm_ring_fini(&f->r);
	free(f->mem);
	free(f);
	return 0;
}

static uint32_t put(struct fix *f, uint32_t token, unsigned int n)
{
	struct gn_shm_pkt *p = shm_ring_put(&f->r, token, n);

	if (!p)
		return UINT32_MAX;
	for (unsigned int i = 0; i < n; i++)
		shm_ring_seg(&f->r, token * 4096 + i, 100 + i);
	return p->id;
}

static void give_back(struct fix *f, uint32_t id)
{
	uint32_t *rets = (void *)(f->mem + f->l.rets_off);

	rets[f->ret++ % f->l.ring_size] = id;
	f->r.ctl->ret_prod = f->ret;
}

static void lays_out(void **state)
{
	struct gn_shm_queue l;

	assert_int_equal(shm_ring_layout(&(struct shm_ring_conf){ 0, 0, 0 }, &l),
			 -EINVAL);
	assert_int_equal(shm_ring_layout(&(struct shm_ring_conf){ UINT32_MAX, 1, 0 }, &l),
			 -EINVAL);
	assert_int_equal(shm_ring_layout(&(struct shm_ring_conf){ 1, 1, 131071 }, &l),
			 -EINVAL);
	/* Not one longest frame fits. */
	assert_int_equal(shm_ring_layout(&(struct shm_ring_conf){ 1, 1, 65536 }, &l),
			 -EINVAL);
	assert_int_equal(shm_ring_layout(&(struct shm_ring_conf){ 100, 29, 0 }, &l), 0);
	assert_int_equal(l.ring_size, 256);
	assert_true(l.pkts_off >= sizeof(struct gn_shm_ctl));
	assert_true(l.segs_off >= l.pkts_off + 256 * sizeof(struct gn_shm_pkt));
	assert_true(l.rets_off >= l.segs_off + 256 * sizeof(struct gn_shm_seg));
	assert_true(l.data_off >= l.rets_off + 256 * sizeof(uint32_t));
	assert_true(l.map_size >= l.data_off + 29 * SHM_SLOT_SIZE);
}

static void lends_and_takes_back(void **state)
{
	struct fix *f = *state;
	const struct gn_shm_pkt *pkts = (void *)(f->mem + f->l.pkts_off);
	const struct gn_shm_seg *segs = (void *)(f->mem + f->l.segs_off);
	uint32_t a = put(f, 7, 3), b = put(f, 8, 1), token[4];

	assert_int_equal(f->r.ctl->rx_prod, 0); /* not visible yet */
	assert_false(shm_ring_publish(&f->r));
	assert_int_equal(f->r.ctl->rx_prod, 2);
	assert_int_equal(pkts[0].id, a);
	assert_int_equal(pkts[0].nsegs, 3);
	assert_int_equal(pkts[0].flags, 0);
	assert_int_equal(segs[2].off, 7 * 4096 + 2);
	assert_int_equal(segs[2].len, 102);
	assert_int_equal(segs[3].off, 8 * 4096);
	assert_int_equal(f->r.held, 4);
	assert_int_equal(shm_ring_reclaim(&f->r, token, 4), 0);
	give_back(f, b);
	give_back(f, a);
	assert_int_equal(shm_ring_reclaim(&f->r, token, 1), 1);
	assert_int_equal(token[0], 8);
	assert_int_equal(shm_ring_reclaim(&f->r, token, 4), 1);
	assert_int_equal(token[0], 7);
	assert_int_equal(f->r.held, 0);
	assert_int_equal(f->r.returned, 2);
}

static void rings_only_who_sleeps(void **state)
{
	struct fix *f = *state;

	put(f, 1, 1);
	assert_false(shm_ring_publish(&f->r));
	f->r.ctl->client_sleeps = 1;
	put(f, 2, 1);
	assert_true(shm_ring_publish(&f->r));
	assert_int_equal(f->r.ctl->client_sleeps, 0);
	assert_false(shm_ring_publish(&f->r));
	shm_ring_sleep(&f->r, GN_SHM_WAKE_TX);
	shm_ring_sleep(&f->r, GN_SHM_WAKE_RET);
	assert_int_equal(f->r.ctl->daemon_sleeps, GN_SHM_WAKE_TX | GN_SHM_WAKE_RET);
}

static void lends_no_more_than_hold(void **state)
{
	struct fix *f = *state;
	uint32_t id[HOLD], token[HOLD];

	for (uint32_t i = 0; i < HOLD; i++)
		assert_int_not_equal(id[i] = put(f, i, 1), UINT32_MAX);
	assert_int_equal(put(f, 0, 1), UINT32_MAX);
	give_back(f, id[5]);
	assert_int_equal(shm_ring_reclaim(&f->r, token, HOLD), 1);
	assert_int_equal(put(f, 0, 2), UINT32_MAX);
	assert_int_not_equal(put(f, 5, 1), UINT32_MAX);
}

/* Each round gives ids new generations, through every position's wrap-around. */
static void goes_round(void **state)
{
	struct fix *f = *state;
	uint32_t id[HOLD], token[HOLD];

	for (unsigned int round = 0; round < 50; round++) {
		unsigned int n = 1 + round * 7 % HOLD;

		for (unsigned int i = 0; i < n; i++)
			id[i] = put(f, i, 1);
		shm_ring_publish(&f->r);
		for (unsigned int i = n; i-- > 0;)
			give_back(f, id[i]);
		assert_int_equal(shm_ring_reclaim(&f->r, token, HOLD), n);
		for (unsigned int i = 0; i < n; i++)
			assert_int_equal(token[i], n - 1 - i);
	}
	assert_int_equal(f->r.held, 0);
	assert_int_equal(f->r.nout, 0);
}

static void copies(void **state)
{
	struct fix *f = *state;
	uint8_t frame[5000];
	const struct iovec iov[] = { { frame, 3000 },
				     { NULL, 0 },
				     { frame + 3000, 2000 } };
	const struct gn_shm_seg *segs = (void *)(f->mem + f->l.segs_off);
	struct gn_shm_pkt *p;
	uint32_t token, at = 0;

	for (unsigned int i = 0; i < sizeof(frame); i++)
		frame[i] = (uint8_t)(i * 7);
	assert_null(shm_ring_copy(&f->r, iov, 3, 0));
	assert_null(shm_ring_copy(&f->r, iov, 3, 5001));
	p = shm_ring_copy(&f->r, iov, 3, 5000);
	assert_non_null(p);
	assert_int_equal(p->len, 5000);
	assert_int_equal(p->nsegs, 3);
	assert_int_equal(p->flags, GN_SHM_PKT_DATA);
	for (unsigned int i = 0; i < 3; i++) {
		assert_memory_equal(f->mem + f->l.data_off + segs[i].off, frame + at,
				    segs[i].len);
		at += segs[i].len;
	}
	assert_int_equal(at, 5000);
	assert_int_equal(f->r.held, 0); /* nothing of the caller's */
	/* 37 slots are left. */
	for (unsigned int i = 0; i < 37; i++)
		assert_non_null(shm_ring_copy(&f->r, iov, 3, 100));
	assert_null(shm_ring_copy(&f->r, iov, 3, 100));
	give_back(f, p->id);
	assert_int_equal(shm_ring_reclaim(&f->r, &token, 1), 0);
	assert_int_equal(f->r.nfree_slot, 3);
	assert_non_null(shm_ring_copy(&f->r, iov, 3, 5000));
}

static void breaks(struct fix *f, const char *why)
{
	uint32_t token[HOLD];

	assert_int_equal(shm_ring_reclaim(&f->r, token, HOLD), -EPROTO);
	assert_string_equal(f->r.broken, why);
	/* For good. */
	f->r.ctl->ret_prod = f->r.ret_cons;
	assert_int_equal(shm_ring_reclaim(&f->r, token, HOLD), -EPROTO);
	assert_null(shm_ring_put(&f->r, 1, 1));
}

static void refuses_what_is_not_out(void **state)
{
	put(*state, 1, 1);
	give_back(*state, 100);
	breaks(*state, "a packet given back that is not out");
}

static void refuses_twice(void **state)
{
	uint32_t a = put(*state, 1, 1), token;

	put(*state, 2, 1);
	give_back(*state, a);
	give_back(*state, a);
	assert_int_equal(shm_ring_reclaim(&((struct fix *)*state)->r, &token, 1), 1);
	breaks(*state, "a packet given back that is not out");
}

/* The entry is in use again, by another packet. */
static void refuses_an_old_generation(void **state)
{
	uint32_t a = put(*state, 1, 1), b, token;

	give_back(*state, a);
	assert_int_equal(shm_ring_reclaim(&((struct fix *)*state)->r, &token, 1), 1);
	b = put(*state, 2, 1);
	assert_int_not_equal(a, b);
	give_back(*state, a);
	breaks(*state, "a packet given back that is not out");
}

static void refuses_a_jump(void **state)
{
	struct fix *f = *state;

	put(f, 1, 1);
	f->r.ctl->ret_prod = 2;
	breaks(f, "more packets given back than are out");
}

static void drains(void **state)
{
	struct fix *f = *state;
	uint8_t byte = 0;
	const struct iovec iov = { &byte, 1 };
	uint32_t token[3], seen = 0;
	unsigned int n;

	for (uint32_t i = 0; i < 10; i++)
		put(f, i, 2);
	assert_non_null(shm_ring_copy(&f->r, &iov, 1, 1));
	f->r.ctl->ret_prod = 1000000; /* does not matter any more */
	while ((n = shm_ring_drain(&f->r, token, 3)))
		while (n--)
			seen |= 1U << token[n];
	assert_int_equal(seen, 0x3ff);
	assert_int_equal(f->r.held, 0);
	assert_int_equal(f->r.nout, 0);
	assert_int_equal(f->r.nfree_slot, SLOTS);
}

static void send_frame(struct fix *f, uint32_t len, uint8_t fill)
{
	struct gn_shm_tx h = { .len = len, .vh.gso_size = 99 };
	uint8_t *tx = f->mem + f->l.tx_off;

	memcpy(tx + f->tx % TX, &h, sizeof(h));
	f->tx += sizeof(h);
	for (uint32_t i = 0; i < (len + 15) / 16 * 16; i++)
		tx[f->tx++ % TX] = fill;
	f->r.ctl->tx_prod = f->tx;
}

static void fetches(void **state)
{
	struct fix *f = *state;
	static uint8_t buf[GN_SHM_MAX_FRAME];
	struct virtio_net_hdr_v1 vh;

	assert_int_equal(shm_ring_fetch(&f->r, &vh, buf), 0);
	for (unsigned int i = 0; i < 40; i++) {
		uint32_t len = i ? GN_SHM_MAX_FRAME - i * 11 : 1;

		send_frame(f, len, (uint8_t)i);
		assert_int_equal(shm_ring_fetch(&f->r, &vh, buf), len);
		assert_int_equal(vh.gso_size, 99);
		assert_int_equal(buf[0], (uint8_t)i);
		assert_int_equal(buf[len - 1], (uint8_t)i);
		assert_int_equal(f->r.ctl->tx_cons, f->tx);
		assert_int_equal(shm_ring_fetch(&f->r, &vh, buf), 0);
	}
}

static void refuses_frames(void **state)
{
	static const struct {
		uint32_t prod, len;
		const char *why;
	} bad[] = {
		{ 8, 1, "impossible position in tx" },
		{ TX + 16, 1, "impossible position in tx" },
		{ 0U - 16, 1, "impossible position in tx" },
		{ 32, 0, "a frame of impossible length in tx" },
		{ TX, GN_SHM_MAX_FRAME + 1, "a frame of impossible length in tx" },
		{ 32, UINT32_MAX, "a frame of impossible length in tx" },
		{ 32, 17, "a frame longer than what is in tx" },
		{ 16, 1, "a frame longer than what is in tx" },
	};
	static uint8_t buf[GN_SHM_MAX_FRAME];
	struct fix *f = *state;
	struct virtio_net_hdr_v1 vh;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		f->r.broken = NULL;
		memcpy(f->mem + f->l.tx_off, &bad[i].len, sizeof(bad[i].len));
		f->r.ctl->tx_prod = bad[i].prod;
		assert_int_equal(shm_ring_fetch(&f->r, &vh, buf), -EPROTO);
		assert_string_equal(f->r.broken, bad[i].why);
		assert_int_equal(shm_ring_fetch(&f->r, &vh, buf), -EPROTO);
	}
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lays_out),
		TEST(lends_and_takes_back),
		TEST(rings_only_who_sleeps),
		TEST(lends_no_more_than_hold),
		TEST(goes_round),
		TEST(copies),
		TEST(refuses_what_is_not_out),
		TEST(refuses_twice),
		TEST(refuses_an_old_generation),
		TEST(refuses_a_jump),
		TEST(drains),
		TEST(fetches),
		TEST(refuses_frames),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
