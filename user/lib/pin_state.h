/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * pin_state: whose the pins of a name are.
 *
 * BPFFS/ghostnic/IF/state is an array map with one struct pin_state: which interface
 * `ghostnic attach` attached to, and what it changed there. A name says neither: an interface
 * is renamed, or made anew, and every network namespace has its own. So who takes pins by a name
 * looks here first.
 *
 * No state of its own; any thread.
 */
#ifndef GN_PIN_STATE_H
#define GN_PIN_STATE_H

#include <stdbool.h>
#include <stdint.h>

#define PIN_STATE     "state"
#define PIN_STATE_ABI 1

struct pin_state {
	uint32_t abi; /* PIN_STATE_ABI */
	uint32_t ifindex;
	uint64_t netns;	       /* pin_netns() */
	uint32_t features_off; /* mask of enum link_feature that attach switched off */
	uint32_t pad;
};

/** pin_netns() - identity of this network namespace, 0 if unknown */
uint64_t pin_netns(void);

/** pin_state_read() - @fd: the map. Return: 0, -EPROTO (another version's), -errno */
int pin_state_read(int fd, struct pin_state *st);

/** pin_state_foreign() - are the pins another network namespace's? What is unknown is not */
bool pin_state_foreign(const struct pin_state *st);

#endif
