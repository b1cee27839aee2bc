/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * creds: TLS credentials for the tests, made by certtool and psktool (gnutls-bin), each
 * in a directory of the layout that QEMU documents:
 *
 *	good, other	X.509 for localhost and 127.0.0.1, of an authority each
 *	expired		the authority of good, certificates of years ago
 *	revoked		the same as good, with a list that revokes both certificates
 *	psk, psk2	a key each, user qemu
 *	none		empty
 */
#ifndef TEST_CREDS_H
#define TEST_CREDS_H

#include "../../vm-migrate/stream/chan.h"

/** creds_make(), creds_remove() - all of them, in a directory of this process's own; as
 * cmocka's setup and teardown. Return: 0 */
int creds_make(void **state);
int creds_remove(void **state);

/** creds_make_in() - in @dir, which is there and empty. Return: 0 */
int creds_make_in(const char *dir);

/** creds_tls() - credentials @name. @dir: room for the path */
void creds_tls(struct chan_tls *tls, char dir[100], enum chan_tls_mode mode,
	       const char *name);

#endif
