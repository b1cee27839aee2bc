// SPDX-License-Identifier: BSD-2-Clause
/* vring: what vring_create() refuses, where a ring goes on, a ring that moves, wake-ups.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vring_rig.h"

static void refuse(struct vrig *r, struct vring_conf c, uint32_t base)
{
	struct vring *v = (struct vring *)r;

	assert_int_equal(vring_create(&c, &r->mem, NULL, base, &v), -EINVAL);
	assert_ptr_equal(v, r);
}

static void test_create(void **state)
{
	const struct vring_conf split = vrig_conf(false), packed = vrig_conf(true);
	struct vring_conf c;
	struct vrig r;

	vrig_open(&r, false, true);
#define REFUSE(from, base, ...)                                                          \
	do {                                                                             \
		c = from;                                                                \
		__VA_ARGS__;                                                             \
		refuse(&r, c, base);                                                     \
	} while (0)
	REFUSE(split, 0, c.size = 0);
	REFUSE(split, 0, c.size = 7);
	REFUSE(split, 0, c.size = 65535);
	REFUSE(packed, 0, c.size = 0);
	REFUSE(packed, 0, c.size = VRING_MAX_SIZE + 1);
	REFUSE(split, 0, c.desc_uva += 8);
	REFUSE(split, 0, c.avail_uva += 1);
	REFUSE(split, 0, c.used_uva += 2);
	REFUSE(packed, 0, c.avail_uva += 2);
	REFUSE(split, 0, c.desc_uva = RING);
	REFUSE(split, 0, c.avail_uva = UINT64_MAX - 1);
	/* A last byte outside, then inside. */
	REFUSE(split, 0, c.desc_uva = UVA + RING + RING_LEN - SIZE * 16 + 16);
	REFUSE(split, 0, c.avail_uva = UVA + RING + RING_LEN - (6 + SIZE * 2) + 2);
	REFUSE(split, 0, c.used_uva = UVA + RING + RING_LEN - (4 + SIZE * 8));
	REFUSE(packed, 0, c.used_uva = UVA + RING + RING_LEN);
	/* Both regions exist, but the ring lies in two. */
	REFUSE(split, 0, c.desc_uva = UVA + MORE - 0x18);
	REFUSE(split, 0x10000);
	REFUSE(packed, 0x80000000 | 0x8000 | SIZE);
	REFUSE(packed, 0x80000000 | SIZE << 16 | 0x8000);
	/* Available is behind used, or more than a ring ahead. */
	REFUSE(packed, 0x80028001);
	REFUSE(packed, 0x80010002);
#undef REFUSE
	vrig_close(&r);
}

static uint32_t reopen(struct vrig *r, bool packed, uint32_t base)
{
	struct vring_conf c = vrig_conf(packed);
	struct vring *v;

	assert_int_equal(vring_create(&c, &r->mem, NULL, base, &v), 0);
	return vring_destroy(v);
}

static void test_base(void **state)
{
	struct vrig r;

	vrig_open(&r, false, true);
	vrig_poke16(&r, USED + 2, 0xfffe);
	assert_int_equal(reopen(&r, false, 0xfffe), 0xfffe);
	/* A back end that died held four chains. */
	assert_int_equal(reopen(&r, false, 2), 0xfffe);
	vrig_close(&r);

	vrig_open(&r, true, true);
	assert_int_equal(reopen(&r, true, 0x80008000), 0x80008000);
	assert_int_equal(reopen(&r, true, 0x00008000), 0x80008000);
	assert_int_equal(reopen(&r, true, 0x00050005), 0x00050005);
	assert_int_equal(reopen(&r, true, 0x00058002), 0x00050005);
	assert_int_equal(reopen(&r, true, 0x80018003), 0x80018001);
	vrig_close(&r);
}

/* The ring's region goes away, and comes back elsewhere. */
static void test_remap(void **state)
{
	struct vu_region gone;
	struct vrig r;
	uint8_t *old;

	vrig_open(&r, false, true);
	vrig_sd(&r, RING, DATA, 16, 0, 0);
	vrig_avail(&r, 1);
	old = r.mem.region[0].base;
	r.mem.region[0].base = aligned_alloc(16, RING_LEN);
	assert_non_null(r.mem.region[0].base);
	memcpy(r.mem.region[0].base, old, RING_LEN);
	free(old);
	assert_int_equal(vring_remap(r.v), 0);
	assert_int_equal(vring_take(r.v, &r.vec, &r.c), 1);
	vring_put(r.v, &r.vec, &r.c, 0);
	vring_publish(r.v);
	assert_int_equal(*(uint16_t *)(r.mem.region[0].base + (USED - RING) + 2), 1);

	gone = r.mem.region[0];
	memset(&r.mem.region[0], 0, sizeof(gone));
	assert_int_equal(vring_remap(r.v), -EINVAL);
	r.mem.region[0] = gone;
	vrig_check_dead(&r, "ring outside guest memory");
	vrig_close(&r);
}

/* A chain that was seen and given up is not news: the guest is asked for the next. */
static void test_wakeup(void **state)
{
	for (unsigned int packed = 0; packed < 2; packed++) {
		struct vring_chain c[3];
		struct vrig r;

		vrig_open(&r, packed, true);
		vrig_sd(&r, RING, DATA, 16, packed ? 7 : 0, packed ? AV : 0);
		for (unsigned int i = 1; packed && i < 3; i++)
			vrig_pd(&r, RING + i * 16, DATA, 16, AV);
		if (!packed)
			vrig_avail(&r, 3);
		for (unsigned int i = 0; i < 3; i++)
			assert_int_equal(vring_take(r.v, &r.vec, &c[i]), 1);
		assert_int_equal(vring_take(r.v, &r.vec, &r.c), 0);
		vring_untake(r.v, &r.vec, &c[1], 2);
		assert_int_equal(r.vec.n, 1);
		assert_false(vring_set_wakeup(r.v, true));
		assert_int_equal(vring_take(r.v, &r.vec, &c[1]), 1);
		assert_false(vring_set_wakeup(r.v, true));
		if (packed)
			vrig_pd(&r, RING + 48, DATA, 16, AV);
		else
			vrig_avail(&r, 4);
		assert_true(vring_set_wakeup(r.v, true));
		assert_int_equal(vring_take(r.v, &r.vec, &c[2]), 1);
		assert_int_equal(vring_take(r.v, &r.vec, &r.c), 1);
		assert_int_equal(vring_take(r.v, &r.vec, &r.c), 0);
		assert_false(vring_set_wakeup(r.v, true));
		vrig_close(&r);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_create),
		cmocka_unit_test(test_base),
		cmocka_unit_test(test_remap),
		cmocka_unit_test(test_wakeup),
	};

	return cmocka_run_group_tests_name("vring_setup", tests, NULL, NULL);
}
