// SPDX-License-Identifier: BSD-2-Clause
/*
 * The vhost-user port while its worker runs: messages of every kind arrive in the middle
 * of traffic both ways. After the reply to GET_VRING_BASE nothing of the guest's memory
 * changes; whatever happens to the memory table meanwhile, a migration that follows the
 * dirty log ends with the same bytes; under the thread sanitizer nothing is shared that
 * should not be.
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
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../user/daemon/dma_log.h"
#include "../../user/daemon/port.h"
#include "../../user/daemon/stat.h"
#include "../../user/lib/log.h"
#include "front.h"
#include "keep.h"
#include "pkt.h"
#include "rig.h"

#define BIT(n)	 (1ULL << (n))
#define FEATURES (BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_NET_F_MRG_RXBUF))
#define BUF	 2048		      /* bytes of a buffer of the guest's */
#define RX_DATA	 (GUEST_DATA + 0x700) /* every other one lies in two pages */
#define TX_DATA	 (GUEST_DATA + 0x60000)
#define PLUG	 0x200000000ULL /* gpa of memory that comes and goes */
#define PLUG_LEN (FRONT_RING_SIZE * BUF + 0x1000ULL)
#define IN_PLUG	 (1ULL << 32) /* in a buffer's cookie */
#define PAGE	 4096ULL
#define ROUNDS	 60
#define MOVES	 3  /* of the memory, in a round */
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
	unsigned int calls; /* of on_call() */
	struct rig rig;

	/* Memory that comes and goes, and the device's buffers in it. */
	int plug_fd;
	uint8_t *plug;
	bool plugged;
	unsigned int in_plug;
} t;

/* ---- the worker
 * ------------------------------------------------------------------------ */

/* Every frame is another, in each page that it reaches. */
static void turn(uint8_t *frame, uint32_t len, const struct gn_meta *m)
{
	static uint32_t stamp;
	struct gso_frame f;

	stamp++;
	for (uint32_t at = len - m->payload_len; at + sizeof(stamp) <= len; at += 8)
		memcpy(frame + at, &stamp, sizeof(stamp));
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
	t.calls++;
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
	bool room = true;
	uint64_t cookie;
	uint32_t len;

	while (driver_get(&t.f.rx, &cookie, &len))
		t.in_plug -= !!(cookie & IN_PLUG);
	while (driver_get(&t.f.tx, &cookie, &len))
		;
	guest_write(&t.f.guest, TX_DATA, hdr, sizeof(hdr));
	for (uint64_t i = 0; i < FRONT_RING_SIZE && room; i++) {
		bool plug = t.plugged && i % 2;
		const struct driver_buf rx = { (plug ? PLUG : RX_DATA) + i * BUF, BUF };
		const struct driver_buf tx = { TX_DATA, 12 + 60 };

		room = !driver_add(&t.f.rx, &rx, 0, 1, 0, i | (plug ? IN_PLUG : 0));
		t.in_plug += room && plug;
		room |= !driver_add(&t.f.tx, &tx, 1, 0, 0, i);
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

/* ---- its memory and its dirty log ------------------------------------------------ */

/* Memory that only the device writes, or the guest always the same, and what a migration
 * has copied of it. */
struct area {
	uint64_t gpa, len;
	const struct guest *g; /* NULL: PLUG */
	uint64_t shift;	       /* of its addresses, against the device's */
	uint8_t *copy;
};

#define NAREAS 4

struct migration {
	bool pair; /* by the pair of bitmaps, else by the front end's log */
	struct dma_log_grace grace;
	struct dma_log *log;
	int log_fd;
	uint8_t *map; /* the front end's */
	uint64_t map_len;
	uint8_t *pair_map[2];
	struct area area[NAREAS];
	unsigned int nareas;
};

static void area_read(const struct area *a, uint64_t off, uint8_t *to, uint64_t n)
{
	if (a->g)
		guest_read(a->g, a->gpa + off - a->shift, to, n);
	else
		memcpy(to, t.plug + off, n);
}

static void copy_page(struct migration *m, uint64_t page)
{
	for (unsigned int i = 0; i < m->nareas; i++) {
		struct area *a = &m->area[i];
		uint64_t from = page * PAGE, to = from + PAGE;

		if (from < a->gpa)
			from = a->gpa;
		if (to > a->gpa + a->len)
			to = a->gpa + a->len;
		if (from < to)
			area_read(a, from - a->gpa, a->copy + (from - a->gpa), to - from);
	}
}

/* Take the bits of a word, then read the pages. */
static void harvest_map(struct migration *m, uint8_t *map)
{
	for (uint64_t at = 0; at < m->map_len; at += 8) {
		uint64_t *word = (uint64_t *)(void *)(map + at), bits;

		if (!__atomic_load_n(word, __ATOMIC_RELAXED))
			continue;
		bits = __atomic_exchange_n(word, 0, __ATOMIC_ACQ_REL);
		for (unsigned int i = 0; i < 64; i++)
			if (bits >> i & 1)
				copy_page(m, at * 8 + i);
	}
}

static void settle(void *arg)
{
	t.port->ops->settle(arg);
}

static void pass(void *arg)
{
	on_call(&t, 0, settle, t.port->queue[0]);
}

static void harvest(struct migration *m)
{
	if (!m->pair) {
		harvest_map(m, m->map);
		return;
	}
	pass(NULL);
	harvest_map(m, m->pair_map[dma_log_swap(m->log, &m->grace)]);
}

static void *map_fd(int fd, uint64_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	return p;
}

/* As QEMU: the log, then the feature, then where the used rings are logged. */
static void front_log_on(struct migration *m, uint64_t features)
{
	const uint64_t log[2] = { m->map_len, 0 };
	const uint64_t want = features | BIT(30) | BIT(VHOST_F_LOG_ALL);
	uint32_t reply[3];

	m->log_fd = memfd_create("log", MFD_CLOEXEC);
	assert_return_code(ftruncate(m->log_fd, (off_t)m->map_len), errno);
	m->map = map_fd(m->log_fd, m->map_len);
	front_send(&t.f, VU_SET_LOG_BASE, log, sizeof(log), &m->log_fd, 1);
	wait_for_reply(reply, sizeof(reply));
	front_send(&t.f, VU_SET_FEATURES, &want, sizeof(want), NULL, 0);
	front_log_rings(&t.f);
}

static void log_on(struct migration *m, uint64_t features)
{
	const uint64_t pages = (PLUG + PLUG_LEN) / PAGE + 1;
	uint64_t now;

	m->map_len = (pages / 8 + PAGE) & ~(PAGE - 1);
	m->log = t.port->ops->dma_log(t.port, &now);
	m->grace = (struct dma_log_grace){ .wait = pass };
	if (!m->pair) {
		front_log_on(m, features);
		return;
	}
	assert_int_equal(dma_log_enable_pair(m->log, pages, &m->grace), 0);
	for (unsigned int i = 0; i < 2; i++)
		m->pair_map[i] = map_fd(m->log->pair_fd[i], m->map_len);
}

static void add_area(struct migration *m, uint64_t gpa, uint64_t len,
		     const struct guest *g, uint64_t shift)
{
	struct area *a = &m->area[m->nareas++];

	*a = (struct area){ gpa, len, g, shift, malloc(len) };
	assert_non_null(a->copy);
}

static void migration_begin(struct migration *m, bool pair, uint64_t features)
{
	const uint64_t used = 6 + 8 * FRONT_RING_SIZE;

	*m = (struct migration){ .pair = pair, .log_fd = -1 };
	add_area(m, GUEST_DATA, GUEST_DATA_LEN, &t.f.guest, 0);
	add_area(m, PLUG, PLUG_LEN, NULL, 0);
	/* Of packed rings both sides write all of it. */
	if (!(features & BIT(VIRTIO_F_RING_PACKED))) {
		add_area(m, t.f.rx.used, used, &t.f.guest, 0);
		add_area(m, t.f.tx.used + FRONT_TX_SHIFT, used, &t.f.tx_guest,
			 FRONT_TX_SHIFT);
	}
	log_on(m, features);
	for (unsigned int i = 0; i < m->nareas; i++)
		area_read(&m->area[i], 0, m->area[i].copy, m->area[i].len);
}

/* Nothing writes any more: is the copy complete? */
static void migration_end(struct migration *m)
{
	harvest(m);
	for (unsigned int i = 0; i < m->nareas; i++) {
		struct area *a = &m->area[i];
		uint8_t *now = malloc(a->len);

		assert_non_null(now);
		area_read(a, 0, now, a->len);
		for (uint64_t k = 0; k < a->len; k++)
			if (now[k] != a->copy[k])
				fail_msg("%#llx was written and not marked",
					 (unsigned long long)(a->gpa + k));
		free(now);
		free(a->copy);
	}
	if (m->pair) {
		munmap(m->pair_map[0], m->map_len);
		munmap(m->pair_map[1], m->map_len);
		dma_log_disable_pair(m->log, &m->grace);
		return;
	}
	munmap(m->map, m->map_len);
	close(m->log_fd);
}

static void plug(bool in)
{
	const struct {
		uint64_t pad;
		struct vu_mem_region r;
	} msg = { 0, { PLUG, PLUG_LEN, GUEST_UVA + PLUG, 0 } };
	unsigned int calls;

	if (!in) {
		/* The guest has given up the memory when the device has no buffer in it.
		 */
		t.plugged = false;
		while (t.in_plug) {
			traffic();
			recycle();
		}
	}
	calls = t.calls;
	front_send(&t.f, in ? VU_ADD_MEM_REG : VU_REM_MEM_REG, &msg, sizeof(msg),
		   &t.plug_fd, in);
	/* The worker has put down what it had in its hands. */
	assert_true(t.calls > calls);
	t.plugged = in;
}

/* The same memory in other regions, by other descriptors, at other addresses of the front
 * end's; or back. */
static void move_table(bool other)
{
	unsigned int calls = t.calls;

	front_table(&t.f, other);
	assert_true(t.calls > calls);
}

static void move_memory(bool pair, uint64_t features, const char *where)
{
	uint64_t beyond;
	struct migration m;

	front_rings(&t.f, features);
	t.in_plug = 0;
	assert_int_equal(front_connect(&t.f, where), 0);
	front_up(&t.f, features);
	traffic();
	migration_begin(&m, pair, features);
	beyond = m.log->beyond;
	for (unsigned int i = 0; i < MOVES; i++) {
		move_table(i % 2 == 0);
		recycle();
		if (i % 3)
			harvest(&m);
		plug(true);
		traffic();
		harvest(&m);
		/* What it wrote there is still in the log when the memory is gone. */
		plug(false);
		if (i % 2)
			harvest(&m);
		traffic();
	}
	assert_int_equal(m.log->beyond, beyond);
	stop_rings();
	migration_end(&m);
	front_disconnect(&t.f);
	front_pump(&t.f);
	front_pump(&t.f);
	assert_int_equal(stat_read(&t.port->queue[0]->stats.faults), 0);
}

static void test_memory_under_traffic(void **state)
{
	for (unsigned int round = 0; round < 4; round++)
		move_memory(round & 1,
			    FEATURES | (round & 2 ? BIT(VIRTIO_F_RING_PACKED) : 0),
			    *state);
}

static char path[64];

static int setup(void **state)
{
	const struct agg_conf agg = { .checksum = AGG_VERIFY, .max_held = 128 };
	struct port_conf conf = { .kind = "vhost-user", .mtu = 1500 };

	memset(&t, 0, sizeof(t));
	strcpy(t.dir, "/tmp/test_port_vhost.XXXXXX");
	assert_non_null(mkdtemp(t.dir));
	snprintf(path, sizeof(path), "%s/vm", t.dir);
	strcpy(conf.arg, path);
	*state = path;
	assert_int_equal(loop_create(&t.loop), 0);
	t.env = (struct port_env){
		.loop = t.loop, .owner = &t, .call = on_call, .changed = on_changed
	};
	t.plug_fd = memfd_create("plug", MFD_CLOEXEC);
	assert_return_code(ftruncate(t.plug_fd, (off_t)PLUG_LEN), errno);
	t.plug = mmap(NULL, PLUG_LEN, PROT_READ | PROT_WRITE, MAP_SHARED, t.plug_fd, 0);
	assert_ptr_not_equal(t.plug, MAP_FAILED);
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
	munmap(t.plug, PLUG_LEN);
	close(t.plug_fd);
	return rmdir(t.dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_messages_under_traffic, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_memory_under_traffic, setup,
						teardown),
	};

	log_set_level(LOG_LVL_ERROR);
	return cmocka_run_group_tests_name("port_vhost_threads", tests, NULL, NULL);
}
