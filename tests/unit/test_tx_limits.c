// SPDX-License-Identifier: BSD-2-Clause
/*
 * What a guest behind a vhost-user port may send: from its own address and no VLAN of
 * others only, unless it was allowed more; and no faster than its rate, the rest waiting
 * in its own ring. The worker's transmit path with a real port, ring and front end; what
 * comes out is seen at another instance.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "../../user/daemon/tx.h"
#include "../../user/lib/clock.h"
#include "../../user/lib/log.h"
#include "dma_rig.h"

#define FRAME 1000 /* bytes */
#define SEEN  64

static const uint8_t own[6] = { 0x52, 0x54, 0, 0x12, 0x34, 0x56 }; /* dma_rig's guest */
static const uint8_t other[6] = { 0x52, 0x54, 0, 0, 0, 2 };
static const uint8_t foreign[6] = { 0x52, 0x54, 0, 0, 0, 9 };
static const uint8_t everyone[6] = { 255, 255, 255, 255, 255, 255 };

/* The other instance: it notes the source of what it is given. */
static struct {
	unsigned int n;
	uint8_t src[SEEN][6];
} seen;

static void see(struct port_queue *q, const struct gso_frame *f)
{
	uint8_t eth[12];
	size_t at = 0;

	assert_true(seen.n < SEEN);
	for (unsigned int i = 0; i < f->niov && at < sizeof(eth); i++) {
		size_t n = f->iov[i].iov_len;

		if (n > sizeof(eth) - at)
			n = sizeof(eth) - at;
		memcpy(eth + at, f->iov[i].iov_base, n);
		at += n;
	}
	assert_int_equal(at, sizeof(eth));
	assert_int_equal(f->len, FRAME);
	memcpy(seen.src[seen.n++], eth + 6, 6);
}

static void no_close(struct port *p)
{
}

static const struct port_ops see_ops = { .name = "see",
					 .inject = see,
					 .close = no_close };

struct limits {
	struct dma_rig *r;
	struct worker *w;
	struct port port;
	struct port_queue queue[STILL_QUEUES], *queues[STILL_QUEUES];
	uint32_t zero; /* pointers and flags of rings without entries */
	unsigned int sent;
};

static struct limits l;

static int setup(void **state)
{
	struct instance *to = calloc(1, sizeof(*to));
	int err = dma_setup(state);

	assert_int_equal(err, 0);
	assert_non_null(to);
	memset(&l, 0, sizeof(l));
	memset(&seen, 0, sizeof(seen));
	l.r = *state;
	l.w = &l.r->s.worker[0];
	/* The wire takes nothing, which holds nobody up: its link is down. */
	l.w->xsk.stalled = true;
	l.w->xsk.tx.producer = l.w->xsk.tx.consumer = l.w->xsk.tx.flags = &l.zero;
	l.w->xsk.comp.producer = l.w->xsk.comp.consumer = l.w->xsk.comp.flags = &l.zero;
	l.w->pause_due = UINT64_MAX;

	l.port = (struct port){ .ops = &see_ops,
				.nqueues = STILL_QUEUES,
				.queue = l.queues };
	for (unsigned int q = 0; q < STILL_QUEUES; q++) {
		l.queues[q] = &l.queue[q];
		l.queue[q] = (struct port_queue){ .port = &l.port, .fd = -1 };
	}
	memcpy(to->conf.mac, other, 6);
	to->id = 1;
	to->iface = &l.r->s.iface;
	to->port = &l.port;
	l.r->s.iface.instance[1] = to;
	for (unsigned int q = 0; q < STILL_QUEUES; q++) {
		l.r->s.worker[q].epfd = epoll_create1(EPOLL_CLOEXEC);
		assert_return_code(l.r->s.worker[q].epfd, errno);
		worker_add_instance(&l.r->s.worker[q], l.r->in);
		worker_add_instance(&l.r->s.worker[q], to);
	}
	dma_connect(l.r, false);
	return 0;
}

static int teardown(void **state)
{
	int epfd[STILL_QUEUES], err;

	for (unsigned int q = 0; q < STILL_QUEUES; q++)
		epfd[q] = l.r->s.worker[q].epfd;
	err = dma_teardown(state);
	for (unsigned int q = 0; q < STILL_QUEUES; q++)
		close(epfd[q]);
	return err;
}

/* The guest sends from @src to @dst. */
static void send_frame(const uint8_t dst[6], const uint8_t src[6], uint16_t type)
{
	const uint64_t at = GUEST_DATA + l.sent % DMA_SLOTS * DMA_SLOT_LEN;
	const struct driver_buf b = { at, 12 + FRAME };
	uint8_t f[12 + FRAME] = { 0 };

	memcpy(f + 12, dst, 6);
	memcpy(f + 18, src, 6);
	f[24] = (uint8_t)(type >> 8);
	f[25] = (uint8_t)type;
	guest_write(&l.r->g, at, f, sizeof(f));
	assert_int_equal(driver_add(&l.r->tx, &b, 1, 0, 0, l.sent++), 0);
}

/* The worker looks, unless it was told to pause. Return: frames that it took */
static unsigned int work(void)
{
	unsigned int n = 0;
	int k = 1;

	while (k > 0 && !l.r->in->port->queue[0]->paused_until) {
		k = tx_instance(l.w, l.r->in);
		assert_true(k >= 0);
		n += (unsigned int)k;
	}
	return n;
}

static struct port_stats *stats(void)
{
	return &l.r->in->port->queue[0]->stats;
}

/* All buffers are the guest's again. */
static unsigned int returned(void)
{
	unsigned int n = 0;
	uint64_t cookie;
	uint32_t len;

	while (driver_get(&l.r->tx, &cookie, &len))
		n++;
	return n;
}

#define IP4  0x0800
#define TAG  0x8100
#define STAG 0x88a8

static void test_own_address_only(void **state)
{
	send_frame(other, own, IP4);
	send_frame(other, foreign, IP4);
	send_frame(other, other, IP4); /* the receiver's own */
	send_frame(everyone, foreign, IP4);
	send_frame(foreign, other, IP4); /* for the wire */
	send_frame(other, own, TAG);
	send_frame(other, own, STAG);
	send_frame(other, own, IP4);
	assert_int_equal(work(), 8);
	assert_int_equal(stats()->tx_spoofed, 6);
	assert_int_equal(seen.n, 2);
	for (unsigned int i = 0; i < seen.n; i++)
		assert_memory_equal(seen.src[i], own, 6);
	/* Nothing of the rest even asked for a chunk of the wire's. */
	assert_int_equal(stats()->tx_wire + stats()->tx_dropped, 0);
	assert_int_equal(l.w->xsk.stats.tx_full, 0);
	assert_int_equal(returned(), 8);
}

/* The guest changes the address after it was looked at. */
static void test_change_under_way(void **state)
{
	struct gso_frame f;

	send_frame(other, own, IP4);
	assert_int_equal(l.r->in->port->ops->fetch(l.r->in->port->queue[0], &f), 1);
	guest_write(&l.r->g, GUEST_DATA + 12 + 6, foreign, 6);
	assert_memory_equal((uint8_t *)f.iov[0].iov_base + 6, own, 6);
}

static void test_allowed_to_spoof(void **state)
{
	l.r->in->conf.allow_spoof = true;
	send_frame(other, foreign, IP4);
	send_frame(everyone, foreign, IP4);
	send_frame(other, own, TAG); /* of a VLAN: not for who has none */
	assert_int_equal(work(), 3);
	assert_int_equal(stats()->tx_spoofed, 0);
	assert_int_equal(seen.n, 2);
	assert_memory_equal(seen.src[0], foreign, 6);
	assert_memory_equal(seen.src[1], foreign, 6);
}

/*
 * At its rate, by the port's own clock: of what the guest put into its ring as much was
 * taken as the time that passed allows, whatever time that was. The rest is still there,
 * unharmed, and taken later; what was taken is the guest's again at once.
 */
static void test_rate(void **state)
{
	const uint64_t rate = 10000000, cost = FRAME * 8 * 1000000000ULL / rate;
	uint64_t begin = clock_ns(), end;
	unsigned int n, back = 0, total = 60, pauses = 0;

	l.r->in->rate.bits = rate;
	for (unsigned int i = 0; i < total; i++)
		send_frame(other, own, IP4);
	n = work();
	end = clock_ns();
	/* The frame that passes "now" is sent whole. */
	assert_true(n >= RATE_BURST_NS / cost && n <= total);
	assert_true(n <= (end - begin + RATE_BURST_NS) / cost + 1);
	while (n < total) {
		struct port_queue *q = l.r->in->port->queue[0];

		assert_int_equal(stats()->tx_paused, ++pauses);
		back += returned();
		assert_int_equal(back, n);
		assert_true(q->paused_until > begin);
		/* It is not looked at while it waits: as the worker does. */
		while (clock_ns() < q->paused_until)
			;
		q->paused_until = 0;
		l.w->npaused = 0;
		n += work();
		end = clock_ns();
		assert_true(n <= (end - begin + RATE_BURST_NS) / cost + 1);
	}
	assert_int_equal(n, total);
	assert_int_equal(seen.n, total);
	assert_int_equal(stats()->tx_dropped, 0);
	/* None was early; the first ones are free. */
	assert_true(end - begin >= (total - 1) * cost - RATE_BURST_NS);
}

/* A spoofer is charged as well: it cannot crowd out by what is thrown away. */
static void test_rate_of_spoofed(void **state)
{
	l.r->in->rate.bits = RATE_MIN;
	for (unsigned int i = 0; i < 40; i++)
		send_frame(other, foreign, IP4);
	assert_int_equal(work(), 1);
	assert_int_equal(stats()->tx_spoofed, 1);
	assert_int_equal(stats()->tx_paused, 1);
	assert_int_equal(seen.n, 0);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_own_address_only), TEST(test_change_under_way),
		TEST(test_allowed_to_spoof), TEST(test_rate),
		TEST(test_rate_of_spoofed),
	};

	log_set_level(LOG_LVL_ERROR);
	return cmocka_run_group_tests_name("tx_limits", tests, NULL, NULL);
}
