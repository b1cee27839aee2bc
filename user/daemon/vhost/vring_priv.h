/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vring_priv: what the two ring formats share; for vring*.c only.
 *
 * Guest memory is read and written by the accessors below, each an access of its own that
 * the compiler neither repeats nor splits. Both formats' descriptors are two
 * little-endian 64-bit words: the address, and length, id or next, flags.
 *
 * Thread: vring.h.
 */
#ifndef GN_VRING_PRIV_H
#define GN_VRING_PRIV_H

#include <endian.h>
#include <errno.h>

#include "vring.h"

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* Descriptor flags, virtio 1.2, 2.7.5 and 2.8.1. */
#define DESC_NEXT     (1U << 0)
#define DESC_WRITE    (1U << 1)
#define DESC_INDIRECT (1U << 2)
#define DESC_AVAIL    (1U << 7)	 /* packed */
#define DESC_USED     (1U << 15) /* packed */

#define DESC_SIZE 16 /* bytes */

/* Split, 2.7.6 and 2.7.8: bytes into the available and used rings, and their flags. */
#define RING_FLAGS 0
#define RING_IDX   2
#define RING_ELEMS 4
#define NO_NOTICE  1U /* either side: send no notification */

/* Packed, 2.8.14: the event structures' bytes and flags. */
#define EVENT_OFF     0
#define EVENT_FLAGS   2
#define EVENT_ENABLE  0U
#define EVENT_DISABLE 1U
#define EVENT_DESC    2U
#define EVENT_SIZE    4 /* bytes */

#define WRAP 0x8000U /* wrap counter beside a 15-bit position */

struct vring {
	const struct vu_mem *mem;
	const struct vu_region *hit; /* where the last address was found */
	struct dma_log *log;
	const char *broken;

	/* Ring in guest memory, as in struct vring_conf. */
	uint8_t *desc, *avail, *used;
	uint64_t desc_gpa, used_gpa;

	uint16_t size;
	bool packed, event_idx, indirect;
	bool signalled_valid; /* should_notify() has run, signalled is good */
	uint8_t wakeup;	      /* what the guest was told: 0, 1, 2: nothing yet */

	/*
	 * Split: free-running indexes. Packed: descriptor position and WRAP.
	 * In ring order: published, used, next, seen.
	 */
	uint16_t published;   /* the guest sees used entries up to here */
	uint16_t used_next;   /* put() writes here */
	uint16_t next;	      /* take() reads here */
	uint16_t seen;	      /* take() found nothing from here on */
	uint16_t signalled;   /* published at the last should_notify() */
	uint16_t held;	      /* packed: descriptors from published to next */
	uint16_t back;	      /* packed: descriptors from next to seen */
	uint16_t npend;	      /* packed: entries of pend */
	uint32_t unsignalled; /* slots published since the last should_notify() */

	struct vring_note *pend; /* packed: [size] put, not published */
	struct vring_conf conf;
};

/* ---- guest memory ----------------------------------------------------------------- */

static inline uint16_t rd16(const void *p)
{
	return le16toh(__atomic_load_n((const uint16_t *)p, __ATOMIC_RELAXED));
}

static inline uint16_t rd16_acquire(const void *p)
{
	return le16toh(__atomic_load_n((const uint16_t *)p, __ATOMIC_ACQUIRE));
}

static inline uint32_t rd32(const void *p)
{
	return le32toh(__atomic_load_n((const uint32_t *)p, __ATOMIC_RELAXED));
}

static inline uint64_t rd64(const void *p)
{
	return le64toh(__atomic_load_n((const uint64_t *)p, __ATOMIC_RELAXED));
}

static inline void wr16(void *p, uint16_t x)
{
	__atomic_store_n((uint16_t *)p, htole16(x), __ATOMIC_RELAXED);
}

static inline void wr16_release(void *p, uint16_t x)
{
	__atomic_store_n((uint16_t *)p, htole16(x), __ATOMIC_RELEASE);
}

static inline void wr32(void *p, uint32_t x)
{
	__atomic_store_n((uint32_t *)p, htole32(x), __ATOMIC_RELAXED);
}

/*
 * Our store, then our load: neither acquire nor release orders these two, also not
 * on x86. Each caller names the guest's side of the pair.
 */
static inline void full_barrier(void)
{
#if defined(__SANITIZE_THREAD__) && !defined(__clang__)
	/* gcc warns that its thread sanitizer does not model fences; an exchange it does.
	 */
	static int dummy;

	__atomic_exchange_n(&dummy, 0, __ATOMIC_SEQ_CST);
#else
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

/* ---- rules ------------------------------------------------------------------------- */

static inline int vring_fail(struct vring *v, const char *reason)
{
	v->broken = reason;
	return -EPROTO;
}

/* vring_need_event() of virtio 1.2, 2.7.10.1: did @new pass @event since @old? */
static inline bool passed(uint16_t event, uint16_t new, uint16_t old)
{
	return (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}

int vring_add_slow(struct vring *v, struct vring_vec *vec, struct vring_chain *c,
		   uint64_t gpa, uint32_t len, bool write);

/* One descriptor's buffer. Return: 0, -ENOBUFS, -EPROTO */
static inline int vring_add(struct vring *v, struct vring_vec *vec, struct vring_chain *c,
			    uint64_t gpa, uint32_t len, bool write)
{
	const struct vu_region *r = v->hit;
	uint64_t off = gpa - r->gpa;
	unsigned int n = vec->n;

	if (unlikely(!len || off >= r->size || len > r->size - off || n >= vec->max ||
		     n - c->first >= VRING_MAX_IOV))
		return vring_add_slow(v, vec, c, gpa, len, write);
	if (write) {
		c->nin++;
		c->in_len += len;
		if (unlikely(c->in_len < len))
			return vring_fail(v, "chain of 4 GiB or more");
	} else {
		if (unlikely(c->nin))
			return vring_fail(v, "readable buffer after a writable one");
		c->nout++;
		c->out_len += len;
		if (unlikely(c->out_len < len))
			return vring_fail(v, "chain of 4 GiB or more");
	}
	vec->iov[n] = (struct iovec){ .iov_base = r->base + off, .iov_len = len };
	vec->gpa[n] = gpa;
	vec->n = n + 1;
	return 0;
}

/* A table of indirect descriptors in guest memory. */
struct vring_table {
	uint64_t gpa;
	const uint8_t *p; /* its first bytes here... */
	uint64_t here;	  /* ...as many as lie in one region */
	uint32_t n;	  /* entries */
};

/** vring_table_open() - check a table's place and size. Return: 0, -EPROTO */
int vring_table_open(struct vring *v, struct vring_table *t, uint64_t gpa, uint32_t len);

int vring_table_read_slow(struct vring *v, const struct vring_table *t, uint32_t i,
			  uint64_t word[2]);

/* A guest may place a table at any address. */
struct vring_unaligned {
	uint64_t x;
} __attribute__((packed, may_alias));

/* Entry @i < n, read once. Return: 0, -EPROTO */
static inline int vring_table_read(struct vring *v, const struct vring_table *t,
				   uint32_t i, uint64_t word[2])
{
	const volatile struct vring_unaligned *p;

	if (unlikely(((uint64_t)i + 1) * DESC_SIZE > t->here))
		return vring_table_read_slow(v, t, i, word);
	p = (const volatile struct vring_unaligned *)(t->p + (size_t)i * DESC_SIZE);
	word[0] = le64toh(p[0].x);
	word[1] = le64toh(p[1].x);
	return 0;
}

/* ---- dirty log --------------------------------------------------------------------- */

static inline bool vring_logging(const struct vring *v)
{
	return v->log && dma_log_on(v->log);
}

/* The device wrote @len bytes at @off of the area that the front end logs. */
static inline void vring_log_used(struct vring *v, uint64_t off, uint64_t len)
{
	if (!vring_logging(v))
		return;
	if (v->conf.log_used)
		dma_log_mark_front(v->log, v->conf.log_gpa + off, len);
	dma_log_mark_pair(v->log, v->used_gpa + off, len);
}

/* ---- formats ----------------------------------------------------------------------- */

int vring_split_start(struct vring *v, uint32_t base);
int vring_split_take(struct vring *v, struct vring_vec *vec, struct vring_chain *c);
void vring_split_put(struct vring *v, uint16_t id, uint32_t written);
void vring_split_publish(struct vring *v);
bool vring_split_should_notify(struct vring *v);
bool vring_split_set_wakeup(struct vring *v, bool on);

int vring_packed_start(struct vring *v, uint32_t base);
int vring_packed_take(struct vring *v, struct vring_vec *vec, struct vring_chain *c);
void vring_packed_untake(struct vring *v, uint32_t ndesc);
void vring_packed_put(struct vring *v, const struct vring_chain *c, uint32_t written);
void vring_packed_publish(struct vring *v);
bool vring_packed_should_notify(struct vring *v);
bool vring_packed_set_wakeup(struct vring *v, bool on);

#endif
