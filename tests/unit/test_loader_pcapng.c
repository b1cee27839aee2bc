// SPDX-License-Identifier: BSD-2-Clause
/*
 * pcapng: every block of a file, read back by the format's own rules: types, lengths at
 * both ends, padding, options. (The network test has tcpdump read whole captures.)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../loader/pcapng.h"

static uint32_t get32(const char *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static uint16_t get16(const char *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

/* An option of a block whose options begin at @off. Return: its value or NULL */
static const char *option(const char *block, uint32_t off, uint16_t code, uint16_t *len)
{
	while (off + 8 <= get32(block + 4)) {
		uint16_t c = get16(block + off), n = get16(block + off + 2);

		if (c == code) {
			*len = n;
			return block + off + 4;
		}
		if (!c)
			return NULL;
		off += 4 + (n + 3U) / 4 * 4;
	}
	return NULL;
}

static void writes_blocks(void **state)
{
	static const uint32_t type[] = { 0x0a0d0d0a, 1, 6, 6, 6, 6, 5 };
	const struct iovec iov[] = { { (void *)"abc", 3 }, { (void *)"defg", 4 } };
	const char *block[7], *p, *v;
	uint16_t len;
	char *file;
	size_t size;
	FILE *f = open_memstream(&file, &size);

	assert_non_null(f);
	assert_int_equal(pcapng_begin(f, "vm1", "about", 1000), 0);
	/* Each remainder of padding. */
	for (unsigned int n = 0; n < 4; n++) {
		const struct iovec part = { (void *)"abcdefg", 4 + n };
		const struct pcapng_packet pkt = {
			.time_ns = 0x1122334455667788 + n,
			.iov = n == 3 ? iov : &part,
			.niov = n == 3 ? 2 : 1,
			.len = 4 + n,
			.wire_len = 1500,
			.out = n & 1,
		};

		assert_int_equal(pcapng_packet(f, &pkt), 0);
	}
	assert_int_equal(pcapng_end(f, 99, 4, 3), 0);
	fclose(f);

	p = file;
	for (unsigned int i = 0; i < 7; i++) {
		uint32_t n = get32(p + 4);

		assert_true(p + n <= file + size);
		assert_int_equal(get32(p), type[i]);
		assert_int_equal(n % 4, 0);
		assert_int_equal(get32(p + n - 4), n);
		block[i] = p;
		p += n;
	}
	assert_ptr_equal(p, file + size);
	assert_int_equal(get32(block[0] + 8), 0x1a2b3c4d);
	assert_int_equal(get16(block[0] + 12), 1);
	assert_int_equal(get16(block[1] + 8), 1); /* Ethernet */
	assert_int_equal(get32(block[1] + 12), 1000);
	v = option(block[1], 16, 2, &len);
	assert_true(v && len == 3 && !memcmp(v, "vm1", 3));
	v = option(block[1], 16, 9, &len);
	assert_true(v && len == 1 && *v == 9);
	for (unsigned int n = 0; n < 4; n++) {
		const char *b = block[2 + n];

		assert_int_equal(get32(b + 8), 0);
		assert_int_equal(get32(b + 12), 0x11223344);
		assert_int_equal(get32(b + 16), 0x55667788 + n);
		assert_int_equal(get32(b + 20), 4 + n);
		assert_int_equal(get32(b + 24), 1500);
		assert_memory_equal(b + 28, "abcdefg", 4 + n);
		v = option(b, 28 + (4 + n + 3) / 4 * 4, 2, &len);
		assert_true(v && len == 4 && get32(v) == (n & 1 ? 2 : 1));
	}
	v = option(block[6], 20, 4, &len);
	assert_true(v && len == 8 && get32(v) == 7);
	v = option(block[6], 20, 5, &len);
	assert_true(v && len == 8 && get32(v) == 3);
	free(file);
}

static void says_when_the_disk_is_full(void **state)
{
	const struct iovec iov = { (void *)"x", 1 };
	const struct pcapng_packet pkt = { .iov = &iov, .niov = 1, .len = 1 };
	FILE *f = fopen("/dev/full", "w");

	assert_non_null(f);
	setvbuf(f, NULL, _IONBF, 0);
	assert_int_not_equal(pcapng_begin(f, "vm1", "", 0), 0);
	assert_int_not_equal(pcapng_packet(f, &pkt), 0);
	assert_int_not_equal(pcapng_end(f, 0, 0, 0), 0);
	fclose(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(writes_blocks),
		cmocka_unit_test(says_when_the_disk_is_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
