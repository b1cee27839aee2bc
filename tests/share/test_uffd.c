// SPDX-License-Identifier: BSD-2-Clause
/* uffd: no descriptor of a program's makes the agent wait, whatever it is and whoever else
 * reads from it. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../user/share/agent/uffd.h"

#define STUCK_S 20

/* What poll() says of a message that another reader takes before we do. */
static short lie;

int poll(struct pollfd *fds, nfds_t nfds, int timeout)
{
	struct timespec ts = { timeout / 1000, timeout % 1000 * 1000000L };

	if (lie) {
		fds->revents = lie;
		return 1;
	}
	return ppoll(fds, nfds, timeout < 0 ? NULL : &ts, NULL);
}

static int make(int flags)
{
	struct uffdio_api api = { .api = UFFD_API };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | flags);

	assert_return_code(fd, errno);
	assert_return_code(ioctl(fd, UFFDIO_API, &api), errno);
	return fd;
}

static void test_check(void **state)
{
	int fd = make(O_NONBLOCK), pipes[2];

	assert_int_equal(uffd_check(fd), 0);
	close(fd);
	assert_int_equal(uffd_check(fd), -ENOENT);
	assert_return_code(pipe(pipes), errno);
	assert_int_equal(uffd_check(pipes[0]), -EINVAL);
	close(pipes[0]);
	close(pipes[1]);
	fd = eventfd(0, 0);
	assert_int_equal(uffd_check(fd), -EINVAL);
	close(fd);
	fd = memfd_create("anon_inode:[userfaultfd]", 0);
	assert_int_equal(uffd_check(fd), -EINVAL);
	close(fd);
}

static void *touch(void *arg)
{
	return (void *)(uintptr_t) * (volatile uint8_t *)arg;
}

static void reads(int (*take)(int fd, struct uffd_msg *m))
{
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_zeropage zero = { .range.len = 4096 };
	int fd = make(O_NONBLOCK);
	struct pollfd p = { .fd = fd, .events = POLLIN };
	struct uffd_msg m;
	pthread_t t;
	void *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			-1, 0);

	assert_ptr_not_equal(at, MAP_FAILED);
	reg.range.start = zero.range.start = (uintptr_t)at;
	reg.range.len = 4096;
	assert_return_code(ioctl(fd, UFFDIO_REGISTER, &reg), errno);
	alarm(STUCK_S);
	assert_int_equal(take(fd, &m), 0);
	assert_int_equal(pthread_create(&t, NULL, touch, at), 0);
	assert_int_equal(poll(&p, 1, STUCK_S * 1000), 1);
	assert_int_equal(take(fd, &m), 1);
	assert_int_equal(m.event, UFFD_EVENT_PAGEFAULT);
	assert_int_equal(m.arg.pagefault.address, (uintptr_t)at);
	assert_int_equal(take(fd, &m), 0);
	assert_return_code(ioctl(fd, UFFDIO_ZEROPAGE, &zero), errno);
	pthread_join(t, NULL);
	/* It is made to block, with nothing there. */
	assert_return_code(fcntl(fd, F_SETFL, 0), errno);
	assert_int_equal(take(fd, &m), 0);
	alarm(0);
	munmap(at, 4096);
	close(fd);
}

static void test_read(void **state)
{
	reads(uffd_read);
}

static void test_read_timed(void **state)
{
	struct uffd_msg m;
	int fd = make(0);

	reads(uffd_read_timed);
	/* Between the look and the read another reader has taken it. */
	lie = POLLIN;
	assert_int_equal(uffd_read_timed(fd, &m), 0);
	lie = 0;
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_check),
		cmocka_unit_test(test_read),
		cmocka_unit_test(test_read_timed),
	};

	return cmocka_run_group_tests_name("uffd", tests, NULL, NULL);
}
