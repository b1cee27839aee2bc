// SPDX-License-Identifier: BSD-2-Clause
/*
 * peer: how an importer ends, and what becomes of pages that are under way meanwhile. Its owner is
 * this test, which says what it likes, when it likes; both are on one thread, so a peer that waits
 * for its owner would wait in vain.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include <cmocka.h>

#include "../../user/share/agent/peer_int.h"
#include "../../user/share/agent/reserve.h"
#include "../../user/share/agent/window_int.h"
#include "../../user/lib/clock.h"

#define PAGES 64ull
#define SIZE  (PAGES << GM_HUGE_SHIFT) /* of either kind: as many at least */
#define NONE  UINT64_MAX
#define LIMIT 20000000000ull

static const struct gm_key key = { .len = 1, .bytes = "k" };

struct rig;

struct end { /* a connection, here at the owner */
	struct rig *rig;
	struct chan *chan;
	uint8_t role;
	uint64_t session, done;
};

struct rig {
	struct loop *loop;
	struct loop_watch *watch, *tick;
	char dir[32], addr[64];
	int listener, timer;
	struct end ends[2];
	unsigned int nends;
	struct peer *peer;
	unsigned int opened, home; /* events */
	/* What the owner does not do yet; what waits for that */
	bool bulk_waits, write_waits, deaf;
	uint64_t refused; /* a page that it cannot take back */
	struct gm_hdr bulk, write, fence;
	char said[64]; /* by the importer, a letter each */
	uint8_t memory[PAGES];
	bool (*until)(struct rig *r);
	uint64_t since;
};

/* ---- the owner */

static uint32_t page_size(const struct rig *r)
{
	return dir_page_size(peer_desc(r->peer));
}

static uint64_t page_of(const struct rig *r, const struct gm_hdr *h)
{
	return dir_page(peer_desc(r->peer), h->bus);
}

static void reply(struct end *e, const struct gm_hdr *req, int status, uint16_t flags,
		  uint32_t len, const void *data)
{
	struct gm_hdr h = *req;

	h.flags = GM_F_REPLY | flags;
	h.status = status;
	h.session = e->session;
	h.len = len;
	h.arg2 = e->done;
	chan_send(e->chan, &h, data);
}

/* Pages with @h, as they are here. */
static void give(struct rig *r, struct end *e, const struct gm_hdr *h, uint16_t flags)
{
	uint8_t *bytes = malloc(h->size);

	assert_non_null(bytes);
	for (uint32_t at = 0; at < h->size; at += page_size(r))
		memset(bytes + at, r->memory[page_of(r, h) + at / page_size(r)],
		       page_size(r));
	reply(e, h, 0, flags, h->size, bytes);
	free(bytes);
}

static void let_in(struct end *e, const struct gm_hdr *h)
{
	struct gm_hdr ok = *h;

	ok.epoch = ok.key_id = 1;
	ok.size = page_size(e->rig);
	ok.arg = SIZE;
	reply(e, &ok, 0, 0, 0, NULL);
}

static void hear(struct rig *r, char what)
{
	size_t n = strlen(r->said);

	assert_true(n + 1 < sizeof(r->said));
	r->said[n] = what;
}

static void of_pages(struct rig *r, struct end *e, const struct gm_hdr *h,
		     const uint8_t *bytes)
{
	switch (h->op) {
	case GM_OP_READ:
		hear(r, e->role == GM_ROLE_BULK ? 'b' : 'r');
		if (e->role != GM_ROLE_BULK || !r->bulk_waits) {
			give(r, e, h, GM_F_SHARED);
			break;
		}
		/* The last one does. */
		if (r->bulk.op)
			reply(e, &r->bulk, -EAGAIN, 0, 0, NULL);
		r->bulk = *h;
		break;
	case GM_OP_WRITE:
		hear(r, 'w');
		if (r->write_waits)
			r->write = *h;
		else
			give(r, e, h, GM_F_EXCL);
		break;
	case GM_OP_FLUSH:
		hear(r, 'F');
		if (page_of(r, h) == r->refused) {
			reply(e, h, -EAGAIN, 0, 0, NULL);
			break;
		}
		r->memory[page_of(r, h)] = bytes[0];
		if (!r->deaf)
			reply(e, h, 0, 0, 0, NULL);
		break;
	case GM_OP_FENCE:
		hear(r, 'f');
		if (r->deaf)
			r->fence = *h;
		else
			reply(e, h, 0, 0, 0, NULL);
		break;
	case GM_OP_DETACH: hear(r, 'D'); break;
	default: fail_msg("%s", gm_op_name(h->op));
	}
}

static void on_msg(void *arg, const struct gm_hdr *h, const uint8_t *payload)
{
	static const uint8_t nonce[GM_NONCE_SIZE];
	struct gm_hello hello;
	struct end *e = arg;

	switch (h->op) {
	case GM_OP_HELLO:
		memcpy(&hello, payload, sizeof(hello));
		e->role = hello.role;
		e->session = 7 + hello.role;
		reply(e, h, 0, 0, sizeof(nonce), nonce);
		break;
	case GM_OP_ATTACH: let_in(e, h); break;
	case GM_OP_PING: reply(e, h, 0, 0, 0, NULL); break;
	default: of_pages(e->rig, e, h, payload);
	}
	e->done = h->seq;
}

static void on_closed(void *arg, int err)
{
	((struct end *)arg)->chan = NULL;
}

static bool fits(void *arg, const struct gm_hdr *h)
{
	return true;
}

static const struct chan_ops ops = { .msg = on_msg, .closed = on_closed, .fits = fits };

static void on_accept(void *arg, uint32_t events)
{
	struct rig *r = arg;
	struct net_conn conn;
	struct end *e = &r->ends[r->nends];

	if (net_accept(r->listener, r->addr, NULL, &conn))
		return;
	assert_true(r->nends++ < 2);
	e->rig = r;
	assert_int_equal(chan_create(r->loop, &conn, &ops, e, &e->chan), 0);
}

static struct end *end_of(struct rig *r, uint8_t role)
{
	for (unsigned int i = 0; i < r->nends; i++)
		if (r->ends[i].role == role)
			return &r->ends[i];
	fail_msg("no connection of role %d", role);
	return NULL;
}

/* ---- the importer */

static void on_event(void *arg, struct peer *p, int ev)
{
	struct rig *r = arg;

	r->opened += ev == PEER_OPENED;
	r->home += ev == PEER_HOME;
}

static void on_tick(void *arg, uint32_t events)
{
	struct rig *r = arg;
	uint64_t n;

	if (read(r->timer, &n, sizeof(n)) < 0)
		return;
	if (r->until(r))
		loop_stop(r->loop);
	else if (clock_ns() - r->since > LIMIT)
		fail_msg("it does not come; said: %s", r->said);
}

static void wait_for(struct rig *r, bool (*until)(struct rig *r))
{
	r->until = until;
	r->since = clock_ns();
	assert_int_equal(loop_run(r->loop), 0);
}

static bool has_opened(struct rig *r)
{
	return r->opened && r->nends == 2;
}

static int setup(void **state)
{
	struct itimerspec ms = { { 0, 1000000 }, { 0, 1000000 } };
	struct rig *r = calloc(1, sizeof(*r));
	struct dir_region d = { .bus = GM_BUS_MIN,
				.size = SIZE,
				.page_shift = GM_PAGE_SHIFT,
				.epoch = 1,
				.key_id = 1,
				.lease_ms = 60000,
				.name = "r",
				.node = "n1" };
	struct window_app app = { .base = 1ull << 40 };

	assert_non_null(r);
	r->refused = NONE;
	strcpy(r->dir, "/tmp/test_peer.XXXXXX");
	assert_non_null(mkdtemp(r->dir));
	snprintf(r->addr, sizeof(r->addr), "unix:%s/a", r->dir);
	strcpy(d.addr, r->addr);
	assert_int_equal(loop_create(&r->loop), 0);
	r->listener = net_listen(r->addr);
	r->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	assert_return_code(r->listener, errno);
	assert_return_code(timerfd_settime(r->timer, 0, &ms, NULL), errno);
	assert_int_equal(
		loop_watch(r->loop, r->listener, EPOLLIN, on_accept, r, &r->watch), 0);
	assert_int_equal(loop_watch(r->loop, r->timer, EPOLLIN, on_tick, r, &r->tick), 0);
	assert_int_equal(peer_create(r->loop, "n2", NULL, &d, &key,
				     window_memfd_create("test", SIZE, GM_PAGE_SHIFT),
				     on_event, r, &r->peer),
			 0);
	wait_for(r, has_opened);
	assert_int_equal(peer_lost(r->peer), 0);
	/* A program, of which there is no more than that it is there. */
	app.uffd = eventfd(0, EFD_CLOEXEC);
	assert_int_equal(peer_attach(r->peer, &app, -1), 0);
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	peer_destroy(r->peer);
	for (unsigned int i = 0; i < r->nends; i++)
		chan_close(r->ends[i].chan);
	loop_unwatch(r->loop, r->watch);
	loop_unwatch(r->loop, r->tick);
	close(r->listener);
	close(r->timer);
	loop_destroy(r->loop);
	unlink(r->addr + strlen("unix:"));
	assert_return_code(rmdir(r->dir), errno);
	free(r);
	return 0;
}

/* ---- cases */

static bool has_bulk(struct rig *r)
{
	return r->bulk.op;
}

static bool has_two(struct rig *r)
{
	return r->peer->held[1] == WRITE && r->peer->held[2] == WRITE;
}

static bool has_come(struct rig *r)
{
	return counters.streamed == r->bulk.size / page_size(r);
}

static bool is_home(struct rig *r)
{
	return r->home;
}

/* Call it until it is over. */
static void go_home(struct rig *r)
{
	for (r->home = 0; !peer_go_home(r->peer); r->home = 0)
		wait_for(r, is_home);
}

/* Pages 0 to 3 are granted to read, and come late. */
static void ask_ahead(struct rig *r)
{
	counters.streamed = 0;
	r->bulk_waits = true;
	peer_prefetch(r->peer, 0, 4ull * page_size(r));
	wait_for(r, has_bulk);
}

static void come_late(struct rig *r)
{
	uint8_t now[PAGES];

	memcpy(now, r->memory, sizeof(now));
	memset(r->memory, 0, sizeof(r->memory));
	give(r, end_of(r, GM_ROLE_BULK), &r->bulk, GM_F_SHARED);
	memcpy(r->memory, now, sizeof(now));
	wait_for(r, has_come);
}

/* What is on its way here when its page goes home is old. */
static void test_overtaken(void **state)
{
	struct rig *r = *state;
	struct peer *p = r->peer;

	ask_ahead(r);
	peer_fault(p, 0, 1, true);
	peer_fault(p, 0, 2, true);
	wait_for(r, has_two);
	memset(window_page(p->win, 1), 91, GM_PAGE_SIZE);
	memset(window_page(p->win, 2), 92, GM_PAGE_SIZE);
	peer_detach(p, 0);
	/* So the import lives on. */
	r->refused = 2;
	assert_false(peer_go_home(p));
	assert_true(peer_leaving(p));
	wait_for(r, is_home);
	assert_false(peer_go_home(p));
	assert_false(peer_leaving(p));
	assert_string_equal(r->said, "bwwFFf");
	assert_int_equal(r->memory[1], 91);
	assert_int_equal(p->held[1], ABSENT);
	assert_int_equal(p->held[2], WRITE);
	come_late(r);
	assert_int_equal(p->held[0], READ);
	assert_int_equal(p->held[1], ABSENT);
	assert_int_equal(p->held[2], WRITE);
	assert_int_equal(window_page(p->win, 2)[5], 92);
	r->refused = NONE;
	go_home(r);
	assert_string_equal(r->said, "bwwFFfFfDf");
	assert_int_equal(r->memory[2], 92);
}

static bool has_last(struct rig *r)
{
	return r->bulk.op && page_of(r, &r->bulk) == 1;
}

static bool has_flush(struct rig *r)
{
	return strchr(r->said, 'F');
}

/* Nor is it taken where there was no huge page for what came after it, and went home. */
static void test_declined(void **state)
{
	struct rig *r = *state;
	struct peer *p = r->peer;
	int memfd = p->win->memfd;
	char path[40];

	/* Huge pages, as far as the agent knows; memory that cannot be had is what cannot
	 * be mapped to write. */
	p->desc.page_shift = p->win->shift = GM_HUGE_SHIFT;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", memfd);
	r->bulk_waits = true;
	counters.streamed = 0;
	peer_prefetch(p, 0, 2ull * GM_HUGE_SIZE);
	wait_for(r, has_last);
	p->win->memfd = open(path, O_RDONLY | O_CLOEXEC);
	assert_return_code(p->win->memfd, errno);
	r->memory[1] = 91;
	peer_fault(p, 0, 1, true);
	wait_for(r, has_flush);
	close(p->win->memfd);
	p->win->memfd = memfd;
	assert_int_equal(r->memory[1], 91);
	assert_int_equal(p->held[1], ABSENT);
	come_late(r);
	assert_int_equal(p->held[1], ABSENT);
}

static bool has_fence(struct rig *r)
{
	return strchr(r->said, 'f');
}

/* What was asked for to write comes, and goes home, before it ends. */
static void test_owed(void **state)
{
	struct rig *r = *state;
	struct peer *p = r->peer;

	r->memory[5] = 95;
	r->write_waits = r->deaf = true;
	peer_fault(p, 0, 5, true);
	peer_detach(p, 0);
	assert_false(peer_go_home(p));
	wait_for(r, has_fence);
	assert_string_equal(r->said, "wf");
	assert_true(peer_leaving(p));
	assert_false(peer_go_home(p));
	r->deaf = false;
	give(r, end_of(r, GM_ROLE_PAGES), &r->write, GM_F_EXCL);
	reply(end_of(r, GM_ROLE_PAGES), &r->fence, 0, 0, 0, NULL);
	wait_for(r, is_home);
	assert_int_equal(p->held[5], WRITE);
	r->memory[5] = 0;
	go_home(r);
	assert_string_equal(r->said, "wfFfDf");
	assert_int_equal(r->memory[5], 95);
}

/* An owner that stands still answers a FENCE, and nothing else: it is asked again later. */
static void test_put_off(void **state)
{
	struct rig *r = *state;
	struct peer *p = r->peer;

	r->write_waits = true;
	peer_fault(p, 0, 5, true);
	peer_detach(p, 0);
	for (int i = 0; i < 2; i++) {
		r->home = 0;
		assert_false(peer_go_home(p));
		assert_true(peer_leaving(p));
		wait_for(r, is_home);
		assert_false(peer_go_home(p));
		assert_false(peer_leaving(p));
	}
	assert_string_equal(r->said, "wff");
	give(r, end_of(r, GM_ROLE_PAGES), &r->write, GM_F_EXCL);
	go_home(r);
	assert_true(strstr(r->said, "FfDf"));
}

static bool is_lost(struct rig *r)
{
	return !r->peer->chan;
}

static bool has_detach(struct rig *r)
{
	return strstr(r->said, "Df");
}

/* An owner that says nothing more, and a connection that is lost then. */
static void test_silent(void **state)
{
	struct rig *r = *state;
	struct peer *p = r->peer;

	peer_detach(p, 0);
	r->deaf = true;
	assert_false(peer_go_home(p));
	wait_for(r, has_detach);
	assert_true(peer_leaving(p));
	assert_false(peer_go_home(p));
	chan_close(end_of(r, GM_ROLE_PAGES)->chan);
	end_of(r, GM_ROLE_PAGES)->chan = NULL;
	wait_for(r, is_lost);
	assert_true(peer_dead(p));
	assert_true(peer_go_home(p));
	assert_int_equal(r->home, 0);
}

static bool has_one(struct rig *r)
{
	return r->peer->held[5] == WRITE;
}

/* The agent ends: what is written is on its way, nobody is called, and the next owner has less time
 * to answer. */
static void test_agent_ends(void **state)
{
	struct rig *r = *state;
	struct peer *p = r->peer;
	int patience_ms = PEER_LEAVE_MS;

	peer_fault(p, 0, 5, true);
	wait_for(r, has_one);
	peer_detach(p, 0);
	memset(window_page(p->win, 5), 95, GM_PAGE_SIZE);
	peer_leave(p, &patience_ms);
	assert_true(patience_ms < PEER_LEAVE_MS);
	wait_for(r, has_fence);
	assert_string_equal(r->said, "wFf");
	assert_int_equal(r->memory[5], 95);
	assert_int_equal(r->home, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_overtaken, setup, teardown),
		cmocka_unit_test_setup_teardown(test_declined, setup, teardown),
		cmocka_unit_test_setup_teardown(test_owed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_put_off, setup, teardown),
		cmocka_unit_test_setup_teardown(test_silent, setup, teardown),
		cmocka_unit_test_setup_teardown(test_agent_ends, setup, teardown),
	};

	reserve_limit(0);
	return cmocka_run_group_tests_name("peer", tests, NULL, NULL);
}
