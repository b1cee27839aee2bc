/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * daemon: all interfaces of one ghostnicd, as the control thread sees them.
 */
#ifndef GN_DAEMON_H
#define GN_DAEMON_H

#include "iface.h"

struct daemon {
	struct daemon_conf *conf;
	struct loop *loop; /* control thread's; not owned */
	struct iface *iface[CONF_MAX_IFACES];
	unsigned int nifaces;
	uint64_t start_ns; /* CLOCK_MONOTONIC */
};

/** daemon_find_iface() - by name; NULL or "" with one interface: that one */
struct iface *daemon_find_iface(struct daemon *d, const char *name);

#endif
