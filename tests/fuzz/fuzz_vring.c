// SPDX-License-Identifier: BSD-2-Clause
/*
 * Fuzz vring: a hostile guest's ring and buffers, changed between the device's steps.
 *
 * Input: struct control, a program of steps, then the guest's memory. Its regions are
 * heap blocks of their exact size. Every byte of every chain is touched; a chain's
 * entries must lie in guest memory at the addresses they say, and the device must never
 * hold more than the ring has.
 *
 * Under libFuzzer, `fuzz_vring --seeds DIR` writes the seeds.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../user/daemon/vhost/vring.h"

#define CHECK(cond)                                                                      \
	do {                                                                             \
		if (!(cond)) {                                                           \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);       \
			abort();                                                         \
		}                                                                        \
	} while (0)

/* Guest memory: a ring, then two regions that touch. */
#define REGIONS	 3
#define RING_GPA 0x1000
#define RING_LEN 0x400
#define DATA_GPA 0x2000
#define DATA_LEN 0x108
#define MORE_LEN 0x200
#define UVA	 0x10000 /* of gpa 0 */
#define AVAIL	 0x240	 /* in the ring's region; packed: driver event */
#define USED	 0x2a0

#define STEPS	  48
#define MAX_HELD  64
#define VEC	  (VRING_MAX_IOV * 2)
#define LOG_BYTES 2U /* not all of the memory */

struct control {
	uint8_t features; /* F_* */
	uint8_t size;	  /* less one, modulo 32 */
	uint8_t desc_at;  /* of the descriptors, in 16 bytes */
	uint8_t pad;
	uint32_t base;
	uint8_t step[STEPS][4]; /* kind and arguments */
};

#define F_PACKED   1
#define F_EVENT	   2
#define F_INDIRECT 4
#define F_ORDER	   8
#define F_LOG	   16
#define F_LOG_USED 32

enum step { TAKE, PUT, PUBLISH, WAKEUP, UNTAKE, GUEST, REOPEN, OTHER, NSTEPS };

struct state {
	struct vu_mem mem;
	struct vring_conf conf;
	struct vring *v;
	struct dma_log log;
	struct vring_chain held[MAX_HELD];
	unsigned int nheld, slots;
	unsigned int unpublished; /* slots of chains put, not published */
	struct iovec iov[VEC];
	uint64_t gpa[VEC];
	struct vring_vec vec;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static void no_wait(void *arg)
{
}

static unsigned int slots_of(const struct state *s, const struct vring_chain *c)
{
	return s->conf.packed ? c->ndesc : 1;
}

static void check_chain(struct state *s, const struct vring_chain *c)
{
	uint64_t out = 0, in = 0;

	CHECK(c->nout + c->nin && c->nout + c->nin <= VRING_MAX_IOV);
	CHECK(c->first + c->nout + c->nin == s->vec.n && s->vec.n <= s->vec.max);
	CHECK(c->ndesc && c->ndesc <= s->conf.size);
	for (unsigned int i = 0; i < (unsigned int)c->nout + c->nin; i++) {
		const struct iovec *e = &s->iov[c->first + i];
		uint64_t len = e->iov_len;
		uint8_t sum = 0;

		CHECK(vu_mem_gpa(&s->mem, s->gpa[c->first + i], &len) == e->iov_base);
		CHECK(len && len == e->iov_len);
		for (size_t k = 0; k < len; k++)
			sum ^= ((const volatile uint8_t *)e->iov_base)[k];
		/* Writing changes the ring too, if the guest says that it is a buffer. */
		if (i >= c->nout && e->iov_len)
			((volatile uint8_t *)e->iov_base)[len - 1] = sum;
		*(i < c->nout ? &out : &in) += len;
	}
	CHECK(out == c->out_len && in == c->in_len);
}

static void take(struct state *s, const uint8_t *arg)
{
	struct vring_chain *c = &s->held[s->nheld];
	const char *was = vring_broken(s->v);
	unsigned int n = s->vec.n;
	int r;

	if (s->nheld == MAX_HELD)
		return;
	s->vec.max = arg[0] ? VEC : n + arg[1] < VEC ? n + arg[1] : VEC;
	r = vring_take(s->v, &s->vec, c);
	if (r == 1) {
		CHECK(!was);
		check_chain(s, c);
		s->slots += slots_of(s, c);
		s->nheld++;
		/* What the guest has not got back it cannot give again. */
		CHECK(s->slots + s->unpublished <= s->conf.size);
		return;
	}
	CHECK(s->vec.n == n);
	CHECK(r == 0 || r == -EPROTO || r == -ENOBUFS);
	CHECK(!!vring_broken(s->v) == (r == -EPROTO));
	CHECK(r != -ENOBUFS || s->vec.max - n < VRING_MAX_IOV);
}

static void put(struct state *s, const uint8_t *arg)
{
	unsigned int i;
	struct vring_chain c;

	if (!s->nheld)
		return;
	i = s->conf.in_order ? 0 : arg[0] % s->nheld;
	c = s->held[i];
	memmove(&s->held[i], &s->held[i + 1], (--s->nheld - i) * sizeof(c));
	vring_put(s->v, &s->vec, &c, (uint32_t)((uint64_t)c.in_len * arg[1] / 255));
	s->slots -= slots_of(s, &c);
	s->unpublished += slots_of(s, &c);
	if (!s->nheld)
		s->vec.n = 0;
}

static void untake(struct state *s, const uint8_t *arg)
{
	unsigned int n = arg[0] % (s->nheld + 1);

	/* Only what was taken last, and nothing of it has been put since. */
	if (!n || !s->conf.in_order)
		return;
	for (unsigned int i = 0; i < n; i++)
		s->slots -= slots_of(s, &s->held[s->nheld - 1 - i]);
	s->nheld -= n;
	vring_untake(s->v, &s->vec, &s->held[s->nheld], n);
}

/* The guest writes one or two bytes of its ring. */
static void guest(struct state *s, const uint8_t *arg)
{
	unsigned int at = (arg[0] | arg[1] << 8) % RING_LEN;

	s->mem.region[0].base[at] = arg[2];
}

static int open_ring(struct state *s, uint32_t base)
{
	s->nheld = s->slots = s->unpublished = 0;
	s->vec.n = 0;
	return vring_create(&s->conf, &s->mem, &s->log, base, &s->v);
}

/* Return: false: there is no ring any more */
static bool step(struct state *s, const uint8_t *p)
{
	switch (p[0] % NSTEPS) {
	case TAKE: take(s, p + 1); break;
	case PUT: put(s, p + 1); break;
	case PUBLISH:
		vring_publish(s->v);
		s->unpublished = 0;
		vring_should_notify(s->v);
		CHECK(!vring_should_notify(s->v));
		break;
	case WAKEUP: vring_set_wakeup(s->v, p[1] & 1); break;
	case UNTAKE: untake(s, p + 1); break;
	case GUEST: guest(s, p + 1); break;
	case REOPEN: return !open_ring(s, vring_destroy(s->v));
	default:
		if (p[1] & 1)
			vring_set_log(s->v, p[1] & 2, p[2] * 0x0101010101010101ULL);
		else if (!s->nheld)
			CHECK(!vring_remap(s->v));
	}
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint32_t gpa[REGIONS] = { RING_GPA, DATA_GPA, DATA_GPA + DATA_LEN };
	static const uint32_t len[REGIONS] = { RING_LEN, DATA_LEN, MORE_LEN };
	const struct dma_log_grace nobody = { .wait = no_wait };
	static struct state state;
	struct state *s = &state;
	uint8_t *log = malloc(LOG_BYTES);
	struct control c;
	bool open;

	if (size < sizeof(c) || !log) {
		free(log);
		return 0;
	}
	memcpy(&c, data, sizeof(c));
	data += sizeof(c);
	size -= sizeof(c);
	memset(s, 0, sizeof(*s));
	s->vec = (struct vring_vec){ .max = VEC, .iov = s->iov, .gpa = s->gpa };
	for (unsigned int i = 0; i < REGIONS; i++) {
		size_t n = size < len[i] ? size : len[i];
		uint8_t *p = malloc(len[i]);

		if (!p)
			abort();
		memset(p, 0, len[i]);
		memcpy(p, data, n);
		data += n;
		size -= n;
		s->mem.region[i] = (struct vu_region){
			.gpa = gpa[i], .uva = UVA + gpa[i], .size = len[i], .base = p
		};
	}
	s->mem.nregions = REGIONS;
	memset(log, 0, LOG_BYTES);
	dma_log_init(&s->log);
	if (c.features & F_LOG)
		dma_log_set_front(&s->log, log, LOG_BYTES, &nobody);
	s->conf = (struct vring_conf){
		.packed = c.features & F_PACKED,
		.event_idx = c.features & F_EVENT,
		.indirect = c.features & F_INDIRECT,
		.in_order = c.features & F_ORDER,
		.log_used = c.features & F_LOG_USED,
		.log_gpa = 0x5000,
		.size = c.size % 32 + 1,
		.desc_uva = UVA + RING_GPA + c.desc_at % 4 * 16U,
		.avail_uva = UVA + RING_GPA + AVAIL,
		.used_uva = UVA + RING_GPA + USED,
	};

	open = !open_ring(s, c.base);
	for (unsigned int i = 0; open && i < STEPS; i++)
		open = step(s, c.step[i]);
	if (open)
		vring_destroy(s->v);
	for (unsigned int i = 0; i < REGIONS; i++)
		free(s->mem.region[i].base);
	dma_log_fini(&s->log);
	free(log);
	return 0;
}

/* ---- seeds ------------------------------------------------------------------------- */

struct image {
	struct control c;
	uint8_t ring[RING_LEN], data[DATA_LEN], more[MORE_LEN];
};

_Static_assert(sizeof(struct image) ==
		       sizeof(struct control) + RING_LEN + DATA_LEN + MORE_LEN,
	       "an input has no padding");

static void put16(uint8_t *p, unsigned int x)
{
	p[0] = (uint8_t)x;
	p[1] = (uint8_t)(x >> 8);
}

/* Split: flags and next; packed: id and flags. */
static void put_desc(uint8_t *p, uint32_t gpa, uint32_t len, unsigned int a,
		     unsigned int b)
{
	memset(p, 0, 16);
	put16(p, gpa & 0xffff);
	put16(p + 8, len & 0xffff);
	put16(p + 12, a);
	put16(p + 14, b);
}

/* A chain of two, one across the border, one by a table, and one more later. */
static void fill_split(struct image *m)
{
	put_desc(m->ring, DATA_GPA, 12, 1, 1);
	put_desc(m->ring + 16, DATA_GPA + 0x40, 0x20, 2, 0);
	put_desc(m->ring + 32, DATA_GPA + DATA_LEN - 4, 8, 2, 0);
	put_desc(m->ring + 48, DATA_GPA + DATA_LEN - 40, 48, 4, 0);
	for (unsigned int i = 0; i < 3; i++) {
		uint8_t d[16];

		put_desc(d, DATA_GPA + 0x60 + i * 8, 8, i < 2 ? 3 : 2, i + 1);
		for (unsigned int k = 0; k < 16; k++) {
			unsigned int at = DATA_LEN - 40 + i * 16 + k;

			*(at < DATA_LEN ? &m->data[at] : &m->more[at - DATA_LEN]) = d[k];
		}
	}
	put16(m->ring + AVAIL + 2, 3);
	put16(m->ring + AVAIL + 6, 2);
	put16(m->ring + AVAIL + 8, 3);
}

static void fill_packed(struct image *m)
{
	put_desc(m->ring, DATA_GPA, 12, 0, 0x81);
	put_desc(m->ring + 16, DATA_GPA + 0x40, 0x20, 1, 0x82);
	put_desc(m->ring + 32, DATA_GPA + DATA_LEN - 4, 8, 2, 0x82);
	put_desc(m->ring + 48, DATA_GPA + 0x80, 32, 3, 0x84);
	put_desc(m->data + 0x80, DATA_GPA + 0x60, 8, 9, 0);
	put_desc(m->data + 0x90, DATA_GPA + 0x68, 8, 9, 2);
}

static const struct {
	const char *name;
	uint8_t features, size;
} seeds[] = {
	{ "split", F_INDIRECT, 7 },
	{ "split-event-order", F_EVENT | F_INDIRECT | F_ORDER, 7 },
	{ "split-logged", F_INDIRECT | F_LOG | F_LOG_USED, 15 },
	{ "packed", F_PACKED | F_INDIRECT, 3 },
	{ "packed-event-order", F_PACKED | F_EVENT | F_INDIRECT | F_ORDER, 4 },
	{ "packed-logged", F_PACKED | F_INDIRECT | F_LOG | F_LOG_USED, 6 },
};

static int write_seed(const char *dir, unsigned int i)
{
	static const uint8_t program[][4] = {
		{ WAKEUP, 0 },	       { TAKE, 1 },    { TAKE, 1 },
		{ TAKE, 0, 1 },	       { UNTAKE, 1 },  { TAKE, 1 },
		{ PUT, 1, 255 },       { PUT, 0, 40 }, { PUBLISH },
		{ TAKE, 1 },	       { PUT, 0, 0 },  { PUBLISH },
		{ WAKEUP, 1 },	       { OTHER, 3 },   { REOPEN },
		{ GUEST, 0x42, 2, 4 }, { TAKE, 1 },    { PUT },
		{ PUBLISH },	       { OTHER },      { GUEST, 14, 0, 0x80 },
		{ TAKE, 1 },	       { PUT },	       { PUBLISH },
	};
	struct image m = { .c = { .features = seeds[i].features,
				  .size = seeds[i].size } };
	char path[4096];
	FILE *f;
	int ok;

	memcpy(m.c.step, program, sizeof(program));
	for (unsigned int k = sizeof(program) / 4; k < STEPS; k++)
		m.c.step[k][0] = OTHER;
	if (seeds[i].features & F_PACKED)
		fill_packed(&m);
	else
		fill_split(&m);
	m.c.base = seeds[i].features & F_PACKED ? 0x80008000 : 0;
	if (snprintf(path, sizeof(path), "%s/%s", dir, seeds[i].name) >=
	    (int)sizeof(path))
		return -ENAMETOOLONG;
	f = fopen(path, "wb");
	if (!f)
		return -errno;
	ok = fwrite(&m, sizeof(m), 1, f) == 1;
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
