// SPDX-License-Identifier: BSD-2-Clause
/*
 * The vhost-user port while its worker runs: messages of every kind arrive in the middle
 * of traffic both ways. After the reply to GET_VRING_BASE nothing of the guest's memory
 * changes; under the thread sanitizer nothing is shared that should not be.
 */
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/vhost_types.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../user/daemon/port.h"
#include "../../user/daemon/stat.h"
#include "../../user/lib/log.h"
#include "front.h"
#include "keep.h"
#include "pkt.h"
#include "rig.h"

#define BIT(n)	 (1ULL << (n))
#define FEATURES (BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_NET_F_MRG_RXBUF))
#define BUF	 2048 /* bytes of a buffer of the guest's */
#define TX_DATA	 (GUEST_DATA + 0x60000)
#define ROUNDS	 60
#define TURNS	 50 /* of the worker, in which something would have happened */

static struct {
	struct loop *loop;
	struct port *port;
	struct port_env env;
	struct front f;
	char dir[32];

	pthread_t thread;
	_Atomic bool stop;
	_Atomic unsigned int turns;
	/* A function to run on the worker, as worker_call() does it. */
	void (*_Atomic fn)(void *arg);
	void *arg;
	struct rig rig;
} t;

/* ---- the worker
 * ------------------------------------------------------------------------ */

static void turn(const uint8_t *frame, uint32_t len, const struct gn_meta *m)
{
	struct gso_frame f;

	rig_push(&t.rig, rig_packet(&t.rig, 0, frame, len, m, 0, 0), 0);
	rig_flush(&t.rig, UINT64_MAX);
	t.port->ops->deliver(t.port->queue[0], &t.rig.pool, t.rig.head, t.rig.out.n);
	t.rig.out.n = 0;
	for (int i = 0; i < 4 && t.port->ops->fetch(t.port->queue[0], &f) == 1; i++)
		;
}

static void *worker(void *arg)
{
	static uint8_t frame[PKT_MAX], payload[1000];
	struct pkt_spec s;
	struct gn_meta m;
	uint32_t len;

	pkt_default(&s);
	keep_fill(payload, sizeof(payload), 1);
	s.payload = payload;
	s.len = sizeof(payload);
	len = pkt_build(&s, frame);
	pkt_meta(frame, len, 0, 0, &m);
	while (!t.stop) {
		void (*fn)(void *arg) = t.fn;

		if (fn) {
			fn(t.arg);
			t.fn = NULL;
			continue;
		}
		turn(frame, len, &m);
		t.turns++;
		sched_yield();
	}
	return NULL;
}

static void on_call(void *owner, unsigned int queue, void (*fn)(void *arg), void *arg)
{
	t.arg = arg;
	t.fn = fn;
	while (t.fn)
		sched_yield();
}

static void on_changed(void *owner)
{
}

static void some_turns(void)
{
	unsigned int end = t.turns + TURNS;

	while ((int)(t.turns - end) < 0)
		sched_yield();
}

/* ---- the guest
 * --------------------------------------------------------------------------- */

/* Give back what came, offer as many again. */
static void recycle(void)
{
	static const uint8_t hdr[12];
	uint64_t cookie;
	uint32_t len;

	while (driver_get(&t.f.rx, &cookie, &len))
		;
	while (driver_get(&t.f.tx, &cookie, &len))
		;
	for (uint64_t i = 0; i < FRONT_RING_SIZE; i++) {
		const struct driver_buf rx = { GUEST_DATA + i * BUF, BUF };
		const struct driver_buf tx = { TX_DATA, 12 + 60 };

		guest_write(&t.f.guest, TX_DATA, hdr, sizeof(hdr));
		if (driver_add(&t.f.rx, &rx, 0, 1, 0, i) == -ENOSPC &&
		    driver_add(&t.f.tx, &tx, 1, 0, 0, i) == -ENOSPC)
			break;
	}
	if (driver_should_kick(&t.f.tx)) {
		const uint64_t one = 1;

		assert_int_equal(write(t.f.kick[1], &one, 8), 8);
	}
}

static void wait_for_reply(void *buf, size_t size)
{
	int n;

	do {
		front_pump(&t.f);
		n = front_reply(&t.f, buf, size);
	} while (n == -EAGAIN);
	assert_int_equal(n, size);
}

static uint8_t *snapshot(void)
{
	uint64_t at = 0;
	uint8_t *copy = malloc(GUEST_DATA_LEN + 2 * GUEST_RING_LEN);

	assert_non_null(copy);
	guest_read(&t.f.guest, GUEST_DATA, copy, GUEST_DATA_LEN);
	at += GUEST_DATA_LEN;
	guest_read(&t.f.guest, GUEST_RING, copy + at, GUEST_RING_LEN);
	at += GUEST_RING_LEN;
	guest_read(&t.f.tx_guest, GUEST_RING, copy + at, GUEST_RING_LEN);
	return copy;
}

/* Stop both rings under traffic: from the reply on the guest's memory stays as it is. */
static void stop_rings(void)
{
	struct {
		uint32_t hdr[3];
		struct vhost_vring_state s;
	} r;
	uint8_t *before, *after;

	for (unsigned int i = 0; i < 2; i++) {
		front_state(&t.f, VU_GET_VRING_BASE, i, 0);
		wait_for_reply(&r, sizeof(r));
	}
	before = snapshot();
	some_turns();
	after = snapshot();
	assert_memory_equal(before, after, GUEST_DATA_LEN + 2 * GUEST_RING_LEN);
	free(before);
	free(after);
}

static void traffic(void)
{
	uint64_t rx = stat_read(&t.port->queue[0]->stats.rx_frames);
	unsigned int n = 0;

	do {
		recycle();
		some_turns();
		assert_true(n++ < 10000);
	} while (stat_read(&t.port->queue[0]->stats.rx_frames) < rx + 20);
}

static void test_messages_under_traffic(void **state)
{
	for (int round = 0; round < ROUNDS; round++) {
		const uint64_t ring = 0;

		front_rings(&t.f, FEATURES);
		assert_int_equal(front_connect(&t.f, *state), 0);
		front_up(&t.f, FEATURES);
		traffic();
		for (unsigned int i = 0; i < 8; i++) {
			front_state(&t.f, VU_SET_VRING_ENABLE, i & 1, 0);
			recycle();
			front_send(&t.f, VU_SET_VRING_CALL, &ring, 8, &t.f.call[0], 1);
			front_state(&t.f, VU_SET_VRING_ENABLE, i & 1, 1);
			recycle();
		}
		traffic();
		/* Politely, or not. */
		if (round % 2)
			stop_rings();
		front_disconnect(&t.f);
		front_pump(&t.f);
		front_pump(&t.f);
	}
	assert_int_equal(stat_read(&t.port->queue[0]->stats.faults), 0);
}

static char path[64];

static int setup(void **state)
{
	const struct agg_conf agg = { .checksum = AGG_VERIFY, .max_held = 128 };
	struct port_conf conf = { .kind = "vhost-user", .mtu = 1500 };

	strcpy(t.dir, "/tmp/test_port_vhost.XXXXXX");
	assert_non_null(mkdtemp(t.dir));
	snprintf(path, sizeof(path), "%s/vm", t.dir);
	strcpy(conf.arg, path);
	*state = path;
	assert_int_equal(loop_create(&t.loop), 0);
	t.env = (struct port_env){
		.loop = t.loop, .owner = &t, .call = on_call, .changed = on_changed
	};
	assert_int_equal(rig_init(&t.rig, 256, &agg), 0);
	assert_int_equal(port_find("vhost-user")->open(&conf, &t.env, 1, &t.port), 0);
	front_init(&t.f, t.loop, FEATURES);
	assert_int_equal(pthread_create(&t.thread, NULL, worker, NULL), 0);
	return 0;
}

static int teardown(void **state)
{
	t.stop = true;
	pthread_join(t.thread, NULL);
	front_fini(&t.f);
	t.port->ops->close(t.port);
	loop_destroy(t.loop);
	rig_fini(&t.rig);
	return rmdir(t.dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_messages_under_traffic, setup,
						teardown),
	};

	log_set_level(LOG_LVL_ERROR);
	return cmocka_run_group_tests_name("port_vhost_threads", tests, NULL, NULL);
}
