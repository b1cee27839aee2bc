// SPDX-License-Identifier: BSD-2-Clause
/*
 * The terminal of `top` and `stats --watch`: taken, cut to its size, left by key or signal,
 * given back as it was. A child process has the terminal, the test is who sits before it.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../loader/term.h"

#define FOREVER 3600 /* s: a wait that ends by what is tested */
#define ALT_ON	"\033[?1049h"
#define ALT_OFF "\033[?1049l"

struct tty {
	int master, slave;
	struct termios before;
	char out[65536]; /* what the child wrote */
	size_t len;
};

static struct tty tty;

static int setup(void **state)
{
	const struct winsize w = { .ws_row = 5, .ws_col = 20 };

	memset(&tty, 0, sizeof(tty));
	tty.master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	assert_true(tty.master >= 0);
	assert_int_equal(grantpt(tty.master), 0);
	assert_int_equal(unlockpt(tty.master), 0);
	tty.slave = open(ptsname(tty.master), O_RDWR | O_NOCTTY | O_CLOEXEC);
	assert_true(tty.slave >= 0);
	assert_int_equal(ioctl(tty.slave, TIOCSWINSZ, &w), 0);
	assert_int_equal(tcgetattr(tty.slave, &tty.before), 0);
	return 0;
}

static int teardown(void **state)
{
	close(tty.slave);
	close(tty.master);
	return 0;
}

/* Run @fn at the terminal, type @keys; reads until it said its last. Return: its status */
static int at_terminal(int (*fn)(void), const char *keys)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (!pid) {
		alarm(60);
		dup2(tty.slave, STDIN_FILENO);
		dup2(tty.slave, STDOUT_FILENO);
		status = fn();
		fputs("\001", stdout); /* the last */
		fflush(stdout);
		_exit(status);
	}
	if (keys)
		assert_int_equal(write(tty.master, keys, strlen(keys)), strlen(keys));
	while (!memchr(tty.out, 1, tty.len)) {
		ssize_t n = read(tty.master, tty.out + tty.len,
				 sizeof(tty.out) - 1 - tty.len);

		assert_true(n > 0);
		tty.len += (size_t)n;
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void as_before(void)
{
	struct termios now;

	assert_int_equal(tcgetattr(tty.slave, &now), 0);
	assert_int_equal(now.c_iflag, tty.before.c_iflag);
	assert_int_equal(now.c_oflag, tty.before.c_oflag);
	assert_int_equal(now.c_cflag, tty.before.c_cflag);
	assert_int_equal(now.c_lflag, tty.before.c_lflag);
	assert_memory_equal(now.c_cc, tty.before.c_cc, sizeof(now.c_cc));
	assert_non_null(strstr(tty.out, ALT_ON));
	assert_non_null(strstr(tty.out, ALT_OFF));
	assert_null(strstr(strstr(tty.out, ALT_OFF), ALT_ON));
}

/* Statuses that say what went wrong. */
static int keys_and_frame(void)
{
	struct termios now;
	unsigned int cols, rows;
	int rc = 0;

	if (!term_open(true))
		return 1;
	if (tcgetattr(STDIN_FILENO, &now) || now.c_lflag & (ECHO | ICANON))
		rc = 2;
	term_size(&cols, &rows);
	if (cols != 20 || rows != 5)
		rc = 3;
	term_frame("short\n\n0123456789012345678901234567890\nfourth\nfifth\nsixth\n");
	/* Only q ends it. */
	if (!rc && term_wait(FOREVER) != TERM_QUIT)
		rc = 4;
	if (!rc && term_wait(0.01) != TERM_TICK)
		rc = 5;
	term_close();
	term_close();
	return rc;
}

static void test_frame(void **state)
{
	assert_int_equal(at_terminal(keys_and_frame, "x\nxq"), 0);
	as_before();
	assert_non_null(strstr(tty.out, "short\033[K\r"));
	/* Cut to 20 columns; the last row stays free. */
	assert_non_null(strstr(tty.out, "\n01234567890123456789\033[K\r"));
	assert_non_null(strstr(tty.out, "fourth"));
	assert_null(strstr(tty.out, "fifth"));
}

static int by_signal(void)
{
	static const int sigs[] = { SIGINT, SIGTERM, SIGHUP };
	sigset_t before, now;

	sigprocmask(SIG_SETMASK, NULL, &before);
	for (size_t i = 0; i < sizeof(sigs) / sizeof(sigs[0]); i++) {
		if (!term_open(true))
			return 1;
		/* Blocked and pending: it ends the wait that comes after it, too. */
		kill(getpid(), sigs[i]);
		if (term_wait(FOREVER) != TERM_QUIT)
			return 2;
		/* Still there when the mask is given back: this test would die of it. */
		signal(sigs[i], SIG_IGN);
		term_close();
		sigprocmask(SIG_SETMASK, NULL, &now);
		if (sigismember(&now, sigs[i]) != sigismember(&before, sigs[i]))
			return 3;
	}
	return 0;
}

static void test_signals(void **state)
{
	assert_int_equal(at_terminal(by_signal, NULL), 0);
	assert_non_null(strstr(tty.out, ALT_OFF));
}

/* Asked for no screen: it is left alone, but the signals are caught. */
static int without_screen(void)
{
	int rc = 0;

	if (term_open(false))
		return 1;
	kill(getpid(), SIGTERM);
	if (term_wait(FOREVER) != TERM_QUIT)
		rc = 2;
	signal(SIGTERM, SIG_IGN);
	term_close();
	return rc;
}

static void test_no_screen(void **state)
{
	assert_int_equal(at_terminal(without_screen, NULL), 0);
	assert_null(strstr(tty.out, "\033"));
}

/* Into a file or pipe: no screen, and a usual size. */
static int into_pipe(void)
{
	unsigned int cols, rows;
	int fd[2], terminal = dup(STDOUT_FILENO), rc = 0;

	if (terminal < 0 || pipe(fd) || dup2(fd[1], STDOUT_FILENO) < 0)
		return 1;
	if (term_open(true))
		rc = 2;
	term_size(&cols, &rows);
	if (cols != 80 || rows != 24)
		rc = 3;
	if (term_wait(0.01) != TERM_TICK)
		rc = 4;
	term_close();
	dup2(terminal, STDOUT_FILENO);
	return rc;
}

static void test_pipe(void **state)
{
	assert_int_equal(at_terminal(into_pipe, NULL), 0);
	assert_null(strstr(tty.out, "\033"));
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_frame),
		TEST(test_signals),
		TEST(test_no_screen),
		TEST(test_pipe),
	};

	return cmocka_run_group_tests_name("loader_term", tests, NULL, NULL);
}
