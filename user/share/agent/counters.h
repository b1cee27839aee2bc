/* SPDX-License-Identifier: BSD-2-Clause */
/* counters: what an agent counts; `ghostmem stat` shows them by these names. */
#ifndef GM_COUNTERS_H
#define GM_COUNTERS_H

#include <stdint.h>

#define GM_COUNTERS(X)                                                                   \
	X(faults)	/* of this node's applications */                                \
	X(faults_home)	/* of these: region's home is here */                            \
	X(faults_local) /* of these: page was here */                                    \
	X(pages_in)	/* pages received by grants */                                   \
	X(prefetched)	/* of these: unasked */                                          \
	X(streamed)	/* pages received on the bulk connection */                      \
	X(voided)	/* of these: taken back or here already, thrown away */          \
	X(upgrades)	/* grants to write without bytes */                              \
	X(inv_in)	/* pages taken back from us */                                   \
	X(poisoned)	/* faults answered by SIGBUS */                                  \
	X(reconnects)                                                                    \
	X(owners_lost)                                                                   \
	X(gets)                                                                          \
	X(puts)                                                                          \
	X(atomics)                                                                       \
	X(grants_read)                                                                   \
	X(grants_write)                                                                  \
	X(inv_out)                                                                       \
	X(pages_lost)                                                                    \
	X(slots_dead)                                                                    \
	X(moves_out) /* regions that went to another node */                             \
	X(moves_in)                                                                      \
	X(moves_failed)	  /* and stayed */                                               \
	X(moves_put_off)  /* not begun yet: the importer there is not ready */           \
	X(moves_followed) /* an importer's new owner */                                  \
	X(move_pages_out)                                                                \
	X(move_pages_in)                                                                 \
	X(requests_held) /* while their region stood still */                            \
	X(moved_told)	 /* requests for a region that was here once */                  \
	X(bad_proto)	 /* malformed messages; connection closed */                     \
	X(bad_version)                                                                   \
	X(bad_replay) /* session or sequence number */                                   \
	X(bad_range)  /* address out of bounds */                                        \
	X(bad_key)                                                                       \
	X(bad_epoch)                                                                     \
	X(bad_access) /* write by a reader */                                            \
	X(bad_tls)    /* refused, or refused us: credentials, or no TLS at all */

struct counters {
#define GM_COUNTER_FIELD(name) uint64_t name;
	GM_COUNTERS(GM_COUNTER_FIELD)
#undef GM_COUNTER_FIELD
};

/* One set a process; the agent's thread. */
extern struct counters counters;

#endif
