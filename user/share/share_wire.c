// SPDX-License-Identifier: BSD-2-Clause
/* share_wire: header format and stateless checks. Contract in share_wire.h; any thread.
 */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "share_wire.h"

struct raw_hdr {
	uint32_t magic;
	uint8_t version;
	uint8_t op;
	uint16_t flags;
	uint32_t len;
	uint32_t status;
	uint64_t seq;
	uint64_t session;
	uint64_t bus;
	uint32_t size;
	uint32_t key_id;
	uint32_t epoch;
	uint32_t zero;
	uint64_t arg;
	uint64_t arg2;
};
_Static_assert(sizeof(struct raw_hdr) == GM_HDR_SIZE, "no padding on the wire");

static const char *const names[GM_OP_MAX] = {
	[GM_OP_HELLO] = "hello", [GM_OP_ATTACH] = "attach", [GM_OP_DETACH] = "detach",
	[GM_OP_GET] = "get",	 [GM_OP_PUT] = "put",	    [GM_OP_FADD] = "fetch_add",
	[GM_OP_SWAP] = "swap",	 [GM_OP_CAS] = "cas",	    [GM_OP_FENCE] = "fence",
	[GM_OP_READ] = "read",	 [GM_OP_WRITE] = "write",   [GM_OP_INV] = "inv",
	[GM_OP_ACK] = "ack",	 [GM_OP_FLUSH] = "flush",   [GM_OP_PING] = "ping",
	[GM_OP_EVENT] = "event", [GM_OP_MOVE] = "move",
};

const char *gm_op_name(unsigned int op)
{
	return op < GM_OP_MAX && names[op] ? names[op] : "?";
}

void gm_hdr_encode(const struct gm_hdr *h, uint8_t *out)
{
	struct raw_hdr r = {
		.magic = htole32(GM_MAGIC),
		.version = GM_VERSION,
		.op = h->op,
		.flags = htole16(h->flags),
		.len = htole32(h->len),
		.status = htole32((uint32_t)h->status),
		.seq = htole64(h->seq),
		.session = htole64(h->session),
		.bus = htole64(h->bus),
		.size = htole32(h->size),
		.key_id = htole32(h->key_id),
		.epoch = htole32(h->epoch),
		.arg = htole64(h->arg),
		.arg2 = htole64(h->arg2),
	};

	memcpy(out, &r, sizeof(r));
}

/* One page of the largest kind: there are no batches of those. */
static bool huge_ok(const struct gm_hdr *h)
{
	return h->size == GM_HUGE_SIZE && h->bus % GM_HUGE_SIZE == 0;
}

static bool pages_ok(const struct gm_hdr *h)
{
	uint32_t most = h->op == GM_OP_READ ? GM_READ_PAGES : GM_BATCH_PAGES;

	return h->bus % GM_PAGE_SIZE == 0 && h->size % GM_PAGE_SIZE == 0 && h->size &&
	       (h->size <= most * GM_PAGE_SIZE || huge_ok(h));
}

static bool word_ok(const struct gm_hdr *h)
{
	return (h->size == 4 || h->size == 8) && h->bus % h->size == 0;
}

static bool move_ok(const struct gm_hdr *h)
{
	switch (h->arg2) {
	case GM_MOVE_BEGIN:
		return h->len == sizeof(struct gm_move_begin) && gm_page_shift(h->size) &&
		       h->arg && h->arg <= GM_REGION_MAX && h->arg % h->size == 0 &&
		       h->bus % h->size == 0 && h->bus <= GM_BUS_MAX - h->arg;
	case GM_MOVE_KEYS: return h->len == sizeof(struct gm_move_keys);
	case GM_MOVE_PAGES: return pages_ok(h) && h->len == h->size;
	case GM_MOVE_SLOTS:
		return h->len && h->len % sizeof(struct gm_move_slot) == 0 &&
		       h->len <= GM_SLOT_MAX * sizeof(struct gm_move_slot);
	case GM_MOVE_CLIENTS:
		return h->len && h->len % sizeof(struct gm_move_client) == 0 &&
		       h->len <= GM_CLIENT_MAX * sizeof(struct gm_move_client);
	case GM_MOVE_TABLE:
		return h->len && h->len % sizeof(struct gm_move_run) == 0 &&
		       h->len <= GM_PAYLOAD_MAX;
	case GM_MOVE_READY:
	case GM_MOVE_COMMIT:
	case GM_MOVE_ABORT: return !h->len;
	default: return false;
	}
}

static bool request_ok(const struct gm_hdr *h)
{
	switch (h->op) {
	case GM_OP_HELLO: return h->len == sizeof(struct gm_hello);
	case GM_OP_ATTACH: return h->len == sizeof(struct gm_attach);
	case GM_OP_GET: return !h->len && h->size && h->size <= GM_PAYLOAD_MAX;
	case GM_OP_PUT:
		return h->len == h->size && h->size &&
		       (h->size <= GM_PAYLOAD_MAX || huge_ok(h));
	case GM_OP_FADD:
	case GM_OP_SWAP:
	case GM_OP_CAS: return !h->len && word_ok(h);
	case GM_OP_READ:
	case GM_OP_INV: return !h->len && pages_ok(h);
	case GM_OP_WRITE:
		return !h->len && pages_ok(h) &&
		       (h->size == GM_PAGE_SIZE || huge_ok(h) ||
			!(h->flags & GM_F_UPGRADE));
	case GM_OP_ACK: return pages_ok(h) && (!h->len || h->len == h->size);
	case GM_OP_FLUSH: return pages_ok(h) && h->len == h->size;
	case GM_OP_EVENT:
		return h->len == (h->arg == GM_EV_MOVED ? sizeof(struct gm_moved) : 0);
	case GM_OP_MOVE: return move_ok(h);
	default: return !h->len;
	}
}

static bool reply_ok(const struct gm_hdr *h)
{
	if (h->status > 0 || h->status < -4095)
		return false;
	switch (h->op) {
	case GM_OP_HELLO: return h->len == (h->status ? 0 : GM_NONCE_SIZE);
	case GM_OP_ATTACH:
		return !h->len || (!h->status && h->len == sizeof(struct gm_attached));
	case GM_OP_GET:
		return h->len == (h->status ? 0 : h->size) && h->len <= GM_PAYLOAD_MAX;
	case GM_OP_READ: return h->status ? !h->len : pages_ok(h) && h->len == h->size;
	case GM_OP_WRITE:
		return h->status ? !h->len
				 : pages_ok(h) && (!h->len || h->len == h->size);
	case GM_OP_INV:
	case GM_OP_ACK:
	case GM_OP_EVENT: return false; /* have none */
	case GM_OP_MOVE:
		return h->arg2 && h->arg2 < GM_MOVE_MAX &&
		       h->len == (h->arg2 == GM_MOVE_BEGIN && !h->status
					  ? sizeof(struct gm_move_begun)
					  : 0);
	default: return !h->len;
	}
}

int gm_hdr_decode(const uint8_t *in, struct gm_hdr *out)
{
	struct raw_hdr r;
	struct gm_hdr h;

	memcpy(&r, in, sizeof(r));
	if (le32toh(r.magic) != GM_MAGIC)
		return -EBADMSG;
	if (r.version != GM_VERSION)
		return -EPROTONOSUPPORT;
	h = (struct gm_hdr){
		.op = r.op,
		.flags = le16toh(r.flags),
		.len = le32toh(r.len),
		.status = (int32_t)le32toh(r.status),
		.seq = le64toh(r.seq),
		.session = le64toh(r.session),
		.bus = le64toh(r.bus),
		.size = le32toh(r.size),
		.key_id = le32toh(r.key_id),
		.epoch = le32toh(r.epoch),
		.arg = le64toh(r.arg),
		.arg2 = le64toh(r.arg2),
	};
	if (!h.op || h.op >= GM_OP_MAX || h.flags & ~GM_F_ALL || r.zero ||
	    h.len > GM_HUGE_SIZE || h.bus > GM_BUS_MAX ||
	    h.bus + h.size > GM_BUS_MAX + GM_PAGE_SIZE)
		return -EBADMSG;
	if (h.flags & GM_F_REPLY ? !reply_ok(&h) : !request_ok(&h) || h.status)
		return -EBADMSG;
	*out = h;
	return 0;
}
