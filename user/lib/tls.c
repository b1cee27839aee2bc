// SPDX-License-Identifier: BSD-2-Clause
/* tls: see tls.h. GnuTLS 3.7 manual, "Using GnuTLS in applications". */
#include <errno.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tls.h"

/* AES-128 is the fastest where the CPU does AES, and fits the hash of a PSK. */
#define PRIORITY_CIPHERS                                                                 \
	"NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM:+AES-256-GCM:"           \
	"+CHACHA20-POLY1305"
#define PRIORITY_X509 PRIORITY_CIPHERS
/* A key alone: no side has a certificate, and no side goes on without the key. */
#define PRIORITY_PSK PRIORITY_CIPHERS ":-KX-ALL:+ECDHE-PSK:+DHE-PSK"
#define PSK_USER     "qemu"
#define LINE	     1024
#define RAW	     (64u << 10)

struct tls_creds {
	enum tls_mode mode;
	bool server;
	gnutls_certificate_credentials_t cert;
	gnutls_psk_client_credentials_t psk_client;
	gnutls_psk_server_credentials_t psk_server;
};

/*
 * Received bytes go through a buffer, so that a record, and what follows it, costs one
 * system call and not two. The reader's alone.
 */
struct tls_session {
	gnutls_session_t tls;
	int fd;
	bool unsent; /* GnuTLS holds a record that the socket did not take */
	size_t at, fill;
	uint8_t raw[RAW];
};

static _Thread_local char error[256];

const char *tls_error(void)
{
	return error;
}

static void __attribute__((format(printf, 1, 2))) set_error(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(error, sizeof(error), fmt, ap);
	va_end(ap);
}

/* A macro: compilers and analyzers see that the result is @err, never 0. */
#define say(err, ...) (set_error(__VA_ARGS__), (err))

static int path_of(char path[PATH_MAX], const char *dir, const char *file)
{
	return snprintf(path, PATH_MAX, "%s/%s", dir, file) < PATH_MAX
		       ? 0
		       : say(-ENAMETOOLONG, "%s: the path is too long", dir);
}

/* ---- X.509 ---------------------------------------------------------------------------
 */

static int load_x509(struct tls_creds *c, const char *dir)
{
	const char *who = c->server ? "server" : "client";
	char ca[PATH_MAX], crl[PATH_MAX], cert[PATH_MAX], key[PATH_MAX], name[32];
	int n;

	if (path_of(ca, dir, "ca-cert.pem") || path_of(crl, dir, "ca-crl.pem"))
		return -ENAMETOOLONG;
	snprintf(name, sizeof(name), "%s-cert.pem", who);
	if (path_of(cert, dir, name))
		return -ENAMETOOLONG;
	snprintf(name, sizeof(name), "%s-key.pem", who);
	if (path_of(key, dir, name))
		return -ENAMETOOLONG;
	if (gnutls_certificate_allocate_credentials(&c->cert))
		return say(-ENOMEM, "out of memory");
	n = gnutls_certificate_set_x509_trust_file(c->cert, ca, GNUTLS_X509_FMT_PEM);
	if (n <= 0)
		return say(-EACCES, "%s: %s", ca,
			   n ? gnutls_strerror(n) : "no certificate in it");
	if (!access(crl, F_OK)) {
		n = gnutls_certificate_set_x509_crl_file(c->cert, crl,
							 GNUTLS_X509_FMT_PEM);
		if (n < 0)
			return say(-EACCES, "%s: %s", crl, gnutls_strerror(n));
	}
	n = gnutls_certificate_set_x509_key_file(c->cert, cert, key, GNUTLS_X509_FMT_PEM);
	return n < 0 ? say(-EACCES, "%s, %s: %s", cert, key, gnutls_strerror(n)) : 0;
}

/* ---- PSK -----------------------------------------------------------------------------
 */

/* The hexadecimal key of @user in the file: keys.psk has lines of USER:HEX. */
static int find_key(const char *path, const char *user, char key[LINE])
{
	size_t n = strlen(user);
	char line[LINE];
	int err = -ENOENT;
	FILE *f = fopen(path, "re");

	if (!f)
		return say(-EACCES, "%s: %s", path, strerror(errno));
	while (err && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\r\n")] = '\0';
		if (strncmp(line, user, n) || line[n] != ':')
			continue;
		strcpy(key, line + n + 1);
		err = 0;
	}
	fclose(f);
	explicit_bzero(line, sizeof(line));
	return err ? say(-EACCES, "%s: no key of user %s in it", path, user) : 0;
}

static int load_psk(struct tls_creds *c, const struct tls_conf *conf)
{
	const char *user = conf->hostname ? conf->hostname : PSK_USER;
	char path[PATH_MAX], key[LINE];
	gnutls_datum_t hex;
	int n;

	if (path_of(path, conf->dir, "keys.psk"))
		return -ENAMETOOLONG;
	if (c->server) {
		if (access(path, R_OK))
			return say(-EACCES, "%s: %s", path, strerror(errno));
		if (gnutls_psk_allocate_server_credentials(&c->psk_server))
			return say(-ENOMEM, "out of memory");
		n = gnutls_psk_set_server_credentials_file(c->psk_server, path);
		return n < 0 ? say(-EACCES, "%s: %s", path, gnutls_strerror(n)) : 0;
	}
	n = find_key(path, user, key);
	if (n)
		return n;
	if (gnutls_psk_allocate_client_credentials(&c->psk_client)) {
		n = say(-ENOMEM, "out of memory");
	} else {
		hex = (gnutls_datum_t){ (unsigned char *)key, (unsigned int)strlen(key) };
		n = gnutls_psk_set_client_credentials(c->psk_client, user, &hex,
						      GNUTLS_PSK_KEY_HEX);
		if (n < 0)
			n = say(-EACCES, "%s: key of user %s: %s", path, user,
				gnutls_strerror(n));
	}
	explicit_bzero(key, sizeof(key));
	return n;
}

int tls_creds_load(const struct tls_conf *conf, bool server, struct tls_creds **creds)
{
	struct tls_creds *c;
	int err;

	if (!conf->dir || !*conf->dir)
		return say(-EACCES, "TLS needs a directory of credentials");
	c = calloc(1, sizeof(*c));
	if (!c)
		return say(-ENOMEM, "out of memory");
	c->mode = conf->mode;
	c->server = server;
	err = conf->mode == TLS_PSK ? load_psk(c, conf) : load_x509(c, conf->dir);
	if (err)
		tls_creds_free(c);
	else
		*creds = c;
	return err;
}

void tls_creds_free(struct tls_creds *c)
{
	if (!c)
		return;
	if (c->cert)
		gnutls_certificate_free_credentials(c->cert);
	if (c->psk_client)
		gnutls_psk_free_client_credentials(c->psk_client);
	if (c->psk_server)
		gnutls_psk_free_server_credentials(c->psk_server);
	free(c);
}

/* ---- sessions ---------------------------------------------------------------------- */

/* Return: -errno for a GnuTLS error, said */
static int error_of(gnutls_session_t s, int n)
{
	gnutls_datum_t text = { NULL, 0 };
	int err;

	switch (n) {
	case GNUTLS_E_AGAIN: return -EAGAIN;
	case GNUTLS_E_TIMEDOUT: return say(-ETIMEDOUT, "TLS: the peer is silent");
	case GNUTLS_E_INTERRUPTED: return -EINTR;
	case GNUTLS_E_PREMATURE_TERMINATION:
		return say(-EPIPE,
			   "TLS: the connection was cut: look at the peer's messages");
	case GNUTLS_E_PUSH_ERROR:
	case GNUTLS_E_PULL_ERROR:
		if (errno == ETIMEDOUT || errno == EHOSTUNREACH || errno == ENETUNREACH)
			return say(-ETIMEDOUT, "TLS: the peer does not answer: %s",
				   strerror(errno));
		return say(-ECONNRESET, "TLS: the connection broke");
	case GNUTLS_E_UNEXPECTED_PACKET:
	case GNUTLS_E_UNEXPECTED_PACKET_LENGTH:
	case GNUTLS_E_UNSUPPORTED_VERSION_PACKET:
		return say(-EPROTO, "TLS: %s: does the peer use TLS?",
			   gnutls_strerror(n));
	case GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR:
	case GNUTLS_E_CERTIFICATE_ERROR:
		if (gnutls_certificate_verification_status_print(
			    gnutls_session_get_verify_cert_status(s), GNUTLS_CRT_X509,
			    &text, 0) < 0)
			text.data = NULL;
		err = say(-EACCES, "TLS: the peer's certificate is refused: %s",
			  text.data ? (char *)text.data : "cannot be verified");
		gnutls_free(text.data);
		return err;
	case GNUTLS_E_FATAL_ALERT_RECEIVED:
		return say(-EACCES, "TLS: the peer refuses us: %s: check the credentials",
			   gnutls_alert_get_name(gnutls_alert_get(s)));
	case GNUTLS_E_NO_CERTIFICATE_FOUND:
	case GNUTLS_E_CERTIFICATE_REQUIRED:
		return say(-EACCES, "TLS: the peer has no certificate");
	case GNUTLS_E_RECEIVED_ILLEGAL_PARAMETER:
	case GNUTLS_E_DECRYPTION_FAILED:
	case GNUTLS_E_NO_CIPHER_SUITES:
	case GNUTLS_E_INSUFFICIENT_CREDENTIALS:
		return say(-EACCES, "TLS: the keys do not match: %s", gnutls_strerror(n));
	default: return say(-EPROTO, "TLS: %s", gnutls_strerror(n));
	}
}

static ssize_t pull(gnutls_transport_ptr_t arg, void *buf, size_t len)
{
	struct tls_session *s = arg;

	if (s->at == s->fill) {
		ssize_t n = recv(s->fd, s->raw, sizeof(s->raw), 0);

		if (n <= 0) {
			gnutls_transport_set_errno(s->tls, n ? errno : 0);
			return n;
		}
		s->at = 0;
		s->fill = (size_t)n;
	}
	if (len > s->fill - s->at)
		len = s->fill - s->at;
	memcpy(buf, s->raw + s->at, len);
	s->at += len;
	return (ssize_t)len;
}

/* What GnuTLS wants beside a pull function: above 0: readable */
static int pull_timeout(gnutls_transport_ptr_t arg, unsigned int ms)
{
	struct tls_session *s = arg;
	struct pollfd p = { .fd = s->fd, .events = POLLIN };

	return s->at < s->fill
		       ? 1
		       : poll(&p, 1, ms == GNUTLS_INDEFINITE_TIMEOUT ? -1 : (int)ms);
}

static int configure(struct tls_creds *c, gnutls_session_t s, const char *hostname)
{
	const char *priority = c->mode == TLS_PSK ? PRIORITY_PSK : PRIORITY_X509;
	int n = gnutls_priority_set_direct(s, priority, NULL);

	if (n < 0)
		return n;
	if (c->mode == TLS_PSK)
		return gnutls_credentials_set(s, GNUTLS_CRD_PSK,
					      c->server ? (void *)c->psk_server
							: (void *)c->psk_client);
	n = gnutls_credentials_set(s, GNUTLS_CRD_CERTIFICATE, c->cert);
	if (c->server)
		gnutls_certificate_server_set_request(s, GNUTLS_CERT_REQUIRE);
	gnutls_session_set_verify_cert(s, c->server ? NULL : hostname, 0);
	return n;
}

int tls_session_create(struct tls_creds *c, int fd, const char *hostname,
		       struct tls_session **session)
{
	struct tls_session *s = malloc(sizeof(*s));
	int n;

	if (!s)
		return say(-ENOMEM, "out of memory");
	s->fd = fd;
	s->unsent = false;
	s->at = s->fill = 0;
	n = gnutls_init(&s->tls,
			(c->server ? GNUTLS_SERVER | GNUTLS_NO_TICKETS : GNUTLS_CLIENT) |
				GNUTLS_NO_SIGNAL);
	if (n < 0) {
		free(s);
		return say(-ENOMEM, "TLS: %s", gnutls_strerror(n));
	}
	n = configure(c, s->tls, hostname);
	if (n < 0) {
		tls_session_free(s);
		return say(-ENOMEM, "TLS: %s", gnutls_strerror(n));
	}
	/* Who receives is us, who sends is GnuTLS. */
	gnutls_transport_set_ptr2(s->tls, s, (gnutls_transport_ptr_t)(intptr_t)fd);
	gnutls_transport_set_pull_function(s->tls, pull);
	gnutls_transport_set_pull_timeout_function(s->tls, pull_timeout);
	gnutls_handshake_set_timeout(s->tls, 0);
	*session = s;
	return 0;
}

int tls_session_shake(struct tls_session *s)
{
	int n, err;

	do
		n = gnutls_handshake(s->tls);
	while (n < 0 && !gnutls_error_is_fatal(n) && n != GNUTLS_E_AGAIN);
	if (n >= 0)
		return 0;
	err = error_of(s->tls, n);
	/* So that the other side can say why, too */
	if (err != -EAGAIN)
		gnutls_alert_send_appropriate(s->tls, n);
	return err;
}

ssize_t tls_session_send(struct tls_session *s, const void *buf, size_t len)
{
	/* gnutls_record_send(3): after GNUTLS_E_AGAIN the rest is asked for by NULL, 0.
	 */
	ssize_t n = s->unsent ? gnutls_record_send(s->tls, NULL, 0)
			      : gnutls_record_send(s->tls, buf, len);

	s->unsent = n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED;
	return n < 0 ? error_of(s->tls, (int)n) : n;
}

ssize_t tls_session_recv(struct tls_session *s, void *buf, size_t len)
{
	ssize_t n;

	do
		n = gnutls_record_recv(s->tls, buf, len);
	while (n == GNUTLS_E_REHANDSHAKE || n == GNUTLS_E_WARNING_ALERT_RECEIVED);
	return n < 0 ? error_of(s->tls, (int)n) : n;
}

static bool same(const char *found, size_t len, const char *name)
{
	return len == strlen(name) && !strncasecmp(found, name, len);
}

bool tls_session_peer_is(struct tls_session *s, const char *name)
{
	const gnutls_datum_t *der;
	gnutls_x509_crt_t crt;
	unsigned int n, type;
	char found[256];
	size_t len;
	bool is = false;
	int r = 0;

	if (gnutls_auth_get_type(s->tls) != GNUTLS_CRD_CERTIFICATE)
		return true;
	der = gnutls_certificate_get_peers(s->tls, &n);
	if (!der || !n || gnutls_x509_crt_init(&crt))
		return false;
	if (gnutls_x509_crt_import(crt, der, GNUTLS_X509_FMT_DER))
		goto out;
	/* One that is too long for us is no node's. */
	for (unsigned int i = 0; !is && r != GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE; i++) {
		len = sizeof(found);
		r = gnutls_x509_crt_get_subject_alt_name2(crt, i, found, &len, &type,
							  NULL);
		if (r < 0 && r != GNUTLS_E_SHORT_MEMORY_BUFFER)
			break;
		is = r >= 0 && type == GNUTLS_SAN_DNSNAME && same(found, len, name);
	}
	len = sizeof(found);
	if (!is && !gnutls_x509_crt_get_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, 0,
						  found, &len))
		is = same(found, len, name);
out:
	gnutls_x509_crt_deinit(crt);
	return is;
}

bool tls_session_pending(struct tls_session *s)
{
	return s->at < s->fill || gnutls_record_check_pending(s->tls) > 0;
}

void tls_session_end(struct tls_session *s)
{
	gnutls_bye(s->tls, GNUTLS_SHUT_WR);
}

void tls_session_free(struct tls_session *s)
{
	if (!s)
		return;
	gnutls_deinit(s->tls);
	free(s);
}
