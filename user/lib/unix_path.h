/* SPDX-License-Identifier: BSD-2-Clause */
/* unix_path: what a socket's path leads to, before it is taken over. Control thread. */
#ifndef GN_UNIX_PATH_H
#define GN_UNIX_PATH_H

#include <sys/un.h>

/**
 * unix_check_dead() - may the socket at a path be replaced?
 * @sun:	address, not abstract
 *
 * Return: 0: nobody listens there; -EADDRINUSE: somebody does; -EEXIST: it is no socket;
 * or the -errno of looking
 */
int unix_check_dead(const struct sockaddr_un *sun);

#endif
