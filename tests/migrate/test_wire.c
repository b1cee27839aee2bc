// SPDX-License-Identifier: BSD-2-Clause
/* wire and state: what is refused, and with which words. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "../../vm-migrate/ram.h"
#include "../../vm-migrate/state.h"
#include "../../vm-migrate/stream/wire.h"

static struct wire_head make(enum wire_type type, uint64_t arg, uint32_t count,
			     uint32_t len)
{
	struct wire_head h;

	wire_head_init(&h, type, arg, count);
	wire_seal(&h, 7, len, 0);
	return h;
}

static int check(struct wire_head h, const char *says)
{
	const char *why = "?";
	int err = wire_head_check(&h, 7, &why);

	if (says && !(err && strstr(why, says)))
		fail_msg("%d: %s, not: %s", err, err ? why : "fine", says);
	return err;
}

static void test_good(void **state)
{
	static const uint32_t one = 8 + RAM_PAGE_SIZE;

	assert_int_equal(check(make(WIRE_PAGES, 0, 64, 64 * one), NULL), 0);
	assert_int_equal(check(make(WIRE_PAGES, 65, 63, 63 * one), NULL), 0);
	assert_int_equal(check(make(WIRE_ZERO, 127, 1, 0), NULL), 0);
	assert_int_equal(check(make(WIRE_END, 5, 0, 0), NULL), 0);
	assert_int_equal(check(make(WIRE_STATE, 0, 0, STATE_MAX_BYTES), NULL), 0);
}

static void test_identity(void **state)
{
	struct wire_head h = make(WIRE_READY, 0, 0, 0);

	h.magic ^= 1;
	assert_int_equal(check(h, "not a migration stream"), -EBADMSG);
	h = make(WIRE_READY, 0, 0, 0);
	h.version++;
	assert_int_equal(check(h, "another version"), -EPROTONOSUPPORT);
	h = make(WIRE_READY, 0, 0, 0);
	h.arg ^= 1ULL << 40;
	assert_int_equal(check(h, "checksum"), -EBADMSG);
	h = make(WIRE_READY, 0, 0, 0);
	wire_seal(&h, 8, 0, 0);
	assert_int_equal(check(h, "missing or came twice"), -EBADMSG);
	h = make(WIRE_TYPES, 0, 0, 0);
	assert_int_equal(check(h, "unknown"), -EBADMSG);
	h = make(0, 0, 0, 0);
	assert_int_equal(check(h, "unknown"), -EBADMSG);
}

/* Every single bit of a header is covered. */
static void test_bits(void **state)
{
	for (unsigned int bit = 0; bit < sizeof(struct wire_head) * 8; bit++) {
		struct wire_head h = make(WIRE_ZERO, 0, 64, 0);

		((uint8_t *)&h)[bit / 8] ^= (uint8_t)(1U << bit % 8);
		assert_int_not_equal(check(h, NULL), 0);
	}
}

static void test_lengths(void **state)
{
	static const uint32_t one = 8 + RAM_PAGE_SIZE;

	for (unsigned int t = 1; t < WIRE_TYPES; t++)
		assert_int_equal(check(make(t, 0, 1, UINT32_MAX), "impossible length"),
				 -EBADMSG);
	check(make(WIRE_READY, 0, 0, 1), "impossible length");
	check(make(WIRE_DIGEST, 0, 0, 15), "impossible length");
	check(make(WIRE_STATE, 0, 0, STATE_MAX_BYTES + 1), "impossible length");
	check(make(WIRE_CONFIG, 0, 0, 0), "impossible length");
	check(make(WIRE_PAGES, 0, 0, one), "impossible pages");
	check(make(WIRE_PAGES, 0, 2, one), "impossible pages");
	check(make(WIRE_PAGES, 63, 2, 2 * one), "impossible pages");
	check(make(WIRE_ZERO, 0, 65, 0), "impossible pages");
	check(make(WIRE_ZERO, UINT64_MAX - 63, 1, 0), "impossible pages");
	check(make(WIRE_ZERO, 0, UINT32_MAX, 0), "impossible pages");
}

static void test_hello(void **state)
{
	struct {
		struct wire_hello h;
		struct wire_block b[2];
	} m = { { .streams = 2, .page_size = RAM_PAGE_SIZE, .nblocks = 2 },
		{ { 0, 0x1000 }, { 0x1000, 0x2000 } } };
	const char *why;

	assert_int_equal(wire_hello_check(&m.h, sizeof(m), &why), 0);
	assert_int_equal(wire_hello_check(&m.h, sizeof(m) - 1, &why), -EBADMSG);
	m.b[1].gpa = 0; /* overlap */
	assert_int_equal(wire_hello_check(&m.h, sizeof(m), &why), -EBADMSG);
	m.b[1].gpa = 0x1000;
	m.b[1].size = UINT64_MAX - 0xfff;
	assert_int_equal(wire_hello_check(&m.h, sizeof(m), &why), -EBADMSG);
	m.b[1].size = 0x1001;
	assert_int_equal(wire_hello_check(&m.h, sizeof(m), &why), -EBADMSG);
	m.b[1].size = 0x1000;
	m.h.streams = WIRE_MAX_STREAMS + 1;
	assert_int_equal(wire_hello_check(&m.h, sizeof(m), &why), -EBADMSG);
	m.h.streams = 2;
	m.h.stream = 2;
	assert_int_equal(wire_hello_check(&m.h, sizeof(m), &why), -EBADMSG);
	m.h.stream = 1; /* has no blocks */
	assert_int_equal(wire_hello_check(&m.h, sizeof(m), &why), -EBADMSG);
	m.h.stream = 0;
	m.h.page_size = 65536;
	assert_int_equal(wire_hello_check(&m.h, sizeof(m), &why), -EBADMSG);
	assert_string_equal(why, "the peer has another page size");
}

static void test_state_round(void **state)
{
	struct state_writer w;
	struct state_section s;
	const uint8_t *buf;
	size_t len;
	char blob[5000];

	memset(blob, 'x', sizeof(blob));
	state_init(&w);
	state_begin(&w, "vcpu", 3, 2);
	state_put_u32(&w, 0x12345678);
	state_put_u64(&w, UINT64_MAX);
	state_put(&w, blob, sizeof(blob));
	state_end(&w);
	state_begin(&w, "empty", 0, 1);
	state_end(&w);
	assert_int_equal(state_finish(&w), 0);
	buf = w.buf;
	len = w.len;
	assert_int_equal(state_next(&buf, &len, &s), 1);
	assert_string_equal(s.name, "vcpu");
	assert_int_equal(s.instance, 3);
	assert_int_equal(s.version, 2);
	assert_int_equal(state_get_u32(&s), 0x12345678);
	assert_true(state_get_u64(&s) == UINT64_MAX);
	assert_int_equal(state_done(&s), -EBADMSG); /* not all was read */
	state_get(&s, blob, sizeof(blob));
	assert_int_equal(state_done(&s), 0);
	assert_int_equal(state_get_u32(&s), 0); /* past the end */
	assert_int_equal(state_done(&s), -EBADMSG);
	assert_int_equal(state_next(&buf, &len, &s), 1);
	assert_string_equal(s.name, "empty");
	assert_int_equal(state_done(&s), 0);
	assert_int_equal(state_next(&buf, &len, &s), 0);
	/* Cut anywhere, it is not a state, or ends between two sections. */
	for (size_t cut = 1; cut < w.len; cut++) {
		uint8_t *copy = malloc(cut);
		int n;

		memcpy(copy, w.buf, cut);
		buf = copy;
		len = cut;
		while ((n = state_next(&buf, &len, &s)) == 1)
			;
		assert_true(n == -EBADMSG || cut == 24 + 16 + 12 + 5000);
		free(copy);
	}
	state_fini(&w);
}

static void test_state_misuse(void **state)
{
	struct state_writer w;

	state_init(&w);
	state_put_u32(&w, 1); /* outside a section */
	assert_int_equal(state_finish(&w), -EINVAL);
	state_fini(&w);
	state_begin(&w, "a-name-that-is-much-too-long", 0, 1);
	assert_int_equal(state_finish(&w), -EINVAL);
	state_fini(&w);
	state_begin(&w, "open", 0, 1);
	assert_int_equal(state_finish(&w), -EINVAL);
	state_fini(&w);
	for (int i = 0; i <= STATE_MAX_SECTIONS; i++) {
		state_begin(&w, "many", (uint32_t)i, 1);
		state_end(&w);
	}
	assert_int_equal(state_finish(&w), -E2BIG);
	state_fini(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),	     cmocka_unit_test(test_identity),
		cmocka_unit_test(test_bits),	     cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_hello),	     cmocka_unit_test(test_state_round),
		cmocka_unit_test(test_state_misuse),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
