/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * shm_conn: sockets, memory and watches of a client that shares rings with the daemon.
 *
 * A shared-memory port has one such client, a mirror has one. The control thread
 * makes and ends it; each of its channels is used by one worker. A worker that finds
 * its client hostile or gone says so by shm_chan_break(), stops using the channel, and
 * the control thread ends the client.
 */
#ifndef GN_SHM_CONN_H
#define GN_SHM_CONN_H

#include <stddef.h>
#include <sys/types.h>

#include "../lib/loop.h"
#include "shm_ring.h"
#include "umem.h"

struct shm_client;

/* One queue's share. */
struct shm_chan {
	struct shm_client *client;
	struct shm_ring ring;
	struct gn_shm_queue layout;
	void *map;
	int memfd;	 /* ring memory */
	int bell;	 /* our end of the doorbell */
	int client_bell; /* the other end, until it is sent; -1 */
	const char *why; /* worker: the channel is broken; NULL: it is not. Read by all */
};

struct shm_client {
	struct loop *loop;
	struct loop_watch *conn_watch, *broken_watch;
	int conn;      /* socket it connected with */
	int broken_fd; /* eventfd, of this process only: a channel broke */
	pid_t pid;     /* for messages: what SO_PEERCRED said */
	unsigned int nchans;
	struct shm_chan *chan; /* [nchans] */
	void (*gone)(void *arg, const char *why);
	void *arg;
};

/**
 * shm_listen() - stream socket at @path, mode 0600; replaces a dead one
 * Return: descriptor, -EADDRINUSE: someone listens there, -EEXIST: no socket, -errno;
 * logged
 */
int shm_listen(const char *path);

/** shm_unlisten() - close, and unlink @path if it is still this socket */
void shm_unlisten(int fd, const char *path);

/**
 * shm_accept() - who is there, at the socket of @w? See loop_accept()
 * @path:	of the socket, for messages
 * @who:	filled: "pid N uid N", @wholen bytes
 * Return: descriptor, not blocking; -errno: nobody
 */
int shm_accept(struct loop *loop, struct loop_watch *w, const char *path, pid_t *pid,
	       char *who, size_t wholen);

/** shm_refuse() - tell the peer of @conn why, and close it */
void shm_refuse(int conn, int err, const char *text);

/**
 * shm_client_create() - memory and channels for the peer of @conn
 * @conn:	taken over on success
 * @conf:	of each channel
 * @gone:	called on the control thread when the peer closed the connection or a
 *		channel broke; must end the client, or have it ended, by
 *		shm_client_destroy()
 *
 * Return: 0, -errno
 */
int shm_client_create(struct loop *loop, int conn, pid_t pid, unsigned int nchans,
		      const struct shm_ring_conf *conf,
		      void (*gone)(void *arg, const char *why), void *arg,
		      struct shm_client **out);

/**
 * shm_client_welcome() - send hello and all channels
 * @hello:	magic, abi, error and nqueues are filled in
 * @umem:	[nchans] packet memories, or NULL
 *
 * Return: 0, -errno: the peer does not read
 */
int shm_client_welcome(struct shm_client *c, struct gn_shm_hello *hello,
		       const struct umem *const *umem);

/** shm_client_destroy() - no worker has a channel any more; NULL is fine */
void shm_client_destroy(struct shm_client *c);

/* A reason that is none: the client closed its doorbell, as one does that leaves. */
extern const char shm_left[];

/** shm_chan_break() - worker: @why, shm_left or a literal; the first reason counts */
void shm_chan_break(struct shm_chan *ch, const char *why);

/** shm_chan_ring() - wake the client; never blocks */
void shm_chan_ring(struct shm_chan *ch);

/** shm_chan_hush() - take the client's rings. Return: false: it closed its doorbell */
bool shm_chan_hush(struct shm_chan *ch);

#endif
