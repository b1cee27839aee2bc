// SPDX-License-Identifier: BSD-2-Clause
/*
 * shm_ring: shared memory with a client that is not believed. Contract in shm_ring.h.
 *
 * Ids. An id is an index into out[] plus a generation above it, which grows when the
 * packet comes back: giving one back twice, or one that was never out, is recognised
 * until the generation wraps. If it does wrap the client gave back a packet of its own
 * too early, and it is the only one to read a chunk that is used again.
 *
 * Positions that the client has read up to are not asked for: packets out, and buffers
 * out, are never more than a ring has entries, and what the client has not read is out.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shm_ring.h"

#define TX_ALIGN 16U
#define NO_SLOT	 UINT32_MAX

_Static_assert(sizeof(struct gn_shm_tx) == TX_ALIGN, "a header never wraps");

static uint64_t line_up(uint64_t n)
{
	return (n + GN_SHM_CACHE_LINE - 1) / GN_SHM_CACHE_LINE * GN_SHM_CACHE_LINE;
}

int shm_ring_layout(const struct shm_ring_conf *c, struct gn_shm_queue *out)
{
	uint64_t need = (uint64_t)c->hold + c->nslots, size = 1, off;

	if (!need || need > SHM_MAX_RING || c->tx_size & (c->tx_size - 1) ||
	    (c->tx_size && c->tx_size < GN_SHM_MAX_FRAME + 2 * TX_ALIGN))
		return -EINVAL;
	while (size < need)
		size *= 2;
	memset(out, 0, sizeof(*out));
	out->ring_size = (uint32_t)size;
	off = sizeof(struct gn_shm_ctl);
	out->pkts_off = off;
	off = line_up(off + size * sizeof(struct gn_shm_pkt));
	out->segs_off = off;
	off = line_up(off + size * sizeof(struct gn_shm_seg));
	out->rets_off = off;
	off = line_up(off + size * sizeof(uint32_t));
	out->tx_off = off;
	out->tx_size = c->tx_size;
	off = line_up(off + c->tx_size);
	out->data_off = off;
	out->data_size = c->nslots * SHM_SLOT_SIZE;
	out->map_size = off + out->data_size;
	return 0;
}

int shm_ring_init(struct shm_ring *r, void *mem, const struct gn_shm_queue *l,
		  const struct shm_ring_conf *c)
{
	uint8_t *p = mem;

	*r = (struct shm_ring){
		.ctl = mem,
		.pkts = (void *)(p + l->pkts_off),
		.segs = (void *)(p + l->segs_off),
		.rets = (void *)(p + l->rets_off),
		.data = p + l->data_off,
		.tx = p + l->tx_off,
		.tx_size = l->tx_size,
		.mask = l->ring_size - 1,
		.hold = c->hold,
		.nfree_id = l->ring_size,
		.nfree_slot = c->nslots,
		.out = calloc(l->ring_size, sizeof(*r->out)),
		.free_id = calloc(l->ring_size, sizeof(*r->free_id)),
		.slot_next = calloc(c->nslots + 1, sizeof(*r->slot_next)),
		.free_slot = calloc(c->nslots + 1, sizeof(*r->free_slot)),
	};
	if (!r->out || !r->free_id || !r->slot_next || !r->free_slot) {
		shm_ring_fini(r);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < l->ring_size; i++) {
		r->out[i].id = i;
		r->free_id[i] = l->ring_size - 1 - i;
	}
	for (uint32_t i = 0; i < c->nslots; i++)
		r->free_slot[i] = c->nslots - 1 - i;
	return 0;
}

void shm_ring_fini(struct shm_ring *r)
{
	free(r->out);
	free(r->free_id);
	free(r->slot_next);
	free(r->free_slot);
	*r = (struct shm_ring){ 0 };
}

static int broken(struct shm_ring *r, const char *why)
{
	r->broken = why;
	return -EPROTO;
}

/* ---- to the client ------------------------------------------------------------ */

/* Ids never run out before buffers and slots do: each packet has at least one. */
static struct gn_shm_pkt *enter(struct shm_ring *r, uint32_t token, unsigned int nsegs,
				bool copied)
{
	struct shm_out *o = &r->out[r->free_id[--r->nfree_id]];
	struct gn_shm_pkt *pkt = &r->pkts[r->rx_prod++ & r->mask];

	o->token = token;
	o->nsegs = (uint8_t)nsegs;
	o->copied = copied;
	r->nout++;
	pkt->id = o->id;
	pkt->nsegs = (uint8_t)nsegs;
	pkt->flags = copied ? GN_SHM_PKT_DATA : 0;
	return pkt;
}

struct gn_shm_pkt *shm_ring_put(struct shm_ring *r, uint32_t token, unsigned int nsegs)
{
	if (nsegs > r->hold - r->held || r->broken)
		return NULL;
	r->held += nsegs;
	return enter(r, token, nsegs, false);
}

/* Copy @len bytes of @iov into slots, one segment each. Return: the first slot */
static uint32_t fill_slots(struct shm_ring *r, const struct iovec *iov, uint32_t len)
{
	uint32_t first = NO_SLOT, last = NO_SLOT;
	size_t off = 0; /* in *iov */

	while (len) {
		uint32_t slot = r->free_slot[--r->nfree_slot], done = 0;
		uint32_t room = len < SHM_SLOT_SIZE ? len : SHM_SLOT_SIZE;
		uint8_t *dst = r->data + (size_t)slot * SHM_SLOT_SIZE;

		while (done < room) {
			size_t n = iov->iov_len - off;

			if (!n) {
				iov++;
				off = 0;
				continue;
			}
			if (n > room - done)
				n = room - done;
			memcpy(dst + done, (const uint8_t *)iov->iov_base + off, n);
			off += n;
			done += (uint32_t)n;
		}
		shm_ring_seg(r, slot * SHM_SLOT_SIZE, room);
		len -= room;
		r->slot_next[slot] = NO_SLOT;
		if (last == NO_SLOT)
			first = slot;
		else
			r->slot_next[last] = slot;
		last = slot;
	}
	return first;
}

struct gn_shm_pkt *shm_ring_copy(struct shm_ring *r, const struct iovec *iov,
				 unsigned int niov, uint32_t len)
{
	uint32_t nslots = len / SHM_SLOT_SIZE + !!(len % SHM_SLOT_SIZE);
	struct gn_shm_pkt *pkt;
	size_t have = 0;

	for (unsigned int i = 0; i < niov && have < len; i++)
		have += iov[i].iov_len;
	if (!len || have < len || nslots > r->nfree_slot || nslots > GN_SHM_MAX_SEGS ||
	    r->broken)
		return NULL;
	pkt = enter(r, fill_slots(r, iov, len), nslots, true);
	pkt->len = len;
	return pkt;
}

bool shm_ring_publish(struct shm_ring *r)
{
	/* Release pairs with the client's acquire of rx_prod: entries are complete. */
	__atomic_store_n(&r->ctl->rx_prod, r->rx_prod, __ATOMIC_RELEASE);
	/* Full barrier pairs with the one between the client's client_sleeps = 1 and its
	 * last look at rx_prod: one of the two sees the other. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!__atomic_load_n(&r->ctl->client_sleeps, __ATOMIC_RELAXED))
		return false;
	__atomic_store_n(&r->ctl->client_sleeps, 0, __ATOMIC_RELAXED);
	return true;
}

void shm_ring_lose(struct shm_ring *r, uint64_t n)
{
	r->lost += n;
	__atomic_store_n(&r->ctl->lost, r->lost, __ATOMIC_RELAXED);
}

/* ---- from the client ------------------------------------------------------------ */

/* Packet @o is back. Return: it had buffers of the caller's */
static bool leave(struct shm_ring *r, struct shm_out *o)
{
	if (o->copied)
		for (uint32_t s = o->token; s != NO_SLOT; s = r->slot_next[s])
			r->free_slot[r->nfree_slot++] = s;
	else
		r->held -= o->nsegs;
	r->free_id[r->nfree_id++] = o->id & r->mask;
	o->id += r->mask + 1;
	o->nsegs = 0;
	r->nout--;
	return !o->copied;
}

int shm_ring_reclaim(struct shm_ring *r, uint32_t *token, unsigned int max)
{
	unsigned int n = 0;
	uint32_t left;

	if (r->broken)
		return -EPROTO;
	/* Acquire pairs with the client's release: the ids are there, and its last reads
	 * of the packets are done. */
	left = __atomic_load_n(&r->ctl->ret_prod, __ATOMIC_ACQUIRE) - r->ret_cons;
	if (left > r->nout)
		return broken(r, "more packets given back than are out");
	for (; left && n < max; left--) {
		uint32_t id = __atomic_load_n(&r->rets[r->ret_cons & r->mask],
					      __ATOMIC_RELAXED);
		struct shm_out *o = &r->out[id & r->mask];

		if (!o->nsegs || o->id != id)
			return n ? (int)n
				 : broken(r, "a packet given back that is not out");
		r->ret_cons++;
		r->returned++;
		if (leave(r, o))
			token[n++] = o->token;
	}
	return (int)n;
}

unsigned int shm_ring_drain(struct shm_ring *r, uint32_t *token, unsigned int max)
{
	unsigned int n = 0;

	for (uint32_t i = 0; r->nout && i <= r->mask && n < max; i++)
		if (r->out[i].nsegs && leave(r, &r->out[i]))
			token[n++] = r->out[i].token;
	return n;
}

/* @n bytes of tx from position @pos on. */
static void tx_read(const struct shm_ring *r, uint32_t pos, void *dst, uint32_t n)
{
	uint32_t at = pos & (r->tx_size - 1), part = r->tx_size - at;

	if (part > n)
		part = n;
	memcpy(dst, r->tx + at, part);
	memcpy((uint8_t *)dst + part, r->tx, n - part);
}

int shm_ring_fetch(struct shm_ring *r, struct virtio_net_hdr_v1 *vh, uint8_t *buf)
{
	struct gn_shm_tx h;
	uint32_t have, size;

	if (r->broken)
		return -EPROTO;
	if (!r->tx_size)
		return 0;
	/* Acquire pairs with the client's release: the bytes are there. */
	have = __atomic_load_n(&r->ctl->tx_prod, __ATOMIC_ACQUIRE) - r->tx_cons;
	if (!have)
		return 0;
	if (have > r->tx_size || have % TX_ALIGN)
		return broken(r, "impossible position in tx");
	tx_read(r, r->tx_cons, &h, sizeof(h));
	/* The copy is what is checked and used, never the original again. */
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	if (!h.len || h.len > GN_SHM_MAX_FRAME)
		return broken(r, "a frame of impossible length in tx");
	size = sizeof(h) + (h.len + TX_ALIGN - 1) / TX_ALIGN * TX_ALIGN;
	if (size > have)
		return broken(r, "a frame longer than what is in tx");
	tx_read(r, r->tx_cons + (uint32_t)sizeof(h), buf, h.len);
	*vh = h.vh;
	r->tx_cons += size;
	/* Release pairs with the client's acquire: it writes there after we have read. */
	__atomic_store_n(&r->ctl->tx_cons, r->tx_cons, __ATOMIC_RELEASE);
	return (int)h.len;
}

void shm_ring_sleep(struct shm_ring *r, uint32_t wake)
{
	__atomic_fetch_or(&r->ctl->daemon_sleeps, wake, __ATOMIC_RELAXED);
	/* Full barrier pairs with the one between the client's write of tx_prod or
	 * ret_prod and its look at daemon_sleeps. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}
