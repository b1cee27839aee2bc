// SPDX-License-Identifier: BSD-2-Clause
/*
 * Packet memory: of the size asked for, there before the first packet, and writable by nobody
 * else. On which pages depends on the machine; tests/vm/kernel61.sh has both.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../user/daemon/umem.h"

#define CHUNKS 1000 /* no whole number of huge pages */

static void test_chunk_size(void **state)
{
	const uint32_t room = UMEM_FRAME_ROOM(UMEM_CHUNK_SMALL);

	assert_int_equal(umem_chunk_size(0), UMEM_CHUNK_SMALL);
	assert_int_equal(umem_chunk_size(1522), UMEM_CHUNK_SMALL);
	assert_int_equal(umem_chunk_size(room), UMEM_CHUNK_SMALL);
	assert_int_equal(umem_chunk_size(room + 1), UMEM_CHUNK_LARGE);
	assert_int_equal(umem_chunk_size(9022), UMEM_CHUNK_LARGE);
}

static void test_size(void **state)
{
	static const uint32_t chunk[] = { UMEM_CHUNK_SMALL, UMEM_CHUNK_LARGE };

	for (size_t i = 0; i < sizeof(chunk) / sizeof(chunk[0]); i++) {
		unsigned char in_core[1];
		struct umem u;
		struct stat st;

		assert_int_equal(umem_init(&u, CHUNKS, chunk[i]), 0);
		assert_int_equal(u.nchunks, CHUNKS);
		assert_int_equal(u.chunk_size, chunk[i]);
		assert_true(u.size >= (uint64_t)CHUNKS * chunk[i]);
		assert_int_equal(u.size % u.page_size, 0);
		assert_true(u.size - (uint64_t)CHUNKS * chunk[i] < u.page_size);
		assert_int_equal(fstat(u.fd, &st), 0);
		assert_int_equal(st.st_size, u.size);
		/* The last page is there already, and zero. */
		assert_int_equal(
			mincore((uint8_t *)u.base + u.size - 4096, 4096, in_core), 0);
		assert_true(in_core[0] & 1);
		assert_int_equal(((uint8_t *)u.base)[u.size - 1], 0);
		umem_fini(&u);
		assert_int_equal(u.fd, -1);
		assert_null(u.base);
		umem_fini(&u);
	}
}

/* Whoever has the descriptor, or the right to open it anew, can read and no more. */
static void test_sealed(void **state)
{
	char path[64];
	struct umem u;
	int fd;

	assert_int_equal(umem_init(&u, CHUNKS, UMEM_CHUNK_SMALL), 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", u.fd);
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	for (int i = 0; i < 2; i++) {
		int f = i ? fd : u.fd;
		void *p;

		assert_int_equal(ftruncate(f, 0), -1);
		assert_int_equal(ftruncate(f, (off_t)u.size * 2), -1);
		assert_int_equal(fcntl(f, F_ADD_SEALS, F_SEAL_WRITE), -1);
		assert_ptr_equal(
			mmap(NULL, u.size, PROT_READ | PROT_WRITE, MAP_SHARED, f, 0),
			MAP_FAILED);
		assert_int_equal(pwrite(f, "x", 1, 0), -1);
		p = mmap(NULL, u.size, PROT_READ, MAP_SHARED, f, 0);
		assert_ptr_not_equal(p, MAP_FAILED);
		assert_int_equal(mprotect(p, u.size, PROT_READ | PROT_WRITE), -1);
		/* Ours is writable, and it is the same memory. */
		((uint8_t *)u.base)[5] = (uint8_t)(77 + i);
		assert_int_equal(((uint8_t *)p)[5], 77 + i);
		munmap(p, u.size);
	}
	close(fd);
	umem_fini(&u);
}

/* More than any machine has: refused, and nothing is left behind. */
static void test_too_much(void **state)
{
	struct umem u = { .fd = -1 };
	int before = dup(0), after;

	assert_true(umem_init(&u, UINT32_MAX, 1U << 31) < 0);
	close(before);
	after = dup(0);
	assert_int_equal(after, before);
	close(after);
	assert_int_equal(u.fd, -1);
	assert_null(u.base);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_chunk_size),
		cmocka_unit_test(test_size),
		cmocka_unit_test(test_sealed),
		cmocka_unit_test(test_too_much),
	};

	return cmocka_run_group_tests_name("umem", tests, NULL, NULL);
}
