// SPDX-License-Identifier: BSD-2-Clause
/*
 * Fuzz the receive path behind the ring: frames and metadata, as a hostile sender
 * or a broken XDP program could leave them, through rx_check(), agg_push(),
 * gso_finish() and gso_segment().
 *
 * Input: one byte of configuration, then records of an operation byte each
 * (see run()). Memory of the umem outside the frames is poisoned, so a sanitizer sees a
 * read one byte beyond a buffer. Checked besides: chains are consistent, and every
 * chunk is free exactly once in the end.
 */
#include <assert.h>
#include <sanitizer/asan_interface.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "../../user/daemon/gso.h"
#include "../../user/daemon/rx.h"
#include "../unit/rig.h"
#include "../unit/stream.h"

#define CHUNKS	  256
#define MAX_BUFS  17  /* of one frame */
#define FIRST_MIN 576 /* the kernel fills the first buffer before it adds one */

/* Not assert(): also checked where NDEBUG is set. */
#define MUST(x)                                                                          \
	do {                                                                             \
		if (!(x))                                                                \
			abort();                                                         \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
	const uint8_t *p;
	size_t left;
};

static struct rig rig;
static uint64_t now;
static bool pop_vlan;

static unsigned int byte(struct input *in)
{
	if (!in->left)
		return 0;
	in->left--;
	return *in->p++;
}

struct waste {
	struct gso_sink sink;
	uint8_t *buf; /* of the last frame only */
	unsigned int n;
};

/* Each frame in an allocation of its own size: a sanitizer knows its end. */
static void *waste_get(struct gso_sink *s, uint32_t len)
{
	struct waste *w = (struct waste *)s; /* first member */

	free(w->buf);
	w->buf = malloc(len);
	MUST(w->buf);
	return ++w->n > 70000 ? NULL : w->buf;
}

static uint8_t *chunk(const struct mbuf *m)
{
	return rig.mem + (size_t)mbuf_index(&rig.pool, m) * RIG_CHUNK;
}

static void deliver_one(struct mbuf *head)
{
	struct waste w = { .sink.get = waste_get };
	struct iovec iov[AGG_MAX_BUFS];
	struct gso_frame f;
	uint32_t bytes = 0, bufs = 0;
	struct mbuf *m, *next;
	int n;

	for (m = head; m; m = mbuf_next(&rig.pool, m)) {
		bytes += m->len;
		bufs++;
		MUST(bufs <= AGG_MAX_BUFS);
		MUST(m->next != MBUF_NONE || mbuf_index(&rig.pool, m) == head->tail);
	}
	MUST(bytes == head->total && bufs == head->nbufs && head->nsegs >= 1);
	if (pop_vlan)
		mbuf_pop_vlan(&rig.pool, head);
	gso_finish(&rig.pool, head, &f.vh);
	MUST((head->nsegs > 1) == (f.vh.gso_type != VIRTIO_NET_HDR_GSO_NONE));
	MUST(head->nsegs == 1 || f.vh.gso_size);
	f.niov = mbuf_iov(&rig.pool, head, iov, AGG_MAX_BUFS);
	MUST(f.niov == bufs);
	f.iov = iov;
	f.len = head->total;
	n = gso_segment(&f, 1 << 17, 0, &w.sink);
	MUST(n < 0 || (unsigned int)n == w.n);
	free(w.buf);
	for (m = head; m; m = next) {
		next = mbuf_next(&rig.pool, m);
		ASAN_POISON_MEMORY_REGION(chunk(m), RIG_CHUNK);
		mbuf_free(&rig.pool, m);
	}
}

static void deliver(void)
{
	uint32_t n = rig.out.n;

	rig.out.n = 0;
	for (uint32_t i = 0; i < n; i++)
		deliver_one(rig.head[i]);
}

/* As rx.c does it: into buffers, checked, pushed. */
static void packet(const uint8_t *frame, uint32_t len, const struct gn_meta *meta,
		   uint32_t first, uint32_t rest)
{
	struct mbuf *m;
	uint32_t nfree;

	if (rig.pool.nfree < MAX_BUFS) {
		rig_flush(&rig, UINT64_MAX);
		deliver();
	}
	if (len > (MAX_BUFS - 1) * rest + first)
		len = (MAX_BUFS - 1) * rest + first;
	if (!len)
		return;
	for (uint32_t i = 1; i <= MAX_BUFS; i++)
		ASAN_UNPOISON_MEMORY_REGION(
			chunk(&rig.pool.mbufs[rig.pool.free[rig.pool.nfree - i]]),
			RIG_CHUNK);
	nfree = rig.pool.nfree;
	m = rig_packet(&rig, 0, frame, len, meta, first, rest);
	for (uint32_t i = 1; i <= MAX_BUFS; i++) {
		/* The ones just taken lie behind the stack's top still. */
		struct mbuf *k = &rig.pool.mbufs[rig.pool.free[nfree - i]];

		ASAN_POISON_MEMORY_REGION(chunk(k), RIG_CHUNK);
		if (nfree - i >= rig.pool.nfree)
			ASAN_UNPOISON_MEMORY_REGION(mbuf_data(&rig.pool, k), k->len);
	}
	if (!rx_check(&m->meta, m->total) || mbuf_hdr_len(m) > m->len || m->len < 18) {
		mbuf_free_chain(&rig.pool, m);
		return;
	}
	rig_push(&rig, m, now);
	deliver();
}

/* Change some bytes of the metadata. */
static void patch(struct input *in, struct gn_meta *meta, unsigned int n)
{
	while (n--) {
		unsigned int at = byte(in) % sizeof(*meta);

		((uint8_t *)meta)[at] ^= (uint8_t)byte(in);
	}
}

/*
 * Operation byte, low two bits:
 *	0, 1	a frame: length (2 bytes, little-endian, modulo 16 KiB), with bit 5 sizes
 *		of its buffers (2 bytes); with bit 2 metadata (32 bytes), else pkt_meta()'s
 *		with as many bytes patched as bits 3 and 4 say; the frame's bytes
 *	2	a stream: its number (2 bytes); each packet's metadata patched likewise
 *	3	end of a burst: time that passes (1 byte, 100 ns)
 */
static void run(struct input *in)
{
	static struct stream st;
	static uint8_t frame[1 << 14];
	unsigned int op = byte(in), patches = op >> 3 & 3;
	uint32_t len, first = RIG_BUF, rest = RIG_BUF;
	struct gn_meta meta;

	switch (op & 3) {
	case 3:
		rig_flush(&rig, now);
		deliver();
		now += byte(in) * 100;
		return;
	case 2:
		len = byte(in);
		len |= byte(in) << 8;
		stream_make(&st, len);
		for (int i = 0; i < st.n; i++) {
			meta = st.pkt[i].meta;
			patch(in, &meta, patches);
			packet(st.pkt[i].frame, st.pkt[i].len, &meta, RIG_BUF, RIG_BUF);
		}
		return;
	default: break;
	}
	len = byte(in);
	len |= (byte(in) & 63) << 8;
	if (op & 32) {
		first = FIRST_MIN + byte(in);
		rest = 1 + byte(in);
	}
	memset(&meta, 0, sizeof(meta));
	if (op & 4) {
		size_t n = in->left < sizeof(meta) ? in->left : sizeof(meta);

		memcpy(&meta, in->p, n);
		in->p += n;
		in->left -= n;
	}
	memset(frame, 0xab, len); /* what the input lacks */
	if (in->left)
		memcpy(frame, in->p, len < in->left ? len : in->left);
	len = len > in->left + 64 ? (uint32_t)in->left + 64 : len;
	in->p += len < in->left ? len : in->left;
	in->left -= len < in->left ? len : in->left;
	if (!(op & 4)) {
		pkt_meta(frame, len, 5, STREAM_GSO, &meta);
		patch(in, &meta, patches);
	}
	packet(frame, len, &meta, first, rest);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	unsigned int b = byte(&in);
	struct agg_conf conf = {
		.checksum = b & 1 ? AGG_CARRY : AGG_VERIFY,
		.trust_partial = b & 2,
		.hold_ns = b & 4 ? 1000 : 0,
		.max_held = b >> 4 ? b >> 4 : CHUNKS / 2,
	};

	pop_vlan = b & 8;
	now = 0;
	if (!rig.mem)
		MUST(!rig_init(&rig, CHUNKS, &conf));
	else
		MUST(!rig_restart(&rig, &conf));
	while (in.left)
		run(&in);
	rig_flush(&rig, UINT64_MAX);
	deliver();
	MUST(rig.pool.nfree == CHUNKS && !rig.agg.held && !rig_account(&rig));
	MUST(agg_deadline(&rig.agg) == UINT64_MAX);
	ASAN_UNPOISON_MEMORY_REGION(rig.mem, rig.size);
	return 0;
}
