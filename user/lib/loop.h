/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * loop: an event loop on one thread.
 *
 * Whoever has a descriptor that becomes readable on that thread registers it here: in
 * ghostnicd signals, the control socket and the message sockets of vhost-user ports, all
 * on its control thread; in ghostmemd everything. Callbacks may add and remove watches,
 * their own included.
 */
#ifndef GN_LOOP_H
#define GN_LOOP_H

#include <stdbool.h>
#include <stdint.h>

struct loop;
struct loop_watch;

/** loop_create() - Return: 0, -errno; loop_destroy() frees it */
int loop_create(struct loop **out);

/** loop_destroy() - forget all watches, free; their descriptors stay open. NULL is fine
 */
void loop_destroy(struct loop *l);

/**
 * loop_watch() - call @ready(@arg, events) whenever @fd has @events
 * @l:		loop
 * @fd:		descriptor; not owned
 * @events:	EPOLLIN, EPOLLOUT; EPOLLHUP and EPOLLERR come unasked
 * @ready:	called on the loop's thread; must not block
 * @arg:	passed on
 * @out:	handle for loop_unwatch()
 *
 * Return: 0, -ENOMEM, or epoll_ctl()'s -errno
 */
int loop_watch(struct loop *l, int fd, uint32_t events,
	       void (*ready)(void *arg, uint32_t events), void *arg,
	       struct loop_watch **out);

/** loop_unwatch() - @ready is not called again; before closing the descriptor. NULL is
 * fine */
void loop_unwatch(struct loop *l, struct loop_watch *w);

/** loop_pause() - @w is not looked at for @ms milliseconds; hang-ups and errors still are */
void loop_pause(struct loop *l, struct loop_watch *w, unsigned int ms);

/** What loop_accept() waits, and whoever accepts by other means should, ms */
#define LOOP_ACCEPT_PAUSE_MS 200

/**
 * loop_accept() - who connects to the socket of @w? The descriptor is close-on-exec and
 * does not block
 * @what:	the socket, for messages
 *
 * Whoever cannot be accepted, as when no descriptor is left, waits in the socket's
 * backlog. That is a message, and a pause of @w, for the socket stays readable. Return:
 * descriptor, -errno: nobody
 */
int loop_accept(struct loop *l, struct loop_watch *w, const char *what);

/** loop_set_spin() - poll for @us microseconds after each event before sleeping; 0, as at
 * first: sleep at once. Others may have the CPU meanwhile */
void loop_set_spin(struct loop *l, unsigned int us);

/** loop_run() - serve until loop_stop(). Return: 0, -errno */
int loop_run(struct loop *l);

/** loop_stop() - from a callback: loop_run() returns after it */
void loop_stop(struct loop *l);

#endif
