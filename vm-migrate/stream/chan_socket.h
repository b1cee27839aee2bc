/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * chan_socket: sockets by address, for chan.c. What fails says why (chan_error()), and
 * returns -errno. Any thread.
 */
#ifndef VMM_CHAN_SOCKET_H
#define VMM_CHAN_SOCKET_H

#include <stdint.h>
#include <sys/un.h>

#include "../../user/lib/clock.h"
#include "chan.h"

struct chan_address {
	enum { ADDR_TCP, ADDR_UNIX, ADDR_FD } kind;
	char host[CHAN_URI_MAX];
	const char *port; /* in host's buffer */
	struct sockaddr_un sun;
	int fd;
};

/** chan_address_parse() - Return: 0, -EINVAL */
int chan_address_parse(const char *uri, struct chan_address *a);

/** chan_socket_connect() - @deadline: of clock_ns(); @cancelled: as of chan_connect(). Return: a
 * descriptor */
int chan_socket_connect(const char *uri, const struct chan_address *a, uint64_t deadline,
			const atomic_bool *cancelled);

/** chan_socket_wait() - a moment, for poll()'s @events, or an error of the socket. Return: 1:
 * they are there, 0: not yet, -ETIMEDOUT, -ECANCELED, -errno. Says nothing */
int chan_socket_wait(int fd, short events, uint64_t deadline,
		     const atomic_bool *cancelled);

/** chan_socket_block() - or not. Return: 0, -errno. Says nothing */
int chan_socket_block(int fd, bool block);

/** chan_socket_listen() - a stale UNIX socket is replaced. Return: a descriptor */
int chan_socket_listen(const char *uri, const struct chan_address *a);

/** chan_socket_take() - a copy of descriptor @from */
int chan_socket_take(const char *uri, int from);

/** chan_socket_tune() - make a connected socket block, and notice a dead peer. Says
 * nothing. Return: 0, -EINVAL: no stream socket */
int chan_socket_tune(int fd);

/** chan_socket_timeout() - @option: SO_RCVTIMEO or SO_SNDTIMEO; 0: none. Says nothing */
int chan_socket_timeout(int fd, int option, int ms);

static inline int chan_left_ms(uint64_t deadline)
{
	uint64_t now = clock_ns();

	return now >= deadline ? 0 : (int)((deadline - now + 999999) / 1000000);
}

/** chan_say() - set chan_error() of this thread. Return: @err */
int chan_say(int err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
