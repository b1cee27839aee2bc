// SPDX-License-Identifier: BSD-2-Clause
/*
 * net_tls: "tls:HOST:PORT", mutual TLS 1.3 over TCP. Contract in net.h.
 *
 * A client shakes hands in net_connect_step(), a server in its sends and receives,
 * whenever the socket is ready: a peer that is slow with it, or silent, holds up nobody
 * on the loop.
 *
 * A record holds as much of what is sent together as fits, so that header and page do
 * not become two. What the socket does not take GnuTLS keeps; those bytes count as sent
 * once it has taken them, as with any other socket (tls.h).
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "net_impl.h"

#define RECORD 16384

struct net_tls {
	struct tls_creds *client, *server;
	char hostname[NET_ADDR_MAX]; /* expected; empty: HOST of the address */
	void (*refused)(const char *peer, const char *why);
};

struct tls_conn {
	struct tls_session *session;
	bool server, shaken;
	char host[NET_ADDR_MAX]; /* of the address; GnuTLS looks at it in the handshake */
	uint8_t record[RECORD];
};

int net_tls_create(const struct tls_conf *conf, bool server,
		   void (*refused)(const char *peer, const char *why),
		   struct net_tls **out)
{
	struct net_tls *t = calloc(1, sizeof(*t));
	struct tls_conf own = *conf;
	int err;

	if (!t)
		return -ENOMEM;
	if (conf->hostname && strlen(conf->hostname) >= sizeof(t->hostname)) {
		free(t);
		return -EINVAL;
	}
	if (conf->hostname)
		strcpy(t->hostname, conf->hostname);
	if (conf->mode == TLS_PSK && !conf->hostname)
		own.hostname = NET_TLS_USER;
	t->refused = refused;
	err = tls_creds_load(&own, false, &t->client);
	if (!err && server)
		err = tls_creds_load(&own, true, &t->server);
	if (err) {
		net_tls_destroy(t);
		return err;
	}
	*out = t;
	return 0;
}

void net_tls_destroy(struct net_tls *t)
{
	if (!t)
		return;
	tls_creds_free(t->client);
	tls_creds_free(t->server);
	free(t);
}

void net_tls_refuse(const struct net_tls *t, const char *peer, const char *why)
{
	if (t && t->refused)
		t->refused(peer, why);
}

/* Return: what callers of net.h get: lost connections as they are, all that has to do
 * with credentials as -EPROTO, told to whoever wants to know */
static int tell(struct net_conn *c, int err)
{
	const struct tls_conn *t = c->priv;

	if (err == -EAGAIN || err == -EINTR || err == -ETIMEDOUT || err == -ENOMEM)
		return err;
	/* A client that is cut off in the handshake may have met a peer without TLS. */
	if (err == -EPIPE || err == -ECONNRESET) {
		if (!t->shaken && !t->server)
			net_tls_refuse(c->tls, c->peer, tls_error());
		return -ECONNRESET;
	}
	net_tls_refuse(c->tls, c->peer, tls_error());
	return -EPROTO;
}

static int shake(struct net_conn *c)
{
	struct tls_conn *t = c->priv;
	int err = tls_session_shake(t->session);

	if (err)
		return tell(c, err);
	t->shaken = true;
	return 0;
}

int net_tls_host(const char *addr, char host[NET_ADDR_MAX])
{
	const char *s = strchr(addr, ':'), *at = strchr(addr, '@');
	const char *end = at ? at : strrchr(addr, ':');

	if (!s || end == s)
		return -EINVAL;
	if (*++s == '[') {
		s++;
		end--;
	}
	memcpy(host, s, (size_t)(end - s));
	host[end - s] = 0;
	return 0;
}

static int conn_start(struct net_conn *c, bool server)
{
	struct tls_conn *t = calloc(1, sizeof(*t));
	int err;

	if (!t)
		return -ENOMEM;
	t->server = server;
	err = server ? 0 : net_tls_host(c->peer, t->host);
	if (!err)
		err = tls_session_create(server ? c->tls->server : c->tls->client, c->fd,
					 *c->tls->hostname ? c->tls->hostname : t->host,
					 &t->session);
	if (err) {
		free(t);
		return err;
	}
	c->priv = t;
	return 0;
}

static void conn_stop(struct net_conn *c)
{
	struct tls_conn *t = c->priv;

	if (t->shaken)
		tls_session_end(t->session);
	tls_session_free(t->session);
	free(t);
	c->priv = NULL;
}

/* As much as one record holds of what starts @off bytes into @iov. Return: its bytes */
static size_t gather(struct tls_conn *t, const struct iovec *iov, int n, size_t off,
		     const void **from)
{
	size_t fill = iov->iov_len - off;

	*from = (const char *)iov->iov_base + off;
	if (n == 1 || fill >= RECORD)
		return fill;
	memcpy(t->record, *from, fill);
	*from = t->record;
	for (int i = 1; i < n && fill < RECORD; i++) {
		size_t more = iov[i].iov_len;

		if (more > RECORD - fill)
			more = RECORD - fill;
		memcpy(t->record + fill, iov[i].iov_base, more);
		fill += more;
	}
	return fill;
}

static ssize_t conn_send(struct net_conn *c, const struct iovec *iov, int n)
{
	struct tls_conn *t = c->priv;
	size_t off = 0;
	ssize_t sent = 0;
	int err = t->shaken ? 0 : shake(c);

	if (err)
		return err;
	for (;;) {
		const void *from;
		size_t len;
		ssize_t r;

		while (n && off >= iov->iov_len) {
			off -= iov->iov_len;
			iov++;
			n--;
		}
		if (!n)
			return sent;
		len = gather(t, iov, n, off, &from);
		r = tls_session_send(t->session, from, len);
		if (r < 0)
			return sent ? sent : tell(c, (int)r);
		sent += r;
		off += (size_t)r;
	}
}

static bool conn_pending(struct net_conn *c)
{
	struct tls_conn *t = c->priv;

	return tls_session_pending(t->session);
}

static ssize_t conn_recv(struct net_conn *c, const struct iovec *iov, int n)
{
	struct tls_conn *t = c->priv;
	ssize_t got = 0;
	int err = t->shaken ? 0 : shake(c);

	if (err)
		return err;
	for (; n; iov++, n--) {
		for (size_t at = 0; at < iov->iov_len;) {
			ssize_t r =
				tls_session_recv(t->session, (char *)iov->iov_base + at,
						 iov->iov_len - at);

			if (r <= 0)
				return got || !r ? got : tell(c, (int)r);
			at += (size_t)r;
			got += r;
			if (!tls_session_pending(t->session))
				return got;
		}
	}
	return got;
}

static bool conn_peer_is(struct net_conn *c, const char *node)
{
	const struct tls_conn *t = c->priv;

	return t->shaken && tls_session_peer_is(t->session, node);
}

const struct net_ops net_tls_ops = {
	.scheme = "tls",
	.send = conn_send,
	.recv = conn_recv,
	.start = conn_start,
	.shake = shake,
	.stop = conn_stop,
	.peer_is = conn_peer_is,
	.pending = conn_pending,
};
