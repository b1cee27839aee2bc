/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * gso: the virtio-net header, and what it promises about a frame.
 *
 * gso_finish() makes a chain of segments one GSO frame (wire → instance);
 * gso_segment() does the reverse (instance → wire). virtio 1.2, section 5.1.6;
 * include/linux/virtio_net.h in the kernel is the other side's reading of it.
 * gso_segment(gso_finish(x)) == x for every stream that aggregation merges, but for
 * the IPv4 identification where it was the same in every segment (mbuf.id_step 0): the
 * virtio-net header cannot say so, and segments get rising ones, as from any host
 * (RFC 6864: with DF it means nothing).
 *
 * Fields of struct virtio_net_hdr_v1 are little-endian here, as virtio 1 has them.
 *
 * No I/O, no allocation; any thread.
 */
#ifndef GN_GSO_H
#define GN_GSO_H

#include <endian.h>
#include <linux/virtio_net.h>
#include <sys/uio.h>

#include "mbuf.h"

/* Linux names that Debian 12's headers (6.1) lack; virtio 1.3, 5.1.6. */
#ifndef VIRTIO_NET_HDR_GSO_UDP_L4
#define VIRTIO_NET_HDR_GSO_UDP_L4 5 /* kernel 6.2 */
#endif

/**
 * gso_finish() - rewrite a chain's headers and say what it is
 * @p:		pool of the chain
 * @head:	chain as agg_push() emitted it; its header bytes in the umem are
 *		rewritten when nsegs > 1: IP length and checksum, UDP length,
 *		TCP flags, L4 checksum (pseudo-header sum, or, carried, the full one)
 * @vh:		filled: flags, gso_type, gso_size, hdr_len, csum_start,
 *		csum_offset; num_buffers 1
 *
 * What the checksum says, by @head->flags: VERIFIED, DATA_VALID or, merged, NEEDS_CSUM
 * over a pseudo-header sum; PARTIAL, NEEDS_CSUM; neither, nothing: the field holds a
 * full checksum which is right exactly if every segment's was, and the receiver checks.
 * UDP without checksum (GN_F_CSUM_NONE) has no such form and must come with nsegs 1.
 *
 * The kernel takes UDP_L4 only with NEEDS_CSUM (-EINVAL): carried UDP segments must come
 * with nsegs 1 too if a TAP is their port. TCP it takes without, and its own TCP then
 * checks the whole; but where it routes or bridges such a frame on, it gives the segments
 * fresh checksums without a look. Carrying is safe only if the instance ends the flow.
 */
void gso_finish(struct mbuf_pool *p, struct mbuf *head, struct virtio_net_hdr_v1 *vh);

/** gso_type() - virtio_net_hdr.gso_type of a chain of several segments */
uint8_t gso_type(const struct mbuf *head);

/* A frame from an instance: header and bytes, all of them untrusted. */
struct gso_frame {
	struct virtio_net_hdr_v1 vh;
	const struct iovec *iov;
	unsigned int niov;
	uint32_t len; /* bytes in iov */
};

/* Where segments go. */
struct gso_sink {
	/**
	 * get() - room for one frame
	 * @len:	bytes needed
	 * Return: buffer of @len bytes, NULL: none left (the rest of the
	 * frame is dropped)
	 */
	void *(*get)(struct gso_sink *s, uint32_t len);
};

/**
 * gso_segment() - cut a frame into wire frames with complete checksums
 * @f:		frame; a lone frame (GSO_NONE) is copied, its checksum completed
 * @mtu_frame:	longest wire frame, bytes with Ethernet header and tags
 * @vlan:	tag to insert after the MAC addresses (802.1Q TCI), 0: none
 * @sink:	gets the frames, in order, each complete when the next is asked for
 *
 * Trusted in @f->vh: nothing. Header lengths are found by parsing; hdr_len is ignored. A
 * GSO frame without NEEDS_CSUM is cut only if its checksum is right, so that corruption
 * never leaves with a fresh checksum. On -EINVAL and -EMSGSIZE the sink was not asked.
 *
 * Return: number of frames, -EINVAL: header and bytes contradict each other,
 * -EMSGSIZE: a lone frame or a segment is longer than @mtu_frame, -ENOBUFS: the sink ran
 * dry
 */
int gso_segment(const struct gso_frame *f, uint32_t mtu_frame, uint16_t vlan,
		struct gso_sink *sink);

/** gso_accept_offload() - gso_accept() of a frame that asks for something */
int gso_accept_offload(struct gso_frame *f);

/**
 * gso_accept() - a frame from an instance goes to another one as it is: may it?
 * @f:		frame; on success its header is made anew of what was found to hold,
 *		whatever else was in it
 *
 * By the rules of gso_segment(), but that no payload is read: a GSO frame without
 * NEEDS_CSUM has a checksum, which goes on with it for the receiver to check.
 *
 * Return: 0, -EINVAL: header and bytes contradict each other, @f is untouched
 */
static inline int gso_accept(struct gso_frame *f)
{
	if (f->vh.gso_type || f->vh.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
		return gso_accept_offload(f);
	f->vh = (struct virtio_net_hdr_v1){ .num_buffers = htole16(1) };
	return 0;
}

/**
 * gso_pseudo_sum() - pseudo-header sum (RFC 9293 3.1, RFC 8200 8.1), not inverted
 * @l3:		IPv4 or IPv6 header
 * @ipv6:	which of the two
 * @proto:	IPPROTO_TCP or IPPROTO_UDP
 * @l4_len:	bytes from the L4 header to the end of the payload
 */
uint16_t gso_pseudo_sum(const uint8_t *l3, bool ipv6, uint8_t proto, uint32_t l4_len);

#endif
