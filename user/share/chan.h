/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * chan: messages of share_wire over a connection, on a loop. What a send cannot put into
 * the socket at once is copied, so the caller's bytes may change after it returns. One
 * thread.
 */
#ifndef GM_CHAN_H
#define GM_CHAN_H

#include "net.h"
#include "share_wire.h"
#include "../lib/loop.h"

#define CHAN_REFS  64		/* messages by reference that wait */
#define CHAN_SLICE (256u << 10) /* bytes of them in one turn of the loop */

struct chan;

struct chan_ops {
	/** a message; @payload (hdr.len bytes) is valid until it returns */
	void (*msg)(void *arg, const struct gm_hdr *h, const uint8_t *payload);
	/** connection is over (@err: -errno, 0: peer closed); the chan is freed after it
	 */
	void (*closed)(void *arg, int err);
	/** a message longer than GM_PAYLOAD_MAX begins: may it come? Before there is
	 * memory for it; closed(-EBADMSG) if not. NULL: none may */
	bool (*fits)(void *arg, const struct gm_hdr *h);
};

/** chan_create() - @conn is owned on success. Return: 0, -errno */
int chan_create(struct loop *l, struct net_conn *conn, const struct chan_ops *ops,
		void *arg, struct chan **out);

/** chan_close() - closed() is not called; freed at once or when its callback returns.
 * NULL is fine */
void chan_close(struct chan *c);

/** chan_fail() - close from within or without a callback; closed(@err) is called soon */
void chan_fail(struct chan *c, int err);

/** chan_send() - header and hdr.len bytes of @payload. Failures show in closed(). */
void chan_send(struct chan *c, const struct gm_hdr *h, const void *payload);

/**
 * chan_send_ref() - as chan_send(), without a copy
 * @payload:	stays where it is until it is sent or the connection is over; bytes that
 *		change meanwhile go out as they are then
 *
 * Sends a slice (CHAN_SLICE) at a time, so that others on the loop have their turn. As
 * long as anything is left of it, chan_send() takes messages without payload alone.
 */
void chan_send_ref(struct chan *c, const struct gm_hdr *h, const void *payload);

/** chan_has_refs() - is anything of chan_send_ref() left? */
bool chan_has_refs(const struct chan *c);

/** chan_wait() - send what waits and serve messages until one of them sets @done, at most
 * @timeout_ms; the loop stands still meanwhile. Return: 0; -ETIMEDOUT; -errno: connection
 * is over and @c is freed, after closed() if it was not closed by what was served */
int chan_wait(struct chan *c, const bool *done, int timeout_ms);

/** chan_check_peer() - net_check_peer() of its connection */
int chan_check_peer(struct chan *c, const char *node);

const char *chan_peer(const struct chan *c);

#endif
