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

/* Chunk sizes of the kernel's aligned mode, bytes; umem_chunk_size() chooses. */
#define UMEM_CHUNK_SMALL 2048
#define UMEM_CHUNK_LARGE 4096

struct umem {
	int fd; /* memfd, or -1 */
	void *base;
	uint64_t size; /* bytes */
	uint32_t nchunks;
	uint32_t chunk_size; /* bytes */
	uint32_t page_size;  /* of the backing, bytes */
};

/**
 * umem_init() - allocate and map
 * @u:		uninitialised
 * @nchunks:	number of chunks
 * @chunk_size:	bytes, a power of two
 *
 * Return: 0, -ENOMEM or another -errno
 */
int umem_init(struct umem *u, uint32_t nchunks, uint32_t chunk_size);

/**
 * umem_chunk_size() - the size that suits an interface
 * @frame:	longest frame, bytes
 *
 * The small one when a frame fits into it behind the kernel's headroom: half the
 * memory, and frames spread over twice as many sets of the CPU's caches.
 */
uint32_t umem_chunk_size(uint32_t frame);

/*
 * Where a frame begins in its chunk, received or to be sent. What is in front of a received
 * one may be its metadata, so nothing may ever be there but what XDP wrote: a driver
 * without metadata area leaves it as it was.
 */
#define UMEM_HEADROOM 256 /* bytes; XDP_PACKET_HEADROOM */

/* Bytes of a frame that a chunk holds. */
#define UMEM_FRAME_ROOM(chunk_size) ((chunk_size)-UMEM_HEADROOM)

/** umem_fini() - unmap and close; a zeroed @u with fd -1 is fine */
void umem_fini(struct umem *u);

#endif
