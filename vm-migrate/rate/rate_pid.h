/* SPDX-License-Identifier: BSD-2-Clause */
/* rate_pid: what the ways to watch a process share. One thread. */
#ifndef VMM_RATE_PID_H
#define VMM_RATE_PID_H

#include <stdio.h>
#include <sys/types.h>

#include "../qemu/qemu_parse.h"
#include "rate.h"

#define RATE_PAGE 4096UL

/* A writable mapping. */
struct pid_area {
	struct qemu_map map;
	uint64_t first; /* its first bit, a multiple of 64 */
	bool watched;	/* registered with userfaultfd for write protection */
};

struct pid_areas {
	int pid;
	int pagemap_fd;
	struct pid_area *area; /* [n] */
	unsigned int n;
	uint64_t bits; /* all pages, populated or not */
};

/** pid_areas_find() - Return: 0, -ESRCH, -EPERM, -errno */
int pid_areas_find(int pid, struct pid_areas *a, char *why, size_t why_len);
void pid_areas_fini(struct pid_areas *a);

/**
 * pid_areas_populated() - call @run for each run of pages that hold something
 * @run:	may be NULL; @first and @pages as addresses of the process
 *
 * Memory of a memfd counts if anybody has written it, other memory if this process has
 * it. Return: pages, -errno
 */
int64_t pid_areas_populated(const struct pid_areas *a,
			    int (*run)(void *arg, uint64_t va, uint64_t pages),
			    void *arg);

/* The three ways. @a is taken over on success. */
int rate_pagemap_create(struct pid_areas *a, struct rate_source **out, char *why,
			size_t why_len);
int rate_soft_create(struct pid_areas *a, struct rate_source **out, char *why,
		     size_t why_len);
int rate_hashes_create(struct pid_areas *a, unsigned int samples,
		       struct rate_source **out, char *why, size_t why_len);

/** rate_soft_supported() - does this kernel track soft-dirty pages? */
bool rate_soft_supported(void);

#endif
