/* SPDX-License-Identifier: BSD-2-Clause */
/* dir_json: how a region stands in a directory; all directories write it alike. */
#ifndef GM_DIR_JSON_H
#define GM_DIR_JSON_H

#include <jansson.h>

#include "dir.h"

/** dir_align() - the first address from @bus on at which @r can begin */
static inline uint64_t dir_align(uint64_t bus, const struct dir_region *r)
{
	uint64_t page = 1ull << r->page_shift;

	return (bus + page - 1) & ~(page - 1);
}

/** dir_json_pack() - @r without its name. Return: owned by the caller; NULL: no memory */
json_t *dir_json_pack(const struct dir_region *r);

/** dir_json_unpack() - check and read. Return: 0, -EBADMSG: @out is untouched */
int dir_json_unpack(const char *name, json_t *v, struct dir_region *out);

#endif
