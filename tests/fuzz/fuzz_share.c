// SPDX-License-Identifier: BSD-2-Clause
/*
 * Fuzz what another node sends: a stream of messages as chan.c takes it apart. What is
 * accepted keeps the promises that home and peer build on, and is said again with
 * the same bytes.
 */
#include <stdlib.h>
#include <string.h>

#include "../../user/share/share_wire.h"

#define VERSION_AT 4 /* byte of a header */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(int true_here)
{
	if (!true_here)
		abort();
}

/* Page after page of the smallest, or one of the largest */
static int pages(const struct gm_hdr *h, uint32_t most)
{
	return h->size && !(h->bus % GM_PAGE_SIZE) && !(h->size % GM_PAGE_SIZE) &&
	       (h->size <= most * GM_PAGE_SIZE ||
		(h->size == GM_HUGE_SIZE && !(h->bus % GM_HUGE_SIZE)));
}

static void promises(const struct gm_hdr *h)
{
	need(h->op && h->op < GM_OP_MAX && *gm_op_name(h->op) != '?');
	/* Before there is memory for it: what is longer is one page. */
	need(h->len <= GM_PAYLOAD_MAX ||
	     (h->len == GM_HUGE_SIZE && h->size == h->len && !(h->bus % GM_HUGE_SIZE)));
	need(h->bus <= GM_BUS_MAX && h->bus + h->size >= h->bus);
	need(h->status <= 0 && h->status >= -4095);
	if (h->flags & GM_F_REPLY) {
		if (h->op == GM_OP_GET && !h->status)
			need(h->len == h->size);
		if (h->op == GM_OP_READ && !h->status)
			need(h->len == h->size && pages(h, GM_READ_PAGES));
		return;
	}
	need(!h->status);
	switch (h->op) {
	case GM_OP_EVENT:
		need(h->len == (h->arg == GM_EV_MOVED ? sizeof(struct gm_moved) : 0));
		break;
	case GM_OP_MOVE:
		need(h->arg2 && h->arg2 < GM_MOVE_MAX);
		if (h->arg2 == GM_MOVE_BEGIN)
			need(h->len == sizeof(struct gm_move_begin) && h->arg &&
			     gm_page_shift(h->size) && h->arg <= GM_REGION_MAX &&
			     !(h->arg % h->size) && !(h->bus % h->size));
		if (h->arg2 == GM_MOVE_PAGES)
			need(h->len == h->size && pages(h, GM_BATCH_PAGES));
		if (h->arg2 == GM_MOVE_SLOTS)
			need(h->len &&
			     h->len <= GM_SLOT_MAX * sizeof(struct gm_move_slot));
		if (h->arg2 == GM_MOVE_CLIENTS)
			need(h->len &&
			     h->len <= GM_CLIENT_MAX * sizeof(struct gm_move_client));
		if (h->arg2 == GM_MOVE_TABLE)
			need(h->len && !(h->len % sizeof(struct gm_move_run)));
		break;
	case GM_OP_GET: need(h->size && h->size <= GM_PAYLOAD_MAX); break;
	case GM_OP_PUT: need(h->len == h->size && h->size); break;
	case GM_OP_FADD:
	case GM_OP_SWAP:
	case GM_OP_CAS:
		need((h->size == 4 || h->size == 8) && !(h->bus % h->size));
		break;
	case GM_OP_READ:
	case GM_OP_WRITE:
	case GM_OP_INV:
	case GM_OP_ACK:
	case GM_OP_FLUSH:
		need(pages(h, h->op == GM_OP_READ ? GM_READ_PAGES : GM_BATCH_PAGES));
		break;
	default: break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	while (size >= GM_HDR_SIZE) {
		uint8_t head[GM_HDR_SIZE], again[GM_HDR_SIZE];
		struct gm_hdr h;

		memcpy(head, data, GM_HDR_SIZE);
		/* Seeds outlive a version; that others are refused is test_wire.c's. */
		head[VERSION_AT] = GM_VERSION;
		if (gm_hdr_decode(head, &h))
			return 0;
		promises(&h);
		gm_hdr_encode(&h, again);
		need(!memcmp(again, head, GM_HDR_SIZE));
		data += GM_HDR_SIZE;
		size -= GM_HDR_SIZE;
		if (h.len > size)
			return 0;
		data += h.len;
		size -= h.len;
	}
	return 0;
}
