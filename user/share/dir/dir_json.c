// SPDX-License-Identifier: BSD-2-Clause
/* dir_json: regions as JSON. Contract in dir_json.h; any thread. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "dir_json.h"

json_t *dir_json_pack(const struct dir_region *r)
{
	return json_pack("{s:I,s:I,s:I,s:s,s:s,s:I,s:I,s:I,s:I}", "bus",
			 (json_int_t)r->bus, "size", (json_int_t)r->size, "page",
			 (json_int_t)1 << r->page_shift, "node", r->node, "addr", r->addr,
			 "epoch", (json_int_t)r->epoch, "key", (json_int_t)r->key_id,
			 "read_key", (json_int_t)r->read_key_id, "lease_ms",
			 (json_int_t)r->lease_ms);
}

int dir_json_unpack(const char *name, json_t *v, struct dir_region *out)
{
	json_int_t bus, size, epoch, key, read_key, lease;
	json_int_t page = GM_PAGE_SIZE; /* of a time when there were no others */
	const char *node, *addr;
	struct dir_region r = { 0 };

	if (json_unpack(v, "{s:I,s:I,s?I,s:s,s:s,s:I,s:I,s:I,s:I}", "bus", &bus, "size",
			&size, "page", &page, "node", &node, "addr", &addr, "epoch",
			&epoch, "key", &key, "read_key", &read_key, "lease_ms", &lease) ||
	    !gm_name_ok(name) || !gm_name_ok(node) || strlen(addr) >= NET_ADDR_MAX)
		return -EBADMSG;
	r.bus = (uint64_t)bus;
	r.size = (uint64_t)size;
	r.page_shift = gm_page_shift((uint64_t)page);
	if (!gm_in_range(r.bus, r.size, GM_BUS_MIN, GM_BUS_MAX - GM_BUS_MIN) || !r.size ||
	    !r.page_shift || r.bus % (uint64_t)page || r.size % (uint64_t)page ||
	    epoch < 1 || epoch > UINT32_MAX || key < 0 || key > UINT32_MAX ||
	    read_key < 0 || read_key > UINT32_MAX || lease < 1 || lease > UINT32_MAX)
		return -EBADMSG;
	snprintf(r.name, sizeof(r.name), "%s", name);
	snprintf(r.node, sizeof(r.node), "%s", node);
	snprintf(r.addr, sizeof(r.addr), "%s", addr);
	r.epoch = (uint32_t)epoch;
	r.key_id = (uint32_t)key;
	r.read_key_id = (uint32_t)read_key;
	r.lease_ms = (uint32_t)lease;
	*out = r;
	return 0;
}
