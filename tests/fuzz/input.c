// SPDX-License-Identifier: BSD-2-Clause
/* input: see input.h. */
#include <stdio.h>
#include <string.h>

#include "input.h"

void input_get(struct input *in, void *to, size_t len)
{
	size_t n = len < in->n ? len : in->n;

	memset(to, 0, len);
	memcpy(to, in->p, n);
	in->p += n;
	in->n -= n;
}

uint8_t input_u8(struct input *in)
{
	uint8_t v;

	input_get(in, &v, sizeof(v));
	return v;
}

uint32_t input_u32(struct input *in)
{
	uint32_t v;

	input_get(in, &v, sizeof(v));
	return v;
}

const uint8_t *input_some(struct input *in, size_t len, size_t *got)
{
	const uint8_t *p = in->p;

	*got = len < in->n ? len : in->n;
	in->p += *got;
	in->n -= *got;
	return p;
}

void input_save_seed(const char *dir, const char *name, const void *p, size_t n)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "wb");
	CHECK(f && fwrite(p, 1, n, f) == n && !fclose(f));
}
