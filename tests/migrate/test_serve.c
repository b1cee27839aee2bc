// SPDX-License-Identifier: BSD-2-Clause
/*
 * A process that waits for a machine gives up, and in the same turn of its loop is asked how it
 * is. It is held in a callback until both have come.
 */
#include <dirent.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../user/lib/log.h"
#include "../../vm-migrate/vmm/serve.h"

#define PATIENCE_MS 30000

static char control[64], uri[64];
static int to[2], from[2]; /* pipes to the process and from it */

/* ---- the process ------------------------------------------------------------------- */

/* The first failure of two: say so, and wait for the word. */
static void on_event(json_t *event)
{
	static bool held;
	char c = 0;

	if (!strcmp(json_string_value(json_object_get(event, "event")), "failure") &&
	    !held) {
		held = true;
		if (write(from[1], &c, 1) != 1 || read(to[0], &c, 1) != 1)
			_exit(2);
	}
	json_decref(event);
}

static void receiver(void)
{
	struct serve_conf c = { .control = control,
				.console = "none",
				.listen = uri,
				.max_failures = 2,
				.event = on_event };
	char why[256];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGSEGV, SIG_DFL); /* not cmocka's */
	log_set_level(LOG_LVL_ERROR);
	c.vm.console_fd = -1;
	_exit(serve_recv(&c, why, sizeof(why)) == SERVE_FAILED ? 0 : 1);
}

/* ---- those who ask it -------------------------------------------------------------- */

static int connected(const char *path)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(sun.sun_path, path);
	for (int ms = 0; connect(fd, (struct sockaddr *)&sun, sizeof(sun)); ms += 10) {
		assert_in_range(ms, 0, PATIENCE_MS);
		poll(NULL, 0, 10);
	}
	return fd;
}

static void ask(int fd)
{
	static const char line[] = "{\"cmd\":\"status\"}\n";

	assert_int_equal(send(fd, line, sizeof(line) - 1, MSG_NOSIGNAL),
			 sizeof(line) - 1);
}

static void answers(int fd, const char *state)
{
	char line[1024];
	size_t n = 0;

	do {
		ssize_t got = recv(fd, line + n, sizeof(line) - 1 - n, 0);

		if (got <= 0)
			fail_msg("no answer");
		n += (size_t)got;
	} while (line[n - 1] != '\n');
	line[n] = '\0';
	assert_non_null(strstr(line, state));
}

/* A migration that is none */
static void come_and_fail(void)
{
	int fd = connected(uri + strlen("unix:"));
	char junk[64] = "junk";

	assert_int_equal(send(fd, junk, sizeof(junk), MSG_NOSIGNAL), sizeof(junk));
	shutdown(fd, SHUT_WR);
	while (recv(fd, junk, sizeof(junk), 0) > 0)
		;
	close(fd);
}

static unsigned int threads(pid_t pid)
{
	unsigned int n = 0;
	char path[64];
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	d = opendir(path);
	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void test_asked_when_it_gave_up(void **state)
{
	struct pollfd said = { .events = POLLIN };
	unsigned int before;
	int fd, status;
	pid_t pid;
	char c = 0;

	snprintf(control, sizeof(control), "/tmp/test_serve.%d", (int)getpid());
	snprintf(uri, sizeof(uri), "unix:/tmp/test_serve.%d.in", (int)getpid());
	assert_int_equal(pipe(to) || pipe(from), 0);
	pid = fork();
	if (!pid)
		receiver();
	fd = connected(control);
	ask(fd);
	answers(fd, "incoming");
	come_and_fail();
	said.fd = from[0];
	assert_int_equal(poll(&said, 1, PATIENCE_MS), 1);
	before = threads(pid);
	come_and_fail();
	for (int ms = 0; threads(pid) >= before; ms += 10) {
		assert_in_range(ms, 0, PATIENCE_MS);
		poll(NULL, 0, 10);
	}
	ask(fd);
	assert_int_equal(write(to[1], &c, 1), 1);
	answers(fd, "ending");
	close(fd);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_asked_when_it_gave_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
