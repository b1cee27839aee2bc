/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * conform: one oracle for every kind of dirty log.
 *
 * Writers change pages at random, in windows that wander, in several blocks of odd sizes.
 * Meanwhile logs are harvested every few milliseconds, and pages copied, as a migration
 * does. Every now and then the writers are halted, the last harvest is taken, and the
 * copy has to be equal. Some of these halts are the last of a log (dirty_set_last()), which
 * then starts anew, at times a lazy start, or makes way for another of its kind, as that of one
 * migration does for that of the next. Some pages are never written and must never be reported.
 *
 * A seeded fault breaks one rule of that order; the oracle has to notice.
 */
#ifndef GN_TEST_CONFORM_H
#define GN_TEST_CONFORM_H

#include <stdbool.h>
#include <stdint.h>

#include "../../vm-migrate/dirty/dirty.h"

enum conform_fault {
	FAULT_NONE,
	FAULT_READ_FIRST, /* pages are read before their bits are taken */
	FAULT_DROP,	  /* a bit in fifty is lost */
	FAULT_TAIL,	  /* a block's last pages, no whole word, are forgotten */
	FAULT_NO_FINAL,	  /* no harvest after the writers have stopped */
	FAULT_CLEAR_LATE, /* a page is armed again after it was read */
	FAULT_CLEAR_ALL,  /* bits are cleared that were not harvested */
	FAULT_NO_MARK,	  /* a page in fifty is not marked */
	FAULT_MARK_FIRST, /* marked, then written */
	FAULT_NO_KICK,	  /* vCPUs stay in the guest at a harvest */
	FAULT_COUNT
};

extern const char *const conform_fault_name[FAULT_COUNT];

struct conform;

struct conform_kind {
	const char *name;
	/* RAM, sources and writers, which are halted. 0; -EOPNOTSUPP: not on this kernel
	 */
	int (*open)(struct conform *c);
	void (*go)(struct conform *c);
	void (*halt)(struct conform *c); /* on return nobody writes */
	void (*close)(struct conform *c);
	/* c->set, which is stopped as the writers are, gives way to another with sources of
	 * their own over the same writers. May be NULL */
	void (*renew)(struct conform *c);
	bool marks;  /* writers mark what they wrote */
	bool clears; /* the source needs clear() */
	bool lazy;   /* the source needs arm(), after a lazy start */
	bool kicks;  /* a harvest has to get vCPUs out of the guest */
};

struct conform {
	const struct conform_kind *kind;
	enum conform_fault fault;
	uint64_t seed;
	struct ram ram;
	struct dirty_set *set;
	void *priv; /* the kind's */

	/* filled by conform_run() */
	uint64_t harvests, pages; /* found */
	uint64_t sent;		  /* harvests that were copied; writers look at it */
	uint64_t writes;	  /* by the kind, at close */
	uint64_t bad;		  /* pages that differed at a halt */
	uint64_t extra;		  /* reports of pages that are never written */
	uint64_t late;		  /* pages in a log after the last harvest */
	uint64_t in_doubt;

	uint64_t *bitmap, *by[DIRTY_BY_COUNT], *unwritten, *reported, *final;
	uint8_t *copy, *early; /* [pages * 4096] */
};

/**
 * conform_run() - harvest and compare until the time is up, or a fault was noticed
 * @ms:		at least so long, and at least eight halts, four of one log
 *
 * Return: 0; -EOPNOTSUPP of open(); what went wrong is in @c
 */
int conform_run(struct conform *c, unsigned int ms);

/** conform_layout() - the usual blocks; none has a whole number of words. Adds them to
 * c->ram, fresh */
void conform_layout(struct conform *c);

/** conform_written() - may writers touch this page number? The rest stays as it is */
bool conform_written(const struct conform *c, uint64_t page);

/** conform_pages() - all pages that writers may touch. Return: number, @page malloc()ed
 */
unsigned int conform_pages(const struct conform *c, uint64_t **page);

uint64_t conform_random(uint64_t *state);

/** conform_wait() - until *@v is @want; fails the test after ten seconds */
void conform_wait(const uint32_t *v, uint32_t want);

/* ---- writers: threads, here or in a child ---------------------------------------- */

#define CONFORM_MAX_WRITERS 4

struct conform_writer {
	struct conform *c;
	uint8_t *base[RAM_MAX_BLOCKS]; /* where it has the blocks mapped */
	/* after a write; NULL: someone else notices */
	void (*mark)(struct conform *c, uint64_t page);
	uint64_t seed, writes;
	uint64_t *page; /* [npages] */
	unsigned int npages;
	uint32_t pause, parked, quit; /* atomic; the structs are in shared memory */
};

void *conform_writer_main(void *arg);

#endif
