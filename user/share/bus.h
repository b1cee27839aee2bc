/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bus: the 64-bit bus address that names one byte of shared memory on every node.
 *
 * The directory (dir.h) hands out ranges of it, once, to regions; a range says nothing
 * about who owns the region, so a region may move to another node and keep its addresses.
 * On its way from a load to the byte an address changes three times:
 *
 *	importer's virtual address
 *	  -> page frame of the importer's memfd window	(struct window, window.h)
 *	  -> bus address				(import table, table.h)
 *	  -> owner's instance virtual address, memfd page (export table, table.h)
 *
 * Pages are a region's own: the smallest, of GM_PAGE_SIZE, or huge ones. What is said of
 * pages anywhere is said of those: of the memfd, of coherence, tables, messages, copies.
 *
 * Ranges are whole pages, aligned to them, at least one, at most GM_REGION_MAX; between
 * two ranges lies an unused page, so that no access that runs off a region's end reaches
 * another. Addresses below GM_BUS_MIN are never handed out: 0 is no address. Any thread.
 */
#ifndef GM_BUS_H
#define GM_BUS_H

#include <stdbool.h>
#include <stdint.h>

#define GM_PAGE_SHIFT 12 /* of the smallest pages */
#define GM_PAGE_SIZE  (1u << GM_PAGE_SHIFT)
#define GM_HUGE_SHIFT 21 /* of the others (MFD_HUGE_2MB) */
#define GM_HUGE_SIZE  (1u << GM_HUGE_SHIFT)

#define GM_BUS_MIN    (1ull << 32)
#define GM_BUS_MAX    (1ull << 56)
#define GM_REGION_MAX (1ull << 40)
#define GM_NAME_MAX   64 /* bytes of a region's or node's name, its 0 included */
#define GM_SLOT_MAX   64 /* remote nodes that hold pages of one region at a time */

/** gm_page_shift() - of pages of @size bytes. Return: 0: no region has such */
static inline unsigned int gm_page_shift(uint64_t size)
{
	return size == GM_PAGE_SIZE   ? GM_PAGE_SHIFT
	       : size == GM_HUGE_SIZE ? GM_HUGE_SHIFT
				      : 0;
}

/** gm_pages() - a limit is as many bytes as @small of the smallest pages: how many pages
 * of 1 << @shift bytes are that, but at least one? */
static inline uint32_t gm_pages(uint32_t small, unsigned int shift)
{
	uint32_t n = small >> (shift - GM_PAGE_SHIFT);

	return n ? n : 1;
}

/** gm_in_range() - does [@addr, @addr + @len) lie within [@base, @base + @size)? No sum
 * overflows, whatever the peer sent */
static inline bool gm_in_range(uint64_t addr, uint64_t len, uint64_t base, uint64_t size)
{
	return addr >= base && len <= size && addr - base <= size - len;
}

/** gm_name_ok() - 1 to 63 of [A-Za-z0-9._-], not led by '.' or '-'; safe in paths and
 * logs */
static inline bool gm_name_ok(const char *s)
{
	int n = 0;

	if (*s == '.' || *s == '-')
		return false;
	for (; s[n]; n++)
		if (n >= GM_NAME_MAX - 1 ||
		    !((s[n] >= 'a' && s[n] <= 'z') || (s[n] >= 'A' && s[n] <= 'Z') ||
		      (s[n] >= '0' && s[n] <= '9') || s[n] == '.' || s[n] == '_' ||
		      s[n] == '-'))
			return false;
	return n > 0;
}

#endif
