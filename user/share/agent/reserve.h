/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * reserve: memory made ready before pages come. To allocate and clear a page, and to map
 * it in the alias, takes longer than to receive its bytes; a thread of its own does it
 * ahead.
 *
 * A page that is ready is a page of zeros in the memfd, in no window: a fault is MINOR
 * instead of MISSING, and waits for the agent all the same.
 *
 * One thread a process, started when it is first needed. All calls: the agent's thread.
 */
#ifndef GM_RESERVE_H
#define GM_RESERVE_H

#include <stddef.h>
#include <stdint.h>

/** reserve_limit() - bytes that reserve_first() may use in all; default 256 MiB */
void reserve_limit(uint64_t bytes);

/** reserve_first() - make ready the beginning of a new mapping of @len bytes, as far as
 * the limit allows. Return: bytes of the limit that are used by it */
uint64_t reserve_first(uint8_t *at, uint64_t len);

/** reserve_ahead() - make ready @len bytes at @at, of a mapping that begins at @map.
 * Dropped when too much waits already */
void reserve_ahead(const uint8_t *map, uint8_t *at, uint64_t len);

/** reserve_end() - the mapping at @map is touched no more when this returns; @used as of
 * reserve_first() is free again */
void reserve_end(const uint8_t *map, uint64_t used);

#endif
