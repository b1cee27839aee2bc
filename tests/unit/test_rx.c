// SPDX-License-Identifier: BSD-2-Clause
/*
 * rx_burst(): whose is a frame? Frames of several buffers, records of frames that were lost
 * behind the XDP program, and what a chunk holds of a frame before. And the worker's end.
 *
 * The worker and its RX ring are the real ones, in plain memory; the test is the kernel and
 * XDP at their other end. Ports count.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sched.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../user/daemon/rx.h"
#include "still.h"

#define LEN    100 /* bytes of a buffer */
#define CHUNKS (4 * WORKER_BURST)

enum { A, B };

struct rig {
	struct still s;
	struct worker *w;
	struct xdp_desc rx[XSK_RX_SIZE];
	uint32_t rx_prod, rx_cons;
	struct gn_stream stream;
};

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));

	assert_non_null(r);
	still_init(&r->s, "test");
	r->w = &r->s.worker[0];
	mbuf_pool_fini(&r->w->pool);
	umem_fini(&r->w->umem);
	assert_int_equal(umem_init(&r->w->umem, CHUNKS, UMEM_CHUNK_SMALL), 0);
	assert_int_equal(
		mbuf_pool_init(&r->w->pool, r->w->umem.base, CHUNKS, UMEM_CHUNK_SMALL),
		0);
	r->w->xsk.rx = (struct xsk_ring_cons){ .mask = XSK_RX_SIZE - 1,
					       .size = XSK_RX_SIZE,
					       .producer = &r->rx_prod,
					       .consumer = &r->rx_cons,
					       .ring = r->rx };
	r->w->conf.stream = &r->stream;
	r->w->records.s = &r->stream;
	still_add(&r->s, "a,mac=02:00:00:00:00:01,port=null", A);
	still_add(&r->s, "b,mac=02:00:00:00:00:02,port=null", B);
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	assert_int_equal(r->w->pool.nfree, r->w->pool.nchunks);
	still_fini(&r->s);
	free(r);
	return 0;
}

static struct gn_meta meta_of(uint16_t id)
{
	return (struct gn_meta){
		.magic = GN_META_MAGIC,
		.instance = id,
		.class = GN_CLASS_ALONE,
	};
}

/* XDP: the next record, of a frame for @id. Return: its number */
static uint32_t record(struct rig *r, uint16_t id)
{
	uint32_t seq = r->stream.prod++;

	r->stream.next[seq % GN_STREAM_SIZE] = (struct gn_next){
		.class = GN_NEXT_WHOLE,
		.payload_len = (uint16_t)(seq % GN_STREAM_SIZE),
	};
	r->stream.rec[seq % GN_STREAM_SIZE] = meta_of(id);
	return seq;
}

/* The kernel: one more buffer. Return: what is in front of it */
static struct gn_tag *buffer(struct rig *r, bool more)
{
	struct mbuf *m = mbuf_alloc(&r->w->pool);
	uint64_t addr;

	assert_non_null(m);
	addr = ((uint64_t)mbuf_index(&r->w->pool, m) << r->w->pool.chunk_shift) +
	       UMEM_HEADROOM;
	r->rx[r->rx_prod++ % XSK_RX_SIZE] = (struct xdp_desc){
		.addr = addr,
		.len = LEN,
		.options = more ? XDP_PKT_CONTD : 0,
	};
	return (struct gn_tag *)(r->w->pool.base + addr) - 1;
}

static void tag(struct gn_tag *t, uint32_t seq)
{
	*t = (struct gn_tag){ .magic = GN_META_MAGIC_STREAM, .seq = seq };
}

/* A frame of @nbufs buffers for @id. */
static void frame(struct rig *r, uint16_t id, unsigned int nbufs)
{
	uint32_t seq = record(r, id);

	for (unsigned int i = 0; i < nbufs; i++) {
		struct gn_tag *t = buffer(r, i + 1 < nbufs);

		if (!i)
			tag(t, seq);
	}
}

/* @frames frames of @bufs buffers in all were delivered to @id. */
static void got(const struct rig *r, int id, unsigned int frames, unsigned int bufs)
{
	const struct port_stats *st = &r->s.iface.instance[id]->port->queue[0]->stats;

	assert_int_equal(st->rx_packets, frames);
	assert_int_equal(st->rx_bytes, bufs * LEN);
}

/* As many buffers as records say nothing when a frame has two, and a record no frame. */
static void test_lost_behind_two_buffers(void **state)
{
	struct rig *r = *state;

	frame(r, A, 2);
	record(r, A);
	frame(r, B, 1);
	assert_int_equal(rx_burst(r->w, 0), 3);
	got(r, A, 1, 2);
	got(r, B, 1, 1);
	assert_int_equal(r->w->stats.rx_in_step, 0);
	/* And on, in step again. */
	frame(r, B, 1);
	frame(r, A, 1);
	assert_int_equal(rx_burst(r->w, 0), 2);
	got(r, A, 2, 3);
	got(r, B, 2, 2);
	assert_int_equal(r->w->stats.rx_in_step, 2);
}

/* Frames of several buffers are in step as any. */
static void test_in_step(void **state)
{
	struct rig *r = *state;

	frame(r, A, 3);
	frame(r, B, 1);
	frame(r, A, 2);
	assert_int_equal(rx_burst(r->w, 0), 6);
	got(r, A, 2, 5);
	got(r, B, 1, 1);
	assert_int_equal(r->w->stats.rx_in_step, 6);
	assert_int_equal(r->stream.cons, r->stream.prod);
}

/*
 * A frame that two bursts divide. Its last buffer is the chunk of a frame that was lost
 * when it had its tag already, with the record that is the next one.
 */
static void test_divided(void **state)
{
	struct rig *r = *state;
	uint32_t lost = record(r, B), seq = record(r, A);

	tag(buffer(r, true), seq);
	assert_int_equal(rx_burst(r->w, 0), 1);
	got(r, A, 0, 0);
	tag(buffer(r, false), lost);
	assert_int_equal(rx_burst(r->w, 0), 1);
	got(r, A, 1, 2);
	got(r, B, 0, 0);
	assert_int_equal(r->stream.cons, r->stream.prod);
}

/* Of a frame with more buffers than there can be only itself is lost. */
static void test_too_many(void **state)
{
	struct rig *r = *state;

	frame(r, A, 18);
	frame(r, B, 1);
	assert_int_equal(rx_burst(r->w, 0), 19);
	got(r, A, 0, 0);
	got(r, B, 1, 1);
	assert_int_equal(r->w->stats.rx_truncated, 1);
}

/* ---- the end ---- */

static sem_t entered, leave;
static const struct port_ops *fast;

static void slow_deliver(struct port_queue *q, struct mbuf_pool *pool, struct mbuf **head,
			 unsigned int n)
{
	if (!q->stats.rx_packets) {
		sem_post(&entered);
		sem_wait(&leave);
	}
	fast->deliver(q, pool, head, n);
}

static void *stop(void *arg)
{
	worker_stop(arg);
	return NULL;
}

static void start(struct rig *r)
{
	static struct port_ops slow;
	struct instance *a = r->s.iface.instance[A];

	fast = a->port->ops;
	slow = *fast;
	slow.deliver = slow_deliver;
	a->port->ops = &slow;
	sem_init(&entered, 0, 0);
	sem_init(&leave, 0, 0);
	r->w->conf.cpu = -1;
	r->w->conf.poll = POLL_WAIT;
	r->w->conf.stream = NULL;
	r->w->pause_due = UINT64_MAX;
	r->w->epfd = epoll_create1(EPOLL_CLOEXEC);
	r->w->wakefd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	assert_int_equal(worker_start(r->w), 0);
}

static void end(struct rig *r)
{
	close(r->w->epfd);
	close(r->w->wakefd);
	sem_destroy(&entered);
	sem_destroy(&leave);
}

/* Who is told to stop in its first burst delivers those that are in the ring behind it. */
static void test_stop(void **state)
{
	struct rig *r = *state;
	pthread_t stopper;

	r->w->records.s = NULL;
	for (unsigned int i = 0; i < CHUNKS; i++)
		((struct gn_meta *)(buffer(r, false) + 1))[-1] = meta_of(A);
	start(r);
	sem_wait(&entered);
	assert_int_equal(pthread_create(&stopper, NULL, stop, r->w), 0);
	while (!atomic_load(&r->w->call))
		sched_yield();
	sem_post(&leave);
	pthread_join(stopper, NULL);
	got(r, A, CHUNKS, CHUNKS);
	end(r);
}

static struct worker *sleeper;
static uint64_t slept_ns; /* at the most, with a chain open; 0: never */

/* The worker sleeps: in the C library's place. */
int epoll_pwait2(int fd, struct epoll_event *ev, int max, const struct timespec *ts,
		 const sigset_t *mask)
{
	if (sleeper && sleeper->agg.held) {
		uint64_t ns =
			ts ? (uint64_t)ts->tv_sec * 1000000000 + (uint64_t)ts->tv_nsec
			   : UINT64_MAX;

		if (ns > slept_ns)
			slept_ns = ns;
	}
	return epoll_wait(fd, ev, max, 0);
}

/* A chain does not wait longer because the link is down, which is tried every 10 ms. */
static void test_hold_while_stalled(void **state)
{
	const uint64_t hold_ns = 5000000;
	struct rig *r = *state;
	struct gn_meta m = meta_of(A);
	uint32_t sent = 1, done = 0, flags = XDP_RING_NEED_WAKEUP;

	m.class = GN_CLASS_CONTINUE;
	m.flags = GN_F_TCP | GN_F_CSUM_GOOD;
	m.flow = 1;
	m.l3_off = 14;
	m.l4_off = 34;
	m.l4_len = 20;
	m.payload_len = LEN - 54;
	((struct gn_meta *)(buffer(r, false) + 1))[-1] = m;
	r->w->records.s = NULL;
	r->w->agg.conf.hold_ns = hold_ns;
	r->w->xsk.tx.producer = &sent;
	r->w->xsk.tx.consumer = &done;
	r->w->xsk.tx.flags = &flags;
	r->w->xsk.need_kick = r->w->xsk.stalled = true;
	slept_ns = 0;
	sleeper = r->w;
	start(r);
	sem_wait(&entered);
	sem_post(&leave);
	worker_stop(r->w);
	sleeper = NULL;
	assert_true(r->w->xsk.stalled);
	got(r, A, 1, 1);
	assert_in_range(slept_ns, 0, hold_ns);
	end(r);
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_lost_behind_two_buffers),
		TEST(test_in_step),
		TEST(test_divided),
		TEST(test_too_many),
		TEST(test_stop),
		TEST(test_hold_while_stalled),
	};

	return cmocka_run_group_tests_name("rx", tests, NULL, NULL);
}
