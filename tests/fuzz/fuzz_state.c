// SPDX-License-Identifier: BSD-2-Clause
/* Fuzz the reader of a machine's state: sections, and values out of them. */
#include <stdlib.h>
#include <string.h>

#include "../../vm-migrate/state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *buf = data, *end = data + size;
	struct state_section s;
	size_t len = size;
	uint8_t out[64];
	int n;

	while ((n = state_next(&buf, &len, &s)) == 1) {
		uint64_t sum = 0;

		if (buf + len != end || s.data < data || s.data + s.len > end ||
		    strnlen(s.name, sizeof(s.name)) == sizeof(s.name))
			abort();
		/* The instance says how it is read. */
		for (unsigned int i = 0; i < 16 && !s.err; i++)
			switch (s.instance >> (i % 16 * 2) & 3) {
			case 0: sum += state_get_u32(&s); break;
			case 1: sum += state_get_u64(&s); break;
			case 2: state_get(&s, out, sizeof(out)); break;
			default: state_get(&s, out, 1); break;
			}
		if (s.pos > s.len || (!state_done(&s) && s.pos != s.len))
			abort();
		if (sum == 0x5eed5eed5eedULL)
			break;
	}
	if (n < 0 && len > size)
		abort();
	return 0;
}
