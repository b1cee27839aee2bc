/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * owner: whose pins are those of a name?
 *
 * Pins are found by an interface's name, but names change hands: an interface is renamed, and
 * another one gets its name; each network namespace has names of its own, and a bpffs may
 * be seen in several. What attach and detach would do to pins by name alone could end an
 * interface that is served. "state" (pin_state.h) and the maps that the program on an interface
 * uses say whose they are. Callers hold pin_lock().
 */
#ifndef GN_LOADER_OWNER_H
#define GN_LOADER_OWNER_H

#include "link.h"
#include "xdp.h"

/** owner_whole() - the program on the interface and the pins belong together */
bool owner_whole(const struct xdp_state *x, const struct pin_ids *pins);

/**
 * owner_claim() - give the pins of an interface the name that it has now
 * @l:		the interface; it may have been renamed, or moved to another namespace
 * @x:		what is on it
 *
 * Pins of another interface that had that name get the old one, so nothing is lost when two
 * have swapped theirs. A note says so. Return: 0, -errno
 */
int owner_claim(const char *bpffs, const struct link_info *l, const struct xdp_state *x);

/**
 * owner_other() - do the pins of @ifname serve another interface than the one of that name?
 * @l:		the interface, for which owner_claim() was called, NULL: there is none
 * @why:	set if so: whose they are, and what to do; @size bytes
 *
 * Pins that serve none any more, of whatever interface, are nobody's.
 */
bool owner_other(const char *bpffs, const char *ifname, const struct link_info *l,
		 char *why, size_t size);

#endif
