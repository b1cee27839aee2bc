// SPDX-License-Identifier: BSD-2-Clause
/*
 * term: plain ANSI, no library. See term.h.
 *
 * Signals are blocked and read from a signalfd beside the keyboard, so there is no
 * handler and no moment at which a signal could leave the screen behind.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "term.h"

#define ALT_ON	   "\033[?1049h\033[?25l" /* other screen, no cursor */
#define ALT_OFF	   "\033[?25h\033[?1049l"
#define HOME	   "\033[H"
#define CLEAR_LINE "\033[K"
#define CLEAR_REST "\033[J"

static struct termios saved;
static bool have_saved, have_screen;
static sigset_t old_mask;
static int sig_fd = -1;

bool term_open(bool screen)
{
	struct termios raw;
	sigset_t mask;

	sigemptyset(&mask);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGHUP);
	if (sig_fd < 0 && !sigprocmask(SIG_BLOCK, &mask, &old_mask))
		sig_fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	if (!screen || !isatty(STDOUT_FILENO))
		return false;
	if (isatty(STDIN_FILENO) && !tcgetattr(STDIN_FILENO, &saved)) {
		raw = saved;
		raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
		raw.c_cc[VMIN] = 0;
		raw.c_cc[VTIME] = 0;
		have_saved = !tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	}
	fputs(ALT_ON, stdout);
	fflush(stdout);
	have_screen = true;
	return true;
}

void term_close(void)
{
	if (have_screen) {
		fputs(ALT_OFF, stdout);
		fflush(stdout);
	}
	if (have_saved)
		tcsetattr(STDIN_FILENO, TCSANOW, &saved);
	have_screen = have_saved = false;
	if (sig_fd >= 0) {
		close(sig_fd);
		sig_fd = -1;
		sigprocmask(SIG_SETMASK, &old_mask, NULL);
	}
}

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* A key was pressed, or the keyboard has gone. */
static bool key_quits(bool *listen)
{
	char key[16];
	ssize_t n = read(STDIN_FILENO, key, sizeof(key));

	if (n <= 0) {
		*listen = false;
		return n == 0;
	}
	return memchr(key, 'q', (size_t)n) || memchr(key, 'Q', (size_t)n);
}

enum term_event term_wait(double seconds)
{
	double end = now_s() + seconds, left;
	bool listen = have_saved;

	while ((left = end - now_s()) > 0) {
		struct pollfd p[2] = {
			{ .fd = sig_fd, .events = POLLIN },
			{ .fd = listen ? STDIN_FILENO : -1, .events = POLLIN },
		};
		int n = poll(p, 2, (int)(left * 1000) + 1);

		if (n < 0 && errno != EINTR)
			return TERM_QUIT;
		if (n <= 0)
			continue;
		if (p[0].revents || (p[1].revents && key_quits(&listen)))
			return TERM_QUIT;
	}
	return TERM_TICK;
}

void term_size(unsigned int *cols, unsigned int *rows)
{
	struct winsize w;

	*cols = 80;
	*rows = 24;
	if (!ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) && w.ws_col && w.ws_row) {
		*cols = w.ws_col;
		*rows = w.ws_row;
	}
}

void term_frame(const char *text)
{
	unsigned int cols, rows, r;

	term_size(&cols, &rows);
	fputs(HOME, stdout);
	for (r = 0; *text && r + 1 < rows; r++) {
		size_t len = strcspn(text, "\n");

		fwrite(text, 1, len < cols ? len : cols, stdout);
		fputs(CLEAR_LINE "\r\n", stdout);
		text += len + (text[len] == '\n');
	}
	fputs(CLEAR_REST, stdout);
	fflush(stdout);
}
