// SPDX-License-Identifier: BSD-2-Clause
/*
 * lib_ops: get, put, atomics. Contract in ghostmem.h; any thread.
 *
 * A lost connection is made again, and a region that moved is looked up again, until
 * lib_limit_ms() have passed. What an owner answers by "moved" has not been done:
 * lib_conn.c sends it to the next one, whatever it is. Gets and puts are repeated as a
 * whole, though the owner may have done them before it was lost: of a put, others may see
 * that (ghostmem.h). Of an atomic whose reply did not come the owner says, on the next
 * connection, whether it was done (agent/once.h).
 */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "lib.h"
#include "../../lib/clock.h"

#define RETRY_MS   10
#define REFRESH_MS 100

static int usable(struct ghostmem_region *r, uint64_t off, size_t len, bool write)
{
	int dead = __atomic_load_n(&r->dead, __ATOMIC_ACQUIRE);

	if (dead)
		return dead;
	if (!gm_in_range(off, len, 0, r->size))
		return -ERANGE;
	return write && r->read_only ? -EPERM : 0;
}

/* How much of @v one request takes from @at on. What it puts of a page is in one request,
 * if it is all of it: that makes whole what was lost. */
static size_t chunk(uint8_t op, unsigned int shift, const struct ghostmem_vec *v,
		    size_t at)
{
	uint64_t page = 1ull << shift, in = (v->off + at) & (page - 1);
	size_t left = v->len - at, most = LIB_CHUNK;

	if (page <= LIB_CHUNK)
		most -= in;
	else if (op == GM_OP_PUT && !in && left >= page)
		most = page;
	else if (op == GM_OP_PUT && page - in < most)
		most = page - in;
	return left < most ? left : most;
}

/* Queue one vector in chunks. Return: 0, -errno: connection is over */
static int submit(const struct ghostmem_region *r, struct lib_conn *c, uint8_t op,
		  const struct ghostmem_vec *v, struct ghostmem_async *a)
{
	size_t n;

	for (size_t at = 0; at < v->len; at += n) {
		struct lib_req q = { .op = op,
				     .bus = r->bus + v->off + at,
				     .buf = (uint8_t *)v->buf + at,
				     .a = a };
		int err;

		n = chunk(op, r->page_shift, v, at);
		q.size = (uint32_t)n;
		err = lib_conn_submit(c, &q);
		if (err)
			return err;
	}
	return 0;
}

static int time_left(const struct ghostmem_region *r, uint64_t start)
{
	uint64_t past = (clock_ns() - start) / 1000000;
	uint64_t all = (uint64_t)lib_limit_ms(r);

	return past < all ? (int)(all - past) : 1;
}

bool lib_again(struct ghostmem_region *r, int err, uint64_t start, uint64_t *asked)
{
	uint64_t now = clock_ns();
	uint32_t epoch = r->epoch;

	switch (err) {
	case -EACCES:
	case -ENOKEY:
	case -ERANGE:
	case -EPERM:
	case -EINVAL:
	case -ENOMEM: return false;
	}
	if (r->dead || now - start > (uint64_t)lib_limit_ms(r) * 1000000)
		return false;
	if (err == -ESTALE || err == -EREMCHG || now - *asked > REFRESH_MS * 1000000ull) {
		int known = lib_refresh(r, time_left(r, start));

		*asked = clock_ns();
		if (err == -ESTALE && (known == -ENOENT || known == -EACCES))
			return false;
		if (!known && epoch != r->epoch)
			return true;
	}
	poll(NULL, 0, RETRY_MS);
	return true;
}

static int verdict(struct ghostmem_region *r, int err)
{
	int dead = __atomic_load_n(&r->dead, __ATOMIC_ACQUIRE);

	if (dead)
		return dead;
	switch (err) {
	case -EACCES:
	case -ENOKEY:
	case -ERANGE:
	case -EPERM:
	case -EINVAL:
	case -ENOMEM:
	case -ESTALE: return err;
	}
	return -EIO; /* whatever the network says: the owner is gone */
}

static int transfer(struct ghostmem_region *r, uint8_t op, const struct ghostmem_vec *v,
		    size_t n)
{
	uint64_t start = clock_ns(), asked = start;
	int err;

	for (size_t i = 0; i < n; i++) {
		err = usable(r, v[i].off, v[i].len, op == GM_OP_PUT);
		if (err)
			return err;
	}
	for (;;) {
		struct ghostmem_async a = { 0 };
		struct lib_conn *c = lib_conn_find(r);

		err = 0;
		if (!c || lib_conn_failed(c)) {
			err = lib_conn_get(r, time_left(r, start), &c);
		}
		for (size_t i = 0; !err && i < n; i++)
			err = submit(r, c, op, &v[i], &a);
		while (a.token) {
			int lost = lib_conn_reap(c);

			err = err ? err : lost;
		}
		if (!err)
			err = a.status;
		/* A page that is lost stays so; a lost connection is another matter. */
		if (!err || a.status == -EIO)
			return a.status;
		if (!lib_again(r, err, start, &asked))
			return verdict(r, err);
	}
}

int ghostmem_get(struct ghostmem_region *r, uint64_t off, void *buf, size_t len)
{
	struct ghostmem_vec v = { off, buf, len };

	return transfer(r, GM_OP_GET, &v, 1);
}

int ghostmem_put(struct ghostmem_region *r, uint64_t off, const void *buf, size_t len)
{
	struct ghostmem_vec v = { off, (void *)buf, len };

	return transfer(r, GM_OP_PUT, &v, 1);
}

int ghostmem_getv(struct ghostmem_region *r, const struct ghostmem_vec *v, size_t n)
{
	return transfer(r, GM_OP_GET, v, n);
}

int ghostmem_putv(struct ghostmem_region *r, const struct ghostmem_vec *v, size_t n)
{
	return transfer(r, GM_OP_PUT, v, n);
}

/* ---- asynchronous ----------------------------------------------------------------- */

static int start_async(struct ghostmem_region *r, uint8_t op,
		       const struct ghostmem_vec *v, struct ghostmem_async *a)
{
	uint64_t start = clock_ns(), asked = start;
	struct lib_conn *c;
	int err = usable(r, v->off, v->len, op == GM_OP_PUT);

	if (err)
		return err;
	*a = (struct ghostmem_async){ .op = op, .v = *v };
	while ((err = lib_conn_get(r, time_left(r, start), &c)))
		if (!lib_again(r, err, start, &asked))
			return verdict(r, err);
	err = submit(r, c, op, v, a);
	if (!err)
		err = lib_conn_flush(c);
	if (err)
		lib_conn_lose(c, a, -ECONNRESET);
	return 0;
}

int ghostmem_get_async(struct ghostmem_region *r, uint64_t off, void *buf, size_t len,
		       struct ghostmem_async *a)
{
	struct ghostmem_vec v = { off, buf, len };

	return start_async(r, GM_OP_GET, &v, a);
}

int ghostmem_put_async(struct ghostmem_region *r, uint64_t off, const void *buf,
		       size_t len, struct ghostmem_async *a)
{
	struct ghostmem_vec v = { off, (void *)buf, len };

	return start_async(r, GM_OP_PUT, &v, a);
}

/* As its connection was lost: now, by one that there is then */
static int make_again(struct ghostmem_region *r, struct ghostmem_async *a)
{
	a->status = transfer(r, (uint8_t)a->op, &a->v, 1);
	return a->status;
}

int ghostmem_wait(struct ghostmem_region *r, struct ghostmem_async *a)
{
	struct lib_conn *c = lib_conn_find(r);

	if (!c)
		return a->token ? -EINVAL : a->status; /* of another thread */
	while (a->token)
		lib_conn_reap(c);
	return lib_conn_lost(c, a) ? make_again(r, a) : a->status;
}

/* ---- atomics ---------------------------------------------------------------------- */

static int atomic(struct ghostmem_region *r, uint8_t op, uint64_t off, uint64_t arg,
		  uint64_t arg2, uint64_t *old)
{
	uint64_t start = clock_ns(), asked = start;
	int err = usable(r, off, 8, true);
	bool doubt = false; /* it was sent, and perhaps done */

	if (err)
		return err;
	if (off % 8)
		return -EINVAL;
	for (;;) {
		struct ghostmem_async a = { 0 };
		struct lib_req q = { .op = op,
				     .bus = r->bus + off,
				     .size = 8,
				     .arg = arg,
				     .arg2 = arg2,
				     .old = old,
				     .a = &a };
		struct lib_conn *c = lib_conn_find(r);

		err = 0;
		if (!c || lib_conn_failed(c)) {
			err = lib_conn_get(r, time_left(r, start), &c);
		}
		if (!err && doubt) {
			int done = lib_conn_settle(c, old);

			if (done)
				return done < 0 ? done : 0;
			doubt = false;
		}
		if (!err)
			err = lib_conn_submit(c, &q);
		if (!err) {
			while (a.token)
				lib_conn_reap(c);
			if (!a.status || a.status == -EIO)
				return a.status;
			doubt = a.status == -ECONNRESET;
			err = a.status;
		}
		if (!lib_again(r, err, start, &asked))
			return verdict(r, err);
	}
}

int ghostmem_fetch_add(struct ghostmem_region *r, uint64_t off, uint64_t add,
		       uint64_t *old)
{
	return atomic(r, GM_OP_FADD, off, add, 0, old);
}

int ghostmem_swap(struct ghostmem_region *r, uint64_t off, uint64_t val, uint64_t *old)
{
	return atomic(r, GM_OP_SWAP, off, val, 0, old);
}

int ghostmem_compare_swap(struct ghostmem_region *r, uint64_t off, uint64_t expected,
			  uint64_t desired, uint64_t *old)
{
	return atomic(r, GM_OP_CAS, off, desired, expected, old);
}

/* ---- order, pages ----------------------------------------------------------------- */

int ghostmem_fence(struct ghostmem_region *r)
{
	struct ghostmem_async a = { 0 };
	struct lib_req q = { .op = GM_OP_FENCE, .a = &a };
	struct lib_conn *c = lib_conn_find(r);
	struct ghostmem_async *lost;
	int err = 0;

	/* A call that has returned is done; only asynchronous ones are under way. */
	if (c && !lib_conn_failed(c) && lib_conn_busy(c)) {
		err = lib_conn_submit(c, &q);
		while (!err && (a.token || lib_conn_busy(c)))
			err = lib_conn_reap(c);
		/* What was under way is lost now, and nothing else is. */
		err = err ? 0 : a.status;
	}
	while (c && (lost = lib_conn_lost(c, NULL))) {
		int failed = make_again(r, lost);

		err = err ? err : failed;
	}
	return err ? err : usable(r, 0, 0, false);
}

/* The agent deals in whole pages, @base their offset; owner's pages are at home. */
static int ask_pages(struct ghostmem_region *r, uint8_t op, uint64_t off, uint64_t len)
{
	struct local_msg m = { .op = op, .bus = r->bus };
	uint64_t page = 1ull << r->page_shift;
	uint64_t end = (off + len + page - 1) & ~(page - 1);
	int err = usable(r, off, len, false);

	if (err || !len)
		return err;
	if (!r->base)
		return -EINVAL;
	m.base = off & ~(page - 1);
	m.size = end - m.base;
	return r->owner ? 0 : lib_call(r->g, &m, NULL, 0, NULL, NULL, lib_limit_ms(r));
}

int ghostmem_prefetch(struct ghostmem_region *r, uint64_t off, uint64_t len)
{
	return ask_pages(r, LOCAL_PREFETCH, off, len);
}

/*
 * One get of a byte in each page makes the owner take back the right to write there, and
 * with it the bytes; pages stay here to read.
 */
int ghostmem_flush(struct ghostmem_region *r, uint64_t off, uint64_t len)
{
	uint64_t page = 1ull << r->page_shift;
	int err = usable(r, off, len, false);

	while (!err && len) {
		uint64_t n = page - off % page;
		uint8_t byte;

		n = n < len ? n : len;
		err = ghostmem_get(r, off, &byte, 1);
		off += n;
		len -= n;
	}
	return err;
}
