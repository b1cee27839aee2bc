// SPDX-License-Identifier: BSD-2-Clause
/*
 * Fuzz gso_segment() and gso_accept(): a hostile instance's virtio-net header and frame.
 *
 * Input: struct control, struct virtio_net_hdr_v1, frame. The frame is cut into
 * buffers of exactly their size. What comes out is judged by code that shares nothing
 * with the segmenter: no frame beyond the limit, valid lengths and checksums, the
 * same payload, the same bytes where nothing was asked for. A frame that may go to another
 * instance whole has a header that holds, and stands for the same frames of the wire.
 *
 * Under libFuzzer, `fuzz_segment --seeds DIR` writes the seeds.
 */
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../unit/keep.h"
#include "../unit/pkt.h"

#define MAX_IOV 8

#define CHECK(cond)                                                                      \
	do {                                                                             \
		if (!(cond)) {                                                           \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);       \
			abort();                                                         \
		}                                                                        \
	} while (0)

struct control {
	uint8_t split[MAX_IOV]; /* each buffer's size, in 1/256 of what is left; 0: empty
				 */
	uint16_t vlan;		/* host byte order, as are the others */
	uint16_t mtu_frame;
	uint16_t room; /* frames the sink takes, modulo KEEP_MAX + 1 */
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* Return: buffers; the last one takes what the others left */
static unsigned int split(const struct control *c, const uint8_t *frame, uint32_t len,
			  struct iovec *iov)
{
	unsigned int n;

	for (n = 0; n < MAX_IOV; n++) {
		uint32_t part = n == MAX_IOV - 1 ? len : len * c->split[n] / 256;

		iov[n].iov_len = part;
		iov[n].iov_base = part ? malloc(part) : NULL;
		if (!part)
			continue;
		if (!iov[n].iov_base)
			abort();
		memcpy(iov[n].iov_base, frame, part);
		frame += part;
		len -= part;
	}
	return n;
}

/* Bytes in front of the payload of a well-formed TCP or UDP frame. */
static uint32_t header_bytes(const uint8_t *f)
{
	const uint8_t *ip, *l4;
	uint8_t proto;

	l4 = keep_l4(f, &ip, &proto);
	return (uint32_t)(l4 - f) + (proto == 17 ? 8 : (l4[12] >> 4) * 4u);
}

/* All of @k but, if the sink ran dry, the frames that are missing at the end. */
static void check_gso(const struct gso_frame *f, const uint8_t *frame,
		      const struct keep *k, uint32_t tag, bool whole)
{
	uint32_t gso_size = le16toh(f->vh.gso_size), at;

	if (!k->n)
		return;
	at = header_bytes(frame);
	for (unsigned int i = 0; i < k->n; i++) {
		const uint8_t *seg = k->frame[i].data;
		uint32_t hdr, len;

		CHECK(keep_good(seg, k->frame[i].len));
		hdr = header_bytes(seg);
		len = k->frame[i].len - hdr;
		CHECK(hdr == header_bytes(frame) + tag);
		CHECK(len <= gso_size);
		CHECK(at + len <= f->len);
		CHECK(at + len == f->len || len == gso_size);
		CHECK(!memcmp(seg + hdr, frame + at, len));
		at += len;
	}
	CHECK(!whole || at == f->len);
}

static void check_lone(const struct gso_frame *f, const uint8_t *frame,
		       const struct keep *k, uint32_t tag)
{
	uint32_t start = le16toh(f->vh.csum_start);
	uint32_t field = start + le16toh(f->vh.csum_offset), seed;
	const uint8_t *out = k->frame[0].data + tag;

	CHECK(k->n == 1 && k->frame[0].len == f->len + tag);
	CHECK(!memcmp(k->frame[0].data, frame, 12));
	if (!(f->vh.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)) {
		CHECK(!memcmp(out + 12, frame + 12, f->len - 12));
		return;
	}
	CHECK(start >= 14 && field + 2 <= f->len);
	CHECK(!memcmp(out + 12, frame + 12, field - 12));
	CHECK(!memcmp(out + field + 2, frame + field + 2, f->len - field - 2));
	/* The sum of all with the new field and the seed that it replaced is all ones.
	 * At an odd offset the field is no word of the sum, and there is no such rule. */
	if ((field - start) & 1)
		return;
	seed = pkt_get16(frame + field);
	CHECK(pkt_fold((uint64_t)seed + pkt_sum(out + start, f->len - start)) == 0xffff);
}

/* A header as another instance gets it: each field means something, or is 0. */
static void check_header(const struct gso_frame *f, const uint8_t *frame)
{
	uint32_t start = le16toh(f->vh.csum_start), size = le16toh(f->vh.gso_size);
	uint32_t offset = le16toh(f->vh.csum_offset), hdr = le16toh(f->vh.hdr_len), at;

	CHECK(!(f->vh.flags & ~VIRTIO_NET_HDR_F_NEEDS_CSUM));
	CHECK(le16toh(f->vh.num_buffers) == 1);
	if (f->vh.flags)
		CHECK(start >= 14 && start + offset + 2 <= f->len);
	else
		CHECK(!start && !offset);
	if (!f->vh.gso_type) {
		CHECK(!size && !hdr);
		return;
	}
	at = header_bytes(frame);
	CHECK(hdr == at && at < f->len && size && size < f->len - at);
	CHECK(!f->vh.flags || (start < hdr && start + offset + 2 <= hdr));
}

/* @k, @ret: what gso_segment() made of the frame as it came */
static void check_accepted(const struct gso_frame *came, const uint8_t *frame,
			   const struct control *c, const struct keep *k, int ret)
{
	struct gso_frame f = *came;
	bool checked = f.vh.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM || !f.vh.gso_type;
	struct keep again;

	if (gso_accept(&f)) {
		CHECK(ret == -EINVAL && !memcmp(&f.vh, &came->vh, sizeof(f.vh)));
		return;
	}
	/* A checksum that is there was not looked at, nor is a frame without requests. */
	CHECK(ret != -EINVAL || !checked || (!f.vh.flags && f.len < 14));
	check_header(&f, frame);
	if (ret == -EINVAL)
		return;
	keep_init(&again, k->max);
	CHECK(gso_segment(&f, c->mtu_frame, c->vlan, &again.sink) == ret);
	CHECK(again.n == k->n);
	for (unsigned int i = 0; i < k->n; i++)
		CHECK(again.frame[i].len == k->frame[i].len);
	keep_fini(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct gso_frame f = { 0 };
	struct iovec iov[MAX_IOV];
	struct control c;
	const uint8_t *frame;
	struct keep k;
	uint32_t tag;
	int ret;

	if (size < sizeof(c) + sizeof(f.vh) || size > PKT_MAX)
		return 0;
	memcpy(&c, data, sizeof(c));
	memcpy(&f.vh, data + sizeof(c), sizeof(f.vh));
	frame = data + sizeof(c) + sizeof(f.vh);
	f.len = (uint32_t)(size - sizeof(c) - sizeof(f.vh));
	f.niov = split(&c, frame, f.len, iov);
	f.iov = iov;
	tag = c.vlan ? 4 : 0;

	keep_init(&k, c.room % (KEEP_MAX + 1));
	ret = gso_segment(&f, c.mtu_frame, c.vlan, &k.sink);
	CHECK(ret > 0 || ret == -EINVAL || ret == -EMSGSIZE || ret == -ENOBUFS);
	CHECK(ret <= 0 || k.n == (unsigned int)ret);
	CHECK(ret != -ENOBUFS || k.n == k.max);
	CHECK((ret != -EINVAL && ret != -EMSGSIZE) || !k.n);
	for (unsigned int i = 0; i < k.n; i++) {
		CHECK(k.frame[i].len <= c.mtu_frame);
		CHECK(!tag || pkt_get32(k.frame[i].data + 12) == (0x81000000u | c.vlan));
	}
	if (f.vh.gso_type != VIRTIO_NET_HDR_GSO_NONE)
		check_gso(&f, frame, &k, tag, ret > 0);
	else if (ret > 0)
		check_lone(&f, frame, &k, tag);
	check_accepted(&f, frame, &c, &k, ret);

	keep_fini(&k);
	for (unsigned int i = 0; i < MAX_IOV; i++)
		free(iov[i].iov_base);
	return 0;
}

/* ---- seeds ----------------------------------------------------------------- */

static const struct {
	const char *name;
	bool ipv6, udp;
	unsigned int ntags, ext, ip_opt, opt_len, len;
	uint16_t flags, gso_size, vlan;
	uint8_t type;
	bool full; /* complete checksum, no NEEDS_CSUM */
	uint8_t split;
} seeds[] = {
	{ .name = "arp-like", .len = 0, .full = true },
	{ .name = "tcp4-lone", .len = 100, .opt_len = 12 },
	{ .name = "tcp4-lone-tagged", .len = 101, .ntags = 1, .vlan = 5 },
	{ .name = "udp4-lone", .len = 99, .udp = true, .split = 100 },
	{ .name = "udp6-lone", .len = 99, .udp = true, .ipv6 = true },
	{ .name = "tcp4",
	  .len = 700,
	  .opt_len = 12,
	  .gso_size = 300,
	  .type = 1,
	  .flags = PKT_PSH | PKT_FIN },
	{ .name = "tcp4-cwr",
	  .len = 500,
	  .gso_size = 101,
	  .type = 0x81,
	  .flags = PKT_CWR,
	  .vlan = 0x6001,
	  .split = 30 },
	{ .name = "tcp4-options-two-tags",
	  .len = 500,
	  .ip_opt = 12,
	  .opt_len = 40,
	  .ntags = 2,
	  .gso_size = 200,
	  .type = 1 },
	{ .name = "tcp4-carried",
	  .len = 500,
	  .gso_size = 200,
	  .type = 1,
	  .full = true,
	  .split = 77 },
	{ .name = "tcp6",
	  .len = 500,
	  .ipv6 = true,
	  .gso_size = 333,
	  .type = 4,
	  .split = 128 },
	{ .name = "tcp6-ext",
	  .len = 500,
	  .ipv6 = true,
	  .ext = 16,
	  .opt_len = 12,
	  .gso_size = 100,
	  .type = 0x84,
	  .vlan = 9 },
	{ .name = "udp4",
	  .len = 500,
	  .udp = true,
	  .gso_size = 99,
	  .type = 5,
	  .split = 3 },
	{ .name = "udp6",
	  .len = 500,
	  .udp = true,
	  .ipv6 = true,
	  .gso_size = 250,
	  .type = 5,
	  .ntags = 1 },
	{ .name = "ufo", .len = 500, .udp = true, .gso_size = 250, .type = 3 },
};

static int write_seed(const char *dir, unsigned int i)
{
	static uint8_t payload[1024], frame[PKT_MAX];
	struct control c = { .vlan = seeds[i].vlan, .mtu_frame = 1522, .room = KEEP_MAX };
	struct virtio_net_hdr_v1 vh = { .gso_type = seeds[i].type };
	struct pkt_spec p;
	uint32_t len, l4;
	char path[4096];
	int ok;
	FILE *f;

	pkt_default(&p);
	p.ipv6 = seeds[i].ipv6;
	p.proto = seeds[i].udp ? 17 : 6;
	p.ntags = seeds[i].ntags;
	p.tci[0] = p.tci[1] = 7;
	p.ext = seeds[i].ext;
	p.ip_opt = seeds[i].ip_opt;
	p.opt_len = seeds[i].opt_len;
	keep_fill(p.opt, p.opt_len, 1);
	p.flags |= seeds[i].flags;
	keep_fill(payload, seeds[i].len, i);
	p.payload = payload;
	p.len = seeds[i].len;
	p.csum = seeds[i].full ? PKT_CSUM_GOOD : PKT_CSUM_PARTIAL;
	len = pkt_build(&p, frame);
	if (!seeds[i].full) {
		const uint8_t *ip;
		uint8_t proto;

		l4 = (uint32_t)(keep_l4(frame, &ip, &proto) - frame);
		vh.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
		vh.csum_start = htole16((uint16_t)l4);
		vh.csum_offset = htole16(seeds[i].udp ? 6 : 16);
	}
	vh.gso_size = htole16(seeds[i].gso_size);
	memset(c.split, seeds[i].split, sizeof(c.split));

	if (snprintf(path, sizeof(path), "%s/%s", dir, seeds[i].name) >=
	    (int)sizeof(path))
		return -ENAMETOOLONG;
	f = fopen(path, "wb");
	if (!f)
		return -errno;
	ok = fwrite(&c, sizeof(c), 1, f) == 1 && fwrite(&vh, sizeof(vh), 1, f) == 1 &&
	     fwrite(frame, len, 1, f) == 1;
	return fclose(f) || !ok ? -EIO : 0;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	if (*argc != 3 || strcmp((*argv)[1], "--seeds"))
		return 0;
	for (unsigned int i = 0; i < sizeof(seeds) / sizeof(seeds[0]); i++) {
		int err = write_seed((*argv)[2], i);

		if (err) {
			fprintf(stderr, "%s/%s: %s\n", (*argv)[2], seeds[i].name,
				strerror(-err));
			exit(1);
		}
	}
	exit(0);
}
