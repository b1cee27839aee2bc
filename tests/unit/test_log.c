// SPDX-License-Identifier: BSD-2-Clause
/*
 * log: what reaches standard error, read back through a pipe.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../user/lib/log.h"

#define SPEAK	"--speak" /* argument: log one warning and exit */
#define THREADS 4
#define LINES	100 /* a thread; all of them fit into a pipe */

static char out[65536];

/* Run @fn with standard error in a pipe; its output is in out[], NUL-terminated. */
static void capture(void (*fn)(void))
{
	int fds[2], saved = dup(STDERR_FILENO);
	ssize_t n;

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	assert_return_code(saved, errno);
	assert_return_code(dup2(fds[1], STDERR_FILENO), errno);
	close(fds[1]);
	fn();
	assert_return_code(dup2(saved, STDERR_FILENO), errno);
	close(saved);
	for (size_t have = 0;; have += (size_t)n) {
		n = read(fds[0], out + have, sizeof(out) - 1 - have);
		assert_return_code(n, errno);
		if (!n) {
			out[have] = '\0';
			break;
		}
	}
	close(fds[0]);
}

static void speak_all(void)
{
	log_err("one %d", 1);
	log_warn("two");
	log_info("three");
	log_debug("four");
}

/* The time stamp is replaced, after a look at its form. */
static void mask_ts(void)
{
	char *p = out, *q = out;

	while (*p) {
		unsigned int y, mo, d, h, mi, s, ms;
		int n = 0;

		assert_int_equal(sscanf(p, "ts=%4u-%2u-%2uT%2u:%2u:%2u.%3uZ %n", &y, &mo,
					&d, &h, &mi, &s, &ms, &n),
				 7);
		assert_int_equal(n, 28);
		assert_true(y >= 2024 && mo >= 1 && mo <= 12 && d >= 1 && d <= 31);
		p += n;
		do
			*q++ = *p;
		while (*p++ != '\n');
	}
	*q = '\0';
}

static void test_lines(void **state)
{
	capture(speak_all);
	mask_ts();
	assert_string_equal(out, "level=error msg=\"one 1\"\n"
				 "level=warn msg=\"two\"\n"
				 "level=info msg=\"three\"\n");
}

static void test_levels(void **state)
{
	enum log_level l = LOG_LVL_INFO;

	assert_int_equal(log_parse_level("debug", &l), 0);
	assert_int_equal(l, LOG_LVL_DEBUG);
	log_set_level(l);
	capture(speak_all);
	assert_non_null(strstr(out, "level=debug msg=\"four\"\n"));

	assert_int_equal(log_parse_level("error", &l), 0);
	assert_int_equal(l, LOG_LVL_ERROR);
	log_set_level(l);
	capture(speak_all);
	mask_ts();
	assert_string_equal(out, "level=error msg=\"one 1\"\n");

	assert_int_equal(log_parse_level("warn", &l), 0);
	assert_int_equal(l, LOG_LVL_WARN);
	assert_int_equal(log_parse_level("info", &l), 0);
	assert_int_equal(l, LOG_LVL_INFO);
	log_set_level(l);
	assert_int_equal(log_parse_level("INFO", &l), -EINVAL);
	assert_int_equal(log_parse_level("", &l), -EINVAL);
	assert_int_equal(log_parse_level("warning", &l), -EINVAL);
	assert_int_equal(l, LOG_LVL_INFO);
}

static void speak_hostile(void)
{
	log_warn("%s", "a\"b\\c\nts=now level=error msg=\t\x1b[2J\x9b\x7f~ ");
}

/* A name that a peer chose stays inside its quotes, on its line. */
static void test_escape(void **state)
{
	capture(speak_hostile);
	mask_ts();
	assert_string_equal(out,
			    "level=warn msg=\"a\\\"b\\\\c\\nts=now level=error msg=\\t"
			    "\\x1b[2J\\x9b\\x7f~ \"\n");
}

static char long_text[5000];

static void speak_long(void)
{
	log_warn("%s", long_text);
}

static void test_long(void **state)
{
	static const char end[] = "...\"\n";
	static const char fills[] = "x\x01";

	for (int i = 0; i < 2; i++) {
		memset(long_text, fills[i], sizeof(long_text) - 1);
		capture(speak_long);
		assert_in_range(strlen(out), 700, 1024);
		assert_string_equal(out + strlen(out) - strlen(end), end);
		assert_ptr_equal(strchr(out, '\n'), out + strlen(out) - 1);
	}
}

static void speak_errno(void)
{
	errno = ENOTTY;
	log_warn("x");
	assert_int_equal(errno, ENOTTY);
	errno = EXDEV;
	log_debug("not printed");
	assert_int_equal(errno, EXDEV);
}

static void test_errno(void **state)
{
	int fd = dup(STDERR_FILENO);

	capture(speak_errno);
	/* also when nothing can be written */
	close(STDERR_FILENO);
	speak_errno();
	assert_return_code(dup2(fd, STDERR_FILENO), errno);
	close(fd);
}

static void *thread(void *arg)
{
	for (int i = 0; i < LINES; i++)
		log_info("thread %d line %d ................................",
			 *(int *)arg, i);
	return NULL;
}

static void speak_threads(void)
{
	pthread_t t[THREADS];
	int id[THREADS];

	for (int i = 0; i < THREADS; i++) {
		id[i] = i;
		assert_int_equal(pthread_create(&t[i], NULL, thread, &id[i]), 0);
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
}

/* Lines of different threads do not mix, and each thread's stay in order. */
static void test_threads(void **state)
{
	int next[THREADS] = { 0 }, total = 0;

	capture(speak_threads);
	mask_ts();
	for (char *line = strtok(out, "\n"); line; line = strtok(NULL, "\n"), total++) {
		int id, n, end = 0;

		assert_int_equal(sscanf(line,
					"level=info msg=\"thread %d line %d %*[.]\"%n",
					&id, &n, &end),
				 2);
		assert_int_equal(line[end], '\0');
		assert_in_range(id, 0, THREADS - 1);
		assert_int_equal(n, next[id]);
		next[id]++;
	}
	assert_int_equal(total, THREADS * LINES);
}

/* Start this program again with a pipe as standard error; @match: JOURNAL_STREAM
 * names that pipe. */
static void speak_as_child(int match)
{
	int fds[2], status;
	struct stat st;
	char env[64];
	ssize_t n;
	pid_t pid;

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	assert_int_equal(fstat(fds[1], &st), 0);
	snprintf(env, sizeof(env), "%llu:%llu", (unsigned long long)st.st_dev,
		 (unsigned long long)st.st_ino + !match);
	pid = fork();
	assert_return_code(pid, errno);
	if (!pid) {
		if (dup2(fds[1], STDERR_FILENO) < 0 || setenv("JOURNAL_STREAM", env, 1))
			_exit(2);
		execl("/proc/self/exe", "test_log", SPEAK, (char *)NULL);
		_exit(2);
	}
	close(fds[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	n = read(fds[0], out, sizeof(out) - 1);
	assert_return_code(n, errno);
	out[n] = '\0';
	close(fds[0]);
}

static void test_journal(void **state)
{
	speak_as_child(1);
	assert_string_equal(out, "<4>level=warn msg=\"hello\"\n");
	speak_as_child(0);
	mask_ts();
	assert_string_equal(out, "level=warn msg=\"hello\"\n");
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* A burst passes, the next is held. Again if the machine stood still meanwhile. */
static void test_limit_burst(void **state)
{
	uint64_t start;
	uint32_t held;
	int passed, sixth;
	struct log_limit l;

	do {
		l = (struct log_limit){ 0 };
		start = now_ms();
		passed = 0;
		for (int i = 0; i < LOG_LIMIT_BURST; i++) {
			held = 99;
			passed += log_limit_ok(&l, &held);
			assert_int_equal(held, 0);
		}
		held = 99;
		sixth = log_limit_ok(&l, &held);
	} while (now_ms() - start >= LOG_LIMIT_REFILL_MS);
	assert_int_equal(passed, LOG_LIMIT_BURST);
	assert_int_equal(sixth, 0);
	assert_int_equal(held, 99);
	assert_int_equal(l.held, 1);
}

/* A bucket as it would be later: one token is back, and tells how many were held. */
static void test_limit_refill(void **state)
{
	struct log_limit l = { 0 };
	uint32_t held = 0;

	l.held = 7;
	l.full_ms = now_ms() + (LOG_LIMIT_BURST - 1) * LOG_LIMIT_REFILL_MS;
	assert_int_equal(log_limit_ok(&l, &held), 1);
	assert_int_equal(held, 7);
	assert_int_equal(l.held, 0);

	/* an hour of debt stays held however slow this runs */
	l.full_ms = now_ms() + 3600 * 1000;
	held = 99;
	assert_int_equal(log_limit_ok(&l, &held), 0);
	assert_int_equal(log_limit_ok(&l, &held), 0);
	assert_int_equal(held, 99);
	assert_int_equal(l.held, 2);

	/* silence gives a full bucket, not more */
	l.full_ms = 1;
	assert_int_equal(log_limit_ok(&l, &held), 1);
	assert_int_equal(held, 2);
	assert_true(l.full_ms > now_ms() - 60 * 1000);
}

static struct log_limit shared;
static _Atomic unsigned int shared_passed, shared_held;

static void *limit_thread(void *arg)
{
	for (int i = 0; i < 1000; i++) {
		uint32_t held;

		if (log_limit_ok(&shared, &held)) {
			shared_passed++;
			shared_held += held;
		}
	}
	return NULL;
}

/* Several threads get no more than one would, and no held message is lost. */
static void test_limit_threads(void **state)
{
	pthread_t t[THREADS];
	uint64_t start = now_ms();

	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, limit_thread, NULL), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	assert_in_range(shared_passed, LOG_LIMIT_BURST,
			LOG_LIMIT_BURST + 1 + (now_ms() - start) / LOG_LIMIT_REFILL_MS);
	assert_int_equal(shared_passed + shared_held + shared.held, THREADS * 1000);
}

static void speak_limited(void)
{
	for (int i = 0; i < 50; i++)
		log_limited(LOG_LVL_WARN, "peer %d", i);
}

static void test_limited_macro(void **state)
{
	uint64_t start = now_ms();
	unsigned int lines = 0;

	capture(speak_limited);
	assert_non_null(strstr(out, "msg=\"peer 0\"\n"));
	assert_non_null(strstr(out, "msg=\"peer 4\"\n"));
	for (char *p = out; (p = strchr(p, '\n')); p++)
		lines++;
	assert_in_range(lines, LOG_LIMIT_BURST,
			LOG_LIMIT_BURST + 1 + (now_ms() - start) / LOG_LIMIT_REFILL_MS);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_levels),
		cmocka_unit_test(test_escape),
		cmocka_unit_test(test_long),
		cmocka_unit_test(test_errno),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_journal),
		cmocka_unit_test(test_limit_burst),
		cmocka_unit_test(test_limit_refill),
		cmocka_unit_test(test_limit_threads),
		cmocka_unit_test(test_limited_macro),
	};

	if (argc > 1 && !strcmp(argv[1], SPEAK)) {
		log_warn("hello");
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
