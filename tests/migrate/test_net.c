// SPDX-License-Identifier: BSD-2-Clause
/*
 * The small VMM's network device and a back end that stalls, hangs up, or is started anew: no
 * write goes unlogged, no ring goes on from where it has been before, and the guest has its
 * network again. Its driver is played here by register writes, the back end by a thread that
 * writes no memory: the used rings are moved here.
 */
#include <errno.h>
#include <linux/vhost_types.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../user/lib/clock.h"
#include "../../user/lib/fds.h"
#include "../../user/lib/log.h"
#include "../../vm-migrate/vmm/virtio_mmio.h"

#define RAM_BYTES  (2UL << 20)
#define SIZE	   64	   /* descriptors of a ring */
#define AREA	   0x3000U /* descriptors, avail and used, a page each, of ring i at i + 1 */
#define SHORT_MS   200	   /* instead of VHOST_FRONT_MS */
#define PATIENCE_S 20

enum {
	GET_FEATURES = 1,
	SET_LOG_BASE = 6,
	SET_VRING_BASE = 10,
	GET_VRING_BASE = 11,
	GET_PROTOCOL_FEATURES = 15,
	SET_VRING_ENABLE = 18,
	SEND_RARP = 19,
	NREQUESTS = 20
};

/* The device's eventfds are told to no KVM here. */
int ioctl(int fd, unsigned long request, ...);
int ioctl(int fd, unsigned long request, ...)
{
	return 0;
}

/* Nor does it wait as long for an answer. */
int setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
	const struct timeval tv = { .tv_usec = SHORT_MS * 1000 };

	if (level == SOL_SOCKET && (name == SO_RCVTIMEO || name == SO_SNDTIMEO))
		value = &tv;
	return (int)syscall(SYS_setsockopt, fd, level, name, value, len);
}

/* ---- back end ---------------------------------------------------------------------- */

static struct {
	char path[64];
	int listen, conn;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool go_on;
	uint32_t stall_at, hang_up_at; /* request; 0: none */
	unsigned int seen[NREQUESTS], connections, ends;
	uint32_t base[2]; /* as it was last told */
	bool enabled[2];
} back = { .listen = -1,
	   .lock = PTHREAD_MUTEX_INITIALIZER,
	   .cond = PTHREAD_COND_INITIALIZER };

struct head {
	uint32_t request, flags, size;
};

/* Under the lock. Return: bytes of the answer; -1: hang up */
static int answer(const struct head *h, const uint64_t *in, uint64_t *out)
{
	uint32_t state[2];

	memcpy(state, in, sizeof(state));
	if (h->request < NREQUESTS)
		back.seen[h->request]++;
	pthread_cond_broadcast(&back.cond);
	if (h->request == back.hang_up_at) {
		back.hang_up_at = 0;
		return -1;
	}
	while (h->request == back.stall_at && !back.go_on)
		pthread_cond_wait(&back.cond, &back.lock);
	*out = 0;
	switch (h->request) {
	case GET_FEATURES:
		*out = 1ULL << VIRTIO_F_VERSION_1 | 1ULL << 30 | 1ULL << 26;
		break;
	case GET_PROTOCOL_FEATURES:
		*out = 0xe;
		break; /* a shared log, RARP, acknowledgements */
	case SET_VRING_BASE: back.base[state[0] & 1] = state[1]; break;
	case SET_VRING_ENABLE: back.enabled[state[0] & 1] = state[1]; break;
	case GET_VRING_BASE:
		back.enabled[state[0] & 1] = false;
		*out = state[0] | (uint64_t)back.base[state[0] & 1] << 32;
		break;
	default: break;
	}
	return h->flags & 8 || h->request == GET_FEATURES ||
			       h->request == GET_VRING_BASE ||
			       h->request == GET_PROTOCOL_FEATURES
		       ? sizeof(*out)
		       : 0;
}

/* Return: does the connection go on? */
static bool serve_one(int conn)
{
	struct {
		struct head h;
		uint8_t v[8];
	} out;
	uint64_t in[64] = { 0 }, v;
	struct head h;
	int fd[FDS_MAX], n;
	struct fds l = { fd, 0, FDS_MAX, false };
	bool fits = fds_recv(conn, &h, sizeof(h), &l, MSG_WAITALL) == sizeof(h) &&
		    h.size <= sizeof(in);

	fds_close(&l);
	if (!fits || (h.size && recv(conn, in, h.size, MSG_WAITALL) != h.size))
		return false;
	pthread_mutex_lock(&back.lock);
	n = answer(&h, in, &v);
	pthread_mutex_unlock(&back.lock);
	if (n <= 0)
		return !n;
	out.h = (struct head){ h.request, 5, (uint32_t)n };
	memcpy(out.v, &v, sizeof(v));
	return send(conn, &out, sizeof(out), MSG_NOSIGNAL) == sizeof(out);
}

static void *back_main(void *arg)
{
	int conn;

	while ((conn = accept(back.listen, NULL, NULL)) >= 0) {
		pthread_mutex_lock(&back.lock);
		back.conn = conn;
		back.connections++;
		pthread_mutex_unlock(&back.lock);
		while (serve_one(conn))
			;
		pthread_mutex_lock(&back.lock);
		back.enabled[0] = back.enabled[1] = false;
		back.ends++;
		close(conn);
		pthread_cond_broadcast(&back.cond);
		pthread_mutex_unlock(&back.lock);
	}
	return NULL;
}

static void back_open(void)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };

	snprintf(back.path, sizeof(back.path), "/tmp/test_net.%d", (int)getpid());
	strcpy(sun.sun_path, back.path);
	back.listen = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(back.listen, (struct sockaddr *)&sun, sizeof(sun)), 0);
	assert_int_equal(listen(back.listen, 4), 0);
	assert_int_equal(pthread_create(&back.thread, NULL, back_main, NULL), 0);
}

/* It ends as soon as its connection has. */
static void back_close(void)
{
	unlink(back.path);
	shutdown(back.listen, SHUT_RDWR);
	pthread_join(back.thread, NULL);
	close(back.listen);
}

static void back_will(uint32_t *how, uint32_t request)
{
	pthread_mutex_lock(&back.lock);
	*how = request;
	pthread_mutex_unlock(&back.lock);
}

static unsigned int back_count(const unsigned int *what)
{
	unsigned int n;

	pthread_mutex_lock(&back.lock);
	n = *what;
	pthread_mutex_unlock(&back.lock);
	return n;
}

static void back_let_go(void)
{
	pthread_mutex_lock(&back.lock);
	back.go_on = true;
	pthread_cond_broadcast(&back.cond);
	pthread_mutex_unlock(&back.lock);
}

/* Until *@count, which the lock guards, is @n */
static void back_await(const unsigned int *count, unsigned int n)
{
	struct timespec end;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += PATIENCE_S;
	pthread_mutex_lock(&back.lock);
	while (*count < n)
		if (pthread_cond_timedwait(&back.cond, &back.lock, &end)) {
			pthread_mutex_unlock(&back.lock);
			fail_msg("the back end saw %u, not %u", *count, n);
		}
	pthread_mutex_unlock(&back.lock);
}

/* Another one is there at once. */
static void back_restart(void)
{
	unsigned int ends;

	pthread_mutex_lock(&back.lock);
	ends = back.ends;
	shutdown(back.conn, SHUT_RDWR);
	pthread_mutex_unlock(&back.lock);
	back_await(&back.ends, ends + 1);
}

static void back_runs(uint32_t base0, uint32_t base1)
{
	uint32_t base[2];
	bool both;

	pthread_mutex_lock(&back.lock);
	both = back.enabled[0] && back.enabled[1];
	memcpy(base, back.base, sizeof(base));
	pthread_mutex_unlock(&back.lock);
	assert_true(both);
	assert_int_equal(base[0], base0);
	assert_int_equal(base[1], base1);
}

/* ---- guest ------------------------------------------------------------------------- */

static struct vm vm;
static struct virtio_net_front *net;
static struct dirty_set *set;

static void reg(uint64_t off, uint32_t v)
{
	virtio_net_write(net, off, &v, sizeof(v));
}

/* With FEATURES_OK in @ok, or without */
static void driver_up_with(uint32_t low_features, uint32_t ok)
{
	const uint32_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | ok;

	reg(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	reg(VIRTIO_MMIO_DRIVER_FEATURES, low_features);
	reg(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	reg(VIRTIO_MMIO_DRIVER_FEATURES, 1);
	reg(VIRTIO_MMIO_STATUS, status);
	for (uint32_t i = 0; i < 2; i++) {
		reg(VIRTIO_MMIO_QUEUE_SEL, i);
		reg(VIRTIO_MMIO_QUEUE_NUM, SIZE);
		reg(VIRTIO_MMIO_QUEUE_DESC_LOW, AREA * (i + 1));
		reg(VIRTIO_MMIO_QUEUE_AVAIL_LOW, AREA * (i + 1) + 0x1000);
		reg(VIRTIO_MMIO_QUEUE_USED_LOW, AREA * (i + 1) + 0x2000);
		reg(VIRTIO_MMIO_QUEUE_READY, 1);
	}
	reg(VIRTIO_MMIO_STATUS, status | VIRTIO_CONFIG_S_DRIVER_OK);
}

static void driver_up(void)
{
	driver_up_with(0, VIRTIO_CONFIG_S_FEATURES_OK);
}

/* The back end has got so far. */
static void used(uint16_t n0, uint16_t n1)
{
	struct vring_used *u[2];

	for (unsigned int i = 0; i < 2; i++)
		u[i] = (void *)(vm.ram.block[0].hva + AREA * (i + 1) + 0x2000);
	u[0]->idx = n0;
	u[1]->idx = n1;
}

static void make_net(void)
{
	assert_int_equal(virtio_net_create(&vm, 0, -1, &net), 0);
}

static int setup(void **state)
{
	memset(&vm, 0, sizeof(vm));
	memset(back.seen, 0, sizeof(back.seen));
	back.stall_at = back.hang_up_at = back.connections = back.ends = 0;
	back.go_on = false;
	back_open();
	ram_init(&vm.ram);
	assert_int_equal(ram_add(&vm.ram, 0, RAM_BYTES, 0), 0);
	vm.conf.nnets = 1;
	strcpy(vm.conf.net[0].socket, back.path);
	make_net();
	driver_up();
	back_runs(0, 0);
	return 0;
}

static int teardown(void **state)
{
	back_let_go();
	dirty_set_destroy(set);
	set = NULL;
	virtio_net_destroy(net);
	back_close();
	ram_fini(&vm.ram);
	return 0;
}

static int log_start(void)
{
	if (!set) {
		assert_int_equal(dirty_set_create(&vm.ram, &set), 0);
		assert_int_equal(virtio_net_add_dirty(net, set), 0);
	}
	return dirty_set_start(set, NULL);
}

/* ---- cases ------------------------------------------------------------------------- */

/* Who does not answer may write all the same. */
static void test_log_is_not_answered(void **state)
{
	back_will(&back.stall_at, SET_LOG_BASE);
	assert_int_equal(log_start(), -ETIMEDOUT);
	/* Nor is it known to have stopped, or does another try make it known. */
	assert_int_equal(virtio_net_drain(net), -ETIMEDOUT);
	assert_int_equal(log_start(), -ETIMEDOUT);
	used(7, 9);
	back_let_go();
	assert_int_equal(virtio_net_drain(net), 0);
	assert_int_equal(back_count(&back.ends), 1);
	virtio_net_resume(net);
	back_runs(7, 9);
	assert_int_equal(log_start(), 0);
	back_runs(7, 9);
}

/* Who has hung up does not: it goes on where it was, with the log. */
static void test_hangs_up_at_log(void **state)
{
	used(5, 6);
	back_will(&back.hang_up_at, SET_LOG_BASE);
	assert_int_equal(log_start(), 0);
	assert_int_equal(virtio_net_drain(net), 0);
	virtio_net_resume(net);
	back_runs(5, 6);
	assert_int_equal(back_count(&back.connections), 2);
	assert_int_equal(back_count(&back.seen[SET_LOG_BASE]), 2);
}

/* It hangs up amid a start: what it has had is not begun from before that. */
static void test_hangs_up_at_start(void **state)
{
	assert_int_equal(virtio_net_drain(net), 0);
	used(3, 4);
	back_will(&back.hang_up_at, SET_VRING_ENABLE);
	virtio_net_resume(net);
	back_runs(3, 4);
	assert_int_equal(back_count(&back.connections), 2);
}

static void arrive(void)
{
	struct state_section s;
	struct state_writer w;
	const uint8_t *bytes;
	size_t len;

	back_will(&back.base[0], 11);
	back_will(&back.base[1], 12);
	state_init(&w);
	assert_int_equal(virtio_net_drain(net), 0);
	virtio_net_save(net, 0, &w);
	virtio_net_destroy(net);
	back_await(&back.ends, 1);
	make_net();
	bytes = w.buf;
	len = w.len;
	assert_int_equal(state_next(&bytes, &len, &s), 1);
	assert_int_equal(virtio_net_load(net, &s), 0);
	state_fini(&w);
}

/* A machine arrives, and its back end is started anew before it runs. */
static void test_restarted_before_arrival(void **state)
{
	arrive();
	back_restart();
	virtio_net_resume(net);
	back_runs(11, 12);
	assert_int_equal(back_count(&back.seen[SEND_RARP]), 1);
	assert_int_equal(virtio_net_drain(net), 0);
	virtio_net_resume(net);
	assert_int_equal(back_count(&back.seen[SEND_RARP]), 1); /* once is enough */
}

/* Or is not there until later: the network is told then. */
static void test_gone_at_arrival(void **state)
{
	char away[sizeof(back.path) + 5];

	arrive();
	snprintf(away, sizeof(away), "%s.away", back.path);
	assert_int_equal(rename(back.path, away), 0);
	back_restart();
	virtio_net_resume(net);
	assert_int_equal(rename(away, back.path), 0);
	assert_int_equal(back_count(&back.seen[SEND_RARP]), 0);
	assert_int_equal(virtio_net_drain(net), 0);
	virtio_net_resume(net);
	back_runs(11, 12);
	assert_int_equal(back_count(&back.seen[SEND_RARP]), 1);
}

/* Features that the device does not offer go to no back end, and a machine moves whatever its
 * driver has written: rings that are nowhere, too. */
static void test_moves_unsettled(void **state)
{
	reg(VIRTIO_MMIO_STATUS, 0);
	back.seen[SET_VRING_ENABLE] = 0;
	driver_up_with(1U << VHOST_F_LOG_ALL, 0);
	reg(VIRTIO_MMIO_QUEUE_USED_HIGH, 0x7fff);
	assert_int_equal(back_count(&back.seen[SET_VRING_ENABLE]), 0);
	arrive();
	virtio_net_resume(net);
	reg(VIRTIO_MMIO_STATUS, 0);
	assert_int_equal(back_count(&back.seen[SET_VRING_ENABLE]), 0);
	driver_up();
	back_runs(0, 0);
}

/* Settled, they start where they were said to be, or not at all. */
static void test_moves_with_rings_nowhere(void **state)
{
	reg(VIRTIO_MMIO_STATUS, 0);
	back.seen[SET_VRING_ENABLE] = 0;
	reg(VIRTIO_MMIO_QUEUE_SEL, 1);
	reg(VIRTIO_MMIO_QUEUE_DESC_HIGH, 0x7fff);
	driver_up();
	arrive();
	virtio_net_resume(net);
	assert_int_equal(back_count(&back.seen[SET_VRING_ENABLE]), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_log_is_not_answered, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_hangs_up_at_log, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hangs_up_at_start, setup, teardown),
		cmocka_unit_test_setup_teardown(test_restarted_before_arrival, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_gone_at_arrival, setup, teardown),
		cmocka_unit_test_setup_teardown(test_moves_unsettled, setup, teardown),
		cmocka_unit_test_setup_teardown(test_moves_with_rings_nowhere, setup,
						teardown),
	};

	log_set_level(LOG_LVL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
