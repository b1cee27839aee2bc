// SPDX-License-Identifier: BSD-2-Clause
/*
 * Fuzz the daemon's side of a shared-memory port: each byte of the input is something
 * that the daemon does, or that a client does, honest or not, which may write anything
 * anywhere in the memory they share. Whatever it writes, a buffer comes back once, what
 * is not out never does, and the accounts agree.
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "../../user/daemon/shm_ring.h"

#define HOLD   160
#define SLOTS  40
#define TX     131072
#define TOKENS 512

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct in {
	const uint8_t *p;
	size_t left;
};

static uint32_t take(struct in *in, unsigned int n)
{
	uint32_t v = 0;

	while (n-- && in->left) {
		v = v << 8 | *in->p++;
		in->left--;
	}
	return v;
}

static void must(bool ok)
{
	if (!ok)
		abort();
}

struct world {
	struct shm_ring r;
	struct gn_shm_queue l;
	uint8_t *mem;
	uint8_t nbufs[TOKENS]; /* of what is out */
	uint32_t held;
	uint32_t ret, tx; /* an honest client's positions */
};

static void back(struct world *w, const uint32_t *token, int n)
{
	for (int i = 0; i < n; i++) {
		must(token[i] < TOKENS && w->nbufs[token[i]]);
		w->held -= w->nbufs[token[i]];
		w->nbufs[token[i]] = 0;
	}
	must(w->r.held == w->held);
}

static void lend(struct world *w, uint32_t n)
{
	uint32_t token = 0;

	while (token < TOKENS && w->nbufs[token])
		token++;
	n = n % GN_SHM_MAX_SEGS + 1;
	if (token == TOKENS || !shm_ring_put(&w->r, token, n))
		return;
	for (uint32_t i = 0; i < n; i++)
		shm_ring_seg(&w->r, i, i);
	w->nbufs[token] = (uint8_t)n;
	w->held += n;
	must(w->held <= HOLD);
}

static void step(struct world *w, struct in *in)
{
	static uint8_t buf[GN_SHM_MAX_FRAME];
	uint32_t *rets = (void *)(w->mem + w->l.rets_off), token[16], v;
	const struct gn_shm_pkt *pkts = (void *)(w->mem + w->l.pkts_off);
	struct iovec iov = { buf, sizeof(buf) };
	struct virtio_net_hdr_v1 vh;
	int n;

	switch (take(in, 1) % 12) {
	case 0: lend(w, take(in, 1)); break;
	case 1: shm_ring_copy(&w->r, &iov, 1, take(in, 3)); break;
	case 2: shm_ring_publish(&w->r); break;
	case 3:
		n = shm_ring_reclaim(&w->r, token, take(in, 1) % 16 + 1);
		must((n < 0) == !!w->r.broken || n > 0);
		back(w, token, n);
		break;
	case 4:
		n = shm_ring_fetch(&w->r, &vh, buf);
		must(n <= GN_SHM_MAX_FRAME);
		break;
	case 5: shm_ring_sleep(&w->r, take(in, 1)); break;
	case 6: /* gives back what it got */
		v = take(in, 1);
		rets[w->ret++ % w->l.ring_size] = pkts[v % w->l.ring_size].id;
		w->r.ctl->ret_prod = w->ret;
		break;
	case 7: /* sends a frame */
		v = take(in, 2);
		memcpy(w->mem + w->l.tx_off + w->tx % TX, &v, sizeof(v));
		w->tx += 16 + (v + 15) / 16 * 16;
		w->r.ctl->tx_prod = w->tx;
		break;
	case 8: w->r.ctl->ret_prod = take(in, 4); break;
	case 9: w->r.ctl->tx_prod = take(in, 4); break;
	case 10: rets[take(in, 1) % w->l.ring_size] = take(in, 4); break;
	case 11:
		v = take(in, 3);
		w->mem[v % w->l.map_size] = (uint8_t)take(in, 1);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct shm_ring_conf conf = { HOLD, SLOTS, TX };
	struct world w = { .held = 0 };
	struct in in = { data, size };
	uint32_t token[16];
	unsigned int n;

	must(!shm_ring_layout(&conf, &w.l));
	/* calloc(): exactly the memory that is shared, so that a sanitizer sees beyond.
	 */
	w.mem = calloc(1, w.l.map_size);
	if (!w.mem || shm_ring_init(&w.r, w.mem, &w.l, &conf))
		abort();
	while (in.left)
		step(&w, &in);
	while ((n = shm_ring_drain(&w.r, token, 16)))
		back(&w, token, (int)n);
	must(!w.held && !w.r.nout && w.r.nfree_slot == SLOTS &&
	     w.r.nfree_id == w.l.ring_size);
	shm_ring_fini(&w.r);
	free(w.mem);
	return 0;
}
