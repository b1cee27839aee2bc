/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libghostnic: talk to a running ghostnicd.
 *
 * The daemon answers requests on a UNIX stream socket: one line of JSON each way.
 * A request is {"cmd": NAME, ...}; an answer is {"ok": true, ...} or
 * {"ok": false, "error": TEXT}. ghostnic(8) lists the commands.
 *
 * Every call opens a connection of its own and shares no state, so any thread
 * may call at any time.
 */
#ifndef GHOSTNIC_H
#define GHOSTNIC_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GHOSTNIC_SOCKET		"/run/ghostnic/ctl.sock"
#define GHOSTNIC_SOCKET_ENV	"GHOSTNIC_CTL"
#define GHOSTNIC_MAX_REQUEST	4096		/* bytes with the newline */
#define GHOSTNIC_MAX_ANSWER	(16u << 20)	/* bytes with the newline */
#define GHOSTNIC_TIMEOUT_MS	5000

/**
 * ghostnic_socket() - path of the daemon's control socket
 * @path:	what the user named, or NULL
 *
 * Return: @path, or the value of GHOSTNIC_CTL, or GHOSTNIC_SOCKET
 */
const char *ghostnic_socket(const char *path);

/**
 * ghostnic_request() - send one request, wait for its answer
 * @path:	control socket; NULL: ghostnic_socket(NULL)
 * @request:	one JSON object, without a newline in it; at most
 *		GHOSTNIC_MAX_REQUEST - 1 bytes
 * @timeout_ms:	for the whole call; below 0: GHOSTNIC_TIMEOUT_MS
 * @answer:	set on success to the answer without its newline, NUL-terminated;
 *		the caller frees it by free(). Untouched on failure
 *
 * An answer that reports an error is a success of this function.
 *
 * Return: 0; -EINVAL: newline in the request; -EMSGSIZE: request or answer too
 * long; -ENAMETOOLONG: path; -ENOENT or -ECONNREFUSED: no daemon; -EACCES; -ETIMEDOUT;
 * -EPIPE: the daemon closed the connection without a whole answer; -ENOMEM; or
 * another -errno of the socket
 */
int ghostnic_request(const char *path, const char *request, int timeout_ms,
		     char **answer);

#ifdef __cplusplus
}
#endif

#endif
