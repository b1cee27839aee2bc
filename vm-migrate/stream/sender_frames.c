// SPDX-License-Identifier: BSD-2-Clause
/* sender_frames: see sender_frames.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "../../user/lib/bitmap.h"
#include "../fault.h"
#include "sender_frames.h"

enum { PAGES, ZERO, SAME, FALSE_CPU, FALSE_DEVICE, BYTES };

_Static_assert(FALSE_DEVICE - FALSE_CPU == DIRTY_BY_DEVICE - DIRTY_BY_CPU,
	       "false dirty pages are counted by source");

/* One writer, so no atomic addition. */
static inline void count(struct frames *f, unsigned int what, uint64_t n)
{
	atomic_store_explicit(
		&f->count[what],
		atomic_load_explicit(&f->count[what], memory_order_relaxed) + n,
		memory_order_relaxed);
}

int frames_init(struct frames *f, const struct sender_conf *conf, unsigned int stream)
{
	size_t zmax = ZSTD_compressBound(WIRE_RUN_PAGES * RAM_PAGE_SIZE);

	*f = (struct frames){ .conf = conf,
			      .chan = conf->chan[stream],
			      .seq = &conf->seq[stream] };
	pthread_mutex_init(&f->lock, NULL);
	f->buf = aligned_alloc(RAM_PAGE_SIZE, FRAMES_PAGES * RAM_PAGE_SIZE);
	f->frame = calloc(FRAMES_MAX, sizeof(*f->frame));
	f->iov = calloc(2UL * FRAMES_MAX, sizeof(*f->iov));
	if (!f->buf || !f->frame || !f->iov)
		goto no_memory;
	if (conf->zstd_level) {
		f->zcap = FRAMES_PAGES * RAM_PAGE_SIZE + zmax;
		f->zstd = ZSTD_createCCtx();
		f->zbuf = malloc(f->zcap);
		if (!f->zstd || !f->zbuf)
			goto no_memory;
	}
	return 0;
no_memory:
	frames_fini(f);
	return -ENOMEM;
}

void frames_fini(struct frames *f)
{
	if (!f->conf)
		return;
	free(f->buf);
	free(f->frame);
	free(f->iov);
	free(f->zbuf);
	ZSTD_freeCCtx(f->zstd);
	pthread_mutex_destroy(&f->lock);
	*f = (struct frames){ 0 };
}

static void put_iov(struct frames *f, const void *base, size_t len)
{
	f->iov[f->niov++] = (struct iovec){ (void *)(uintptr_t)base, len };
	f->bytes += len;
}

/* Payload of @len bytes at @data, smaller if zstd makes it so; 0: as it is. */
static int compress(struct frames *f, const uint8_t *data, size_t len, size_t *got)
{
	size_t n = ZSTD_compressCCtx(f->zstd, f->zbuf + f->zlen, f->zcap - f->zlen, data,
				     len, f->conf->zstd_level);

	if (ZSTD_isError(n))
		return -EIO;
	*got = n < len - len / 16 ? n : 0;
	return 0;
}

/* @n pages at @data whose hashes are not 0 */
static int put_pages(struct frames *f, uint64_t first, const uint8_t *data,
		     const uint64_t *hash, unsigned int n)
{
	struct frame *fr = &f->frame[f->nframes];
	size_t hashes = n * sizeof(*hash), len = n * RAM_PAGE_SIZE, z = 0;

	if (f->zstd && compress(f, data, len, &z))
		return -EIO;
	f->nframes++;
	wire_head_init(&fr->head, WIRE_PAGES, first, n);
	memcpy(fr->hash, hash, hashes);
	if (z) {
		fr->head.flags = WIRE_F_ZSTD;
		data = f->zbuf + f->zlen;
		len = z;
		f->zlen += z;
	}
	fr->head.len = (uint32_t)(hashes + len);
	fr->head.sum = wire_sum(fr->hash, hashes);
	put_iov(f, fr, sizeof(fr->head) + hashes);
	put_iov(f, data, len);
	count(f, PAGES, n);
	return 0;
}

static void put_zeros(struct frames *f, uint64_t first, unsigned int n)
{
	struct frame *fr = &f->frame[f->nframes++];

	wire_head_init(&fr->head, WIRE_ZERO, first, n);
	fr->head.sum = wire_sum(NULL, 0);
	put_iov(f, fr, sizeof(fr->head));
	count(f, ZERO, n);
}

enum verdict { KEEP, DROP, NOTE }; /* data, nothing, a note that it is zero */

static enum verdict judge(struct frames *f, uint64_t page, uint64_t hash)
{
	uint64_t known = digest_set(f->conf->digest, page, hash);

	if (known == hash) {
		count(f, SAME, 1);
		for (unsigned int by = 0; by < DIRTY_BY_COUNT; by++)
			if (f->conf->by[by] && bitmap_test(f->conf->by[by], page))
				count(f, FALSE_CPU + by, 1);
		return DROP;
	}
	f->sum += digest_mix(page, hash) - digest_mix(page, known);
	f->nonzero += (uint64_t)(hash != 0) - (uint64_t)(known != 0);
	f->sent++;
	return hash ? KEEP : NOTE;
}

/* @n pages at @data, which nobody writes: frames of those that have to be sent. */
static int put_run(struct frames *f, uint64_t first, const uint8_t *data, unsigned int n,
		   const uint64_t *hash)
{
	enum verdict v[WIRE_RUN_PAGES];
	int err = 0;

	for (unsigned int i = 0; i < n; i++)
		v[i] = judge(f, first + i, hash[i]);
	for (unsigned int i = 0, end; i < n && !err; i = end) {
		for (end = i + 1; end < n && v[end] == v[i];)
			end++;
		if (v[i] == NOTE)
			put_zeros(f, first + i, end - i);
		else if (v[i] == KEEP)
			err = put_pages(f, first + i, data + i * RAM_PAGE_SIZE, &hash[i],
					end - i);
	}
	return err;
}

int frames_add(struct frames *f, uint64_t first, uint64_t bits)
{
	int err = 0;

	while (bits && !err) {
		unsigned int i = (unsigned int)__builtin_ctzll(bits);
		uint64_t rest = ~(bits >> i);
		unsigned int n = rest ? (unsigned int)__builtin_ctzll(rest) : 64;
		uint64_t hash[WIRE_RUN_PAGES];
		uint8_t *copy = f->buf + f->pages * RAM_PAGE_SIZE;
		unsigned int niov = f->niov;
		const uint8_t *data = copy;

		if (n > 64 - i)
			n = 64 - i;
		err = ram_read(f->conf->ram, first + i, n, copy);
		if (err)
			break;
		if (FAULT(FAULT_TORN_PAGE))
			data = ram_at(f->conf->ram, first + i);
		for (unsigned int k = 0; k < n; k++)
			hash[k] = digest_page(data + k * RAM_PAGE_SIZE);
		err = put_run(f, first + i, copy, n, hash);
		if (f->niov != niov) /* else the room is free again */
			f->pages += n;
		bits &= n + i < 64 ? UINT64_MAX << (n + i) : 0;
	}
	return err;
}

int frames_flush(struct frames *f)
{
	int err = 0;

	pthread_mutex_lock(&f->lock);
	for (unsigned int i = 0; i < f->nframes; i++) {
		struct wire_head *h = &f->frame[i].head;

		wire_seal(h, (*f->seq)++, h->len, h->sum);
	}
	if (f->niov && FAULT(FAULT_LOSE_FRAME))
		*f->seq -= f->nframes;
	else
		err = chan_write(f->chan, f->iov, f->niov);
	pthread_mutex_unlock(&f->lock);
	if (!err)
		count(f, BYTES, f->bytes);
	f->nframes = f->niov = f->pages = 0;
	f->bytes = 0;
	f->zlen = 0;
	return err;
}

int frames_control(struct frames *f, enum wire_type type, uint64_t arg,
		   const void *payload, uint32_t len)
{
	struct wire_head h;
	struct iovec iov[2] = { { &h, sizeof(h) }, { (void *)(uintptr_t)payload, len } };
	int err;

	wire_head_init(&h, type, arg, 0);
	pthread_mutex_lock(&f->lock);
	wire_seal(&h, (*f->seq)++, len, wire_sum(payload, len));
	err = chan_write(f->chan, iov, 2);
	pthread_mutex_unlock(&f->lock);
	return err;
}

void frames_stats(const struct frames *f, struct sender_stats *s)
{
	uint64_t n[BYTES + 1];

	for (unsigned int i = 0; i <= BYTES; i++)
		n[i] = atomic_load_explicit(&f->count[i], memory_order_relaxed);
	s->pages += n[PAGES];
	s->zero_pages += n[ZERO];
	s->same_pages += n[SAME];
	s->false_dirty[DIRTY_BY_CPU] += n[FALSE_CPU];
	s->false_dirty[DIRTY_BY_DEVICE] += n[FALSE_DEVICE];
	s->bytes += n[BYTES];
}
