// SPDX-License-Identifier: BSD-2-Clause
/*
 * The negative control of qemu-migrate.sh: linked into a ghostnicd with
 * -Wl,--wrap=dma_log_mark_front it leaves the front end's dirty log as it is, so that
 * pages which the daemon writes while a guest migrates are lost.
 */
#include "../../user/daemon/dma_log.h"

void __wrap_dma_log_mark_front(struct dma_log *log, uint64_t gpa, uint64_t len);

void __wrap_dma_log_mark_front(struct dma_log *log, uint64_t gpa, uint64_t len)
{
	(void)log;
	(void)gpa;
	(void)len;
}
