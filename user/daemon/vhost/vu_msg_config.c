// SPDX-License-Identifier: BSD-2-Clause
/*
 * vu_proto: the configuration space: the guest's address, link status, queue pairs, MTU.
 * virtio 1.2, 5.1.4. Contract in vu_msg.h.
 *
 * QEMU keeps this space itself for network devices; other front ends ask. The MTU is the
 * same as long as the daemon runs: 5.1.4.1 forbids to change it. The link's status may
 * change, and the front end is told by a message of ours.
 */
#include <endian.h>
#include <errno.h>
#include <linux/virtio_net.h>
#include <string.h>

#include "vu_msg.h"

#define HEAD 12 /* bytes: offset, size, flags */

/* The space as the guest sees it; behind it all is 0. */
static void fill(const struct vu_dev *d, uint8_t space[VU_MAX_CONFIG])
{
	struct virtio_net_config c = {
		.status = htole16(d->link_down ? 0 : VIRTIO_NET_S_LINK_UP),
		.max_virtqueue_pairs = htole16(VU_MAX_PAIRS),
		.mtu = htole16((uint16_t)d->mtu),
		.speed = htole32(UINT32_MAX), /* unknown */
		.duplex = 0xff,
	};

	memcpy(c.mac, d->mac, 6);
	memset(space, 0, VU_MAX_CONFIG);
	memcpy(space, &c, sizeof(c));
}

/* The part that a message is about. Return: false: it is outside, or not what the
 * message's size says */
static bool part(const struct vu_msg *m, uint32_t *offset, uint32_t *size)
{
	memcpy(offset, m->payload, 4);
	memcpy(size, m->payload + 4, 4);
	return *size == m->size - HEAD && *offset <= VU_MAX_CONFIG &&
	       *size <= VU_MAX_CONFIG - *offset;
}

int vu_get_config(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	uint8_t space[VU_MAX_CONFIG], out[VU_MAX_PAYLOAD];
	uint32_t offset, size;

	if (!part(m, &offset, &size)) {
		/* "A payload of size 0 to notify the front end of the error." */
		vu_reply_with(r, m, NULL, 0);
		vu_fail(d, 0, "%u bytes at %u of %u", size, offset, VU_MAX_CONFIG);
		return VU_REFUSED;
	}
	fill(d, space);
	memcpy(out, m->payload, HEAD);
	memcpy(out + HEAD, space + offset, size);
	vu_reply_with(r, m, out, HEAD + size);
	return 0;
}

/* Nothing in it may be written; to write what is there already, as a front end does at
 * the end of a migration, is no error. */
int vu_set_config(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	uint8_t space[VU_MAX_CONFIG];
	uint32_t offset, size;

	if (!part(m, &offset, &size))
		return vu_fail(d, -EPROTO, "%u bytes at %u of %u", size, offset,
			       VU_MAX_CONFIG);
	fill(d, space);
	if (!memcmp(space + offset, m->payload + HEAD, size))
		return 0;
	vu_fail(d, 0, "the configuration space is read-only");
	return VU_REFUSED;
}

void vu_dev_link(struct vu_dev *d, bool up, struct vu_reply *r)
{
	const uint64_t needs = BIT(VU_P_CONFIG) | BIT(VU_P_BACKEND_REQ);
	const uint32_t hdr[3] = { VU_BACKEND_CONFIG_CHANGE, VU_VERSION, 0 };
	bool changed = d->link_down == up;

	r->len = 0;
	r->fd = -1;
	d->link_down = !up;
	if (!changed || d->backend_fd < 0 || (d->protocol & needs) != needs)
		return;
	memcpy(r->buf, hdr, sizeof(hdr));
	r->len = sizeof(hdr);
}
