/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * move_key: how a region's keys get to its next owner. Whoever serves a region has to
 * know its keys, to check the proofs of importers; they never go over a connection in
 * clear.
 *
 * Each side of a move makes a key pair (X25519, RFC 7748) for this connection alone; what
 * both can compute of it, bound to the move by HKDF-SHA256 (RFC 5869), seals the keys
 * with AES-256-GCM. Who only listens learns nothing, also later. Who can change what is
 * on the wire could stand in between: against that, and to know who the other node is,
 * there is TLS.
 */
#ifndef GM_MOVE_KEY_H
#define GM_MOVE_KEY_H

#include "key.h"
#include "share_wire.h"

struct move_pair {
	uint8_t secret[GM_PUBLIC_SIZE];
	uint8_t public[GM_PUBLIC_SIZE];
};

/** move_key_pair() - Return: 0, -EIO: no random bytes */
int move_key_pair(struct move_pair *p);

/** move_key_seal() - @read_key: len 0: there is none. @id, @bus: of the move; the other
 * side must give the same. Return: 0, -EINVAL: @other is no public key, -EIO */
int move_key_seal(const struct move_pair *own, const uint8_t other[GM_PUBLIC_SIZE],
		  uint64_t id, uint64_t bus, const struct gm_key *key,
		  const struct gm_key *read_key, uint8_t sealed[GM_SEALED_SIZE]);

/** move_key_open() - Return: 0; -EBADMSG: not sealed by @other for this move; nothing is
 * changed then. Ids of the keys are not set */
int move_key_open(const struct move_pair *own, const uint8_t other[GM_PUBLIC_SIZE],
		  uint64_t id, uint64_t bus, const uint8_t sealed[GM_SEALED_SIZE],
		  struct gm_key *key, struct gm_key *read_key);

/** move_key_wipe() - overwrite the secret */
void move_key_wipe(struct move_pair *p);

#endif
