/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * mirror: copies of an instance's frames for `ghostnic capture`.
 *
 * A process connects to the capture socket (the control socket's path and ".capture",
 * mode 0600), names an instance, and gets its frames, both directions, up to a snap
 * length, through rings of shm_ring.h. They are copied by the worker, into memory that
 * only this client has, and nothing waits for it: what it has no room for it does not
 * get, and is told the number. Off, a mirror is one pointer that is NULL, looked at once
 * a burst.
 *
 * Control thread: sockets and clients. Worker: its queue's part, while port_queue.mirror
 * is set, which only functions run on the worker change.
 */
#ifndef GN_MIRROR_H
#define GN_MIRROR_H

#include "daemon.h"

struct mirror_server;

/** mirror_listen() - at the place that belongs to control socket @ctl. Return: 0, -errno
 */
int mirror_listen(struct daemon *d, const char *ctl, struct mirror_server **out);

/** mirror_unlisten() - end all captures; NULL is fine */
void mirror_unlisten(struct mirror_server *s);

/** mirror_stop() - end the capture of @in, if there is one */
void mirror_stop(struct instance *in);

/** mirror_chains() - worker: chains on their way to the instance; their headers are
 * finished by it, as gso_finish() may be called twice */
void mirror_chains(struct mirror_queue *m, struct mbuf_pool *pool, struct mbuf **head,
		   unsigned int n);

/** mirror_frame() - worker: a frame to the instance, or (@out) from it */
void mirror_frame(struct mirror_queue *m, const struct gso_frame *f, bool out);

#endif
