/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libghostmem: memory shared between nodes.
 *
 * A process opens the agent of its node, exports or imports regions, and uses them by
 * plain loads and stores at ghostmem_addr(), which are sequentially consistent between
 * nodes (threads of one node share its page, and its processor's order), or by the calls
 * below, which go straight to the owner on a connection of the calling thread and are
 * ordered with loads and stores of the same thread.
 *
 * All calls return 0 or -errno; any thread may call. -EIO: the owner is gone or bytes
 * were lost; -ESTALE: the region was revoked; -ERANGE: beyond its end; -EPERM: read-only;
 * -EACCES: wrong key; -ENOBUFS: too few huge pages are free on this node; -EPROTO: no
 * agreement with the owner on TLS (the agent's log says why); -ENOKEY: this process cannot
 * read the credentials for it. A load or store that cannot be served gets SIGBUS, at the
 * latest a lease and one second after the owner was last heard of.
 */
#ifndef GHOSTMEM_H
#define GHOSTMEM_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ghostmem;
struct ghostmem_region;

/** ghostmem_open() - the agent at @agent_path; NULL: GHOSTMEM_AGENT or
 * /run/ghostmem/agent.sock */
int ghostmem_open(const char *agent_path, struct ghostmem **out);
void ghostmem_close(struct ghostmem *g);

struct ghostmem_export {
	const char *name; /* [A-Za-z0-9._-], to 63 characters */
	uint64_t size;	  /* bytes, whole pages */
	const void *key;  /* 1 to 64 bytes */
	size_t key_len;
	const void *read_key; /* for readers; NULL: none */
	size_t read_key_len;
	int memfd;  /* -1: a new one; else duplicated, and sealed against shrinking:
		       -EINVAL if it is too short, or cannot be (MFD_ALLOW_SEALING).
		       Other mappings of it bypass coherence, and lose what importers
		       write */
	void *addr; /* where to map; NULL: anywhere */
	/* Bytes of a page, in which memory comes and goes: 4096, or 2 MiB (huge pages, as
	 * many as the region has on each node that maps it); 0: as those of memfd, else
	 * 4096. @size and @addr are whole ones; memfd, if given, has just these: -EINVAL */
	uint64_t page_size;
};

/** ghostmem_export() - make a region whose home is this node, and map it */
int ghostmem_export(struct ghostmem *g, const struct ghostmem_export *e,
		    struct ghostmem_region **out);

#define GHOSTMEM_READ_ONLY 1
#define GHOSTMEM_NO_MAP	   2 /* get, put and atomics only */

struct ghostmem_import {
	const char *name; /* or */
	uint64_t bus;	  /* any address within */
	const void *key;
	size_t key_len;
	unsigned int flags; /* GHOSTMEM_READ_ONLY, GHOSTMEM_NO_MAP */
	void *addr;
};

/** ghostmem_import() - use a region of another node (or of this one) */
int ghostmem_import(struct ghostmem *g, const struct ghostmem_import *i,
		    struct ghostmem_region **out);

/** ghostmem_release() - unmap and forget. What was exported is served on, until it is
 * revoked (ghostmem(1)) or the agent ends */
void ghostmem_release(struct ghostmem_region *r);

void *ghostmem_addr(const struct ghostmem_region *r);
uint64_t ghostmem_size(const struct ghostmem_region *r);
uint64_t ghostmem_page_size(const struct ghostmem_region *r);
uint64_t ghostmem_bus(const struct ghostmem_region *r);

/* Done before they return. One whose connection is lost, because the owner's agent was
 * killed or the region moved, is made again as a whole. So a put may be done twice, the
 * second time over what somebody has stored there since, who had seen the first: for a
 * word that others answer by a store to it, as a flag that is taken back, use an atomic.
 */
int ghostmem_get(struct ghostmem_region *r, uint64_t off, void *buf, size_t len);
int ghostmem_put(struct ghostmem_region *r, uint64_t off, const void *buf, size_t len);

struct ghostmem_vec {
	uint64_t off;
	void *buf;
	size_t len;
};

/** ghostmem_getv(), ghostmem_putv() - all in flight at once */
int ghostmem_getv(struct ghostmem_region *r, const struct ghostmem_vec *v, size_t n);
int ghostmem_putv(struct ghostmem_region *r, const struct ghostmem_vec *v, size_t n);

/* Asynchronous: submitted by this call, finished by ghostmem_wait() of the same thread;
 * until then @buf and @a stay as they are. One whose connection is lost is made again by
 * that, or by ghostmem_fence(): perhaps after calls that were made later.
 */
struct ghostmem_async {
	uint64_t token;
	int status;
	int op; /* from here on: to make it again */
	struct ghostmem_vec v;
	struct ghostmem_async *next;
};
int ghostmem_get_async(struct ghostmem_region *r, uint64_t off, void *buf, size_t len,
		       struct ghostmem_async *a);
int ghostmem_put_async(struct ghostmem_region *r, uint64_t off, const void *buf,
		       size_t len, struct ghostmem_async *a);
int ghostmem_wait(struct ghostmem_region *r, struct ghostmem_async *a);

/* Atomics on naturally aligned 64-bit words; @old may be NULL. Done exactly once, also
 * when the connection or the owner's agent is lost and comes back; on -EIO nobody knows.
 */
int ghostmem_fetch_add(struct ghostmem_region *r, uint64_t off, uint64_t add,
		       uint64_t *old);
int ghostmem_swap(struct ghostmem_region *r, uint64_t off, uint64_t val, uint64_t *old);
int ghostmem_compare_swap(struct ghostmem_region *r, uint64_t off, uint64_t expected,
			  uint64_t desired, uint64_t *old);

/** ghostmem_fence() - all of this thread's earlier calls are done at the owner */
int ghostmem_fence(struct ghostmem_region *r);
/** ghostmem_prefetch() - bring pages here to read; returns when they were asked for */
int ghostmem_prefetch(struct ghostmem_region *r, uint64_t off, uint64_t len);
/** ghostmem_flush() - pages written here are at the owner when this returns */
int ghostmem_flush(struct ghostmem_region *r, uint64_t off, uint64_t len);

/* A lock and a barrier in shared words, zero at first; any node. */
int ghostmem_lock(struct ghostmem_region *r, uint64_t off, int timeout_ms);
int ghostmem_unlock(struct ghostmem_region *r, uint64_t off);
int ghostmem_barrier(struct ghostmem_region *r, uint64_t off, unsigned int parties,
		     int timeout_ms);

enum ghostmem_event_type {
	GHOSTMEM_OWNER_GONE = 1,
	GHOSTMEM_MOVED,
	GHOSTMEM_REVOKED,
	GHOSTMEM_PAGES_LOST, /* with a node that alone had them; the others are there */
};

struct ghostmem_event {
	enum ghostmem_event_type type;
	uint64_t bus;
};

/** ghostmem_event_fd() - readable when ghostmem_next_event() has one. */
int ghostmem_event_fd(struct ghostmem *g);
/** ghostmem_next_event() - Return: 1, 0: none, -errno */
int ghostmem_next_event(struct ghostmem *g, struct ghostmem_event *out);

#ifdef __cplusplus
}
#endif

#endif
