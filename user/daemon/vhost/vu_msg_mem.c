// SPDX-License-Identifier: BSD-2-Clause
/* vu_proto: messages about the guest's memory and its dirty log. Contract in vu_msg.h. */
#include <errno.h>
#include <string.h>

#include "vu_msg.h"

static int add_region(struct vu_dev *d, const struct vu_mem_region *g, int fd)
{
	int err = vu_mem_add(&d->mem, g->gpa, g->uva, g->size, g->offset, fd);

	if (err)
		return vu_fail(d, err, "memory region at %#llx of %#llx bytes: %s",
			       (unsigned long long)g->gpa, (unsigned long long)g->size,
			       strerror(-err));
	return 0;
}

/* Rings that run find themselves in the new memory, or the device ends. */
static int remap_rings(struct vu_dev *d)
{
	for (unsigned int i = 0; i < VU_MAX_RINGS; i++)
		if (d->ring[i].vring && vring_remap(d->ring[i].vring))
			return vu_fail(d, -EPROTO,
				       "ring %u runs and is not in the new memory", i);
	return 0;
}

int vu_set_mem_table(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	struct vu_mem_region g;
	uint32_t n;

	memcpy(&n, m->payload, sizeof(n));
	if (n > VU_MAX_FDS || n != m->nfds || m->size < 8 + n * sizeof(g))
		return vu_fail(d, -EPROTO, "%u regions, %u descriptors, %u bytes", n,
			       m->nfds, m->size);
	vu_mem_clear(&d->mem);
	for (uint32_t i = 0; i < n; i++) {
		int err;

		memcpy(&g, m->payload + 8 + i * sizeof(g), sizeof(g));
		err = add_region(d, &g, m->fd[i]);
		if (err)
			return err;
	}
	return remap_rings(d);
}

int vu_get_max_mem_slots(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	return vu_reply_u64(r, m, VU_MEM_MAX_REGIONS);
}

/*
 * With several queue pairs QEMU 7.2 sends both messages once for each of them: to add
 * what is there as it is, or to remove what is not, changes nothing and is no error.
 */
int vu_add_mem_reg(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	const struct vu_region *have;
	struct vu_mem_region g;
	int err;

	memcpy(&g, m->payload + 8, sizeof(g));
	have = vu_mem_find(&d->mem, g.gpa);
	if (have && have->gpa == g.gpa && have->uva == g.uva && have->size == g.size)
		return 0;
	err = add_region(d, &g, m->fd[0]);
	return err ? err : remap_rings(d);
}

int vu_rem_mem_reg(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	struct vu_mem_region g;

	memcpy(&g, m->payload + 8, sizeof(g));
	if (vu_mem_del(&d->mem, g.gpa, g.uva, g.size))
		return 0;
	return remap_rings(d);
}

/*
 * May come again while the log is written: memory grew. Front ends differ in what they
 * read: QEMU takes any payload, and those that ask for an acknowledgement want it in the
 * form of all others, so the reply is empty unless one was asked for.
 */
int vu_set_log_base(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	struct vu_map map = { 0 }, old = d->log_map;
	uint64_t size, offset;
	int err;

	memcpy(&size, m->payload, sizeof(size));
	memcpy(&offset, m->payload + 8, sizeof(offset));
	err = vu_map_create(&map, m->fd[0], offset, size, &d->log_broken);
	if (err)
		return vu_fail(d, err, "log of %#llx bytes at %#llx: %s",
			       (unsigned long long)size, (unsigned long long)offset,
			       strerror(-err));
	d->log_map = map;
	d->log_size = size;
	vu_log_update(d);
	vu_map_destroy(&old);
	vu_reply_with(r, m, NULL, 0);
	return 0;
}

/* To be signalled at each write of the log; QEMU never sends it. */
int vu_set_log_fd(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	return 0;
}
