/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * gso: the virtio-net header, and what it promises about a frame.
 *
 * gso_finish() makes a chain of segments one GSO frame (wire → instance);
 * gso_segment() does the reverse (instance → wire). virtio 1.2, section 5.1.6;
 * include/linux/virtio_net.h in the kernel is the other side's reading of it.
 * gso_segment(gso_finish(x)) == x for every stream that aggregation merges.
 *
 * No I/O, no allocation; any thread.
 */
#ifndef GN_GSO_H
#define GN_GSO_H

#include <linux/virtio_net.h>
#include <sys/uio.h>

#include "mbuf.h"

/* Linux names that Debian 12's headers (6.1) lack; virtio 1.3, 5.1.6. */
#ifndef VIRTIO_NET_HDR_GSO_UDP_L4
#define VIRTIO_NET_HDR_GSO_UDP_L4	5	/* kernel 6.2 */
#endif

/**
 * gso_finish() - rewrite a chain's headers and say what it is
 * @p:		pool of the chain
 * @head:	chain as agg_push() emitted it; its header bytes in the umem are
 *		rewritten when nsegs > 1: IP length and checksum, UDP length,
 *		TCP flags, L4 checksum (pseudo-header sum, or, carried, the full one)
 * @vh:		filled: flags, gso_type, gso_size, hdr_len, csum_start,
 *		csum_offset; num_buffers 1
 */
void gso_finish(struct mbuf_pool *p, struct mbuf *head,
		struct virtio_net_hdr_v1 *vh);

/* A frame from an instance: header and bytes, all of them untrusted. */
struct gso_frame {
	struct virtio_net_hdr_v1 vh;
	const struct iovec *iov;
	unsigned int niov;
	uint32_t len;			/* bytes in iov */
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
 * Return: number of frames, -EINVAL: header and bytes contradict each other,
 * -EMSGSIZE: a lone frame or a segment is longer than @mtu_frame, -ENOBUFS: the sink ran dry
 */
int gso_segment(const struct gso_frame *f, uint32_t mtu_frame, uint16_t vlan,
		struct gso_sink *sink);

#endif
