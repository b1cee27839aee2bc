// SPDX-License-Identifier: BSD-2-Clause
/* mbuf: control fields of umem chunks. Contract in mbuf.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mbuf.h"

int mbuf_pool_init(struct mbuf_pool *p, void *base, uint32_t nchunks, uint32_t chunk_size)
{
	struct mbuf *mbufs;
	uint32_t *stack, *where;

	if (!nchunks || !chunk_size || (chunk_size & (chunk_size - 1)))
		return -EINVAL;
	mbufs = aligned_alloc(64, (size_t)nchunks * sizeof(*mbufs));
	stack = calloc(nchunks, sizeof(*stack));
	where = calloc(nchunks, sizeof(*where));
	if (!mbufs || !stack || !where) {
		free(mbufs);
		free(stack);
		free(where);
		return -ENOMEM;
	}
	memset(mbufs, 0, (size_t)nchunks * sizeof(*mbufs));
	/* Lowest chunk on top: a small working set stays at the umem's start. */
	for (uint32_t i = 0; i < nchunks; i++)
		stack[i] = where[i] = nchunks - 1 - i;
	*p = (struct mbuf_pool){
		.mbufs = mbufs,
		.base = base,
		.chunk_shift = (uint32_t)__builtin_ctz(chunk_size),
		.nchunks = nchunks,
		.nfree = nchunks,
		.free = stack,
		.where = where,
	};
	return 0;
}

void mbuf_pool_fini(struct mbuf_pool *p)
{
	free(p->mbufs);
	free(p->free);
	free(p->where);
	*p = (struct mbuf_pool){ 0 };
}

void mbuf_free_chain(struct mbuf_pool *p, const struct mbuf *head)
{
	for (const struct mbuf *m = head, *next; m; m = next) {
		next = mbuf_next(p, m);
		mbuf_free(p, m);
	}
}

unsigned int mbuf_iov(const struct mbuf_pool *p, const struct mbuf *head,
		      struct iovec *iov, unsigned int max)
{
	unsigned int n = 0;

	for (const struct mbuf *m = head; m; m = mbuf_next(p, m)) {
		if (n == max)
			return 0;
		iov[n++] = (struct iovec){ mbuf_data(p, m), m->len };
	}
	return n;
}

void mbuf_pop_vlan(const struct mbuf_pool *p, struct mbuf *head)
{
	uint8_t *d = mbuf_data(p, head);

	/* Addresses move up over the tag; everything behind it stays in place. */
	memmove(d + 4, d, 12);
	head->addr += 4;
	head->len -= 4;
	head->total -= 4;
	head->flags |= MBUF_POPPED;
	if (head->meta.l4_len) {
		head->meta.l3_off -= 4;
		head->meta.l4_off -= 4;
	}
}
