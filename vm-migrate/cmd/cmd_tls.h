/* SPDX-License-Identifier: BSD-2-Clause */
/* cmd_tls: options of an encrypted stream, for every command that opens one. */
#ifndef VMM_CMD_TLS_H
#define VMM_CMD_TLS_H

#include "../stream/chan.h"
#include "cmd.h"

/* Three entries of an option table: mode and dir of struct chan_tls @t, and host or user
 */
#define CMD_TLS_OPTS(t, name_help)                                                       \
	OPT("tls", 0, WORD, &(t).mode, "HOW", "off (default), x509 or psk",              \
	    .words = control_tls_words),                                                 \
		OPT("tls-dir", 0, TEXT, &(t).dir, "DIR",                                 \
		    "credentials, laid out as QEMU's: ca-cert.pem,\n"                    \
		    "server-cert.pem, client-cert.pem, ..., or keys.psk"),               \
		OPT("tls-name", 0, TEXT, &(t).hostname, "NAME", name_help)

#include "../vmm/control_proto.h"

#endif
