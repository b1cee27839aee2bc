/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * table: the two address translations of a node, each a sorted array of ranges.
 *
 *	import	page frame of a window's memfd -> bus address	(fault -> request)
 *	export	bus address -> region here, its instance's address (request -> memory)
 *
 * Lookups are binary searches; a frame range or a bus range is in a table once. One
 * thread.
 */
#ifndef GM_TABLE_H
#define GM_TABLE_H

#include <stddef.h>
#include <stdint.h>

struct table_entry {
	uint64_t key;	/* first frame (import) or bus address (export) */
	uint64_t len;	/* in the key's unit */
	uint64_t value; /* what the first one translates to */
	void *object;	/* region that it belongs to */
};

struct table {
	struct table_entry *v;
	size_t n, room;
};

/** table_add() - Return: 0, -EEXIST: overlaps, -EINVAL: empty or wraps, -ENOMEM */
int table_add(struct table *t, uint64_t key, uint64_t len, uint64_t value, void *object);

/** table_del() - forget the range that starts at @key. Return: 0, -ENOENT */
int table_del(struct table *t, uint64_t key);

/** table_find() - entry that holds all of [@key, @key + @len); NULL: none */
const struct table_entry *table_find(const struct table *t, uint64_t key, uint64_t len);

void table_fini(struct table *t);

#endif
