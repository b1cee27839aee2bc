// SPDX-License-Identifier: BSD-2-Clause
/* net_tcp: TCP and UNIX streams; addresses of all transports. Contract in net.h. */
#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "net_impl.h"
#include "../lib/clock.h"

static const struct net_ops tcp_ops = { .scheme = "tcp" };
static const struct net_ops unix_ops = { .scheme = "unix" };

struct address {
	const struct net_ops *ops;
	struct sockaddr_storage ss;
	socklen_t len;
};

/* @scheme: its length; NULL: unknown */
static const struct net_ops *ops_of(const char *addr, size_t *scheme)
{
	static const struct net_ops *const all[] = { &tcp_ops, &net_tls_ops, &unix_ops };

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
		*scheme = strlen(all[i]->scheme) + 1;
		if (!strncmp(addr, all[i]->scheme, *scheme - 1) &&
		    addr[*scheme - 1] == ':')
			return all[i];
	}
	return NULL;
}

/* [NAME@]HOST:PORT; @flags: AI_NUMERICHOST: no name server is asked */
static int parse_host(const char *s, int flags, struct address *out)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
				  .ai_flags = AI_NUMERICSERV | flags };
	char host[NET_ADDR_MAX];
	const char *at = strchr(s, '@'), *colon = strrchr(s, ':');
	struct addrinfo *ai;
	size_t n;

	if (at)
		s = at + 1;
	if (!colon || colon <= s || strlen(s) >= sizeof(host))
		return -EINVAL;
	n = (size_t)(colon - s);
	if (*s == '[' && s[n - 1] == ']') {
		s++;
		n -= 2;
	}
	memcpy(host, s, n);
	host[n] = 0;
	if (getaddrinfo(host, colon + 1, &hints, &ai))
		return -EINVAL;
	memcpy(&out->ss, ai->ai_addr, ai->ai_addrlen);
	out->len = ai->ai_addrlen;
	freeaddrinfo(ai);
	return 0;
}

static int parse(const char *s, int flags, struct address *out)
{
	struct sockaddr_un *sun = (struct sockaddr_un *)&out->ss;
	size_t scheme;

	*out = (struct address){ 0 };
	out->ops = ops_of(s, &scheme);
	if (!out->ops)
		return -EINVAL;
	s += scheme;
	if (out->ops != &unix_ops)
		return parse_host(s, flags, out);
	if (!*s || strlen(s) >= sizeof(sun->sun_path))
		return -EINVAL;
	sun->sun_family = AF_UNIX;
	strcpy(sun->sun_path, s);
	out->len = sizeof(*sun);
	return 0;
}

int net_resolve(const char *addr, char out[NET_ADDR_MAX])
{
	char host[64], port[16], name[NET_ADDR_MAX] = "";
	bool tls = !strncmp(addr, "tls:", 4);
	struct address a;
	int n;

	if (strlen(addr) >= NET_ADDR_MAX)
		return -EINVAL;
	if (!parse(addr, AI_NUMERICHOST, &a)) {
		strcpy(out, addr);
		return 0;
	}
	if (parse(addr, 0, &a) ||
	    getnameinfo((struct sockaddr *)&a.ss, a.len, host, sizeof(host), port,
			sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV))
		return -EINVAL;
	if (tls && net_tls_host(addr, name))
		return -EINVAL;
	n = snprintf(out, NET_ADDR_MAX,
		     a.ss.ss_family == AF_INET6 ? "%s:%s%s[%s]:%s" : "%s:%s%s%s:%s",
		     a.ops->scheme, name, tls ? "@" : "", host, port);
	return n < NET_ADDR_MAX ? 0 : -EINVAL;
}

int net_listen(const char *addr)
{
	struct address a;
	int fd, err, one = 1;

	err = parse(addr, 0, &a);
	if (err)
		return err;
	fd = socket(a.ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (a.ss.ss_family == AF_UNIX)
		unlink(((struct sockaddr_un *)&a.ss)->sun_path);
	if (bind(fd, (struct sockaddr *)&a.ss, a.len) || listen(fd, 128)) {
		err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

/* Bytes on their way. The kernel doubles it, for what it adds to them. */
#define UNIX_BYTES (1 << 20)

/* TCP finds out how much may be on its way. A UNIX socket stays at net.core.wmem_default,
 * 208 KiB, and its sender sleeps until three quarters of that were taken. */
static void tune(int fd, int family)
{
	int one = 1, bytes = UNIX_BYTES;

	if (family == AF_UNIX)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	else
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

int net_accept(int listener, const char *addr, const struct net_tls *tls,
	       struct net_conn *out)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	struct net_conn c = { .fd = -1, .tls = tls };
	char host[64] = "local", port[16] = "";
	size_t scheme;
	int err;

	c.ops = ops_of(addr, &scheme);
	if (!c.ops)
		return -EINVAL;
	c.fd = accept4(listener, (struct sockaddr *)&ss, &len,
		       SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (c.fd < 0)
		return -errno;
	tune(c.fd, ss.ss_family);
	if (ss.ss_family != AF_UNIX)
		getnameinfo((struct sockaddr *)&ss, len, host, sizeof(host), port,
			    sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV);
	snprintf(c.peer, sizeof(c.peer), "%s:%s", host, port);
	err = c.ops->start ? c.ops->start(&c, true) : 0;
	if (err) {
		close(c.fd);
		return err;
	}
	*out = c;
	return 0;
}

int net_wait(int fd, short events, uint64_t end_ns)
{
	struct pollfd p = { .fd = fd, .events = events };
	uint64_t now = clock_ns();
	int n;

	if (now >= end_ns)
		return -ETIMEDOUT;
	n = poll(&p, 1, (int)((end_ns - now) / 1000000) + 1);
	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	return n ? 0 : -ETIMEDOUT;
}

/* Never plain where there are credentials: whoever writes the directory could ask for it.
 */
static int check_tls(const char *addr, const struct address *a, const struct net_tls *tls)
{
	if (a->ops == &tcp_ops && tls) {
		net_tls_refuse(tls, addr, "it speaks plain TCP, and this node has TLS");
		return -EPROTO;
	}
	return a->ops == &net_tls_ops && !tls ? -EPROTO : 0;
}

int net_connect_start(const char *addr, const struct net_tls *tls, struct net_conn *out)
{
	struct net_conn c = { .fd = -1, .tls = tls };
	struct address a;
	int err;

	err = parse(addr, AI_NUMERICHOST, &a);
	if (!err)
		err = check_tls(addr, &a, tls);
	if (err)
		return err;
	c.ops = a.ops;
	snprintf(c.peer, sizeof(c.peer), "%s", addr);
	c.fd = socket(a.ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c.fd < 0)
		return -errno;
	tune(c.fd, a.ss.ss_family);
	if (connect(c.fd, (struct sockaddr *)&a.ss, a.len)) {
		err = -errno;
		c.connecting = err == -EINPROGRESS;
		/* A UNIX socket whose queue is full does not tell when it is not. */
		err = c.connecting ? 0 : err == -EAGAIN ? -ECONNREFUSED : err;
	}
	if (!err && c.ops->start)
		err = c.ops->start(&c, false);
	if (err) {
		close(c.fd);
		return err;
	}
	*out = c;
	return 0;
}

int net_connect_step(struct net_conn *c, short *events)
{
	struct pollfd p = { .fd = c->fd, .events = POLLOUT };
	socklen_t len = sizeof(int);
	int err;

	assert(c->ops);
	if (c->connecting) {
		*events = POLLOUT;
		if (poll(&p, 1, 0) <= 0)
			return -EAGAIN;
		if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len))
			return -errno;
		if (err)
			return -err;
		c->connecting = false;
	}
	*events = POLLIN;
	return c->ops->shake ? c->ops->shake(c) : 0;
}

int net_addr_next(const char **addrs, char one[NET_ADDR_MAX])
{
	const char *comma = strchr(*addrs, ',');
	size_t n = comma ? (size_t)(comma - *addrs) : strlen(*addrs);

	if (n >= NET_ADDR_MAX)
		return -EINVAL;
	memcpy(one, *addrs, n);
	one[n] = 0;
	*addrs = comma ? comma + 1 : NULL;
	return 0;
}

static int connect_one(const char *addr, const struct net_tls *tls, int timeout_ms,
		       struct net_conn *out)
{
	uint64_t end = clock_ns() + (uint64_t)timeout_ms * 1000000;
	struct net_conn c = { .fd = -1 };
	short events;
	int err = net_connect_start(addr, tls, &c);

	if (err)
		return err;
	while ((err = net_connect_step(&c, &events)) == -EAGAIN) {
		err = net_wait(c.fd, events, end);
		if (err)
			break;
	}
	if (err)
		net_close(&c);
	else
		*out = c;
	return err;
}

int net_connect(const char *addr, const struct net_tls *tls, int timeout_ms,
		struct net_conn *out)
{
	int err = -EINVAL;

	while (addr) {
		char one[NET_ADDR_MAX];

		err = net_addr_next(&addr, one);
		if (!err)
			err = connect_one(one, tls, timeout_ms, out);
		if (!err || err == -ETIMEDOUT || err == -EINVAL)
			break;
	}
	return err;
}

void net_close(struct net_conn *c)
{
	if (c->fd < 0)
		return;
	if (c->ops->stop)
		c->ops->stop(c);
	close(c->fd);
	c->fd = -1;
}

int net_check_peer(struct net_conn *c, const char *node)
{
	char why[128];

	if (!c->ops->peer_is || c->ops->peer_is(c, node))
		return 0;
	snprintf(why, sizeof(why), "its certificate does not name node %s", node);
	net_tls_refuse(c->tls, c->peer, why);
	return -EPROTO;
}

ssize_t net_send(struct net_conn *c, const struct iovec *iov, int n)
{
	struct msghdr mh = { .msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)n };
	ssize_t r;

	if (c->ops->send)
		return c->ops->send(c, iov, n);
	r = sendmsg(c->fd, &mh, MSG_NOSIGNAL | MSG_DONTWAIT);
	return r < 0 ? -errno : r;
}

ssize_t net_recv(struct net_conn *c, const struct iovec *iov, int n)
{
	ssize_t r;

	if (c->ops->recv)
		return c->ops->recv(c, iov, n);
	r = readv(c->fd, iov, n);
	return r < 0 ? -errno : r;
}

/* Not yet: wait, until *@end_ns; 0: this wait begins. */
static int wait_on(struct net_conn *c, short events, int timeout_ms, uint64_t *end_ns)
{
	if (!*end_ns)
		*end_ns = clock_ns() + (uint64_t)timeout_ms * 1000000;
	return net_wait(c->fd, events, *end_ns);
}

int net_send_all(struct net_conn *c, struct iovec *iov, int n, int timeout_ms)
{
	uint64_t end = 0;

	while (n) {
		ssize_t r = net_send(c, iov, n);

		if (r == -EINTR)
			continue;
		if (r == -EAGAIN) {
			int err = wait_on(c, POLLOUT, timeout_ms, &end);

			if (err)
				return err;
			continue;
		}
		if (r < 0)
			return (int)r;
		end = 0;
		while (n && (size_t)r >= iov->iov_len) {
			r -= (ssize_t)iov->iov_len;
			iov++;
			n--;
		}
		if (n) {
			iov->iov_base = (char *)iov->iov_base + r;
			iov->iov_len -= (size_t)r;
		}
	}
	return 0;
}

int net_recv_all(struct net_conn *c, void *buf, size_t len, int timeout_ms)
{
	struct iovec iov = { .iov_base = buf, .iov_len = len };
	uint64_t end = 0;

	while (iov.iov_len) {
		ssize_t r = net_recv(c, &iov, 1);

		if (r == -EINTR)
			continue;
		if (r == -EAGAIN) {
			int err = wait_on(c, POLLIN, timeout_ms, &end);

			if (err)
				return err;
			continue;
		}
		if (r <= 0)
			return r ? (int)r : -ECONNRESET;
		end = 0;
		iov.iov_base = (char *)iov.iov_base + r;
		iov.iov_len -= (size_t)r;
	}
	return 0;
}
