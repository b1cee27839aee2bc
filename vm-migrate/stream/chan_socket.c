// SPDX-License-Identifier: BSD-2-Clause
/* chan_socket: see chan_socket.h. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../user/lib/clock.h"
#include "../../user/lib/unix_path.h"
#include "chan_socket.h"

#define BACKLOG	     (2 * 16)
#define SLICE_MS     20 /* to look at "cancelled" */
#define KEEP_IDLE_S  4	/* then probes every */
#define KEEP_EVERY_S 2
#define KEEP_PROBES  3

/* ---- addresses -----------------------------------------------------------------------
 */

static int parse_tcp(const char *uri, const char *s, struct chan_address *a)
{
	char *colon, *host = a->host;

	snprintf(a->host, sizeof(a->host), "%s", s);
	colon = strrchr(a->host, ':');
	if (!colon || !colon[1] || strspn(colon + 1, "0123456789") != strlen(colon + 1) ||
	    atol(colon + 1) > 65535)
		return chan_say(-EINVAL, "%s: expected tcp:HOST:PORT", uri);
	*colon = '\0';
	a->port = colon + 1;
	if (*host == '[') {
		if (colon[-1] != ']')
			return chan_say(-EINVAL, "%s: expected tcp:[ADDRESS]:PORT", uri);
		colon[-1] = '\0';
		memmove(host, host + 1, strlen(host));
	} else if (strchr(host, ':')) {
		return chan_say(-EINVAL, "%s: put the IPv6 address in brackets", uri);
	}
	return 0;
}

int chan_address_parse(const char *uri, struct chan_address *a)
{
	char *end;

	memset(a, 0, sizeof(*a));
	if (strlen(uri) >= CHAN_URI_MAX)
		return chan_say(-EINVAL, "%.40s...: the address is too long", uri);
	if (!strncmp(uri, "tcp:", 4)) {
		a->kind = ADDR_TCP;
		return parse_tcp(uri, uri + 4, a);
	}
	if (!strncmp(uri, "unix:", 5)) {
		a->kind = ADDR_UNIX;
		a->sun.sun_family = AF_UNIX;
		if (!uri[5] || strlen(uri + 5) >= sizeof(a->sun.sun_path))
			return chan_say(-EINVAL, "%s: the path is empty or too long",
					uri);
		strcpy(a->sun.sun_path, uri + 5);
		return 0;
	}
	if (!strncmp(uri, "fd:", 3)) {
		a->kind = ADDR_FD;
		a->fd = (int)strtol(uri + 3, &end, 10);
		if (uri[3] && !*end && a->fd >= 0)
			return 0;
	}
	return chan_say(-EINVAL, "%s: expected tcp:HOST:PORT, unix:PATH or fd:NUMBER",
			uri);
}

/* ---- sockets ----------------------------------------------------------------------- */

static int set_int(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof(value)) ? -errno : 0;
}

int chan_socket_timeout(int fd, int option, int ms)
{
	struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

	return setsockopt(fd, SOL_SOCKET, option, &tv, sizeof(tv)) ? -errno : 0;
}

int chan_socket_block(int fd, bool block)
{
	int flags = fcntl(fd, F_GETFL);

	flags = block ? flags & ~O_NONBLOCK : flags | O_NONBLOCK;
	return fcntl(fd, F_SETFL, flags) ? -errno : 0;
}

int chan_socket_tune(int fd)
{
	int domain = 0, type = 0, err;
	socklen_t len = sizeof(domain);

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len))
		return -errno;
	len = sizeof(domain);
	if (type != SOCK_STREAM || getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len))
		return -EINVAL;
	err = chan_socket_block(fd, true);
	if (!err)
		err = chan_socket_timeout(fd, SO_SNDTIMEO, CHAN_DEAD_MS);
	if (err || (domain != AF_INET && domain != AF_INET6))
		return err;
	if ((err = set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1)) ||
	    (err = set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1)) ||
	    (err = set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEP_IDLE_S)) ||
	    (err = set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEP_EVERY_S)) ||
	    (err = set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEP_PROBES)) ||
	    (err = set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, CHAN_DEAD_MS)))
		return err;
	return 0;
}

int chan_socket_wait(int fd, short events, uint64_t deadline,
		     const atomic_bool *cancelled)
{
	struct pollfd p = { .fd = fd, .events = events };
	int left = chan_left_ms(deadline), n;

	if (cancelled && atomic_load(cancelled))
		return -ECANCELED;
	n = poll(&p, 1, left < SLICE_MS ? left : SLICE_MS);
	if (n < 0 && errno != EINTR)
		return -errno;
	return n > 0 ? 1 : left ? 0 : -ETIMEDOUT;
}

/* Return: 0, -ETIMEDOUT, -ECANCELED, -errno of the connection */
static int finish_connect(int fd, uint64_t deadline, const atomic_bool *cancelled)
{
	socklen_t len = sizeof(int);
	int err = 0, n;

	do
		n = chan_socket_wait(fd, POLLOUT, deadline, cancelled);
	while (!n);
	if (n < 0)
		return n;
	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) ? -errno : -err;
}

static int connect_to(const struct sockaddr *sa, socklen_t len, uint64_t deadline,
		      const atomic_bool *cancelled)
{
	int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int err = 0;

	if (fd < 0)
		return -errno;
	if (connect(fd, sa, len))
		err = errno == EINPROGRESS ? finish_connect(fd, deadline, cancelled)
					   : -errno;
	if (err) {
		close(fd);
		return err;
	}
	return fd;
}

/* Return: an address list for freeaddrinfo(), or -errno */
static int resolve(const char *uri, const struct chan_address *a, int flags,
		   struct addrinfo **list)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC,
				  .ai_socktype = SOCK_STREAM,
				  .ai_flags = flags | AI_NUMERICSERV };
	int n = getaddrinfo(*a->host ? a->host : NULL, a->port, &hints, list);

	return n ? chan_say(-EADDRNOTAVAIL, "%s: %s", uri, gai_strerror(n)) : 0;
}

static int connect_tcp(const char *uri, const struct chan_address *a, uint64_t deadline,
		       const atomic_bool *cancelled)
{
	struct addrinfo *list;
	int fd = resolve(uri, a, 0, &list);

	if (fd)
		return fd;
	fd = -EADDRNOTAVAIL;
	for (struct addrinfo *i = list; i && fd < 0 && fd != -ECANCELED; i = i->ai_next)
		fd = connect_to(i->ai_addr, i->ai_addrlen, deadline, cancelled);
	freeaddrinfo(list);
	return fd < 0 ? chan_say(fd, "%s: %s", uri, strerror(-fd)) : fd;
}

int chan_socket_take(const char *uri, int from)
{
	int fd = fcntl(from, F_DUPFD_CLOEXEC, 0);

	return fd < 0 ? chan_say(-errno, "%s: %s", uri, strerror(errno)) : fd;
}

int chan_socket_connect(const char *uri, const struct chan_address *a, uint64_t deadline,
			const atomic_bool *cancelled)
{
	int fd;

	switch (a->kind) {
	case ADDR_TCP: return connect_tcp(uri, a, deadline, cancelled);
	case ADDR_FD: return chan_socket_take(uri, a->fd);
	default:
		fd = connect_to((const struct sockaddr *)&a->sun, sizeof(a->sun),
				deadline, cancelled);
		return fd < 0 ? chan_say(fd, "%s: %s", uri, strerror(-fd)) : fd;
	}
}

/* ---- listening --------------------------------------------------------------------- */

static int bind_tcp(const char *uri, const struct chan_address *a)
{
	struct addrinfo *list;
	int fd, err = resolve(uri, a, AI_PASSIVE, &list);

	if (err)
		return err;
	fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1) ||
	    bind(fd, list->ai_addr, list->ai_addrlen) || listen(fd, BACKLOG)) {
		err = chan_say(-errno, "%s: %s", uri, strerror(errno));
		if (fd >= 0)
			close(fd);
		fd = err;
	}
	freeaddrinfo(list);
	return fd;
}

static int bind_unix(const char *uri, const struct sockaddr_un *sun)
{
	int fd = unix_listen(sun->sun_path, SOCK_STREAM, UNIX_MODE_DIR, BACKLOG);

	return fd < 0 ? chan_say(fd, "%s: %s", uri, strerror(-fd)) : fd;
}

int chan_socket_listen(const char *uri, const struct chan_address *a)
{
	switch (a->kind) {
	case ADDR_TCP: return bind_tcp(uri, a);
	case ADDR_UNIX: return bind_unix(uri, &a->sun);
	default: return chan_socket_take(uri, a->fd);
	}
}
