/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vu_msg: what the handlers of vhost-user messages share; for vu_proto.c and vu_msg_*.c
 * only. A handler is called with a message that vu_proto.c's table has found well formed;
 * it returns 0, VU_REFUSED or -errno, the latter two with a reason by vu_fail().
 *
 * Control thread.
 */
#ifndef GN_VU_MSG_H
#define GN_VU_MSG_H

#include <string.h>
#include <unistd.h>

#include "vu_proto.h"

#define BIT(n)		       (1ULL << (n))
#define VU_F_PROTOCOL_FEATURES BIT(30) /* VHOST_USER_F_PROTOCOL_FEATURES */

/* A handler's answer beside 0 and -errno: no, but the device goes on. */
#define VU_REFUSED 1

/** vu_fail() - say why in @d->why. Return: @err */
int vu_fail(struct vu_dev *d, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static inline uint64_t vu_msg_u64(const struct vu_msg *m)
{
	uint64_t v;

	memcpy(&v, m->payload, sizeof(v));
	return v;
}

static inline void vu_reply_with(struct vu_reply *r, const struct vu_msg *m,
				 const void *payload, uint32_t size)
{
	const uint32_t hdr[3] = { m->request, VU_VERSION | VU_REPLY, size };

	memcpy(r->buf, hdr, sizeof(hdr));
	if (size)
		memcpy(r->buf + sizeof(hdr), payload, size);
	r->len = VU_HDR_SIZE + size;
}

static inline int vu_reply_u64(struct vu_reply *r, const struct vu_msg *m, uint64_t v)
{
	vu_reply_with(r, m, &v, sizeof(v));
	return 0;
}

/* Take a descriptor out of the message: it is the caller's. */
static inline int vu_take_fd(struct vu_msg *m, unsigned int i)
{
	int fd = m->fd[i];

	m->fd[i] = -1;
	return fd;
}

/* Put @fd where another one may be. */
static inline void vu_set_fd(int *slot, int fd)
{
	if (*slot >= 0)
		close(*slot);
	*slot = fd;
}

/** vu_ring_end() - vu_ring_stop() in order: the front end knows where it goes on */
void vu_ring_end(struct vu_ring *r);

/** vu_ring_stop() - nothing of the guest's memory is written for it any more */
void vu_ring_stop(struct vu_ring *r);

/** vu_log_update() - the log is in force when the front end has given one and asked for
 * it; workers are quiet */
void vu_log_update(struct vu_dev *d);

/* vu_msg_mem.c */
int vu_set_mem_table(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r);
int vu_get_max_mem_slots(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r);
int vu_add_mem_reg(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r);
int vu_rem_mem_reg(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r);
int vu_set_log_base(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r);
int vu_set_log_fd(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r);

/* vu_msg_config.c */
int vu_get_config(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r);
int vu_set_config(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r);

/* vu_msg_inflight.c */
int vu_get_inflight_fd(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r);
int vu_set_inflight_fd(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r);

/** vu_ring_keep() - where ring @index of @d is kept; it does not run. May be NULL; what
 * is taken of vu_keep.h is in the ring's own */
struct vring_keep *vu_ring_keep(struct vu_dev *d, uint32_t index);

/* vu_msg_ring.c */
int vu_set_vring_num(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r);
int vu_set_vring_base(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r);
int vu_set_vring_addr(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r);
int vu_get_vring_base(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r);
int vu_set_vring_enable(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r);
int vu_set_vring_kick(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r);
int vu_set_vring_call(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r);
int vu_set_vring_err(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r);

#endif
