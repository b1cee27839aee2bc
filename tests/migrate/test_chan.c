// SPDX-License-Identifier: BSD-2-Clause
/*
 * chan: addresses, ends, TLS with right and wrong credentials (creds.h).
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "../../vm-migrate/stream/chan.h"
#include "creds.h"
#include "machine.h"

struct ends {
	struct chan_listener *l;
	struct chan *server, *client;
	int accepted, err; /* of accept; of the first read behind it */
	char why[256];
	pthread_t thread;
};

static void *serve(void *arg)
{
	struct ends *e = arg;
	char byte;

	e->accepted = chan_accept(e->l, 5000, &e->server);
	if (!e->accepted)
		e->err = chan_read(e->server, &byte, 1);
	if (e->accepted || e->err)
		snprintf(e->why, sizeof(e->why), "%s", chan_error());
	return NULL;
}

/* Connect, write a byte, read one back. Return: 0 or the first error of the client */
static int meet(struct ends *e, const struct chan_tls *server,
		const struct chan_tls *client, bool unix_socket)
{
	char uri[CHAN_URI_MAX], byte = 'x';
	struct iovec iov = { &byte, 1 };
	int err;

	memset(e, 0, sizeof(*e));
	if (chan_listen(test_uri(unix_socket, uri), server, &e->l))
		fail_msg("%s", chan_error());
	assert_int_equal(pthread_create(&e->thread, NULL, serve, e), 0);
	err = chan_connect(chan_listener_uri(e->l), client, 3000, NULL, &e->client);
	if (!err)
		err = chan_write(e->client, &iov, 1);
	pthread_join(e->thread, NULL);
	if (e->server) {
		iov = (struct iovec){ &byte, 1 };
		if (!e->accepted && !e->err)
			e->err = chan_write(e->server, &iov, 1);
		if (e->err)
			chan_shutdown(e->server);
	}
	if (!err)
		err = chan_read(e->client, &byte, 1);
	return err;
}

static void part(struct ends *e)
{
	chan_close(e->client);
	chan_close(e->server);
	chan_listener_close(e->l);
}

static void test_plain(void **state)
{
	struct ends e;
	char buf[8];

	for (int u = 0; u < 2; u++) {
		assert_int_equal(meet(&e, NULL, NULL, u), 0);
		assert_int_equal(chan_wait(e.client, 0), 0);
		assert_false(chan_gone(e.client));
		chan_end(e.server);
		assert_int_equal(chan_wait(e.client, 1000), 1);
		assert_true(chan_gone(e.client));
		assert_int_equal(chan_read(e.client, buf, 8), -ENODATA);
		part(&e);
	}
}

static void test_timeouts(void **state)
{
	struct iovec iov;
	struct ends e;
	char byte, *big = malloc(64 << 20);

	assert_int_equal(meet(&e, NULL, NULL, false), 0);
	chan_set_read_timeout(e.client, 50);
	assert_int_equal(chan_read(e.client, &byte, 1), -ETIMEDOUT);
	/* Nobody reads. */
	chan_set_write_timeout(e.client, 50);
	memset(big, 1, 64 << 20);
	iov = (struct iovec){ big, 64 << 20 };
	assert_int_equal(chan_write(e.client, &iov, 1), -ETIMEDOUT);
	chan_shutdown(e.client);
	assert_int_equal(chan_read(e.client, &byte, 1), -ECANCELED);
	part(&e);
	free(big);
}

static int option(int fd, int level, int name)
{
	socklen_t len = sizeof(int);
	int v = -1;

	assert_int_equal(getsockopt(fd, level, name, &v, &len), 0);
	return v;
}

/* The kernel finds out that a peer is gone, whether something is on its way to it or
 * nothing is. Both in CHAN_DEAD_MS. */
static void test_dead_peers(void **state)
{
	struct sockaddr_in sin = { .sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(sin);
	int l = socket(AF_INET, SOCK_STREAM, 0), fd = socket(AF_INET, SOCK_STREAM, 0);
	char uri[CHAN_URI_MAX];
	struct chan *c;

	assert_int_equal(bind(l, (struct sockaddr *)&sin, len), 0);
	assert_int_equal(listen(l, 1), 0);
	assert_int_equal(getsockname(l, (struct sockaddr *)&sin, &len), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&sin, len), 0);
	snprintf(uri, sizeof(uri), "fd:%d", fd);
	assert_int_equal(chan_connect(uri, NULL, 1000, NULL, &c), 0);
	assert_int_equal(option(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
	assert_int_equal(option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), CHAN_DEAD_MS);
	assert_true(option(fd, IPPROTO_TCP, TCP_KEEPIDLE) +
			    option(fd, IPPROTO_TCP, TCP_KEEPINTVL) *
				    option(fd, IPPROTO_TCP, TCP_KEEPCNT) <=
		    CHAN_DEAD_MS / 1000);
	chan_close(c);
	close(fd);
	close(l);
}

static void test_addresses(void **state)
{
	static const char *const bad[] = {
		"",	 "tcp:", "tcp:host", "tcp:h:99999", "tcp:h:x",	     "tcp:::1:5",
		"unix:", "fd:",	 "fd:x",     "fd:-1",	    "http://host:80"
	};
	struct chan_listener *l, *other;
	char uri[CHAN_URI_MAX];
	struct chan *c;
	int pair[2];

	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(chan_connect(bad[i], NULL, 100, NULL, &c), -EINVAL);
	assert_int_equal(chan_connect("tcp:127.0.0.1:1", NULL, 1000, NULL, &c),
			 -ECONNREFUSED);
	assert_int_equal(chan_connect("unix:/nowhere/at/all", NULL, 1000, NULL, &c),
			 -ENOENT);
	assert_int_equal(chan_connect("fd:987", NULL, 1000, NULL, &c), -EBADF);
	/* A socket that is in use is not taken away, a stale one is. */
	test_uri(true, uri);
	assert_int_equal(chan_listen(uri, NULL, &l), 0);
	assert_int_equal(chan_listen(uri, NULL, &other), -EADDRINUSE);
	chan_listener_close(l);
	assert_int_equal(access(uri + 5, F_OK), -1);
	assert_int_equal(chan_listen("tcp:[::1]:0", NULL, &l), 0);
	assert_int_equal(strncmp(chan_listener_uri(l), "tcp:[::1]:", 10), 0);
	chan_listener_close(l);
	/* A connection that is open serves once. */
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	snprintf(uri, sizeof(uri), "fd:%d", pair[0]);
	assert_int_equal(chan_listen(uri, NULL, &l), 0);
	assert_int_equal(chan_accept(l, 0, &c), 0);
	chan_close(c);
	assert_int_equal(chan_accept(l, 0, &c), -ENOTCONN);
	chan_listener_close(l);
	close(pair[0]);
	close(pair[1]);
}

static void good(enum chan_tls_mode mode, const char *dir, bool unix_socket)
{
	struct chan_tls tls;
	struct ends e;
	char path[100];
	int err;

	creds_tls(&tls, path, mode, dir);
	if (unix_socket)
		tls.hostname = mode == CHAN_TLS_X509 ? "localhost" : NULL;
	err = meet(&e, &tls, &tls, unix_socket);
	if (err)
		fail_msg("%s; %s", chan_error(), e.why);
	assert_true(chan_is_tls(e.client));
	part(&e);
}

static void test_tls_good(void **state)
{
	good(CHAN_TLS_X509, "good", false);
	good(CHAN_TLS_X509, "good", true);
	good(CHAN_TLS_PSK, "psk", false);
	good(CHAN_TLS_PSK, "psk", true);
}

/* Neither side gets a byte of the other, and one says @says. */
static void refused(enum chan_tls_mode server_mode, const char *server,
		    enum chan_tls_mode client_mode, const char *client,
		    const char *hostname, const char *says)
{
	struct chan_tls s, c;
	struct ends e;
	char sdir[100], cdir[100];
	int err;

	creds_tls(&s, sdir, server_mode, server);
	creds_tls(&c, cdir, client_mode, client);
	c.hostname = hostname;
	err = meet(&e, &s, &c, false);
	print_message("client: %d %s; server: %s\n", err, err ? chan_error() : "fine",
		      e.why);
	assert_true(err == -EACCES || err == -EPROTO || err == -ETIMEDOUT ||
		    e.accepted == -EACCES);
	assert_true(e.accepted || e.err);
	assert_true(err);
	if (!strstr(chan_error(), says) && !strstr(e.why, says))
		fail_msg("nobody says: %s", says);
	part(&e);
}

static void test_tls_bad(void **state)
{
	/* Each is of an authority that the other does not know. */
	refused(CHAN_TLS_X509, "good", CHAN_TLS_X509, "other", NULL,
		"certificate is refused");
	refused(CHAN_TLS_X509, "good", CHAN_TLS_X509, "good", "elsewhere.example",
		"certificate is refused");
	refused(CHAN_TLS_X509, "expired", CHAN_TLS_X509, "good", NULL, "expired");
	refused(CHAN_TLS_X509, "good", CHAN_TLS_X509, "expired", NULL, "expired");
	refused(CHAN_TLS_X509, "good", CHAN_TLS_X509, "revoked", NULL, "revoked");
	refused(CHAN_TLS_X509, "revoked", CHAN_TLS_X509, "good", NULL, "revoked");
	refused(CHAN_TLS_PSK, "psk", CHAN_TLS_PSK, "psk2", NULL, "TLS: ");
	refused(CHAN_TLS_PSK, "psk", CHAN_TLS_X509, "good", NULL, "TLS: ");
	refused(CHAN_TLS_X509, "good", CHAN_TLS_PSK, "psk", NULL, "TLS: ");
}

static void test_tls_missing(void **state)
{
	struct chan_listener *l;
	struct chan_tls tls;
	struct chan *c;
	char dir[100];

	creds_tls(&tls, dir, CHAN_TLS_X509, "none");
	assert_int_equal(chan_listen("tcp:127.0.0.1:0", &tls, &l), -EACCES);
	assert_non_null(strstr(chan_error(), "ca-cert.pem"));
	creds_tls(&tls, dir, CHAN_TLS_PSK, "none");
	assert_int_equal(chan_listen("tcp:127.0.0.1:0", &tls, &l), -EACCES);
	assert_non_null(strstr(chan_error(), "keys.psk"));
	creds_tls(&tls, dir, CHAN_TLS_PSK, "psk");
	tls.hostname = "nobody";
	assert_int_equal(chan_connect("tcp:127.0.0.1:1", &tls, 1000, NULL, &c), -EACCES);
	assert_non_null(strstr(chan_error(), "no key of user nobody"));
}

/* A client without TLS, and one that says nothing, do not get in. */
static void test_tls_none(void **state)
{
	struct chan_tls tls;
	struct ends e;
	char dir[100];

	creds_tls(&tls, dir, CHAN_TLS_PSK, "psk");
	meet(&e, &tls, NULL, false); /* reads an alert, if anything */
	assert_true(e.accepted == -EACCES || e.accepted == -EPROTO ||
		    e.accepted == -ETIMEDOUT);
	part(&e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain),	    cmocka_unit_test(test_dead_peers),
		cmocka_unit_test(test_timeouts),    cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_tls_good),    cmocka_unit_test(test_tls_bad),
		cmocka_unit_test(test_tls_missing), cmocka_unit_test(test_tls_none),
	};

	return cmocka_run_group_tests(tests, creds_make, creds_remove);
}
