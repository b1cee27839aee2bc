// SPDX-License-Identifier: BSD-2-Clause
/*
 * vring: guest and device on a thread each, each asleep whenever it may be. A barrier
 * that is missing shows as a sleeper that nobody wakes, or to the thread sanitizer: the
 * guest uses the device's mapping, so that it sees both sides at one address.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "driver.h"

#define THREAD_CHAINS 20000
#define DEADLINE_MS   60000

struct duo {
	struct guest g;
	struct driver d;
	struct vring_conf conf;
	int kick, call;
	const char *failed; /* in the device's thread */
};

/* Return: the other side notified */
static bool sleep_on(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	uint64_t n;

	return poll(&p, 1, DEADLINE_MS) == 1 && read(fd, &n, 8) == 8;
}

static void wake(int fd)
{
	uint64_t one = 1;

	if (write(fd, &one, 8) != 8)
		abort();
}

/* Each chain: 8 bytes to read, 8 to write; the device writes their complement. */
static void *device_thread(void *arg)
{
	struct duo *t = arg;
	struct iovec iov[VRING_MAX_IOV];
	uint64_t gpa[VRING_MAX_IOV];
	struct vring_vec vec = { .max = VRING_MAX_IOV, .iov = iov, .gpa = gpa };
	unsigned int done = 0;
	struct vring *v;

	if (vring_create(&t->conf, &t->g.mem, NULL, t->conf.packed ? 0x80008000 : 0,
			 &v)) {
		t->failed = "create";
		return NULL;
	}
	while (done < THREAD_CHAINS && !t->failed) {
		struct vring_chain c;
		unsigned int n = 0;

		vec.n = 0;
		while (n < 16 && vring_take(v, &vec, &c) == 1) {
			uint64_t x;

			memcpy(&x, iov[c.first].iov_base, 8);
			x = ~x;
			memcpy(iov[c.first + 1].iov_base, &x, 8);
			vring_put(v, &vec, &c, 8);
			n++;
		}
		vring_publish(v);
		if (vring_should_notify(v))
			wake(t->call);
		done += n;
		if (vring_broken(v))
			t->failed = vring_broken(v);
		else if (!n && !vring_set_wakeup(v, true) && !sleep_on(t->kick))
			t->failed = "the device was never kicked";
		else
			vring_set_wakeup(v, false);
	}
	vring_destroy(v);
	return NULL;
}

static void thread_add(struct duo *t, unsigned int i)
{
	uint64_t at = GUEST_DATA + i % t->conf.size * 16ULL,
		 x = i * 0x9e3779b97f4a7c15ULL;
	const struct driver_buf b[] = { { at, 8 }, { at + 8, 8 } };

	guest_write(&t->g, at, &x, 8);
	assert_int_equal(driver_add(&t->d, b, 1, 1, 0, i), 0);
}

/* @window: chains outstanding; with one, each chain is a sleep on both sides */
static void run_threads(bool packed, bool event_idx, unsigned int window)
{
	struct duo *t = calloc(1, sizeof(*t));
	unsigned int made = 0, done = 0;
	pthread_t device;

	assert_non_null(t);
	t->conf = (struct vring_conf){
		.packed = packed, .event_idx = event_idx, .in_order = true, .size = 32
	};
	guest_init(&t->g, true);
	driver_init(&t->d, &t->g, &t->conf);
	t->conf = driver_conf(&t->d);
	t->kick = eventfd(0, EFD_CLOEXEC);
	t->call = eventfd(0, EFD_CLOEXEC);
	assert_int_equal(pthread_create(&device, NULL, device_thread, t), 0);
	while (done < THREAD_CHAINS) {
		unsigned int before = made;
		uint64_t cookie, x;
		uint32_t len;

		while (made < THREAD_CHAINS && t->d.outstanding < window)
			thread_add(t, made++);
		if (made != before && driver_should_kick(&t->d))
			wake(t->kick);
		if (!driver_get(&t->d, &cookie, &len)) {
			if (!driver_want(&t->d, true, 1) && !sleep_on(t->call))
				break;
			driver_want(&t->d, false, 1);
			continue;
		}
		assert_int_equal(cookie, done);
		assert_int_equal(len, 8);
		guest_read(&t->g, GUEST_DATA + cookie % t->conf.size * 16 + 8, &x, 8);
		assert_int_equal(x, ~(cookie * 0x9e3779b97f4a7c15ULL));
		done++;
	}
	pthread_join(device, NULL);
	if (t->failed)
		fail_msg("%s", t->failed);
	assert_int_equal(done, THREAD_CHAINS);
	close(t->kick);
	close(t->call);
	driver_fini(&t->d);
	guest_fini(&t->g);
	free(t);
}

static void test_threads(void **state)
{
	for (unsigned int f = 0; f < 8; f++)
		run_threads(f & 1, f & 2, f & 4 ? 1 : 16);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests_name("vring_threads", tests, NULL, NULL);
}
