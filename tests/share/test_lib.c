// SPDX-License-Identifier: BSD-2-Clause
/* libghostmem, against an agent that is made up: calls and their replies. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../user/share/lib/lib.h"

#define SHORT_MS 100
#define LONG_MS	 20000

static char dir[] = "/tmp/test_lib.XXXXXX";
static struct sockaddr_un at = { .sun_family = AF_UNIX };

static struct local_msg request(int sock)
{
	struct local_msg m = { 0 };
	int fds[LOCAL_FDS], n;

	if (local_recv(sock, &m, fds, &n) != 1 || n)
		abort();
	return m;
}

static void reply(int sock, const struct local_msg *m)
{
	if (local_send(sock, m, NULL, 0))
		abort();
}

/* What the first request asks for takes long: it is answered after the second. */
static void *late(void *arg)
{
	int sock = accept(*(int *)arg, NULL, NULL);
	struct local_msg a, b, c;

	if (sock < 0)
		abort();
	a = request(sock);
	b = request(sock);
	reply(sock, &b);
	reply(sock, &a);
	c = request(sock);
	reply(sock, &c);
	close(sock);
	return NULL;
}

static int import(struct ghostmem *g, const char *name, int timeout_ms,
		  char got[GM_NAME_MAX])
{
	struct local_msg m = { .op = LOCAL_IMPORT };
	int err;

	strcpy(m.name, name);
	err = lib_call(g, &m, NULL, 0, NULL, NULL, timeout_ms);
	memcpy(got, m.name, GM_NAME_MAX);
	return err;
}

static void test_late_reply(void **state)
{
	int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	char got[GM_NAME_MAX];
	struct ghostmem *g;
	pthread_t agent;

	assert_return_code(listener, errno);
	assert_return_code(bind(listener, (struct sockaddr *)&at, sizeof(at)), errno);
	assert_return_code(listen(listener, 1), errno);
	assert_int_equal(pthread_create(&agent, NULL, late, &listener), 0);
	assert_int_equal(ghostmem_open(at.sun_path, &g), 0);
	assert_int_equal(import(g, "a", SHORT_MS, got), -ETIMEDOUT);
	assert_int_equal(import(g, "b", LONG_MS, got), 0);
	assert_string_equal(got, "b");
	assert_int_equal(import(g, "c", LONG_MS, got), 0);
	assert_string_equal(got, "c");
	ghostmem_close(g);
	pthread_join(agent, NULL);
	close(listener);
	unlink(at.sun_path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_late_reply),
	};
	int failed;

	if (!mkdtemp(dir))
		return 1;
	snprintf(at.sun_path, sizeof(at.sun_path), "%s/agent", dir);
	failed = cmocka_run_group_tests_name("lib", tests, NULL, NULL);
	return rmdir(dir) ? 1 : failed;
}
