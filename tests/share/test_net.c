// SPDX-License-Identifier: BSD-2-Clause
/* net: every transport carries bytes as they are, in pieces, and says when it is over. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <cmocka.h>

#include "../../user/share/net.h"

#define BYTES (3u << 20)

static char path[] = "/tmp/test_net.XXXXXX";

struct server {
	const char *addr;
	const struct net_tls *tls;
	int listener;
	int err;
};

/* Take one connection, send back what comes, until its end. */
static void *echo(void *arg)
{
	struct server *s = arg;
	struct pollfd p = { .fd = s->listener, .events = POLLIN };
	static uint8_t buf[BYTES];
	struct iovec iov = { buf, BYTES };
	struct net_conn c;

	if (poll(&p, 1, 30000) != 1) {
		s->err = -ETIMEDOUT;
		return NULL;
	}
	s->err = net_accept(s->listener, s->addr, s->tls, &c);
	if (s->err)
		return NULL;
	s->err = net_recv_all(&c, buf, BYTES, 5000);
	if (!s->err)
		s->err = net_send_all(&c, &iov, 1, 5000);
	net_close(&c);
	return NULL;
}

static void carry(const char *addr, const struct net_tls *tls)
{
	struct server s = { .addr = addr, .tls = tls };
	uint8_t *out = malloc(BYTES), *in = malloc(BYTES);
	struct iovec iov[3] = { { out, 1 },
				{ out + 1, 70000 },
				{ out + 70001, BYTES - 70001 } };
	struct net_conn c;
	pthread_t t;

	assert_non_null(out);
	assert_non_null(in);
	for (size_t i = 0; i < BYTES; i++)
		out[i] = (uint8_t)(i * 2654435761u >> 13);
	s.listener = net_listen(addr);
	assert_true(s.listener >= 0);
	assert_int_equal(net_accept(s.listener, addr, tls, &c), -EAGAIN);
	assert_int_equal(pthread_create(&t, NULL, echo, &s), 0);
	assert_int_equal(net_connect(addr, tls, 5000, &c), 0);
	assert_int_equal(net_recv_all(&c, in, 1, 20), -ETIMEDOUT);
	assert_int_equal(net_send_all(&c, iov, 3, 5000), 0);
	assert_int_equal(net_recv_all(&c, in, BYTES, 5000), 0);
	assert_memory_equal(in, out, BYTES);
	assert_int_equal(net_recv_all(&c, in, 1, 5000), -ECONNRESET);
	net_close(&c);
	net_close(&c);
	pthread_join(t, NULL);
	assert_int_equal(s.err, 0);
	close(s.listener);
	free(out);
	free(in);
}

/* A port of loopback that nobody listens on at the moment. */
static void free_port(char *out, size_t n, const char *format)
{
	struct sockaddr_in sin = { .sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(sin);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&sin, len), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sin, &len), 0);
	close(fd);
	snprintf(out, n, format, ntohs(sin.sin_port));
}

static void test_tcp(void **state)
{
	char addr[64];

	free_port(addr, sizeof(addr), "tcp:127.0.0.1:%u");
	carry(addr, NULL);
}

/* Two users of one key; who has another key, none, or speaks plainly gets nothing. */
static void make_keys(const char *dir, const char *user, const char *hex, bool server,
		      struct net_tls **out)
{
	struct tls_conf conf = { .mode = TLS_PSK, .dir = dir, .hostname = user };
	char file[100];
	FILE *f;

	snprintf(file, sizeof(file), "%s/keys.psk", dir);
	f = fopen(file, "w");
	assert_non_null(f);
	fprintf(f, "%s:%s\n", user ? user : NET_TLS_USER, hex);
	fclose(f);
	assert_int_equal(net_tls_create(&conf, server, NULL, out), 0);
}

static void refuse(const char *addr, const struct net_tls *server,
		   const struct net_tls *client, int want)
{
	struct server s = { .addr = addr, .tls = server };
	struct net_conn c = { .fd = -1 };
	char byte = 0;
	struct iovec iov = { &byte, 1 };
	pthread_t t;
	int err;

	s.listener = net_listen(addr);
	assert_true(s.listener >= 0);
	assert_int_equal(pthread_create(&t, NULL, echo, &s), 0);
	err = net_connect(addr, client, 5000, &c);
	if (!err)
		err = net_send_all(&c, &iov, 1, 5000);
	if (!err)
		err = net_recv_all(&c, &byte, 1, 5000);
	assert_int_equal(err, want);
	net_close(&c);
	pthread_join(t, NULL);
	assert_int_not_equal(s.err, 0);
	close(s.listener);
}

static void test_tls(void **state)
{
	struct net_tls *a, *b, *other;
	struct net_conn c;
	char addr[64], plain[64], file[100];

	make_keys(path, NULL, "00112233445566778899aabbccddeeff", false, &other);
	make_keys(path, NULL, "0123456789abcdef0123456789abcdef", false, &b);
	make_keys(path, NULL, "0123456789abcdef0123456789abcdef", true, &a);
	free_port(addr, sizeof(addr), "tls:127.0.0.1:%u");
	carry(addr, a);
	refuse(addr, a, other, -EPROTO);
	assert_int_equal(net_connect(addr, NULL, 1000, &c), -EPROTO);
	snprintf(plain, sizeof(plain), "tcp%s", addr + 3);
	assert_int_equal(net_connect(plain, b, 1000, &c), -EPROTO);
	net_tls_destroy(a);
	net_tls_destroy(b);
	net_tls_destroy(other);
	snprintf(file, sizeof(file), "%s/keys.psk", path);
	unlink(file);
}

static void test_unix(void **state)
{
	char addr[64];

	snprintf(addr, sizeof(addr), "unix:%s/sock", path);
	carry(addr, NULL);
	carry(addr, NULL); /* the socket left behind is in nobody's way */
	unlink(addr + 5);
}

static void test_nobody(void **state)
{
	struct net_conn c;
	char addr[64];

	free_port(addr, sizeof(addr), "tcp:127.0.0.1:%u");
	assert_int_equal(net_connect(addr, NULL, 1000, &c), -ECONNREFUSED);
	snprintf(addr, sizeof(addr), "unix:%s/none", path);
	assert_int_equal(net_connect(addr, NULL, 1000, &c), -ENOENT);
}

static void test_bad(void **state)
{
	static const char *const bad[] = { "",
					   "tcp:",
					   "tcp:127.0.0.1",
					   "tcp::7",
					   "tcp:127.0.0.1:seven",
					   "udp:127.0.0.1:7",
					   "unix:",
					   "127.0.0.1:7" };
	char longest[NET_ADDR_MAX + 200] = "unix:/";
	struct net_conn c;

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		assert_int_equal(net_listen(bad[i]), -EINVAL);
		assert_int_equal(net_connect(bad[i], NULL, 100, &c), -EINVAL);
	}
	memset(longest + 6, 'x', sizeof(longest) - 7);
	assert_int_equal(net_listen(longest), -EINVAL);
}

static void resolves(const char *addr, const char *v4, const char *v6)
{
	char out[NET_ADDR_MAX];

	assert_int_equal(net_resolve(addr, out), 0);
	if (strcmp(out, v6))
		assert_string_equal(out, v4);
}

/* Names are looked up by net_resolve() and net_listen(), and by nobody who serves others. */
static void test_names(void **state)
{
	static const char *const numbers[] = { "tcp:127.0.0.1:7", "tls:[::1]:7",
					       "tls:n1.example@[::1]:7", "unix:/sock" };
	char addr[64], out[NET_ADDR_MAX];
	struct net_conn c, peer;
	int listener;

	for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++)
		resolves(numbers[i], numbers[i], numbers[i]);
	resolves("tcp:localhost:7", "tcp:127.0.0.1:7", "tcp:[::1]:7");
	resolves("tls:localhost:7", "tls:localhost@127.0.0.1:7", "tls:localhost@[::1]:7");
	resolves("tls:n1@localhost:7", "tls:n1@127.0.0.1:7", "tls:n1@[::1]:7");
	assert_int_equal(net_resolve("tcp:localhost", out), -EINVAL);
	assert_int_equal(net_resolve("udp:localhost:7", out), -EINVAL);
	free_port(addr, sizeof(addr), "tcp:localhost:%u");
	listener = net_listen(addr);
	assert_true(listener >= 0);
	assert_int_equal(net_connect(addr, NULL, 5000, &c), -EINVAL);
	assert_int_equal(net_resolve(addr, out), 0);
	assert_int_equal(net_connect(out, NULL, 5000, &c), 0);
	assert_int_equal(net_accept(listener, "tcp:no-such-host.invalid:7", NULL, &peer),
			 0);
	net_close(&c);
	net_close(&peer);
	close(listener);
}

static volatile sig_atomic_t ticks;

static void tick(int sig)
{
	static const struct itimerval off;

	if (++ticks == 1000) /* for ever, were it not for this */
		setitimer(ITIMER_REAL, &off, NULL);
}

/* A signal, and another one, put off the end of no wait. */
static void test_signals(void **state)
{
	static const struct itimerval often = { { 0, 10000 }, { 0, 10000 } }, off;
	struct sigaction sa = { .sa_handler = tick }, old;
	uint8_t *bytes = calloc(1, BYTES), byte;
	struct iovec iov = { bytes, BYTES };
	struct net_conn c, peer;
	char addr[64];
	int listener;

	assert_non_null(bytes);
	snprintf(addr, sizeof(addr), "unix:%s/sock", path);
	listener = net_listen(addr);
	assert_true(listener >= 0);
	assert_int_equal(net_connect(addr, NULL, 5000, &c), 0);
	assert_int_equal(net_accept(listener, addr, NULL, &peer), 0);
	assert_int_equal(sigaction(SIGALRM, &sa, &old), 0);
	assert_int_equal(setitimer(ITIMER_REAL, &often, NULL), 0);
	assert_int_equal(net_recv_all(&c, &byte, 1, 100), -ETIMEDOUT);
	assert_int_equal(net_send_all(&c, &iov, 1, 100), -ETIMEDOUT);
	assert_int_equal(setitimer(ITIMER_REAL, &off, NULL), 0);
	assert_int_equal(sigaction(SIGALRM, &old, NULL), 0);
	assert_in_range(ticks, 1, 999);
	net_close(&c);
	net_close(&peer);
	close(listener);
	unlink(addr + 5);
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tcp),   cmocka_unit_test(test_tls),
		cmocka_unit_test(test_unix),  cmocka_unit_test(test_nobody),
		cmocka_unit_test(test_bad),   cmocka_unit_test(test_signals),
		cmocka_unit_test(test_names),
	};
	int rc;

	if (!mkdtemp(path))
		return 1;
	rc = cmocka_run_group_tests(tests, NULL, NULL);
	return rmdir(path) ? 1 : rc;
}
