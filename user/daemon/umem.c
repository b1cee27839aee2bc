// SPDX-License-Identifier: BSD-2-Clause
/* umem: packet memory in a sealed memfd. Contract in umem.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "umem.h"

#define HUGE_PAGE (2U << 20) /* bytes; the size umem asks hugetlb for */

static int umem_try(struct umem *u, uint64_t size, bool huge)
{
	unsigned int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	void *base;
	int fd, err;

	if (huge)
		flags |= MFD_HUGETLB | MFD_HUGE_2MB;
	fd = memfd_create("ghostnic-umem", flags);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)size)) {
		err = -errno;
		goto close_fd;
	}
	base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (base == MAP_FAILED) {
		err = -errno;
		goto close_fd;
	}
	if (!huge) /* heeded where shmem_enabled is "advise" */
		madvise(base, size, MADV_HUGEPAGE);
	/* The first packet must not wait for a page; kernel 5.14. */
	if (madvise(base, size, MADV_POPULATE_WRITE)) {
		err = -errno;
		goto unmap;
	}
	/* FUTURE_WRITE (kernel 5.1): this mapping stays the only writable one, whoever
	 * gets the descriptor, opens it again through /proc, or is root. */
	if (fcntl(fd, F_ADD_SEALS,
		  F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL)) {
		err = -errno;
		goto unmap;
	}
	*u = (struct umem){
		.fd = fd,
		.base = base,
		.size = size,
		.page_size = huge ? HUGE_PAGE : (uint32_t)sysconf(_SC_PAGESIZE),
	};
	return 0;
unmap:
	munmap(base, size);
close_fd:
	close(fd);
	return err;
}

uint32_t umem_chunk_size(uint32_t frame)
{
	return frame <= UMEM_FRAME_ROOM(UMEM_CHUNK_SMALL) ? UMEM_CHUNK_SMALL
							  : UMEM_CHUNK_LARGE;
}

int umem_init(struct umem *u, uint32_t nchunks, uint32_t chunk_size)
{
	uint64_t size = (uint64_t)nchunks * chunk_size;
	uint64_t huge = (size + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
	int err;

	err = umem_try(u, huge, true);
	if (err) {
		err = umem_try(u, size, false);
		if (err)
			return err;
	}
	u->nchunks = nchunks;
	u->chunk_size = chunk_size;
	return 0;
}

void umem_fini(struct umem *u)
{
	if (u->base)
		munmap(u->base, u->size);
	if (u->fd >= 0)
		close(u->fd);
	*u = (struct umem){ .fd = -1 };
}
