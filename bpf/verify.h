/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Sum a segment's payload, as a NIC with receive checksum offload does.
 *
 * The one place where payload is read. It is read here and not by the daemon because this
 * CPU has it: it is about to copy the frame into the umem, or the device has just
 * brought it near. From another CPU each line costs a transfer, and another one
 * when the buffer is written again.
 */
#ifndef GN_VERIFY_H
#define GN_VERIFY_H

#include "maps.h"
#include "parse.h"

#define VERIFY_MAX 4096 /* bytes of payload: a frame in one page has no more */

/* Add @n bytes, a constant, at @p while they are there. bpf_csum_diff() takes up to 512.
 */
#define VERIFY_STEP(n)                                                                   \
	if (left & (n) && p + (n) <= end) {                                              \
		sum = bpf_csum_diff(NULL, 0, p, n, sum);                                 \
		p += (n);                                                                \
	}

/*
 * Is the one's complement sum of the payload of the frame that @m describes what its
 * header claims? Global, so that the verifier takes it once (ident_key()).
 *
 * Return: 0 also when the payload is not all in the linear part
 */
__attribute__((noinline)) int payload_good(struct xdp_md *ctx, const struct gn_meta *m)
{
	void *p = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 left, claimed, s;
	__s64 sum = 0;

	if (!m)
		return 0;
	left = m->payload_len;
	claimed = m->payload_sum;
	p += m->l4_off + m->l4_len;
	if (left > VERIFY_MAX || p + left > end)
		return 0;
	for (int i = 0; i < VERIFY_MAX / 512 && left >= 512; i++) {
		if (p + 512 > end)
			return 0;
		sum = bpf_csum_diff(NULL, 0, p, 512, sum);
		p += 512;
		left -= 512;
	}
	VERIFY_STEP(256)
	VERIFY_STEP(128)
	VERIFY_STEP(64)
	VERIFY_STEP(32)
	VERIFY_STEP(16)
	VERIFY_STEP(8)
	VERIFY_STEP(4)
	s = (__u32)sum;
	s = (s & 0xffff) + (s >> 16);
	if (left & 2 && p + 2 <= end) {
		s += LOAD16(p);
		p += 2;
	}
	if (left & 1 && p + 1 <= end) /* padded with a zero byte behind it */
		s += bpf_htons(LOAD8(p) << 8);
	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	/* 0 and 0xffff are the same number. */
	return s == claimed || ((s ^ claimed) == 0xffff && (!s || !claimed));
}

#endif
