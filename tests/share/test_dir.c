// SPDX-License-Identifier: BSD-2-Clause
/*
 * dir: one contract for every directory. GM_TEST_DIRECTORY: URL of an empty one; default
 * is a file of its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>
#include <cmocka.h>

#include "../../user/lib/clock.h"
#include "../../user/share/dir/dir.h"
#include "../../user/share/dir/dir_json.h"

#define LEASE_MS 3000

static char url[256], tmp[] = "/tmp/test_dir.XXXXXX";

static struct dir *open_dir(void)
{
	struct dir *d;

	assert_int_equal(dir_open(url, LEASE_MS, 5000, &d), 0);
	return d;
}

static struct dir_region region(const char *name, const char *node)
{
	struct dir_region r = { .size = 16 << 12,
				.page_shift = GM_PAGE_SHIFT,
				.key_id = 1,
				.read_key_id = 2 };

	snprintf(r.name, sizeof(r.name), "%s", name);
	snprintf(r.node, sizeof(r.node), "%s", node);
	snprintf(r.addr, sizeof(r.addr), "tcp:10.0.0.1:7400");
	return r;
}

static void test_open(void **state)
{
	struct dir *d;

	assert_int_equal(dir_open("nothing:here", LEASE_MS, 100, &d), -EINVAL);
	assert_int_equal(dir_open("", LEASE_MS, 100, &d), -EINVAL);
}

static void test_life(void **state)
{
	struct dir *d = open_dir(), *e = open_dir();
	struct dir_region a = region("life", "n1"), b = region("life2", "n2"), r;

	assert_int_equal(dir_find(d, "life", 0, &r), -ENOENT);
	assert_int_equal(dir_add(d, &a), 0);
	assert_int_equal(a.epoch, 1);
	assert_true(a.bus >= GM_BUS_MIN && a.bus % GM_PAGE_SIZE == 0);
	assert_int_equal(dir_add(e, &b), 0);
	assert_true(b.bus >= a.bus + a.size + GM_PAGE_SIZE ||
		    a.bus >= b.bus + b.size + GM_PAGE_SIZE);
	assert_int_equal(dir_find(e, "life", 0, &r), 0);
	assert_string_equal(r.node, "n1");
	assert_string_equal(r.addr, "tcp:10.0.0.1:7400");
	assert_true(r.bus == a.bus && r.size == a.size && r.key_id == 1 &&
		    r.read_key_id == 2 && r.lease_ms == LEASE_MS);
	assert_int_equal(r.page_shift, GM_PAGE_SHIFT);
	assert_int_equal(dir_find(e, NULL, a.bus + a.size - 1, &r), 0);
	assert_string_equal(r.name, "life");
	assert_int_equal(dir_find(e, NULL, a.bus + a.size, &r), -ENOENT);
	assert_int_equal(dir_find(e, NULL, 1, &r), -ENOENT);

	/* Another owner while this one lives; a move; the old owner afterwards. */
	r = region("life", "n2");
	assert_int_equal(dir_add(e, &r), -EEXIST);
	r = a;
	snprintf(r.node, sizeof(r.node), "n2");
	r.epoch = 2;
	assert_int_equal(dir_update(e, &r, 7), -ESTALE);
	assert_int_equal(dir_update(e, &r, 1), 0);
	assert_int_equal(dir_update(d, &a, 1), -ESTALE);
	assert_int_equal(dir_remove(d, "life", 1), -ESTALE);
	assert_int_equal(dir_find(d, NULL, a.bus, &r), 0);
	assert_string_equal(r.node, "n2");
	assert_int_equal(dir_remove(d, "life", 2), 0);
	assert_int_equal(dir_remove(d, "life", 2), -ENOENT);
	assert_int_equal(dir_update(d, &a, 1), -ENOENT);
	assert_int_equal(dir_remove(d, "life2", 1), 0);
	dir_close(d);
	dir_close(e);
}

/* Huge pages begin at a bus address that is a multiple of theirs, wherever the last region
 * ended, and stay what they are when the region moves. */
static void test_pages(void **state)
{
	struct dir *d = open_dir();
	struct dir_region r;
	char name[16];

	for (int i = 0; i < 6; i++) {
		struct dir_region a;

		snprintf(name, sizeof(name), "pages%d", i);
		a = region(name, "n1");
		if (i % 2) {
			a.page_shift = GM_HUGE_SHIFT;
			a.size = 3 * GM_HUGE_SIZE;
		}
		assert_int_equal(dir_add(d, &a), 0);
		assert_int_equal(a.bus % (1u << a.page_shift), 0);
		assert_int_equal(dir_find(d, NULL, a.bus + a.size - 1, &r), 0);
		assert_string_equal(r.name, name);
		assert_int_equal(r.page_shift, a.page_shift);
		a.epoch = 2;
		assert_int_equal(dir_update(d, &a, 1), 0);
		assert_int_equal(dir_find(d, name, 0, &r), 0);
		assert_int_equal(r.page_shift, a.page_shift);
	}
	for (int i = 0; i < 6; i++) {
		snprintf(name, sizeof(name), "pages%d", i);
		assert_int_equal(dir_remove(d, name, 2), 0);
	}
	dir_close(d);
}

/* What a record says of pages: nothing, in old ones. */
static void test_record(void **state)
{
	static const struct {
		const char *page;
		uint64_t bus, size;
		unsigned int shift; /* 0: refused */
	} records[] = {
		{ "", GM_BUS_MIN, 4096, GM_PAGE_SHIFT },
		{ ", \"page\": 4096", GM_BUS_MIN, 4096, GM_PAGE_SHIFT },
		{ ", \"page\": 2097152", GM_BUS_MIN, 4194304, GM_HUGE_SHIFT },
		{ ", \"page\": 2097152", GM_BUS_MIN + 4096, 4194304, 0 },
		{ ", \"page\": 2097152", GM_BUS_MIN, 4198400, 0 },
		{ ", \"page\": 0", GM_BUS_MIN, 4096, 0 },
		{ ", \"page\": -4096", GM_BUS_MIN, 4096, 0 },
		{ ", \"page\": 8192", GM_BUS_MIN, 8192, 0 },
		{ ", \"page\": 1073741824", GM_BUS_MIN, 1073741824, 0 },
		{ ", \"page\": \"2M\"", GM_BUS_MIN, 4194304, 0 },
	};

	for (size_t i = 0; i < sizeof(records) / sizeof(*records); i++) {
		struct dir_region r = { 0 };
		char text[512];
		json_t *v;

		snprintf(text, sizeof(text),
			 "{\"bus\": %llu, \"size\": %llu, \"node\": \"n1\", \"addr\": "
			 "\"x\", "
			 "\"epoch\": 1, \"key\": 1, \"read_key\": 0, \"lease_ms\": "
			 "1000%s}",
			 (unsigned long long)records[i].bus,
			 (unsigned long long)records[i].size, records[i].page);
		v = json_loads(text, 0, NULL);
		assert_non_null(v);
		assert_int_equal(dir_json_unpack("mem", v, &r),
				 records[i].shift ? 0 : -EBADMSG);
		assert_int_equal(r.page_shift, records[i].shift);
		json_decref(v);
	}
}

static int count(void *arg, const struct dir_region *r)
{
	return ++*(int *)arg == 2 ? 17 : 0;
}

static void test_list(void **state)
{
	struct dir *d = open_dir();
	struct dir_region r;
	char name[8];
	int n = 0;

	assert_int_equal(dir_list(d, count, &n), 0);
	for (int i = 0; i < 3; i++) {
		snprintf(name, sizeof(name), "l%d", i);
		r = region(name, "n1");
		assert_int_equal(dir_add(d, &r), 0);
	}
	n = 0;
	assert_int_equal(dir_list(d, count, &n), 17);
	assert_int_equal(n, 2);
	for (int i = 0; i < 3; i++) {
		snprintf(name, sizeof(name), "l%d", i);
		assert_int_equal(dir_remove(d, name, 1), 0);
	}
	dir_close(d);
}

/* A region may be taken when its owner's lease has ended, never before. */
static void test_lease(void **state)
{
	struct dir *d = open_dir(), *e = open_dir();
	struct dir_region a = region("lease", "n1"), b;
	uint64_t end, renewed = 0;
	int err;

	assert_int_equal(dir_add(d, &a), 0);
	for (end = clock_ns() + 2 * (uint64_t)LEASE_MS * 1000000; clock_ns() < end;) {
		uint64_t now = clock_ns();

		assert_int_equal(dir_renew(d, "n1"), 0);
		renewed = now;
		b = region("lease", "n2");
		assert_int_equal(dir_add(e, &b), -EEXIST);
		poll(NULL, 0, LEASE_MS / 5);
	}
	end = clock_ns() + 10 * (uint64_t)LEASE_MS * 1000000;
	do {
		b = region("lease", "n2");
		err = dir_add(e, &b);
		poll(NULL, 0, 20);
	} while (err == -EEXIST && clock_ns() < end);
	assert_int_equal(err, 0);
	assert_true(clock_ns() - renewed >= (uint64_t)LEASE_MS * 1000000);
	assert_int_equal(b.epoch, 2);
	assert_int_equal(dir_renew(d, "n1"), -ESTALE);
	assert_int_equal(dir_update(d, &a, 1), -ESTALE);
	assert_int_equal(dir_remove(e, "lease", 2), 0);
	dir_close(d);
	dir_close(e);
}

static void test_watch(void **state)
{
	struct dir *d = open_dir(), *e = open_dir();
	struct dir_region a = region("watch", "n1"), r;
	int fd = dir_watch_fd(e);
	struct pollfd p = { .fd = fd, .events = POLLIN };
	bool added = false, removed = false;
	uint64_t end;

	assert_true(fd >= 0);
	while (dir_watch_next(e, &r) > 0)
		;
	assert_int_equal(dir_add(d, &a), 0);
	for (end = clock_ns() + 30000000000ull; !added && clock_ns() < end;) {
		poll(&p, 1, 100);
		while (dir_watch_next(e, &r) > 0)
			if (!strcmp(r.name, "watch") && r.size == a.size)
				added = true;
	}
	assert_true(added);
	assert_int_equal(dir_remove(d, "watch", 1), 0);
	for (end = clock_ns() + 30000000000ull; !removed && clock_ns() < end;) {
		poll(&p, 1, 100);
		while (dir_watch_next(e, &r) > 0)
			if (!strcmp(r.name, "watch") && !r.size)
				removed = true;
	}
	assert_true(removed);
	dir_close(d);
	dir_close(e);
}

static void *racer(void *arg)
{
	struct dir *d = open_dir();
	struct dir_region r;
	char name[16], node[16];
	uintptr_t won = 0;

	snprintf(node, sizeof(node), "r%d", *(int *)arg);
	for (int i = 0; i < 10; i++) {
		snprintf(name, sizeof(name), "race%d", i);
		r = region(name, node);
		if (!dir_add(d, &r))
			won++;
	}
	dir_close(d);
	return (void *)won;
}

static int distinct(void *arg, const struct dir_region *r)
{
	uint64_t *seen = arg;

	for (uint64_t i = 1; i <= seen[0]; i++)
		if (seen[i] == r->bus)
			return -EEXIST;
	seen[++seen[0]] = r->bus;
	return 0;
}

/* Four nodes want the same names at once: one gets each, ranges are distinct. */
static void test_race(void **state)
{
	int id[4] = { 0, 1, 2, 3 };
	uint64_t seen[64] = { 0 };
	uintptr_t sum = 0;
	struct dir *d = open_dir();
	pthread_t t[4];
	void *won;

	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, racer, &id[i]), 0);
	for (int i = 0; i < 4; i++) {
		pthread_join(t[i], &won);
		sum += (uintptr_t)won;
	}
	assert_int_equal(sum, 10);
	assert_int_equal(dir_list(d, distinct, seen), 0);
	assert_int_equal(seen[0], 10);
	dir_close(d);
}

/* ---- one call at a time ------------------------------------------------------------- */

static int calls;

static int within(struct dir *d)
{
	calls++;
	assert_int_equal(pthread_mutex_trylock(&d->lock), EBUSY);
	return 0;
}

static int within_region(struct dir *d, struct dir_region *r)
{
	return within(d);
}

static int within_find(struct dir *d, const char *name, uint64_t bus,
		       struct dir_region *out)
{
	return within(d);
}

static int within_list(struct dir *d, int (*each)(void *arg, const struct dir_region *r),
		       void *arg)
{
	return within(d);
}

static int within_update(struct dir *d, const struct dir_region *r, uint32_t old_epoch)
{
	return within(d);
}

static int within_remove(struct dir *d, const char *name, uint32_t epoch)
{
	return within(d);
}

static int within_renew(struct dir *d, const char *node)
{
	return within(d);
}

static int within_node(struct dir *d, const char *node, char addr[NET_ADDR_MAX])
{
	return within(d);
}

/* What a directory does not say it can do beside another call is done alone. */
static void test_alone(void **state)
{
	static const struct dir_ops ops = {
		.add = within_region,
		.find = within_find,
		.list = within_list,
		.update = within_update,
		.remove = within_remove,
		.renew = within_renew,
		.node = within_node,
		.watch_fd = within,
	};
	struct dir d = { .ops = &ops, .lock = PTHREAD_MUTEX_INITIALIZER };
	struct dir_region r = { 0 };
	char addr[NET_ADDR_MAX];

	calls = 0;
	assert_int_equal(dir_add(&d, &r), 0);
	assert_int_equal(dir_find(&d, "name", 0, &r), 0);
	assert_int_equal(dir_list(&d, count, NULL), 0);
	assert_int_equal(dir_update(&d, &r, 1), 0);
	assert_int_equal(dir_remove(&d, "name", 1), 0);
	assert_int_equal(dir_renew(&d, "n1"), 0);
	assert_int_equal(dir_node(&d, "n1", addr), 0);
	assert_int_equal(dir_watch_fd(&d), 0);
	assert_int_equal(calls, 8);
	assert_int_equal(pthread_mutex_trylock(&d.lock), 0);
}

/* ---- a directory that is a file: its lock ------------------------------------------- */

static int take_lock(void)
{
	char path[sizeof(url) + 8];
	int fd;

	snprintf(path, sizeof(path), "%s.lock", url + strlen("file:"));
	fd = open(path, O_RDWR | O_CREAT, 0600);
	assert_true(fd >= 0);
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
	return fd;
}

static struct dir *open_as(uint32_t lease_ms, int timeout_ms)
{
	struct dir *d;

	assert_int_equal(dir_open(url, lease_ms, timeout_ms, &d), 0);
	return d;
}

/* Who changes the directory is in the way of nobody who reads it. */
static void test_file_reads(void **state)
{
	struct dir *d = open_as(LEASE_MS, 100), *e = open_dir();
	struct dir_region a = region("reads", "n1"), r;
	struct pollfd p = { .events = POLLIN };
	char addr[NET_ADDR_MAX];
	int fd, n = 0;

	dir_announce(e, "tcp:10.0.0.1:7400");
	p.fd = dir_watch_fd(d);
	assert_int_equal(dir_add(e, &a), 0);
	fd = take_lock();
	assert_int_equal(dir_find(d, "reads", 0, &r), 0);
	assert_int_equal(dir_find(d, NULL, a.bus, &r), 0);
	assert_int_equal(dir_list(d, count, &n), 17);
	assert_int_equal(dir_node(d, "n1", addr), 0);
	assert_string_equal(addr, "tcp:10.0.0.1:7400");
	assert_int_equal(poll(&p, 1, 30000), 1);
	assert_int_equal(dir_watch_next(d, &r), 1);
	assert_string_equal(r.name, "reads");
	assert_int_equal(dir_watch_next(d, &r), 0);
	/* Renewals are no news for who watches regions. */
	close(fd);
	assert_int_equal(dir_renew(e, "n1"), 0);
	while (poll(&p, 1, 100) > 0)
		assert_int_equal(dir_watch_next(d, &r), 0);
	assert_int_equal(dir_remove(e, "reads", a.epoch), 0);
	dir_close(d);
	dir_close(e);
}

/* A writer gives up in the end. */
static void test_file_timeout(void **state)
{
	struct dir *d = open_as(400, 100);
	struct dir_region a = region("timeout", "n1");
	int fd = take_lock();

	assert_int_equal(dir_renew(d, "n1"), -ETIMEDOUT);
	assert_int_equal(dir_add(d, &a), -ETIMEDOUT);
	close(fd);
	assert_int_equal(dir_renew(d, "n1"), 0);
	dir_close(d);
}

static void *renewer(void *arg)
{
	struct dir *d = open_as(60000, 50);
	intptr_t err = dir_renew(d, arg);

	dir_close(d);
	return (void *)err;
}

/* Lines of /proc/locks that say "-> ", of who waits: ours, as nobody else of this process
 * has any */
static int waiters(void)
{
	FILE *f = fopen("/proc/locks", "r");
	char line[256];
	int n = 0, pid;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		n += sscanf(line, "%*s -> FLOCK ADVISORY WRITE %d", &pid) == 1 &&
		     pid == getpid();
	fclose(f);
	return n;
}

/* Many wait for longer than the time limit: the lease says how long. They queue in the
 * kernel: all are seen there at once. */
static void test_file_queue(void **state)
{
	enum { N = 64 };
	uint64_t end = clock_ns() + 30000000000ull, after;
	static char node[N][16];
	pthread_t t[N];
	void *err;
	int fd = take_lock();

	for (int i = 0; i < N; i++) {
		snprintf(node[i], sizeof(node[i]), "q%d", i);
		assert_int_equal(pthread_create(&t[i], NULL, renewer, node[i]), 0);
	}
	while (waiters() < N && clock_ns() < end)
		poll(NULL, 0, 1);
	assert_int_equal(waiters(), N);
	/* Well beyond the limit that they were given, 50 ms. */
	for (after = clock_ns() + 500000000; clock_ns() < after;)
		poll(NULL, 0, 10);
	assert_int_equal(waiters(), N);
	close(fd);
	for (int i = 0; i < N; i++) {
		pthread_join(t[i], &err);
		assert_int_equal((intptr_t)err, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_open),  cmocka_unit_test(test_life),
		cmocka_unit_test(test_pages), cmocka_unit_test(test_list),
		cmocka_unit_test(test_lease), cmocka_unit_test(test_watch),
		cmocka_unit_test(test_race),
	};
	const struct CMUnitTest of_file[] = {
		cmocka_unit_test(test_record),	   cmocka_unit_test(test_alone),
		cmocka_unit_test(test_file_reads), cmocka_unit_test(test_file_timeout),
		cmocka_unit_test(test_file_queue),
	};
	const char *given = getenv("GM_TEST_DIRECTORY");
	char cmd[sizeof(tmp) + 8];
	int rc;

	if (given) {
		snprintf(url, sizeof(url), "%s", given);
		return cmocka_run_group_tests_name("dir", tests, NULL, NULL);
	}
	if (!mkdtemp(tmp))
		return 1;
	snprintf(url, sizeof(url), "file:%s/dir.json", tmp);
	rc = cmocka_run_group_tests_name("dir", tests, NULL, NULL);
	rc |= cmocka_run_group_tests_name("dir_file", of_file, NULL, NULL);
	snprintf(cmd, sizeof(cmd), "rm -r %s", tmp);
	return system(cmd) ? 1 : rc;
}
