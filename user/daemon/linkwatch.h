/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * linkwatch: says when an interface goes away, down, up or changes its MTU.
 *
 * An AF_XDP socket whose interface is deleted raises no event: it just never
 * receives again. rtnetlink(7) does tell; what it tells is logged with the
 * remedy. Control thread.
 */
#ifndef GN_LINKWATCH_H
#define GN_LINKWATCH_H

#include "daemon.h"

struct linkwatch;

/**
 * linkwatch_open() - subscribe to link messages on @d's loop
 * @d:		its interfaces are the ones that are talked about
 * @out:	set on success; linkwatch_close() frees it
 *
 * Return: 0, -ENOMEM, or socket()'s and bind()'s -errno
 */
int linkwatch_open(struct daemon *d, struct linkwatch **out);

/** linkwatch_close() - NULL is fine */
void linkwatch_close(struct linkwatch *w);

#endif
