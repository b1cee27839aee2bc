// SPDX-License-Identifier: BSD-2-Clause
/*
 * Transmission: everything queued is sent, although the kernel sends a small batch a system
 * call; every chunk comes back; a kernel that makes no progress is not called for ever.
 *
 * The rings are the real ones, in plain memory. The kernel at their other end is sendto()
 * below, which the daemon's code gets instead of libc's.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "../../user/daemon/xsk.h"

#define CHUNKS	   4096
#define CHUNK_SIZE 2048
#define BATCH	   32 /* frames that copy mode sends a call; net/xdp/xsk.c */
#define XSK_FD	   77

struct rig {
	struct xsk x;
	struct mbuf_pool pool;
	struct xdp_desc tx[XSK_TX_SIZE];
	uint64_t comp[XSK_TX_SIZE];
	uint32_t tx_prod, tx_cons, comp_prod, comp_cons, flags;
	/* the kernel */
	int fail;	   /* errno of each call, nothing sent; 0: it works */
	bool late;	   /* completions are shown by complete() only */
	uint32_t done;	   /* completions, shown or not */
	unsigned int sent; /* frames */
	unsigned int calls;
};

static struct rig *the;

static void send_batch(struct rig *r, uint32_t max)
{
	for (uint32_t i = 0; i < max && r->tx_cons != r->tx_prod; i++, r->tx_cons++) {
		assert_true(r->done - r->comp_cons < XSK_TX_SIZE);
		r->comp[r->done++ % XSK_TX_SIZE] = r->tx[r->tx_cons % XSK_TX_SIZE].addr;
		r->sent++;
	}
	if (!r->late)
		r->comp_prod = r->done;
}

ssize_t sendto(int fd, const void *buf, size_t len, int flags, const struct sockaddr *to,
	       socklen_t tolen)
{
	assert_int_equal(fd, XSK_FD);
	assert_int_equal(len, 0);
	assert_int_equal(flags, MSG_DONTWAIT);
	the->calls++;
	if (the->fail) {
		errno = the->fail;
		return -1;
	}
	send_batch(the, BATCH);
	if (the->tx_cons == the->tx_prod)
		return 0;
	errno = EAGAIN;
	return -1;
}

static int setup(void **state)
{
	static uint8_t umem[1]; /* no packet is looked at */
	struct rig *r = calloc(1, sizeof(*r));

	assert_non_null(r);
	assert_int_equal(mbuf_pool_init(&r->pool, umem, CHUNKS, CHUNK_SIZE), 0);
	/* As after 2^32 frames, but for a few. */
	r->tx_prod = r->tx_cons = r->comp_prod = r->comp_cons = r->done = -100U;
	r->flags = XDP_RING_NEED_WAKEUP;
	r->x = (struct xsk){
		.fd = XSK_FD,
		.pool = &r->pool,
		.tx_limit = CHUNKS / 4,
		.tx = { .mask = XSK_TX_SIZE - 1,
			.size = XSK_TX_SIZE,
			.cached_prod = r->tx_prod,
			.cached_cons = r->tx_cons + XSK_TX_SIZE,
			.producer = &r->tx_prod,
			.consumer = &r->tx_cons,
			.ring = r->tx,
			.flags = &r->flags },
		.comp = { .mask = XSK_TX_SIZE - 1,
			  .size = XSK_TX_SIZE,
			  .cached_prod = r->comp_prod,
			  .cached_cons = r->comp_cons,
			  .producer = &r->comp_prod,
			  .consumer = &r->comp_cons,
			  .ring = r->comp,
			  .flags = &r->flags },
	};
	*state = the = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	mbuf_pool_fini(&r->pool);
	free(r);
	return 0;
}

/* Queue @n frames. Return: how many there were chunks for */
static unsigned int queue(struct rig *r, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		struct mbuf *m = xsk_tx_get(&r->x);

		if (!m)
			return i;
		m->len = 60 + i;
		xsk_tx_put(&r->x, m, false);
	}
	return n;
}

static void all_back(struct rig *r)
{
	assert_int_equal(r->x.tx_out, 0);
	assert_int_equal(r->x.tx_held, 0);
	assert_int_equal(r->pool.nfree, CHUNKS);
	assert_false(r->x.need_kick);
}

/* As many calls as it takes, and not one more. */
static void test_until_drained(void **state)
{
	struct rig *r = *state;
	static const unsigned int n[] = { 1, BATCH - 1, BATCH, BATCH + 1,
					  10 * BATCH + 7 };
	unsigned int sent = 0;

	for (size_t i = 0; i < sizeof(n) / sizeof(n[0]); i++) {
		r->calls = 0;
		assert_int_equal(queue(r, n[i]), n[i]);
		assert_true(r->x.need_kick);
		xsk_tx_kick(&r->x);
		sent += n[i];
		assert_int_equal(r->sent, sent);
		assert_int_equal(r->calls, (n[i] + BATCH - 1) / BATCH);
		all_back(r);
		xsk_tx_kick(&r->x); /* nothing to do: no call */
		assert_int_equal(r->calls, (n[i] + BATCH - 1) / BATCH);
	}
	assert_int_equal(r->x.stats.tx_descs, sent);
	assert_int_equal(r->x.stats.tx_full, 0);
}

/* A driver that looks by itself is not called. */
static void test_no_wakeup_wanted(void **state)
{
	struct rig *r = *state;

	r->flags = 0;
	queue(r, 100);
	xsk_tx_kick(&r->x);
	assert_int_equal(r->calls, 0);
	assert_true(r->x.need_kick);
	send_batch(r, 70);
	xsk_tx_kick(&r->x);
	assert_int_equal(r->x.tx_out, 30);
	assert_true(r->x.need_kick);
	send_batch(r, 70);
	xsk_tx_kick(&r->x);
	assert_int_equal(r->calls, 0);
	all_back(r);
}

/* The link is down: one call, and all is sent when it is up again. */
static void test_stalled(void **state)
{
	struct rig *r = *state;

	queue(r, 100);
	r->fail = ENETDOWN;
	xsk_tx_kick(&r->x);
	assert_int_equal(r->calls, 1);
	assert_true(r->x.stalled);
	assert_true(r->x.need_kick);
	assert_int_equal(r->x.tx_out, 100);
	r->fail = 0;
	xsk_tx_kick(&r->x);
	assert_false(r->x.stalled);
	assert_int_equal(r->sent, 100);
	all_back(r);
}

/* Busy is not down, and is not waited for here. */
static void test_no_progress(void **state)
{
	static const int busy[] = { EAGAIN, EBUSY };
	struct rig *r = *state;

	queue(r, 5);
	for (size_t i = 0; i < sizeof(busy) / sizeof(busy[0]); i++) {
		r->calls = 0;
		r->fail = busy[i];
		xsk_tx_kick(&r->x);
		assert_int_equal(r->calls, 1);
		assert_false(r->x.stalled);
		assert_true(r->x.need_kick);
	}
	r->fail = 0;
	xsk_tx_kick(&r->x);
	all_back(r);
}

/* Completions that come late and many at a time: all are reaped at once. */
static void test_late_completions(void **state)
{
	struct rig *r = *state;

	r->late = true;
	queue(r, 700);
	xsk_tx_kick(&r->x);
	assert_int_equal(r->sent, 700);
	assert_false(r->x.need_kick);
	assert_int_equal(r->x.tx_out, 700);
	r->comp_prod = r->done;
	xsk_tx_kick(&r->x);
	all_back(r);
}

/* No more than its share of the chunks, which it gets by sending what is queued. */
static void test_limit(void **state)
{
	struct rig *r = *state;

	assert_int_equal(queue(r, 10000), 10000);
	assert_int_equal(r->x.stats.tx_full, 0);
	xsk_tx_kick(&r->x);
	assert_int_equal(r->sent, 10000);
	all_back(r);

	r->fail = ENETDOWN;
	assert_int_equal(queue(r, 10000), r->x.tx_limit);
	assert_int_equal(r->x.stats.tx_full, 1);
	assert_int_equal(r->pool.nfree, CHUNKS - r->x.tx_limit);
	r->fail = 0;
	xsk_tx_kick(&r->x);
	all_back(r);
}

/* A ring smaller than the share is the limit, then. */
static void test_full_ring(void **state)
{
	struct rig *r = *state;

	r->x.tx_limit = CHUNKS;
	r->fail = ENETDOWN;
	assert_int_equal(queue(r, CHUNKS), XSK_TX_SIZE);
	assert_int_equal(r->x.stats.tx_full, 1);
	r->fail = 0;
	xsk_tx_kick(&r->x);
	assert_int_equal(r->sent, XSK_TX_SIZE);
	all_back(r);
}

/* A frame of several chunks, which are all there before the first one is queued: all of it
 * fits, or none of it is begun. */
static void test_whole_frames(void **state)
{
	struct rig *r = *state;
	struct mbuf *m[3];
	unsigned int n = 0;

	r->x.tx_limit = CHUNKS;
	r->fail = ENETDOWN;
	assert_int_equal(queue(r, XSK_TX_SIZE - 2), XSK_TX_SIZE - 2);
	while (n < 3 && (m[n] = xsk_tx_get(&r->x)))
		n++;
	assert_int_equal(n, 2);
	xsk_tx_cancel(&r->x, m[1]);
	m[1] = xsk_tx_get(&r->x);
	assert_non_null(m[1]);
	for (unsigned int i = 0; i < n; i++)
		xsk_tx_put(&r->x, m[i], i + 1 < n);
	assert_int_equal(r->tx_prod - r->tx_cons, XSK_TX_SIZE);
	assert_null(xsk_tx_get(&r->x));
	r->fail = 0;
	xsk_tx_kick(&r->x);
	assert_int_equal(r->sent, XSK_TX_SIZE);
	all_back(r);
}

static void test_descriptors(void **state)
{
	struct rig *r = *state;
	uint32_t at = r->tx_prod;
	struct mbuf *m[3];

	for (int i = 0; i < 3; i++) {
		m[i] = xsk_tx_get(&r->x);
		assert_non_null(m[i]);
		assert_int_equal(m[i]->addr,
				 (uint64_t)mbuf_index(&r->pool, m[i]) * CHUNK_SIZE +
					 UMEM_HEADROOM);
		m[i]->len = 1000 + (uint32_t)i;
	}
	xsk_tx_cancel(&r->x, m[1]);
	assert_int_equal(r->x.tx_out, 2);
	xsk_tx_put(&r->x, m[0], true);
	xsk_tx_put(&r->x, m[2], false);
	for (int i = 0; i < 2; i++) {
		const struct xdp_desc *d = &r->tx[(at + (uint32_t)i) % XSK_TX_SIZE];

		assert_int_equal(d->addr, m[2 * i]->addr);
		assert_int_equal(d->len, 1000 + 2 * i);
		assert_int_equal(d->options, i ? 0 : XDP_PKT_CONTD);
	}
	xsk_tx_kick(&r->x);
	all_back(r);
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_until_drained),    TEST(test_no_wakeup_wanted),
		TEST(test_stalled),	     TEST(test_no_progress),
		TEST(test_late_completions), TEST(test_limit),
		TEST(test_full_ring),	     TEST(test_whole_frames),
		TEST(test_descriptors),
	};

	return cmocka_run_group_tests_name("xsk_tx", tests, NULL, NULL);
}
