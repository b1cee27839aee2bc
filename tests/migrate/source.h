/* SPDX-License-Identifier: BSD-2-Clause */
/* source: a machine and the migration it leaves with, for tests of how that goes. */
#ifndef GN_TEST_SOURCE_H
#define GN_TEST_SOURCE_H

#include "machine.h"

#define MACHINE_CONFIG "{\"machine\":\"test\"}" /* of struct machine, for the stream */

extern const struct machine_conf machine_small; /* two blocks with holes, two vCPUs */
extern const struct precopy_conf precopy_usual; /* one stream, 300 ms, raise to 2000 */

struct source {
	struct machine *m;
	struct precopy *p; /* the migration that runs */
	struct precopy_status st;
};

void source_start(struct source *s, const struct machine_conf *mc);

/** source_make() - a migration to @uri that is not begun yet, with the caller's ops */
void source_make(struct source *s, const struct precopy_conf *pc, const char *uri,
		 const struct precopy_vm_ops *ops, void *vm);

/** source_run() - all of it; then s->st is its status. Return: as precopy_run() */
int source_run(struct source *s);

/** source_send() - make and run one with the machine's own ops */
int source_send(struct source *s, const struct precopy_conf *pc, const char *uri);

/** source_runs_on() - assert: it failed, and the guest goes on as if nothing had been */
void source_runs_on(struct source *s);

/** source_arrives() - send to @t, and assert that all of it is there */
void source_arrives(struct source *s, struct twin *t, const struct precopy_conf *pc);

#endif
