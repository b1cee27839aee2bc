/* SPDX-License-Identifier: BSD-2-Clause */
/* sock: a request and its answer with one deadline for all of it, however slowly the other
 * side sends or takes them. No state; any thread. */
#ifndef GN_SOCK_H
#define GN_SOCK_H

#include <stddef.h>
#include <stdint.h>

/** sock_wait() - for one of these @events of poll(2), until @deadline of clock_ns().
 * Return: 0, -ETIMEDOUT, -errno */
int sock_wait(int fd, short events, uint64_t deadline);

/** sock_send() - all of it. Return: 0, -ETIMEDOUT, -EPIPE: the other side is gone, -errno */
int sock_send(int fd, const char *p, size_t len, uint64_t deadline);

#endif
