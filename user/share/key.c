// SPDX-License-Identifier: BSD-2-Clause
/* key: proofs by HMAC. Contract in key.h; any thread. */
#include <endian.h>
#include <errno.h>
#include <string.h>
#include <gnutls/gnutls.h>
#include <gnutls/crypto.h>

#include "key.h"

int gm_key_proof(const struct gm_key *key, const uint8_t nonce[GM_NONCE_SIZE],
		 uint64_t session, uint64_t bus, const char *node,
		 uint8_t proof[GM_PROOF_SIZE])
{
	uint8_t text[GM_NONCE_SIZE + 16 + GM_NAME_MAX] = { 0 };
	uint64_t v;

	if (!key->len || key->len > GM_KEY_MAX)
		return -EINVAL;
	memcpy(text, nonce, GM_NONCE_SIZE);
	v = htole64(session);
	memcpy(text + GM_NONCE_SIZE, &v, 8);
	v = htole64(bus);
	memcpy(text + GM_NONCE_SIZE + 8, &v, 8);
	strncpy((char *)text + GM_NONCE_SIZE + 16, node, GM_NAME_MAX - 1);
	if (gnutls_hmac_fast(GNUTLS_MAC_SHA256, key->bytes, key->len, text, sizeof(text),
			     proof))
		return -EIO;
	return 0;
}

bool gm_key_check(const struct gm_key *key, const uint8_t nonce[GM_NONCE_SIZE],
		  uint64_t session, uint64_t bus, const char *node,
		  const uint8_t proof[GM_PROOF_SIZE])
{
	uint8_t want[GM_PROOF_SIZE];

	return !gm_key_proof(key, nonce, session, bus, node, want) &&
	       !gnutls_memcmp(want, proof, sizeof(want));
}

void gm_key_wipe(struct gm_key *key)
{
	gnutls_memset(key, 0, sizeof(*key));
}
