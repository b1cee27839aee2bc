// SPDX-License-Identifier: BSD-2-Clause
/* home: a region that cannot be served leaves no descriptor behind, and none closed that
 * it was not given. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "../../user/share/agent/home.h"
#include "../../user/lib/loop.h"

#define SIZE (16 * GM_PAGE_SIZE)
#define FDS  256

static const struct gm_key key = { .len = 4, .bytes = "key" };

struct rig {
	struct loop *loop;
	struct home *home;
	char dir[32], addr[64];
};

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));

	strcpy(r->dir, "/tmp/test_home.XXXXXX");
	assert_non_null(mkdtemp(r->dir));
	snprintf(r->addr, sizeof(r->addr), "unix:%s/a", r->dir);
	assert_int_equal(loop_create(&r->loop), 0);
	assert_int_equal(home_create(r->loop, "n1", r->addr, NULL, 1000, &r->home), 0);
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	home_destroy(r->home);
	loop_destroy(r->loop);
	unlink(r->addr + strlen("unix:"));
	assert_return_code(rmdir(r->dir), errno);
	free(r);
	return 0;
}

/* Which descriptors are open. */
static void look(bool open[FDS])
{
	for (int i = 0; i < FDS; i++)
		open[i] = fcntl(i, F_GETFD) >= 0;
}

static void same(const bool before[FDS])
{
	bool now[FDS];

	look(now);
	for (int i = 0; i < FDS; i++)
		if (before[i] != now[i])
			fail_msg("descriptor %d is %s", i,
				 now[i] ? "left" : "closed, and not home's");
}

static struct dir_region region(const char *name, uint64_t bus, uint64_t size)
{
	struct dir_region d = { .bus = bus,
				.size = size,
				.page_shift = GM_PAGE_SHIFT,
				.epoch = 1,
				.key_id = 1,
				.lease_ms = 1000 };

	strcpy(d.name, name);
	strcpy(d.node, "n1");
	return d;
}

static int memory(void)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_return_code(fd, errno);
	assert_return_code(ftruncate(fd, SIZE), errno);
	return fd;
}

/* What was given is gone, and all else is as it was. */
static void fails(struct rig *r, const struct dir_region *d, int memfd, int want)
{
	struct home_region *h = NULL;
	bool before[FDS];

	look(before);
	before[memfd] = false;
	assert_int_equal(home_add(r->home, d, &key, NULL, memfd, &h), want);
	assert_null(h);
	same(before);
}

static void keeps_no_descriptor(void **state)
{
	struct rig *r = *state;
	struct dir_region d = region("one", GM_BUS_MIN, SIZE);
	struct home_region *h;
	char path[40];
	int fd, ro;

	assert_int_equal(home_add(r->home, &d, &key, NULL, memory(), &h), 0);
	/* Its addresses are another region's. */
	d = region("two", GM_BUS_MIN + GM_PAGE_SIZE, SIZE);
	fails(r, &d, memory(), -EEXIST);
	/* Its memory cannot be written. */
	d = region("three", GM_BUS_MIN + 2 * SIZE, SIZE);
	fd = memory();
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ro = open(path, O_RDONLY | O_CLOEXEC);
	assert_return_code(ro, errno);
	close(fd);
	fails(r, &d, ro, -EACCES);
	/* No memory for what is kept of so many pages. */
	d = region("four", GM_BUS_MIN + 2 * SIZE, 1ULL << 60);
	fails(r, &d, memory(), -ENOMEM);
	/* Its pages are others than the region's. */
	d = region("five", GM_BUS_MIN + GM_HUGE_SIZE, GM_HUGE_SIZE);
	d.page_shift = GM_HUGE_SHIFT;
	fails(r, &d, memory(), -EINVAL);
	/* And the first is served as before. */
	assert_ptr_equal(home_find(r->home, "one", 0), h);
	assert_null(home_find(r->home, "two", 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(keeps_no_descriptor, setup, teardown),
	};

	return cmocka_run_group_tests_name("home", tests, NULL, NULL);
}
