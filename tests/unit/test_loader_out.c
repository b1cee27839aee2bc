// SPDX-License-Identifier: BSD-2-Clause
/*
 * out: errors, notes and results as JSON, of text that is none: one line, which parses, and
 * never says that what failed is well.
 */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../loader/out.h"

static FILE *printed;
static int real_stdout;

/* From here on to said() standard output goes to a file. */
static void listen(void)
{
	fflush(stdout);
	printed = tmpfile();
	assert_non_null(printed);
	real_stdout = dup(STDOUT_FILENO);
	assert_return_code(dup2(fileno(printed), STDOUT_FILENO), 0);
	out_init(true);
}

static json_t *said(void)
{
	json_t *o;

	fflush(stdout);
	assert_return_code(dup2(real_stdout, STDOUT_FILENO), 0);
	close(real_stdout);
	rewind(printed);
	o = json_loadf(printed, 0, NULL);
	assert_non_null(o);
	fclose(printed);
	return o;
}

static const char *text(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	assert_non_null(s);
	return s;
}

static void test_error(void **state)
{
	static const char *const pair[][2] = {
		{ "plain", "plain" },
		{ "gr\xc3\xbc\xc3\x9f, \xe2\x82\xac, \xf0\x9f\x90\xa7",
		  "gr\xc3\xbc\xc3\x9f, \xe2\x82\xac, \xf0\x9f\x90\xa7" },
		{ "a\xff\xc3.z", "a??.z" },
		{ "\xed\xa0\x80", "???" },	  /* half of a surrogate pair */
		{ "\xc0\xaf.\xe2\x82", "??.??" }, /* longer than need be; cut */
	};
	char cut[1100];
	json_t *o;

	for (size_t i = 0; i < sizeof(pair) / sizeof(pair[0]); i++) {
		listen();
		out_error("%s", pair[i][0]);
		o = said();
		assert_true(json_is_false(json_object_get(o, "ok")));
		assert_string_equal(text(o, "error"), pair[i][1]);
		json_decref(o);
	}
	/* Cut within a character. */
	for (size_t i = 0; i + 2 < sizeof(cut); i += 2)
		memcpy(cut + i, "\xc3\xbc", 3);
	listen();
	out_error("%s", cut);
	o = said();
	assert_true(json_is_false(json_object_get(o, "ok")));
	assert_memory_equal(text(o, "error"), cut, 1022);
	assert_string_equal(text(o, "error") + 1022, "?");
	json_decref(o);
}

static void test_note(void **state)
{
	json_t *o;

	listen();
	out_note("no %s", "\xfe");
	out_json(json_pack("{s:i}", "n", 1));
	o = said();
	assert_true(json_is_true(json_object_get(o, "ok")));
	assert_string_equal(
		json_string_value(json_array_get(json_object_get(o, "notes"), 0)),
		"no ?");
	json_decref(o);
}

/* What json_pack() gives for a name that is not UTF-8. */
static void test_no_result(void **state)
{
	json_t *o;

	listen();
	out_json(json_pack("{s:s}", "name", "\xff"));
	o = said();
	assert_true(json_is_false(json_object_get(o, "ok")));
	assert_non_null(strstr(text(o, "error"), "no JSON"));
	json_decref(o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_error),
		cmocka_unit_test(test_note),
		cmocka_unit_test(test_no_result),
	};

	return cmocka_run_group_tests_name("loader_out", tests, NULL, NULL);
}
