// SPDX-License-Identifier: BSD-2-Clause
/* vring_rig: see vring_rig.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vring_rig.h"

static void add_region(struct vu_mem *m, uint64_t gpa, uint64_t size, void *base)
{
	m->region[m->nregions++] = (struct vu_region){
		.gpa = gpa, .uva = UVA + gpa, .size = size, .base = base
	};
}

struct vring_conf vrig_conf(bool packed)
{
	return (struct vring_conf){ .packed = packed,
				    .indirect = true,
				    .size = SIZE,
				    .desc_uva = UVA + RING,
				    .avail_uva = UVA + AVAIL,
				    .used_uva = UVA + USED };
}

void vrig_open(struct vrig *r, bool packed, bool indirect)
{
	struct vring_conf c = vrig_conf(packed);

	memset(r, 0, sizeof(*r));
	add_region(&r->mem, RING, RING_LEN, aligned_alloc(16, RING_LEN));
	add_region(&r->mem, DATA, DATA_LEN, malloc(DATA_LEN));
	add_region(&r->mem, MORE, MORE_LEN, malloc(MORE_LEN));
	add_region(&r->mem, HUGE, HUGE_LEN, (void *)64);
	for (unsigned int i = 0; i < 3; i++) {
		assert_non_null(r->mem.region[i].base);
		memset(r->mem.region[i].base, 0, r->mem.region[i].size);
	}
	c.indirect = indirect;
	assert_int_equal(vring_create(&c, &r->mem, NULL, packed ? 0x80008000 : 0, &r->v),
			 0);
	r->vec = (struct vring_vec){ .max = VRING_MAX_IOV + 1,
				     .iov = r->iov,
				     .gpa = r->gpa };
}

void vrig_close(struct vrig *r)
{
	vring_destroy(r->v);
	for (unsigned int i = 0; i < 3; i++)
		free(r->mem.region[i].base);
}

void vrig_poke(struct vrig *r, uint64_t gpa, const void *p, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		uint64_t one = 1;

		*(uint8_t *)vu_mem_gpa(&r->mem, gpa + i, &one) = ((const uint8_t *)p)[i];
	}
}

void vrig_poke16(struct vrig *r, uint64_t gpa, uint16_t x)
{
	vrig_poke(r, gpa, &x, 2);
}

void vrig_sd(struct vrig *r, uint64_t gpa, uint64_t addr, uint32_t len, uint16_t flags,
	     uint16_t next)
{
	vrig_poke(r, gpa, &addr, 8);
	vrig_poke(r, gpa + 8, &len, 4);
	vrig_poke16(r, gpa + 12, flags);
	vrig_poke16(r, gpa + 14, next);
}

void vrig_pd(struct vrig *r, uint64_t gpa, uint64_t addr, uint32_t len, uint16_t flags)
{
	vrig_sd(r, gpa, addr, len, 7, flags);
}

void vrig_avail(struct vrig *r, uint16_t n)
{
	vrig_poke16(r, AVAIL + 2, n);
}

void vrig_check_dead(struct vrig *r, const char *reason)
{
	uint8_t before[RING_LEN];
	struct vring_chain c = { .ndesc = 1 };

	assert_non_null(vring_broken(r->v));
	assert_string_equal(vring_broken(r->v), reason);
	memcpy(before, r->mem.region[0].base, RING_LEN);
	assert_int_equal(vring_take(r->v, &r->vec, &r->c), -EPROTO);
	vring_put(r->v, &r->vec, &c, 0);
	vring_publish(r->v);
	assert_false(vring_should_notify(r->v));
	assert_false(vring_set_wakeup(r->v, true));
	assert_false(vring_set_wakeup(r->v, false));
	assert_memory_equal(before, r->mem.region[0].base, RING_LEN);
}
