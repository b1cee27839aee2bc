/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * umem: the packet memory of one worker, a sealed memfd.
 *
 * A memfd so that a port can hand it, read-only, to another process; sealed
 * against resizing so that no mapping of it can ever SIGBUS, and against any writable
 * mapping but the daemon's own. Huge pages when
 * the machine has reserved some, transparent ones when it allows them, else
 * small pages. Control thread creates it; the worker then owns it.
 */
#ifndef GN_UMEM_H
#define GN_UMEM_H

#include <stdbool.h>
#include <stdint.h>

#define UMEM_CHUNK_SIZE	4096	/* bytes: the kernel's aligned mode, one page */

struct umem {
	int fd;			/* memfd, or -1 */
	void *base;
	uint64_t size;		/* bytes */
	uint32_t nchunks;
	uint32_t page_size;	/* of the backing, bytes */
};

/**
 * umem_init() - allocate and map
 * @u:		uninitialised
 * @nchunks:	chunks of UMEM_CHUNK_SIZE bytes
 *
 * Return: 0, -ENOMEM or another -errno
 */
int umem_init(struct umem *u, uint32_t nchunks);

/** umem_fini() - unmap and close; a zeroed @u with fd -1 is fine */
void umem_fini(struct umem *u);

#endif
