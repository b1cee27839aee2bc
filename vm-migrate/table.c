// SPDX-License-Identifier: BSD-2-Clause
/* table: see table.h. */
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "ram.h"
#include "table.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* 5.14 */
#endif

void *table_alloc(size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size);

	if (p)
		table_ready(p, n * size);
	return p;
}

void table_ready(void *at, size_t bytes)
{
	uintptr_t from = (uintptr_t)at & ~(RAM_PAGE_SIZE - 1);
	uintptr_t to = ((uintptr_t)at + bytes + RAM_PAGE_SIZE - 1) & ~(RAM_PAGE_SIZE - 1);

	/* Beyond its ends is what malloc() has there: ready or not is the same for it. */
	if (to - from > RAM_PAGE_SIZE)
		madvise((void *)from, to - from, MADV_POPULATE_WRITE);
}
