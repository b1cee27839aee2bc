// SPDX-License-Identifier: BSD-2-Clause
/* creds: see creds.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "creds.h"

static char top[64];

static const char script[] =
	"set -e; cd \"$1\"; exec >log 2>&1\n"
	"issue() { # DIR TEMPLATE-LINES...\n"
	"d=$1; shift; for w in server client; do\n"
	"[ -f $d/$w-key.pem ] ||\n"
	"certtool --generate-privkey --key-type=ecdsa --outfile $d/$w-key.pem\n"
	"printf 'cn = localhost\\ndns_name = localhost\\nip_address = 127.0.0.1\\n"
	"signing_key\\ntls_www_%s\\n' $w >$d/$w.info\n"
	"for l; do echo \"$l\" >>$d/$w.info; done\n"
	"certtool --generate-certificate --load-ca-certificate $d/ca-cert.pem"
	" --load-ca-privkey $d/ca-key.pem --load-privkey $d/$w-key.pem"
	" --template $d/$w.info --outfile $d/$w-cert.pem\n"
	"done; }\n"
	"for d in good other; do mkdir $d\n"
	"certtool --generate-privkey --key-type=ecdsa --outfile $d/ca-key.pem\n"
	"printf 'cn = test %s\\nca\\ncert_signing_key\\ncrl_signing_key\\n' $d "
	">$d/ca.info\n"
	"certtool --generate-self-signed --load-privkey $d/ca-key.pem"
	" --template $d/ca.info --outfile $d/ca-cert.pem\n"
	"issue $d; done\n"
	"mkdir expired; cp good/ca-*.pem expired\n"
	"issue expired 'activation_date = \"2019-01-01 00:00:00\"'"
	" 'expiration_date = \"2020-01-01 00:00:00\"'\n"
	"cp -r good revoked; cat good/server-cert.pem good/client-cert.pem >both.pem\n"
	"printf 'crl_next_update = 100\\ncrl_number = 1\\n' >crl.info\n"
	"certtool --generate-crl --load-ca-certificate good/ca-cert.pem"
	" --load-ca-privkey good/ca-key.pem --load-certificate both.pem"
	" --template crl.info --outfile revoked/ca-crl.pem\n"
	"mkdir psk psk2 none\n"
	"psktool -u qemu -p psk/keys.psk; psktool -u qemu -p psk2/keys.psk\n";

int creds_make_in(const char *dir)
{
	char cmd[200];

	/* It has quotes of both kinds. */
	setenv("GN_SCRIPT", script, 1);
	snprintf(cmd, sizeof(cmd), "sh -c \"$GN_SCRIPT\" sh %s", dir);
	return system(cmd);
}

int creds_make(void **state)
{
	strcpy(top, "/tmp/gn-tls-XXXXXX");
	if (!mkdtemp(top))
		return -1;
	return creds_make_in(top);
}

int creds_remove(void **state)
{
	char cmd[100];

	snprintf(cmd, sizeof(cmd), "rm -rf %s", top);
	return system(cmd);
}

void creds_tls(struct chan_tls *tls, char dir[100], enum chan_tls_mode mode,
	       const char *name)
{
	snprintf(dir, 100, "%s/%s", top, name);
	*tls = (struct chan_tls){ .mode = mode, .dir = dir };
}
