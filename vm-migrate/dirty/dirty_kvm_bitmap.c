// SPDX-License-Identifier: BSD-2-Clause
/*
 * dirty_kvm_bitmap: KVM's bitmap per memory slot.
 *
 * With manual protect, KVM_GET_DIRTY_LOG only copies the bitmap, and KVM_CLEAR_DIRTY_LOG
 * write-protects the pages that are about to be sent: a page written several times
 * between a harvest and its sending is sent once, and the MMU lock is held for short
 * times. Without it (before Linux 5.2) the former does both for the whole slot.
 *
 * KVM_DIRTY_LOG_INITIALLY_SET is not asked for: all holes of a sparse guest would be
 * dirty in the first harvest.
 *
 * Source: Documentation/virt/kvm/api.rst 4.8 KVM_GET_DIRTY_LOG, 4.117
 * KVM_CLEAR_DIRTY_LOG: first_page is a multiple of 64, and so is num_pages unless it
 * ends the slot.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "../../user/lib/bitmap.h"
#include "dirty_kvm.h"

#define CLEAR_WORDS 64 /* of one call for a slot that does not start at a word */

struct kvm_bitmap {
	struct dirty_source src;
	int vm_fd;
	bool manual;
	unsigned int nslots;
	uint64_t *buf; /* of the largest slot */
	struct dirty_kvm_slot slot[];
};

static struct kvm_bitmap *of(struct dirty_source *src)
{
	return (struct kvm_bitmap *)src;
}

static int get(struct kvm_bitmap *k, const struct dirty_kvm_slot *s)
{
	struct kvm_dirty_log log = { .slot = s->slot, .dirty_bitmap = k->buf };

	return ioctl(k->vm_fd, KVM_GET_DIRTY_LOG, &log) ? -errno : 0;
}

static int enable_manual(struct kvm_bitmap *k)
{
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
		.args = { KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE },
	};
	int has = ioctl(k->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2);

	if (has < 0)
		return -errno;
	k->manual = has & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE;
	return k->manual && ioctl(k->vm_fd, KVM_ENABLE_CAP, &cap) ? -errno : 0;
}

static int bitmap_start(struct dirty_source *src)
{
	struct kvm_bitmap *k = of(src);
	int err = enable_manual(k);

	if (!err)
		err = dirty_kvm_set_log(src->ram, k->vm_fd, k->slot, k->nslots, true);
	if (err)
		return err;
	/* A VM whose dirty ring is enabled has no bitmap. */
	err = k->nslots ? get(k, &k->slot[0]) : 0;
	if (err)
		dirty_kvm_set_log(src->ram, k->vm_fd, k->slot, k->nslots, false);
	return err == -ENXIO ? -EOPNOTSUPP : err;
}

static int64_t bitmap_harvest(struct dirty_source *src, uint64_t *bitmap)
{
	struct kvm_bitmap *k = of(src);
	int64_t pages = 0;
	int err;

	for (unsigned int i = 0; i < k->nslots; i++) {
		const struct dirty_kvm_slot *s = &k->slot[i];

		err = get(k, s);
		if (err)
			return err;
		pages += (int64_t)bitmap_range(bitmap, s->first_page, k->buf, 0, s->pages,
					       BITMAP_MERGE);
	}
	return pages;
}

/* Pages [@from, @to) of a slot: whole words, or up to its end. @bits: from @from on */
static int clear_words(struct kvm_bitmap *k, const struct dirty_kvm_slot *s,
		       uint64_t from, uint64_t to, const uint64_t *bits)
{
	struct kvm_clear_dirty_log log = {
		.slot = s->slot,
		.num_pages = (uint32_t)(to - from),
		.first_page = from,
		.dirty_bitmap = (void *)(uintptr_t)bits,
	};

	if (bitmap_next(bits, 0, to - from) == to - from)
		return 0;
	return ioctl(k->vm_fd, KVM_CLEAR_DIRTY_LOG, &log) ? -errno : 0;
}

/* @taken: pages [@first, @first + @n) of the RAM; the slot has some of them. */
static int clear_slot(struct kvm_bitmap *k, const struct dirty_kvm_slot *s,
		      uint64_t first, uint64_t n, const uint64_t *taken)
{
	uint64_t end = s->first_page + s->pages;
	uint64_t a = first > s->first_page ? first : s->first_page;
	uint64_t b = first + n < end ? first + n : end;
	uint64_t buf[CLEAR_WORDS], from = (a - s->first_page) / 64 * 64, to;
	int err = 0;

	if (a >= b)
		return 0;
	if (!(s->first_page % 64))
		return clear_words(k, s, from, b - s->first_page,
				   taken + (a - first) / 64);
	/* What the slot's words have beside the range stays 0, and is not cleared. */
	for (; a < b && !err; from = to) {
		uint64_t many;

		to = from + CLEAR_WORDS * 64UL < s->pages ? from + CLEAR_WORDS * 64UL
							  : s->pages;
		many = (b - s->first_page < to ? b - s->first_page : to) -
		       (a - s->first_page);
		memset(buf, 0, sizeof(buf));
		bitmap_range(buf, a - s->first_page - from, (uint64_t *)(uintptr_t)taken,
			     a - first, many, BITMAP_MERGE);
		err = clear_words(k, s, from, to, buf);
		a += many;
	}
	return err;
}

static int bitmap_clear_log(struct dirty_source *src, uint64_t first, uint64_t n,
			    const uint64_t *taken)
{
	struct kvm_bitmap *k = of(src);
	int err = 0;

	if (!k->manual)
		return 0;
	for (unsigned int i = 0; i < k->nslots && !err; i++)
		err = clear_slot(k, &k->slot[i], first, n, taken);
	return err;
}

static void bitmap_stop(struct dirty_source *src)
{
	struct kvm_bitmap *k = of(src);

	dirty_kvm_set_log(src->ram, k->vm_fd, k->slot, k->nslots, false);
}

static void bitmap_destroy(struct dirty_source *src)
{
	free(of(src)->buf);
	free(src);
}

static const struct dirty_ops kvm_bitmap_ops = {
	.name = "kvm-bitmap",
	.by = DIRTY_BY_CPU,
	.start = bitmap_start,
	.harvest = bitmap_harvest,
	.clear = bitmap_clear_log,
	.stop = bitmap_stop,
	.destroy = bitmap_destroy,
};

int dirty_kvm_bitmap_create(const struct ram *ram, int vm_fd,
			    const struct dirty_kvm_slot *slot, unsigned int nslots,
			    struct dirty_source **src)
{
	int err = dirty_kvm_check_slots(ram, slot, nslots);
	struct kvm_bitmap *k;
	uint64_t max = 0;

	if (err)
		return err;
	k = calloc(1, sizeof(*k) + nslots * sizeof(*slot));
	if (!k)
		return -ENOMEM;
	k->src = (struct dirty_source){ .ops = &kvm_bitmap_ops, .ram = ram };
	k->vm_fd = vm_fd;
	k->nslots = nslots;
	memcpy(k->slot, slot, nslots * sizeof(*slot));
	for (unsigned int i = 0; i < nslots; i++)
		if (slot[i].pages > max)
			max = slot[i].pages;
	k->buf = calloc(bitmap_words(max) + 1, sizeof(*k->buf));
	if (!k->buf) {
		free(k);
		return -ENOMEM;
	}
	*src = &k->src;
	return 0;
}
