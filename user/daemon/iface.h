/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * iface: one network interface with the XDP program attached, its workers and
 * its instances.
 *
 * `ghostnic attach` pins the maps under BPFFS/ghostnic/IF; the daemon opens
 * them, puts its sockets into "xsks" and its instances into "instances". All of
 * it vanishes with the daemon but for stale instance entries, which the next
 * start replaces; without sockets the program gives every frame to the host.
 *
 * Control thread.
 */
#ifndef GN_IFACE_H
#define GN_IFACE_H

#include "worker.h"

enum link_state { LINK_UNKNOWN, LINK_UP, LINK_DOWN, LINK_GONE };

struct iface {
	char name[IFNAMSIZ];
	unsigned int ifindex;
	uint32_t mtu;	      /* bytes, when the daemon started */
	uint32_t mtu_seen;    /* the last one rtnetlink told, 0: none */
	enum link_state link; /* as rtnetlink told it */
	bool local_link;      /* veth: frames never cross a wire */
	struct loop *loop;
	int map_xsks, map_instances; /* pinned maps, opened; -1 */
	struct gn_config *config;    /* the program's, mapped; NULL before it is open */
	void *streams;		     /* struct gn_stream [nstreams] mapped, or NULL */
	uint32_t nstreams;
	int flood_fd;		/* see flood.h */
	struct worker **worker; /* [nworkers] */
	unsigned int nworkers;
	unsigned int nreceiving; /* of them: the sockets that we put into map_xsks */
	struct instance *instance[GN_MAX_INSTANCES]; /* by slot */
	uint8_t generation[GN_MAX_INSTANCES];
};

/**
 * iface_open() - open the pins, create workers and sockets
 * @conf:	name and number of queues
 * @d:		poll mode, checksum mode, chunks, bpffs
 * @loop:	for the ports; not owned
 * @out:	set on success; iface_close() frees it
 *
 * Return: 0 or -errno, logged with the remedy ("run: ghostnic attach IF")
 */
int iface_open(const struct iface_conf *conf, const struct daemon_conf *d,
	       struct loop *loop, struct iface **out);

/** iface_start() - start the threads, then let frames in (XSKMAP). Return: 0, -errno */
int iface_start(struct iface *i);

/** iface_stop() - give frames to the host again, end the threads; counters stay readable
 */
void iface_stop(struct iface *i);

/** iface_close() - iface_stop(), then ports and sockets; frees; NULL is fine */
void iface_close(struct iface *i);

/**
 * iface_add_instance() - open its port, tell the workers, then XDP
 * @conf:	its name, address and port are no other instance's
 * @err:	message, @errlen bytes
 *
 * Return: 0, -ENOSPC, or the port's -errno
 */
int iface_add_instance(struct iface *i, const struct instance_conf *conf, char *err,
		       size_t errlen);

/** iface_tell_link() - the link of @i changed: the ports of its instances learn it */
void iface_tell_link(struct iface *i);

/** iface_del_instance() - reverse order. Return: 0, -ENOENT */
int iface_del_instance(struct iface *i, const char *name);

/** iface_find_instance() - by name, or NULL */
struct instance *iface_find_instance(struct iface *i, const char *name);

#endif
