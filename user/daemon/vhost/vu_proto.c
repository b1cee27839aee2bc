// SPDX-License-Identifier: BSD-2-Clause
/*
 * vu_proto: the table that says what each message may carry, and the handlers of those
 * that neither memory (vu_msg_mem.c) nor a ring (vu_msg_ring.c) is about. Contract in
 * vu_proto.h; control thread.
 */
#include <errno.h>
#include <linux/vhost_types.h>
#include <linux/virtio_config.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "vu_msg.h"

#define MIN_MTU 68 /* bytes; RFC 791 */

static const uint64_t offered_protocol =
	BIT(VU_P_MQ) | BIT(VU_P_LOG_SHMFD) | BIT(VU_P_RARP) | BIT(VU_P_REPLY_ACK) |
	BIT(VU_P_NET_MTU) | BIT(VU_P_BACKEND_REQ) | BIT(VU_P_CONFIG) |
	BIT(VU_P_INFLIGHT_SHMFD) | BIT(VU_P_CONFIGURE_MEM_SLOTS) | BIT(VU_P_STATUS);

/* ---- messages ------------------------------------------------------------------- */

static int get_features(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	return vu_reply_u64(r, m, vu_features());
}

static int set_features(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	uint64_t f = vu_msg_u64(m), changed = f ^ d->features;

	if (f & ~vu_features())
		return vu_fail(d, -EPROTO, "features %#llx were not offered",
			       (unsigned long long)(f & ~vu_features()));
	/* A running ring keeps its layout; what changes under it is whether the
	 * front end wants a log. */
	for (unsigned int i = 0; i < VU_MAX_RINGS; i++)
		if (d->ring[i].vring && changed & ~BIT(VHOST_F_LOG_ALL))
			return vu_fail(d, -EPROTO, "features change while ring %u runs",
				       i);
	d->features = f;
	vu_log_update(d);
	return 0;
}

static int set_owner(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	return 0;
}

/* Deprecated; QEMU's document: ignore it or disable all rings. */
static int reset_owner(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	for (unsigned int i = 0; i < VU_MAX_RINGS; i++) {
		if (!(d->features & VU_F_PROTOCOL_FEATURES))
			vu_ring_end(&d->ring[i]);
		d->ring[i].enabled = false;
	}
	return 0;
}

static int get_protocol_features(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	return vu_reply_u64(r, m, offered_protocol);
}

static int set_protocol_features(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	uint64_t f = vu_msg_u64(m);

	if (f & ~offered_protocol)
		return vu_fail(d, -EPROTO, "protocol features %#llx were not offered",
			       (unsigned long long)(f & ~offered_protocol));
	d->protocol = f;
	return 0;
}

static int get_queue_num(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	return vu_reply_u64(r, m, VU_MAX_PAIRS);
}

/* ---- the rest ------------------------------------------------------------------------
 */

static int send_rarp(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	d->ops->rarp(d->owner, m->payload);
	return 0;
}

static int net_set_mtu(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	uint64_t mtu = vu_msg_u64(m);

	if (mtu >= MIN_MTU && mtu <= d->mtu)
		return 0;
	vu_fail(d, 0, "MTU %llu; the interface has %u", (unsigned long long)mtu, d->mtu);
	return VU_REFUSED;
}

static int set_backend_req_fd(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	struct stat st;

	if (fstat(m->fd[0], &st) || !S_ISSOCK(st.st_mode))
		return vu_fail(d, -EPROTO, "the descriptor is not a socket");
	vu_set_fd(&d->backend_fd, vu_take_fd(m, 0));
	return 0;
}

/* 0: the driver reset the device. */
static int set_status(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	d->status = (uint8_t)vu_msg_u64(m);
	for (unsigned int i = 0; !d->status && i < VU_MAX_RINGS; i++)
		vu_ring_end(&d->ring[i]);
	return 0;
}

static int get_status(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	return vu_reply_u64(r, m, d->status);
}

/* ---- the table ------------------------------------------------------------------------
 */

enum fds {
	FD_NONE,
	FD_ONE,
	FD_MAYBE, /* none or one */
	FD_MANY,  /* the handler counts */
};

#define QUIET  1 /* workers must not run what it changes */
#define ANSWER 2 /* its reply is never an acknowledgement */
#define SLOTS  BIT(VU_P_CONFIGURE_MEM_SLOTS)

static const struct request {
	const char *name;
	int (*handle)(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r);
	uint16_t min, max; /* payload, bytes */
	uint8_t fds;	   /* enum fds */
	uint8_t flags;
	uint64_t needs; /* protocol features, all of them */
} requests[VU_REQUEST_MAX] = {
#define R(id, ...) [VU_##id] = { #id, __VA_ARGS__ }
	R(GET_FEATURES, get_features, 0, 0, FD_NONE, 0, 0),
	R(SET_FEATURES, set_features, 8, 8, FD_NONE, QUIET, 0),
	R(SET_OWNER, set_owner, 0, 0, FD_NONE, 0, 0),
	R(RESET_OWNER, reset_owner, 0, 0, FD_NONE, QUIET, 0),
	R(SET_MEM_TABLE, vu_set_mem_table, 8, 264, FD_MANY, QUIET, 0),
	R(SET_LOG_BASE, vu_set_log_base, 16, 16, FD_ONE, QUIET, BIT(VU_P_LOG_SHMFD)),
	R(SET_LOG_FD, vu_set_log_fd, 0, 8, FD_MAYBE, 0, 0),
	R(SET_VRING_NUM, vu_set_vring_num, 8, 8, FD_NONE, QUIET, 0),
	R(SET_VRING_ADDR, vu_set_vring_addr, 40, 40, FD_NONE, QUIET, 0),
	R(SET_VRING_BASE, vu_set_vring_base, 8, 8, FD_NONE, QUIET, 0),
	R(GET_VRING_BASE, vu_get_vring_base, 8, 8, FD_NONE, QUIET, 0),
	R(SET_VRING_KICK, vu_set_vring_kick, 8, 8, FD_MAYBE, QUIET, 0),
	R(SET_VRING_CALL, vu_set_vring_call, 8, 8, FD_MAYBE, QUIET, 0),
	R(SET_VRING_ERR, vu_set_vring_err, 8, 8, FD_MAYBE, QUIET, 0),
	R(GET_PROTOCOL_FEATURES, get_protocol_features, 0, 0, FD_NONE, 0, 0),
	R(SET_PROTOCOL_FEATURES, set_protocol_features, 8, 8, FD_NONE, 0, 0),
	R(GET_QUEUE_NUM, get_queue_num, 0, 0, FD_NONE, 0, 0),
	R(SET_VRING_ENABLE, vu_set_vring_enable, 8, 8, FD_NONE, QUIET, 0),
	R(SEND_RARP, send_rarp, 8, 8, FD_NONE, QUIET, BIT(VU_P_RARP)),
	R(NET_SET_MTU, net_set_mtu, 8, 8, FD_NONE, 0, BIT(VU_P_NET_MTU)),
	R(SET_BACKEND_REQ_FD, set_backend_req_fd, 0, 8, FD_ONE, 0, BIT(VU_P_BACKEND_REQ)),
	R(GET_CONFIG, vu_get_config, 12, VU_MAX_PAYLOAD, FD_NONE, ANSWER,
	  BIT(VU_P_CONFIG)),
	R(SET_CONFIG, vu_set_config, 12, VU_MAX_PAYLOAD, FD_NONE, 0, BIT(VU_P_CONFIG)),
	R(GET_INFLIGHT_FD, vu_get_inflight_fd, 20, 24, FD_NONE, 0,
	  BIT(VU_P_INFLIGHT_SHMFD)),
	R(SET_INFLIGHT_FD, vu_set_inflight_fd, 20, 24, FD_ONE, QUIET,
	  BIT(VU_P_INFLIGHT_SHMFD)),
	R(GET_MAX_MEM_SLOTS, vu_get_max_mem_slots, 0, 0, FD_NONE, 0, SLOTS),
	R(ADD_MEM_REG, vu_add_mem_reg, 40, 40, FD_ONE, QUIET, SLOTS),
	R(REM_MEM_REG, vu_rem_mem_reg, 40, 40, FD_MAYBE, QUIET, SLOTS),
	R(SET_STATUS, set_status, 8, 8, FD_NONE, QUIET, BIT(VU_P_STATUS)),
	R(GET_STATUS, get_status, 0, 0, FD_NONE, 0, BIT(VU_P_STATUS)),
#undef R
};

int vu_msg_header(struct vu_dev *d, struct vu_msg *m, const uint8_t hdr[VU_HDR_SIZE])
{
	memcpy(&m->request, hdr, 4);
	memcpy(&m->flags, hdr + 4, 4);
	memcpy(&m->size, hdr + 8, 4);
	if ((m->flags & VU_VERSION_MASK) != VU_VERSION || m->flags & VU_REPLY)
		return vu_fail(d, -EPROTO, "a message with flags %#x", m->flags);
	if (m->size > VU_MAX_PAYLOAD)
		return vu_fail(d, -EPROTO, "a message of %u bytes", m->size);
	return 0;
}

void vu_msg_close(struct vu_msg *m)
{
	for (unsigned int i = 0; i < m->nfds; i++)
		if (m->fd[i] >= 0)
			close(m->fd[i]);
	m->nfds = 0;
}

/* Is the message one of the table's, and formed as that says? */
static const struct request *check(struct vu_dev *d, const struct vu_msg *m)
{
	static const struct {
		unsigned int min, max;
	} limits[] = {
		[FD_NONE] = { 0, 0 },
		[FD_ONE] = { 1, 1 },
		[FD_MAYBE] = { 0, 1 },
		[FD_MANY] = { 0, VU_MAX_FDS },
	};
	const struct request *q =
		m->request < VU_REQUEST_MAX ? &requests[m->request] : NULL;

	if (!q || !q->handle) {
		vu_fail(d, -EPROTO, "request %u is unknown", m->request);
		return NULL;
	}
	if ((d->protocol & q->needs) != q->needs) {
		vu_fail(d, -EPROTO, "%s: its feature was not negotiated", q->name);
		return NULL;
	}
	if (m->size < q->min || m->size > q->max) {
		vu_fail(d, -EPROTO, "%s: %u bytes", q->name, m->size);
		return NULL;
	}
	if (m->nfds < limits[q->fds].min || m->nfds > limits[q->fds].max) {
		vu_fail(d, -EPROTO, "%s: %u descriptors", q->name, m->nfds);
		return NULL;
	}
	return q;
}

/* Put the request's name before the reason. */
static void name_failure(struct vu_dev *d, const char *name)
{
	char why[sizeof(d->why)];

	memcpy(why, d->why, sizeof(why));
	snprintf(d->why, sizeof(d->why), "%s: %.100s", name, why);
}

int vu_handle(struct vu_dev *d, struct vu_msg *m, struct vu_reply *r)
{
	const struct request *q = check(d, m);
	int err = -EPROTO;

	r->len = 0;
	r->fd = -1;
	if (!q)
		goto out;
	d->why[0] = '\0';
	if (q->flags & QUIET)
		d->ops->quiet(d->owner);
	err = q->handle(d, m, r);
	/* After a failure the state may be half of the new one: not for workers. */
	if (q->flags & QUIET && err >= 0)
		d->ops->go(d->owner);
	if (err)
		name_failure(d, q->name);
	if (err < 0) {
		r->len = 0;
		vu_set_fd(&r->fd, -1);
		goto out;
	}
	/* Replies with content are their own acknowledgement. */
	if (m->flags & VU_NEED_REPLY && d->protocol & BIT(VU_P_REPLY_ACK) &&
	    r->len <= VU_HDR_SIZE && !(q->flags & ANSWER))
		vu_reply_u64(r, m, (uint64_t)err);
	err = 0;
out:
	vu_msg_close(m);
	return err;
}
