// SPDX-License-Identifier: BSD-2-Clause
/*
 * "dma-log-*" while the guest's memory table changes: what was written is marked at the
 * address it had then, also when there is no memory at that address any more, or it is
 * another's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../user/lib/log.h"
#include "dma_rig.h"

#define PAGE	 4096U
#define DEADLINE 120 /* seconds, then the test dies */

#define CMD(c) "{\"cmd\":\"dma-log-" c "\",\"instance\":\"vm1\"}"

static bool bit(const uint8_t *map, uint64_t page)
{
	return map[page / 8] & 1U << page % 8;
}

/* Swap. Is of the pages @page[@n] each marked that @want says, and none else? The ring's
 * is, always. */
static void marks(struct dma_rig *r, const uint64_t *page, unsigned int n,
		  unsigned int want)
{
	struct ctl_fds fds;
	json_t *o = dma_ask_ok(r, CMD("swap"), &fds);
	const uint64_t used = r->rx.used / PAGE;
	size_t len = (used / 8 + PAGE) & ~(PAGE - 1UL);
	uint8_t *map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fds.fd[0], 0);

	assert_ptr_not_equal(map, MAP_FAILED);
	for (unsigned int i = 0; i < n; i++)
		if (bit(map, page[i]) != (want >> i & 1))
			fail_msg("page %#llx: marked %d", (unsigned long long)page[i],
				 bit(map, page[i]));
	assert_true(bit(map, used));
	assert_int_equal(dma_number(o, "dirty"),
			 (unsigned int)__builtin_popcount(want) + 1);
	assert_int_equal(dma_number(o, "beyond"), 0);
	memset(map, 0, len);
	munmap(map, len);
	json_decref(o);
	ctl_fds_close(&fds);
}

/* A frame for the buffer at @gpa, in memory of region @i of the guest */
static void write_at(struct dma_rig *r, uint64_t gpa, unsigned int i, uint64_t offset,
		     uint8_t fill)
{
	const struct driver_buf b = { gpa, DMA_BUF_LEN };

	assert_int_equal(driver_add(&r->rx, &b, 0, 1, 0, 1), 0);
	dma_inject(r, 0, 1000, fill);
	assert_int_equal(r->g.region[i].base[offset + 12], fill);
}

/* By another table, or region by region */
static void memory_goes(struct dma_rig *r, bool slots)
{
	const uint64_t offset = 0x3000 - GUEST_DATA % PAGE, other = 0x20000000;
	const uint64_t first = r->g.region[0].gpa + offset;
	const uint64_t third = (r->g.region[2].gpa + 2 * PAGE) & ~(PAGE - 1ULL);
	const uint64_t at3 = third - r->g.region[2].gpa;
	const uint64_t page[] = { first / PAGE, third / PAGE, (other + offset) / PAGE };
	struct ctl_fds fds;

	r->slots = slots;
	dma_connect(r, false);
	json_decref(dma_ask_ok(r, CMD("start"), &fds));
	ctl_fds_close(&fds);
	write_at(r, first, 0, offset, 1);
	write_at(r, third, 2, at3, 2);
	dma_move_first(r, DMA_NOWHERE);
	marks(r, page, 3, 3);
	write_at(r, third, 2, at3, 3);
	marks(r, page, 3, 2);
	/* It is back elsewhere, and back at its place before the swap. */
	dma_move_first(r, other);
	write_at(r, other + offset, 0, offset, 4);
	dma_move_first(r, r->g.region[0].gpa);
	marks(r, page, 3, 4);
	write_at(r, first, 0, offset, 5);
	dma_move_first(r, other);
	write_at(r, other + offset, 0, offset, 6);
	dma_move_first(r, DMA_NOWHERE);
	marks(r, page, 3, 5);
}

static void table_changes(void **state)
{
	memory_goes(*state, false);
}

static void region_goes(void **state)
{
	memory_goes(*state, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(table_changes, dma_setup, dma_teardown),
		cmocka_unit_test_setup_teardown(region_goes, dma_setup, dma_teardown),
	};

	log_set_level(LOG_LVL_ERROR);
	alarm(DEADLINE);
	return cmocka_run_group_tests_name("ctl_dma_memory", tests, NULL, NULL);
}
