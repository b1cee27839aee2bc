/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * agent: a node's ghostmemd: applications on a UNIX socket (local.h), regions whose home
 * is here (home.h), regions of other nodes (peer.h), the directory (dir.h), all on one
 * thread and one loop.
 */
#ifndef GM_AGENT_H
#define GM_AGENT_H

#include <stdbool.h>
#include <stdint.h>

#include "../../lib/tls.h"

struct agent;

struct agent_config {
	const char *node;      /* name of this node */
	const char *listen;    /* for other nodes, net.h */
	const char *advertise; /* as they reach it; NULL: as listen */
	const char *local;     /* UNIX socket for applications */
	const char *directory; /* dir.h */
	uint32_t lease_ms;
	unsigned int busy_poll_us; /* 0: sleep at once */
	bool no_shortcut;	   /* no UNIX sockets between agents of one host */
	struct tls_conf tls;	   /* between nodes */
};

/** agent_create() - Return: 0, -EADDRINUSE, -errno; what failed was logged */
int agent_create(const struct agent_config *c, struct agent **out);

/** agent_run() - until SIGTERM or SIGINT. Return: 0, -errno */
int agent_run(struct agent *a);
void agent_destroy(struct agent *a);

#endif
