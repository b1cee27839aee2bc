// SPDX-License-Identifier: BSD-2-Clause
/*
 * QMP against a listener that says what the case wants; a real QEMU is in qemu.sh. And
 * the texts that name QEMU's RAM.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#include "../../user/lib/clock.h"
#include "../../vm-migrate/qemu/qemu_parse.h"
#include "../../vm-migrate/qemu/qmp.h"

#define GREETING                                                                         \
	"{\"QMP\":{\"version\":{\"qemu\":{\"micro\":1,\"minor\":2,\"major\":8},"         \
	"\"package\":\"\"},\"capabilities\":[]}}\r\n"
#define OK(id)	    "{\"return\":{},\"id\":" #id "}\r\n"
#define EVENT	    "{\"timestamp\":{\"seconds\":10,\"microseconds\":7},\"event\":\"STOP\"}\r\n"
#define SHORT_MS    200
#define PATIENCE_MS 30000

/* A listener for one client: sends script[0], then script[n] after the n-th line. */
struct server {
	struct sockaddr_un sa;
	int fd;
	const char *const *script; /* NULL ends it, and the connection */
	bool stay;		   /* until the client closes */
	bool flood;		   /* events after the script, for ever */
	size_t huge;		   /* bytes without a newline after the script */
	pthread_t thread;
};

static bool read_line(int fd)
{
	char c;

	while (read(fd, &c, 1) == 1)
		if (c == '\n')
			return true;
	return false;
}

static bool put(int fd, const char *s, size_t len)
{
	return send(fd, s, len, MSG_NOSIGNAL) == (ssize_t)len;
}

static void *serve(void *arg)
{
	struct server *s = arg;
	int fd = accept(s->fd, NULL, NULL);
	char buf[65536];

	for (const char *const *p = s->script; *p; p++) {
		put(fd, *p, strlen(*p));
		if (p[1] && !read_line(fd))
			break;
	}
	while (s->flood && put(fd, EVENT, strlen(EVENT)))
		;
	memset(buf, ' ', sizeof(buf));
	for (size_t n = 0; n < s->huge && put(fd, buf, sizeof(buf)); n += sizeof(buf))
		;
	while (s->stay && read_line(fd))
		;
	close(fd);
	return NULL;
}

static void start(struct server *s)
{
	static unsigned int n;

	s->sa.sun_family = AF_UNIX;
	snprintf(s->sa.sun_path, sizeof(s->sa.sun_path), "/tmp/test_qmp.%d.%u", getpid(),
		 n++);
	s->fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(s->fd, (struct sockaddr *)&s->sa, sizeof(s->sa)), 0);
	assert_int_equal(listen(s->fd, 1), 0);
	assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

static void end(struct server *s)
{
	pthread_join(s->thread, NULL);
	close(s->fd);
	unlink(s->sa.sun_path);
}

static int dial(struct server *s, int ms, struct qmp **q, char why[512])
{
	start(s);
	return qmp_connect(s->sa.sun_path, "source", ms, q, why, 512);
}

static void refuses(struct server *s, int ms, int want, const char *words)
{
	struct qmp *q = NULL;
	char why[512] = "";
	int err = dial(s, ms, &q, why);

	assert_int_equal(err, want);
	assert_null(q);
	assert_non_null(strstr(why, words));
	end(s);
}

static void test_greeting(void **state)
{
	static const char *const nothing[] = { "", NULL };
	static const char *const http[] = { "HTTP/1.1 400 Bad Request\r\n", NULL };
	static const char *const other[] = { "{\"hello\":1}\r\n", NULL };
	static const char *const event[] = { EVENT, NULL };
	static const char *const negative[] = {
		"{\"QMP\":{\"version\":{\"qemu\":{\"micro\":1,\"minor\":-2,\"major\":8}}}"
		"}\n",
		NULL
	};
	struct qmp *q;
	char why[512];

	refuses(&(struct server){ .script = nothing, .stay = true }, SHORT_MS, -ETIMEDOUT,
		"another client");
	refuses(&(struct server){ .script = nothing }, PATIENCE_MS, -EPIPE, "closed");
	refuses(&(struct server){ .script = http }, PATIENCE_MS, -EPROTO, "QMP");
	refuses(&(struct server){ .script = other }, PATIENCE_MS, -EPROTO, "QMP");
	refuses(&(struct server){ .script = event }, PATIENCE_MS, -EPROTO, "QMP");
	refuses(&(struct server){ .script = negative }, PATIENCE_MS, -EPROTO, "QMP");
	refuses(&(struct server){ .script = nothing, .huge = 2 * QMP_MAX_MESSAGE },
		PATIENCE_MS, -EPROTO, "QMP");
	assert_int_equal(qmp_connect("/nowhere/at/all", "source", SHORT_MS, &q, why, 512),
			 -ENOENT);
	assert_non_null(strstr(why, "no QEMU listens"));
}

struct seen {
	unsigned int n;
	uint64_t us;
};

static void on_event(void *arg, const char *name, const json_t *data, uint64_t us)
{
	struct seen *s = arg;

	assert_string_equal(name, "STOP");
	s->n++;
	s->us = us;
}

static void test_call(void **state)
{
	static const char *const script[] = {
		GREETING, OK(1), EVENT EVENT "{\"id\":2,\"return\":{\"x\":5}}\r\n" EVENT,
		"{\"id\":3,\"error\":{\"class\":\"GenericError\",\"desc\":\"a\\u001bb\"}}"
		"\n",
		NULL
	};
	struct server s = { .script = script };
	struct seen seen = { 0 };
	json_t *ret = NULL;
	char why[512];
	struct qmp *q;

	assert_int_equal(dial(&s, PATIENCE_MS, &q, why), 0);
	assert_int_equal(qmp_version(q), 8002001);
	assert_int_equal(qmp_pid(q), getpid());
	qmp_on_event(q, on_event, &seen);
	assert_int_equal(qmp_call(q, "query-x", NULL, &ret), 0);
	assert_int_equal(json_integer_value(json_object_get(ret, "x")), 5);
	json_decref(ret);
	assert_int_equal(seen.n, 2);
	assert_int_equal(seen.us, 10000007);
	assert_int_equal(qmp_pump(q, PATIENCE_MS), 1);
	assert_int_equal(qmp_call(q, "bad", json_pack("{s:i}", "a", 1), &ret),
			 -EREMOTEIO);
	assert_string_equal(qmp_error(q), "source: bad: a?b");
	assert_int_equal(qmp_pump(q, PATIENCE_MS), -EPIPE);
	assert_int_equal(qmp_call(q, "later", NULL, NULL), -EPIPE);
	qmp_close(q);
	end(&s);
}

/* An answer to something else, one that never comes, and nothing but events. */
static void test_broken(void **state)
{
	static const char *const stale[] = { GREETING, OK(1), OK(1), NULL };
	static const char *const none[] = { GREETING, OK(1), "{\"id\":2,", NULL };
	static const char *const plain[] = { GREETING, OK(1), "", NULL };
	struct server s[] = { { .script = stale },
			      { .script = none },
			      { .script = plain, .flood = true } };
	static const int want[] = { -EPROTO, -EPIPE, 0 };
	char why[512];
	struct qmp *q;

	for (int i = 0; i < 2; i++) {
		assert_int_equal(dial(&s[i], PATIENCE_MS, &q, why), 0);
		assert_int_equal(qmp_call(q, "x", NULL, NULL), want[i]);
		qmp_close(q);
		end(&s[i]);
	}
	assert_int_equal(dial(&s[2], PATIENCE_MS, &q, why), 0);
	/* Starts the flood; a pump ends all the same. */
	assert_int_equal(qmp_pump(q, 0), 0);
	qmp_close(q);
	end(&s[2]);
}

static void test_flood(void **state)
{
	static const char *const script[] = { GREETING, OK(1), NULL };
	struct server s = { .script = script, .flood = true };
	uint64_t then = clock_ns();
	char why[512];
	struct qmp *q;

	assert_int_equal(dial(&s, PATIENCE_MS, &q, why), 0);
	for (int i = 0; i < 20; i++)
		assert_true(qmp_pump(q, PATIENCE_MS) > 0);
	assert_true(clock_ns() - then < PATIENCE_MS * 1000000ULL);
	qmp_close(q);
	end(&s);
}

/* ---- texts ------------------------------------------------------------------------- */

#define VIEW "FlatView #1\n AS \"memory\", root: system\n Root memory region: system\n"

static void test_mtree(void **state)
{
	static const char text[] =
		"FlatView #0\r\n AS \"I/O\", root: io\r\n"
		"  0000000000000000-0000000000000fff (prio 0, ram): wrong\r\n\r\n" VIEW
		"  0000000000000000-000000000009ffff (prio 0, ram): one\r\n"
		"  00000000000a0000-00000000000bffff (prio 1, i/o): vga-lowmem\r\n"
		"  00000000000c0000-00000000000c3fff (prio 0, rom): one "
		"@00000000000c0000\r\n"
		"  0000000100000000-000000017fffffff (prio 0, ram): /objects/two "
		"@0000000080000000 KVM\r\n"
		"\r\nFlatView #2\r\n  0000000000000000-0000000000000fff (prio 0, ram): "
		"no\r\n";
	struct qemu_range r[4];

	assert_int_equal(qemu_parse_mtree(text, r, 4), 3);
	assert_string_equal(r[0].name, "one");
	assert_int_equal(r[0].size, 0xa0000);
	assert_int_equal(r[1].gpa, 0xc0000);
	assert_int_equal(r[1].offset, 0xc0000);
	assert_string_equal(r[2].name, "/objects/two");
	assert_int_equal(r[2].offset, 0x80000000);
	assert_int_equal(qemu_parse_mtree(text, r, 2), -ENOSPC);
	assert_int_equal(qemu_parse_mtree("", r, 4), -EBADMSG);
	assert_int_equal(qemu_parse_mtree("no such command", r, 4), -EBADMSG);
	/* Overlapping, and backwards. */
	assert_int_equal(qemu_parse_mtree(VIEW "  0-ffff (prio 0, ram): a\n"
					       "  8000-1ffff (prio 0, ram): a\n",
					  r, 4),
			 -EBADMSG);
	assert_int_equal(qemu_parse_mtree(VIEW "  ffff-0 (prio 0, ram): a\n", r, 4),
			 -EBADMSG);
	assert_int_equal(qemu_parse_mtree(VIEW
					  "  0-fff (prio 0, ram): a @ffffffffffffffff\n",
					  r, 4),
			 -EBADMSG);
}

static void test_texts(void **state)
{
	struct qemu_ramblock b[2];
	struct qemu_map m;
	uint64_t hva;

	assert_int_equal(
		qemu_parse_ramblocks("  Block Name    PSize   Offset   Used   Total\r\n"
				     "  m    4 KiB  0x0000 0x1000 0x2000\r\n"
				     "  big  2 MiB  0x2000 0x3000 0x3000 0x7f00 rw\r\n",
				     b, 2),
		2);
	assert_int_equal(b[0].total, 0x2000);
	assert_string_equal(b[1].name, "big");
	assert_int_equal(qemu_parse_ramblocks("nothing\n", b, 2), -EBADMSG);

	assert_int_equal(
		qemu_parse_hva("Host virtual address for 0x0 (m) is 0x7fd337fff000\r\n",
			       &hva),
		0);
	assert_int_equal(hva, 0x7fd337fff000);
	assert_int_equal(qemu_parse_hva("Memory at address 0x0 is not RAM", &hva),
			 -EBADMSG);

	assert_int_equal(
		qemu_parse_map("7fd337fff000-7fd343fff000 rw-s 00001000 00:01 1052 "
			       "   /memfd:memory-backend-memfd (deleted)\n",
			       &m),
		0);
	assert_true(m.shared && m.writable && m.memfd);
	assert_int_equal(m.offset, 0x1000);
	assert_int_equal(m.inode, 1052);
	assert_int_equal(m.dev_minor, 1);
	assert_int_equal(
		qemu_parse_map("7fd337fff000-7fd343fff000 r--p 00001000 fe:0a 12 /x\n",
			       &m),
		0);
	assert_true(!m.shared && !m.writable && !m.memfd);
	assert_int_equal(m.dev_major, 0xfe);
	assert_int_equal(qemu_parse_map("2000-1000 rw-s 0 00:01 1\n", &m), -EBADMSG);
	assert_int_equal(qemu_parse_map("1000-2000 rw", &m), -EBADMSG);
	assert_int_equal(qemu_parse_map("", &m), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_greeting), cmocka_unit_test(test_call),
		cmocka_unit_test(test_broken),	 cmocka_unit_test(test_flood),
		cmocka_unit_test(test_mtree),	 cmocka_unit_test(test_texts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
