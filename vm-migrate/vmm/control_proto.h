/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * control_proto: requests to a running VM, and what it says of itself, as JSON. No I/O.
 *
 * A request is one line: {"cmd": NAME, ...}. Its answer is one line: {"ok": true, ...} or
 * {"ok": false, "error": TEXT}. Whoever asked for a migration then gets its events, a
 * line each: {"event": "progress", ...} and, last, {"event": "end", "result": WORD, ...}.
 */
#ifndef VMM_CONTROL_PROTO_H
#define VMM_CONTROL_PROTO_H

#include <jansson.h>
#include <limits.h>
#include <stddef.h>

#include "../precopy/incoming.h"
#include "../precopy/precopy.h"

#define CONTROL_MAX_LINE 8192 /* of a request, bytes with the newline */

enum control_cmd {
	CONTROL_STATUS,
	CONTROL_MIGRATE,
	CONTROL_CANCEL,
	CONTROL_PAUSE,
	CONTROL_RESUME,
	CONTROL_CHECK,
	CONTROL_QUIT,
	CONTROL_RATE_START, /* rating.h */
	CONTROL_RATE_TAKE,
	CONTROL_RATE_STOP,
	CONTROL_CMDS
};

struct control_request {
	enum control_cmd cmd;
	/* migrate: */
	char uri[256], tls_dir[PATH_MAX], tls_host[256];
	enum chan_tls_mode tls;
	unsigned int streams, downtime_ms, max_downtime_ms, zstd_level,
		connect_timeout_ms;
	unsigned int interval_ms; /* between progress events */
	uint64_t bandwidth;
	enum precopy_stall on_stall;
	enum precopy_verify verify;
};

/* Words of the options, in the order of their enums; NULL ends each. */
extern const char *const control_tls_words[], *const control_stall_words[],
						      *const control_verify_words[];

/**
 * control_parse() - one line of foreign text
 * @line:	[@len] without its newline
 *
 * Return: 0; -EINVAL with @why
 */
int control_parse(const char *line, size_t len, struct control_request *req, char *why,
		  size_t why_len);

/** control_request_json() - the same as JSON, for clients; NULL: out of memory */
json_t *control_request_json(const struct control_request *req);

/* A migration's values unless it says others. */
#define CONTROL_DEFAULTS                                                                 \
	{                                                                                \
		.cmd = CONTROL_MIGRATE, .streams = 1, .downtime_ms = 100,                \
		.max_downtime_ms = 2000, .connect_timeout_ms = 10000,                    \
		.interval_ms = 200, .on_stall = PRECOPY_THROTTLE,                        \
		.verify = PRECOPY_VERIFY_DIGEST                                          \
	}

/** control_conf() - what precopy takes; points into @req */
void control_conf(const struct control_request *req, struct precopy_conf *conf);

/** control_migration_json() - new object; @st.phase and all counters */
json_t *control_migration_json(const struct precopy_status *st);

/** control_incoming_json() - new object */
json_t *control_incoming_json(const struct incoming_status *st);

/** control_result() - the last word on a migration: done, failed, cancelled, uncertain,
 * lost: a write was, and @st says whether the machine was handed over all the same. @err:
 * precopy_run()'s */
const char *control_result(int err, const struct precopy_status *st);

#endif
