/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * table: arrays with an entry for each page of RAM, or each 64. No state, any thread.
 *
 * A page that is touched takes a fault, one that is made ready with others in one call does
 * not, and where the hypervisor shadows page tables a fault is dear. The bitmaps of 64 GiB
 * have 512 pages each, and a migration waits for every one of them.
 */
#ifndef VMM_TABLE_H
#define VMM_TABLE_H

#include <stddef.h>

/** table_alloc() - @n zeroed entries of @size bytes, made ready. NULL: no memory; free()
 */
void *table_alloc(size_t n, size_t size);

/**
 * table_ready() - make the pages of [@at, @at + @bytes) ready, which are writable
 *
 * Contents stay, whoever writes them meanwhile. Where the kernel cannot (before 5.14) or
 * has no memory, whoever touches the pages first waits for them, as ever.
 */
void table_ready(void *at, size_t bytes);

#endif
