/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * control: the socket that orders a VM. The protocol is control_proto.h's.
 *
 * A client's memory is bounded: a line of input, CONTROL_MAX_OUT of output. A client that
 * does not read misses progress events, never an answer or the last event; one that has
 * too much to read is closed. Loop's thread.
 */
#ifndef VMM_CONTROL_H
#define VMM_CONTROL_H

#include <jansson.h>

#include "../../user/lib/loop.h"
#include "control_proto.h"

#define CONTROL_MAX_CLIENTS 16
#define CONTROL_MAX_OUT	    (256u << 10)

struct control;

/** control_open() - listen at @path, mode 0600; a dead socket is replaced
 * @handle:	answers a request: new reference, and in @watch whether events go there
 * too
 * @why:	message on failure
 *
 * Return: 0, -ENAMETOOLONG, -EADDRINUSE, -EEXIST, -errno
 */
int control_open(struct loop *l, const char *path,
		 json_t *(*handle)(void *arg, const struct control_request *req,
				   bool *watch),
		 void *arg, struct control **out, char *why, size_t why_len);

/**
 * control_event() - to all that watch; takes the reference
 * @last:	they watch no longer
 */
void control_event(struct control *c, json_t *event, bool last);

/** control_watched() - does anyone watch? */
bool control_watched(const struct control *c);

/** control_close() - let clients read what they were told, for at most @linger_ms; remove
 * the socket. NULL is fine */
void control_close(struct control *c, int linger_ms);

#endif
