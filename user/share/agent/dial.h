/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * dial: a connection to another agent, made step by step on the loop: TCP or UNIX socket,
 * TLS, HELLO, ATTACH. A peer that swallows packets, or accepts and never speaks, holds up
 * nobody else. The agent's thread.
 *
 *	CONNECT	-> HELLO sent -> ATTACH sent -> done(0)
 *	    \________/_______________/____________> done(-errno), once, connection closed
 */
#ifndef GM_DIAL_H
#define GM_DIAL_H

#include "../key.h"
#include "../net.h"
#include "../share_wire.h"
#include "../../lib/loop.h"

struct dial;

#define DIAL_SEQ 2 /* last sequence number that the handshake used */

struct dial_to {
	const char *addr;	   /* as net_connect()'s; copied */
	const struct net_tls *tls; /* NULL: none */
	const char *peer;	   /* node that it has to be; copied */
	/* 0: connect only, what follows is the caller's. The rest is for other roles. */
	enum gm_role role;
	const char *node; /* of this agent */
	uint64_t incarnation;
	const struct gm_key *key; /* outlives the dial */
	uint64_t bus;
	uint32_t epoch;
};

/* What the owner said. */
struct dial_done {
	struct net_conn conn; /* the caller's */
	uint64_t session;
	uint64_t asked_ns; /* ATTACH was sent: the owner has heard of us since then */
	struct gm_hdr attach;
};

/**
 * dial_start() - begin
 * @to:		whom, and as what
 * @timeout_ms:	for each step: connected, HELLO answered, ATTACH answered
 * @done:	0 and *@d; -ETIMEDOUT; -EPROTO: no agreement on TLS; what the owner said,
 *		-EACCES, -ESTALE, -ENOENT...; -errno (@d NULL). The dial is freed before.
 *		Never called before dial_start() has returned
 *
 * Return: 0, -ENOMEM
 */
int dial_start(struct loop *l, const struct dial_to *to, int timeout_ms,
	       void (*done)(void *arg, int err, struct dial_done *d), void *arg,
	       struct dial **out);

/** dial_cancel() - done() is not called. NULL is fine */
void dial_cancel(struct dial *d);

/** dial_tick() - several times a second: its time may be over; may call done(). NULL is
 * fine */
void dial_tick(struct dial *d);

#endif
