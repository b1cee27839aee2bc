// SPDX-License-Identifier: BSD-2-Clause
/*
 * control_proto: see control_proto.h.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control_proto.h"

static const char *const cmd_name[CONTROL_CMDS] = {
	[CONTROL_STATUS] = "status",	   [CONTROL_MIGRATE] = "migrate",
	[CONTROL_CANCEL] = "cancel",	   [CONTROL_PAUSE] = "pause",
	[CONTROL_RESUME] = "resume",	   [CONTROL_CHECK] = "check",
	[CONTROL_QUIT] = "quit",	   [CONTROL_RATE_START] = "rate-start",
	[CONTROL_RATE_TAKE] = "rate-take", [CONTROL_RATE_STOP] = "rate-stop",
};

const char *const control_tls_words[] = { "off", "x509", "psk", NULL };
const char *const control_stall_words[] = { "throttle", "raise", "abort", NULL };
const char *const control_verify_words[] = { "digest", "full", "none", NULL };

/* ---- requests ---------------------------------------------------------------------- */

/* One member: where it goes, and what it may be. */
struct member {
	const char *name;
	enum { TEXT, NUMBER, BYTES, WORD } type;
	size_t off, size; /* size: TEXT: of the array */
	json_int_t min, max;
	const char *const *words;
};

#define AT(f)	offsetof(struct control_request, f)
#define SIZE(f) sizeof(((struct control_request *)0)->f)
#define NUM(n, f, lo, hi)                                                                \
	{                                                                                \
		.name = (n), .type = NUMBER, .off = AT(f), .min = (lo), .max = (hi)      \
	}
#define STR(n, f)                                                                        \
	{                                                                                \
		.name = (n), .type = TEXT, .off = AT(f), .size = SIZE(f)                 \
	}
#define WRD(n, f, w)                                                                     \
	{                                                                                \
		.name = (n), .type = WORD, .off = AT(f), .words = (w)                    \
	}

static const struct member members[] = {
	STR("to", uri),
	STR("tls_dir", tls_dir),
	STR("tls_host", tls_host),
	WRD("tls", tls, control_tls_words),
	WRD("on_stall", on_stall, control_stall_words),
	WRD("verify", verify, control_verify_words),
	NUM("streams", streams, 1, WIRE_MAX_STREAMS),
	NUM("downtime_ms", downtime_ms, 1, 3600000),
	NUM("max_downtime_ms", max_downtime_ms, 1, 3600000),
	NUM("zstd_level", zstd_level, 0, 19),
	NUM("connect_timeout_ms", connect_timeout_ms, 1, 3600000),
	NUM("interval_ms", interval_ms, 10, 3600000),
	{ .name = "bandwidth",
	  .type = BYTES,
	  .off = AT(bandwidth),
	  .max = (json_int_t)1 << 50 },
};

#define NMEMBERS (sizeof(members) / sizeof(members[0]))

static int take_word(const struct member *m, const char *s, unsigned int *out)
{
	for (unsigned int i = 0; s && m->words[i]; i++)
		if (!strcmp(m->words[i], s)) {
			*out = i;
			return 0;
		}
	return -EINVAL;
}

static int take_member(const struct member *m, const json_t *v, struct control_request *r)
{
	char *to = (char *)r + m->off;
	const char *s = json_string_value(v);
	const json_int_t n = json_integer_value(v);

	switch (m->type) {
	case TEXT:
		if (!s || !*s || strlen(s) >= m->size)
			return -EINVAL;
		strcpy(to, s);
		return 0;
	case WORD: return take_word(m, s, (unsigned int *)to);
	case NUMBER:
	case BYTES:
		if (!json_is_integer(v) || n < m->min || n > m->max)
			return -EINVAL;
		if (m->type == BYTES)
			*(uint64_t *)to = (uint64_t)n;
		else
			*(unsigned int *)to = (unsigned int)n;
		return 0;
	}
	return -EINVAL;
}

static int take_migrate(json_t *o, struct control_request *r, char *why, size_t len)
{
	const char *key;
	json_t *v;

	json_object_foreach(o, key, v)
	{
		const struct member *m = NULL;

		if (!strcmp(key, "cmd"))
			continue;
		for (unsigned int i = 0; i < NMEMBERS; i++)
			if (!strcmp(members[i].name, key))
				m = &members[i];
		if (!m || take_member(m, v, r)) {
			snprintf(why, len,
				 m ? "\"%.40s\" has a value that it cannot have"
				   : "migrate does not know \"%.40s\"",
				 key);
			return -EINVAL;
		}
	}
	if (!*r->uri) {
		snprintf(why, len, "migrate needs \"to\"");
		return -EINVAL;
	}
	/* It would be a descriptor of the VM, which no client can mean. */
	if (!strncmp(r->uri, "fd:", 3)) {
		snprintf(why, len, "a VM is migrated to tcp: or unix: addresses");
		return -EINVAL;
	}
	if (r->tls != CHAN_TLS_OFF && !*r->tls_dir) {
		snprintf(why, len, "TLS needs the directory of its credentials, tls_dir");
		return -EINVAL;
	}
	if (r->max_downtime_ms < r->downtime_ms)
		r->max_downtime_ms = r->downtime_ms;
	return 0;
}

static int take(json_t *o, struct control_request *r, char *why, size_t len)
{
	const char *name = json_string_value(json_object_get(o, "cmd"));
	unsigned int i;

	if (!name) {
		snprintf(why, len, "not a request: an object with \"cmd\"");
		return -EINVAL;
	}
	for (i = 0; i < CONTROL_CMDS; i++)
		if (!strcmp(cmd_name[i], name))
			break;
	if (i == CONTROL_CMDS) {
		snprintf(why, len, "no command \"%.40s\"", name);
		return -EINVAL;
	}
	r->cmd = (enum control_cmd)i;
	if (r->cmd == CONTROL_MIGRATE)
		return take_migrate(o, r, why, len);
	if (json_object_size(o) != 1) {
		snprintf(why, len, "%s takes no parameters", name);
		return -EINVAL;
	}
	return 0;
}

int control_parse(const char *line, size_t len, struct control_request *req, char *why,
		  size_t why_len)
{
	struct control_request r = CONTROL_DEFAULTS;
	json_error_t e;
	json_t *o = json_loadb(line, len, JSON_REJECT_DUPLICATES, &e);
	int err;

	if (!o) {
		snprintf(why, why_len, "not JSON: %.100s", e.text);
		return -EINVAL;
	}
	err = take(o, &r, why, why_len);
	json_decref(o);
	if (!err)
		*req = r;
	return err;
}

json_t *control_request_json(const struct control_request *r)
{
	json_t *o = json_pack("{s:s}", "cmd", cmd_name[r->cmd]);

	for (unsigned int i = 0; o && r->cmd == CONTROL_MIGRATE && i < NMEMBERS; i++) {
		const struct member *m = &members[i];
		const char *from = (const char *)r + m->off;
		json_t *v = NULL;

		switch (m->type) {
		case TEXT: v = *from ? json_string(from) : NULL; break;
		case WORD: v = json_string(m->words[*(const unsigned int *)from]); break;
		case NUMBER: v = json_integer(*(const unsigned int *)from); break;
		case BYTES:
			v = json_integer((json_int_t) * (const uint64_t *)from);
			break;
		}
		if (v)
			json_object_set_new(o, m->name, v);
	}
	return o;
}

void control_conf(const struct control_request *r, struct precopy_conf *c)
{
	*c = (struct precopy_conf){
		.uri = r->uri,
		.tls = { .mode = r->tls,
			 .dir = r->tls_dir,
			 .hostname = *r->tls_host ? r->tls_host : NULL },
		.streams = r->streams,
		.downtime_ms = r->downtime_ms,
		.max_downtime_ms = r->max_downtime_ms,
		.bandwidth = r->bandwidth,
		.zstd_level = (int)r->zstd_level,
		.on_stall = r->on_stall,
		.verify = r->verify,
		.connect_timeout_ms = r->connect_timeout_ms,
	};
}

/* ---- answers ----------------------------------------------------------------------- */

static const char *phase_name(enum precopy_phase p)
{
	static const char *const name[] = {
		[PRECOPY_IDLE] = "idle",	   [PRECOPY_CONNECT] = "connect",
		[PRECOPY_ROUNDS] = "rounds",	   [PRECOPY_STOP] = "stop",
		[PRECOPY_VERIFYING] = "verify",	   [PRECOPY_HANDING_OVER] = "handover",
		[PRECOPY_AUDIT] = "audit",	   [PRECOPY_DONE] = "done",
		[PRECOPY_FAILED] = "failed",	   [PRECOPY_CANCELLED] = "cancelled",
		[PRECOPY_UNCERTAIN] = "uncertain",
	};

	return p < sizeof(name) / sizeof(name[0]) ? name[p] : "?";
}

static void set_u64(json_t *o, const char *key, uint64_t v)
{
	json_object_set_new(o, key,
			    v > INT64_MAX ? json_null() : json_integer((json_int_t)v));
}

static json_t *steps_json(const struct precopy_status *st)
{
	static const char *const name[PRECOPY_STEPS] = {
		[PRECOPY_STEP_PAUSE] = "pause",	      [PRECOPY_STEP_SAVE] = "save",
		[PRECOPY_STEP_HARVEST] = "harvest",   [PRECOPY_STEP_SEND] = "send",
		[PRECOPY_STEP_STILL] = "still",	      [PRECOPY_STEP_VERIFY] = "verify",
		[PRECOPY_STEP_HANDOVER] = "handover",
	};
	json_t *o = json_object();

	for (unsigned int i = 0; i < PRECOPY_STEPS; i++)
		set_u64(o, name[i], st->step_us[i]);
	return o;
}

json_t *control_migration_json(const struct precopy_status *st)
{
	json_t *o = json_object();
	char digest[17];

	snprintf(digest, sizeof(digest), "%016llx", (unsigned long long)st->digest);
	json_object_set_new(o, "phase", json_string(phase_name(st->phase)));
	set_u64(o, "round", st->round);
	set_u64(o, "elapsed_ms", st->elapsed_ms);
	set_u64(o, "eta_ms", st->eta_ms);
	set_u64(o, "ram_bytes", st->ram_bytes);
	set_u64(o, "remaining_bytes", st->remaining);
	set_u64(o, "dirty_bytes_per_s", st->dirty_rate);
	set_u64(o, "send_bytes_per_s", st->send_rate);
	set_u64(o, "dirty_pages_cpu", st->dirty_by[DIRTY_BY_CPU]);
	set_u64(o, "dirty_pages_device", st->dirty_by[DIRTY_BY_DEVICE]);
	set_u64(o, "sent_pages", st->sent.pages);
	set_u64(o, "zero_pages", st->sent.zero_pages);
	set_u64(o, "same_pages", st->sent.same_pages);
	set_u64(o, "false_dirty_cpu", st->sent.false_dirty[DIRTY_BY_CPU]);
	set_u64(o, "false_dirty_device", st->sent.false_dirty[DIRTY_BY_DEVICE]);
	set_u64(o, "sent_bytes", st->sent.bytes);
	set_u64(o, "limited_ms", st->sent.limited_ns / 1000000);
	set_u64(o, "throttle_percent", st->throttle);
	set_u64(o, "downtime_budget_ms", st->downtime_budget_ms);
	set_u64(o, "expected_downtime_us", st->expected_downtime_us);
	set_u64(o, "downtime_us", st->downtime_us);
	json_object_set_new(o, "downtime_steps_us", steps_json(st));
	set_u64(o, "last_pages", st->last_pages);
	set_u64(o, "total_us", st->total_us);
	json_object_set_new(o, "digest", json_string(digest));
	json_object_set_new(o, "audit_bad_pages",
			    st->audit_bad < 0 ? json_null()
					      : json_integer(st->audit_bad));
	if (st->message[0])
		json_object_set_new(
			o, st->err ? "error" : "note",
			json_stringn_nocheck(st->message,
					     strnlen(st->message, sizeof(st->message))));
	return o;
}

json_t *control_incoming_json(const struct incoming_status *st)
{
	static const char *const name[] = { "listen", "receive", "verify", "running",
					    "gave-up" };
	json_t *o = json_object();

	json_object_set_new(o, "phase", json_string(name[st->phase]));
	set_u64(o, "round", st->received.round);
	set_u64(o, "received_pages", st->received.pages);
	set_u64(o, "zero_pages", st->received.zero_pages);
	set_u64(o, "received_bytes", st->received.bytes);
	set_u64(o, "failures", st->failures);
	if (st->message[0])
		json_object_set_new(
			o, "error",
			json_stringn_nocheck(st->message,
					     strnlen(st->message, sizeof(st->message))));
	return o;
}

const char *control_result(int err, const struct precopy_status *st)
{
	if (!err)
		return "done";
	if (err == -EUCLEAN)
		return "lost";
	switch (st->phase) {
	case PRECOPY_CANCELLED: return "cancelled";
	case PRECOPY_UNCERTAIN: return "uncertain";
	default: return err == -ECANCELED ? "cancelled" : "failed";
	}
}
