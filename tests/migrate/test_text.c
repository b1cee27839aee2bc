// SPDX-License-Identifier: BSD-2-Clause
/* text: sizes, and what a terminal must not see. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../../vm-migrate/text.h"

static void test_size(void **state)
{
	static const struct {
		const char *s;
		uint64_t bytes;
	} good[] = {
		{ "0", 0 },
		{ "17", 17 },
		{ "4k", 4096 },
		{ "512M", 512ULL << 20 },
		{ "3G", 3ULL << 30 },
		{ "1t", 1ULL << 40 },
		{ "16777215T", 16777215ULL << 40 },
		{ "18446744073709551615", UINT64_MAX },
	};
	static const char *const bad[] = {
		"",
		" 1",
		"-1",
		"+1",
		"0x10",
		"1 ",
		"1KB",
		"1.5G",
		"K",
		"1%",
		"1@",
		"16777216T",
		"18446744073709551616",
	};
	uint64_t v;

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_int_equal(text_size(good[i].s, &v), 0);
		assert_true(v == good[i].bytes);
	}
	v = 77;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(text_size(bad[i], &v), -EINVAL);
	assert_int_equal(v, 77);
}

static void test_clean(void **state)
{
	char s[] = "a\x1b[31m\n\x7f\xc3\xa4 ~";

	assert_string_equal(text_clean(s), "a?[31m???? ~");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_size),
		cmocka_unit_test(test_clean),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
