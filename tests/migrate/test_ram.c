// SPDX-License-Identifier: BSD-2-Clause
/* ram and digest: page numbers, holes, and sums that notice every difference. */
#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "../../user/lib/bitmap.h"
#include "../../user/lib/sanitizer.h"
#include "../../vm-migrate/digest.h"
#include "../../vm-migrate/ram.h"
#include "../../vm-migrate/table.h"

#define PAGE RAM_PAGE_SIZE

static void test_table(void **state)
{
	struct ram r;

	ram_init(&r);
	assert_int_equal(ram_add(&r, 0, 0, 0), -EINVAL);
	assert_int_equal(ram_add(&r, 1, PAGE, 0), -EINVAL);
	assert_int_equal(ram_add(&r, 0, PAGE + 1, 0), -EINVAL);
	assert_int_equal(ram_add(&r, -PAGE, 2 * PAGE, 0), -EINVAL);
	assert_int_equal(ram_add(&r, PAGE, 1UL << 21, RAM_HUGE), -EINVAL);
	assert_int_equal(ram_add(&r, PAGE, 3 * PAGE, 0), 0);
	assert_int_equal(ram_add(&r, 3 * PAGE, PAGE, 0), -EINVAL);
	assert_int_equal(ram_add(&r, 4 * PAGE, 65 * PAGE, 0), 0);
	assert_int_equal(ram_add(&r, 1UL << 32, 64 * PAGE, 0), 0);

	assert_int_equal(r.nblocks, 3);
	assert_int_equal(r.pages, 64 + 128 + 64);
	assert_int_equal(r.bytes, (3 + 65 + 64) * PAGE);
	assert_int_equal(ram_words(&r), 4);
	assert_int_equal(ram_page_of(&r, 0), RAM_NO_PAGE);
	assert_int_equal(ram_page_of(&r, PAGE), 0);
	assert_int_equal(ram_page_of(&r, 4 * PAGE - 1), 2);
	assert_int_equal(ram_page_of(&r, 4 * PAGE), 64);
	assert_int_equal(ram_page_of(&r, 69 * PAGE), RAM_NO_PAGE);
	assert_int_equal(ram_page_of(&r, (1UL << 32) + 64 * PAGE - 1), 192 + 63);
	assert_int_equal(ram_page_of(&r, (1UL << 32) + 64 * PAGE), RAM_NO_PAGE);
	for (uint64_t p = 0; p < r.pages + 70; p++) {
		bool is = p < 3 || (p >= 64 && p < 64 + 65) || (p >= 192 && p < 256);

		assert_int_equal(ram_at(&r, p) != NULL, is);
		assert_int_equal(ram_block_of(&r, p) != NULL, is);
		if (!is)
			continue;
		assert_int_equal(ram_page_of(&r, ram_gpa(&r, p)), p);
		assert_int_equal(*ram_at(&r, p), 0);
		*ram_at(&r, p) = (uint8_t)(p + 1);
	}
	assert_int_equal(*ram_at(&r, 64), 65);
	/* Nobody who has the memory cuts it. */
	assert_int_equal(ftruncate(r.block[1].fd, 0), -1);
	ram_fini(&r);
	assert_null(ram_at(&r, 0));
}

static void test_full(void **state)
{
	static uint8_t page[RAM_PAGE_SIZE];
	struct ram r;

	ram_init(&r);
	for (uint64_t i = 0; i < RAM_MAX_BLOCKS; i++)
		assert_int_equal(ram_adopt(&r, i * PAGE, PAGE, page, -1, 0), 0);
	assert_int_equal(ram_adopt(&r, RAM_MAX_BLOCKS * PAGE, PAGE, page, -1, 0),
			 -ENOSPC);
	assert_int_equal(ram_at(&r, 64 * 31), page);
	ram_fini(&r);
}

static void expect(const struct ram *r, const uint64_t *want, int64_t n)
{
	uint64_t got[8] = { 0 };

	assert_true(ram_words(r) <= 8);
	assert_int_equal(ram_mark_populated(r, got), n);
	assert_memory_equal(got, want, ram_words(r) * 8);
}

static void test_holes(void **state)
{
	uint64_t want[8] = { 0 }, all[8] = { 0 };
	struct ram r;
	int fd = memfd_create("t", 0);
	uint8_t *p;

	ram_init(&r);
	assert_int_equal(ram_add(&r, 0, 130 * PAGE, 0), 0);
	assert_true(fd >= 0 && !ftruncate(fd, 100 * PAGE));
	p = mmap(NULL, 70 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 5 * PAGE);
	assert_true(p != MAP_FAILED);
	assert_int_equal(ram_adopt(&r, 1UL << 30, 70 * PAGE, p, fd, 5 * PAGE), 0);

	ram_mark_all(&r, all);
	assert_int_equal(bitmap_count(all, ram_words(&r)), 200);
	expect(&r, want, 0);
	*ram_at(&r, 0) = 1;
	*ram_at(&r, 129) = 1;
	bitmap_set(want, 0);
	bitmap_set(want, 129);
	expect(&r, want, 2);
	/* Before, in, and behind the part of the file that is RAM */
	assert_int_equal(pwrite(fd, "x", 1, 4 * PAGE), 1);
	assert_int_equal(pwrite(fd, "x", 1, 5 * PAGE), 1);
	assert_int_equal(pwrite(fd, "x", 1, 74 * PAGE), 1);
	assert_int_equal(pwrite(fd, "x", 1, 75 * PAGE), 1);
	bitmap_set(want, 192);
	bitmap_set(want, 192 + 69);
	expect(&r, want, 4);
	/* More than a page at a time: over the end of a word, and up to that of the block */
	for (unsigned int i = 60; i < 70; i++) {
		*ram_at(&r, i) = 1;
		bitmap_set(want, i);
	}
	for (unsigned int i = 126; i < 129; i++) {
		*ram_at(&r, i) = 1;
		bitmap_set(want, i);
	}
	expect(&r, want, 17);
	munmap(p, 70 * PAGE);
	close(fd);
	ram_fini(&r);
}

/* In and out of page @page of @r, two pages, and what the mapping shows of it */
static void copy_both_ways(struct ram *r, uint64_t page)
{
	static uint8_t out[2 * PAGE], back[2 * PAGE];

	for (unsigned int i = 0; i < sizeof(out); i++)
		out[i] = (uint8_t)(i * 31 + page);
	assert_int_equal(ram_write(r, page, 2, out), 0);
	assert_memory_equal(ram_at(r, page), out, sizeof(out));
	ram_at(r, page)[PAGE] ^= 1;
	out[PAGE] ^= 1;
	assert_int_equal(ram_read(r, page, 2, back), 0);
	assert_memory_equal(back, out, sizeof(out));
}

/* Memory of every kind; a read fills no hole, a write only what is written. */
static void test_copy(void **state)
{
	int fd = memfd_create("part", 0),
	    sealed = memfd_create("sealed", MFD_ALLOW_SEALING);
	static uint8_t plain[8 * PAGE], zeros[64 * PAGE], buf[64 * PAGE];
	struct stat st;
	uint8_t *p, *q;
	struct ram r;

	ram_init(&r);
	assert_int_equal(ftruncate(fd, 300 * PAGE), 0);
	assert_int_equal(ftruncate(sealed, 64 * PAGE), 0);
	p = mmap(NULL, 128 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 5 * PAGE);
	q = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, sealed, 0);
	assert_true(p != MAP_FAILED && q != MAP_FAILED);
	assert_int_equal(fcntl(sealed, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), 0);
	assert_int_equal(ram_adopt(&r, 0, 128 * PAGE, p, fd, 5 * PAGE), 0);
	assert_int_equal(ram_adopt(&r, 1UL << 30, 64 * PAGE, q, sealed, 0), 0);
	assert_int_equal(ram_adopt(&r, 2UL << 30, 8 * PAGE, plain, -1, 0), 0);

	assert_int_equal(ram_read(&r, 64, 64, buf), 0);
	assert_memory_equal(buf, zeros, sizeof(buf));
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_blocks, 0);
	copy_both_ways(&r, 126);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_blocks, 2 * PAGE / 512);
	assert_int_equal(pread(fd, buf, 1, 131 * PAGE), 1);
	assert_int_equal(buf[0], ram_at(&r, 126)[0]);

	copy_both_ways(&r, 128 + 3);
	copy_both_ways(&r, 192 + 6);

	/* Beyond a block, and in none */
	assert_int_equal(ram_read(&r, 127, 2, buf), -EINVAL);
	assert_int_equal(ram_write(&r, 128 + 63, 2, buf), -EINVAL);
	assert_int_equal(ram_read(&r, r.pages, 1, buf), -EINVAL);

	/* The file is shorter than its mapping: no SIGBUS */
	assert_int_equal(ftruncate(fd, 6 * PAGE), 0);
	assert_int_equal(ram_read(&r, 0, 2, buf), -EIO);
	munmap(p, 128 * PAGE);
	munmap(q, 64 * PAGE);
	close(fd);
	close(sealed);
	ram_fini(&r);
}

#define NR_HUGE "/proc/sys/vm/nr_hugepages"

static unsigned long huge_pages(const char *wanted)
{
	int fd = open(NR_HUGE, wanted ? O_WRONLY : O_RDONLY);
	char now[32] = "";

	if (fd < 0)
		skip(); /* not root */
	if (wanted)
		assert_return_code(write(fd, wanted, strlen(wanted)), errno);
	else
		assert_return_code(read(fd, now, sizeof(now) - 1), errno);
	close(fd);
	return strtoul(now, NULL, 10);
}

/* Huge pages that are not there are an error at once, not a SIGBUS later. hugetlbfs has no
 * write(). */
static void test_huge(void **state)
{
	const unsigned long before = huge_pages(NULL);
	int err = -ENOMEM;
	char n[32];
	struct ram r;

	ram_init(&r);
	assert_int_equal(ram_add(&r, 0, 1UL << 46, RAM_HUGE), -ENOMEM);
	/* Another program may be quicker to take one. */
	for (unsigned int more = 1; err == -ENOMEM && more <= 20; more++) {
		snprintf(n, sizeof(n), "%lu", before + more);
		huge_pages(n);
		err = ram_add(&r, 0, 2UL << 20, RAM_HUGE);
	}
	/* What is in use goes when it is given back. */
	snprintf(n, sizeof(n), "%lu", before);
	huge_pages(n);
	assert_int_equal(err, 0);
	copy_both_ways(&r, 500);
	ram_fini(&r);
}

static void test_digest(void **state)
{
	uint8_t *page = aligned_alloc(PAGE, PAGE);
	uint64_t nonzero, before, after, bad[4];
	struct digest d;
	struct ram r;

	memset(page, 0, PAGE);
	assert_int_equal(digest_page(page), 0);
	for (unsigned int i = 0; i < PAGE; i += 7) {
		uint64_t h;

		page[i] = 1;
		h = digest_page(page);
		assert_int_not_equal(h, 0);
		page[i] = 2;
		assert_int_not_equal(digest_page(page), h);
		page[i] = 0;
	}
	free(page);

	ram_init(&r);
	assert_int_equal(ram_add(&r, 0, 1000 * PAGE, 0), 0);
	assert_int_equal(ram_add(&r, 1UL << 30, 30000 * PAGE, 0), 0);
	assert_int_equal(digest_init(&d, r.pages), 0);
	assert_int_equal(digest_sum(&d, &nonzero), 0);
	assert_int_equal(nonzero, 0);
	assert_int_equal(digest_compare(&d, &r, NULL, 0, 2), 0);
	for (uint64_t p = 0; p < r.pages; p += 3)
		if (ram_at(&r, p)) {
			ram_at(&r, p)[p % PAGE] = (uint8_t)(p | 1);
			digest_set(&d, p, digest_page(ram_at(&r, p)));
		}
	before = digest_sum(&d, &nonzero);
	assert_in_range(nonzero, 31000 / 3 - 2, 31000 / 3 + 2);
	for (unsigned int threads = 0; threads < 20; threads += 3)
		assert_int_equal(digest_compare(&d, &r, bad, 4, threads), 0);

	/* A page too old, one that should be zero, one that should not, in a hole */
	ram_at(&r, 999)[5] ^= 0x80;
	ram_at(&r, 1025)[0] = 1;
	memset(ram_at(&r, 1026), 0, PAGE);
	digest_set(&d, 1023, 7); /* between the blocks */
	assert_int_equal(digest_compare(&d, &r, bad, 2, 1), 4);
	assert_int_equal(bad[0], 999);
	assert_int_equal(bad[1], 1023);
	assert_int_equal(digest_compare(&d, &r, NULL, 0, 3), 4);
	assert_int_equal(digest_set(&d, 1023, 0), 7);

	/* Two pages change places: every page has the hash of some page. */
	after = digest_set(&d, 30, digest_get(&d, 33));
	assert_int_equal(digest_set(&d, 33, after), digest_get(&d, 30));
	assert_int_not_equal(digest_get(&d, 30), digest_get(&d, 33));
	assert_int_not_equal(digest_sum(&d, NULL), before);
	digest_fini(&d);
	ram_fini(&r);
}

#define SETTERS	     4
#define FAR_LEAVES   1000UL /* that get a hash, of SPARSE_PAGES / 64 */
#define SPARSE_PAGES (4UL << 20)

struct setter {
	struct digest *d;
	unsigned int i;
	pthread_t thread;
};

/* Leaf number @k of those that get hashes: all over the table, the last one too */
static uint64_t far_page(uint64_t k)
{
	return SPARSE_PAGES - 64 - k * (SPARSE_PAGES / 64 / FAR_LEAVES) * 64;
}

static void *set_hashes(void *arg)
{
	struct setter *s = arg;

	for (uint64_t k = s->i; k < FAR_LEAVES; k += SETTERS) {
		digest_set(s->d, far_page(k) + k % 64, k + 1);
		digest_set(s->d, far_page(k) + (k + 1) % 64, 0);
	}
	return NULL;
}

/* Hashes all over a large memory, set by several threads, lie side by side. */
static void test_digest_sparse(void **state)
{
	struct setter s[SETTERS];
	uint64_t nonzero, seen = 0;
	struct digest d;

	assert_int_equal(digest_init(&d, 65), -EINVAL);
	assert_int_equal(digest_init(&d, SPARSE_PAGES), 0);
	for (uint64_t p = 0; p < SPARSE_PAGES; p += 4096)
		assert_int_equal(digest_set(&d, p, 0), 0);
	assert_int_equal(d.leaves, 0); /* zeros take no room */
	for (unsigned int i = 0; i < SETTERS; i++) {
		s[i] = (struct setter){ .d = &d, .i = i };
		assert_int_equal(pthread_create(&s[i].thread, NULL, set_hashes, &s[i]),
				 0);
	}
	for (unsigned int i = 0; i < SETTERS; i++)
		pthread_join(s[i].thread, NULL);
	assert_int_equal(d.leaves, FAR_LEAVES);
	for (uint64_t k = 0; k < FAR_LEAVES; k++)
		for (uint64_t p = far_page(k), i = 0; i < 64; i++) {
			assert_int_equal(digest_get(&d, p + i), i == k % 64 ? k + 1 : 0);
			seen += digest_mix(p + i, digest_get(&d, p + i));
		}
	assert_int_equal(digest_sum(&d, &nonzero), seen);
	assert_int_equal(nonzero, FAR_LEAVES);
	digest_fini(&d);
}

/* Pages of [@at, @at + @bytes) that take no page fault any more */
static size_t at_hand(const void *at, size_t bytes)
{
	uintptr_t from = (uintptr_t)at & ~(PAGE - 1);
	size_t pages = ((uintptr_t)at + bytes - from + PAGE - 1) / PAGE, n = 0;
	unsigned char *in = malloc(pages);

	assert_non_null(in);
	assert_int_equal(mincore((void *)from, pages * PAGE, in), 0);
	for (size_t i = 0; i < pages; i++)
		n += in[i] & 1;
	free(in);
	return n;
}

/* Tables beside RAM are made ready at once, those of hashes as far as they are used. */
static void test_at_hand(void **state)
{
	const size_t n = 1 << 17;
	uint64_t *table = table_alloc(n, sizeof(*table));
	struct digest d;

	assert_non_null(table);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(table[i], 0);
	free(table);
	table = table_alloc(n, sizeof(*table));
	assert_true(at_hand(table, n * sizeof(*table)) >= n * sizeof(*table) / PAGE);
	table_ready(table, n * sizeof(*table)); /* again is fine */
	free(table);

	assert_int_equal(digest_init(&d, SPARSE_PAGES), 0);
	assert_true(at_hand(d.of, SPARSE_PAGES / 64 * 4) >= SPARSE_PAGES / 64 * 4 / PAGE);
	digest_set(&d, SPARSE_PAGES / 2, 1);
	assert_true(at_hand(d.leaf, SPARSE_PAGES * 8) >= 32);
	assert_true(GN_SANITIZED || at_hand(d.leaf, SPARSE_PAGES * 8) <= 64);
	digest_fini(&d);
}

/* Both ends of a migration come to the same, whatever CPU they have. */
static void test_variants(void **state)
{
	uint8_t *page = aligned_alloc(PAGE, PAGE);
	uint64_t seed = 88172645463325252ULL;

	assert_non_null(page);
	for (unsigned int i = 0; i < 200; i++) {
		for (unsigned int k = 0; k < PAGE; k++) {
			seed ^= seed << 13;
			seed ^= seed >> 7;
			seed ^= seed << 17;
			page[k] = (uint8_t)seed;
		}
		assert_int_equal(digest_page(page), XXH3_64bits(page, PAGE));
	}
	free(page);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),	      cmocka_unit_test(test_full),
		cmocka_unit_test(test_holes),	      cmocka_unit_test(test_copy),
		cmocka_unit_test(test_huge),	      cmocka_unit_test(test_digest),
		cmocka_unit_test(test_digest_sparse), cmocka_unit_test(test_at_hand),
		cmocka_unit_test(test_variants),
	};

	return cmocka_run_group_tests_name("ram", tests, NULL, NULL);
}
