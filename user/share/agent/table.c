// SPDX-License-Identifier: BSD-2-Clause
/* table: sorted ranges. Contract in table.h; one thread. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "table.h"

/* First entry whose key is above @key. */
static size_t above(const struct table *t, uint64_t key)
{
	size_t lo = 0, hi = t->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (t->v[mid].key <= key)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

int table_add(struct table *t, uint64_t key, uint64_t len, uint64_t value, void *object)
{
	size_t i = above(t, key);

	if (!len || key + len < key)
		return -EINVAL;
	if (i && key - t->v[i - 1].key < t->v[i - 1].len)
		return -EEXIST;
	if (i < t->n && t->v[i].key - key < len)
		return -EEXIST;
	if (t->n == t->room) {
		size_t room = t->room ? 2 * t->room : 8;
		struct table_entry *v = reallocarray(t->v, room, sizeof(*v));

		if (!v)
			return -ENOMEM;
		t->v = v;
		t->room = room;
	}
	memmove(t->v + i + 1, t->v + i, (t->n - i) * sizeof(*t->v));
	t->v[i] = (struct table_entry){ key, len, value, object };
	t->n++;
	return 0;
}

int table_del(struct table *t, uint64_t key)
{
	size_t i = above(t, key);

	if (!i || t->v[i - 1].key != key)
		return -ENOENT;
	memmove(t->v + i - 1, t->v + i, (t->n - i) * sizeof(*t->v));
	t->n--;
	return 0;
}

const struct table_entry *table_find(const struct table *t, uint64_t key, uint64_t len)
{
	size_t i = above(t, key);
	const struct table_entry *e;

	if (!i)
		return NULL;
	e = &t->v[i - 1];
	if (key - e->key > e->len || len > e->len - (key - e->key))
		return NULL;
	return e;
}

void table_fini(struct table *t)
{
	free(t->v);
	*t = (struct table){ 0 };
}
