/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * still: a daemon at rest, for tests of what looks at one from outside. Its interface,
 * workers, flows and instances are the real structs; it has no socket, no thread and
 * no pin, so nothing moves and no right is needed.
 */
#ifndef GN_TEST_STILL_H
#define GN_TEST_STILL_H

#include "../../user/daemon/daemon.h"

#define STILL_QUEUES 2

struct still {
	struct daemon_conf conf;
	struct daemon d;
	struct iface iface;
	struct gn_config config;
	struct worker worker[STILL_QUEUES];
	struct worker *workers[STILL_QUEUES];
	uint32_t ring; /* 0: pointers and flags of rings without entries */
};

/** still_init() - interface @name with STILL_QUEUES queues, no instance */
void still_init(struct still *s, const char *name);

/** still_add() - an instance in slot @id, by conf_parse_instance()'s @spec */
struct instance *still_add(struct still *s, const char *spec, uint16_t id);

/** still_flow() - flow number @n of worker @q, IPv4 TCP 10.0.0.1:@n > 10.0.0.2:80 */
struct flow *still_flow(struct still *s, unsigned int q, unsigned int n,
			uint16_t instance, uint64_t last_ns);

/** still_clear() - remove all instances */
void still_clear(struct still *s);

void still_fini(struct still *s);

#endif
