/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * serve: a machine from its beginning, or its arrival, to its end: control socket,
 * signals, console, migration.
 *
 * serve_run() and serve_recv() return when the guest has ended, has left for another
 * host, or was told to quit. One call at a time in a process; the calling thread runs the
 * loop, and one more exists while a migration comes or goes.
 */
#ifndef VMM_SERVE_H
#define VMM_SERVE_H

#include <jansson.h>

#include "../stream/chan.h"
#include "vm.h"

enum serve_end {
	SERVE_ENDED,	/* the guest by itself */
	SERVE_QUIT,	/* an order or a signal */
	SERVE_MIGRATED, /* it runs elsewhere */
	SERVE_LOST,	/* it runs elsewhere, and a write was lost */
	SERVE_FAILED,	/* why says what */
	SERVE_CANNOT,	/* this kernel or machine cannot */
	SERVE_BAD_CONF, /* the user's mistake */
};

struct serve_conf {
	struct vm_conf vm;   /* recv: accel "" and memory 0: as the source says */
	const char *control; /* socket, NULL: none */
	const char *console; /* stdio, none, file:PATH */
	bool paused;	     /* do not start it */
	/* recv: */
	const char *listen;
	struct chan_tls tls;
	unsigned int max_failures;
	/* What happens, for the user: new reference. May be NULL */
	void (*event)(json_t *event);
};

enum serve_end serve_run(const struct serve_conf *conf, char *why, size_t why_len);
enum serve_end serve_recv(const struct serve_conf *conf, char *why, size_t why_len);

#endif
