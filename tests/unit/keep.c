// SPDX-License-Identifier: BSD-2-Clause
/*
 * keep: see keep.h. Any thread.
 */
#include <stdlib.h>
#include <string.h>

#include "keep.h"
#include "pkt.h"

static void *keep_get(struct gso_sink *s, uint32_t len)
{
	struct keep *k = (struct keep *)s;
	uint8_t *p;

	if (k->n == k->max)
		return NULL;
	p = malloc(len);
	if (!p)
		abort();
	memset(p, 0xa5, len);
	k->frame[k->n].data = p;
	k->frame[k->n++].len = len;
	return p;
}

void keep_init(struct keep *k, unsigned int max)
{
	memset(k, 0, sizeof(*k));
	k->sink.get = keep_get;
	k->max = max < KEEP_MAX ? max : KEEP_MAX;
}

void keep_fini(struct keep *k)
{
	for (unsigned int i = 0; i < k->n; i++)
		free(k->frame[i].data);
	k->n = 0;
}

void keep_fill(uint8_t *p, uint32_t len, uint32_t seed)
{
	uint64_t s = seed * 2654435761ULL + 1;

	for (uint32_t i = 0; i < len; i++)
		p[i] = (uint8_t)pkt_rand(&s);
}

const uint8_t *keep_l4(const uint8_t *f, const uint8_t **ip, uint8_t *proto)
{
	const uint8_t *p = f + 12;

	while (pkt_get16(p) == 0x8100 || pkt_get16(p) == 0x88a8)
		p += 4;
	p += 2;
	*ip = p;
	if (p[0] >> 4 == 4) {
		*proto = p[9];
		return p + (p[0] & 15) * 4;
	}
	*proto = p[6];
	p += 40;
	while (*proto == 0 || *proto == 43 || *proto == 60) {
		*proto = p[0];
		p += (p[1] + 1) * 8;
	}
	return p;
}

bool keep_good(const uint8_t *f, uint32_t len)
{
	const uint8_t *ip, *l4, *end = f + len;
	uint32_t l4_bytes;
	uint8_t proto;

	l4 = keep_l4(f, &ip, &proto);
	l4_bytes = (uint32_t)(end - l4);
	if (ip[0] >> 4 == 4) {
		if (pkt_get16(ip + 2) != end - ip ||
		    pkt_sum(ip, (uint32_t)(l4 - ip)) != 0xffff)
			return false;
	} else if (pkt_get16(ip + 4) != end - ip - 40) {
		return false;
	}
	if (proto == 17 && (pkt_get16(l4 + 4) != l4_bytes || !pkt_get16(l4 + 6)))
		return false;
	return pkt_fold((uint64_t)pkt_pseudo(ip, proto, l4_bytes) +
			pkt_sum(l4, l4_bytes)) == 0xffff;
}
