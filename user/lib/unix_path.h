/* SPDX-License-Identifier: BSD-2-Clause */
/* unix_path: sockets that listen at a path. Control thread. */
#ifndef GN_UNIX_PATH_H
#define GN_UNIX_PATH_H

#include <sys/types.h>
#include <sys/un.h>

#define UNIX_MODE_DIR 0 /* unix_listen(): as the directory says */

/**
 * unix_check_dead() - may the socket at a path be replaced?
 * @sun:	address, not abstract
 *
 * Return: 0: nobody listens there; -EADDRINUSE: somebody does; -EEXIST: it is no socket;
 * or the -errno of looking
 */
int unix_check_dead(const struct sockaddr_un *sun);

/**
 * unix_listen() - listen at a path, in place of a socket that nobody serves any more
 * @path:	absolute or not, shorter than sun_path
 * @type:	SOCK_STREAM or SOCK_SEQPACKET, with or without SOCK_NONBLOCK
 * @mode:	of the file, from its birth on. UNIX_MODE_DIR: 0660 in a directory with the
 *		set-group-ID bit, whose group the file gets (inode(7)), so that who made
 *		the directory decides which group may connect; 0600 elsewhere
 *
 * Changes the umask of the process for a moment: no other thread may make files then.
 *
 * Return: the socket, close-on-exec; -ENAMETOOLONG; as unix_check_dead(); -errno
 */
int unix_listen(const char *path, int type, mode_t mode, int backlog);

/** unix_connect() - to who listens at a path; arguments and result as unix_listen()'s */
int unix_connect(const char *path, int type);

#endif
