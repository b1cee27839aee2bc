// SPDX-License-Identifier: BSD-2-Clause
/*
 * What a destination says to a source that sends nonsense, and a source to a destination
 * that does: the other side is played here, frame by frame, over real sockets.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "../../user/lib/clock.h"
#include "../../user/lib/log.h"
#include "../../vm-migrate/stream/receiver.h"
#include "../../vm-migrate/stream/sender.h"
#include "machine.h"

#define CONFIG "{\"machine\":\"test\"}"

struct talk {
	struct twin twin;
	struct chan *c;
	uint32_t seq, ready;	       /* ready: READY was read */
	char error[WIRE_MAX_TEXT + 1]; /* what came back */
};

struct hello {
	struct wire_hello h;
	struct wire_block b[1];
};

static const struct hello usual = {
	.h = { .streams = 1, .page_size = RAM_PAGE_SIZE, .nblocks = 1 },
	.b = { { 0, 100 * RAM_PAGE_SIZE } },
};

static void send_raw(struct talk *t, const void *p, size_t len)
{
	struct iovec iov = { (void *)(uintptr_t)p, len };

	/* The destination may have had enough already. */
	chan_write(t->c, &iov, 1);
}

static void send_frame(struct talk *t, enum wire_type type, uint64_t arg, uint32_t count,
		       const void *payload, uint32_t len, uint64_t sum)
{
	struct wire_head h;

	wire_head_init(&h, type, arg, count);
	wire_seal(&h, t->seq++, len, sum);
	send_raw(t, &h, sizeof(h));
	send_raw(t, payload, len);
}

static void send_good(struct talk *t, enum wire_type type, uint64_t arg,
		      const void *payload, uint32_t len)
{
	send_frame(t, type, arg, 0, payload, len, wire_sum(payload, len));
}

static void begin(struct talk *t)
{
	char uri[CHAN_URI_MAX];
	struct incoming_conf ic = { .uri = test_uri(true, uri), .max_failures = 1 };

	memset(t, 0, sizeof(*t));
	assert_int_equal(twin_start(&t->twin, &ic), 0);
	assert_int_equal(chan_connect(incoming_uri(t->twin.in), NULL, 1000, NULL, &t->c),
			 0);
	chan_set_read_timeout(t->c, 15000);
}

/* As far as READY */
static void greet(struct talk *t)
{
	struct wire_head h;
	const char *why;
	void *payload;

	begin(t);
	send_good(t, WIRE_HELLO, 0, &usual, sizeof(usual));
	send_good(t, WIRE_CONFIG, 0, CONFIG, sizeof(CONFIG) - 1);
	assert_int_equal(receiver_head(t->c, 0, ~0U, &h, &payload, &why), 0);
	assert_int_equal(h.type, WIRE_READY);
	t->ready = 1;
}

/* The destination answers by an ERROR that says @says, and has nothing left. */
static void refused(struct talk *t, const char *says)
{
	struct wire_head h = { .type = 0 };
	struct incoming_status st;
	void *payload = NULL;
	const char *why = "";
	uint32_t seq = t->ready;
	int err;

	chan_end(t->c);
	do {
		free(payload);
		payload = NULL;
		err = receiver_head(t->c, seq++, ~0U, &h, &payload, &why);
	} while (!err && h.type != WIRE_ERROR);
	if (err || h.type != WIRE_ERROR)
		fail_msg("no ERROR but %d %s", err, why);
	snprintf(t->error, sizeof(t->error), "%s", (char *)payload);
	free(payload);
	chan_close(t->c);
	assert_true(twin_join(&t->twin) < 0);
	incoming_status(t->twin.in, &st);
	if (!strstr(t->error, says) || !strstr(st.message, says))
		fail_msg("source: \"%s\", destination: \"%s\", not: \"%s\"", t->error,
			 st.message, says);
	assert_int_equal(t->twin.started, 0);
	assert_int_equal(t->twin.abandoned, t->twin.prepared);
	twin_fini(&t->twin);
}

static void test_not_a_stream(void **state)
{
	static const char http[] =
		"GET / HTTP/1.1\r\nHost: example.org\r\nAccept: */*\r\n\r\n";
	struct wire_head h;
	struct talk t;

	begin(&t);
	send_raw(&t, http, sizeof(http));
	refused(&t, "not a migration stream");
	begin(&t);
	wire_head_init(&h, WIRE_HELLO, 0, 0);
	h.version = WIRE_VERSION + 1;
	wire_seal(&h, 0, sizeof(usual), 0);
	send_raw(&t, &h, sizeof(h));
	refused(&t, "another version");
	begin(&t);
	send_frame(&t, WIRE_HELLO, 0, 0, &usual, sizeof(usual), 1);
	refused(&t, "checksum");
	begin(&t);
	send_good(&t, WIRE_CONFIG, 0, CONFIG, 4);
	refused(&t, "wrong time");
}

/* Before HELLO nothing is read that a header promises. */
static void test_promised(void **state)
{
	struct wire_head h;
	struct talk t;

	begin(&t);
	wire_head_init(&h, WIRE_STATE, 0, 0);
	wire_seal(&h, 0, STATE_MAX_BYTES, 0);
	send_raw(&t, &h, sizeof(h));
	refused(&t, "wrong time");
}

/* Whoever says HELLO a byte at a time does not keep the destination for himself, ... */
static void test_trickle(void **state)
{
	const uint64_t deadline = clock_ns() + 20000000000ULL;
	struct incoming_status st = { 0 };
	struct wire_head h;
	struct talk t;

	begin(&t);
	wire_head_init(&h, WIRE_HELLO, 0, 0);
	wire_seal(&h, 0, sizeof(usual), wire_sum(&usual, sizeof(usual)));
	for (size_t i = 0; i < sizeof(h) && !st.failures && clock_ns() < deadline; i++) {
		send_raw(&t, (uint8_t *)&h + i, 1);
		poll(NULL, 0, 400);
		incoming_status(t.twin.in, &st);
	}
	assert_int_equal(st.failures, 1);
	assert_true(clock_ns() < deadline);
	refused(&t, "not answer");
}

/* ... nor from being told to stop. */
static void test_trickle_cancel(void **state)
{
	uint64_t began = clock_ns();
	struct talk t;

	begin(&t);
	send_raw(&t, &usual, 5);
	while (chan_unsent(t.c) && clock_ns() - began < 10000000000ULL)
		poll(NULL, 0, 1);
	assert_int_equal(chan_unsent(t.c), 0); /* read */
	began = clock_ns();
	incoming_cancel(t.twin.in);
	assert_int_equal(twin_join(&t.twin), -ECANCELED);
	assert_true(clock_ns() - began < 4000000000ULL);
	chan_close(t.c);
	twin_fini(&t.twin);
}

static void test_hello(void **state)
{
	struct hello h = usual;
	struct talk t;

	begin(&t);
	h.b[0].size = 1;
	send_good(&t, WIRE_HELLO, 0, &h, sizeof(h));
	refused(&t, "impossible blocks");
	begin(&t);
	send_good(&t, WIRE_HELLO, 0, &usual, sizeof(usual));
	send_good(&t, WIRE_CONFIG, 0, "{}", 2);
	refused(&t, "of another kind");
	begin(&t);
	send_good(&t, WIRE_HELLO, 0, &usual, sizeof(usual));
	send_good(&t, WIRE_STATE, 0, "", 0);
	refused(&t, "wrong time");
}

static void test_lengths(void **state)
{
	struct wire_head h;
	struct talk t;

	greet(&t);
	wire_head_init(&h, WIRE_STATE, 0, 0);
	wire_seal(&h, t.seq, UINT32_MAX, 0);
	send_raw(&t, &h, sizeof(h));
	refused(&t, "impossible length");
	greet(&t);
	send_frame(&t, WIRE_ZERO, 0, 5000, NULL, 0, 0);
	refused(&t, "impossible pages");
	greet(&t);
	send_frame(&t, WIRE_ZERO, 99, 2, NULL, 0, 0); /* 100 pages */
	refused(&t, "does not have");
	greet(&t);
	send_frame(&t, WIRE_ZERO, 1ULL << 30, 1, NULL, 0, 0);
	refused(&t, "does not have");
}

static void test_pages(void **state)
{
	uint8_t buf[8 + RAM_PAGE_SIZE];
	struct talk t;
	uint64_t h;

	memset(buf + 8, 0x5a, RAM_PAGE_SIZE);
	h = digest_page(buf + 8);
	memcpy(buf, &h, 8);
	greet(&t);
	buf[1000] ^= 1;
	send_frame(&t, WIRE_PAGES, 3, 1, buf, sizeof(buf), wire_sum(buf, 8));
	refused(&t, "checksum of page 0x3000 is wrong");
	buf[1000] ^= 1;
	greet(&t);
	send_frame(&t, WIRE_PAGES, 3, 1, buf, sizeof(buf), 0);
	refused(&t, "checksum of a frame");
	greet(&t);
	t.seq++;
	send_frame(&t, WIRE_PAGES, 3, 1, buf, sizeof(buf), wire_sum(buf, 8));
	refused(&t, "missing or came twice");
	greet(&t);
	send_frame(&t, WIRE_PAGES, 3, 1, buf, sizeof(buf), wire_sum(buf, 8));
	send_good(&t, WIRE_END, 2, NULL, 0);
	refused(&t, "2 pages were sent and 1 came");
	greet(&t);
	send_good(&t, WIRE_END, 0, NULL, 0);
	send_frame(&t, WIRE_PAGES, 3, 1, buf, sizeof(buf), wire_sum(buf, 8));
	refused(&t, "pages after END");
}

static void test_zstd(void **state)
{
	uint8_t buf[8 + 100] = { 1 };
	struct wire_head h;
	struct talk t;

	greet(&t);
	wire_head_init(&h, WIRE_PAGES, 0, 1);
	h.flags = WIRE_F_ZSTD;
	wire_seal(&h, t.seq, sizeof(buf), wire_sum(buf, 8));
	send_raw(&t, &h, sizeof(h));
	send_raw(&t, buf, sizeof(buf));
	refused(&t, "compressed pages are broken");
}

static void test_order(void **state)
{
	struct wire_digest d = { 1, 1 };
	struct talk t;

	greet(&t);
	send_good(&t, WIRE_STATE, 0, "", 0);
	refused(&t, "END is missing");
	greet(&t);
	send_good(&t, WIRE_HANDOVER, 0, NULL, 0);
	refused(&t, "wrong time");
	greet(&t);
	send_good(&t, WIRE_END, 0, NULL, 0);
	send_good(&t, WIRE_HANDOVER, 0, NULL, 0);
	refused(&t, "HANDOVER at the wrong time");
	greet(&t);
	send_good(&t, WIRE_END, 0, NULL, 0);
	send_good(&t, WIRE_DIGEST, 0, &d, sizeof(d));
	refused(&t, "DIGEST at the wrong time");
	greet(&t);
	send_good(&t, WIRE_END, 0, NULL, 0);
	send_good(&t, WIRE_STATE, 0, "xx", 2);
	refused(&t, "section machine is missing");
	greet(&t);
	send_good(&t, WIRE_ERROR, 0, "out of luck", 11);
	refused(&t, "the source says: out of luck");
	/* Neither for a terminal nor for JSON */
	greet(&t);
	send_good(&t, WIRE_ERROR, 0, "out\033[2J \xff of", 12);
	refused(&t, "the source says: out?[2J ? of");
}

/* Gone in the middle: undone, and the next one is served. */
static void test_gone(void **state)
{
	char uri[CHAN_URI_MAX];
	struct incoming_conf ic = { .uri = test_uri(true, uri) };
	struct incoming_status st;
	uint64_t deadline;
	struct talk t = { 0 };

	assert_int_equal(twin_start(&t.twin, &ic), 0);
	for (unsigned int i = 1; i <= 3; i++) {
		assert_int_equal(chan_connect(uri, NULL, 1000, NULL, &t.c), 0);
		t.seq = 0;
		send_good(&t, WIRE_HELLO, 0, &usual, sizeof(usual));
		send_good(&t, WIRE_CONFIG, 0, CONFIG, sizeof(CONFIG) - 1);
		chan_close(t.c);
		deadline = clock_ns() + 10000000000ULL;
		do
			incoming_status(t.twin.in, &st);
		while (st.failures < i && clock_ns() < deadline);
		assert_int_equal(st.failures, i);
		assert_int_equal(t.twin.abandoned, t.twin.prepared);
	}
	/* Who connects and says nothing is no failure. */
	assert_int_equal(chan_connect(uri, NULL, 1000, NULL, &t.c), 0);
	chan_close(t.c);
	incoming_cancel(t.twin.in);
	assert_int_equal(twin_join(&t.twin), -ECANCELED);
	incoming_status(t.twin.in, &st);
	assert_int_equal(st.failures, 3);
	twin_fini(&t.twin);
}

/* ---- a source that has nothing to send ------------------------------------------------ */

#define WORDS 600U

struct quiet {
	struct chan *c; /* the destination's */
	uint32_t seq;
	bool beats;
	uint64_t deadline;
};

/* Pages of zeros, which the destination has. It takes long, until something comes there. */
static int find_slowly(void *arg, uint64_t w, uint64_t *known)
{
	struct quiet *q = arg;
	struct wire_head h;
	void *payload;
	const char *why;

	*known = w + 1;
	if (q->beats || clock_ns() > q->deadline || chan_wait(q->c, 10) != 1)
		return 0;
	assert_int_equal(receiver_head(q->c, q->seq++, ~0U, &h, &payload, &why), 0);
	assert_int_equal(h.type, WIRE_KEEPALIVE);
	q->beats = true;
	return 0;
}

static void test_keepalive(void **state)
{
	struct quiet q = { .deadline = clock_ns() + 5000000000ULL };
	struct sender_conf conf = { .streams = 1, .find = find_slowly, .find_arg = &q };
	char uri[2][CHAN_URI_MAX];
	struct sender_stats st;
	uint64_t bitmap[WORDS + 1];
	struct dirty_set *set;
	struct digest digest;
	struct sender *s;
	uint32_t seq = 0;
	struct chan *c;
	struct ram ram;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	for (unsigned int i = 0; i < 2; i++)
		snprintf(uri[i], sizeof(uri[i]), "fd:%d", pair[i]);
	assert_int_equal(chan_connect(uri[0], NULL, 1000, NULL, &c), 0);
	assert_int_equal(chan_connect(uri[1], NULL, 1000, NULL, &q.c), 0);
	ram_init(&ram);
	assert_int_equal(ram_add(&ram, 0, WORDS * 64ULL * RAM_PAGE_SIZE, 0), 0);
	assert_int_equal(dirty_set_create(&ram, &set), 0);
	assert_int_equal(digest_init(&digest, ram.pages), 0);
	conf.ram = &ram;
	conf.dirty = set;
	conf.digest = &digest;
	conf.chan = &c;
	conf.seq = &seq;
	assert_int_equal(sender_create(&conf, &s), 0);
	memset(bitmap, 0xff, sizeof(bitmap));
	assert_int_equal(sender_round(s, bitmap), 0);
	sender_stats(s, &st);
	assert_int_equal(st.same_pages, WORDS * 64);
	assert_true(q.beats);
	sender_destroy(s);
	dirty_set_destroy(set);
	digest_fini(&digest);
	ram_fini(&ram);
	chan_close(c);
	chan_close(q.c);
	close(pair[0]);
	close(pair[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_not_a_stream),   cmocka_unit_test(test_hello),
		cmocka_unit_test(test_lengths),	       cmocka_unit_test(test_pages),
		cmocka_unit_test(test_zstd),	       cmocka_unit_test(test_order),
		cmocka_unit_test(test_gone),	       cmocka_unit_test(test_keepalive),
		cmocka_unit_test(test_promised),       cmocka_unit_test(test_trickle),
		cmocka_unit_test(test_trickle_cancel),
	};

	log_set_level(LOG_LVL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
