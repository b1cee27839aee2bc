/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Logging to standard error: one line a message, logfmt.
 *
 *	ts=2026-01-31T12:00:00.123Z level=warn msg="port vm1 closed: reader is gone"
 *
 * Quotes, backslashes and everything that is not printable ASCII are escaped, so that no
 * name a peer chose forges a line. Under systemd (JOURNAL_STREAM names the stream that
 * standard error is) the time is left out and a "<4>" priority leads.
 * Any thread. Never called per packet; what peers can provoke goes through
 * log_limited(), which says how many messages it held back.
 */
#ifndef GN_LOG_H
#define GN_LOG_H

#include <stdint.h>

enum log_level { LOG_LVL_ERROR, LOG_LVL_WARN, LOG_LVL_INFO, LOG_LVL_DEBUG };

/** log_set_level() - messages above @level are not printed; default INFO */
void log_set_level(enum log_level level);

/** log_parse_level() - "error", "warn", "info", "debug". Return: 0, -EINVAL */
int log_parse_level(const char *s, enum log_level *out);

/** log_msg() - @fmt is the message: cause, then remedy; no newline. Keeps errno. */
void log_msg(enum log_level level, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#define log_err(...)   log_msg(LOG_LVL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_msg(LOG_LVL_WARN, __VA_ARGS__)
#define log_info(...)  log_msg(LOG_LVL_INFO, __VA_ARGS__)
#define log_debug(...) log_msg(LOG_LVL_DEBUG, __VA_ARGS__)

#define LOG_LIMIT_BURST	    5	 /* messages at once, */
#define LOG_LIMIT_REFILL_MS 1000 /* then one each */

/* Token bucket for one message site. All zero: new, full. */
struct log_limit {
	_Atomic uint64_t full_ms; /* CLOCK_MONOTONIC: when the bucket is full again;
				   * a message moves it LOG_LIMIT_REFILL_MS on */
	_Atomic uint32_t held;	  /* messages not printed since */
};

/** log_limit_ok() - may the site speak? @held gets the number swallowed before */
int log_limit_ok(struct log_limit *l, uint32_t *held);

#define log_limited(level, fmt, ...)                                                     \
	do {                                                                             \
		static struct log_limit limit_;                                          \
		uint32_t held_;                                                          \
		if (log_limit_ok(&limit_, &held_)) {                                     \
			if (held_)                                                       \
				log_msg(level, fmt " (%u more)", ##__VA_ARGS__, held_);  \
			else                                                             \
				log_msg(level, fmt, ##__VA_ARGS__);                      \
		}                                                                        \
	} while (0)

#endif
