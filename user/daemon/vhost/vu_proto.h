/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vu_proto: the back end's side of the vhost-user protocol, message by message.
 *
 * QEMU, docs/interop/vhost-user.rst. A message comes whole, with its descriptors;
 * vu_handle() checks it against a table (size, descriptors, negotiated features),
 * changes the device's state and makes the reply. Sockets are the caller's, and so are
 * the workers: everything that changes what a worker uses is done between ops.quiet() and
 * ops.go(), and the reply is there after both, which makes it the point after which
 * nothing of the old state is used.
 *
 * All of it is hostile input: a message that breaks a rule ends the device (-errno, and
 * vu_dev.why says which rule). A descriptor is either kept in the state or closed.
 *
 * Control thread.
 */
#ifndef GN_VU_PROTO_H
#define GN_VU_PROTO_H

#include "vring.h"

#define VU_MAX_PAIRS   8
#define VU_MAX_RINGS   (2 * VU_MAX_PAIRS)
#define VU_MAX_FDS     8   /* of one message: VHOST_MEMORY_BASELINE_NREGIONS */
#define VU_HDR_SIZE    12  /* request, flags, size */
#define VU_MAX_CONFIG  256 /* of the configuration space, bytes */
#define VU_MAX_PAYLOAD (12 + VU_MAX_CONFIG) /* SET_CONFIG, bytes */

/* Names that Debian 12's headers lack; virtio 1.3, 5.1.3. */
#define VU_F_GUEST_USO4 (1ULL << 54)
#define VU_F_GUEST_USO6 (1ULL << 55)
#define VU_F_HOST_USO	(1ULL << 56)

enum vu_request {
	VU_GET_FEATURES = 1,
	VU_SET_FEATURES = 2,
	VU_SET_OWNER = 3,
	VU_RESET_OWNER = 4,
	VU_SET_MEM_TABLE = 5,
	VU_SET_LOG_BASE = 6,
	VU_SET_LOG_FD = 7,
	VU_SET_VRING_NUM = 8,
	VU_SET_VRING_ADDR = 9,
	VU_SET_VRING_BASE = 10,
	VU_GET_VRING_BASE = 11,
	VU_SET_VRING_KICK = 12,
	VU_SET_VRING_CALL = 13,
	VU_SET_VRING_ERR = 14,
	VU_GET_PROTOCOL_FEATURES = 15,
	VU_SET_PROTOCOL_FEATURES = 16,
	VU_GET_QUEUE_NUM = 17,
	VU_SET_VRING_ENABLE = 18,
	VU_SEND_RARP = 19,
	VU_NET_SET_MTU = 20,
	VU_SET_BACKEND_REQ_FD = 21,
	VU_GET_CONFIG = 24,
	VU_SET_CONFIG = 25,
	VU_GET_INFLIGHT_FD = 31,
	VU_SET_INFLIGHT_FD = 32,
	VU_GET_MAX_MEM_SLOTS = 36,
	VU_ADD_MEM_REG = 37,
	VU_REM_MEM_REG = 38,
	VU_SET_STATUS = 39,
	VU_GET_STATUS = 40,
	VU_REQUEST_MAX
};

/* A request of the back end's. */
#define VU_BACKEND_CONFIG_CHANGE 2

/* Header flags. */
#define VU_VERSION	1
#define VU_VERSION_MASK 3
#define VU_REPLY	(1U << 2)
#define VU_NEED_REPLY	(1U << 3)

/* Protocol features, bit numbers. */
enum {
	VU_P_MQ = 0,
	VU_P_LOG_SHMFD = 1,
	VU_P_RARP = 2,
	VU_P_REPLY_ACK = 3,
	VU_P_NET_MTU = 4,
	VU_P_BACKEND_REQ = 5,
	VU_P_CONFIG = 9,
	VU_P_INFLIGHT_SHMFD = 12,
	VU_P_CONFIGURE_MEM_SLOTS = 15,
	VU_P_STATUS = 16,
};

/* SET_VRING_KICK, _CALL, _ERR: the payload's ring number, and "there is no descriptor".
 */
#define VU_VRING_INDEX 0xff
#define VU_VRING_NOFD  (1U << 8)

struct vu_msg {
	uint32_t request, flags, size; /* size: of the payload, bytes */
	uint8_t payload[VU_MAX_PAYLOAD];
	int fd[VU_MAX_FDS]; /* [nfds] */
	unsigned int nfds;
};

struct vu_reply {
	uint32_t len; /* 0: none */
	int fd;	      /* to go along, closed by who sends; -1: none */
	uint8_t buf[VU_HDR_SIZE + VU_MAX_PAYLOAD];
};

/* As in the messages. */
struct vu_mem_region {
	uint64_t gpa, size, uva, offset;
};

struct vu_ring {
	struct vring *vring; /* running; NULL: stopped */
	struct vring_conf conf;
	uint32_t base;	     /* of a stopped ring */
	int kick, call, err; /* eventfds, -1 */
	bool addr_set;
	bool enabled;		/* by SET_VRING_ENABLE; see vu_ring_enabled() */
	bool signal;		/* call is new: ops.go() signals once */
	struct vring_keep *own; /* of vu_keep.h, while it runs; NULL */
};

struct vu_dev_ops {
	/** quiet() - on return no worker uses rings, memory or descriptors of the device
	 */
	void (*quiet)(void *owner);

	/** go() - the state has changed; workers may use it */
	void (*go)(void *owner);

	/** rarp() - announce the guest's address on the network; between the two above */
	void (*rarp)(void *owner, const uint8_t mac[6]);
};

struct vu_dev {
	const struct vu_dev_ops *ops;
	void *owner;
	uint8_t mac[6]; /* of the guest */
	uint32_t mtu;	/* the most the guest may ask for, bytes */
	bool link_down; /* of the interface behind it */

	uint64_t features; /* negotiated */
	uint64_t protocol; /* protocol features, negotiated */
	uint8_t status;
	struct vu_mem mem;
	struct vu_ring ring[VU_MAX_RINGS]; /* pair p: 2p receives, 2p + 1 transmits */
	struct dma_log log;
	struct vu_map log_map; /* the front end's */
	uint64_t log_size;     /* bytes */
	bool log_broken;       /* atomic: its file is shorter than it said */
	struct vu_map
		inflight; /* the front end's, where rings are kept; see vring_keep.h */
	uint16_t inflight_rings, inflight_size; /* of so many descriptors */
	bool inflight_broken;			/* atomic, as above */
	int backend_fd;				/* where requests of ours go, -1 */
	char why[128];				/* reason of the last failure */
};

/** vu_dev_init() - no front end; @mac: of the guest; @mtu in bytes */
void vu_dev_init(struct vu_dev *d, const struct vu_dev_ops *ops, void *owner,
		 const uint8_t mac[6], uint32_t mtu);

/**
 * vu_dev_link() - the interface's link went up or down
 * @r:		the front end is to be told by this, on @d->backend_fd; len 0: it need not
 */
void vu_dev_link(struct vu_dev *d, bool up, struct vu_reply *r);

/** vu_dev_reset() - the front end is gone: stop rings, unmap, close. Workers are quiet.
 */
void vu_dev_reset(struct vu_dev *d);

/** vu_dev_fini() - reset, and free the log's bitmaps; no worker runs */
void vu_dev_fini(struct vu_dev *d);

/** vu_features() - what a back end offers; the same for every front end */
uint64_t vu_features(void);

/**
 * vu_msg_header() - start a message with the @hdr that came
 * @m:		request, flags and size are filled
 *
 * Return: 0, -EPROTO: version or size is wrong, @d->why says so
 */
int vu_msg_header(struct vu_dev *d, struct vu_msg *m, const uint8_t hdr[VU_HDR_SIZE]);

/** vu_msg_close() - close the descriptors of a message that is not handled */
void vu_msg_close(struct vu_msg *m);

/**
 * vu_handle() - one message
 * @m:		complete; its descriptors are kept or closed on return
 * @r:		reply to send; len 0: none
 *
 * Return: 0, with @d->why not empty if a request was refused; or -errno: the device is to
 * be closed by vu_dev_reset(), workers stay quiet, @d->why says why
 */
int vu_handle(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r);

/** vu_ring_enabled() - may packets pass? Rings without protocol features always are. */
bool vu_ring_enabled(const struct vu_dev *d, const struct vu_ring *r);

/** vu_dev_mem_broken() - did a file of the device's turn out too short? Any thread */
static inline bool vu_dev_mem_broken(const struct vu_dev *d)
{
	return vu_mem_broken(&d->mem) ||
	       __atomic_load_n(&d->log_broken, __ATOMIC_RELAXED) ||
	       __atomic_load_n(&d->inflight_broken, __ATOMIC_RELAXED);
}

/** vu_dev_broken() - why the guest or its memory broke the device, NULL: it is whole.
 * Any thread that may use the rings. */
const char *vu_dev_broken(const struct vu_dev *d);

#endif
