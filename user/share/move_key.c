// SPDX-License-Identifier: BSD-2-Clause
/* move_key: seals keys for the next owner. Contract in move_key.h; any thread. */
#include <endian.h>
#include <errno.h>
#include <gnutls/crypto.h>
#include <nettle/curve25519.h>
#include <string.h>
#include <sys/random.h>

#include "move_key.h"

#define NONCE_SIZE 12
#define TAG_SIZE   16
#define KEY_SIZE   32

struct content {
	uint8_t len, read_len;
	uint8_t bytes[GM_KEY_MAX], read_bytes[GM_KEY_MAX];
	uint8_t pad[2];
};
_Static_assert(NONCE_SIZE + sizeof(struct content) + TAG_SIZE == GM_SEALED_SIZE,
	       "fills the place it has on the wire");

struct context { /* what the derived key is bound to */
	char what[16];
	uint8_t public[2][GM_PUBLIC_SIZE]; /* the smaller one first: both sides agree */
	uint64_t id, bus;
};

int move_key_pair(struct move_pair *p)
{
	if (getrandom(p->secret, sizeof(p->secret), 0) != sizeof(p->secret))
		return -EIO;
	curve25519_mul_g(p->public, p->secret);
	return 0;
}

static int derive(const struct move_pair *own, const uint8_t *other, uint64_t id,
		  uint64_t bus, uint8_t key[KEY_SIZE])
{
	struct context c = { .what = "ghostmem move",
			     .id = htole64(id),
			     .bus = htole64(bus) };
	bool first = memcmp(own->public, other, GM_PUBLIC_SIZE) < 0;
	static const uint8_t zero[GM_PUBLIC_SIZE];
	uint8_t shared[GM_PUBLIC_SIZE], prk[KEY_SIZE];
	gnutls_datum_t salt = { (uint8_t *)zero, sizeof(zero) };
	gnutls_datum_t ikm = { shared, sizeof(shared) }, k = { prk, sizeof(prk) };
	gnutls_datum_t info = { (uint8_t *)&c, sizeof(c) };
	int err = 0;

	memcpy(c.public[!first], own -> public, GM_PUBLIC_SIZE);
	memcpy(c.public[first], other, GM_PUBLIC_SIZE);
	curve25519_mul(shared, own->secret, other);
	/* A point of small order: everybody knows the result (RFC 7748, 6.1). */
	if (!gnutls_memcmp(shared, zero, sizeof(zero)))
		return -EINVAL;
	if (gnutls_hkdf_extract(GNUTLS_MAC_SHA256, &ikm, &salt, prk) ||
	    gnutls_hkdf_expand(GNUTLS_MAC_SHA256, &k, &info, key, KEY_SIZE))
		err = -EIO;
	explicit_bzero(shared, sizeof(shared));
	explicit_bzero(prk, sizeof(prk));
	return err;
}

static int cipher(const struct move_pair *own, const uint8_t *other, uint64_t id,
		  uint64_t bus, gnutls_aead_cipher_hd_t *out)
{
	uint8_t key[KEY_SIZE];
	gnutls_datum_t k = { key, sizeof(key) };
	int err = derive(own, other, id, bus, key);

	if (!err && gnutls_aead_cipher_init(out, GNUTLS_CIPHER_AES_256_GCM, &k))
		err = -EIO;
	explicit_bzero(key, sizeof(key));
	return err;
}

int move_key_seal(const struct move_pair *own, const uint8_t other[GM_PUBLIC_SIZE],
		  uint64_t id, uint64_t bus, const struct gm_key *key,
		  const struct gm_key *read_key, uint8_t sealed[GM_SEALED_SIZE])
{
	struct content c = { .len = key->len, .read_len = read_key->len };
	size_t n = GM_SEALED_SIZE - NONCE_SIZE;
	gnutls_aead_cipher_hd_t aead;
	int err = cipher(own, other, id, bus, &aead);

	if (err)
		return err;
	memcpy(c.bytes, key->bytes, key->len);
	memcpy(c.read_bytes, read_key->bytes, read_key->len);
	if (getrandom(sealed, NONCE_SIZE, 0) != NONCE_SIZE ||
	    gnutls_aead_cipher_encrypt(aead, sealed, NONCE_SIZE, NULL, 0, TAG_SIZE, &c,
				       sizeof(c), sealed + NONCE_SIZE, &n))
		err = -EIO;
	gnutls_aead_cipher_deinit(aead);
	explicit_bzero(&c, sizeof(c));
	return err;
}

int move_key_open(const struct move_pair *own, const uint8_t other[GM_PUBLIC_SIZE],
		  uint64_t id, uint64_t bus, const uint8_t sealed[GM_SEALED_SIZE],
		  struct gm_key *key, struct gm_key *read_key)
{
	struct content c;
	size_t n = sizeof(c);
	gnutls_aead_cipher_hd_t aead;

	if (cipher(own, other, id, bus, &aead))
		return -EBADMSG;
	if (gnutls_aead_cipher_decrypt(aead, sealed, NONCE_SIZE, NULL, 0, TAG_SIZE,
				       sealed + NONCE_SIZE, GM_SEALED_SIZE - NONCE_SIZE,
				       &c, &n))
		n = 0;
	gnutls_aead_cipher_deinit(aead);
	if (n != sizeof(c) || !c.len || c.len > GM_KEY_MAX || c.read_len > GM_KEY_MAX)
		return -EBADMSG;
	*key = (struct gm_key){ .len = c.len };
	memcpy(key->bytes, c.bytes, c.len);
	*read_key = (struct gm_key){ .len = c.read_len };
	memcpy(read_key->bytes, c.read_bytes, c.read_len);
	explicit_bzero(&c, sizeof(c));
	return 0;
}

void move_key_wipe(struct move_pair *p)
{
	explicit_bzero(p, sizeof(*p));
}
