/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * net: byte streams between nodes, behind an ops table: TCP, and UNIX sockets on one host
 * (net_tcp.c), TLS 1.3 over TCP (net_tls.c). Room is left for RDMA: get and put on a
 * transport that reads and writes remote memory itself would be two more ops.
 *
 * Addresses are strings, as they stand in the directory: "tcp:10.0.0.1:7400",
 * "tls:[fd00::1]:7400", "unix:/run/ghostmem/n1.peer". Hosts are numbers there: a thread
 * that serves others must not wait for a name server. "tls:NAME@10.0.0.1:7400": what the
 * certificate there is for. A connection belongs to one thread.
 *
 * Who has credentials connects by TLS, or on its own host by UNIX sockets, and never by
 * plain TCP, whatever the directory says; who has none cannot connect by TLS.
 */
#ifndef GM_NET_H
#define GM_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "../lib/tls.h"

#define NET_ADDR_MAX 128
#define NET_TLS_USER "ghostmem" /* of a PSK, unless another is given */

struct net_conn;
struct net_tls;

struct net_ops {
	const char *scheme;
	/* Non-blocking sends and receives: bytes, or -EAGAIN, -errno; receive 0: closed.
	 * NULL: plain readv/sendmsg on the descriptor. */
	ssize_t (*send)(struct net_conn *c, const struct iovec *iov, int n);
	ssize_t (*recv)(struct net_conn *c, const struct iovec *iov, int n);
	/* A new connection, before its handshake. A server's is a matter of send and
	 * recv. NULL: none */
	int (*start)(struct net_conn *c, bool server);
	/* A client's handshake, as far as the socket allows. Return: 0, -EAGAIN: again
	 * when the socket is readable, -errno. NULL: none */
	int (*shake)(struct net_conn *c);
	void (*stop)(struct net_conn *c); /* frees priv */
	/* Is the peer @node, as far as its credentials say? NULL: they say nothing */
	bool (*peer_is)(struct net_conn *c, const char *node);
	/* Bytes buffered above the socket that poll() does not show */
	bool (*pending)(struct net_conn *c);
};

struct net_conn {
	const struct net_ops *ops;
	int fd; /* non-blocking */
	void *priv;
	const struct net_tls *tls;
	bool connecting; /* net_connect_start(): the socket is not connected yet */
	char peer[NET_ADDR_MAX]; /* for logs */
};

/** net_resolve() - @addr, whose host may be a name, as others can connect to it. May wait
 * for a name server. Return: 0, -EINVAL: there is no such host, or no such address */
int net_resolve(const char *addr, char out[NET_ADDR_MAX]);

/** net_listen() - at @addr as at net_resolve(). Return: listening descriptor
 * (non-blocking), -EINVAL: no such address, -errno */
int net_listen(const char *addr);

/** net_accept() - the next connection of a listener, @addr as at net_listen(); @tls: of
 * a tls: address. Return: 0, -EAGAIN, -errno */
int net_accept(int listener, const char *addr, const struct net_tls *tls,
	       struct net_conn *out);

/** net_connect() - @addr: or several, with commas between them, tried in turn; @tls:
 * NULL: none; it outlives the connection. Return: 0, -ETIMEDOUT after @timeout_ms,
 * -EPROTO: both sides do not agree on TLS, -errno: of the last one. For threads that
 * block */
int net_connect(const char *addr, const struct net_tls *tls, int timeout_ms,
		struct net_conn *out);

/** net_addr_next() - the first of *@addrs (net_connect()), which becomes the rest, NULL:
 * none. Return: 0, -EINVAL: too long */
int net_addr_next(const char **addrs, char one[NET_ADDR_MAX]);

/** net_connect_start() - begin to connect to @addr, a single one, without waiting; @tls
 * as at net_connect(). @out is for net_connect_step() and net_close() alone, until that
 * says that it is connected. Return: 0, -errno */
int net_connect_start(const char *addr, const struct net_tls *tls, struct net_conn *out);

/** net_connect_step() - go on: TCP's handshake, then that of TLS. Return: 0: connected;
 * -EAGAIN: call again when the socket has *@events (POLLIN or POLLOUT); -errno as
 * net_connect() */
int net_connect_step(struct net_conn *c, short *events);
void net_close(struct net_conn *c);

/** net_check_peer() - on a connection that stands: the peer says that it is @node.
 * Return: 0; -EPROTO: its certificate is not that node's (net_tls_create()'s refused()
 * was told)
 */
int net_check_peer(struct net_conn *c, const char *node);

ssize_t net_send(struct net_conn *c, const struct iovec *iov, int n);
ssize_t net_recv(struct net_conn *c, const struct iovec *iov, int n);

/** net_send_all(), net_recv_all() - wait for the whole of it, @timeout_ms for each
 * progress; for threads that block. Return: 0, -ETIMEDOUT, -ECONNRESET, -errno */
int net_send_all(struct net_conn *c, struct iovec *iov, int n, int timeout_ms);
int net_recv_all(struct net_conn *c, void *buf, size_t len, int timeout_ms);

/** net_wait() - until @fd has @events, or a signal came; at most until @end_ns
 * (clock_ns()). Return: 0: look, -ETIMEDOUT, -errno */
int net_wait(int fd, short events, uint64_t end_ns);

/**
 * net_tls_create() - load credentials; any number of connections may share them
 * @server:	also those to accept connections with
 * @refused:	told who was refused, or refused us, and why; NULL: nobody
 *
 * Return: 0; -EACCES: tls_error() says what is missing; -errno
 */
int net_tls_create(const struct tls_conf *conf, bool server,
		   void (*refused)(const char *peer, const char *why),
		   struct net_tls **out);
void net_tls_destroy(struct net_tls *t);

#endif
