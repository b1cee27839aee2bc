/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * meta: what outlives an agent. Beside the memfd with a region's bytes there is a second
 * one, with what its agent knows of them; applications with a window keep both, and hand
 * them to the agent that comes after one that died (LOCAL_RESUME).
 *
 *	header		GM_PAGE_SIZE; applications read valid_ns in it
 *	home		GM_SLOT_MAX importers, coherence of each page (coh.h), atomics
 *			(once.h), kept pages
 *	import		a byte per page, what is held (peer.h); kept pages; pages that
 *			were copied and may not be in the memfd yet (move_in.c)
 *
 * There is room for both, as a region moves: who is about to be the other fills in that
 * part, then says so (claim), and the directory decides. hdr->kind says which part
 * counts; one store changes it. So whenever an agent dies, the next one finds either what
 * was, or what will be and an epoch to look for in the directory (agent_resume.c).
 *
 * An agent may be killed between any two instructions, so whatever is said to another
 * node is written here before, and in an order in which each prefix makes sense. All
 * stores are the agent's, but for windows that end while there is none; a new agent
 * believes them only after the application has proved the region's key, and checks every
 * index.
 *
 * keep: bytes that are nowhere else while they travel. Who gives a page to write away
 * (owner: grant; importer: answer to an INV) keeps a copy until the other side has said
 * that it has it. After a lost connection or a restart of either side the copy goes where
 * the page is missing.
 */
#ifndef GM_META_H
#define GM_META_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../bus.h"
#include "../key.h"
#include "../net.h"
#include "once.h"

#define META_WINDOWS 32 /* as WINDOW_CLIENTS */

enum meta_kind { META_ANY, META_HOME, META_IMPORT };

/* An application's mapping that an agent may not forget: it can write there. */
struct meta_window {
	uint64_t base;
	int32_t pid; /* 0: free */
	uint32_t pad;
};

struct meta_hdr {
	uint64_t magic;	   /* written last */
	uint64_t valid_ns; /* clock_boot_ns(): the windows may be used until then */
	uint32_t kind;	   /* enum meta_kind */
	uint32_t epoch;
	/* Epoch that the directory may have by now, or soon; 0: none. Home: registered by
	 * a new agent here, or by us for the next owner, of which we are an importer
	 * then; incarnation, node and addr are for that. Import: as its owner, we have
	 * all */
	uint32_t claim;
	uint32_t lease_ms;
	uint64_t bus, size;
	uint64_t incarnation; /* import: how the owner knows us; 0: not at all */
	uint32_t key_id, read_key_id;
	uint32_t page_shift; /* of the region's pages; this memfd's are the smallest */
	uint32_t staged; /* import: stage has pages; an owner puts them into the memfd */
	uint32_t era;	 /* home: of versions, coh.h */
	uint32_t poisoned; /* pages of windows may have been (window_renew()) */
	char name[GM_NAME_MAX];
	char node[GM_NAME_MAX];	 /* import: owner */
	char addr[NET_ADDR_MAX]; /* its agent */
	struct gm_key key, read_key;
	struct meta_window windows[META_WINDOWS];
};
_Static_assert(sizeof(struct meta_hdr) <= GM_PAGE_SIZE, "one page");

/* home: an importer */
struct meta_slot {
	char node[GM_NAME_MAX];
	uint64_t incarnation;
	uint32_t used;
	uint32_t unkept; /* of a grant to it there was no room for a copy */
};

struct keep_entry {
	uint64_t page;
	uint64_t session; /* it was sent on */
	uint64_t seq;	  /* there: over once the other side has come that far */
	uint64_t version; /* of the page, at the grant or the INV */
	uint8_t used, slot, shared, pad[5];
};

struct keep {
	struct keep_entry *entries;
	uint8_t *bytes;
	unsigned int shift; /* of a page */
	uint64_t pages;	    /* of the region */
	unsigned int room, n, most;
	unsigned int *order; /* entries used, oldest first */
	unsigned int *unused, nunused;
};

struct meta {
	int fd;
	uint8_t *map;
	size_t len;
	struct meta_hdr *hdr;
	/* As it is laid out: what hdr says of them an application could change */
	uint64_t size;
	unsigned int shift;
	/* home */
	struct meta_slot *slots;
	void *table;
	struct once *once;
	struct keep keep;
	/* import */
	uint8_t *held;
	struct keep given;
	uint8_t *staged; /* byte per page: it is in stage */
	uint8_t *stage;
	bool left; /* what it says now is for the next agent */
};

/** meta_create() - for a region of @size bytes, in pages of 1 << @shift; the caller fills
 * in hdr, then calls meta_seal(). Return: 0, -errno */
int meta_create(enum meta_kind kind, uint64_t size, unsigned int shift,
		struct meta **out);
void meta_seal(struct meta *m);

/** meta_become() - the other part counts from now on, if it is another, and the directory
 * has @epoch */
void meta_become(struct meta *m, enum meta_kind kind, uint32_t epoch);

/** meta_clear() - the part for @kind, which does not count, is as new */
void meta_clear(struct meta *m, enum meta_kind kind);

/** meta_unstage() - stage is empty */
void meta_unstage(struct meta *m);

/** meta_open() - what an application kept. @fd: duplicated. Return: 0; -EINVAL: no such
 * thing; -errno */
int meta_open(int fd, enum meta_kind kind, uint64_t size, struct meta **out);
void meta_destroy(struct meta *m);

/** meta_window() - the place of a mapping: the one it had, or a free one, not among @have
 * (bit mask). Return: index below META_WINDOWS, -EBUSY */
int meta_window(struct meta *m, int32_t pid, uint64_t base, uint32_t have);

/** meta_window_forget() - it is unmapped. Its application does so itself if there is no
 * agent: @have of meta_window() are those that this one still serves */
void meta_window_forget(struct meta *m, int at);

/** meta_awaited() - how many mappings of processes that live are not among @have (bit
 * mask)? Those of dead ones are forgotten. */
unsigned int meta_awaited(struct meta *m, uint32_t have);

/** keep_put() - Return: the copy of @bytes, a page; NULL: full */
const uint8_t *keep_put(struct keep *k, const struct keep_entry *e, const void *bytes);

/** keep_page() - of an entry, checked again: an application can write there. Return:
 * false: the region has no such page */
bool keep_page(const struct keep *k, const struct keep_entry *e, uint64_t *page);

/** keep_find() - the newest copy of @page for @slot; NULL: none */
struct keep_entry *keep_find(struct keep *k, uint64_t page, uint8_t slot);
const uint8_t *keep_bytes(const struct keep *k, const struct keep_entry *e);
void keep_del(struct keep *k, struct keep_entry *e);

/** keep_trim() - the other side has come to @seq on @session */
void keep_trim(struct keep *k, uint64_t session, uint64_t seq);

#endif
