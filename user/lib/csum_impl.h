/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The variants behind csum() and csum_copy(); csum.c chooses. A caller has
 * checked that the CPU runs the variant. Contracts as in csum.h; any thread.
 */
#ifndef GN_CSUM_IMPL_H
#define GN_CSUM_IMPL_H

#include <stddef.h>
#include <stdint.h>

uint16_t csum_scalar(const void *p, size_t len);
uint16_t csum_copy_scalar(void *dst, const void *src, size_t len);

/* x86-64 only */
uint16_t csum_avx2(const void *p, size_t len);
uint16_t csum_copy_avx2(void *dst, const void *src, size_t len);
uint16_t csum_avx512(const void *p, size_t len);
uint16_t csum_copy_avx512(void *dst, const void *src, size_t len);

#endif
