// SPDX-License-Identifier: BSD-2-Clause
/* table: every answer equals that of a slow search, over random ranges. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

#include "../../user/share/agent/table.h"

#define SPACE 4096

static struct table_entry *owner[SPACE]; /* entry that holds each key */
static struct table_entry all[SPACE];	 /* by first key */

static int slow_add(uint64_t key, uint64_t len)
{
	for (uint64_t i = key; i < key + len; i++)
		if (owner[i])
			return -EEXIST;
	all[key] = (struct table_entry){ key, len, key * 3, &all[key] };
	for (uint64_t i = key; i < key + len; i++)
		owner[i] = &all[key];
	return 0;
}

static void slow_del(uint64_t key)
{
	for (uint64_t i = key, end = key + all[key].len; i < end; i++)
		owner[i] = NULL;
}

static void test_random(void **state)
{
	struct table t = { 0 };

	srandom(1);
	for (int i = 0; i < 20000; i++) {
		uint64_t key = (uint64_t)random() % (SPACE - 40),
			 len = 1 + (uint64_t)random() % 39;
		const struct table_entry *e;

		switch (random() % 3) {
		case 0:
			assert_int_equal(table_add(&t, key, len, key * 3, &all[key]),
					 slow_add(key, len));
			break;
		case 1:
			if (owner[key] && owner[key]->key == key) {
				assert_int_equal(table_del(&t, key), 0);
				slow_del(key);
			} else {
				assert_int_equal(table_del(&t, key), -ENOENT);
			}
			break;
		default:
			e = table_find(&t, key, len);
			if (owner[key] &&
			    owner[key]->key + owner[key]->len >= key + len) {
				assert_non_null(e);
				assert_int_equal(e->key, owner[key]->key);
				assert_int_equal(e->value, owner[key]->value);
				assert_ptr_equal(e->object, owner[key]->object);
			} else {
				assert_null(e);
			}
		}
	}
	table_fini(&t);
	assert_null(table_find(&t, 1, 1));
}

static void test_edges(void **state)
{
	struct table t = { 0 };

	assert_int_equal(table_add(&t, 5, 0, 0, NULL), -EINVAL);
	assert_int_equal(table_add(&t, UINT64_MAX - 3, 8, 0, NULL), -EINVAL);
	assert_int_equal(table_add(&t, UINT64_MAX - 8, 8, 7, NULL), 0);
	assert_non_null(table_find(&t, UINT64_MAX - 1, 1));
	assert_null(table_find(&t, UINT64_MAX - 1, 2));
	assert_null(table_find(&t, UINT64_MAX - 1, UINT64_MAX));
	assert_null(table_find(&t, UINT64_MAX, 1));
	assert_null(table_find(&t, 0, 1));
	table_fini(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_edges),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
