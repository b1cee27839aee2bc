/* SPDX-License-Identifier: BSD-2-Clause */
/* text: what commands, workloads and messages of a peer are made of. No state. */
#ifndef VMM_TEXT_H
#define VMM_TEXT_H

#include <stdint.h>

/** text_clean() - replace every byte of foreign text that a terminal might act on */
char *text_clean(char *s);

/** text_size() - "512M": bytes, or with K, M, G, T. Return: 0, -EINVAL */
int text_size(const char *s, uint64_t *bytes);

#endif
