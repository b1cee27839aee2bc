/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * flood: broadcast and multicast from the wire to every instance of a VLAN.
 *
 * XDP cannot both pass a frame and redirect it. It passes these to the host, and
 * a packet socket bound to the interface gets the kernel's clone of each. The same
 * socket holds the instances' unicast addresses and all-multicast in the NIC's
 * filter: both end with the socket, so a killed daemon leaves nothing behind.
 * packet(7).
 *
 * Opened by the control thread; read by worker 0 of the interface.
 */
#ifndef GN_FLOOD_H
#define GN_FLOOD_H

#include "worker.h"

/** flood_open() - Return: socket, or -errno */
int flood_open(unsigned int ifindex);

/** flood_set_mac() - let the NIC accept @mac (@on) or no longer. Return: 0, -errno */
int flood_set_mac(int fd, unsigned int ifindex, const uint8_t mac[6], bool on);

/** flood_receive() - worker: give up to one burst of frames to the instances */
void flood_receive(struct worker *w);

#endif
