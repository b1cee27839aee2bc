// SPDX-License-Identifier: BSD-2-Clause
/*
 * vu_mem: regions and their translation; files that are shorter than they said, before
 * or after they were mapped, with huge pages too, inside the sandbox too, and from many
 * threads. Real files, real SIGBUS. What is not ours still kills.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../user/daemon/sandbox.h"
#include "../../user/daemon/vhost/vu_mem.h"

#define PAGE 4096U
#define GPA  0x100000ULL
#define UVA  0x7f1200000000ULL
#define DONE 42 /* exit status of a child that lived */

static int file(uint64_t size)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_return_code(fd, errno);
	assert_return_code(ftruncate(fd, (off_t)size), errno);
	return fd;
}

/* ---- regions --------------------------------------------------------------------- */

static void test_add(void **state)
{
	struct vu_mem m = { 0 };
	int fd = file(16 * PAGE), pipes[2], null = open("/dev/null", O_RDWR | O_CLOEXEC);

	assert_return_code(pipe(pipes), errno);
	assert_int_equal(vu_mem_add(&m, GPA, UVA, 4 * PAGE, 0, fd), 0);
	/* The same, its first and last byte, all around it. */
	assert_int_equal(vu_mem_add(&m, GPA, UVA, 4 * PAGE, 0, fd), -EINVAL);
	assert_int_equal(vu_mem_add(&m, GPA - PAGE, UVA, PAGE + 1, 0, fd), -EINVAL);
	assert_int_equal(vu_mem_add(&m, GPA + 4 * PAGE - 1, UVA, PAGE, 0, fd), -EINVAL);
	assert_int_equal(vu_mem_add(&m, GPA - PAGE, UVA, 8 * PAGE, 0, fd), -EINVAL);
	/* Empty, wrapping, beyond the file, not a file. */
	assert_int_equal(vu_mem_add(&m, 0, UVA, 0, 0, fd), -EINVAL);
	assert_int_equal(vu_mem_add(&m, UINT64_MAX - PAGE + 1, UVA, PAGE, 0, fd),
			 -EINVAL);
	assert_int_equal(vu_mem_add(&m, 0, UINT64_MAX - PAGE + 1, PAGE, 0, fd), -EINVAL);
	assert_int_equal(vu_mem_add(&m, 0, UVA, PAGE, UINT64_MAX - PAGE + 1, fd),
			 -EINVAL);
	assert_int_equal(vu_mem_add(&m, 0, UVA, PAGE, INT64_MAX - 2 * PAGE, fd), -EINVAL);
	assert_int_equal(vu_mem_add(&m, 0, UVA, PAGE, 16 * PAGE, fd), -EINVAL);
	assert_int_equal(vu_mem_add(&m, 0, UVA, INT64_MAX, 0, fd), -EINVAL);
	assert_int_equal(vu_mem_add(&m, 0, UVA, PAGE, 0, null), -EINVAL);
	assert_int_equal(vu_mem_add(&m, 0, UVA, PAGE, 0, pipes[0]), -EINVAL);
	assert_int_equal(vu_mem_add(&m, 0, UVA, PAGE, 0, -1), -EBADF);
	assert_int_equal(m.nregions, 1);
	/* On both sides of it. */
	assert_int_equal(vu_mem_add(&m, GPA + 4 * PAGE, UVA, PAGE, 0, fd), 0);
	assert_int_equal(vu_mem_add(&m, GPA - PAGE, UVA, PAGE, 0, fd), 0);
	assert_int_equal(m.nregions, 3);
	assert_true(m.region[0].gpa < m.region[1].gpa);
	assert_true(m.region[1].gpa < m.region[2].gpa);
	for (unsigned int i = 3; i < VU_MEM_MAX_REGIONS; i++)
		assert_int_equal(vu_mem_add(&m, i * PAGE * 1ULL, UVA, PAGE, 0, fd), 0);
	assert_int_equal(vu_mem_add(&m, 0, UVA, PAGE, 0, fd), -ENOSPC);
	assert_int_equal(vu_mem_del(&m, GPA, UVA + 1, 4 * PAGE), -ENOENT);
	assert_int_equal(vu_mem_del(&m, GPA, UVA, PAGE), -ENOENT);
	assert_int_equal(vu_mem_del(&m, GPA, UVA, 4 * PAGE), 0);
	assert_null(vu_mem_find(&m, GPA));
	assert_int_equal(m.region[m.nregions].size, 0);
	assert_int_equal(vu_mem_add(&m, 0, UVA, PAGE, 0, fd), 0);
	vu_mem_clear(&m);
	assert_int_equal(m.nregions, 0);
	assert_null(vu_mem_find(&m, 0));
	close(fd);
	close(null);
	close(pipes[0]);
	close(pipes[1]);
}

static void test_translate(void **state)
{
	const uint64_t a = 3 * PAGE + 8, b = 5 * PAGE; /* sizes */
	struct vu_mem m = { 0 };
	int fd = file(16 * PAGE);
	uint64_t len, gpa;
	uint8_t *p;

	for (unsigned int i = 0; i < 16 * PAGE; i += 8) {
		uint64_t x = i;

		assert_int_equal(pwrite(fd, &x, 8, i), 8);
	}
	/* An offset that is no multiple of a page. */
	assert_int_equal(vu_mem_add(&m, GPA + a, UVA, b, 2 * PAGE + 24, fd), 0);
	assert_int_equal(vu_mem_add(&m, GPA, UVA + 0x100000, a, PAGE, fd), 0);

	len = 100;
	p = vu_mem_gpa(&m, GPA, &len);
	assert_int_equal(*(uint64_t *)p, PAGE);
	assert_int_equal(len, 100);
	len = 100;
	p = vu_mem_gpa(&m, GPA + a - 8, &len);
	assert_int_equal(*(uint64_t *)p, PAGE + a - 8);
	assert_int_equal(len, 8);
	len = UINT64_MAX;
	p = vu_mem_gpa(&m, GPA + a, &len);
	assert_int_equal(*(uint64_t *)p, 2 * PAGE + 24);
	assert_int_equal(len, b);
	assert_null(vu_mem_gpa(&m, GPA + a + b, &len));
	assert_null(vu_mem_gpa(&m, GPA - 1, &len));

	assert_ptr_equal(vu_mem_uva(&m, UVA, b, &gpa), p);
	assert_int_equal(gpa, GPA + a);
	assert_ptr_equal(vu_mem_uva(&m, UVA + b - 1, 1, &gpa), p + b - 1);
	assert_int_equal(gpa, GPA + a + b - 1);
	assert_null(vu_mem_uva(&m, UVA, b + 1, NULL));
	assert_null(vu_mem_uva(&m, UVA + b, 1, NULL));
	assert_null(vu_mem_uva(&m, UVA - 1, 2, NULL));
	assert_null(vu_mem_uva(&m, UVA + 1, UINT64_MAX, NULL));

	/* It is the file's memory, both ways. */
	p[0] = 0x5a;
	assert_int_equal(pread(fd, &len, 1, 2 * PAGE + 24), 1);
	assert_int_equal(len & 0xff, 0x5a);
	vu_mem_clear(&m);
	close(fd);
}

/* ---- SIGBUS ---------------------------------------------------------------------- */

/* In each test: cmocka puts its own handler around every one. */
static void guard(void)
{
	assert_int_equal(vu_mem_guard(), 0);
}

/* One byte at a time, so that the compiler cannot drop or move it. */
static uint8_t get(const struct vu_mem *m, uint64_t gpa)
{
	uint64_t len = 1;

	return *(volatile uint8_t *)vu_mem_gpa(m, gpa, &len);
}

static void set(const struct vu_mem *m, uint64_t gpa, uint8_t x)
{
	uint64_t len = 1;

	*(volatile uint8_t *)vu_mem_gpa(m, gpa, &len) = x;
}

static void test_truncated(void **state)
{
	struct vu_mem m = { 0 }, other = { 0 };
	int fd = file(8 * PAGE), fd2 = file(PAGE);

	guard();
	assert_int_equal(vu_mem_add(&m, GPA, UVA, 8 * PAGE, 0, fd), 0);
	assert_int_equal(vu_mem_add(&other, GPA, UVA, PAGE, 0, fd2), 0);
	for (unsigned int i = 0; i < 8; i++)
		set(&m, GPA + i * PAGE, 0x11);
	assert_return_code(ftruncate(fd, 3 * PAGE), errno);
	assert_false(vu_mem_broken(&m));
	set(&m, GPA + 2 * PAGE, 0x22);
	assert_false(vu_mem_broken(&m));

	errno = 77;
	assert_int_equal(get(&m, GPA + 5 * PAGE + 5), 0);
	assert_int_equal(errno, 77);
	assert_true(vu_mem_broken(&m));
	assert_false(vu_mem_broken(&other));
	set(&m, GPA + 3 * PAGE, 0x33);
	assert_int_equal(get(&m, GPA + 3 * PAGE), 0x33);
	set(&m, GPA + 8 * PAGE - 1, 0x44);
	assert_int_equal(get(&m, GPA + 8 * PAGE - 1), 0x44);
	/* What is left of the file is still shared. */
	assert_int_equal(get(&m, GPA + 2 * PAGE), 0x22);
	set(&m, GPA, 0x55);
	assert_int_equal(pwrite(fd, "\x66", 1, PAGE), 1);
	assert_int_equal(get(&m, GPA + PAGE), 0x66);

	vu_mem_clear(&m);
	assert_false(vu_mem_broken(&m));
	vu_mem_clear(&other);
	close(fd);
	close(fd2);
}

/* The file never was as long as its region says. */
static void test_short(void **state)
{
	struct vu_mem m = { 0 };
	int fd = file(PAGE + 1);

	guard();
	assert_int_equal(vu_mem_add(&m, GPA, UVA, 64 * PAGE, 0, fd), 0);
	set(&m, GPA + 2 * PAGE - 1, 1);
	assert_false(vu_mem_broken(&m));
	set(&m, GPA + 2 * PAGE, 1);
	assert_true(vu_mem_broken(&m));
	vu_mem_clear(&m);
	close(fd);
}

/* Two huge pages, whether or not the machine has any: one is cut off, and where there
 * are none, touching the other is a SIGBUS as well. */
static void test_huge(void **state)
{
	const uint64_t huge = 2 << 20;
	struct vu_mem m = { 0 };
	int fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB);
	int err;

	guard();
	if (fd < 0) {
		print_message("no huge pages of 2 MiB: %s\n", strerror(errno));
		skip();
	}
	assert_return_code(ftruncate(fd, (off_t)(2 * huge)), errno);
	/* A region that begins and ends inside a huge page. */
	err = vu_mem_add(&m, GPA, UVA, 2 * huge - 3 * PAGE, PAGE, fd);
	assert_int_equal(err, 0);
	assert_return_code(ftruncate(fd, (off_t)huge), errno);
	set(&m, GPA + huge + 5 * PAGE, 0x77);
	assert_true(vu_mem_broken(&m));
	assert_int_equal(get(&m, GPA + huge + 5 * PAGE), 0x77);
	assert_int_equal(get(&m, GPA + huge - PAGE), 0);
	set(&m, GPA + 2 * huge - 3 * PAGE - 1, 0x78);
	assert_int_equal(get(&m, GPA + huge + 5 * PAGE), 0x77);
	vu_mem_clear(&m);
	close(fd);
}

/* Run @fn in a child. Return: its wait status */
static int in_child(void (*fn)(void))
{
	const struct rlimit no_core = { 0, 0 };
	int status;
	pid_t pid = fork();

	assert_return_code(pid, errno);
	if (!pid) {
		setrlimit(RLIMIT_CORE, &no_core);
		fn();
		_exit(DONE);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void touch_other(void)
{
	int fd = memfd_create("other", MFD_CLOEXEC);
	volatile uint8_t *p;

	if (fd < 0 || ftruncate(fd, PAGE))
		_exit(1);
	p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED || ftruncate(fd, 0))
		_exit(1);
	p[0] = 1;
}

/* A mapping that was guarded, and is ours no longer. */
static void touch_deleted(void)
{
	struct vu_mem m = { 0 };
	int fd = memfd_create("gone", MFD_CLOEXEC);
	void *p;

	if (fd < 0 || ftruncate(fd, PAGE) || vu_mem_add(&m, GPA, UVA, PAGE, 0, fd))
		_exit(1);
	p = m.region[0].base;
	vu_mem_clear(&m);
	if (mmap(p, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) != p ||
	    ftruncate(fd, 0))
		_exit(1);
	*(volatile uint8_t *)p = 1;
}

static void raise_it(void)
{
	raise(SIGBUS);
}

static void test_foreign(void **state)
{
	static void (*const fn[])(void) = { touch_other, touch_deleted, raise_it };

	guard();
	for (unsigned int i = 0; i < 3; i++) {
		int status = in_child(fn[i]);

		assert_true(WIFSIGNALED(status));
		assert_int_equal(WTERMSIG(status), SIGBUS);
	}
}

static void touch_in_sandbox(void)
{
	struct vu_mem m = { 0 };
	int fd = memfd_create("guest", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, 4 * PAGE) || sandbox_enter())
		_exit(1);
	/* As a guest that connects after the daemon has started. */
	if (vu_mem_add(&m, GPA, UVA, 4 * PAGE, 0, fd) || ftruncate(fd, PAGE))
		_exit(2);
	set(&m, GPA + 2 * PAGE, 9);
	if (get(&m, GPA + 2 * PAGE) != 9 || !vu_mem_broken(&m))
		_exit(3);
	vu_mem_clear(&m);
}

static void test_sandbox(void **state)
{
	int status;

	guard();
	status = in_child(touch_in_sandbox);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), DONE);
}

/* ---- many at once ---------------------------------------------------------------- */

#define THREADS 4
#define ROUNDS	300

struct visitor {
	pthread_t thread;
	unsigned int salt;
	const char *bad; /* what went wrong */
};

static void *come_and_go(void *arg)
{
	struct visitor *v = arg;

	for (unsigned int i = 0; i < ROUNDS; i++) {
		struct vu_mem m = { 0 };
		int fd = memfd_create("guest", MFD_CLOEXEC);
		uint64_t cut = (i + v->salt) % 4;

		if (fd < 0 || ftruncate(fd, 4 * PAGE) ||
		    vu_mem_add(&m, GPA, UVA, 4 * PAGE, 0, fd) ||
		    ftruncate(fd, (off_t)(cut * PAGE)))
			v->bad = "set-up";
		for (uint64_t p = 0; p < cut; p++)
			set(&m, GPA + p * PAGE, (uint8_t)p);
		if (vu_mem_broken(&m))
			v->bad = "broken too early";
		for (uint64_t p = cut; p < 4; p++)
			set(&m, GPA + p * PAGE, (uint8_t)p);
		if (!vu_mem_broken(&m))
			v->bad = "not broken";
		for (uint64_t p = 0; p < 4; p++)
			if (get(&m, GPA + p * PAGE) != p)
				v->bad = "another byte";
		vu_mem_clear(&m);
		close(fd);
		if (v->bad)
			break;
	}
	return NULL;
}

static void test_threads(void **state)
{
	struct visitor v[THREADS] = { 0 };

	guard();
	for (unsigned int i = 0; i < THREADS; i++) {
		v[i].salt = i;
		assert_int_equal(pthread_create(&v[i].thread, NULL, come_and_go, &v[i]),
				 0);
	}
	for (unsigned int i = 0; i < THREADS; i++) {
		pthread_join(v[i].thread, NULL);
		if (v[i].bad)
			fail_msg("%s", v[i].bad);
	}
}

/* More mappings than the guard has slots: refused, and the slots come back. */
static void test_slots(void **state)
{
	struct vu_map *map = calloc(VU_MAP_MAX + 1, sizeof(*map));
	int fd = file(PAGE);
	bool broken = false;

	assert_non_null(map);
	for (unsigned int turn = 0; turn < 2; turn++) {
		for (unsigned int i = 0; i < VU_MAP_MAX; i++)
			assert_int_equal(vu_map_create(&map[i], fd, 0, PAGE, &broken), 0);
		assert_int_equal(vu_map_create(&map[VU_MAP_MAX], fd, 0, PAGE, &broken),
				 -ENOSPC);
		assert_null(map[VU_MAP_MAX].base);
		for (unsigned int i = 0; i <= VU_MAP_MAX; i++)
			vu_map_destroy(&map[i]);
	}
	assert_false(broken);
	free(map);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_add),	  cmocka_unit_test(test_translate),
		cmocka_unit_test(test_truncated), cmocka_unit_test(test_short),
		cmocka_unit_test(test_huge),	  cmocka_unit_test(test_foreign),
		cmocka_unit_test(test_sandbox),	  cmocka_unit_test(test_threads),
		cmocka_unit_test(test_slots),
	};

	return cmocka_run_group_tests_name("vu_mem", tests, NULL, NULL);
}
