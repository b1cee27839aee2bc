/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * rx: from the RX ring to the ports, one burst at a time. Worker only.
 */
#ifndef GN_RX_H
#define GN_RX_H

#include "worker.h"

/**
 * rx_check() - does the metadata in front of a frame make sense?
 * @meta:	as found in the umem; written by XDP, yet nothing in it is believed
 * @len:	bytes of the frame
 *
 * No field that later code uses as an offset or length leaves the frame.
 * Return: true if @meta may go into an mbuf
 */
bool rx_check(const struct gn_meta *meta, uint32_t len);

/**
 * rx_burst() - take up to WORKER_BURST buffers, aggregate, deliver, refill
 * @now_ns:	CLOCK_MONOTONIC
 *
 * Return: number of buffers taken
 */
unsigned int rx_burst(struct worker *w, uint64_t now_ns);

/** rx_flush() - deliver chains whose time is up; @now_ns UINT64_MAX: all */
void rx_flush(struct worker *w, uint64_t now_ns);

#endif
