/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The other end of dpdk_gro: rte_vhost, a socket for each virtual machine. The caller's
 * thread sends; connections come and go in a thread of DPDK's.
 */
#ifndef GN_BENCH_DPDK_VHOST_H
#define GN_BENCH_DPDK_VHOST_H

#include <rte_mbuf.h>

#define VHOST_MAX 64 /* sockets */

/** vhost_add() - listen at @path; the first one is machine 0. Return: 0, -errno */
int vhost_add(const char *path);

/**
 * vhost_send() - deliver, and free
 * @m:		[@n] frames, parsed; those of several mbufs are super-packets of TCP over
 *		IPv4 whose segments had the length of the first one
 *
 * A frame belongs to the machine whose number is the last byte of its destination minus
 * that of @first: no lookup could be cheaper. What has no room in a ring is
 * dropped.
 */
void vhost_send(struct rte_mbuf **m, unsigned int n, uint8_t first);

/** vhost_idle() - to be called once a loop of the thread that sends */
void vhost_idle(void);

/** vhost_end() - close the sockets; vhost_send() is called no more */
void vhost_end(void);

/** vhost_dropped() - frames that had no room, or no machine */
uint64_t vhost_dropped(void);

#endif
