/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tls: mutual TLS 1.3 over a stream socket, by GnuTLS, for all programs here.
 *
 * Credentials are a directory in the layout that QEMU uses: X.509: ca-cert.pem,
 * server-cert.pem and server-key.pem, client-cert.pem and client-key.pem, ca-crl.pem if
 * there; PSK: keys.psk, lines of USER:HEX. They are loaded once and shared by all
 * sessions, which may outlive neither them nor their socket.
 *
 * The socket may block (SO_RCVTIMEO and SO_SNDTIMEO bound that) or not. One thread reads
 * and one writes a session, which GnuTLS allows after the handshake. Functions return 0
 * or -errno; tls_error() says why, for people.
 */
#ifndef GN_TLS_H
#define GN_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum tls_mode { TLS_OFF, TLS_X509, TLS_PSK };

struct tls_conf {
	enum tls_mode mode;
	const char *dir; /* credentials */
	/* Expected in the server's certificate; NULL: HOST of the address. PSK: the user
	 * name on the client, "qemu" if NULL. */
	const char *hostname;
};

struct tls_creds;
struct tls_session;

/** tls_error() - why the last call on this thread failed: cause and remedy */
const char *tls_error(void);

/** tls_creds_load() - Return: 0, -EACCES: a file is missing or wrong, -ENOMEM */
int tls_creds_load(const struct tls_conf *conf, bool server, struct tls_creds **creds);
void tls_creds_free(struct tls_creds *creds); /* NULL is fine */

/**
 * tls_session_create() - a session over @fd, which stays the caller's; nothing is sent
 * @hostname:	a client's: in the server's certificate; it stays as it is until hands are
 *		shaken
 *
 * Return: 0, -ENOMEM
 */
int tls_session_create(struct tls_creds *creds, int fd, const char *hostname,
		       struct tls_session **session);

/**
 * tls_session_shake() - shake hands, as far as the socket allows
 *
 * Return: 0; -EAGAIN: call again when the socket is ready; -EACCES: one side does not
 * accept the other; -EPIPE, -ECONNRESET; -EPROTO
 */
int tls_session_shake(struct tls_session *s);

/**
 * tls_session_send(), tls_session_recv() - as send() and recv(): bytes, 0: closed in
 * order, -errno; -EPIPE: cut off; -EAGAIN: not now, or the socket's timeout
 *
 * What was not sent for -EAGAIN may have been encrypted: it has to be sent next, from the
 * same bytes.
 */
ssize_t tls_session_send(struct tls_session *s, const void *buf, size_t len);
ssize_t tls_session_recv(struct tls_session *s, void *buf, size_t len);

/** tls_session_peer_is() - after the handshake: does the peer's certificate name @name,
 * as a DNS name or the common name? No wildcards. PSK: true, a key has no name */
bool tls_session_peer_is(struct tls_session *s, const char *name);

/** tls_session_pending() - are there bytes that poll() of the socket does not show? */
bool tls_session_pending(struct tls_session *s);
void tls_session_end(struct tls_session *s); /* says that nothing more comes */
void tls_session_free(struct tls_session *s);

#endif
