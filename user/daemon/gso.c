// SPDX-License-Identifier: BSD-2-Clause
/*
 * gso: a chain of segments becomes one GSO frame. gso_segment.c is the way back.
 *
 * The one place that writes header bytes of received packets, and only the head's of
 * a chain that is complete. Offsets come from gn_meta, which rx_check() has bounded.
 *
 * Worker that owns the chain; no state.
 */
#include <endian.h>
#include <netinet/in.h>
#include <string.h>

#include "../lib/csum.h"
#include "gso.h"
#include "wire.h"

uint16_t gso_pseudo_sum(const uint8_t *l3, bool ipv6, uint8_t proto, uint32_t l4_len)
{
	uint64_t sum =
		ipv6 ? csum(l3 + WIRE_IP6_ADDRS, 32) : csum(l3 + WIRE_IP4_ADDRS, 8);

	return csum_fold(sum + htonl(l4_len) + htons(proto));
}

static uint16_t csum_offset(const struct mbuf *head)
{
	return head->meta.flags & GN_F_UDP ? WIRE_UDP_CSUM : WIRE_TCP_CSUM;
}

static void need_csum(const struct mbuf *head, struct virtio_net_hdr_v1 *vh)
{
	vh->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	vh->csum_start = htole16(head->meta.l4_off);
	vh->csum_offset = htole16(csum_offset(head));
}

static void rewrite_ip(const struct mbuf *head, uint8_t *l3)
{
	uint32_t l3_len = (uint32_t)head->meta.l4_off - head->meta.l3_off;
	uint32_t ip_len = head->total - head->meta.l3_off;

	if (head->meta.flags & GN_F_IPV6) {
		wire_put16(l3 + WIRE_IP6_LEN, ip_len - WIRE_IP6_MIN);
		return;
	}
	wire_put16(l3 + WIRE_IP4_LEN, ip_len);
	wire_put_raw16(l3 + WIRE_IP4_CSUM, 0);
	wire_put_raw16(l3 + WIRE_IP4_CSUM, (uint16_t)~csum(l3, l3_len));
}

uint8_t gso_type(const struct mbuf *head)
{
	uint8_t type;

	if (head->meta.flags & GN_F_UDP)
		return VIRTIO_NET_HDR_GSO_UDP_L4;
	type = head->meta.flags & GN_F_IPV6 ? VIRTIO_NET_HDR_GSO_TCPV6
					    : VIRTIO_NET_HDR_GSO_TCPV4;
	return head->meta.flags & GN_F_CWR ? type | VIRTIO_NET_HDR_GSO_ECN : type;
}

/*
 * The full checksum of a merged packet, without reading its payload: one's complement
 * addition is associative, so the payload's part is the sum of what the segments'
 * checksums claimed. One wrong claim makes the result wrong, and the receiver drops it.
 */
static uint16_t carried_csum(const struct mbuf *head, const uint8_t *l4, uint16_t pseudo)
{
	uint64_t sum = (uint64_t)pseudo + csum(l4, head->meta.l4_len) + head->sum;
	uint16_t check = (uint16_t)~csum_fold(sum);

	/* RFC 768: 0 would say that there is none */
	return !check && head->meta.flags & GN_F_UDP ? 0xffff : check;
}

void gso_finish(struct mbuf_pool *p, struct mbuf *head, struct virtio_net_hdr_v1 *vh)
{
	uint32_t l4_len = head->total - head->meta.l4_off;
	uint8_t *frame = mbuf_data(p, head), *l3, *l4;
	bool udp = head->meta.flags & GN_F_UDP;
	uint16_t pseudo;

	memset(vh, 0, sizeof(*vh));
	vh->num_buffers = htole16(1);
	if (head->nsegs == 1) {
		if (head->flags & MBUF_PARTIAL)
			need_csum(head, vh);
		else if (head->flags & MBUF_VERIFIED)
			vh->flags = VIRTIO_NET_HDR_F_DATA_VALID;
		return;
	}
	vh->gso_type = gso_type(head);
	vh->gso_size = htole16(head->gso_size);
	vh->hdr_len = htole16((uint16_t)mbuf_hdr_len(head));

	l3 = frame + head->meta.l3_off;
	l4 = frame + head->meta.l4_off;
	rewrite_ip(head, l3);
	if (udp) {
		wire_put16(l4 + WIRE_UDP_LEN, l4_len);
	} else {
		if (head->meta.flags & GN_F_PSH)
			l4[WIRE_TCP_FLAGS] |= WIRE_TCP_PSH;
		if (head->meta.flags & GN_F_FIN)
			l4[WIRE_TCP_FLAGS] |= WIRE_TCP_FIN;
	}

	pseudo = gso_pseudo_sum(l3, head->meta.flags & GN_F_IPV6,
				udp ? IPPROTO_UDP : IPPROTO_TCP, l4_len);
	l4 += csum_offset(head);
	if (head->flags & (MBUF_VERIFIED | MBUF_PARTIAL)) {
		need_csum(head, vh);
		wire_put_raw16(l4, pseudo);
	} else {
		wire_put_raw16(l4, 0);
		wire_put_raw16(l4, carried_csum(head, frame + head->meta.l4_off, pseudo));
	}
}
