/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * qemu_ram: the RAM of a QEMU on this machine, seen from outside.
 *
 * QEMU's monitor says where in the guest's address space each memory backend appears, and
 * where QEMU itself has mapped that; /proc/PID/maps says which memfd is mapped there, and
 * /proc/PID/fd lets us open it. Nothing of it is guessed by size or name.
 *
 * Reading goes through pread(): a hole of a memfd stays a hole. One thread.
 */
#ifndef VMM_QEMU_RAM_H
#define VMM_QEMU_RAM_H

#include <sys/types.h>

#include "qemu_parse.h"
#include "qmp.h"
#include "../ram.h"

#define QEMU_MAX_BACKENDS 16

struct qemu_backend {
	char id[QEMU_NAME_MAX]; /* of -object */
	uint64_t size;		/* bytes */
	int fd;			/* its memfd */
	uint64_t fd_offset;	/* where it begins in there */
};

struct qemu_ram {
	struct qemu_backend backend[QEMU_MAX_BACKENDS];
	unsigned int nbackends;
	/* The same memory by guest-physical address, mapped for reading. */
	struct ram ram;
	unsigned int ram_backend[RAM_MAX_BLOCKS]; /* of each block of ram */
	uint64_t ram_offset[RAM_MAX_BLOCKS];	  /* of the block in its backend */
};

/**
 * qemu_ram_find() - find and open all memory backends
 * @pid:	of QEMU; as qmp_pid() if the monitor's socket is its own
 * @why:	[@why_len] what is missing, on failure, and how to get it
 *
 * Return: 0; -EOPNOTSUPP: RAM that is no shared memfd; -EACCES; -ESRCH; another -errno
 */
int qemu_ram_find(struct qmp *q, pid_t pid, struct qemu_ram *r, char *why,
		  size_t why_len);

/** qemu_ram_fini() - of one that was found, or is all zeros */
void qemu_ram_fini(struct qemu_ram *r);

struct qemu_ram_diff {
	uint64_t pages;	   /* looked at, on either side no hole */
	uint64_t differ;   /* of them */
	uint64_t page[16]; /* the first of them, as numbers of @a->ram, RAM_NO_PAGE: not
			    * in the guest's address space */
	uint64_t bytes;	   /* of all backends */
};

/**
 * qemu_ram_compare() - page by page, while nobody writes
 * @a, @b:	of two QEMUs; same backends (qemu_ram_same())
 * @bitmap:	[ram_words(&a->ram)] set for pages that differ; may be NULL
 * @threads:	0: one per CPU
 *
 * Return: 0 and @diff, -errno: could not read or allocate
 */
int qemu_ram_compare(const struct qemu_ram *a, const struct qemu_ram *b, uint64_t *bitmap,
		     unsigned int threads, struct qemu_ram_diff *diff);

/** qemu_ram_same() - have both the same backends at the same addresses? @why: if not */
bool qemu_ram_same(const struct qemu_ram *a, const struct qemu_ram *b, char *why,
		   size_t why_len);

#endif
