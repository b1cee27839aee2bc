/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * chan: a reliable byte stream to the other side: TCP, UNIX socket or descriptor, bare or
 * in TLS 1.3 (GnuTLS).
 *
 * Addresses: tcp:HOST:PORT ([v6]:PORT), unix:PATH, fd:N (an open stream socket, or one
 * that listens).
 *
 * TLS is mutual. Credentials are a directory in the layout that QEMU uses: X.509:
 * ca-cert.pem, server-cert.pem and server-key.pem, client-cert.pem and client-key.pem,
 * ca-crl.pem if there; PSK: keys.psk, lines of USER:HEX.
 *
 * One thread reads and one writes a channel at a time; chan_shutdown() may be called by
 * any thread and makes both fail. TCP channels have keep-alive and TCP_USER_TIMEOUT set
 * (tcp(7)), so that a peer which is gone is noticed within CHAN_DEAD_MS; a write that the
 * peer does not take for so long fails too.
 */
#ifndef VMM_CHAN_H
#define VMM_CHAN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#define CHAN_DEAD_MS	  10000
#define CHAN_HANDSHAKE_MS 5000 /* of a listener's TLS */
#define CHAN_URI_MAX	  256  /* bytes of an address with the NUL */

enum chan_tls_mode { CHAN_TLS_OFF, CHAN_TLS_X509, CHAN_TLS_PSK };

struct chan_tls {
	enum chan_tls_mode mode;
	const char *dir; /* credentials */
	/* Expected in the server's certificate; NULL: HOST of the address. PSK: the user
	 * name on the client, "qemu" if NULL. */
	const char *hostname;
};

struct chan;
struct chan_listener;

/* Why the last call on this thread failed, for people: cause and remedy. */
const char *chan_error(void);

/**
 * chan_connect() - connect and, with TLS, shake hands
 * @tls:	NULL: none
 * @timeout_ms:	for all of it
 * @cancelled:	give up when it gets true, but for a name that is being resolved; NULL: never
 *
 * Return: 0; -EINVAL: address; -ECONNREFUSED, -ETIMEDOUT, ...; -EPROTO or -EACCES: TLS;
 * -ECANCELED
 */
int chan_connect(const char *uri, const struct chan_tls *tls, int timeout_ms,
		 const atomic_bool *cancelled, struct chan **chan);

/** chan_listen() - tcp:HOST:0 picks a port; a stale UNIX socket is replaced */
int chan_listen(const char *uri, const struct chan_tls *tls, struct chan_listener **out);
/** chan_listener_uri() - where it listens, with the port that was picked */
const char *chan_listener_uri(const struct chan_listener *l);
int chan_listener_fd(const struct chan_listener *l);

/**
 * chan_accept() - the next connection
 * @timeout_ms:	to wait for one, below 0: for ever. TLS then has CHAN_HANDSHAKE_MS
 *
 * A connection that fails to shake hands is closed; the listener goes on.
 * Return: 0; -ETIMEDOUT: none came; -EPROTO or -EACCES: TLS; -ENOTCONN: fd:N is used up;
 * -errno
 */
int chan_accept(struct chan_listener *l, int timeout_ms, struct chan **chan);
void chan_listener_close(struct chan_listener *l);

/**
 * chan_write() - all of it
 * @iov:	changed
 *
 * Return: 0, -EPIPE or -ECONNRESET: the peer is gone, -ETIMEDOUT, -ECANCELED: shut down
 */
int chan_write(struct chan *c, struct iovec *iov, unsigned int n);

/** chan_last_words() - a write failed: has the peer said why, before it closed? With TLS
 * chan_error() is then that. No other thread reads */
void chan_last_words(struct chan *c);

/** chan_read() - exactly @len bytes; -ENODATA: the peer closed before the first of them,
 * -EPIPE: in the middle. Else as chan_write() */
int chan_read(struct chan *c, void *buf, size_t len);

/** chan_readv() - what is there, at least a byte. Return: bytes, or as chan_read() */
ssize_t chan_readv(struct chan *c, const struct iovec *iov, unsigned int n);

/** chan_set_read_timeout() - reads that get nothing for so long fail by -ETIMEDOUT; 0:
 * none, as at first */
int chan_set_read_timeout(struct chan *c, int ms);

/** chan_set_read_deadline() - reads fail by -ETIMEDOUT at @ns of clock_ns(), however much
 * trickles in until then; 0: none, as at first. Nobody writes meanwhile */
int chan_set_read_deadline(struct chan *c, uint64_t ns);

/** chan_set_write_timeout() - instead of CHAN_DEAD_MS */
int chan_set_write_timeout(struct chan *c, int ms);

/** chan_wait() - until there is something to read. Return: 1, 0: timeout, -errno */
int chan_wait(struct chan *c, int timeout_ms);

/** chan_gone() - has the peer closed its side, or died? Does not read */
bool chan_gone(const struct chan *c);

/** chan_unsent() - bytes that were written and that the peer's kernel does not have yet
 */
size_t chan_unsent(const struct chan *c);

/** chan_is_tls() */
bool chan_is_tls(const struct chan *c);

/** chan_end() - say that nothing more will be written; reading goes on */
void chan_end(struct chan *c);

/** chan_stop_reading() - wake the reader: it gets -ENODATA after what has come; writing
 * goes on. Any thread */
void chan_stop_reading(struct chan *c);

/** chan_shutdown() - wake and fail every reader and writer; any thread */
void chan_shutdown(struct chan *c);

/** chan_close() - NULL is fine */
void chan_close(struct chan *c);

#endif
