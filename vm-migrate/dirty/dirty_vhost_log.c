// SPDX-License-Identifier: BSD-2-Clause
/*
 * dirty_vhost_log: the bitmap that vhost and vhost-user back ends mark their writes in.
 *
 * The back end sets bits by an atomic OR after it wrote the data; a harvest takes them by
 * exchange. Bits of addresses that are no RAM of ours are left alone.
 */
#include <errno.h>
#include <stdlib.h>

#include "../../user/lib/bitmap.h"
#include "dirty.h"

struct vhost_log {
	struct dirty_source src;
	uint64_t *log;
	int (*enable)(void *arg, bool on);
	void *arg;
};

static struct vhost_log *of(struct dirty_source *src)
{
	return (struct vhost_log *)src;
}

static int vhost_start(struct dirty_source *src)
{
	struct vhost_log *v = of(src);

	return v->enable ? v->enable(v->arg, true) : 0;
}

static int64_t vhost_harvest(struct dirty_source *src, uint64_t *bitmap)
{
	struct vhost_log *v = of(src);
	uint64_t pages = 0;

	for (unsigned int i = 0; i < src->ram->nblocks; i++) {
		const struct ram_block *b = &src->ram->block[i];

		pages += bitmap_range(bitmap, b->first_page, v->log,
				      b->gpa >> RAM_PAGE_SHIFT, b->size >> RAM_PAGE_SHIFT,
				      BITMAP_TAKE_ATOMIC);
	}
	return (int64_t)pages;
}

static void vhost_stop(struct dirty_source *src)
{
	struct vhost_log *v = of(src);

	if (v->enable)
		v->enable(v->arg, false);
}

static void vhost_destroy(struct dirty_source *src)
{
	free(src);
}

static const struct dirty_ops vhost_log_ops = {
	.name = "vhost-log",
	.by = DIRTY_BY_DEVICE,
	.start = vhost_start,
	.harvest = vhost_harvest,
	.stop = vhost_stop,
	.destroy = vhost_destroy,
};

int dirty_vhost_log_create(const struct ram *ram, uint64_t *log, size_t log_bytes,
			   int (*enable)(void *arg, bool on), void *arg,
			   struct dirty_source **src)
{
	const struct ram_block *b;
	struct vhost_log *v;

	if (log_bytes % sizeof(*log))
		return -EINVAL;
	for (b = ram->block; b < ram->block + ram->nblocks; b++)
		if ((b->gpa + b->size) >> RAM_PAGE_SHIFT > (uint64_t)log_bytes * 8)
			return -EINVAL;
	v = calloc(1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	v->src = (struct dirty_source){ .ops = &vhost_log_ops, .ram = ram };
	v->log = log;
	v->enable = enable;
	v->arg = arg;
	*src = &v->src;
	return 0;
}
