/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * dir: the directory of regions and nodes, behind an ops table: a file under flock (one
 * machine, no set-up) or etcd (many).
 *
 * It stores per region: name, bus range, size, size of a page, owner node and its address,
 * epoch, key ids, mode; never the state of a page. The epoch of a region starts at 1 and
 * rises by one whenever its owner changes or it is revoked: messages that carry another are
 * refused, so an owner that was cut off and comes back is fenced. Owners hold a lease:
 * they renew it every third of its length; an owner that could not renew for the whole
 * length stops serving by itself, before anybody else may take the region.
 *
 * Calls may block up to the timeout given to dir_open() (or, for a file that others
 * change, a quarter of the lease, at most 5 s); the agent makes them when regions come,
 * go and move, and from a thread of their own for renewals; never on a fault. Any thread
 * may call; one waits for the other.
 */
#ifndef GM_DIR_H
#define GM_DIR_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "../bus.h"
#include "../net.h"

struct dir_region {
	char name[GM_NAME_MAX];
	uint64_t bus;
	uint64_t size; /* bytes */
	unsigned int page_shift;
	char node[GM_NAME_MAX];
	char addr[NET_ADDR_MAX]; /* of the owner's agent */
	uint32_t epoch;
	uint32_t key_id;      /* key to read and write */
	uint32_t read_key_id; /* key to read; 0: there is none */
	uint32_t lease_ms;
};

/** dir_page() - index of the page that has @bus */
static inline uint64_t dir_page(const struct dir_region *r, uint64_t bus)
{
	return (bus - r->bus) >> r->page_shift;
}

/** dir_page_bus() - where @page begins */
static inline uint64_t dir_page_bus(const struct dir_region *r, uint64_t page)
{
	return r->bus + (page << r->page_shift);
}

static inline uint32_t dir_page_size(const struct dir_region *r)
{
	return 1u << r->page_shift;
}

/** dir_batch() - pages in a message that may have @small of the smallest */
static inline uint32_t dir_batch(const struct dir_region *r, uint32_t small)
{
	return gm_pages(small, r->page_shift);
}

struct dir;

struct dir_ops {
	const char *scheme; /* "file", "etcd" */
	bool free_reads;    /* find, list and node wait for no call that is under way */
	int (*open)(struct dir *d, const char *rest, int timeout_ms);
	void (*close)(struct dir *d);
	/* All as the functions below. */
	int (*add)(struct dir *d, struct dir_region *r);
	int (*find)(struct dir *d, const char *name, uint64_t bus,
		    struct dir_region *out);
	int (*list)(struct dir *d, int (*each)(void *arg, const struct dir_region *r),
		    void *arg);
	int (*update)(struct dir *d, const struct dir_region *r, uint32_t old_epoch);
	int (*remove)(struct dir *d, const char *name, uint32_t epoch);
	int (*renew)(struct dir *d, const char *node);
	int (*node)(struct dir *d, const char *node, char addr[NET_ADDR_MAX]);
	int (*watch_fd)(struct dir *d);
	int (*watch_next)(struct dir *d, struct dir_region *out);
};

struct dir {
	const struct dir_ops *ops;
	void *priv;
	int timeout_ms;
	uint32_t lease_ms;
	pthread_mutex_t lock;	 /* one call at a time */
	char addr[NET_ADDR_MAX]; /* dir_announce() */
};

/**
 * dir_open() - Return: 0, -EINVAL: no such scheme, -errno
 * @url:	"file:/run/ghostmem/dir.json", "etcd:http://10.0.0.9:2379/prefix"
 */
int dir_open(const char *url, uint32_t lease_ms, int timeout_ms, struct dir **out);
void dir_close(struct dir *d);

/** dir_add() - register a region: name, size, page_shift, node, addr, key ids are given;
 * bus (unless given) and epoch are filled in. One transaction. Return: 0, -EEXIST: name or
 * range is taken (by an owner whose lease lives), -ENOSPC, -ETIMEDOUT, -errno */
int dir_add(struct dir *d, struct dir_region *r);

/** dir_find() - by @name, or if that is NULL by any address @bus within. Return: 0,
 * -ENOENT, -ETIMEDOUT, -errno */
int dir_find(struct dir *d, const char *name, uint64_t bus, struct dir_region *out);

/** dir_list() - each region; a non-zero return of @each ends it and is returned */
int dir_list(struct dir *d, int (*each)(void *arg, const struct dir_region *r),
	     void *arg);

/** dir_update() - replace what is stored, if its epoch still is @old_epoch (owner and
 * address of a region that moved, a new key). Return: 0, -ESTALE, -ENOENT, -ETIMEDOUT */
int dir_update(struct dir *d, const struct dir_region *r, uint32_t old_epoch);

/** dir_remove() - Return: 0, -ESTALE: another epoch, -ENOENT */
int dir_remove(struct dir *d, const char *name, uint32_t epoch);

/** dir_renew() - @node is alive: its lease starts anew. Return: 0, -ESTALE: it had ended,
 * -ETIMEDOUT */
int dir_renew(struct dir *d, const char *node);

/** dir_announce() - this node is reached at @addr: stored with its lease, from the next
 * dir_renew() or dir_add() on */
void dir_announce(struct dir *d, const char *addr);

/** dir_node() - where @node is reached, which has announced it and whose lease runs.
 * Return: 0, -ENOENT, -ETIMEDOUT, -errno */
int dir_node(struct dir *d, const char *node, char addr[NET_ADDR_MAX]);

/** dir_watch_fd() - becomes readable when regions changed; -ENOTSUP: poll dir_find() */
int dir_watch_fd(struct dir *d);

/** dir_watch_next() - a region that changed (size 0: removed). Return: 1, 0: none, -errno
 */
int dir_watch_next(struct dir *d, struct dir_region *out);

extern const struct dir_ops dir_file_ops, dir_etcd_ops;

#endif
