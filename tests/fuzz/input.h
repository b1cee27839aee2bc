/* SPDX-License-Identifier: BSD-2-Clause */
/* input: what fuzz targets make of their bytes: a script of operations; and its seeds. */
#ifndef FUZZ_INPUT_H
#define FUZZ_INPUT_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(cond)                                                                      \
	do {                                                                             \
		if (!(cond)) {                                                           \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);       \
			abort();                                                         \
		}                                                                        \
	} while (0)

/* An input, taken off from its front; zeros after its end. */
struct input {
	const uint8_t *p;
	size_t n;
};

void input_get(struct input *in, void *to, size_t len);
uint8_t input_u8(struct input *in);
uint32_t input_u32(struct input *in);
/** input_some() - @len bytes or what is left, in place. @got: how many */
const uint8_t *input_some(struct input *in, size_t len, size_t *got);

/** input_save_seed() - file @dir/@name */
void input_save_seed(const char *dir, const char *name, const void *p, size_t n);

#endif
