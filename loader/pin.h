/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * pin: BPFFS/ghostnic/IF, the directory of one interface's pins.
 *
 * Besides the program's maps it holds "state" (pin_state.h), a map of our own: whose
 * pins they are, and what attach changed on the interface. A pinned map and
 * not a file in /run, because it then lives exactly as long as the pins it
 * belongs to, in the same bpffs when namespaces have one each, and is gone after a
 * reboot, as the changes are.
 *
 * Order, so that a crash at any point leaves something that a later call
 * recognises: attach pins "state" first, then changes the interface, then pins the
 * maps, then attaches. Pins whose maps the program on the interface does not use
 * are stale. Removal goes backwards, "state" last.
 */
#ifndef GN_LOADER_PIN_H
#define GN_LOADER_PIN_H

#include <stdbool.h>
#include <stdint.h>

#include "../user/lib/bpffs.h"
#include "../user/lib/pin_state.h"

/* Which maps are pinned, by kernel identifier; 0: not pinned. */
struct pin_ids {
	uint32_t xsks, instances, counters, config, stream;
};

/**
 * pin_lock() - one attach or detach at a time on this bpffs
 * @bpffs:	directory
 * @fd:		set on success; close() unlocks, as does death
 *
 * Return: 0, -errno
 */
int pin_lock(const char *bpffs, int *fd);

/** pin_exists() - is there a directory for @ifname, also an empty one? */
bool pin_exists(const char *bpffs, const char *ifname);

/** pin_create() - make the directory and pin @st. Return: 0, -EEXIST, -errno */
int pin_create(const char *bpffs, const char *ifname, const struct pin_state *st);

/** pin_read_state() - Return: 0, -ENOENT, -EPROTO (another version's), -errno */
int pin_read_state(const char *bpffs, const char *ifname, struct pin_state *st);

/** pin_write_state() - into the pins that are there. Return: 0, -ENOENT, -errno */
int pin_write_state(const char *bpffs, const char *ifname, const struct pin_state *st);

/** pin_open() - descriptor of a pinned map. Return: fd, -ENOENT, -errno */
int pin_open(const char *bpffs, const char *ifname, const char *map);

/** pin_read_ids() - never fails: what cannot be opened counts as not pinned */
void pin_read_ids(const char *bpffs, const char *ifname, struct pin_ids *ids);

/** pin_complete() - all of the program's maps are pinned */
bool pin_complete(const struct pin_ids *ids);

/** pin_remove() - unlink everything; nothing there is success. Return: 0, -errno */
int pin_remove(const char *bpffs, const char *ifname);

/**
 * pin_rename() - the pins of @from are those of @to now, and what was there @from's
 * Return: 0, -errno
 */
int pin_rename(const char *bpffs, const char *from, const char *to);

/**
 * pin_list() - names of the interfaces that have pins
 * @names:	set to a NULL-terminated array, sorted; pin_list_free() frees it
 *
 * Return: number of names, -ENOMEM
 */
int pin_list(const char *bpffs, char ***names);
void pin_list_free(char **names);

#endif
