/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * top: what two snapshots say about the time between them.
 *
 * Pure functions; cmd_top.c has the terminal and the clock.
 */
#ifndef GN_LOADER_TOP_H
#define GN_LOADER_TOP_H

#include <jansson.h>
#include <stdio.h>

/**
 * top_compute() - rates
 * @before, @now:	snapshots, snapshot.h
 *
 * Return: new object
 *	{"interval_s", "daemon", "instances": [{"name", "interface", "rx_pps", "rx_gbps",
 *	 "packets_per_super", "tx_pps", "tx_gbps", "drops_per_s"}],
 *	 "interfaces": [{"name", "seen_pps", "redirect_pps", "host_pps", "queues"}],
 *	 "drops": [{"where", "counter", "reason", "per_s", "total"}]}
 * where packets_per_super is wire packets in one delivered frame, 0: nothing came.
 */
json_t *top_compute(const json_t *before, const json_t *now);

/** top_render() - as text, for people */
void top_render(const json_t *rates, FILE *f);

#endif
