/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * port: where an instance reads its packets and puts its own.
 *
 * A port has one queue per worker. A queue is used by its worker only, so no
 * operation on it takes a lock; open and close run on the control thread while no
 * worker knows the port.
 *
 * Directions are named from the instance's side of the wire: deliver and inject
 * bring packets to the instance, fetch takes packets from it.
 */
#ifndef GN_PORT_H
#define GN_PORT_H

#include <net/if.h>

#include "agg.h"
#include "gso.h"
#include "../lib/loop.h"
#include "mbuf.h"

#define PORT_MAX_IOV   (AGG_MAX_BUFS + 1) /* virtio-net header and a chain */
#define PORT_MAX_FRAME (65535 + 22)	  /* bytes, without virtio-net header */

/* X(field, meaning): per queue, written by its worker. */
#define PORT_COUNTERS(X)                                                                 \
	X(rx_packets, "wire packets delivered to the instance")                          \
	X(rx_frames, "frames delivered to the instance")                                 \
	X(rx_bytes, "bytes delivered to the instance")                                   \
	X(rx_local, "frames of these that other local instances sent")                   \
	X(rx_dropped, "frames dropped: the instance was too slow, or not there")         \
	X(rx_bad_csum, "segments kept apart: bad L4 checksum, found in delivery")        \
	X(tx_frames, "frames from the instance")                                         \
	X(tx_bytes, "bytes from the instance")                                           \
	X(tx_wire, "packets sent on the wire for the instance")                          \
	X(tx_local, "frames given to other local instances")                             \
	X(tx_dropped, "frames dropped: no transmit chunk")                               \
	X(tx_bad, "frames dropped: malformed or too long")                               \
	X(tx_spoofed, "frames dropped: not from the instance's address or VLAN")         \
	X(tx_paused, "times sending was put off to keep to the instance's rate")         \
	X(tx_disabled, "frames dropped: the instance disabled the queue (vhost-user)")   \
	X(calls, "notifications sent to the instance (vhost-user)")                      \
	X(calls_saved, "notifications that it did not want (vhost-user)")                \
	X(faults, "times the front end was closed for breaking a rule (vhost-user)")

struct port_stats {
#define PORT_FIELD(f, help) uint64_t f;
	PORT_COUNTERS(PORT_FIELD)
#undef PORT_FIELD
};

struct port_conf {
	char kind[16];	/* "tap", "vhost-user", "shm", "null" */
	char arg[108];	/* tap: device name; vhost-user, shm: path of the socket */
	bool client;	/* vhost-user: connect, the front end listens */
	uint32_t hold;	/* shm: most chunks a client may hold, 0: the default */
	bool copy;	/* null: copy every chain, as a VM's ring would */
	uint8_t mac[6]; /* of the instance */
	uint16_t vlan;	/* of the instance, 0: none */
	uint32_t mtu;	/* of the interface, bytes */
};

struct dma_log;	     /* dma_log.h */
struct mirror_queue; /* mirror.h */
struct umem;

struct port_queue {
	struct port *port;
	struct mirror_queue *mirror; /* gets copies of all frames; NULL: nobody asked */
	int fd;			     /* readable when fetch() has work; -1: never */
	uint64_t paused_until;	     /* no fetch() before, ns; 0: not put off */
	bool unsettled;		     /* injected to since the last settle() */
	struct port_stats stats;
};

/*
 * rx_depth: frames that have to be able to wait for the worker while deliver() runs, up to
 * XSK_RX_SIZE; 0: deliver() leaves the packets alone. More circulate cold: with 4,096 vhost-user
 * took 2.2 million frames a second instead of 3.1 (docs/benchmarks.md). Fewer are lost
 * when the worker has no CPU for a while: with 1,024 a TAP's readers cost it 88.
 */
#define PORT_RX_COPIES 1024 /* deliver() copies, or wakes up who reads, on another CPU */
#define PORT_RX_SHARES 4096 /* who reads may have this CPU */

struct port {
	const struct port_ops *ops;
	uint32_t gso; /* GN_INSTANCE_*: super-frames the instance takes */
	bool reads;   /* deliver() reads all payload on the worker's CPU: it verifies what
		       * it gets MBUF_CLAIMED (chain.h), so the driver's CPU does not */
	bool logged; /* its DMA log is on, or about to be: XDP says so of frames to come */
	uint32_t rx_depth; /* PORT_RX_* or 0 */
	unsigned int nqueues;
	struct port_queue **queue; /* [nqueues] */
};

/* What a port may ask of its surroundings, on the control thread. */
struct port_env {
	struct loop *loop; /* to be called when a descriptor is readable */
	void *owner;	   /* first argument of the functions below */

	/** call() - run @fn(@arg) on the worker of @queue between two bursts, when it has
	 * delivered what it held; waits */
	void (*call)(void *owner, unsigned int queue, void (*fn)(void *arg), void *arg);

	/** changed() - port.gso or port.logged is another now: it holds for frames to
	 * come */
	void (*changed)(void *owner);

	/** mem() - packet memory of @queue's worker: deliver()'s pool and its memfd */
	void (*mem)(void *owner, unsigned int queue, struct mbuf_pool **pool,
		    const struct umem **umem);
};

struct port_ops {
	const char *name;

	/**
	 * open() - create the port and its queues
	 * @conf:	settings
	 * @env:	valid until close(); not owned
	 * @nqueues:	number of workers
	 * @out:	set on success; caller destroys it by close()
	 *
	 * Return: 0 or -errno; the cause has been logged
	 */
	int (*open)(const struct port_conf *conf, const struct port_env *env,
		    unsigned int nqueues, struct port **out);

	/** close() - undo open(); no worker uses the port any more */
	void (*close)(struct port *p);

	/**
	 * deliver() - a burst of chains for the instance
	 * @q:		queue of the calling worker
	 * @pool:	pool of the chains
	 * @head:	[@n] chains with their VLAN tag already removed; ownership of
	 *		the mbufs passes, headers not yet rewritten (gso_finish())
	 *
	 * Never blocks. What the instance cannot take is dropped and counted.
	 */
	void (*deliver)(struct port_queue *q, struct mbuf_pool *pool, struct mbuf **head,
			unsigned int n);

	/**
	 * inject() - one frame from another local instance or a broadcast
	 * @f:		frame, untagged; borrowed
	 *
	 * Offloads are passed on as the frame has them, or completed here if the
	 * instance cannot take them. Never blocks. settle() follows, after a burst of
	 * frames, before the instance has to know of them. Counts frames and bytes, but
	 * no wire packets: the caller knows where it comes from.
	 */
	void (*inject)(struct port_queue *q, const struct gso_frame *f);

	/**
	 * fetch() - next frame the instance sends
	 * @f:		filled; the bytes stay valid until the next fetch()
	 *
	 * Return: 1: a frame, 0: none now, -errno: the port is broken
	 * NULL: the port never sends.
	 */
	int (*fetch)(struct port_queue *q, struct gso_frame *f);

	/**
	 * dma_log() - where the port marks the guest pages that it writes
	 * @pages:	set to the number of pages up to the highest address that the
	 *		guest has now; 0: no guest is there
	 *
	 * Return: owned by the port; it may be changed between two bursts only.
	 * Control thread. NULL: the port writes no guest's memory.
	 */
	struct dma_log *(*dma_log)(struct port *p, uint64_t *pages);

	/**
	 * settle() - on the queue's worker: what has been written for the instance, but
	 * for it to see later, becomes visible now, and is marked
	 * NULL: there is no such thing.
	 */
	void (*settle)(struct port_queue *q);

	/** link() - the interface's link went up or down, or is as it was. Control
	 * thread. NULL: the instance is not told. */
	void (*link)(struct port *p, bool up);
};

/** port_find() - ops of kind @kind ("tap", "vhost-user"...), NULL if there is none */
const struct port_ops *port_find(const char *kind);

extern const struct port_ops port_tap_ops, port_vhost_ops, port_shm_ops, port_null_ops;

#endif
