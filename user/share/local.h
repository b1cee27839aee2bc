/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * local: what an application's library and the agent of its node say to one another, over
 * a UNIX SOCK_SEQPACKET socket: one struct local_msg a packet, descriptors beside it
 * (SCM_RIGHTS). Both ends are of one build: version must match, nothing is converted. The
 * agent checks each field all the same. Every request has one reply, with its op and serial;
 * EVENT comes unasked.
 *
 * - EXPORT: name, size, page_shift (0: the memfd's, or the smallest), key, [memfd] ->
 * region; its memfd, what the agent knows of it (agent/meta.h)
 * - IMPORT: name or bus, key -> region, owner's address; memfds as for EXPORT
 * - ATTACH: bus, base, key; uffd -> window is served from now on
 * - RESUME: name, bus, size, base, key; uffd and both memfds, to an agent that was
 * started after another had died -> as IMPORT. -EAGAIN: ask again soon
 * - DETACH: bus, base; or, if no agent is there to hear of it, the window's place in the
 * meta is freed, lest the next one waits for that window
 * - PREFETCH: bus; base, size: offset and length
 * - LIST, STAT -> text: JSON in pieces; the last has more == 0
 * - REVOKE: name. -EREMOTE: it is another node's
 * - MOVE: name, key, node: whereto -> text: JSON of how far it is, in as many packets as
 * it takes; the last has more == 0 and, if it was done, the figures. Closing the socket
 *   before the region has been handed over cancels it
 * - EVENT: bus, event; MOVED: owner's address, epoch, lease_ms, LOCAL_OWNER if that is
 * this node
 */
#ifndef GM_LOCAL_H
#define GM_LOCAL_H

#include <stdbool.h>
#include <stdint.h>

#include "key.h"
#include "net.h"

#define LOCAL_MAGIC   0x344c4d47u /* "GML4" */
#define LOCAL_TEXT    2048
#define LOCAL_FDS     3
#define LOCAL_PATH    108			 /* bytes of a path, its 0 included */
#define LOCAL_DEFAULT "/run/ghostmem/agent.sock" /* GHOSTMEM_AGENT overrides */

enum local_op {
	LOCAL_EXPORT = 1,
	LOCAL_IMPORT,
	LOCAL_ATTACH,
	LOCAL_RESUME,
	LOCAL_DETACH,
	LOCAL_LIST,
	LOCAL_STAT,
	LOCAL_REVOKE,
	LOCAL_MOVE,
	LOCAL_PREFETCH, /* bus, size: bring pages here to read */
	LOCAL_EVENT,
	LOCAL_OP_MAX,
};

/* local_msg.event beside GM_EV_* of share_wire.h, to the library alone; base, size */
#define GM_EV_POISON 100 /* SIGBUS there */
#define GM_EV_RENEW  101 /* no longer: who gets SIGBUS there by UFFDIO_POISON asks again */

struct local_msg {
	uint32_t magic;
	uint8_t op;
	uint8_t more;	   /* another piece of text follows */
	uint8_t read_only; /* IMPORT */
	uint8_t event;	   /* GM_EV_*, share_wire.h */
	int32_t status;	   /* replies */
	uint32_t epoch;
	uint32_t lease_ms;
	uint64_t serial; /* of a request; its reply has the same. Replies may overtake */
	uint64_t bus;
	uint64_t size;
	uint64_t base;	    /* ATTACH: address of the window in the application */
	uint8_t page_shift; /* EXPORT, and in replies */
	uint8_t lacks;	    /* ATTACH, RESUME: WINDOW_NO_* of the application's kernel */
	uint8_t window;	    /* replies to these: its place in the meta */
	uint64_t flags;	    /* LOCAL_OWNER: region's home is this node */
	char name[GM_NAME_MAX];
	char node[GM_NAME_MAX];	 /* replies: of this agent */
	char addr[NET_ADDR_MAX]; /* replies: owner's agent, for operations */
	uint8_t tls_mode;	 /* replies: of connections to it; enum tls_mode */
	char tls_dir[LOCAL_PATH];
	char tls_hostname[GM_NAME_MAX];
	struct gm_key key;
	uint32_t text_len;
	char text[LOCAL_TEXT];
};

#define LOCAL_OWNER 1

/** local_send() - @fds: not owned. Return: 0, -EPIPE, -errno */
int local_send(int sock, const struct local_msg *m, const int *fds, int nfds);

/** local_recv() - @fds: LOCAL_FDS places, close them; @nfds: how many came. Return: 1; 0:
 * closed; -EAGAIN; -EPROTO: no such message (descriptors were closed); -errno */
int local_recv(int sock, struct local_msg *m, int *fds, int *nfds);

/** local_connect() - @path NULL: GHOSTMEM_AGENT or the default. Return: descriptor,
 * -errno */
int local_connect(const char *path);

/** local_call() - send, then wait for the reply with the same op; EVENTs that come
 * between go to @event(@arg, m), if any. Return: the reply's status, -ECONNRESET,
 * -ETIMEDOUT */
int local_call(int sock, struct local_msg *m, const int *fds, int nfds, int *rfds,
	       int *nrfds, int timeout_ms,
	       void (*event)(void *, const struct local_msg *), void *arg);

#endif
