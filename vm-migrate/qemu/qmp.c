// SPDX-License-Identifier: BSD-2-Clause
/* qmp: see qmp.h. */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../../user/lib/clock.h"
#include "../../user/lib/sock.h"
#include "../text.h"
#include "qmp.h"

#define FIRST_BUFFER 65536
#define PUMP_EVENTS  256 /* of a call, however fast they come */

struct qmp {
	int fd;
	const char *name;
	pid_t pid;
	unsigned int version;
	int broken; /* -errno that ended the conversation */
	json_int_t next_id;
	char *buf; /* [cap]; [0, len) was received and not yet parsed */
	size_t cap, len;
	size_t scanned; /* of len: holds no newline */
	void (*event)(void *arg, const char *name, const json_t *data, uint64_t us);
	void *event_arg;
	char error[512];
};

/* ---- messages --------------------------------------------------------------------- */

static bool greeting(const json_t *root, struct qmp_msg *m)
{
	static const char *const part[] = { "major", "minor", "micro" };
	const json_t *v = json_object_get(json_object_get(root, "QMP"), "version");

	v = json_object_get(v, "qemu");
	for (int i = 0; i < 3; i++) {
		const json_t *n = json_object_get(v, part[i]);

		if (!json_is_integer(n) || json_integer_value(n) < 0 ||
		    json_integer_value(n) > 999)
			return false;
		m->ver[i] = (unsigned int)json_integer_value(n);
	}
	m->type = QMP_GREETING;
	return true;
}

static bool event(const json_t *root, struct qmp_msg *m)
{
	const json_t *t = json_object_get(root, "timestamp");
	json_int_t s = json_integer_value(json_object_get(t, "seconds"));
	json_int_t us = json_integer_value(json_object_get(t, "microseconds"));

	m->type = QMP_EVENT;
	m->text = json_string_value(json_object_get(root, "event"));
	m->data = json_object_get(root, "data");
	/* -1 each: QEMU does not know the time. */
	if (s > 0 && s < INT64_MAX / 1000000 - 1 && us >= 0 && us < 1000000)
		m->us = (uint64_t)s * 1000000 + (uint64_t)us;
	return m->text != NULL;
}

int qmp_parse(const char *text, size_t len, struct qmp_msg *m)
{
	struct qmp_msg got = { .id = -1 };
	const json_t *id, *e;
	bool ok = false;

	got.root = json_loadb(text, len, 0, NULL);
	if (!json_is_object(got.root))
		goto out;
	id = json_object_get(got.root, "id");
	if (json_is_integer(id) && json_integer_value(id) >= 0)
		got.id = json_integer_value(id);
	e = json_object_get(got.root, "error");
	if (json_object_get(got.root, "QMP")) {
		ok = greeting(got.root, &got);
	} else if (json_object_get(got.root, "event")) {
		ok = event(got.root, &got);
	} else if (e) {
		got.type = QMP_ERROR;
		got.text = json_string_value(json_object_get(e, "desc"));
		ok = got.text != NULL;
	} else {
		got.type = QMP_RETURN;
		got.data = json_object_get(got.root, "return");
		ok = got.data != NULL;
	}
out:
	if (!ok) {
		json_decref(got.root);
		return -EBADMSG;
	}
	*m = got;
	return 0;
}

void qmp_msg_fini(struct qmp_msg *m)
{
	json_decref(m->root);
	m->root = NULL;
}

/* ---- socket ----------------------------------------------------------------------- */

static void __attribute__((format(printf, 2, 3))) say(struct qmp *q, const char *fmt, ...)
{
	va_list ap;
	int n = snprintf(q->error, sizeof(q->error), "%s: ", q->name);

	va_start(ap, fmt);
	vsnprintf(q->error + n, sizeof(q->error) - (size_t)n, fmt, ap);
	va_end(ap);
	/* Text of the other side: nothing that a terminal obeys. */
	text_clean(q->error);
}

static int broke(struct qmp *q, int err)
{
	q->broken = err;
	say(q, "%s",
	    err == -EPIPE	? "QEMU has closed its monitor; did it end?"
	    : err == -EPROTO	? "what answers there does not speak QMP"
	    : err == -ETIMEDOUT ? "no answer from QEMU's monitor"
				: strerror(-err));
	return err;
}

static int receive(struct qmp *q, uint64_t deadline)
{
	ssize_t n;
	int err;

	if (q->len == q->cap) {
		size_t cap = q->cap ? q->cap * 2 : FIRST_BUFFER;
		char *b = q->cap >= QMP_MAX_MESSAGE ? NULL : realloc(q->buf, cap);

		if (!b)
			return q->cap >= QMP_MAX_MESSAGE ? -EPROTO : -ENOMEM;
		q->buf = b;
		q->cap = cap;
	}
	for (;;) {
		n = recv(q->fd, q->buf + q->len, q->cap - q->len, MSG_DONTWAIT);
		if (n > 0) {
			q->len += (size_t)n;
			return 0;
		}
		if (!n || errno == ECONNRESET)
			return -EPIPE;
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return -errno;
		err = sock_wait(q->fd, POLLIN, deadline);
		if (err)
			return err;
	}
}

/* The next message. Return: 0 and @m, -ETIMEDOUT, or a -errno that ended it all */
static int next(struct qmp *q, uint64_t deadline, struct qmp_msg *m)
{
	for (;;) {
		char *end = q->len > q->scanned ? memchr(q->buf + q->scanned, '\n',
							 q->len - q->scanned)
						: NULL;
		size_t used;
		int err;

		if (!end) {
			q->scanned = q->len;
			err = receive(q, deadline);
			if (err)
				return err;
			continue;
		}
		used = (size_t)(end - q->buf) + 1;
		err = qmp_parse(q->buf, used - 1, m) ? -EPROTO : 0;
		q->len -= used;
		memmove(q->buf, q->buf + used, q->len);
		q->scanned = 0;
		return err;
	}
}

static void deliver(struct qmp *q, struct qmp_msg *m)
{
	if (q->event)
		q->event(q->event_arg, m->text, m->data, m->us);
	qmp_msg_fini(m);
}

static uint64_t deadline_in(int ms)
{
	return clock_ns() + (uint64_t)ms * 1000000;
}

static int call(struct qmp *q, const char *cmd, json_t *args, int timeout_ms,
		json_t **ret)
{
	uint64_t deadline = deadline_in(timeout_ms);
	json_int_t id = ++q->next_id;
	struct qmp_msg m;
	json_t *req;
	char *text;
	int err;

	req = json_pack("{s:s, s:I, s:o*}", "execute", cmd, "id", id, "arguments", args);
	text = req ? json_dumps(req, JSON_COMPACT) : NULL;
	json_decref(req);
	if (q->broken) {
		free(text);
		return q->broken;
	}
	if (!text) {
		say(q, "%s: out of memory, or a name that is no UTF-8", cmd);
		return -ENOMEM;
	}
	err = sock_send(q->fd, text, strlen(text), deadline);
	if (!err)
		err = sock_send(q->fd, "\r\n", 2, deadline);
	free(text);
	while (!err) {
		err = next(q, deadline, &m);
		if (err)
			break;
		if (m.type == QMP_EVENT) {
			deliver(q, &m);
			if (clock_ns() > deadline) /* nothing but events */
				err = -ETIMEDOUT;
			continue;
		}
		if (m.type == QMP_GREETING || m.id != id) {
			qmp_msg_fini(&m);
			err = -EPROTO;
			break;
		}
		if (m.type == QMP_ERROR) {
			say(q, "%s: %s", cmd, m.text);
			qmp_msg_fini(&m);
			return -EREMOTEIO;
		}
		if (ret)
			*ret = json_incref((json_t *)m.data);
		qmp_msg_fini(&m);
		return 0;
	}
	broke(q, err);
	return err;
}

/* ---- for callers ------------------------------------------------------------------ */

static int greet(struct qmp *q, int timeout_ms)
{
	struct qmp_msg m;
	bool hello;
	int err = next(q, deadline_in(timeout_ms), &m);

	if (err) {
		broke(q, err);
		if (err == -ETIMEDOUT)
			say(q, "no greeting from QEMU's monitor; does another client "
			       "have it? Give QEMU a second -qmp socket");
		return err;
	}
	hello = m.type == QMP_GREETING;
	q->version = m.ver[0] * 1000000 + m.ver[1] * 1000 + m.ver[2];
	qmp_msg_fini(&m);
	return hello ? call(q, "qmp_capabilities", NULL, timeout_ms, NULL)
		     : broke(q, -EPROTO);
}

int qmp_connect(const char *path, const char *name, int timeout_ms, struct qmp **out,
		char *why, size_t why_len)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	/* connect() waits for room in the listener's backlog. */
	struct timeval tv = { .tv_sec = timeout_ms / 1000,
			      .tv_usec = timeout_ms % 1000 * 1000 };
	struct ucred cred;
	socklen_t len = sizeof(cred);
	struct qmp *q;
	int err;

	if (!strncmp(path, "unix:", 5))
		path += 5;
	if (!*path || strlen(path) >= sizeof(sa.sun_path)) {
		snprintf(why, why_len, "%s: \"%s\" is no path of a socket", name, path);
		return -EINVAL;
	}
	strcpy(sa.sun_path, path);
	q = calloc(1, sizeof(*q));
	if (!q) {
		snprintf(why, why_len, "%s: out of memory", name);
		return -ENOMEM;
	}
	q->name = name;
	q->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (q->fd >= 0)
		setsockopt(q->fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	if (q->fd < 0 || connect(q->fd, (struct sockaddr *)&sa, sizeof(sa))) {
		err = -errno;
		snprintf(why, why_len, "%s: %s: %s", name, path,
			 err == -ENOENT || err == -ECONNREFUSED
				 ? "no QEMU listens there (-qmp "
				   "unix:PATH,server=on,wait=off)"
				 : strerror(-err));
		qmp_close(q);
		return err;
	}
	if (!getsockopt(q->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len))
		q->pid = cred.pid;
	err = greet(q, timeout_ms);
	if (err) {
		snprintf(why, why_len, "%s", q->error);
		qmp_close(q);
		return err;
	}
	*out = q;
	return 0;
}

void qmp_close(struct qmp *q)
{
	if (!q)
		return;
	if (q->fd >= 0)
		close(q->fd);
	free(q->buf);
	free(q);
}

const char *qmp_name(const struct qmp *q)
{
	return q->name;
}

unsigned int qmp_version(const struct qmp *q)
{
	return q->version;
}

pid_t qmp_pid(const struct qmp *q)
{
	return q->pid;
}

void qmp_on_event(struct qmp *q,
		  void (*fn)(void *arg, const char *name, const json_t *data,
			     uint64_t us),
		  void *arg)
{
	q->event = fn;
	q->event_arg = arg;
}

int qmp_call(struct qmp *q, const char *cmd, json_t *args, json_t **ret)
{
	return call(q, cmd, args, QMP_TIMEOUT_MS, ret);
}

int qmp_hmp(struct qmp *q, const char *line, char **text)
{
	json_t *ret;
	const char *s;
	int err;

	err = qmp_call(q, "human-monitor-command",
		       json_pack("{s:s}", "command-line", line), &ret);
	if (err)
		return err;
	s = json_string_value(ret);
	*text = s ? strdup(s) : NULL;
	json_decref(ret);
	if (*text)
		return 0;
	say(q, "%s: no text", line);
	return -ENOMEM;
}

int qmp_pump(struct qmp *q, int timeout_ms)
{
	uint64_t deadline = deadline_in(timeout_ms);
	struct qmp_msg m;
	int n = 0, err;

	if (q->broken)
		return q->broken;
	for (;;) {
		/* After the first, only what is there already. */
		err = next(q, n ? clock_ns() : deadline, &m);
		if (err == -ETIMEDOUT)
			return n;
		if (!err && m.type != QMP_EVENT) {
			qmp_msg_fini(&m);
			err = -EPROTO;
		}
		if (err)
			return broke(q, err);
		deliver(q, &m);
		if (++n == PUMP_EVENTS)
			return n;
	}
}

const char *qmp_error(const struct qmp *q)
{
	return q->error;
}
