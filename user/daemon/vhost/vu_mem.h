/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vu_mem: a guest's memory as the vhost-user front end shares it.
 *
 * Two address spaces name it: guest physical (GPA) in descriptors, and the front
 * end's own user addresses (UVA) in ring set-up messages. A region is one memfd,
 * mapped here; both translate to pointers into that mapping.
 *
 * The file may be shorter than its region says, or be truncated later: touching the
 * missing part raises SIGBUS. vu_mem_guard() installs a handler that puts a zero
 * page there, so that the access completes, and marks the memory broken; its owner
 * closes the device. Lookups: the worker that owns the ring. Changes: the control thread,
 * while no worker runs the device.
 */
#ifndef GN_VU_MEM_H
#define GN_VU_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VU_MEM_MAX_REGIONS 32
#define VU_MAP_MAX	   4096 /* guarded mappings of the process */

/* A guarded mapping of a peer's file. */
struct vu_map {
	uint8_t *base; /* first byte asked for; NULL: none */
	void *map;     /* what was mapped, whole pages of the file */
	size_t map_len;
	unsigned int slot;
};

struct vu_region {
	uint64_t gpa;		   /* guest physical address of the first byte */
	uint64_t uva;		   /* front end's address of it */
	uint64_t size;		   /* bytes; 0: unused */
	uint8_t *base;		   /* first byte here */
	uint64_t dev, ino, offset; /* the file that it is, and where in it */
	struct vu_map map;
};

/* All zero: no memory. Must stay where it is while it has regions. */
struct vu_mem {
	struct vu_region region[VU_MEM_MAX_REGIONS]; /* by gpa, none overlap */
	unsigned int nregions;
	bool broken; /* a SIGBUS hit one of the regions; atomic, see vu_mem_broken() */
};

/** vu_mem_guard() - process-wide SIGBUS handler, once, before the first region. Return:
 * 0, -errno */
int vu_mem_guard(void);

/**
 * vu_map_create() - map a part of a peer's file, shared, guarded
 * @m:		filled on success; caller destroys
 * @fd:		regular file, also of huge pages; not owned
 * @offset:	need not be a multiple of a page; bytes
 * @size:	bytes
 * @broken:	set (atomically) when the file turned out to be shorter; must outlive @m
 *
 * Return: 0, -EINVAL (empty, wraps, offset beyond the file, not a regular file),
 * -ENOSPC (too many), or mmap()'s -errno
 */
int vu_map_create(struct vu_map *m, int fd, uint64_t offset, uint64_t size, bool *broken);

/** vu_map_destroy() - unmap; zeroed @m is fine */
void vu_map_destroy(struct vu_map *m);

/**
 * vu_mem_add() - map one region
 * @m:		memory
 * @gpa, @uva, @size, @offset: as in the message; bytes
 * @fd:		backing file; not owned
 *
 * Return: 0, -EINVAL (empty, wraps, overlaps, offset beyond the file, not a
 * regular file), -ENOSPC (too many), or mmap()'s -errno
 */
int vu_mem_add(struct vu_mem *m, uint64_t gpa, uint64_t uva, uint64_t size,
	       uint64_t offset, int fd);

/** vu_mem_del() - unmap the region with this gpa, uva and size. Return: 0, -ENOENT */
int vu_mem_del(struct vu_mem *m, uint64_t gpa, uint64_t uva, uint64_t size);

/** vu_mem_clear() - unmap all; the memory is whole again */
void vu_mem_clear(struct vu_mem *m);

/** vu_mem_find() - the region that holds @gpa, NULL if none does */
const struct vu_region *vu_mem_find(const struct vu_mem *m, uint64_t gpa);

/**
 * vu_mem_gpa() - pointer to guest memory
 * @m:		memory
 * @gpa:	guest physical address
 * @len:	in: bytes wanted, > 0; out: bytes contiguous here, at most those
 *
 * Return: pointer, or NULL: no region has @gpa
 */
void *vu_mem_gpa(const struct vu_mem *m, uint64_t gpa, uint64_t *len);

/**
 * vu_mem_uva() - pointer to all of [@uva, @uva + @len), or NULL
 * @gpa:	if not NULL, set to the guest physical address
 */
void *vu_mem_uva(const struct vu_mem *m, uint64_t uva, uint64_t len, uint64_t *gpa);

/** vu_mem_broken() - was any of it missing when touched? Any thread */
static inline bool vu_mem_broken(const struct vu_mem *m)
{
	return __atomic_load_n(&m->broken, __ATOMIC_RELAXED);
}

#endif
