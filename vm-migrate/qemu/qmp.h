/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * qmp: a client of QEMU's machine protocol, on a UNIX socket.
 *
 * One command at a time, its answer matched by id; events that come in between go to a
 * callback and are not kept, so nothing grows. Whoever has the socket is not trusted: a
 * message longer than QMP_MAX_MESSAGE or one that is no JSON object ends the
 * conversation, and every wait has a deadline.
 *
 * Source: qemu/docs/interop/qmp-spec.txt. One thread.
 */
#ifndef VMM_QMP_H
#define VMM_QMP_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define QMP_MAX_MESSAGE (16u << 20) /* bytes of a message with its newline */
#define QMP_TIMEOUT_MS	20000	    /* of a command */

enum qmp_type { QMP_GREETING, QMP_RETURN, QMP_ERROR, QMP_EVENT };

struct qmp_msg {
	enum qmp_type type;
	json_t *root;	     /* owns all below; qmp_msg_fini() */
	const json_t *data;  /* of a return or an event; may be NULL for an event */
	const char *text;    /* error: description. event: name */
	json_int_t id;	     /* -1: none */
	uint64_t us;	     /* event: time since 1970, microseconds; 0: none */
	unsigned int ver[3]; /* greeting: QEMU's major, minor, micro */
};

/** qmp_parse() - one message. Return: 0, -EBADMSG, and then there is nothing to free */
int qmp_parse(const char *text, size_t len, struct qmp_msg *m);
void qmp_msg_fini(struct qmp_msg *m);

struct qmp;

/** qmp_connect() - connect and negotiate
 * @path:	of the socket
 * @name:	of this machine in messages, e.g. "source"; not copied
 * @why:	[@why_len] what is wrong, on failure
 *
 * Return: 0; -ENOENT, -ECONNREFUSED: nobody listens; -ETIMEDOUT: no greeting, as when
 * another client has the monitor; -EPROTO: no QMP; another -errno
 */
int qmp_connect(const char *path, const char *name, int timeout_ms, struct qmp **out,
		char *why, size_t why_len);

/** qmp_close() - NULL is fine */
void qmp_close(struct qmp *q);

const char *qmp_name(const struct qmp *q);

/** qmp_version() - QEMU's, as major * 1000000 + minor * 1000 + micro */
unsigned int qmp_version(const struct qmp *q);

/** qmp_pid() - who listens at the socket: QEMU, unless it was given an open socket.
 * 0: not in this PID namespace */
pid_t qmp_pid(const struct qmp *q);

/** qmp_on_event() - @fn is called from within any of the calls below */
void qmp_on_event(struct qmp *q,
		  void (*fn)(void *arg, const char *name, const json_t *data,
			     uint64_t us),
		  void *arg);

/**
 * qmp_call() - execute a command
 * @args:	its arguments, a reference that is taken; NULL: none
 * @ret:	set on success to what it returned, the caller's reference; may be NULL
 *
 * Return: 0; -EREMOTEIO: QEMU answered with an error; -EPIPE: it is gone; -ETIMEDOUT,
 * -EPROTO: the conversation is over, as every later call will say. qmp_error() has words
 */
int qmp_call(struct qmp *q, const char *cmd, json_t *args, json_t **ret);

/** qmp_hmp() - a command of the human monitor; *text is malloc()ed */
int qmp_hmp(struct qmp *q, const char *line, char **text);

/** qmp_pump() - deliver events that come within @timeout_ms, at least one if it can.
 * Return: events, 0: none, -errno as qmp_call() */
int qmp_pump(struct qmp *q, int timeout_ms);

/** qmp_error() - why the last call failed: "source: migrate: ..." */
const char *qmp_error(const struct qmp *q);

#endif
