/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * shm_abi: what ghostnicd and the client of a shared-memory port see of each other.
 *
 * A client connects to the port's socket (a stream socket). To capture it connects to the
 * daemon's capture socket and sends struct gn_shm_open first. The daemon answers with one
 * struct gn_shm_hello; if its error is 0, one struct gn_shm_queue per queue follows, each
 * with SCM_RIGHTS descriptors in this order: the ring memory (memfd, to be mapped shared,
 * read-write), the queue's doorbell (a socket), and, if umem_size is not 0, the packet
 * memory (memfd, read-only). Nothing more is said on the connection; either side ends the
 * port by closing it.
 *
 * Ring memory of a queue: struct gn_shm_ctl, then at the offsets that gn_shm_queue names
 *
 *	pkts	struct gn_shm_pkt[ring_size]	daemon to client: packets, in order
 *	segs	struct gn_shm_seg[ring_size]	daemon to client: their address lists,
 *						packet by packet
 *	rets	__u32[ring_size]		client to daemon: ids of packets given back
 *	data	bytes				daemon's: where copied packets lie
 *	tx	bytes, tx_size			client to daemon: frames
 *
 * Positions are free running, their entry is position modulo size, sizes are powers of
 * two. There are never more packets or segments out than ring_size, so neither side needs
 * to tell the other how far it has read; tx, where it matters, has tx_cons.
 *
 * Each side writes its own fields only, keeps its own copies of them, and reads the
 * other's once and checks before use. A doorbell is a byte on the queue's socket, not an
 * eventfd: whether a write to an eventfd blocks is a property of the description that both
 * sides share, so the one could stop the other.
 */
#ifndef GN_SHM_ABI_H
#define GN_SHM_ABI_H

#include <linux/types.h>
#include <linux/virtio_net.h>

#define GN_SHM_MAGIC 0x6e677368U /* "hsgn" in memory */
#define GN_SHM_ABI   1
#define GN_SHM_CAPTURE                                                                   \
	".capture"		/* capture socket: the control socket's path and this    \
				 */
#define GN_SHM_MAX_SEGS	  128	/* of one packet */
#define GN_SHM_MAX_FRAME  65557 /* bytes to send, without virtio-net header */
#define GN_SHM_CACHE_LINE 64
#define GN_SHM_QUEUE_FDS  3 /* of a gn_shm_queue message, at most */

/* First bytes of the ring memory. One cache line per writer and purpose. */
struct gn_shm_ctl {
	__u32 rx_prod; /* daemon: packets published */
	__u32 pad0[15];
	__u32 ret_prod; /* client: packets given back */
	__u32 pad1[15];
	__u32 tx_prod; /* client: bytes of tx written */
	__u32 pad2[15];
	__u32 tx_cons; /* daemon: bytes of tx read */
	__u32 pad3[15];
	__u32 client_sleeps; /* client sets it, daemon clears it and rings: tell me of
			      * packets */
	__u32 pad4[15];
	__u32 daemon_sleeps; /* GN_SHM_WAKE_*; daemon sets them, client clears and rings
			      */
	__u32 pad5[15];
	__u64 lost; /* daemon: packets of the wire, or frames, that were dropped
		     * because the client had no room */
	__u64 pad6[7];
};

#define GN_SHM_WAKE_TX	(1U << 0) /* when something is written to tx */
#define GN_SHM_WAKE_RET (1U << 1) /* when something is given back */

/* A packet. Fields of vh are little-endian, as virtio 1 has them. */
struct gn_shm_pkt {
	__u64 time_ns;	/* CLOCK_REALTIME of the burst it came in */
	__u32 id;	/* to give it back by */
	__u32 flow;	/* flow identifier; 0: none */
	__u32 len;	/* bytes here, all segments */
	__u32 wire_len; /* bytes it has; more than len if cut to a snap length */
	struct virtio_net_hdr_v1 vh; /* 12 bytes */
	__u8 packets;		     /* packets of the wire it was made of; 0: local */
	__u8 nsegs;		     /* entries of segs */
	__u16 flags;		     /* GN_SHM_PKT_* */
};

#define GN_SHM_PKT_DATA                                                                  \
	(1U << 0)		 /* the segments lie in data, not in the packet memory   \
				  */
#define GN_SHM_PKT_OUT (1U << 1) /* captured: the instance sent it */

struct gn_shm_seg {
	__u32 off; /* into packet memory or data, bytes */
	__u32 len; /* bytes */
};

/* A frame in tx; the frame's bytes follow, then padding up to a multiple of 16. */
struct gn_shm_tx {
	__u32 len; /* of the frame, bytes */
	struct virtio_net_hdr_v1 vh;
};

/* Client to daemon, capture socket only. */
struct gn_shm_open {
	__u32 magic;
	__u32 abi;
	__u32 snaplen;	   /* bytes of a packet to be copied */
	__u32 flags;	   /* GN_SHM_OPEN_* */
	char iface[16];	   /* NUL-terminated; empty: the only one */
	char instance[32]; /* NUL-terminated */
};

#define GN_SHM_OPEN_SEGMENTS (1U << 0) /* cut super-packets into packets */

struct gn_shm_hello {
	__u32 magic;
	__u32 abi;
	__s32 error; /* 0, or a positive errno */
	__u32 nqueues;
	__u32 mtu; /* of the interface, bytes */
	__u8 mac[6];
	__u16 vlan;	/* the port's frames are untagged nevertheless */
	char text[100]; /* with an error: why, NUL-terminated */
};

struct gn_shm_queue {
	__u32 queue;
	__u32 ring_size; /* entries of pkts, segs and rets */
	__u64 map_size;	 /* bytes of the ring memory */
	__u64 umem_size; /* bytes of the packet memory; 0: none */
	__u64 pkts_off, segs_off, rets_off, data_off, tx_off;
	__u32 data_size;
	__u32 tx_size; /* 0: this port takes no frames */
};

_Static_assert(sizeof(struct gn_shm_ctl) == 7 * GN_SHM_CACHE_LINE, "gn_shm_ctl ABI");
_Static_assert(__builtin_offsetof(struct gn_shm_ctl, tx_cons) == 192, "gn_shm_ctl ABI");
_Static_assert(__builtin_offsetof(struct gn_shm_ctl, lost) == 384, "gn_shm_ctl ABI");
_Static_assert(sizeof(struct virtio_net_hdr_v1) == 12, "virtio-net header");
_Static_assert(sizeof(struct gn_shm_pkt) == 40, "gn_shm_pkt ABI");
_Static_assert(__builtin_offsetof(struct gn_shm_pkt, vh) == 24, "gn_shm_pkt ABI");
_Static_assert(__builtin_offsetof(struct gn_shm_pkt, flags) == 38, "gn_shm_pkt ABI");
_Static_assert(sizeof(struct gn_shm_seg) == 8, "gn_shm_seg ABI");
_Static_assert(sizeof(struct gn_shm_tx) == 16, "gn_shm_tx ABI");
_Static_assert(sizeof(struct gn_shm_open) == 64, "gn_shm_open ABI");
_Static_assert(sizeof(struct gn_shm_hello) == 128, "gn_shm_hello ABI");
_Static_assert(sizeof(struct gn_shm_queue) == 72, "gn_shm_queue ABI");

#endif
