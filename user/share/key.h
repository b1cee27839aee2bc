/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * key: the right to use a region. The exporter chooses 1 to 64 bytes; the owner's agent
 * keeps them, the directory knows only the key's id (a number that rises when a region's
 * key is replaced). An importer proves that it has the key without sending it:
 *
 *	proof = HMAC-SHA256(key, nonce || session || bus || node)
 *
 * with the owner's nonce of this connection. A region may have a second key for readers.
 */
#ifndef GM_KEY_H
#define GM_KEY_H

#include <stdbool.h>
#include <stdint.h>

#include "share_wire.h"

#define GM_KEY_MAX 64

struct gm_key {
	uint32_t id; /* 0: no key set */
	uint8_t len;
	uint8_t bytes[GM_KEY_MAX];
};

/** gm_key_proof() - Return: 0, -EINVAL: no key, -EIO: no HMAC */
int gm_key_proof(const struct gm_key *key, const uint8_t nonce[GM_NONCE_SIZE],
		 uint64_t session, uint64_t bus, const char *node,
		 uint8_t proof[GM_PROOF_SIZE]);

/** gm_key_check() - is @proof right? In constant time. */
bool gm_key_check(const struct gm_key *key, const uint8_t nonce[GM_NONCE_SIZE],
		  uint64_t session, uint64_t bus, const char *node,
		  const uint8_t proof[GM_PROOF_SIZE]);

/** gm_key_wipe() - overwrite the bytes */
void gm_key_wipe(struct gm_key *key);

#endif
