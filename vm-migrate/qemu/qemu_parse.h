/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * qemu_parse: the texts that name a QEMU's RAM: its monitor's and /proc's. No I/O. The
 * texts come from another process and may hold anything; whatever cannot be right is
 * refused.
 */
#ifndef VMM_QEMU_PARSE_H
#define VMM_QEMU_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QEMU_NAME_MAX	64
#define QEMU_MAX_RANGES 128 /* of RAM in the guest's address space */

/* Guest-physical [gpa, gpa + size) is [offset, ...) of memory region @name. */
struct qemu_range {
	uint64_t gpa, size, offset;
	char name[QEMU_NAME_MAX];
};

/**
 * qemu_parse_mtree() - RAM and ROM in "info mtree -f", as the CPUs see it
 * @r:	[@max] in ascending order of gpa
 *
 * Return: ranges, -EBADMSG: no such text, -ENOSPC
 */
int qemu_parse_mtree(const char *text, struct qemu_range *r, unsigned int max);

/** qemu_parse_hva() - the answer of "gpa2hva". Return: 0, -EBADMSG */
int qemu_parse_hva(const char *text, uint64_t *hva);

/* A block of "info ramblock". */
struct qemu_ramblock {
	char name[QEMU_NAME_MAX];
	uint64_t used, total; /* bytes */
};

/** qemu_parse_ramblocks() - Return: blocks, -EBADMSG, -ENOSPC */
int qemu_parse_ramblocks(const char *text, struct qemu_ramblock *b, unsigned int max);

/* A line of /proc/PID/maps (proc(5)). */
struct qemu_map {
	uint64_t start, end, offset;
	unsigned int dev_major, dev_minor;
	uint64_t inode;
	bool shared, writable;
	bool memfd;
	bool shmem; /* memfd, or other shared memory without a disk behind it */
};

/** qemu_parse_map() - Return: 0, -EBADMSG */
int qemu_parse_map(const char *line, struct qemu_map *m);

#endif
