// SPDX-License-Identifier: BSD-2-Clause
/*
 * Fuzz the receiving side of a migration: HELLO and CONFIG, then a whole receiver, over a
 * real socket.
 *
 * The input is bytes of the stream as they are (first byte even), or a script of frames
 * that are sealed properly, so that what comes after the checksums is reached: type,
 * flags, page number, count, what to spoil, length of the payload, payload.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zstd.h>

#include "../../user/lib/log.h"
#include "../../vm-migrate/stream/receiver.h"

#define MAX_STREAM (160U << 10) /* bytes; fits the socket's buffer */
#define MAX_FRAMES 24

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct ram ram;
static uint8_t *stream;
static size_t stream_len;
static uint32_t seq;

static void put(const void *p, size_t n)
{
	if (stream_len + n > MAX_STREAM)
		return;
	memcpy(stream + stream_len, p, n);
	stream_len += n;
}

/* The payload of PAGES, right in itself: @seed makes the contents. */
static uint32_t pages(uint8_t *buf, uint32_t count, uint8_t seed, bool zstd)
{
	static uint8_t raw[8 * RAM_PAGE_SIZE];
	uint32_t hashes = count * 8, len = count * (uint32_t)RAM_PAGE_SIZE;

	memset(raw, seed, len);
	for (uint32_t i = 0; i < count; i++) {
		uint64_t h;

		raw[i * RAM_PAGE_SIZE] = (uint8_t)(seed + i);
		h = digest_page(raw + i * RAM_PAGE_SIZE);
		memcpy(buf + i * 8, &h, 8);
	}
	if (!zstd) {
		memcpy(buf + hashes, raw, len);
		return hashes + len;
	}
	return hashes + (uint32_t)ZSTD_compress(buf + hashes, len, raw, len, 1);
}

/* Return: bytes of the script used, 0: its end */
static size_t frame(const uint8_t *p, size_t size)
{
	static uint8_t buf[9 * (RAM_PAGE_SIZE + 8)];
	struct wire_head h;
	uint32_t count, len;
	uint64_t sum;
	size_t used;

	if (size < 7)
		return 0;
	used = 7 + (p[6] < size - 7 ? p[6] : size - 7);
	count = p[4] % 9;
	wire_head_init(&h, p[0] % (WIRE_TYPES + 1), (uint64_t)p[2] | (uint64_t)p[3] << 8,
		       count);
	h.flags = p[1];
	if (h.type == WIRE_PAGES && count && !(p[5] & 1)) {
		len = pages(buf, count, p[2], p[1] & WIRE_F_ZSTD);
		sum = wire_sum(buf, count * 8);
	} else {
		len = (uint32_t)(used - 7);
		memcpy(buf, p + 7, len);
		sum = wire_sum(buf, len);
	}
	if (p[5] & 2)
		buf[len / 2] ^= 1;
	if (p[5] & 4)
		sum++;
	wire_seal(&h, seq++, len, sum);
	if (p[5] & 8)
		h.seq++;
	put(&h, sizeof(h));
	put(buf, len);
	return used;
}

static int control(void *arg, const struct wire_head *h, const void *payload)
{
	volatile uint8_t sink = 0;

	for (uint32_t i = 0; i < h->len; i++)
		sink ^= ((const uint8_t *)payload)[i];
	(void)sink;
	return h->type == WIRE_HANDOVER;
}

static int synced(void *arg, uint64_t n)
{
	return 0;
}

/* What was received is what the digest says. */
static void check(const struct digest *d, const struct receiver *r)
{
	uint64_t nonzero, n, sum = receiver_digest(r, &n);

	if (sum != digest_sum(d, &nonzero) || n != nonzero)
		abort();
}

static void receive(struct chan *c)
{
	struct digest d;
	struct receiver *r;
	struct receiver_conf conf = {
		.ram = &ram,
		.digest = &d,
		.chan = &c,
		.seq = &(uint32_t){ 1 },
		.streams = 1,
		.control = control,
		.synced = synced,
	};
	int err;

	if (digest_init(&d, ram.pages) || receiver_create(&conf, &r))
		abort();
	err = receiver_run(r);
	if (err > 0 || (err && !receiver_error(r)[0]))
		abort();
	check(&d, r);
	if (!err && digest_compare(&d, &ram, NULL, 0, 1))
		abort();
	receiver_destroy(r);
	digest_fini(&d);
}

static void init(void)
{
	log_set_level(LOG_LVL_ERROR);
	stream = malloc(MAX_STREAM);
	ram_init(&ram);
	if (!stream || ram_add(&ram, 0, 10 * RAM_PAGE_SIZE, 0) ||
	    ram_add(&ram, 0x100000, 70 * RAM_PAGE_SIZE, 0))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int pair[2], sndbuf = 2 * MAX_STREAM;
	struct wire_head h;
	void *payload = NULL;
	const char *why;
	struct chan *c;
	char uri[32];

	if (!stream)
		init();
	if (!size)
		return 0;
	for (unsigned int i = 0; i < ram.nblocks; i++)
		madvise(ram.block[i].hva, ram.block[i].size, MADV_REMOVE);
	stream_len = 0;
	seq = 0;
	if (data[0] & 1) {
		size_t n = 1;

		for (unsigned int i = 0; i < MAX_FRAMES && n < size; i++) {
			size_t used = frame(data + n, size - n);

			if (!used)
				break;
			n += used;
		}
	} else {
		put(data + 1, size - 1);
	}

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		abort();
	setsockopt(pair[1], SOL_SOCKET, SO_SNDBUFFORCE, &sndbuf, sizeof(sndbuf));
	if (send(pair[1], stream, stream_len, MSG_DONTWAIT) != (ssize_t)stream_len &&
	    stream_len < 64 << 10)
		abort();
	shutdown(pair[1], SHUT_WR);
	snprintf(uri, sizeof(uri), "fd:%d", pair[0]);
	if (chan_connect(uri, NULL, 100, NULL, &c))
		abort();
	close(pair[0]);
	if (!receiver_head(c, 0, ~WIRE_BIT(WIRE_PAGES), &h, &payload, &why)) {
		if (h.type == WIRE_HELLO)
			wire_hello_check(payload, h.len, &why);
		receive(c);
	} else if (!why) {
		abort();
	}
	free(payload);
	chan_close(c);
	close(pair[1]);
	return 0;
}
