/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * xdp: our program on an interface, by libxdp.
 *
 * libxdp puts a dispatcher on the interface, to which programs attach side by
 * side, and keeps their links pinned under BPFFS/xdp. A kernel that refuses
 * dispatchers gets the program alone. Callers hold pin_lock() to change anything.
 */
#ifndef GN_LOADER_XDP_H
#define GN_LOADER_XDP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <xdp/libxdp.h>

#include "../bpf/offload_shared.h"
#include "pin.h"

#define XDP_PROG_NAME  "ghostnic"
#define FRAME_OVERHEAD 22 /* bytes: Ethernet header and two VLAN tags */

enum xdp_found {
	XDP_FOUND_NONE,	   /* no program, or others that we can join */
	XDP_FOUND_OURS,	   /* attached */
	XDP_FOUND_FOREIGN, /* a program that libxdp did not attach */
	XDP_FOUND_ORPHAN,  /* a dispatcher to which no program is attached */
	XDP_FOUND_HIDDEN,  /* a dispatcher whose pins are on another bpffs */
};

struct xdp_state {
	enum xdp_found found;
	enum xdp_attach_mode mode; /* of whatever is attached; UNSPEC: nothing */
	bool dispatcher;
	uint32_t main_id;    /* program on the interface */
	uint32_t prog_id;    /* ours */
	char name[32];	     /* of the program on the interface */
	unsigned int others; /* programs beside ours */
	struct pin_ids maps; /* that our program uses */
};

/** xdp_init() - @bpffs for libxdp too; @verbose: libraries speak on stderr */
void xdp_init(const char *bpffs, bool verbose);

/** xdp_message() - the kernel's last message, "" if there was none */
const char *xdp_message(void);

/** xdp_inspect() - what is on @ifindex? Return: 0, -errno */
int xdp_inspect(unsigned int ifindex, struct xdp_state *st);

struct xdp_attach_req {
	unsigned int ifindex;
	const char *ifname;
	const char *bpffs;
	enum xdp_attach_mode mode;
	uint32_t rx_queues;	 /* 0: unknown */
	bool frags;		 /* the kernel knows multi-buffer frames */
	struct gn_config config; /* flags by mode are added */
};

/**
 * xdp_attach() - create or reuse the pinned maps, load, attach
 *
 * The directory of pins exists. The maps are pinned and "config" is filled before
 * the program runs, so that attaching is the step that completes it.
 *
 * Return: 0, -errno
 */
int xdp_attach(const struct xdp_attach_req *req);

/** xdp_detach() - take ours off, leave others. Return: 0, -ENOENT, -errno */
int xdp_detach(unsigned int ifindex);

/** xdp_remove_orphan() - XDP_FOUND_ORPHAN. Return: 0, -errno */
int xdp_remove_orphan(unsigned int ifindex, const struct xdp_state *st);

/** xdp_empty_xsks() - no frame reaches a socket any more; @fd: XSKMAP */
void xdp_empty_xsks(int fd);

/**
 * xdp_clean_leftovers() - dispatchers of libxdp that a crash left unattached
 * @bpffs:	directory
 * @ids:	maps of our pins: a dispatcher that holds a program with one of them is
 * ours
 * @ifindex:	interface of these pins, 0: it is gone
 *
 * Return: number removed
 */
int xdp_clean_leftovers(const char *bpffs, const struct pin_ids *ids,
			unsigned int ifindex);

/** xdp_maps_used() - is a program loaded that uses one of them? Yes, if that cannot be found
 * out */
bool xdp_maps_used(const struct pin_ids *ids);

/** xdp_mode_name() - "native", "generic", "offload" */
const char *xdp_mode_name(enum xdp_attach_mode mode);

/** xdp_prog_name() - of program @id into @buf, "?" if unknown */
void xdp_prog_name(uint32_t id, char *buf, size_t size);

#endif
