// SPDX-License-Identifier: BSD-2-Clause
/*
 * vring: a guest that breaks rules, one at a time. Each must break the ring, with the
 * right reason, without a byte read or written outside the guest's memory. A broken ring
 * is never touched again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>

#include "vring_rig.h"

/* ---- split ----------------------------------------------------------------------- */

static void s_jump(struct vrig *r)
{
	vrig_avail(r, SIZE + 1);
}

static void s_backwards(struct vrig *r)
{
	vrig_avail(r, UINT16_MAX);
}

static void s_head(struct vrig *r)
{
	vrig_poke16(r, AVAIL + 4, SIZE);
	vrig_avail(r, 1);
}

static void s_next(struct vrig *r)
{
	vrig_sd(r, RING, DATA, 16, NEXT, SIZE);
	vrig_avail(r, 1);
}

static void s_loop(struct vrig *r)
{
	vrig_sd(r, RING, DATA, 16, NEXT, 0);
	vrig_avail(r, 1);
}

static void s_loop_of_two(struct vrig *r)
{
	vrig_sd(r, RING, DATA, 16, NEXT, 5);
	vrig_sd(r, RING + 80, DATA, 16, NEXT, 0);
	vrig_avail(r, 1);
}

static void s_empty(struct vrig *r)
{
	vrig_sd(r, RING, DATA, 0, 0, 0);
	vrig_avail(r, 1);
}

static void s_outside(struct vrig *r)
{
	vrig_sd(r, RING, DATA - 1, 1, 0, 0);
	vrig_avail(r, 1);
}

static void s_beyond(struct vrig *r)
{
	vrig_sd(r, RING, MORE - 1, MORE_LEN + 2, WRITE, 0);
	vrig_avail(r, 1);
}

static void s_wraps(struct vrig *r)
{
	vrig_sd(r, RING, UINT64_MAX - 1, 0x20000, WRITE, 0);
	vrig_avail(r, 1);
}

static void s_order(struct vrig *r)
{
	vrig_sd(r, RING, DATA, 16, NEXT | WRITE, 1);
	vrig_sd(r, RING + 16, DATA, 16, 0, 0);
	vrig_avail(r, 1);
}

static void s_four_gib(struct vrig *r)
{
	vrig_sd(r, RING, HUGE, 0x80000000, NEXT, 1);
	vrig_sd(r, RING + 16, HUGE, 0x80000000, 0, 0);
	vrig_avail(r, 1);
}

static void s_four_gib_in(struct vrig *r)
{
	vrig_sd(r, RING, HUGE, UINT32_MAX, NEXT | WRITE, 1);
	vrig_sd(r, RING + 16, DATA, 1, WRITE, 0);
	vrig_avail(r, 1);
}

static void s_table(struct vrig *r, uint64_t gpa, uint32_t len)
{
	vrig_sd(r, RING, gpa, len, INDIRECT, 0);
	vrig_avail(r, 1);
}

static void s_indirect_next(struct vrig *r)
{
	vrig_sd(r, DATA, DATA, 16, 0, 0);
	vrig_sd(r, RING, DATA, 16, INDIRECT | NEXT, 1);
	vrig_sd(r, RING + 16, DATA, 16, 0, 0);
	vrig_avail(r, 1);
}

static void s_nested(struct vrig *r)
{
	vrig_sd(r, DATA, DATA, 16, INDIRECT, 0);
	s_table(r, DATA, 16);
}

static void s_table_empty(struct vrig *r)
{
	s_table(r, DATA, 0);
}

static void s_table_odd(struct vrig *r)
{
	s_table(r, DATA, 24);
}

static void s_table_outside(struct vrig *r)
{
	s_table(r, END, 16);
}

static void s_table_wraps(struct vrig *r)
{
	s_table(r, UINT64_MAX - 7, 16);
}

/* Its second entry is half inside. */
static void s_table_beyond(struct vrig *r)
{
	vrig_sd(r, END - 24, DATA, 16, NEXT, 1);
	s_table(r, END - 24, 32);
}

static void s_table_next(struct vrig *r)
{
	vrig_sd(r, DATA, DATA, 16, NEXT, 1);
	s_table(r, DATA, 16);
}

static void s_table_loop(struct vrig *r)
{
	vrig_sd(r, DATA, DATA, 16, NEXT, 0);
	s_table(r, DATA, 16);
}

static void s_table_many(struct vrig *r)
{
	for (uint16_t i = 0; i < VRING_MAX_IOV + 1; i++)
		vrig_sd(r, DATA + i * 16U, DATA, 1, i < VRING_MAX_IOV ? NEXT : 0, i + 1);
	s_table(r, DATA, (VRING_MAX_IOV + 1) * 16);
}

/* 255 buffers, and one more that two regions share. */
static void s_table_border(struct vrig *r)
{
	for (uint16_t i = 0; i < VRING_MAX_IOV; i++)
		vrig_sd(r, DATA + i * 16U, i < VRING_MAX_IOV - 1 ? DATA : MORE - 1, 2,
			i < VRING_MAX_IOV - 1 ? NEXT : 0, i + 1);
	s_table(r, DATA, VRING_MAX_IOV * 16);
}

/* ---- packed ---------------------------------------------------------------------- */

static void p_one(struct vrig *r, uint64_t addr, uint32_t len, uint16_t flags)
{
	vrig_pd(r, RING, addr, len, AV | flags);
}

static void p_empty(struct vrig *r)
{
	p_one(r, DATA, 0, 0);
}

static void p_outside(struct vrig *r)
{
	p_one(r, END, 1, WRITE);
}

static void p_wraps(struct vrig *r)
{
	p_one(r, UINT64_MAX, 2, 0);
}

static void p_torn(struct vrig *r)
{
	p_one(r, DATA, 16, NEXT);
	vrig_pd(r, RING + 16, DATA, 16, 0);
}

/* Every descriptor says that another follows, round and round. */
static void p_endless(struct vrig *r)
{
	for (unsigned int i = 0; i < SIZE; i++)
		vrig_pd(r, RING + i * 16, DATA, 16, AV | NEXT);
}

static void p_order(struct vrig *r)
{
	p_one(r, DATA, 16, NEXT | WRITE);
	vrig_pd(r, RING + 16, DATA, 16, AV);
}

static void p_four_gib(struct vrig *r)
{
	p_one(r, HUGE, 0x80000000, NEXT | WRITE);
	vrig_pd(r, RING + 16, HUGE, 0x80000000, AV | WRITE);
}

static void p_indirect_next(struct vrig *r)
{
	vrig_pd(r, DATA, DATA, 16, 0);
	p_one(r, DATA, 16, INDIRECT | NEXT);
	vrig_pd(r, RING + 16, DATA, 16, AV);
}

static void p_indirect_last(struct vrig *r)
{
	vrig_pd(r, DATA, DATA, 16, 0);
	p_one(r, DATA, 16, NEXT);
	vrig_pd(r, RING + 16, DATA, 16, AV | INDIRECT);
}

static void p_nested(struct vrig *r)
{
	vrig_pd(r, DATA, DATA, 16, INDIRECT);
	p_one(r, DATA, 16, INDIRECT);
}

static void p_table_empty(struct vrig *r)
{
	p_one(r, DATA, 0, INDIRECT);
}

static void p_table_odd(struct vrig *r)
{
	p_one(r, DATA, 17, INDIRECT);
}

static void p_table_outside(struct vrig *r)
{
	p_one(r, DATA - 16, 16, INDIRECT);
}

static void p_table_beyond(struct vrig *r)
{
	vrig_pd(r, END - 24, DATA, 16, 0);
	p_one(r, END - 24, 32, INDIRECT);
}

/* Nothing but its length says how long a packed table is. */
static void p_table_long(struct vrig *r)
{
	for (unsigned int i = 0; i < VRING_MAX_IOV + 1; i++)
		vrig_pd(r, DATA + i * 16, DATA, 1, 0);
	p_one(r, DATA, 0xfffffff0, INDIRECT);
}

static const struct hostile {
	const char *name, *reason;
	void (*write)(struct vrig *r);
	bool packed;
} table[] = {
	{ "index jumps", "available index jumped", s_jump, false },
	{ "index goes back", "available index jumped", s_backwards, false },
	{ "head", "descriptor index outside the ring", s_head, false },
	{ "next", "descriptor index outside the ring", s_next, false },
	{ "loop", "descriptors form a loop", s_loop, false },
	{ "loop of two", "descriptors form a loop", s_loop_of_two, false },
	{ "empty", "empty buffer", s_empty, false },
	{ "outside", "buffer outside guest memory", s_outside, false },
	{ "beyond", "buffer outside guest memory", s_beyond, false },
	{ "wraps", "buffer outside guest memory", s_wraps, false },
	{ "order", "readable buffer after a writable one", s_order, false },
	{ "4 GiB", "chain of 4 GiB or more", s_four_gib, false },
	{ "4 GiB to write", "chain of 4 GiB or more", s_four_gib_in, false },
	{ "indirect, next", "indirect descriptor with a next one", s_indirect_next,
	  false },
	{ "nested", "indirect descriptor in an indirect table", s_nested, false },
	{ "table empty", "indirect table of a wrong size", s_table_empty, false },
	{ "table odd", "indirect table of a wrong size", s_table_odd, false },
	{ "table outside", "indirect table outside guest memory", s_table_outside,
	  false },
	{ "table wraps", "indirect table of a wrong size", s_table_wraps, false },
	{ "table beyond", "indirect table outside guest memory", s_table_beyond, false },
	{ "table next", "next descriptor outside the indirect table", s_table_next,
	  false },
	{ "table loop", "chain of too many buffers", s_table_loop, false },
	{ "table long", "chain of too many buffers", s_table_many, false },
	{ "table border", "chain of too many buffers", s_table_border, false },
	{ "empty", "empty buffer", p_empty, true },
	{ "outside", "buffer outside guest memory", p_outside, true },
	{ "wraps", "buffer outside guest memory", p_wraps, true },
	{ "torn chain", "chain runs into a descriptor not available", p_torn, true },
	{ "endless", "chain runs into a descriptor not available", p_endless, true },
	{ "order", "readable buffer after a writable one", p_order, true },
	{ "4 GiB", "chain of 4 GiB or more", p_four_gib, true },
	{ "indirect, next", "indirect descriptor in a longer chain", p_indirect_next,
	  true },
	{ "indirect last", "indirect descriptor in a longer chain", p_indirect_last,
	  true },
	{ "nested", "indirect descriptor in an indirect table", p_nested, true },
	{ "table empty", "indirect table of a wrong size", p_table_empty, true },
	{ "table odd", "indirect table of a wrong size", p_table_odd, true },
	{ "table outside", "indirect table outside guest memory", p_table_outside, true },
	{ "table beyond", "indirect table outside guest memory", p_table_beyond, true },
	{ "table long", "chain of too many buffers", p_table_long, true },
};

static void test_table(void **state)
{
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		const struct hostile *h = &table[i];
		struct vrig r;

		print_message("%s: %s\n", h->packed ? "packed" : "split", h->name);
		vrig_open(&r, h->packed, true);
		h->write(&r);
		assert_int_equal(vring_take(r.v, &r.vec, &r.c), -EPROTO);
		assert_int_equal(r.vec.n, 0);
		vrig_check_dead(&r, h->reason);
		vrig_close(&r);
	}
}

static void test_not_negotiated(void **state)
{
	for (unsigned int packed = 0; packed < 2; packed++) {
		struct vrig r;

		vrig_open(&r, packed, false);
		if (packed)
			p_one(&r, DATA, 16, INDIRECT);
		else
			s_table(&r, DATA, 16);
		assert_int_equal(vring_take(r.v, &r.vec, &r.c), -EPROTO);
		vrig_check_dead(&r, "indirect descriptor was not negotiated");
		vrig_close(&r);
	}
}

/* Slots that the device still holds are available again. */
static void test_overcommit(void **state)
{
	struct vrig r;

	vrig_open(&r, false, true);
	vrig_sd(&r, RING, DATA, 16, 0, 0);
	vrig_avail(&r, SIZE);
	for (unsigned int i = 0; i < SIZE; i++)
		assert_int_equal(vring_take(r.v, &r.vec, &r.c), 1);
	/* One was put, but the guest cannot know. */
	vring_put(r.v, &r.vec, &r.c, 0);
	vrig_avail(&r, SIZE + 1);
	assert_int_equal(vring_take(r.v, &r.vec, &r.c), -EPROTO);
	vrig_check_dead(&r, "available index jumped");
	vrig_close(&r);

	vrig_open(&r, true, true);
	for (unsigned int i = 0; i < SIZE; i++)
		vrig_pd(&r, RING + i * 16, DATA, 16, AV);
	for (unsigned int i = 0; i < SIZE; i++)
		assert_int_equal(vring_take(r.v, &r.vec, &r.c), 1);
	vring_put(r.v, &r.vec, &r.c, 0);
	assert_int_equal(vring_take(r.v, &r.vec, &r.c), 0);
	vrig_pd(&r, RING, DATA, 16, 0x8000); /* of the second turn */
	assert_int_equal(vring_take(r.v, &r.vec, &r.c), -EPROTO);
	vrig_check_dead(&r, "more descriptors available than the ring has");
	vrig_close(&r);
}

/* As much as is allowed works; and a vector without room takes nothing. */
static void test_limits(void **state)
{
	for (unsigned int packed = 0; packed < 2; packed++) {
		struct vrig r;

		vrig_open(&r, packed, true);
		for (uint16_t i = 0; i < VRING_MAX_IOV; i++)
			vrig_sd(&r, MORE - 16 + i * 16U, DATA + i, 1,
				packed ? 7
				       : (i < VRING_MAX_IOV - 1 ? NEXT : 0) |
						 (i ? WRITE : 0),
				packed ? (i ? WRITE : 0) : i + 1);
		if (packed)
			p_one(&r, MORE - 16, VRING_MAX_IOV * 16, INDIRECT | WRITE);
		else
			s_table(&r, MORE - 16, VRING_MAX_IOV * 16);

		r.vec.max = VRING_MAX_IOV;
		r.vec.n = 1;
		assert_int_equal(vring_take(r.v, &r.vec, &r.c), -ENOBUFS);
		assert_int_equal(r.vec.n, 1);
		r.vec.max = VRING_MAX_IOV + 1;
		assert_int_equal(vring_take(r.v, &r.vec, &r.c), 1);
		assert_int_equal(r.vec.n, VRING_MAX_IOV + 1);
		assert_int_equal(r.c.first, 1);
		assert_int_equal(r.c.nout, 1);
		assert_int_equal(r.c.nin, VRING_MAX_IOV - 1);
		assert_int_equal(r.c.in_len, VRING_MAX_IOV - 1);
		for (unsigned int i = 0; i < VRING_MAX_IOV; i++) {
			assert_int_equal(r.gpa[1 + i], DATA + i);
			assert_ptr_equal(r.iov[1 + i].iov_base, r.mem.region[1].base + i);
		}
		assert_null(vring_broken(r.v));
		vrig_close(&r);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_not_negotiated),
		cmocka_unit_test(test_overcommit),
		cmocka_unit_test(test_limits),
	};

	return cmocka_run_group_tests_name("vring_hostile", tests, NULL, NULL);
}
