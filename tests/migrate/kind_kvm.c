// SPDX-License-Identifier: BSD-2-Clause
/*
 * kind_kvm: KVM's bitmap and its ring, with vCPUs that write.
 *
 * The second block is two slots, cut where no word of a bitmap begins.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "kinds.h"
#include "kvm_rig.h"

#define CUT 333U /* pages */

struct kvm_kind {
	struct kvm_rig rig;
	uint32_t ring_bytes;	/* 0: the bitmap */
	struct threads *device; /* NULL: none */
	struct dirty_source *device_src;
};

static struct kvm_kind *of(const struct conform *c)
{
	return c->priv;
}

static unsigned int slots(const struct conform *c, struct dirty_kvm_slot *slot)
{
	static const uint32_t id[] = { 0, 5, 2, 7 };
	unsigned int n = 0;

	for (unsigned int i = 0; i < c->ram.nblocks; i++) {
		const struct ram_block *b = &c->ram.block[i];
		uint64_t pages = b->size >> RAM_PAGE_SHIFT, first = i == 1 ? CUT : pages;

		slot[n++] = (struct dirty_kvm_slot){ id[i], b->first_page, first };
		if (first < pages)
			slot[n++] = (struct dirty_kvm_slot){ 9, b->first_page + first,
							     pages - first };
	}
	return n;
}

static uint32_t *list_of(const struct conform *c, unsigned int *n)
{
	uint64_t *page;
	uint32_t *list;

	*n = conform_pages(c, &page);
	list = calloc(*n, sizeof(*list));
	assert_non_null(list);
	for (unsigned int i = 0; i < *n; i++)
		list[i] = (uint32_t)ram_gpa(&c->ram, page[i]);
	free(page);
	return list;
}

static void make_set(struct conform *c)
{
	struct kvm_kind *k = of(c);
	struct dirty_kvm_vcpu vcpu[KVM_RIG_VCPUS];
	struct dirty_kvm_slot slot[8];
	unsigned int nslots = slots(c, slot);
	struct dirty_source *src;
	int err;

	for (unsigned int i = 0; i < KVM_RIG_VCPUS; i++) {
		struct kvm_rig_vcpu *v = &k->rig.vcpu[i];

		vcpu[i] =
			(struct dirty_kvm_vcpu){ v->fd, kvm_rig_kick, v, &v->ring_next };
	}
	assert_int_equal(dirty_set_create(&c->ram, &c->set), 0);
	if (k->ring_bytes)
		err = dirty_kvm_ring_create(&c->ram, k->rig.vm, k->ring_bytes, slot,
					    nslots, vcpu, KVM_RIG_VCPUS, &src);
	else
		err = dirty_kvm_bitmap_create(&c->ram, k->rig.vm, slot, nslots, &src);
	assert_int_equal(err, 0);
	k->rig.ring = k->ring_bytes ? src : NULL;
	assert_int_equal(dirty_set_add(c->set, src), 0);
}

static void kvm_renew(struct conform *c)
{
	dirty_set_destroy(c->set);
	make_set(c);
}

/* @ring_bytes: 0: the bitmap */
static int kvm_open(struct conform *c, uint32_t ring_bytes)
{
	struct kvm_kind *k = calloc(1, sizeof(*k));
	struct dirty_kvm_slot slot[8];
	unsigned int n, nslots;
	uint32_t *list;
	int err;

	assert_non_null(k);
	conform_layout(c);
	c->priv = k;
	nslots = slots(c, slot);
	list = list_of(c, &n);
	err = kvm_rig_open(&k->rig, &c->ram, slot, nslots, KVM_RIG_VCPUS,
			   ring_bytes ? &ring_bytes : NULL, KVM_RIG_WANDER, list, n);
	free(list);
	if (err) {
		free(k);
		ram_fini(&c->ram);
		return err;
	}
	k->ring_bytes = ring_bytes;
	make_set(c);
	return 0;
}

static int bitmap_open(struct conform *c)
{
	return kvm_open(c, 0);
}

static int ring_open(struct conform *c)
{
	return kvm_open(c, 1U << 18);
}

static int small_ring_open(struct conform *c)
{
	return kvm_open(c, 4096);
}

static void device_mark(struct conform *c, uint64_t page)
{
	dirty_user_mark(of(c)->device_src, ram_gpa(&c->ram, page), 1);
}

static int mixed_open(struct conform *c)
{
	int err = bitmap_open(c);

	if (err)
		return err;
	assert_int_equal(dirty_user_create(&c->ram, &of(c)->device_src), 0);
	assert_int_equal(dirty_set_add(c->set, of(c)->device_src), 0);
	of(c)->device = threads_start(c, 1, device_mark);
	return 0;
}

static void kvm_go(struct conform *c)
{
	kvm_rig_go(&of(c)->rig);
	if (of(c)->device)
		threads_go(of(c)->device);
}

static void kvm_halt(struct conform *c)
{
	kvm_rig_halt(&of(c)->rig);
	if (of(c)->device)
		threads_halt(of(c)->device);
}

static void kvm_close(struct conform *c)
{
	struct kvm_kind *k = of(c);

	c->writes = kvm_rig_writes(&k->rig);
	if (k->device)
		c->writes += threads_end(k->device);
	dirty_set_destroy(c->set);
	kvm_rig_close(&k->rig);
	free(k);
}

const struct conform_kind kind_kvm_bitmap = {
	.name = "kvm bitmap",
	.open = bitmap_open,
	.go = kvm_go,
	.halt = kvm_halt,
	.close = kvm_close,
	.renew = kvm_renew,
	.clears = true,
};
const struct conform_kind kind_kvm_ring = {
	.name = "kvm ring",
	.open = ring_open,
	.go = kvm_go,
	.halt = kvm_halt,
	.close = kvm_close,
	.renew = kvm_renew,
};
const struct conform_kind kind_kvm_ring_small = {
	.name = "kvm small ring",
	.open = small_ring_open,
	.go = kvm_go,
	.halt = kvm_halt,
	.close = kvm_close,
	.renew = kvm_renew,
};
const struct conform_kind kind_kvm_mixed = {
	.name = "kvm mixed",
	.open = mixed_open,
	.go = kvm_go,
	.halt = kvm_halt,
	.close = kvm_close,
	.clears = true,
};
