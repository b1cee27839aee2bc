// SPDX-License-Identifier: BSD-2-Clause
/* rig: umem, pool and aggregator for tests. See rig.h. One thread. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "rig.h"
#include "../../user/lib/csum.h"

int rig_init(struct rig *r, uint32_t nchunks, const struct agg_conf *conf)
{
	int err;

	memset(r, 0, sizeof(*r));
	r->size = (size_t)nchunks * RIG_CHUNK;
	r->packet = calloc(nchunks, sizeof(*r->packet));
	if (!r->packet)
		return -ENOMEM;
	r->mem = mmap(NULL, r->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		      -1, 0);
	if (r->mem == MAP_FAILED) {
		err = -errno;
		goto free_packet;
	}
	err = mbuf_pool_init(&r->pool, r->mem, nchunks, RIG_CHUNK);
	if (err)
		goto unmap;
	err = agg_init(&r->agg, &r->pool, conf);
	if (err)
		goto fini_pool;
	r->out = (struct agg_out){ .head = r->head, .max = RIG_MAX_OUT };
	return 0;
fini_pool:
	mbuf_pool_fini(&r->pool);
unmap:
	munmap(r->mem, r->size);
free_packet:
	free(r->packet);
	return err;
}

void rig_fini(struct rig *r)
{
	agg_fini(&r->agg);
	mbuf_pool_fini(&r->pool);
	munmap(r->mem, r->size);
	free(r->packet);
}

int rig_restart(struct rig *r, const struct agg_conf *conf)
{
	agg_fini(&r->agg);
	return agg_init(&r->agg, &r->pool, conf);
}

struct mbuf *rig_packet(struct rig *r, int id, const uint8_t *frame, uint32_t len,
			const struct gn_meta *meta, uint32_t first, uint32_t rest)
{
	struct mbuf *head = NULL, *last = NULL;
	uint32_t done = 0;

	do {
		struct mbuf *m = mbuf_alloc(&r->pool);
		uint32_t room = head ? rest : first, i;

		assert(m);
		i = mbuf_index(&r->pool, m);
		if (!room || room > RIG_BUF)
			room = RIG_BUF;
		memset(m, 0xee, sizeof(*m)); /* fields are stale after mbuf_alloc() */
		m->addr = (uint64_t)i * RIG_CHUNK + RIG_HEADROOM;
		m->len = len - done < room ? len - done : room;
		m->next = MBUF_NONE;
		memcpy(mbuf_data(&r->pool, m), frame + done, m->len);
		r->packet[i] = id;
		done += m->len;
		if (!head) {
			head = m;
			m->meta = *meta;
			m->total = len;
			m->nbufs = 0;
		} else {
			last->next = i;
		}
		head->tail = i;
		head->nbufs++;
		last = m;
	} while (done < len);
	return head;
}

bool rig_in_runs;

static void push(struct rig *r, struct mbuf *m, uint64_t now_ns)
{
	struct agg_out out = { .head = r->head + r->out.n, .max = AGG_PUSH_MAX_OUT };

	/* A window of exactly what the contract asks for. */
	assert(r->out.n + AGG_PUSH_MAX_OUT <= r->out.max);
	agg_push(&r->agg, m, now_ns, &out);
	assert(out.n <= AGG_PUSH_MAX_OUT);
	r->out.n += out.n;
}

/* What XDP says of the packet of @m after that of @before: the difference if it can. */
static struct gn_next next_of(const struct gn_meta *before, const struct gn_meta *m)
{
	uint16_t step = (uint16_t)(m->ip_id - before->ip_id);

	if (!(m->flags & GN_F_TCP) || !m->key || m->key != before->key ||
	    m->seq != before->seq + before->payload_len || step > 1)
		return (struct gn_next){ .class = GN_NEXT_WHOLE };
	return (struct gn_next){ m->payload_len, m->payload_sum, m->flags, (uint8_t)step,
				 m->class };
}

void rig_push_all(struct rig *r, struct mbuf **m, uint32_t n, uint64_t now_ns)
{
	struct gn_meta rec[RIG_MAX_BURST], *before = &r->before;
	struct gn_next next[RIG_MAX_BURST];

	assert(n <= RIG_MAX_BURST);
	for (uint32_t i = 0; i < n; i++) {
		rec[i] = m[i]->meta;
		next[i] = next_of(i ? &rec[i - 1] : before, &rec[i]);
		memset(&m[i]->meta, 0xee, sizeof(m[i]->meta));
	}
	for (uint32_t i = 0, k; i < n; i += k) {
		k = agg_run(&r->agg, m + i, before, next + i, n - i);
		r->runs += k;
		assert(!k || r->agg.held <= r->agg.conf.max_held);
		if (k) {
			assert(before->seq == rec[i + k - 1].seq &&
			       before->ip_id == rec[i + k - 1].ip_id &&
			       before->payload_len == rec[i + k - 1].payload_len);
			continue;
		}
		m[i]->meta = *before = rec[i];
		push(r, m[i], now_ns);
		k = 1;
	}
}

/* Sum the payload as XDP does with GN_CONFIG_VERIFY. */
static void verify(const struct rig *r, struct mbuf *m)
{
	struct gn_meta *meta = &m->meta;
	uint32_t skip = mbuf_hdr_len(m);

	if (!(meta->flags & (GN_F_CSUM_PARTIAL | GN_F_CSUM_NONE)) && meta->payload_len &&
	    skip + meta->payload_len <= m->len &&
	    csum_equal(csum(mbuf_data(&r->pool, m) + skip, meta->payload_len),
		       meta->payload_sum))
		meta->flags |= GN_F_CSUM_GOOD;
}

void rig_push(struct rig *r, struct mbuf *m, uint64_t now_ns)
{
	/* A port that verifies has XDP leave it alone. */
	if (rig_in_runs && r->agg.conf.checksum == AGG_VERIFY &&
	    !(r->agg.later[m->meta.instance / 64] >> m->meta.instance % 64 & 1))
		verify(r, m);
	if (rig_in_runs)
		rig_push_all(r, &m, 1, now_ns);
	else
		push(r, m, now_ns);
}

void rig_flush(struct rig *r, uint64_t now_ns)
{
	assert(r->out.n < r->out.max);
	if (!agg_flush(&r->agg, now_ns, &r->out))
		assert(!"room for every chunk of the pool");
}

unsigned int rig_chain_ids(const struct rig *r, const struct mbuf *head, int *id,
			   unsigned int max)
{
	unsigned int n = 0;

	for (const struct mbuf *m = head; m; m = mbuf_next(&r->pool, m)) {
		int p = r->packet[mbuf_index(&r->pool, m)];

		if (n && id[n - 1] == p)
			continue;
		if (n == max)
			return n;
		id[n++] = p;
	}
	return n;
}

const char *rig_account(const struct rig *r)
{
	uint8_t *seen = calloc(r->pool.nchunks, 1);
	const char *bad = NULL;
	uint32_t n = 0;

	assert(seen);
	if (r->pool.nfree > r->pool.nchunks)
		bad = "more free chunks than chunks";
	for (uint32_t i = 0; !bad && i < r->pool.nfree; i++) {
		if (r->pool.free[i] >= r->pool.nchunks || seen[r->pool.free[i]]++)
			bad = "a chunk is free twice";
		n++;
	}
	for (uint32_t i = 0; !bad && i < r->out.n; i++)
		for (const struct mbuf *m = r->out.head[i]; m && !bad;
		     m = mbuf_next(&r->pool, m)) {
			if (seen[mbuf_index(&r->pool, m)]++)
				bad = "a chunk is in a chain and somewhere else";
			n++;
		}
	if (!bad && n != r->pool.nchunks)
		bad = "chunks lost";
	free(seen);
	return bad;
}
