/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * snapshot: all counters at one moment, the XDP program's and the daemon's.
 *
 * The program's come from the pins and need no daemon; the daemon's come from its
 * control socket. One JSON object holds both:
 *
 *	{"time_s", "daemon": null | {"version", "abi", "uptime_s"},
 *	 "interfaces": [{"name", "xdp": null | {COUNTER: N}, "queues": [...],
 *	                 "instances": [...]}]}
 *
 * queues and instances are as the daemon sends them, metrics.c.
 */
#ifndef GN_LOADER_SNAPSHOT_H
#define GN_LOADER_SNAPSHOT_H

#include <jansson.h>
#include <stdint.h>

#include "cmd.h"
#include "../user/lib/bpffs.h"

/**
 * snapshot_xdp() - sum of the per-CPU counters of one interface
 * Return: new object, NULL: no pins or not readable
 */
json_t *snapshot_xdp(const char *bpffs, const char *ifname);

/**
 * snapshot_take() - everything
 * @o:		options: where to look
 * @ifname:	NULL: all interfaces
 * @out:	new reference, set on success
 *
 * Return: an exit code; EXIT_ABSENT has been said: neither pins nor daemon
 */
int snapshot_take(const struct opts *o, const char *ifname, json_t **out);

/* One counter out of a snapshot; the strings belong to the snapshot. */
struct sample {
	const char *iface;
	const char *owner; /* "xdp", "queue 0 worker", "instance vm1" */
	const char *name;
	const char *help; /* "" if unknown */
	int64_t value;
	int64_t before; /* its value in the snapshot before; 0: not there */
};

/**
 * snapshot_named() - the object with this name in an array of a snapshot
 * @at:		where to look first, and set to the place after it: who asks for one after
 *		the other, in the array's order or nearly, has each at once
 *
 * Return: borrowed; NULL: not there
 */
json_t *snapshot_named(const json_t *list, const char *name, size_t *at);

/**
 * snapshot_each() - call @fn for every counter of @now, in a fixed order
 * @before:	an earlier snapshot, for sample.before, or NULL
 *
 * The strings of struct sample live until @fn returns.
 */
void snapshot_each(const json_t *before, const json_t *now,
		   void (*fn)(const struct sample *s, void *arg), void *arg);

/** snapshot_rate() - growth a second; a counter that went back was restarted */
double snapshot_rate(int64_t before, int64_t after, double seconds);

/** snapshot_seconds() - time between two snapshots, above 0 */
double snapshot_seconds(const json_t *before, const json_t *after);

#endif
