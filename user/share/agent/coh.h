/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * coh: coherence of one region at its owner. A pure state machine: no I/O, no clock, no
 * threads; unit tests and the agent link the same object, and the Promela model states
 * the same rules.
 *
 * Each 4 KiB page has many readers or one writer. The owner's memory is the home of the
 * bytes; the owner's own applications are one of the parties ("home"), remote nodes are
 * slots 0 to 63. States of a page:
 *
 *	HOME	no remote copy; home may hold it writable. All zero: the first state.
 *	SHARED	slots in `sharers` hold it to read; home too. Home memory is current.
 *	EXCL	slot `holder` may write; home memory has no page at all.
 *	LOST	the holder died, the bytes are gone. A write of the whole page heals.
 *
 * A request that finds a copy in its way starts a transaction: COH_INV to every holder
 * at once (one batch, cost linear in sharers), and the page is busy until each has
 * answered or was declared dead; then the request is granted. Later requests for a busy
 * page queue behind it, first come first served, so no one starves. Because no grant to
 * write is given before the last reader has answered, loads and stores are sequentially
 * consistent per location, and, as each side's processor orders its own accesses and
 * waits for faults in place, over all locations.
 *
 * The version of a page rises with every transaction that takes a copy back, and with
 * every grant to write; INV, its answer and the grant carry it. A copy given up unasked
 * (FLUSH) while an INV is under way answers that INV; the late answer is then recognised
 * and changes nothing. Its low half is the page's, its high half is that of all pages as
 * long as one node is the owner, the epoch with which that began: no two owners give the
 * same version, and the next one's are later, though it begins to count anew.
 *
 * What to do is told by actions, which the caller carries out in order, at once, on the
 * same thread:
 *
 *	PROTECT	make home's mappings of the page read-only
 *	KEEP	a grant to write follows at once: keep a copy of the bytes until @slot has
 *		said that it has them
 *	GRANT	tell @slot it has @page, to read or to write; @data: with the bytes as
 *		they are now; the page is protected at home. To write: home's page is
 *		thrown away before the message goes out, so that nobody reads old bytes
 *		after it. status not 0: nothing is granted; @cookie is over
 *	INV	ask @slot to give up @page: all, or the right to write
 *	DONE	the request of @cookie (home fault, get, put, atomic) may touch the page,
 *		until the callback returns; status -EIO: the page is lost
 *
 * Metadata is 16 bytes a page, allocated for the whole region and touched when used.
 */
#ifndef GM_COH_H
#define GM_COH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../bus.h"

#define COH_HOME_SLOT 0xff /* the owner's own node as a requester */
#define COH_SHUT      0xfe /* as holder of a page at home: no window can write there */

enum coh_state { COH_HOME, COH_SHARED, COH_EXCL, COH_LOST };

/* Everything remembered about a page. */
struct coh_page {
	uint64_t sharers; /* SHARED: bit per slot */
	uint32_t version; /* low half */
	uint8_t state;	  /* enum coh_state */
	uint8_t holder;	  /* EXCL: slot. HOME: COH_SHUT or anything else */
	uint16_t txn;	  /* transaction that has it busy, + 1; 0: none */
};
_Static_assert(sizeof(struct coh_page) == 16, "the promised cost of a page");

enum coh_want {
	COH_WANT_READ,	/* a copy to read (slot), or home maps it to read, or get */
	COH_WANT_WRITE, /* the only copy (slot), or home maps it to write, put, atomic */
	COH_WANT_REPLACE, /* home only: as WRITE, all bytes will be replaced: heals LOST
			   */
};

enum coh_act_type { COH_PROTECT, COH_KEEP, COH_GRANT, COH_INV, COH_DONE };

struct coh_act {
	enum coh_act_type type;
	uint8_t slot;
	bool excl;  /* GRANT: to write. INV: to nothing; false: to read only */
	bool data;  /* KEEP, GRANT: with bytes */
	int status; /* GRANT, DONE: 0 or -EIO */
	uint64_t version;
	uint64_t page; /* index in the region */
	uint64_t cookie;
};

struct coh;

/**
 * coh_create() - directory for a region
 * @pages:	of the region
 * @mem:	coh_size(@pages) bytes, zeroed for a new region, kept by the caller until
 *		coh_destroy(). NULL: allocated here
 * @era:	high half of versions; the same for the same @mem
 * @act:	called for each action, within coh_*() calls only; must not call coh_*()
 * @arg:	passed to @act
 *
 * Return: 0, -ENOMEM
 */
int coh_create(uint64_t pages, void *mem, uint32_t era,
	       void (*act)(void *arg, const struct coh_act *a), void *arg,
	       struct coh **out);
void coh_destroy(struct coh *c);

/** coh_recover() - @mem is of an agent that died, with all that waited: who asked will
 * ask again */
void coh_recover(struct coh *c);
static inline size_t coh_size(uint64_t pages)
{
	return pages * sizeof(struct coh_page);
}

/**
 * coh_request() - someone wants a page
 * @slot:	who; COH_HOME_SLOT: this node (fault, get, put, atomic)
 * @page:	index, below the region's pages
 * @want:	what for
 * @has:	slot has it to read already: no bytes with a grant to write
 * @cookie:	comes back in COH_GRANT or COH_DONE
 *
 * Return: 0: granted, or busy: an action will follow. -ENOMEM: refused, nothing changed.
 */
int coh_request(struct coh *c, uint8_t slot, uint64_t page, enum coh_want want, bool has,
		uint64_t cookie);

/**
 * coh_try_read() - how many of @n pages from @page can be granted to read to @slot
 * without asking anybody? They are granted (state changed, COH_PROTECT done); no
 * COH_GRANT action is made: the caller sends one message for all of the run.
 *
 * Return: pages, 0 to @n
 */
unsigned int coh_try_read(struct coh *c, uint8_t slot, uint64_t page, unsigned int n);

/**
 * coh_try_write() - the same, to write: pages of which there is no copy elsewhere. The
 * caller throws away home's pages, after COH_KEEP and before the message goes out
 */
unsigned int coh_try_write(struct coh *c, uint8_t slot, uint64_t page, unsigned int n);

/** coh_ready() - may home read (@write: write) all @n pages from @page right now? */
bool coh_ready(const struct coh *c, uint64_t page, uint64_t n, bool write);

/**
 * coh_ack() - @slot has given up @page, as an INV or of its own accord. If it was EXCL,
 * the caller has put the bytes that came with it into home's page before this call.
 * @kept:	it still has it to read
 * @version:	of the INV that is answered; of its own accord (FLUSH): 0
 * @lost:	it was EXCL and the bytes did not come
 *
 * Return: 0; -EPROTO: it holds no such page: peer is at fault
 */
int coh_ack(struct coh *c, uint8_t slot, uint64_t page, bool kept, uint64_t version,
	    bool lost);

/** coh_awaits() - is the INV of @version unanswered by @slot? */
bool coh_awaits(const struct coh *c, uint8_t slot, uint64_t page, uint64_t version);

/** coh_version() - of a page, now */
uint64_t coh_version(const struct coh *c, uint64_t page);

/** coh_later() - is version @a of a page later than @b? Low halves may wrap around */
static inline bool coh_later(uint64_t a, uint64_t b)
{
	return a >> 32 == b >> 32 ? (int32_t)((uint32_t)a - (uint32_t)b) > 0 : a > b;
}

/** coh_cancel() - requests of @slot that wait will be granted to nobody: its connection,
 * on which it asked, is over */
void coh_cancel(struct coh *c, uint8_t slot);

/** coh_slot_dead() - @slot's lease ended: all it held is taken back, pages it held EXCL
 * are LOST. Return: pages lost */
uint64_t coh_slot_dead(struct coh *c, uint8_t slot);

/** coh_lost() - pages that became LOST since coh_create() */
uint64_t coh_lost(const struct coh *c);

/** coh_resend() - for every INV @slot has not answered, a COH_INV action again (its agent
 * restarted) */
void coh_resend(struct coh *c, uint8_t slot);

/** coh_busy() - transactions that wait for answers */
unsigned int coh_busy(const struct coh *c);

/** coh_load() - @n pages from @page are as another owner had them; @c is new */
void coh_load(struct coh *c, uint64_t page, uint64_t n, enum coh_state state,
	      uint8_t holder, uint64_t sharers);

/** coh_shut() - no window can write to the page, which is at home (@shut), or one may.
 * Forgotten, when it is granted, but for reading. Allowed within @act */
void coh_shut(struct coh *c, uint64_t page, bool shut);

/** coh_not_healed() - allowed within @act, of a DONE for COH_WANT_REPLACE: its bytes could
 * not be put there, so if it was LOST it stays so */
void coh_not_healed(struct coh *c);

/** coh_page() - state of a page, for statistics and tests */
const struct coh_page *coh_page(const struct coh *c, uint64_t page);

/** coh_abort() - cookies of every waiting request get @status; nothing stays busy. Region
 * is being revoked or destroyed. */
void coh_abort(struct coh *c, int status);

#endif
