// SPDX-License-Identifier: BSD-2-Clause
/* share_wire and key: what is carried, what is refused, who may. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "../../user/share/key.h"
#include "../../user/share/move_key.h"
#include "../../user/share/share_wire.h"

#define HUGE (GM_BUS_MIN + 8 * (uint64_t)GM_HUGE_SIZE)

/* A good message of each op. */
static const struct gm_hdr good[] = {
	{ .op = GM_OP_HELLO, .len = sizeof(struct gm_hello) },
	{ .op = GM_OP_HELLO, .flags = GM_F_REPLY, .len = GM_NONCE_SIZE, .session = 9 },
	{ .op = GM_OP_ATTACH, .len = sizeof(struct gm_attach), .bus = GM_BUS_MIN },
	{ .op = GM_OP_ATTACH,
	  .flags = GM_F_REPLY,
	  .bus = GM_BUS_MIN,
	  .size = GM_HUGE_SIZE },
	{ .op = GM_OP_ATTACH,
	  .flags = GM_F_REPLY | GM_F_SHARED,
	  .len = sizeof(struct gm_attached) },
	{ .op = GM_OP_GET, .bus = GM_BUS_MIN + 3, .size = 5, .seq = 7, .epoch = 2 },
	{ .op = GM_OP_GET, .flags = GM_F_REPLY, .size = 5, .len = 5 },
	{ .op = GM_OP_GET, .flags = GM_F_REPLY, .size = 5, .status = -EIO },
	{ .op = GM_OP_PUT,
	  .bus = GM_BUS_MIN,
	  .size = GM_PAYLOAD_MAX,
	  .len = GM_PAYLOAD_MAX },
	/* One huge page, whole. */
	{ .op = GM_OP_PUT, .bus = HUGE, .size = GM_HUGE_SIZE, .len = GM_HUGE_SIZE },
	{ .op = GM_OP_READ, .bus = HUGE, .size = GM_HUGE_SIZE },
	{ .op = GM_OP_READ,
	  .flags = GM_F_REPLY | GM_F_SHARED,
	  .bus = HUGE,
	  .size = GM_HUGE_SIZE,
	  .len = GM_HUGE_SIZE },
	{ .op = GM_OP_WRITE, .flags = GM_F_UPGRADE, .bus = HUGE, .size = GM_HUGE_SIZE },
	{ .op = GM_OP_INV, .bus = HUGE, .size = GM_HUGE_SIZE },
	{ .op = GM_OP_ACK, .bus = HUGE, .size = GM_HUGE_SIZE, .len = GM_HUGE_SIZE },
	{ .op = GM_OP_FLUSH,
	  .bus = GM_BUS_MAX - GM_HUGE_SIZE,
	  .size = GM_HUGE_SIZE,
	  .len = GM_HUGE_SIZE },
	{ .op = GM_OP_MOVE,
	  .arg2 = GM_MOVE_PAGES,
	  .bus = HUGE,
	  .size = GM_HUGE_SIZE,
	  .len = GM_HUGE_SIZE },
	{ .op = GM_OP_MOVE,
	  .arg2 = GM_MOVE_BEGIN,
	  .bus = HUGE,
	  .size = GM_HUGE_SIZE,
	  .arg = 3 * GM_HUGE_SIZE,
	  .len = sizeof(struct gm_move_begin) },
	{ .op = GM_OP_FADD, .bus = GM_BUS_MIN + 8, .size = 8, .arg = UINT64_MAX },
	{ .op = GM_OP_CAS, .bus = GM_BUS_MIN + 4, .size = 4, .arg = 1, .arg2 = 2 },
	{ .op = GM_OP_READ, .bus = GM_BUS_MIN, .size = 64 * 4096 },
	{ .op = GM_OP_WRITE, .flags = GM_F_UPGRADE, .bus = GM_BUS_MIN, .size = 4096 },
	{ .op = GM_OP_INV, .flags = GM_F_SHARED, .bus = GM_BUS_MIN, .size = 4096 },
	{ .op = GM_OP_ACK, .bus = GM_BUS_MIN, .size = 4096, .len = 4096, .arg = 5 },
	{ .op = GM_OP_FLUSH, .bus = GM_BUS_MAX - 4096, .size = 4096, .len = 4096 },
	{ .op = GM_OP_PING, .key_id = 3 },
	{ .op = GM_OP_EVENT, .bus = GM_BUS_MIN, .arg = GM_EV_REVOKED },
	{ .op = GM_OP_EVENT, .arg = GM_EV_MOVED, .len = sizeof(struct gm_moved) },
	{ .op = GM_OP_GET, .flags = GM_F_REPLY, .size = 5, .status = -EREMCHG, .arg = 3 },
	{ .op = GM_OP_MOVE,
	  .arg2 = GM_MOVE_BEGIN,
	  .bus = GM_BUS_MIN,
	  .size = GM_PAGE_SIZE,
	  .arg = GM_REGION_MAX,
	  .len = sizeof(struct gm_move_begin) },
	{ .op = GM_OP_MOVE,
	  .flags = GM_F_REPLY,
	  .arg2 = GM_MOVE_BEGIN,
	  .len = sizeof(struct gm_move_begun) },
	{ .op = GM_OP_MOVE,
	  .arg2 = GM_MOVE_PAGES,
	  .bus = GM_BUS_MIN,
	  .size = 64 * 4096,
	  .len = 64 * 4096 },
	{ .op = GM_OP_MOVE, .arg2 = GM_MOVE_SLOTS, .len = sizeof(struct gm_move_slot) },
	{ .op = GM_OP_MOVE,
	  .arg2 = GM_MOVE_TABLE,
	  .len = 9 * sizeof(struct gm_move_run) },
	{ .op = GM_OP_MOVE,
	  .arg2 = GM_MOVE_CLIENTS,
	  .len = GM_CLIENT_MAX * sizeof(struct gm_move_client) },
	{ .op = GM_OP_MOVE, .arg2 = GM_MOVE_COMMIT },
	{ .op = GM_OP_MOVE, .flags = GM_F_REPLY, .arg2 = GM_MOVE_COMMIT, .status = -EIO },
};

static void test_carried(void **state)
{
	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
		uint8_t raw[GM_HDR_SIZE];
		struct gm_hdr h;

		gm_hdr_encode(&good[i], raw);
		if (gm_hdr_decode(raw, &h))
			fail_msg("%zu: %s refused", i, gm_op_name(good[i].op));
		assert_int_equal(h.op, good[i].op);
		assert_int_equal(h.flags, good[i].flags);
		assert_int_equal(h.len, good[i].len);
		assert_int_equal(h.status, good[i].status);
		assert_int_equal(h.seq, good[i].seq);
		assert_int_equal(h.session, good[i].session);
		assert_int_equal(h.bus, good[i].bus);
		assert_int_equal(h.size, good[i].size);
		assert_int_equal(h.key_id, good[i].key_id);
		assert_int_equal(h.epoch, good[i].epoch);
		assert_true(h.arg == good[i].arg && h.arg2 == good[i].arg2);
	}
}

static void test_refused(void **state)
{
	static const struct gm_hdr bad[] = {
		{ .op = 0 },
		{ .op = GM_OP_MAX },
		{ .op = GM_OP_PING, .flags = GM_F_ALL + 1 },
		{ .op = GM_OP_PING, .status = -EIO }, /* of a request */
		{ .op = GM_OP_PING, .flags = GM_F_REPLY, .status = 1 },
		{ .op = GM_OP_PING, .flags = GM_F_REPLY, .status = -4096 },
		{ .op = GM_OP_PING, .len = 1 },
		{ .op = GM_OP_HELLO, .len = sizeof(struct gm_hello) - 1 },
		{ .op = GM_OP_ATTACH },
		{ .op = GM_OP_ATTACH, .flags = GM_F_REPLY, .len = 8 },
		{ .op = GM_OP_ATTACH,
		  .flags = GM_F_REPLY,
		  .len = sizeof(struct gm_attached),
		  .status = -EIO },
		{ .op = GM_OP_GET, .bus = GM_BUS_MIN, .size = 0 },
		{ .op = GM_OP_GET, .bus = GM_BUS_MIN, .size = GM_PAYLOAD_MAX + 1 },
		{ .op = GM_OP_GET, .bus = GM_BUS_MIN, .size = UINT32_MAX },
		{ .op = GM_OP_GET, .bus = UINT64_MAX, .size = 8 },
		{ .op = GM_OP_PUT, .bus = GM_BUS_MIN, .size = 8, .len = 9 },
		{ .op = GM_OP_PUT,
		  .bus = GM_BUS_MIN,
		  .size = GM_PAYLOAD_MAX + 1,
		  .len = GM_PAYLOAD_MAX + 1 },
		/* Huge pages that are none: not aligned, more than one, other sizes. */
		{ .op = GM_OP_PUT,
		  .bus = HUGE + 4096,
		  .size = GM_HUGE_SIZE,
		  .len = GM_HUGE_SIZE },
		{ .op = GM_OP_READ,
		  .bus = HUGE + GM_HUGE_SIZE / 2,
		  .size = GM_HUGE_SIZE },
		{ .op = GM_OP_READ, .bus = HUGE, .size = 2 * GM_HUGE_SIZE },
		{ .op = GM_OP_READ, .bus = HUGE, .size = GM_HUGE_SIZE - 4096 },
		{ .op = GM_OP_WRITE, .bus = HUGE, .size = GM_HUGE_SIZE / 2 },
		{ .op = GM_OP_FLUSH,
		  .bus = HUGE,
		  .size = 2 * GM_HUGE_SIZE,
		  .len = 2 * GM_HUGE_SIZE },
		{ .op = GM_OP_FLUSH,
		  .bus = HUGE,
		  .size = GM_HUGE_SIZE,
		  .len = GM_HUGE_SIZE - 4096 },
		{ .op = GM_OP_GET, .bus = HUGE, .size = GM_HUGE_SIZE },
		{ .op = GM_OP_GET,
		  .flags = GM_F_REPLY,
		  .bus = HUGE,
		  .size = GM_HUGE_SIZE,
		  .len = GM_HUGE_SIZE },
		{ .op = GM_OP_MOVE,
		  .arg2 = GM_MOVE_TABLE,
		  .len = (GM_PAYLOAD_MAX / sizeof(struct gm_move_run) + 1) *
			 sizeof(struct gm_move_run) },
		/* A region of pages that it does not have whole, or nobody has. */
		{ .op = GM_OP_MOVE,
		  .arg2 = GM_MOVE_BEGIN,
		  .bus = HUGE,
		  .size = GM_HUGE_SIZE,
		  .arg = GM_HUGE_SIZE + 4096,
		  .len = sizeof(struct gm_move_begin) },
		{ .op = GM_OP_MOVE,
		  .arg2 = GM_MOVE_BEGIN,
		  .bus = HUGE + 4096,
		  .size = GM_HUGE_SIZE,
		  .arg = GM_HUGE_SIZE,
		  .len = sizeof(struct gm_move_begin) },
		{ .op = GM_OP_MOVE,
		  .arg2 = GM_MOVE_BEGIN,
		  .bus = HUGE,
		  .size = 8192,
		  .arg = GM_HUGE_SIZE,
		  .len = sizeof(struct gm_move_begin) },
		{ .op = GM_OP_MOVE,
		  .arg2 = GM_MOVE_BEGIN,
		  .bus = HUGE,
		  .arg = GM_HUGE_SIZE,
		  .len = sizeof(struct gm_move_begin) },
		{ .op = GM_OP_FADD, .bus = GM_BUS_MIN + 4, .size = 8 },
		{ .op = GM_OP_SWAP, .bus = GM_BUS_MIN, .size = 2 },
		{ .op = GM_OP_CAS, .bus = GM_BUS_MIN, .size = 16 },
		{ .op = GM_OP_READ, .bus = GM_BUS_MIN + 1, .size = 4096 },
		{ .op = GM_OP_READ, .bus = GM_BUS_MIN, .size = 257 * 4096 },
		{ .op = GM_OP_READ, .bus = GM_BUS_MIN, .size = 100 },
		{ .op = GM_OP_WRITE, .bus = GM_BUS_MIN, .size = 65 * 4096 },
		{ .op = GM_OP_WRITE,
		  .flags = GM_F_UPGRADE,
		  .bus = GM_BUS_MIN,
		  .size = 2 * 4096 },
		{ .op = GM_OP_ACK, .bus = GM_BUS_MIN, .size = 4096, .len = 8 },
		{ .op = GM_OP_INV, .flags = GM_F_REPLY, .bus = GM_BUS_MIN, .size = 4096 },
		{ .op = GM_OP_FLUSH, .bus = GM_BUS_MIN, .size = 4096 },
		{ .op = GM_OP_EVENT, .arg = GM_EV_MOVED },
		{ .op = GM_OP_EVENT,
		  .arg = GM_EV_REVOKED,
		  .len = sizeof(struct gm_moved) },
		{ .op = GM_OP_MOVE },
		{ .op = GM_OP_MOVE, .arg2 = GM_MOVE_MAX },
		{ .op = GM_OP_MOVE, .flags = GM_F_REPLY, .arg2 = GM_MOVE_MAX },
		{ .op = GM_OP_MOVE,
		  .arg2 = GM_MOVE_BEGIN,
		  .bus = GM_BUS_MIN,
		  .size = GM_PAGE_SIZE,
		  .arg = GM_REGION_MAX + 4096,
		  .len = sizeof(struct gm_move_begin) },
		{ .op = GM_OP_MOVE,
		  .arg2 = GM_MOVE_BEGIN,
		  .bus = GM_BUS_MAX,
		  .size = GM_PAGE_SIZE,
		  .arg = 4096,
		  .len = sizeof(struct gm_move_begin) },
		{ .op = GM_OP_MOVE, .arg2 = GM_MOVE_KEYS },
		{ .op = GM_OP_MOVE,
		  .arg2 = GM_MOVE_PAGES,
		  .bus = GM_BUS_MIN,
		  .size = 4096 },
		{ .op = GM_OP_MOVE, .arg2 = GM_MOVE_SLOTS, .len = 1 },
		{ .op = GM_OP_MOVE,
		  .arg2 = GM_MOVE_SLOTS,
		  .len = 65 * sizeof(struct gm_move_slot) },
		{ .op = GM_OP_MOVE, .arg2 = GM_MOVE_TABLE },
		{ .op = GM_OP_MOVE, .arg2 = GM_MOVE_CLIENTS, .len = 23 },
		{ .op = GM_OP_MOVE,
		  .arg2 = GM_MOVE_CLIENTS,
		  .len = (GM_CLIENT_MAX + 1) * sizeof(struct gm_move_client) },
		{ .op = GM_OP_MOVE, .arg2 = GM_MOVE_COMMIT, .len = 8 },
	};
	struct gm_hdr before, h;
	uint8_t raw[GM_HDR_SIZE];

	memset(&before, 0x5a, sizeof(before));
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		h = before;
		gm_hdr_encode(&bad[i], raw);
		if (gm_hdr_decode(raw, &h) != -EBADMSG)
			fail_msg("%zu: %s accepted", i, gm_op_name(bad[i].op));
		assert_memory_equal(&h, &before, sizeof(h));
	}
	gm_hdr_encode(&good[0], raw);
	raw[4]++;
	assert_int_equal(gm_hdr_decode(raw, &h), -EPROTONOSUPPORT);
	raw[4]--;
	raw[0] ^= 1;
	assert_int_equal(gm_hdr_decode(raw, &h), -EBADMSG);
}

static void test_key(void **state)
{
	struct gm_key k = { .id = 1, .len = 6, .bytes = "secret" }, w = k;
	uint8_t nonce[GM_NONCE_SIZE] = { 1, 2, 3 }, other[GM_NONCE_SIZE] = { 1, 2, 4 };
	uint8_t proof[GM_PROOF_SIZE];

	assert_int_equal(gm_key_proof(&k, nonce, 7, GM_BUS_MIN, "n1", proof), 0);
	assert_true(gm_key_check(&k, nonce, 7, GM_BUS_MIN, "n1", proof));
	assert_false(gm_key_check(&k, other, 7, GM_BUS_MIN, "n1", proof));
	assert_false(gm_key_check(&k, nonce, 8, GM_BUS_MIN, "n1", proof));
	assert_false(gm_key_check(&k, nonce, 7, GM_BUS_MIN + 1, "n1", proof));
	assert_false(gm_key_check(&k, nonce, 7, GM_BUS_MIN, "n2", proof));
	w.bytes[5]++;
	assert_false(gm_key_check(&w, nonce, 7, GM_BUS_MIN, "n1", proof));
	w = k;
	w.len--;
	assert_false(gm_key_check(&w, nonce, 7, GM_BUS_MIN, "n1", proof));
	for (size_t i = 0; i < sizeof(proof); i++) {
		proof[i] ^= 0x80;
		assert_false(gm_key_check(&k, nonce, 7, GM_BUS_MIN, "n1", proof));
		proof[i] ^= 0x80;
	}
	gm_key_wipe(&k);
	assert_int_equal(gm_key_proof(&k, nonce, 7, GM_BUS_MIN, "n1", proof), -EINVAL);
	assert_false(gm_key_check(&k, nonce, 7, GM_BUS_MIN, "n1", proof));
}

static void test_sealed(void **state)
{
	struct gm_key k = { .len = 6, .bytes = "secret" },
		      r = { .len = 4, .bytes = "read" };
	uint8_t sealed[GM_SEALED_SIZE], zero[GM_PUBLIC_SIZE] = { 0 };
	struct move_pair a, b, c;
	struct gm_key k2 = { 0 }, r2 = { 0 };

	assert_int_equal(move_key_pair(&a) | move_key_pair(&b) | move_key_pair(&c), 0);
	assert_int_equal(move_key_seal(&a, b.public, 7, GM_BUS_MIN, &k, &r, sealed), 0);
	for (size_t i = 0; i + 6 <= sizeof(sealed); i++)
		assert_memory_not_equal(sealed + i, "secret", 6);
	/* Somebody else, another move, another region, changed on its way. */
	assert_int_equal(move_key_open(&c, a.public, 7, GM_BUS_MIN, sealed, &k2, &r2),
			 -EBADMSG);
	assert_int_equal(move_key_open(&b, c.public, 7, GM_BUS_MIN, sealed, &k2, &r2),
			 -EBADMSG);
	assert_int_equal(move_key_open(&b, a.public, 8, GM_BUS_MIN, sealed, &k2, &r2),
			 -EBADMSG);
	assert_int_equal(move_key_open(&b, a.public, 7, GM_BUS_MIN + 1, sealed, &k2, &r2),
			 -EBADMSG);
	for (size_t i = 0; i < sizeof(sealed); i++) {
		sealed[i] ^= 1;
		assert_int_equal(
			move_key_open(&b, a.public, 7, GM_BUS_MIN, sealed, &k2, &r2),
			-EBADMSG);
		sealed[i] ^= 1;
	}
	assert_int_equal(k2.len | r2.len, 0);
	assert_int_equal(move_key_open(&b, a.public, 7, GM_BUS_MIN, sealed, &k2, &r2), 0);
	assert_int_equal(k2.len, 6);
	assert_memory_equal(k2.bytes, "secret", 6);
	assert_int_equal(r2.len, 4);
	assert_memory_equal(r2.bytes, "read", 4);
	/* A point whose product everybody knows. */
	assert_int_equal(move_key_seal(&a, zero, 7, GM_BUS_MIN, &k, &r, sealed), -EINVAL);
	move_key_wipe(&a);
	assert_memory_equal(a.secret, zero, sizeof(zero));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_carried),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_key),
		cmocka_unit_test(test_sealed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
