// SPDX-License-Identifier: BSD-2-Clause
/* Metadata that outlives an agent: what the next one accepts, and what it makes of memory
 * that is another version's, another region's, cut off, or plain noise. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../user/share/agent/coh.h"
#include "../../user/share/agent/meta.h"

#define PAGES 64
#define SIZE  ((uint64_t)PAGES << shift)

static unsigned int shift; /* of a page; the tests run with each */
static uint8_t bytes[GM_HUGE_SIZE];

static struct meta *made(enum meta_kind kind)
{
	struct meta *m;

	assert_int_equal(meta_create(kind, SIZE, shift, &m), 0);
	strcpy(m->hdr->name, "region");
	strcpy(m->hdr->node, "n1");
	strcpy(m->hdr->addr, "tcp:10.0.0.1:7400");
	m->hdr->key.len = 3;
	memcpy(m->hdr->key.bytes, "key", 3);
	meta_seal(m);
	return m;
}

static struct meta *opened(const struct meta *m, enum meta_kind kind)
{
	struct meta *n;

	assert_int_equal(meta_open(m->fd, kind, SIZE, &n), 0);
	return n;
}

static const struct keep_entry *put(struct meta *m, uint64_t page, uint8_t slot,
				    uint64_t seq, uint64_t version, uint8_t fill)
{
	struct keep_entry e = {
		.page = page, .slot = slot, .session = 1, .seq = seq, .version = version
	};

	memset(bytes, fill, (size_t)1 << shift);
	assert_non_null(keep_put(&m->keep, &e, bytes));
	return keep_find(&m->keep, page, slot);
}

static void test_again(void **state)
{
	struct meta *m = made(META_HOME), *n;
	const struct keep_entry *e;

	put(m, 3, 1, 1, 10, 0xa);
	put(m, 4, 1, 2, 11, 0xb);
	put(m, 4, 2, 3, 12, 0xc);
	n = opened(m, META_HOME);
	assert_string_equal(n->hdr->name, "region");
	assert_int_equal(n->keep.n, 3);
	e = keep_find(&n->keep, 4, 1);
	assert_non_null(e);
	assert_int_equal(e->version, 11);
	assert_int_equal(keep_bytes(&n->keep, e)[(1u << shift) - 1], 0xb);
	assert_null(keep_find(&n->keep, 3, 2));
	/* One memory: a place taken by the new one is taken. */
	keep_del(&n->keep, keep_find(&n->keep, 3, 1));
	put(n, 5, 1, 4, 1, 0xd);
	meta_destroy(m);
	m = opened(n, META_HOME);
	assert_int_equal(m->keep.n, 3);
	assert_null(keep_find(&m->keep, 3, 1));
	assert_non_null(keep_find(&m->keep, 5, 1));
	meta_destroy(m);
	meta_destroy(n);
}

/* Of two copies of a page the newer one, whatever the order of their places, also when
 * versions have wrapped, and when another owner has begun anew. */
static void test_newest(void **state)
{
	static const struct {
		uint64_t v[2];
		int newer;
	} pairs[] = {
		{ { 5, 6 }, 1 },
		{ { 6, 5 }, 0 },
		{ { UINT32_MAX, 2 }, 1 },
		{ { 1ull << 32 | UINT32_MAX, 2ull << 32 | 1 }, 1 },
		{ { 2ull << 32 | 1, 1ull << 32 | 0x7fffffff }, 0 },
	};

	for (size_t i = 0; i < sizeof(pairs) / sizeof(*pairs); i++) {
		struct meta *m = made(META_IMPORT), *n;
		const uint64_t *v = pairs[i].v;

		put(m, 9, 0, 1, v[0], 1);
		put(m, 9, 0, 2, v[1], 2);
		n = opened(m, META_IMPORT);
		assert_int_equal(n->keep.n, 1);
		assert_int_equal(keep_find(&n->keep, 9, 0)->version, v[pairs[i].newer]);
		meta_destroy(n);
		meta_destroy(m);
	}
}

static void test_trim(void **state)
{
	struct meta *m = made(META_IMPORT);

	for (uint64_t i = 0; i < 10; i++)
		put(m, i, 0, i + 1, 1, 0);
	keep_trim(&m->keep, 2, 10); /* another session's numbers */
	assert_int_equal(m->keep.n, 10);
	keep_trim(&m->keep, 1, 4);
	assert_int_equal(m->keep.n, 6);
	assert_null(keep_find(&m->keep, 3, 0));
	assert_non_null(keep_find(&m->keep, 4, 0));
	keep_trim(&m->keep, 1, UINT64_MAX);
	assert_int_equal(m->keep.n, 0);
	meta_destroy(m);
}

/* Bytes that are kept are bounded, whatever a page has. */
static void test_bounded(void **state)
{
	struct meta *m = made(META_HOME);

	assert_in_range(m->keep.room, 32, (64u << 20) >> shift);
	assert_in_range(m->given.room, 1, (64u << 20) >> shift);
	meta_destroy(m);
}

static void test_full(void **state)
{
	struct meta *m = made(META_HOME), *n;
	struct keep_entry e = { .slot = 1, .session = 1 };
	unsigned int room = m->keep.room, kept = room < PAGES ? room : PAGES;

	for (e.seq = 1; e.seq <= room; e.seq++) {
		e.page = e.seq % PAGES;
		e.version = e.seq;
		assert_non_null(keep_put(&m->keep, &e, bytes));
	}
	assert_null(keep_put(&m->keep, &e, bytes));
	/* Who comes after keeps one of each page, and has room again. */
	n = opened(m, META_HOME);
	assert_int_equal(n->keep.n, kept);
	assert_int_equal(n->keep.nunused, room - kept);
	meta_destroy(n);
	keep_trim(&m->keep, 1, room);
	assert_non_null(keep_put(&m->keep, &e, bytes));
	meta_destroy(m);
}

/* A region that moves: the other part is filled in, and counts from one moment on. */
static void test_both(void **state)
{
	struct meta *m = made(META_IMPORT), *n;
	struct keep_entry e = { .page = 7, .session = 1, .seq = 1 };
	struct coh_page *pages = m->table;

	m->held[3] = 2;
	assert_non_null(keep_put(&m->given, &e, bytes));
	put(m, 4, 1, 1, 10, 0xa);
	pages[9].state = COH_LOST;
	m->slots[2].used = 1;
	m->hdr->incarnation = 77;
	m->hdr->claim = 8;
	n = opened(m, META_ANY);
	assert_int_equal(n->hdr->kind, META_IMPORT);
	assert_int_equal(n->held[3], 2);
	assert_int_equal(n->given.n, 1);
	assert_int_equal(n->keep.n, 1);
	/* What was there for an owner goes, and nothing else. */
	meta_clear(n, META_HOME);
	assert_int_equal(n->keep.n, 0);
	assert_int_equal(n->keep.nunused, n->keep.room);
	assert_int_equal(((struct coh_page *)n->table)[9].state, COH_HOME);
	assert_false(n->slots[2].used);
	assert_int_equal(n->held[3], 2);
	assert_int_equal(n->given.n, 1);
	meta_become(n, META_HOME, 8);
	assert_int_equal(m->hdr->kind, META_HOME);
	assert_int_equal(m->hdr->epoch, 8);
	assert_int_equal(m->hdr->claim, 0);
	assert_int_equal(m->hdr->incarnation, 0);
	/* And the other way, for which it is known as somebody. */
	meta_clear(n, META_IMPORT);
	assert_int_equal(m->held[3], 0);
	assert_int_equal(n->given.n, 0);
	n->hdr->incarnation = 78;
	meta_become(n, META_IMPORT, 9);
	assert_int_equal(m->hdr->kind, META_IMPORT);
	assert_int_equal(m->hdr->incarnation, 78);
	meta_destroy(n);
	meta_destroy(m);
}

static int refused(int fd, enum meta_kind kind, uint64_t size)
{
	struct meta *n = NULL;
	int err = meta_open(fd, kind, size, &n);

	assert_null(n);
	return err;
}

static void test_foreign(void **state)
{
	struct meta *m = made(META_HOME);
	struct meta_hdr good = *m->hdr;
	struct stat st;
	char path[64];
	int fd;

	assert_int_equal(refused(m->fd, META_IMPORT, SIZE), -EINVAL);
	assert_int_equal(refused(m->fd, META_HOME, SIZE + (1u << shift)), -EINVAL);
	assert_int_equal(refused(m->fd, META_HOME, 0), -EINVAL);
	assert_int_equal(refused(m->fd, META_HOME, SIZE + 1), -EINVAL);
	assert_int_equal(refused(m->fd, META_HOME, UINT64_MAX << shift), -EINVAL);
	assert_int_equal(refused(-1, META_HOME, SIZE), -EINVAL);
	/* Another version; not whole yet. */
	m->hdr->magic ^= 1ull << 48;
	assert_int_equal(refused(m->fd, META_HOME, SIZE), -EINVAL);
	m->hdr->magic = 0;
	assert_int_equal(refused(m->fd, META_HOME, SIZE), -EINVAL);
	*m->hdr = good;
	memset(m->hdr->name, 'x', sizeof(m->hdr->name));
	assert_int_equal(refused(m->fd, META_HOME, SIZE), -EINVAL);
	*m->hdr = good;
	memset(m->hdr->addr, 'x', sizeof(m->hdr->addr));
	assert_int_equal(refused(m->fd, META_HOME, SIZE), -EINVAL);
	*m->hdr = good;
	m->hdr->key.len = 0;
	assert_int_equal(refused(m->fd, META_HOME, SIZE), -EINVAL);
	m->hdr->key.len = GM_KEY_MAX + 1;
	assert_int_equal(refused(m->fd, META_HOME, SIZE), -EINVAL);
	*m->hdr = good;
	m->hdr->read_key.len = 0xff;
	assert_int_equal(refused(m->fd, META_HOME, SIZE), -EINVAL);
	*m->hdr = good;
	/* Pages that there are not, and those of the other size. */
	m->hdr->page_shift++;
	assert_int_equal(refused(m->fd, META_HOME, SIZE), -EINVAL);
	m->hdr->page_shift = shift == GM_PAGE_SHIFT ? GM_HUGE_SHIFT : GM_PAGE_SHIFT;
	assert_int_equal(refused(m->fd, META_HOME, SIZE), -EINVAL);
	*m->hdr = good;
	/* A file somebody can shrink; one that is too short, or too long. */
	fd = memfd_create("loose", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(fstat(m->fd, &st), 0);
	assert_int_equal(ftruncate(fd, st.st_size), 0);
	assert_int_equal(pwrite(fd, &good, sizeof(good), 0), sizeof(good));
	assert_int_equal(refused(fd, META_HOME, SIZE), -EINVAL);
	assert_int_equal(ftruncate(fd, st.st_size - 1), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	assert_int_equal(refused(fd, META_HOME, SIZE), -EINVAL);
	assert_int_equal(ftruncate(fd, st.st_size + 1), 0);
	assert_int_equal(refused(fd, META_HOME, SIZE), -EINVAL);
	close(fd);
	/* One that may only be read. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", m->fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(refused(fd, META_HOME, SIZE), -EACCES);
	close(fd);
	meta_destroy(opened(m, META_HOME));
	meta_destroy(m);
}

static void ignore(void *arg, const struct coh_act *a)
{
}

/* Noise behind a header that is in order: no index leaves its table, and what is taken
 * over can be used. */
static void test_noise(void **state)
{
	for (unsigned int seed = 1; seed <= 20; seed++) {
		struct meta *m = made(META_HOME), *n;
		const struct coh_page *pages;
		struct coh *c;
		uint8_t *table = m->table;
		struct keep_entry *e = m->keep.entries;

		srand(seed);
		for (size_t i = 0; i < coh_size(PAGES); i++)
			table[i] = (uint8_t)rand();
		for (unsigned int i = 0; i < m->keep.room; i++) {
			e[i].page =
				(uint64_t)rand() % (seed % 2 ? PAGES + 1 : UINT64_MAX);
			e[i].slot = (uint8_t)rand();
			e[i].version = (uint32_t)rand();
			e[i].used = rand() % 4 == 0;
			e[i].seq = (uint64_t)rand();
		}
		for (size_t i = 0; i < sizeof(*m->once); i += 4)
			*(uint32_t *)((uint8_t *)m->once + i) = (uint32_t)rand();
		n = opened(m, META_HOME);
		assert_int_equal(n->keep.n + n->keep.nunused, n->keep.room);
		for (unsigned int i = 0; i < n->keep.n; i++) {
			e = &n->keep.entries[n->keep.order[i]];
			assert_true(e->page < PAGES && e->slot < GM_SLOT_MAX);
			assert_ptr_equal(keep_find(&n->keep, e->page, e->slot), e);
		}
		once_recover(n->once, NULL, 0);
		assert_true(n->once->n <= ONCE_CLIENTS);
		assert_int_equal(coh_create(PAGES, n->table, 1, ignore, NULL, &c), 0);
		coh_recover(c);
		pages = n->table;
		for (unsigned int i = 0; i < PAGES; i++) {
			assert_true(pages[i].state <= COH_LOST && !pages[i].txn);
			assert_true(pages[i].state != COH_EXCL ||
				    pages[i].holder < GM_SLOT_MAX);
			coh_request(c, 1, i, COH_WANT_WRITE, false, 8192);
		}
		coh_abort(c, -EIO);
		coh_destroy(c);
		meta_destroy(n);
		meta_destroy(m);
	}
}

static void test_windows(void **state)
{
	struct meta *m = made(META_IMPORT);
	int32_t me = getpid();
	pid_t child;
	int at;

	at = meta_window(m, me, 0x1000, 0);
	assert_in_range(at, 0, META_WINDOWS - 1);
	assert_int_equal(meta_window(m, me, 0x1000, 0), at);
	assert_int_not_equal(meta_window(m, me, 0x2000, 0), at);
	assert_int_equal(meta_awaited(m, 0), 2);
	assert_int_equal(meta_awaited(m, 1u << at), 1);
	meta_window_forget(m, at);
	assert_int_equal(meta_awaited(m, 0), 1);
	/* Free, but served still. */
	assert_int_equal(meta_window(m, me, 0x3000, 0), at);
	meta_window_forget(m, at);
	assert_int_not_equal(meta_window(m, me, 0x3000, 1u << at), at);
	meta_window_forget(m, meta_window(m, me, 0x3000, 0));
	/* One that has ended is not waited for, also while it is a zombie; one that
	 * nobody can see may live. */
	child = fork();
	if (!child)
		_exit(0);
	assert_true(meta_window(m, child, 0x1000, 0) >= 0);
	assert_int_equal(waitid(P_PID, (id_t)child, &(siginfo_t){ 0 }, WEXITED | WNOWAIT),
			 0);
	assert_int_equal(meta_awaited(m, 0), 1);
	assert_int_equal(waitpid(child, NULL, 0), child);
	assert_true(meta_window(m, -1, 0x3000, 0) >= 0);
	assert_int_equal(meta_awaited(m, 0), 2);
	for (uint64_t i = 2; i < META_WINDOWS; i++)
		assert_true(meta_window(m, me, 0x10000 * i, 0) >= 0);
	assert_int_equal(meta_window(m, me, 0x9000000, 0), -EBUSY);
	meta_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_again),	cmocka_unit_test(test_newest),
		cmocka_unit_test(test_trim),	cmocka_unit_test(test_bounded),
		cmocka_unit_test(test_full),	cmocka_unit_test(test_both),
		cmocka_unit_test(test_foreign), cmocka_unit_test(test_noise),
		cmocka_unit_test(test_windows),
	};

	int failed;

	shift = GM_PAGE_SHIFT;
	failed = cmocka_run_group_tests_name("meta", tests, NULL, NULL);
	shift = GM_HUGE_SHIFT;
	return failed +
	       cmocka_run_group_tests_name("meta, huge pages", tests, NULL, NULL);
}
