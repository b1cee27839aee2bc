// SPDX-License-Identifier: BSD-2-Clause
/*
 * chan: connections; see chan.h. Sockets block; SO_SNDTIMEO and SO_RCVTIMEO bound that.
 */
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../../user/lib/clock.h"
#include "../../user/lib/tls.h"
#include "chan_socket.h"

#define LAST_WORDS_MS 1000

struct chan {
	int fd;
	struct tls_session *tls; /* NULL: none */
	atomic_bool shut;
	bool ended;
	uint64_t deadline; /* of reads, 0: none. The socket does not block then */
};

struct chan_listener {
	int fd;
	struct tls_creds *creds;
	char uri[CHAN_URI_MAX];
	struct sockaddr_un path; /* family 0: not a UNIX socket of ours */
	bool once;		 /* fd is a connection */
	bool used;
};

static _Thread_local char error[256];

const char *chan_error(void)
{
	return error;
}

int chan_say(int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(error, sizeof(error), fmt, ap);
	va_end(ap);
	return err;
}

/* What tls.h says */
static int say_tls(int err)
{
	return chan_say(err, "%s", tls_error());
}

static int load_creds(const struct chan_tls *tls, bool server, struct tls_creds **creds)
{
	const struct tls_conf conf = {
		.mode = tls->mode == CHAN_TLS_PSK ? TLS_PSK : TLS_X509,
		.dir = tls->dir,
		.hostname = tls->hostname,
	};
	int err = tls_creds_load(&conf, server, creds);

	return err ? say_tls(err) : 0;
}

static int shake_hands(struct chan *c, struct tls_creds *creds, const char *hostname,
		       uint64_t deadline, const atomic_bool *cancelled)
{
	int err = tls_session_create(creds, c->fd, hostname, &c->tls), n = 0;

	if (err)
		return say_tls(err);
	err = chan_socket_block(c->fd, false);
	if (err)
		return chan_say(err, "%s", strerror(-err));
	do {
		err = tls_session_shake(c->tls);
		if (err == -EAGAIN)
			n = chan_socket_wait(c->fd, POLLIN, deadline, cancelled);
	} while (err == -EAGAIN && n >= 0);
	if (n == -ETIMEDOUT)
		return chan_say(n, "TLS: the peer is silent");
	if (n < 0)
		return chan_say(n, "TLS: %s", strerror(-n));
	if (err)
		return say_tls(err);
	err = chan_socket_block(c->fd, true);
	return err ? chan_say(err, "%s", strerror(-err)) : 0;
}

/* Takes @fd over, also on failure. */
static int chan_make(const char *uri, int fd, struct tls_creds *creds,
		     const char *hostname, uint64_t deadline,
		     const atomic_bool *cancelled, struct chan **chan)
{
	struct chan *c = calloc(1, sizeof(*c));
	int err = c ? chan_socket_tune(fd) : -ENOMEM;

	if (err) {
		chan_say(err, "%s: %s", uri, strerror(-err));
		goto fail;
	}
	c->fd = fd;
	if (creds) {
		err = shake_hands(c, creds, hostname, deadline, cancelled);
		if (err)
			goto fail;
	}
	*chan = c;
	return 0;
fail:
	if (c && c->tls)
		tls_session_free(c->tls);
	close(fd);
	free(c);
	return err;
}

int chan_connect(const char *uri, const struct chan_tls *tls, int timeout_ms,
		 const atomic_bool *cancelled, struct chan **chan)
{
	uint64_t deadline = clock_ns() + (uint64_t)timeout_ms * 1000000;
	struct tls_creds *creds = NULL;
	const char *host = "";
	struct chan_address a;
	int err = chan_address_parse(uri, &a), fd = -1;

	if (err)
		return err;
	if (cancelled && atomic_load(cancelled))
		return chan_say(-ECANCELED, "cancelled");
	if (tls && tls->mode != CHAN_TLS_OFF) {
		err = load_creds(tls, false, &creds);
		if (err)
			return err;
		host = tls->hostname ? tls->hostname : a.host;
	}
	fd = chan_socket_connect(uri, &a, deadline, cancelled);
	err = fd < 0 ? fd : chan_make(uri, fd, creds, host, deadline, cancelled, chan);
	tls_creds_free(creds);
	return err;
}

/* ---- listening --------------------------------------------------------------------- */

/* The port that was picked goes where 0 was. */
static void name_port(struct chan_listener *l, const char *uri)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	unsigned int port;

	snprintf(l->uri, sizeof(l->uri), "%s", uri);
	if (getsockname(l->fd, (struct sockaddr *)&ss, &len))
		return;
	port = ntohs(ss.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&ss)->sin6_port
					      : ((struct sockaddr_in *)&ss)->sin_port);
	snprintf(l->uri, sizeof(l->uri), "%.*s:%u", (int)(strrchr(uri, ':') - uri), uri,
		 port);
}

/* Does fd:N listen, or is it a connection? */
static int listens(struct chan_listener *l, const char *uri)
{
	int accepts = 0;
	socklen_t len = sizeof(accepts);

	if (getsockopt(l->fd, SOL_SOCKET, SO_ACCEPTCONN, &accepts, &len))
		return chan_say(-errno, "%s: %s", uri, strerror(errno));
	l->once = !accepts;
	return 0;
}

int chan_listen(const char *uri, const struct chan_tls *tls, struct chan_listener **out)
{
	struct chan_listener *l;
	struct chan_address a;
	int err = chan_address_parse(uri, &a);

	if (err)
		return err;
	l = calloc(1, sizeof(*l));
	if (!l)
		return chan_say(-ENOMEM, "out of memory");
	l->fd = -1;
	snprintf(l->uri, sizeof(l->uri), "%s", uri);
	if (tls && tls->mode != CHAN_TLS_OFF)
		err = load_creds(tls, true, &l->creds);
	if (err)
		goto fail;
	l->fd = chan_socket_listen(uri, &a);
	if (l->fd < 0) {
		err = l->fd;
		goto fail;
	}
	if (a.kind == ADDR_TCP)
		name_port(l, uri);
	else if (a.kind == ADDR_UNIX)
		l->path = a.sun;
	else
		err = listens(l, uri);
	if (err)
		goto fail;
	*out = l;
	return 0;
fail:
	chan_listener_close(l);
	return err;
}

const char *chan_listener_uri(const struct chan_listener *l)
{
	return l->uri;
}

int chan_listener_fd(const struct chan_listener *l)
{
	return l->fd;
}

static int wait_fd(int fd, int timeout_ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int n;

	do
		n = poll(&p, 1, timeout_ms);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

int chan_accept(struct chan_listener *l, int timeout_ms, struct chan **chan)
{
	int fd, n;

	if (l->once) {
		if (l->used)
			return chan_say(-ENOTCONN, "%s: its one connection was used",
					l->uri);
		l->used = true;
		fd = chan_socket_take(l->uri, l->fd);
	} else {
		n = wait_fd(l->fd, timeout_ms);
		if (!n)
			return chan_say(-ETIMEDOUT, "%s: nobody connected", l->uri);
		fd = n < 0 ? n : accept4(l->fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			fd = chan_say(n < 0 ? n : -errno, "%s: %s", l->uri,
				      strerror(n < 0 ? -n : errno));
	}
	return fd < 0 ? fd
		      : chan_make(l->uri, fd, l->creds, NULL,
				  clock_ns() + CHAN_HANDSHAKE_MS * 1000000ULL, NULL,
				  chan);
}

void chan_listener_close(struct chan_listener *l)
{
	if (!l)
		return;
	if (l->path.sun_family)
		unlink(l->path.sun_path);
	if (l->fd >= 0)
		close(l->fd);
	tls_creds_free(l->creds);
	free(l);
}

/* ---- bytes ------------------------------------------------------------------------- */

static int failed(const struct chan *c, int err)
{
	if (atomic_load(&c->shut))
		return chan_say(-ECANCELED, "the connection was shut down here");
	if (c->tls && err == -EAGAIN)
		return chan_say(-ETIMEDOUT, "TLS: the peer is silent");
	if (c->tls && err != -ENODATA)
		return say_tls(err);
	/* A timeout of the socket's own, TCP_USER_TIMEOUT's, or what it died of meanwhile
	 */
	if (err == -EAGAIN || err == -EWOULDBLOCK)
		err = -ETIMEDOUT;
	if (err == -ETIMEDOUT || err == -EHOSTUNREACH || err == -ENETUNREACH)
		return chan_say(-ETIMEDOUT, "the peer does not answer: %s",
				strerror(-err));
	if (err == -ENODATA)
		return chan_say(err, "the peer closed the connection");
	return chan_say(err, "the connection broke: %s", strerror(-err));
}

static void advance(struct iovec **iov, unsigned int *n, size_t done)
{
	while (*n && done >= (*iov)->iov_len) {
		done -= (*iov)->iov_len;
		(*iov)++;
		(*n)--;
	}
	if (*n) {
		(*iov)->iov_base = (char *)(*iov)->iov_base + done;
		(*iov)->iov_len -= done;
	}
}

int chan_write(struct chan *c, struct iovec *iov, unsigned int n)
{
	advance(&iov, &n, 0);
	while (n) {
		ssize_t w;

		if (c->tls) {
			w = tls_session_send(c->tls, iov->iov_base, iov->iov_len);
		} else {
			struct msghdr m = { .msg_iov = iov,
					    .msg_iovlen = n < 1024 ? n : 1024 };

			w = sendmsg(c->fd, &m, MSG_NOSIGNAL);
			if (w < 0)
				w = -errno;
		}
		if (w == -EINTR)
			continue;
		if (w < 0)
			return failed(c, (int)w);
		advance(&iov, &n, (size_t)w);
	}
	return 0;
}

void chan_last_words(struct chan *c)
{
	char sink[64];

	if (!c->tls)
		return;
	/* An alert is behind nothing: a peer that refuses us has sent nothing else. */
	chan_socket_timeout(c->fd, SO_RCVTIMEO, LAST_WORDS_MS);
	if (tls_session_recv(c->tls, sink, sizeof(sink)) == -EACCES)
		say_tls(-EACCES);
}

static ssize_t receive(struct chan *c, const struct iovec *iov, unsigned int n)
{
	ssize_t r;

	if (c->tls) {
		while (n > 1 && !iov->iov_len) {
			iov++;
			n--;
		}
		return tls_session_recv(c->tls, iov->iov_base, iov->iov_len);
	}
	r = readv(c->fd, iov, (int)n);
	return r < 0 ? -errno : r;
}

ssize_t chan_readv(struct chan *c, const struct iovec *iov, unsigned int n)
{
	ssize_t r;

	do {
		r = receive(c, iov, n);
		if (r == -EAGAIN && c->deadline &&
		    chan_socket_wait(c->fd, POLLIN, c->deadline, NULL) >= 0)
			r = -EINTR;
	} while (r == -EINTR);
	if (!r)
		r = -ENODATA;
	return r < 0 ? failed(c, (int)r) : r;
}

int chan_read(struct chan *c, void *buf, size_t len)
{
	size_t done = 0;

	while (done < len) {
		struct iovec iov = { (char *)buf + done, len - done };
		ssize_t r = chan_readv(c, &iov, 1);

		if (r == -ENODATA && done)
			return -EPIPE;
		if (r < 0)
			return (int)r;
		done += (size_t)r;
	}
	return 0;
}

int chan_set_read_timeout(struct chan *c, int ms)
{
	return chan_socket_timeout(c->fd, SO_RCVTIMEO, ms);
}

int chan_set_read_deadline(struct chan *c, uint64_t ns)
{
	c->deadline = ns;
	return chan_socket_block(c->fd, !ns);
}

int chan_set_write_timeout(struct chan *c, int ms)
{
	return chan_socket_timeout(c->fd, SO_SNDTIMEO, ms);
}

int chan_wait(struct chan *c, int timeout_ms)
{
	if (c->tls && tls_session_pending(c->tls))
		return 1;
	return wait_fd(c->fd, timeout_ms);
}

bool chan_gone(const struct chan *c)
{
	struct pollfd p = { .fd = c->fd, .events = POLLRDHUP };

	return poll(&p, 1, 0) > 0 && p.revents;
}

size_t chan_unsent(const struct chan *c)
{
	int n = 0;

	return ioctl(c->fd, SIOCOUTQ, &n) || n < 0 ? 0 : (size_t)n;
}

bool chan_is_tls(const struct chan *c)
{
	return c->tls;
}

void chan_end(struct chan *c)
{
	if (c->ended || atomic_load(&c->shut))
		return;
	c->ended = true;
	if (c->tls)
		tls_session_end(c->tls);
	shutdown(c->fd, SHUT_WR);
}

void chan_stop_reading(struct chan *c)
{
	shutdown(c->fd, SHUT_RD);
}

void chan_shutdown(struct chan *c)
{
	atomic_store(&c->shut, true);
	shutdown(c->fd, SHUT_RDWR);
}

void chan_close(struct chan *c)
{
	if (!c)
		return;
	chan_end(c);
	if (c->tls)
		tls_session_free(c->tls);
	close(c->fd);
	free(c);
}
