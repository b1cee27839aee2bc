/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * metrics: every counter of the daemon, as JSON and as Prometheus text.
 *
 * Names come from the X-macros beside the counters, so a new one appears
 * everywhere by being declared. Control thread.
 */
#ifndef GN_METRICS_H
#define GN_METRICS_H

#include <jansson.h>

#include "daemon.h"

/** metrics_json() - all of it, by interface; new reference; NULL: out of memory */
json_t *metrics_json(const struct daemon *d);

/** metrics_instances() - all instances, each with "interface"; as above */
json_t *metrics_instances(const struct daemon *d);

/** metrics_text() - Prometheus exposition format 0.0.4; malloc()ed; NULL: out of memory
 */
char *metrics_text(const struct daemon *d);

/** metrics_log() - one line per queue and per instance, of counters that are not 0 */
void metrics_log(const struct daemon *d);

#endif
