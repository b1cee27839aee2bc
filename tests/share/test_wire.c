// SPDX-License-Identifier: BSD-2-Clause
/*
 * share_wire: every op's header passes as it is sent and comes out as it went in; each
 * thing that can be wrong with one is refused with the right error, and nothing is put
 * out. local: packets with more descriptors than there is room for, cut short, unknown.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../user/lib/fds.h"
#include "../../user/share/local.h"
#include "../../user/share/share_wire.h"

#define BUS (GM_BUS_MIN + 64 * GM_PAGE_SIZE)

/* Offsets of what gm_hdr_encode() does not let us set. */
enum { AT_MAGIC = 0, AT_VERSION = 4, AT_ZERO = 52 };

/* A request of @op as a peer at no fault sends it. */
static struct gm_hdr request(unsigned int op)
{
	struct gm_hdr h = { .op = (uint8_t)op, .seq = 1ull << 40, .session = ~0ull };

	h.key_id = 0x12345678;
	h.epoch = 0x9abcdef0;
	h.bus = BUS;
	switch (op) {
	case GM_OP_HELLO: h.len = sizeof(struct gm_hello); break;
	case GM_OP_ATTACH: h.len = sizeof(struct gm_attach); break;
	case GM_OP_GET: h.size = GM_PAYLOAD_MAX; break;
	case GM_OP_PUT: h.size = h.len = 3; break;
	case GM_OP_FADD:
	case GM_OP_SWAP:
	case GM_OP_CAS:
		h.size = 8;
		h.arg = ~0ull - 1;
		h.arg2 = 1ull << 63;
		break;
	case GM_OP_READ:
	case GM_OP_INV: h.size = GM_BATCH_PAGES * GM_PAGE_SIZE; break;
	case GM_OP_WRITE: h.size = GM_PAGE_SIZE; break;
	case GM_OP_ACK:
	case GM_OP_FLUSH: h.size = h.len = GM_PAGE_SIZE; break;
	case GM_OP_MOVE: h.arg2 = GM_MOVE_READY; break;
	default: break;
	}
	return h;
}

static int decode(const struct gm_hdr *h)
{
	uint8_t raw[GM_HDR_SIZE];
	struct gm_hdr out, before;
	int err;

	memset(&before, 0x5a, sizeof(before));
	out = before;
	gm_hdr_encode(h, raw);
	err = gm_hdr_decode(raw, &out);
	if (err)
		assert_memory_equal(&out, &before, sizeof(out));
	return err;
}

static void same(const struct gm_hdr *a, const struct gm_hdr *b)
{
	assert_int_equal(a->op, b->op);
	assert_int_equal(a->flags, b->flags);
	assert_int_equal(a->len, b->len);
	assert_int_equal(a->status, b->status);
	assert_true(a->seq == b->seq && a->session == b->session && a->bus == b->bus);
	assert_int_equal(a->size, b->size);
	assert_int_equal(a->key_id, b->key_id);
	assert_int_equal(a->epoch, b->epoch);
	assert_true(a->arg == b->arg && a->arg2 == b->arg2);
}

static void round_trip(void **state)
{
	for (unsigned int op = 1; op < GM_OP_MAX; op++) {
		struct gm_hdr h = request(op), out;
		uint8_t raw[GM_HDR_SIZE];

		gm_hdr_encode(&h, raw);
		assert_int_equal(gm_hdr_decode(raw, &out), 0);
		same(&h, &out);
		assert_string_not_equal(gm_op_name(op), "?");
	}
	assert_string_equal(gm_op_name(0), "?");
	assert_string_equal(gm_op_name(GM_OP_MAX), "?");
	assert_string_equal(gm_op_name(~0u), "?");
}

/* The layout is fixed: another build must read it. */
static void layout(void **state)
{
	struct gm_hdr h = request(GM_OP_CAS);
	uint8_t raw[GM_HDR_SIZE];

	gm_hdr_encode(&h, raw);
	assert_memory_equal(raw, "GMW1", 4);
	assert_int_equal(raw[4], GM_VERSION);
	assert_int_equal(raw[5], GM_OP_CAS);
	assert_memory_equal(raw + 16, "\0\0\0\0\0\1\0\0", 8);	/* seq, low byte first */
	assert_memory_equal(raw + 44, "\x78\x56\x34\x12", 4);	/* key id */
	assert_memory_equal(raw + 48, "\xf0\xde\xbc\x9a", 4);	/* epoch */
	assert_memory_equal(raw + 64, "\0\0\0\0\0\0\0\x80", 8); /* arg2 */
}

static void spoiled_bytes(void **state)
{
	for (unsigned int op = 1; op < GM_OP_MAX; op++) {
		struct gm_hdr h = request(op), out;
		uint8_t raw[GM_HDR_SIZE];

		for (unsigned int i = 0; i < 4; i++) {
			gm_hdr_encode(&h, raw);
			raw[AT_MAGIC + i] ^= 0x20;
			assert_int_equal(gm_hdr_decode(raw, &out), -EBADMSG);
			gm_hdr_encode(&h, raw);
			raw[AT_ZERO + i] = 1;
			assert_int_equal(gm_hdr_decode(raw, &out), -EBADMSG);
		}
		for (unsigned int v = 0; v < 256; v++) {
			gm_hdr_encode(&h, raw);
			raw[AT_VERSION] = (uint8_t)v;
			assert_int_equal(gm_hdr_decode(raw, &out),
					 v == GM_VERSION ? 0 : -EPROTONOSUPPORT);
		}
	}
}

static void unknown_ops_and_flags(void **state)
{
	for (unsigned int op = 0; op < 256; op++) {
		struct gm_hdr h = request(op);

		assert_int_equal(decode(&h), op && op < GM_OP_MAX ? 0 : -EBADMSG);
		for (unsigned int f = 16; f < 65536; f <<= 1) {
			h.flags = (uint16_t)f;
			assert_int_equal(decode(&h), -EBADMSG);
		}
	}
}

/* No op takes a length that is not its own, least of all an absurd one. */
static void lengths(void **state)
{
	static const uint32_t absurd[] = { GM_PAYLOAD_MAX + 1, 1u << 31, ~0u, ~0u - 71 };

	for (unsigned int op = 1; op < GM_OP_MAX; op++) {
		struct gm_hdr h = request(op);
		uint32_t right = h.len;

		for (unsigned int i = 0; i < 4; i++) {
			h.len = absurd[i];
			assert_int_equal(decode(&h), -EBADMSG);
			if (op == GM_OP_PUT || op == GM_OP_FLUSH || op == GM_OP_ACK) {
				h.size = absurd[i];
				assert_int_equal(decode(&h), -EBADMSG);
			}
			h = request(op);
		}
		if (op == GM_OP_MOVE)
			continue; /* of any length; move checks it */
		h.len = right + 1;
		assert_int_equal(decode(&h), -EBADMSG);
		if (right) {
			h.len = right - 1;
			assert_int_equal(decode(&h), -EBADMSG);
		}
	}
}

static void sizes(void **state)
{
	static const uint8_t paged[] = { GM_OP_READ, GM_OP_INV, GM_OP_WRITE, GM_OP_ACK,
					 GM_OP_FLUSH };
	static const uint32_t bad[] = { 0,
					1,
					GM_PAGE_SIZE - 1,
					GM_PAGE_SIZE + 1,
					(GM_BATCH_PAGES + 1) * GM_PAGE_SIZE,
					1u << 31,
					0xfffff000 };
	static const uint8_t words[] = { GM_OP_FADD, GM_OP_SWAP, GM_OP_CAS };
	struct gm_hdr h;

	for (unsigned int i = 0; i < sizeof(paged); i++) {
		for (unsigned int k = 0; k < sizeof(bad) / sizeof(*bad); k++) {
			h = request(paged[i]);
			if (h.len)
				h.len = bad[k];
			h.size = bad[k];
			if (h.op == GM_OP_READ &&
			    bad[k] == (GM_BATCH_PAGES + 1) * GM_PAGE_SIZE)
				h.size = (GM_READ_PAGES + 1) * GM_PAGE_SIZE;
			assert_int_equal(decode(&h), -EBADMSG);
		}
		for (unsigned int off = 1; off < GM_PAGE_SIZE; off *= 2) {
			h = request(paged[i]);
			h.bus += off;
			assert_int_equal(decode(&h), -EBADMSG);
		}
	}
	h = request(GM_OP_WRITE);
	h.size = GM_BATCH_PAGES * GM_PAGE_SIZE;
	assert_int_equal(decode(&h), 0);
	h.flags = GM_F_UPGRADE;
	assert_int_equal(decode(&h), -EBADMSG);
	h.flags = 0;
	h.size += GM_PAGE_SIZE;
	assert_int_equal(decode(&h), -EBADMSG);
	for (unsigned int i = 0; i < sizeof(words); i++) {
		for (uint32_t size = 0; size < 20; size++)
			for (uint32_t off = 0; off < 8; off++) {
				h = request(words[i]);
				h.size = size;
				h.bus += off;
				assert_int_equal(decode(&h),
						 (size == 8 && !off) ||
								 (size == 4 && !(off & 3))
							 ? 0
							 : -EBADMSG);
			}
	}
	for (uint32_t size = 0; size < 2; size++) {
		h = request(GM_OP_GET);
		h.size = size ? GM_PAYLOAD_MAX + 1 : 0;
		assert_int_equal(decode(&h), -EBADMSG);
	}
	h = request(GM_OP_PUT);
	h.size = h.len = 0;
	assert_int_equal(decode(&h), -EBADMSG);
}

/* No sum of an address and a size wraps, or leaves the bus. */
static void bounds(void **state)
{
	for (unsigned int op = 1; op < GM_OP_MAX; op++) {
		static const uint64_t beyond[] = { GM_BUS_MAX + GM_PAGE_SIZE, 1ull << 63,
						   -4096ull, -8ull };

		for (unsigned int i = 0; i < 4; i++) {
			struct gm_hdr h = request(op);

			h.bus = beyond[i];
			assert_int_equal(decode(&h), -EBADMSG);
			h.flags = GM_F_REPLY;
			assert_int_equal(decode(&h), -EBADMSG);
		}
	}
	for (uint64_t bus = GM_BUS_MAX - 2 * GM_PAGE_SIZE; bus <= GM_BUS_MAX;
	     bus += GM_PAGE_SIZE) {
		struct gm_hdr h = request(GM_OP_GET);

		h.bus = bus;
		h.size = 3 * GM_PAGE_SIZE;
		assert_int_equal(decode(&h),
				 bus > GM_BUS_MAX - 2 * GM_PAGE_SIZE ? -EBADMSG : 0);
	}
	assert_true(gm_in_range(BUS, 0, BUS, 0));
	assert_true(gm_in_range(BUS, 10, BUS, 10));
	assert_false(gm_in_range(BUS, 11, BUS, 10));
	assert_false(gm_in_range(BUS - 1, 1, BUS, 10));
	assert_false(gm_in_range(BUS + 10, 1, BUS, 10));
	assert_false(gm_in_range(BUS + 5, ~0ull - 2, BUS, 10));
	assert_false(gm_in_range(~0ull, 2, BUS, ~0ull - BUS));
}

static void replies(void **state)
{
	for (unsigned int op = 1; op < GM_OP_MAX; op++) {
		struct gm_hdr h = request(op);
		bool none = op == GM_OP_INV || op == GM_OP_ACK || op == GM_OP_EVENT;

		/* A request carries no status. */
		h.status = -EIO;
		assert_int_equal(decode(&h), -EBADMSG);

		h.flags = GM_F_REPLY;
		h.len = 0;
		assert_int_equal(decode(&h), none ? -EBADMSG : 0);
		h.status = 1;
		assert_int_equal(decode(&h), -EBADMSG);
		h.status = -4096;
		assert_int_equal(decode(&h), -EBADMSG);
		h.status = INT32_MIN;
		assert_int_equal(decode(&h), -EBADMSG);
		if (op == GM_OP_MOVE)
			continue;
		/* A failure brings no bytes, */
		h.status = -EIO;
		h.len = GM_PAGE_SIZE;
		assert_int_equal(decode(&h), -EBADMSG);
		/* success brings those that were asked for. */
		h.status = 0;
		h.size = GM_PAGE_SIZE;
		h.len = GM_PAGE_SIZE - 1;
		assert_int_equal(decode(&h), -EBADMSG);
		h.len = op == GM_OP_HELLO ? GM_NONCE_SIZE
			: op == GM_OP_GET || op == GM_OP_READ || op == GM_OP_WRITE
				? GM_PAGE_SIZE
				: 0;
		assert_int_equal(decode(&h), none ? -EBADMSG : 0);
	}
}

static int open_fds(void)
{
	int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* Sends @n bytes of @m and @nfds descriptors, more than local_send() would. */
static void send_raw(int sock, const void *m, size_t n, int nfds)
{
	const struct iovec iov = { .iov_base = (void *)m, .iov_len = n };
	int fd[FDS_MAX];

	for (int i = 0; i < nfds; i++)
		fd[i] = sock;
	assert_int_equal(fds_send(sock, &iov, 1, fd, (size_t)nfds, MSG_NOSIGNAL), n);
}

static void local_descriptors(void **state)
{
	static struct local_msg m, got;
	int pair[2], before;

	m.magic = LOCAL_MAGIC;
	m.op = LOCAL_EXPORT;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	before = open_fds();
	for (int nfds = 0; nfds <= 16; nfds++) {
		int fds[16], n; /* more places than are promised, to see them untouched */

		memset(fds, 0xff, sizeof(fds));
		send_raw(pair[0], &m, sizeof(m), nfds);
		assert_int_equal(local_recv(pair[1], &got, fds, &n),
				 nfds <= LOCAL_FDS ? 1 : -EPROTO);
		assert_int_equal(n, nfds <= LOCAL_FDS ? nfds : 0);
		for (int i = LOCAL_FDS; i < 16; i++)
			assert_int_equal(fds[i], -1);
		while (n)
			close(fds[--n]);
		assert_int_equal(open_fds(), before);
	}
	close(pair[0]);
	close(pair[1]);
}

static int received(const struct local_msg *m, size_t len)
{
	struct local_msg *got = malloc(sizeof(*got));
	int pair[2], fds[LOCAL_FDS], n, before = open_fds(), err;

	assert_non_null(got);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	send_raw(pair[0], m, len, 2);
	err = local_recv(pair[1], got, fds, &n);
	while (n)
		close(fds[--n]);
	close(pair[0]);
	close(pair[1]);
	assert_int_equal(open_fds(), before);
	free(got);
	return err;
}

static void local_refusals(void **state)
{
	static struct local_msg good, m;

	good.magic = LOCAL_MAGIC;
	good.op = LOCAL_LIST;
	good.text_len = LOCAL_TEXT;
	good.key.len = GM_KEY_MAX;
	assert_int_equal(received(&good, sizeof(good)), 1);
	assert_int_equal(received(&good, sizeof(good) - 1), -EPROTO);
	assert_int_equal(received(&good, 1), -EPROTO);
#define REFUSED(change)                                                                  \
	do {                                                                             \
		m = good;                                                                \
		change;                                                                  \
		assert_int_equal(received(&m, sizeof(m)), -EPROTO);                      \
	} while (0)
	REFUSED(m.magic++);
	REFUSED(m.op = 0);
	REFUSED(m.op = LOCAL_OP_MAX);
	REFUSED(m.text_len = LOCAL_TEXT + 1);
	REFUSED(m.key.len = GM_KEY_MAX + 1);
	REFUSED(memset(m.name, 'a', sizeof(m.name)));
	REFUSED(memset(m.node, 'a', sizeof(m.node)));
	REFUSED(memset(m.addr, 'a', sizeof(m.addr)));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),
		cmocka_unit_test(layout),
		cmocka_unit_test(spoiled_bytes),
		cmocka_unit_test(unknown_ops_and_flags),
		cmocka_unit_test(lengths),
		cmocka_unit_test(sizes),
		cmocka_unit_test(bounds),
		cmocka_unit_test(replies),
		cmocka_unit_test(local_descriptors),
		cmocka_unit_test(local_refusals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
