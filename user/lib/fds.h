/* SPDX-License-Identifier: BSD-2-Clause */
/* fds: descriptors that go with a message of a UNIX socket (unix(7), SCM_RIGHTS;
 * cmsg(3)). No state; any thread. */
#ifndef GN_FDS_H
#define GN_FDS_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#define FDS_MAX 32 /* of a message; the kernel would take 253 */

/**
 * fds_send() - as sendmsg(): one message, or a part of a stream
 * @iov:	[@niov]
 * @fd:		[@nfds], at most FDS_MAX; they stay the caller's
 *
 * Return: bytes sent, with the first of which the descriptors went; -errno; -EMSGSIZE:
 * too many descriptors
 */
ssize_t fds_send(int sock, const struct iovec *iov, size_t niov, const int *fd,
		 size_t nfds, int flags);

/* Where descriptors that come are put. */
struct fds {
	int *fd; /* [max], of which n are set: close-on-exec, the caller's */
	unsigned int n, max;
	bool lost; /* there were more: they are closed */
};

/**
 * fds_recv() - as recv(), descriptors appended to @l
 *
 * Return: bytes; 0: the end; -errno. @l->n is to be looked at in any case
 */
ssize_t fds_recv(int sock, void *buf, size_t len, struct fds *l, int flags);

/** fds_close() - all of @l */
void fds_close(struct fds *l);

#endif
