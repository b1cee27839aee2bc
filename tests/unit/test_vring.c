// SPDX-License-Identifier: BSD-2-Clause
/*
 * vring: random traffic between a guest's driver (driver.h) and the device's side.
 *
 * Every combination of ring format and features, several sizes. Checked: each byte read
 * and written, where (across region borders), each chain given back once, every
 * notification that is owed and, where the rules say so, none that is not. Either side
 * sleeps whenever the rules let it; if both sleep with work left, one was lost.
 * test_vring_threads.c has the barriers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "driver.h"

#define CELL	   1024 /* bytes; each buffer and table has one of its own */
#define CELLS	   ((unsigned int)(GUEST_DATA_LEN / CELL))
#define MAX_BUFS   8
#define MAX_CHAINS 256
#define UNTOUCHED  0xee
#define CHAINS	   2600 /* of each of the 48 runs: more than 100,000; GN_CHAINS */

struct record { /* a chain as the guest made it */
	struct driver_buf buf[MAX_BUFS];
	uint16_t cell[MAX_BUFS + 1];
	unsigned int nout, nin, ncells;
	uint32_t out_len, in_len, written;
	uint32_t seed;
	bool busy, seen;
};

struct sim {
	struct guest g;
	struct driver d;
	struct vring *v;
	uint64_t rng;
	bool cell_busy[CELLS];
	struct record rec[MAX_CHAINS];
	unsigned int made, done;
	/* device */
	struct vring_chain held[MAX_CHAINS];
	unsigned int nheld;
	struct iovec iov[4 * MAX_CHAINS * MAX_BUFS];
	uint64_t gpa[4 * MAX_CHAINS * MAX_BUFS];
	struct vring_vec vec;
	bool dev_asleep, drv_asleep;
	bool kicks_off, irqs_off; /* without event index: neither side may notify */
	bool fresh;		  /* the ring has not decided on an interrupt yet */
	bool empty;		  /* take() found nothing more */
	unsigned int unread;	  /* chains that the guest has not seen used */
	int owed;		  /* used entries until an interrupt, when asleep */
};

static uint32_t rnd(struct sim *s, uint32_t n)
{
	s->rng ^= s->rng << 13;
	s->rng ^= s->rng >> 7;
	s->rng ^= s->rng << 17;
	return (uint32_t)(s->rng >> 32) % n;
}

static uint8_t pattern(uint32_t seed, uint32_t i)
{
	return (uint8_t)((seed + i) * 2654435761U >> 13);
}

/* ---- the guest ------------------------------------------------------------------- */

static bool get_cell(struct sim *s, struct record *r, uint64_t *gpa)
{
	/* The one across the borders is often the choice. */
	unsigned int border = (unsigned int)(GUEST_DATA_A / CELL);
	unsigned int i = rnd(s, 4) ? rnd(s, CELLS) : border;

	for (unsigned int n = 0; n < CELLS; n++, i = (i + 1) % CELLS) {
		if (s->cell_busy[i])
			continue;
		s->cell_busy[i] = true;
		r->cell[r->ncells++] = (uint16_t)i;
		*gpa = GUEST_DATA + (uint64_t)i * CELL;
		return true;
	}
	return false;
}

static void put_cells(struct sim *s, struct record *r)
{
	for (unsigned int i = 0; i < r->ncells; i++)
		s->cell_busy[r->cell[i]] = false;
	r->busy = false;
}

static void fill(struct sim *s, struct record *r)
{
	uint8_t bytes[CELL];
	uint32_t at = 0;

	for (unsigned int i = 0; i < r->nout + r->nin; i++) {
		for (uint32_t k = 0; k < r->buf[i].len; k++)
			bytes[k] = i < r->nout ? pattern(r->seed, at++) : UNTOUCHED;
		guest_write(&s->g, r->buf[i].gpa, bytes, r->buf[i].len);
	}
}

static bool add_chain(struct sim *s)
{
	unsigned int max = MAX_BUFS, id;
	bool indirect = s->d.conf.indirect && rnd(s, 2);
	uint64_t table = 0;
	struct record *r;

	for (id = 0; id < MAX_CHAINS && s->rec[id].busy; id++)
		;
	if (id == MAX_CHAINS)
		return false;
	if (!indirect && s->d.conf.size < max)
		max = s->d.conf.size;
	r = &s->rec[id];
	memset(r, 0, sizeof(*r));
	r->busy = true;
	r->seed = rnd(s, UINT32_MAX);
	r->nout = rnd(s, max + 1);
	r->nin = rnd(s, max - r->nout + 1);
	if (!(r->nout + r->nin))
		r->nin = 1;
	for (unsigned int i = 0; i < r->nout + r->nin; i++) {
		uint32_t off = rnd(s, 3) ? 0 : rnd(s, CELL);
		struct driver_buf *b = &r->buf[i];

		if (!get_cell(s, r, &b->gpa))
			goto none;
		b->gpa += off;
		b->len = 1 + rnd(s, CELL - off);
		*(i < r->nout ? &r->out_len : &r->in_len) += b->len;
	}
	if (indirect) {
		if (!get_cell(s, r, &table))
			goto none;
		table += rnd(s, CELL - MAX_BUFS * 16 + 1);
	}
	fill(s, r);
	if (driver_add(&s->d, r->buf, r->nout, r->nin, table, id))
		goto none;
	s->made++;
	return true;
none:
	put_cells(s, r);
	return false;
}

static void check_done(struct sim *s, uint64_t cookie, uint32_t len)
{
	struct record *r = &s->rec[cookie];
	uint8_t bytes[CELL];
	uint32_t at = 0;

	assert_true(r->busy && r->seen);
	assert_int_equal(len, r->written);
	for (unsigned int i = r->nout; i < r->nout + r->nin; i++) {
		guest_read(&s->g, r->buf[i].gpa, bytes, r->buf[i].len);
		for (uint32_t k = 0; k < r->buf[i].len; k++, at++)
			if (bytes[k] != (at < len ? pattern(~r->seed, at) : UNTOUCHED))
				fail_msg("byte %u of %u is %02x", at, len, bytes[k]);
	}
	put_cells(s, r);
	s->unread--;
	s->done++;
}

static void driver_step(struct sim *s, unsigned int total)
{
	unsigned int n = 1 + rnd(s, 16), added = 0;
	uint64_t cookie;
	uint32_t len;

	switch (rnd(s, 4)) {
	case 0:
	case 1:
		while (n-- && s->made < total && add_chain(s))
			added++;
		if (!added)
			break;
		if (driver_should_kick(&s->d)) {
			assert_false(s->kicks_off);
			s->dev_asleep = false;
		} else if (s->dev_asleep) {
			fail_msg("no kick for a device that sleeps");
		}
		break;
	case 2:
		while (n-- && driver_get(&s->d, &cookie, &len))
			check_done(s, cookie, len);
		break;
	default:
		if (!s->d.outstanding || rnd(s, 3) == 0) {
			driver_want(&s->d, false, 1);
			s->irqs_off = !s->d.conf.event_idx || s->d.conf.packed;
			break;
		}
		n = 1;
		if (s->d.conf.event_idx)
			n += rnd(s, s->d.outstanding);
		s->irqs_off = false;
		s->owed = (int)n - (int)s->unread;
		s->drv_asleep = !driver_want(&s->d, true, n);
	}
}

/* ---- the device ------------------------------------------------------------------ */

/* The buffers are the guest's, byte for byte, and each entry's gpa is where it is. */
static void check_taken(struct sim *s, const struct vring_chain *c)
{
	struct record *r = &s->rec[s->d.slot[c->id].cookie];
	unsigned int e = c->first, end = e + c->nout + c->nin;
	uint32_t at = 0;

	assert_true(s->d.slot[c->id].busy);
	assert_int_equal(c->ndesc, s->d.slot[c->id].ndesc);
	assert_int_equal(c->out_len, r->out_len);
	assert_int_equal(c->in_len, r->in_len);
	assert_true(end <= s->vec.n);
	for (unsigned int i = 0; i < r->nout + r->nin; i++) {
		uint64_t gpa = r->buf[i].gpa, left = r->buf[i].len;

		if (i == r->nout)
			assert_int_equal(e, c->first + c->nout);
		while (left) {
			const uint8_t *p = s->vec.iov[e].iov_base;
			uint64_t here = left;

			assert_true(e < end);
			assert_ptr_equal(p, vu_mem_gpa(&s->g.mem, gpa, &here));
			assert_int_equal(s->vec.gpa[e], gpa);
			assert_int_equal(s->vec.iov[e].iov_len, here);
			for (uint64_t k = 0; i < r->nout && k < here; k++)
				assert_int_equal(p[k], pattern(r->seed, at++));
			gpa += here;
			left -= here;
			e++;
		}
	}
	assert_int_equal(e, end);
	r->seen = true;
}

static uint32_t write_chain(struct sim *s, const struct vring_chain *c)
{
	struct record *r = &s->rec[s->d.slot[c->id].cookie];
	uint32_t at = 0;

	r->written = rnd(s, 3) ? rnd(s, c->in_len + 1) : c->in_len;
	for (unsigned int e = c->first + c->nout; at < r->written; e++) {
		uint8_t *p = s->vec.iov[e].iov_base;

		for (size_t k = 0; k < s->vec.iov[e].iov_len && at < r->written; k++)
			p[k] = pattern(~r->seed, at++);
	}
	return r->written;
}

static void device_take(struct sim *s)
{
	unsigned int n = 1 + rnd(s, 16), taken = 0, room = s->vec.max;
	int err = 1;

	if (!s->nheld)
		s->vec.n = 0;
	/* A vector with little room: the chain stays where it is. */
	if (!rnd(s, 8))
		s->vec.max = s->vec.n + rnd(s, 4);
	while (n-- && s->nheld < MAX_CHAINS && s->vec.n + VRING_MAX_IOV <= room) {
		unsigned int before = s->vec.n;

		err = vring_take(s->v, &s->vec, &s->held[s->nheld]);
		if (err != 1) {
			assert_int_equal(s->vec.n, before);
			break;
		}
		check_taken(s, &s->held[s->nheld++]);
		taken++;
	}
	if (err != -ENOBUFS)
		assert_in_range(err, 0, 1);
	else
		assert_true(s->vec.max < room);
	s->vec.max = room;
	s->empty = !err;
	if (taken && !rnd(s, 4)) {
		n = 1 + rnd(s, taken);
		s->nheld -= n;
		vring_untake(s->v, &s->vec, &s->held[s->nheld], n);
		s->empty = false;
	}
}

static void device_put(struct sim *s)
{
	unsigned int n = 1 + rnd(s, 16), chains = 0, slots = 0;
	bool notify;

	while (n-- && s->nheld) {
		unsigned int i = s->d.conf.in_order ? 0 : rnd(s, s->nheld);
		struct vring_chain c = s->held[i];

		s->nheld--;
		memmove(&s->held[i], &s->held[i + 1], (s->nheld - i) * sizeof(c));
		vring_put(s->v, &s->vec, &c, write_chain(s, &c));
		chains++;
		slots += c.ndesc;
	}
	vring_publish(s->v);
	s->unread += chains;
	notify = vring_should_notify(s->v);
	assert_false(vring_should_notify(s->v)); /* nothing new */
	if (!chains) {
		assert_false(notify);
		return;
	}
	if (s->irqs_off)
		assert_false(notify);
	if (s->drv_asleep) {
		s->owed -= (int)(s->d.conf.packed ? slots : chains);
		if (s->owed <= 0)
			assert_true(notify);
		else if (!s->fresh)
			assert_false(notify);
	}
	if (notify)
		s->drv_asleep = false;
	s->fresh = false;
}

static void device_restart(struct sim *s)
{
	struct vring_conf c = driver_conf(&s->d);
	uint32_t base;

	/* Chains that were given back out of order cannot be told from those held. */
	if (s->nheld && !s->d.conf.in_order)
		return;
	base = vring_destroy(s->v);
	assert_int_equal(vring_create(&c, &s->g.mem, NULL, base, &s->v), 0);
	s->nheld = 0;
	s->fresh = true;
	s->empty = false;
}

static void device_step(struct sim *s)
{
	switch (rnd(s, 8)) {
	case 0:
	case 1:
	case 2: device_take(s); break;
	case 3:
	case 4:
	case 5: device_put(s); break;
	case 6:
		if (s->nheld || !s->empty) {
			vring_set_wakeup(s->v, false);
			s->kicks_off = !s->d.conf.event_idx || s->d.conf.packed;
			break;
		}
		s->kicks_off = false;
		s->dev_asleep = !vring_set_wakeup(s->v, true);
		break;
	default:
		if (!rnd(s, 16))
			device_restart(s);
		else if (!rnd(s, 4))
			assert_int_equal(vring_remap(s->v), 0);
	}
}

/* ---- runs ------------------------------------------------------------------------ */

static void run(const struct vring_conf *conf, unsigned int total)
{
	struct sim *s = calloc(1, sizeof(*s));
	struct vring_conf c;

	assert_non_null(s);
	s->rng = 88172645463325252ULL + conf->size;
	guest_init(&s->g, false);
	driver_init(&s->d, &s->g, conf);
	c = driver_conf(&s->d);
	s->vec = (struct vring_vec){ .max = sizeof(s->iov) / sizeof(s->iov[0]),
				     .iov = s->iov,
				     .gpa = s->gpa };
	assert_int_equal(
		vring_create(&c, &s->g.mem, NULL, conf->packed ? 0x80008000 : 0, &s->v),
		0);
	s->fresh = true;
	while (s->done < total) {
		assert_false(s->dev_asleep && s->drv_asleep);
		if (!s->drv_asleep)
			driver_step(s, total);
		if (!s->dev_asleep)
			device_step(s);
		if (vring_broken(s->v))
			fail_msg("broken: %s", vring_broken(s->v));
	}
	assert_int_equal(s->d.outstanding, 0);
	vring_destroy(s->v);
	driver_fini(&s->d);
	guest_fini(&s->g);
	free(s);
}

static void run_all(bool packed)
{
	static const uint16_t split_size[] = { 1, 4, 256 }, packed_size[] = { 1, 5, 256 };
	const char *given = getenv("GN_CHAINS");
	unsigned int total = given ? (unsigned int)strtoul(given, NULL, 0) : CHAINS;

	for (unsigned int f = 0; f < 8; f++)
		for (unsigned int i = 0; i < 3; i++)
			run(
				&(struct vring_conf){
					.packed = packed,
					.event_idx = f & 1,
					.indirect = f & 2,
					.in_order = f & 4,
					.size = packed ? packed_size[i] : split_size[i],
				},
				total);
}

static void test_split(void **state)
{
	run_all(false);
}

static void test_packed(void **state)
{
	run_all(true);
}

/* More chains than a 16-bit index counts. */
static void test_long(void **state)
{
	run(&(struct vring_conf){ .event_idx = true, .indirect = true, .size = 64 },
	    70000);
	run(&(struct vring_conf){ .packed = true, .event_idx = true, .size = 63 }, 70000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_split),
		cmocka_unit_test(test_packed),
		cmocka_unit_test(test_long),
	};

	return cmocka_run_group_tests_name("vring", tests, NULL, NULL);
}
