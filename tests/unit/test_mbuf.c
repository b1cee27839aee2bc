// SPDX-License-Identifier: BSD-2-Clause
/* mbuf: the pool gives each chunk out once, chains go back whole. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "../../user/daemon/mbuf.h"

#define CHUNKS 16
#define CHUNK  2048 /* bytes */

static uint8_t umem[CHUNKS * CHUNK] __attribute__((aligned(4096)));

/* Are exactly the chunks whose bit is clear in @out free, each once? */
static void check_free(const struct mbuf_pool *p, uint32_t out)
{
	uint32_t seen = 0;

	for (uint32_t i = 0; i < p->nfree; i++) {
		assert_in_range(p->free[i], 0, CHUNKS - 1);
		assert_false(seen & 1U << p->free[i]);
		seen |= 1U << p->free[i];
	}
	assert_int_equal(seen, ~out & ((1U << CHUNKS) - 1));
}

static struct mbuf *chain(struct mbuf_pool *p, unsigned int n)
{
	struct mbuf *head = NULL, *last = NULL;

	for (unsigned int i = 0; i < n; i++) {
		struct mbuf *m = mbuf_alloc(p);

		assert_non_null(m);
		m->addr = (uint64_t)mbuf_index(p, m) * CHUNK + 256;
		m->len = 100 + i;
		m->next = MBUF_NONE;
		if (last)
			last->next = mbuf_index(p, m);
		else
			head = m;
		last = m;
	}
	return head;
}

static void test_init_refuses(void **state)
{
	struct mbuf_pool p;

	memset(&p, 0x5a, sizeof(p));
	assert_int_equal(mbuf_pool_init(&p, umem, 0, CHUNK), -EINVAL);
	assert_int_equal(mbuf_pool_init(&p, umem, CHUNKS, 0), -EINVAL);
	assert_int_equal(mbuf_pool_init(&p, umem, CHUNKS, 3000), -EINVAL);
	for (size_t i = 0; i < sizeof(p); i++)
		assert_int_equal(((uint8_t *)&p)[i], 0x5a); /* untouched on failure */
	memset(&p, 0, sizeof(p));
	mbuf_pool_fini(&p);
}

static void test_every_chunk_once(void **state)
{
	struct mbuf *m[CHUNKS];
	struct mbuf_pool p;
	uint32_t out = 0;

	assert_int_equal(mbuf_pool_init(&p, umem, CHUNKS, CHUNK), 0);
	assert_int_equal(p.nchunks, CHUNKS);
	assert_int_equal((uintptr_t)p.mbufs % 64, 0);
	check_free(&p, 0);
	for (int i = 0; i < CHUNKS; i++) {
		m[i] = mbuf_alloc(&p);
		assert_non_null(m[i]);
		assert_false(out & 1U << mbuf_index(&p, m[i]));
		out |= 1U << mbuf_index(&p, m[i]);
		check_free(&p, out);
	}
	assert_null(mbuf_alloc(&p));
	/* Last in, first out: the chunk that is still in the cache. */
	mbuf_free(&p, m[3]);
	mbuf_free(&p, m[9]);
	assert_ptr_equal(mbuf_alloc(&p), m[9]);
	assert_ptr_equal(mbuf_alloc(&p), m[3]);
	assert_null(mbuf_alloc(&p));
	for (int i = 0; i < CHUNKS; i++)
		mbuf_free(&p, m[i]);
	check_free(&p, 0);
	mbuf_pool_fini(&p);
	assert_null(p.mbufs);
}

static void test_addresses(void **state)
{
	struct mbuf_pool p;

	assert_int_equal(mbuf_pool_init(&p, umem, CHUNKS, CHUNK), 0);
	for (uint32_t i = 0; i < CHUNKS; i++) {
		struct mbuf *m = &p.mbufs[i];

		assert_int_equal(mbuf_index(&p, m), i);
		assert_ptr_equal(mbuf_of(&p, (uint64_t)i * CHUNK), m);
		assert_ptr_equal(mbuf_of(&p, (uint64_t)i * CHUNK + CHUNK - 1), m);
		m->addr = (uint64_t)i * CHUNK + 300;
		assert_ptr_equal(mbuf_data(&p, m), umem + i * CHUNK + 300);
	}
	mbuf_pool_fini(&p);
}

static void test_chain_goes_back_whole(void **state)
{
	struct mbuf *a, *b;
	struct mbuf_pool p;

	assert_int_equal(mbuf_pool_init(&p, umem, CHUNKS, CHUNK), 0);
	a = chain(&p, 5);
	b = chain(&p, 1);
	assert_int_equal(p.nfree, CHUNKS - 6);
	mbuf_free_chain(&p, a);
	check_free(&p, 1U << mbuf_index(&p, b));
	mbuf_free_chain(&p, b);
	check_free(&p, 0);
	a = chain(&p, CHUNKS);
	assert_int_equal(p.nfree, 0);
	mbuf_free_chain(&p, a);
	check_free(&p, 0);
	mbuf_pool_fini(&p);
}

static void test_iov(void **state)
{
	struct iovec iov[CHUNKS];
	struct mbuf_pool p;
	struct mbuf *m;
	unsigned int n;

	assert_int_equal(mbuf_pool_init(&p, umem, CHUNKS, CHUNK), 0);
	m = chain(&p, 4);
	memset(iov, 0, sizeof(iov));
	assert_int_equal(mbuf_iov(&p, m, iov, 3), 0);
	assert_null(iov[3].iov_base);
	for (unsigned int max = 4; max < 6; max++) {
		struct mbuf *k = m;

		n = mbuf_iov(&p, m, iov, max);
		assert_int_equal(n, 4);
		for (unsigned int i = 0; i < n; i++, k = mbuf_next(&p, k)) {
			assert_ptr_equal(iov[i].iov_base, mbuf_data(&p, k));
			assert_int_equal(iov[i].iov_len, 100 + i);
		}
		assert_null(k);
	}
	mbuf_pool_fini(&p);
}

static void test_pop_vlan(void **state)
{
	static const uint8_t frame[] = { 1,  2,	 3,    4, 5,	6, 7, 8, 9,    10,
					 11, 12, 0x81, 0, 0x20, 7, 8, 0, 0x45, 99 };
	static const uint8_t popped[] = { 1, 2,	 3,  4,	 5, 6, 7,    8,
					  9, 10, 11, 12, 8, 0, 0x45, 99 };
	struct mbuf_pool p;
	struct mbuf *m;

	assert_int_equal(mbuf_pool_init(&p, umem, CHUNKS, CHUNK), 0);
	for (int parsed = 0; parsed < 2; parsed++) {
		m = chain(&p, 1);
		m->len = m->total = sizeof(frame);
		m->meta = (struct gn_meta){ 0 };
		if (parsed) {
			m->meta.l3_off = 18;
			m->meta.l4_off = 38;
			m->meta.l4_len = 20;
		}
		memcpy(mbuf_data(&p, m), frame, sizeof(frame));
		mbuf_pop_vlan(&p, m);
		assert_int_equal(m->len, sizeof(popped));
		assert_int_equal(m->total, sizeof(popped));
		assert_memory_equal(mbuf_data(&p, m), popped, sizeof(popped));
		assert_int_equal(m->meta.l3_off, parsed ? 14 : 0);
		assert_int_equal(m->meta.l4_off, parsed ? 34 : 0);
		assert_int_equal(m->meta.l4_len, parsed ? 20 : 0);
		mbuf_free_chain(&p, m);
	}
	check_free(&p, 0);
	mbuf_pool_fini(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_init_refuses),
		cmocka_unit_test(test_every_chunk_once),
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_chain_goes_back_whole),
		cmocka_unit_test(test_iov),
		cmocka_unit_test(test_pop_vlan),
	};

	return cmocka_run_group_tests_name("mbuf", tests, NULL, NULL);
}
