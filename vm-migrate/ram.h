/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ram: a guest's memory, as blocks of guest-physical addresses that are mapped here.
 *
 * Pages (4 KiB) are numbered through all blocks, and dirty bitmaps are indexed by that
 * number. Every block starts at a multiple of 64 pages, so that no word of a bitmap
 * belongs to two blocks; the numbers in between are padding and are never set.
 *
 * The table is built by one thread and constant afterwards; then any thread may read it.
 */
#ifndef VMM_RAM_H
#define VMM_RAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RAM_PAGE_SHIFT 12
#define RAM_PAGE_SIZE  (1UL << RAM_PAGE_SHIFT)
#define RAM_MAX_BLOCKS 32
#define RAM_NO_PAGE    UINT64_MAX

struct ram_block {
	uint64_t gpa;	     /* first guest-physical address, page aligned */
	uint64_t size;	     /* bytes, a multiple of RAM_PAGE_SIZE, > 0 */
	uint64_t first_page; /* number of its first page, a multiple of 64 */
	uint8_t *hva;	     /* where it is mapped here */
	int fd;		     /* memfd behind it, -1: none. Shared with device and child */
	uint64_t fd_offset;  /* of the block in fd, bytes */
	bool owned;	     /* mapping and fd are ours to release */
};

struct ram {
	struct ram_block block[RAM_MAX_BLOCKS]; /* ascending, disjoint gpa */
	unsigned int nblocks;
	uint64_t pages; /* page numbers given out, padding included: bits of a bitmap */
	uint64_t bytes; /* sum of the sizes */
};

#define RAM_HUGE (1U << 0) /* huge pages (2 MiB); size and gpa must be multiples */

/** ram_init() - no blocks */
void ram_init(struct ram *ram);

/** ram_fini() - unmap and close what is owned */
void ram_fini(struct ram *ram);

/**
 * ram_add() - append a block of fresh, zero memory: a sealed (no resize) memfd, mapped
 * shared
 * @gpa:	at or above the end of the last block
 * @flags:	RAM_HUGE
 *
 * Return: 0; -EINVAL: alignment, order or size; -ENOSPC: RAM_MAX_BLOCKS; -ENOMEM, also:
 * not so many huge pages are free; or the -errno of memfd_create(), ftruncate() or mmap()
 */
int ram_add(struct ram *ram, uint64_t gpa, uint64_t size, unsigned int flags);

/**
 * ram_adopt() - append a block that the caller has mapped and keeps
 * @fd:		memfd behind it, -1: unknown (holes are then not found cheaply)
 *
 * Return: as ram_add()
 */
int ram_adopt(struct ram *ram, uint64_t gpa, uint64_t size, void *hva, int fd,
	      uint64_t fd_offset);

/** ram_page_of() - number of the page that holds @gpa, RAM_NO_PAGE: not RAM */
uint64_t ram_page_of(const struct ram *ram, uint64_t gpa);

/** ram_block_of() - block of page number @page, NULL: padding or beyond */
const struct ram_block *ram_block_of(const struct ram *ram, uint64_t page);

/** ram_at() - where page @page is mapped, NULL: padding or beyond */
uint8_t *ram_at(const struct ram *ram, uint64_t page);

/**
 * ram_read(), ram_write() - copy @n pages, @page and what follows in its block
 *
 * Through the memfd where there is one that can: the pages need not be mapped here, so
 * none of them takes a page fault, and a hole that is read stays one. hugetlbfs cannot
 * write; then, and without a memfd, through the mapping.
 *
 * Return: 0; -EINVAL: there are no such pages; -errno of pread() or pwrite()
 */
int ram_read(const struct ram *ram, uint64_t page, unsigned int n, void *to);
int ram_write(const struct ram *ram, uint64_t page, unsigned int n, const void *from);

/** ram_gpa() - guest-physical address of page @page, which must exist */
uint64_t ram_gpa(const struct ram *ram, uint64_t page);

/** ram_words() - 64-bit words of a bitmap over @ram */
static inline size_t ram_words(const struct ram *ram)
{
	return ram->pages / 64;
}

/**
 * ram_mark_all() - set the bit of every page that exists, none of the padding
 */
void ram_mark_all(const struct ram *ram, uint64_t *bitmap);

/**
 * ram_mark_populated() - set the bit of every page that may hold something
 *
 * Asks the memfd for its holes (SEEK_DATA, SEEK_HOLE: lseek(2)); costs time for what is
 * populated only. A block without a memfd counts as populated. A page in a hole reads as
 * zeros at the time of the call; who writes it later must be in a dirty log.
 *
 * Return: pages marked, or -errno of lseek()
 */
int64_t ram_mark_populated(const struct ram *ram, uint64_t *bitmap);

/**
 * ram_mark_next() - a part of ram_mark_populated(): what comes next
 * @page:	all before it is marked; 0 or what the last call returned
 *
 * Goes on to the end of the next data, or of the block, so that each step takes two system
 * calls at most. Return: all before this page is marked, ram->pages at the end; -errno
 */
int64_t ram_mark_next(const struct ram *ram, uint64_t page, uint64_t *bitmap);

/** ram_guess_populated() - pages that the files of the memory say they have, at about no
 * cost: for a display */
uint64_t ram_guess_populated(const struct ram *ram);

#endif
