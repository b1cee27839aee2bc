// SPDX-License-Identifier: BSD-2-Clause
/* chan: messages come whole and in order, small ones between huge pages, whatever waits to be
 * sent; a page comes where it may, and is refused before there is memory for it elsewhere. */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../user/share/chan.h"

#define MESSAGES 200
#define PAGE_BUS (GM_BUS_MIN + 4 * (uint64_t)GM_HUGE_SIZE)

struct rig {
	struct loop *loop;
	char dir[32];
	struct chan *client, *server;
	uint8_t *page;
	bool may;		  /* huge pages */
	unsigned int asked, came; /* fits(), messages */
	unsigned int sent;
	int err; /* closed() of the server; 1: not */
};

static bool is_huge(uint64_t seq)
{
	return seq % 3 == 0;
}

static void send_one(struct rig *r)
{
	struct gm_hdr h = { .op = GM_OP_FLUSH, .seq = ++r->sent, .bus = PAGE_BUS };

	h.size = h.len = is_huge(h.seq) ? GM_HUGE_SIZE : GM_PAGE_SIZE;
	memset(r->page, (int)h.seq, h.len);
	chan_send(r->client, &h, r->page);
}

static void server_msg(void *arg, const struct gm_hdr *h, const uint8_t *payload)
{
	struct rig *r = arg;

	assert_int_equal(h->seq, ++r->came);
	assert_int_equal(h->len, is_huge(h->seq) ? GM_HUGE_SIZE : GM_PAGE_SIZE);
	assert_int_equal(payload[0], (uint8_t)h->seq);
	assert_int_equal(payload[h->len - 1], (uint8_t)h->seq);
	/* The queue never gets empty: what is taken out of it is put in again. */
	if (r->sent < MESSAGES)
		send_one(r);
	if (r->came == MESSAGES)
		loop_stop(r->loop);
}

static void server_closed(void *arg, int err)
{
	struct rig *r = arg;

	r->server = NULL;
	r->err = err;
	loop_stop(r->loop);
}

static bool fits(void *arg, const struct gm_hdr *h)
{
	struct rig *r = arg;

	assert_int_equal(h->len, GM_HUGE_SIZE);
	r->asked++;
	return r->may;
}

static void client_msg(void *arg, const struct gm_hdr *h, const uint8_t *payload)
{
	fail();
}

static void client_closed(void *arg, int err)
{
	((struct rig *)arg)->client = NULL;
}

static const struct chan_ops client_ops = { .msg = client_msg, .closed = client_closed };
static const struct chan_ops asking = { .msg = server_msg,
					.closed = server_closed,
					.fits = fits };
static const struct chan_ops never = { .msg = server_msg, .closed = server_closed };

static void begin(struct rig *r, const struct chan_ops *server)
{
	struct pollfd p = { .events = POLLIN };
	struct net_conn a, b;
	char addr[64];

	*r = (struct rig){ .err = 1, .page = malloc(GM_HUGE_SIZE) };
	assert_non_null(r->page);
	strcpy(r->dir, "/tmp/test_chan.XXXXXX");
	assert_non_null(mkdtemp(r->dir));
	snprintf(addr, sizeof(addr), "unix:%s/a", r->dir);
	assert_int_equal(loop_create(&r->loop), 0);
	p.fd = net_listen(addr);
	assert_return_code(p.fd, errno);
	assert_int_equal(net_connect(addr, NULL, 5000, &a), 0);
	assert_int_equal(poll(&p, 1, 5000), 1);
	assert_int_equal(net_accept(p.fd, addr, NULL, &b), 0);
	close(p.fd);
	unlink(addr + strlen("unix:"));
	assert_return_code(rmdir(r->dir), errno);
	assert_int_equal(chan_create(r->loop, &a, &client_ops, r, &r->client), 0);
	assert_int_equal(chan_create(r->loop, &b, server, r, &r->server), 0);
}

static void end(struct rig *r)
{
	chan_close(r->client);
	chan_close(r->server);
	loop_destroy(r->loop);
	free(r->page);
}

static void test_carried(void **state)
{
	struct rig r;

	begin(&r, &asking);
	r.may = true;
	for (int i = 0; i < 20; i++)
		send_one(&r);
	assert_int_equal(loop_run(r.loop), 0);
	assert_int_equal(r.came, MESSAGES);
	assert_int_equal(r.err, 1);
	/* There was memory for all others after the first. */
	assert_int_equal(r.asked, 1);
	end(&r);
}

static void refused(const struct chan_ops *server, unsigned int asked)
{
	struct rig r;

	begin(&r, server);
	for (int i = 0; i < 3; i++)
		send_one(&r);
	assert_int_equal(loop_run(r.loop), 0);
	assert_int_equal(r.err, -EBADMSG);
	assert_int_equal(r.came, 2);
	assert_int_equal(r.asked, asked);
	end(&r);
}

static void test_refused(void **state)
{
	refused(&asking, 1);
	refused(&never, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_carried),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests_name("chan", tests, NULL, NULL);
}
