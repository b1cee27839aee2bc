// SPDX-License-Identifier: BSD-2-Clause
/* ram: the table of a guest's memory; see ram.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../user/lib/bitmap.h"
#include "ram.h"

#define HUGE_SIZE (2UL << 20)

void ram_init(struct ram *ram)
{
	memset(ram, 0, sizeof(*ram));
}

void ram_fini(struct ram *ram)
{
	for (unsigned int i = 0; i < ram->nblocks; i++) {
		struct ram_block *b = &ram->block[i];

		if (!b->owned)
			continue;
		munmap(b->hva, b->size);
		close(b->fd);
	}
	ram_init(ram);
}

static int check(const struct ram *ram, uint64_t gpa, uint64_t size, uint64_t align)
{
	const struct ram_block *last;

	if (!size || gpa % align || size % align || gpa + size < gpa)
		return -EINVAL;
	if (ram->nblocks == RAM_MAX_BLOCKS)
		return -ENOSPC;
	if (!ram->nblocks)
		return 0;
	last = &ram->block[ram->nblocks - 1];
	return gpa < last->gpa + last->size ? -EINVAL : 0;
}

static void append(struct ram *ram, struct ram_block b)
{
	b.first_page = ram->pages;
	ram->block[ram->nblocks++] = b;
	ram->pages += bitmap_words(b.size >> RAM_PAGE_SHIFT) * BITMAP_BITS;
	ram->bytes += b.size;
}

int ram_add(struct ram *ram, uint64_t gpa, uint64_t size, unsigned int flags)
{
	bool huge = flags & RAM_HUGE;
	int err = check(ram, gpa, size, huge ? HUGE_SIZE : RAM_PAGE_SIZE), fd;
	void *p;

	if (err)
		return err;
	fd = memfd_create("guest-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING |
					       (huge ? MFD_HUGETLB | MFD_HUGE_2MB : 0));
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)size) ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) {
		err = -errno;
		goto close_fd;
	}
	/* Huge pages are set aside now, or a touch would end in SIGBUS. */
	p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		 MAP_SHARED | (huge ? 0 : MAP_NORESERVE), fd, 0);
	if (p == MAP_FAILED) {
		err = -errno;
		goto close_fd;
	}
	append(ram,
	       (struct ram_block){
		       .gpa = gpa, .size = size, .hva = p, .fd = fd, .owned = true });
	return 0;
close_fd:
	close(fd);
	return err;
}

int ram_adopt(struct ram *ram, uint64_t gpa, uint64_t size, void *hva, int fd,
	      uint64_t fd_offset)
{
	int err = check(ram, gpa, size, RAM_PAGE_SIZE);

	if (!err)
		append(ram, (struct ram_block){ .gpa = gpa,
						.size = size,
						.hva = hva,
						.fd = fd,
						.fd_offset = fd_offset });
	return err;
}

uint64_t ram_page_of(const struct ram *ram, uint64_t gpa)
{
	for (unsigned int i = 0; i < ram->nblocks; i++) {
		const struct ram_block *b = &ram->block[i];

		if (gpa >= b->gpa && gpa - b->gpa < b->size)
			return b->first_page + ((gpa - b->gpa) >> RAM_PAGE_SHIFT);
	}
	return RAM_NO_PAGE;
}

const struct ram_block *ram_block_of(const struct ram *ram, uint64_t page)
{
	unsigned int lo = 0, hi = ram->nblocks;
	const struct ram_block *b;

	while (hi - lo > 1) {
		unsigned int mid = (lo + hi) / 2;

		if (ram->block[mid].first_page <= page)
			lo = mid;
		else
			hi = mid;
	}
	b = &ram->block[lo];
	if (lo == hi || page - b->first_page >= b->size >> RAM_PAGE_SHIFT)
		return NULL;
	return b;
}

uint8_t *ram_at(const struct ram *ram, uint64_t page)
{
	const struct ram_block *b = ram_block_of(ram, page);

	return b ? b->hva + ((page - b->first_page) << RAM_PAGE_SHIFT) : NULL;
}

/* Where pages are, mapped and in the memfd; bytes of @n. */
struct place {
	const struct ram_block *b;
	uint8_t *at;
	off_t offset;
	size_t len;
};

/* Return: 0, -EINVAL: there are no such pages */
static int find_place(const struct ram *ram, uint64_t page, unsigned int n,
		      struct place *p)
{
	const struct ram_block *b = ram_block_of(ram, page);
	uint64_t from;

	if (!b || page - b->first_page + n > b->size >> RAM_PAGE_SHIFT)
		return -EINVAL;
	from = (page - b->first_page) << RAM_PAGE_SHIFT;
	*p = (struct place){ b, b->hva + from, (off_t)(b->fd_offset + from),
			     (size_t)n << RAM_PAGE_SHIFT };
	return 0;
}

/* It cannot, or nobody may: hugetlbfs, a seal. A failure of the memory is another thing.
 */
static bool by_mapping(int error)
{
	return error == EINVAL || error == EPERM || error == EBADF;
}

int ram_read(const struct ram *ram, uint64_t page, unsigned int n, void *to)
{
	size_t done = 0;
	struct place p;
	int err = find_place(ram, page, n, &p);

	if (err)
		return err;
	while (p.b->fd >= 0 && done < p.len) {
		ssize_t got = pread(p.b->fd, (uint8_t *)to + done, p.len - done,
				    p.offset + (off_t)done);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 && by_mapping(errno))
			break;
		if (got <= 0)
			return got ? -errno : -EIO;
		done += (size_t)got;
	}
	memcpy((uint8_t *)to + done, p.at + done, p.len - done);
	return 0;
}

int ram_write(const struct ram *ram, uint64_t page, unsigned int n, const void *from)
{
	size_t done = 0;
	struct place p;
	int err = find_place(ram, page, n, &p);

	if (err)
		return err;
	while (p.b->fd >= 0 && done < p.len) {
		ssize_t put = pwrite(p.b->fd, (const uint8_t *)from + done, p.len - done,
				     p.offset + (off_t)done);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0 && by_mapping(errno))
			break;
		if (put <= 0)
			return put ? -errno : -EIO;
		done += (size_t)put;
	}
	memcpy(p.at + done, (const uint8_t *)from + done, p.len - done);
	return 0;
}

uint64_t ram_gpa(const struct ram *ram, uint64_t page)
{
	const struct ram_block *b = ram_block_of(ram, page);

	return b ? b->gpa + ((page - b->first_page) << RAM_PAGE_SHIFT) : UINT64_MAX;
}

void ram_mark_all(const struct ram *ram, uint64_t *bitmap)
{
	for (unsigned int i = 0; i < ram->nblocks; i++)
		bitmap_set_range(bitmap, ram->block[i].first_page,
				 ram->block[i].size >> RAM_PAGE_SHIFT);
}

/*
 * Holes of hugetlb memory and of whatever else cannot say (EINVAL) count as data: the
 * kernel's default answers that all of the file is.
 */
int64_t ram_mark_next(const struct ram *ram, uint64_t page, uint64_t *bitmap)
{
	const struct ram_block *b = ram_block_of(ram, page);
	uint64_t done, first, last;
	off_t from, to, end;

	if (!b)
		return (int64_t)ram->pages;
	done = b->first_page + bitmap_words(b->size >> RAM_PAGE_SHIFT) * BITMAP_BITS;
	if (b->fd < 0) {
		bitmap_set_range(bitmap, b->first_page, b->size >> RAM_PAGE_SHIFT);
		return (int64_t)done;
	}
	from = (off_t)(b->fd_offset + ((page - b->first_page) << RAM_PAGE_SHIFT));
	end = (off_t)(b->fd_offset + b->size);
	from = lseek(b->fd, from, SEEK_DATA);
	if (from < 0)
		return errno == ENXIO ? (int64_t)done : -errno;
	if (from >= end)
		return (int64_t)done;
	to = lseek(b->fd, from, SEEK_HOLE);
	if (to < 0)
		return -errno;
	/* A hole that was filled between the two calls, at the end */
	if (to <= from)
		to = from + (off_t)RAM_PAGE_SIZE;
	if (to > end)
		to = end;
	first = (uint64_t)(from - (off_t)b->fd_offset) >> RAM_PAGE_SHIFT;
	last = ((uint64_t)(to - (off_t)b->fd_offset) + RAM_PAGE_SIZE - 1) >>
	       RAM_PAGE_SHIFT;
	bitmap_set_range(bitmap, b->first_page + first, last - first);
	return (int64_t)(to < end ? b->first_page + last : done);
}

int64_t ram_mark_populated(const struct ram *ram, uint64_t *bitmap)
{
	int64_t page = 0;

	while (page >= 0 && (uint64_t)page < ram->pages)
		page = ram_mark_next(ram, (uint64_t)page, bitmap);
	return page < 0 ? page : (int64_t)bitmap_count(bitmap, ram_words(ram));
}

uint64_t ram_guess_populated(const struct ram *ram)
{
	uint64_t bytes = 0, there;
	struct stat st;

	for (unsigned int i = 0; i < ram->nblocks; i++) {
		const struct ram_block *b = &ram->block[i];

		there = b->fd < 0 || fstat(b->fd, &st) ? b->size
						       : (uint64_t)st.st_blocks * 512;
		bytes += there < b->size ? there : b->size;
	}
	return bytes >> RAM_PAGE_SHIFT;
}
