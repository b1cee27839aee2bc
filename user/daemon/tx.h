/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tx: from an instance to another one on this host, or to the wire. Worker only.
 */
#ifndef GN_TX_H
#define GN_TX_H

#include "worker.h"

/**
 * tx_instance() - forward up to one burst of frames of @in
 *
 * Unicast to a local instance of the same VLAN goes to its port with offloads kept, if
 * they agree with the frame; broadcast and multicast go to all of them and to the wire;
 * the rest goes to the wire, segmented and checksummed. When the instance has sent what
 * its rate allows, its queue is not looked at until it may send again.
 *
 * Return: number of frames taken, -errno: the port is broken
 */
int tx_instance(struct worker *w, struct instance *in);

/**
 * tx_flood() - a frame to every instance of a VLAN
 * @vlan:	VLAN identifier, 0: untagged
 * @from:	sender, which is left out; NULL: the wire
 * @f:		frame, untagged; borrowed
 *
 * tx_settle() is due after the burst.
 */
void tx_flood(struct worker *w, uint16_t vlan, const struct instance *from,
	      const struct gso_frame *f);

/** tx_settle() - end of a burst: tell the instances of what they were given */
void tx_settle(struct worker *w);

#endif
