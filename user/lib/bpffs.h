/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bpffs: where pinned maps live.
 *
 * `ghostnic attach` pins the maps of interface IF under BPFFS/ghostnic/IF and
 * ghostnicd opens them there, so both ask this module for BPFFS. Pins are named
 * by interface, not by network namespace: two namespaces that have an interface
 * of the same name need a bpffs each (GHOSTNIC_BPFFS).
 *
 * No state but the environment; any thread, before others change it.
 */
#ifndef GN_BPFFS_H
#define GN_BPFFS_H

#include <stdbool.h>
#include <stddef.h>

#define BPFFS_ENV    "GHOSTNIC_BPFFS"
#define BPFFS_SYSTEM "/sys/fs/bpf"
#define BPFFS_OWN    "/run/ghostnic/bpf"
#define BPFFS_MAX    256 /* bytes of a bpffs path with its NUL */

/* Names of the pins of one interface. */
#define BPFFS_XSKS	"xsks"
#define BPFFS_INSTANCES "instances"
#define BPFFS_COUNTERS	"counters"
#define BPFFS_CONFIG	"config"
#define BPFFS_STREAM	"stream"

/**
 * bpffs_is() - is @path a directory on a mounted bpffs?
 */
bool bpffs_is(const char *path);

/**
 * bpffs_dir() - find the bpffs to use, mounting one if there is none
 * @override:	option --bpffs or the like; NULL or "": none was given
 * @buf:	filled with the directory, without a slash at its end
 * @size:	of @buf, bytes; BPFFS_MAX always suffices
 *
 * In this order: @override; environment GHOSTNIC_BPFFS; BPFFS_OWN if pins of an
 * earlier attach are there; BPFFS_SYSTEM if it is a bpffs; else a new bpffs is
 * mounted on BPFFS_OWN, mode 0700. A place that was named (the first two) is
 * taken or refused, never replaced by another.
 *
 * Return: 0; -EINVAL: the place named is not on a bpffs; -ENAMETOOLONG; or the
 * -errno of mkdir() or mount(). bpffs_remedy() says what to do about it.
 */
int bpffs_dir(const char *override, char *buf, size_t size);

/**
 * bpffs_remedy() - one line that says what a failed bpffs_dir() needs
 * @err:	its return value
 */
const char *bpffs_remedy(int err);

/**
 * bpffs_pin_path() - BPFFS/ghostnic/IF[/MAP]
 * @buf:	filled
 * @size:	of @buf, bytes
 * @bpffs:	from bpffs_dir()
 * @ifname:	interface name; one that is no file name is refused
 * @map:	BPFFS_XSKS and so on; NULL: the directory
 *
 * Return: 0, -EINVAL (name of the interface), -ENAMETOOLONG
 */
int bpffs_pin_path(char *buf, size_t size, const char *bpffs, const char *ifname,
		   const char *map);

#endif
