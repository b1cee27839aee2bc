// SPDX-License-Identifier: BSD-2-Clause
/*
 * log: one message, one line, one write(2), so that lines of several threads never mix.
 *
 * Where standard error leads is decided once, at load: later a sandbox may forbid to
 * ask. No allocation, no lock. Any thread.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "log.h"

#define LINE_MAX_BYTES 1024 /* a line with its newline; far below PIPE_BUF */
#define TEXT_MAX_BYTES 768  /* a message before escaping */

static const struct {
	const char *name;
	int priority; /* syslog(3), sd-daemon(3) */
} levels[] = {
	[LOG_LVL_ERROR] = { "error", 3 },
	[LOG_LVL_WARN] = { "warn", 4 },
	[LOG_LVL_INFO] = { "info", 6 },
	[LOG_LVL_DEBUG] = { "debug", 7 },
};

static _Atomic int max_level = LOG_LVL_INFO;
static bool to_journal; /* set before main() */

/* systemd.exec(5): JOURNAL_STREAM is "DEVICE:INODE" of the stream, so that a program
 * whose standard error was redirected since can tell. */
__attribute__((constructor)) static void find_journal(void)
{
	const char *env = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;

	to_journal = env && sscanf(env, "%llu:%llu", &dev, &ino) == 2 &&
		     !fstat(STDERR_FILENO, &st) && st.st_dev == dev && st.st_ino == ino;
}

void log_set_level(enum log_level level)
{
	atomic_store_explicit(&max_level, (int)level, memory_order_relaxed);
}

int log_parse_level(const char *s, enum log_level *out)
{
	for (unsigned int i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
		if (!strcmp(s, levels[i].name)) {
			*out = (enum log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

/* "<4>" or "ts=...Z ", then "level=warn msg=". Return: bytes, below @size */
static size_t put_prefix(char *line, size_t size, enum log_level level)
{
	struct timespec now;
	struct tm tm;
	char ts[32];
	int n;

	if (to_journal) {
		n = snprintf(line, size, "<%d>level=%s msg=\"", levels[level].priority,
			     levels[level].name);
	} else {
		clock_gettime(CLOCK_REALTIME, &now);
		gmtime_r(&now.tv_sec, &tm);
		strftime(ts, sizeof(ts), "%Y-%m-%dT%H:%M:%S", &tm);
		n = snprintf(line, size, "ts=%s.%03ldZ level=%s msg=\"", ts,
			     now.tv_nsec / 1000000, levels[level].name);
	}
	return (size_t)n;
}

/* Return: bytes written to @out, at most 4 */
static size_t escape(char *out, unsigned char c)
{
	static const char hex[] = "0123456789abcdef";

	if (c == '"' || c == '\\') {
		out[0] = '\\';
		out[1] = (char)c;
		return 2;
	}
	if (c >= ' ' && c <= '~') {
		out[0] = (char)c;
		return 1;
	}
	if (c == '\n' || c == '\t') {
		out[0] = '\\';
		out[1] = c == '\n' ? 'n' : 't';
		return 2;
	}
	out[0] = '\\';
	out[1] = 'x';
	out[2] = hex[c >> 4];
	out[3] = hex[c & 15];
	return 4;
}

void log_msg(enum log_level level, const char *fmt, ...)
{
	static const char cut[] = "...";
	char text[TEXT_MAX_BYTES], line[LINE_MAX_BYTES];
	int err = errno, len;
	size_t n, room;
	bool whole;
	va_list ap;

	if ((int)level > atomic_load_explicit(&max_level, memory_order_relaxed))
		return;
	va_start(ap, fmt);
	len = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (len < 0)
		goto restore;
	whole = (size_t)len < sizeof(text);

	n = put_prefix(line, sizeof(line), level);
	room = sizeof(line) - sizeof(cut) - 2; /* what must still fit: ..."\n */
	for (const char *s = text; *s; s++) {
		if (n + 4 > room) {
			whole = false;
			break;
		}
		n += escape(line + n, (unsigned char)*s);
	}
	if (!whole) {
		memcpy(line + n, cut, sizeof(cut) - 1);
		n += sizeof(cut) - 1;
	}
	line[n++] = '"';
	line[n++] = '\n';
	/* A log that cannot be written has nowhere to complain. */
	while (write(STDERR_FILENO, line, n) < 0 && errno == EINTR)
		;
restore:
	errno = err;
}

/*
 * The bucket as a point in time: it is full at full_ms, and each message costs one
 * refill period. The message passes if full_ms then is at most BURST periods ahead.
 * One word, so that threads need no more than a compare-and-swap.
 */
int log_limit_ok(struct log_limit *l, uint32_t *held)
{
	uint64_t full = atomic_load_explicit(&l->full_ms, memory_order_relaxed), now,
		 next;
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	now = (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
	do {
		next = (full > now ? full : now) + LOG_LIMIT_REFILL_MS;
		if (next > now + LOG_LIMIT_BURST * LOG_LIMIT_REFILL_MS) {
			atomic_fetch_add_explicit(&l->held, 1, memory_order_relaxed);
			return 0;
		}
	} while (!atomic_compare_exchange_weak_explicit(
		&l->full_ms, &full, next, memory_order_relaxed, memory_order_relaxed));
	*held = atomic_exchange_explicit(&l->held, 0, memory_order_relaxed);
	return 1;
}
