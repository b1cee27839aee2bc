/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * workload: the built-in guest: it dirties pages at a set rate and pattern, and notices
 * itself when a write was lost.
 *
 * A workload is written rate=N,pattern=P,set=S,fill=S,piece=S,write=W,stop=N:
 *
 *	rate	pages a second, all vCPUs together; 0 or left out: as fast as it goes
 *	pattern	random; sequential; hot: nine of ten writes go to a tenth of the set
 *	set	working set: a size or a percentage of the memory; left out: all of it
 *	fill	how much is filled with random bytes before it starts; left out: nothing
 *	piece	the filled pages and the working set lie in pieces of this size, a power
 *		of two, at equal distances all over the memory; left out: in one. Not for
 *		KVM
 *	write	line: 16 bytes of the page; page: all of it, with random bytes
 *	stop	ends after so many writes of each vCPU; left out: never
 *
 * Every data page p has a version v in a table that is in guest memory too; its first and
 * its last word are stamp(p, v), where version 0 is a page of zeros. Before each write
 * the guest compares: a page or a piece of the table that was not transferred, or one half
 * of it, is an error that it counts. Every vCPU has its own part of the pages.
 *
 * The same steps are C here for a process and machine code for KVM (kvm_flat.c).
 */
#ifndef VMM_WORKLOAD_H
#define VMM_WORKLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../ram.h"

#define WORKLOAD_TEXT_MAX 256

enum workload_pattern { WORKLOAD_RANDOM, WORKLOAD_SEQUENTIAL, WORKLOAD_HOT };

struct workload {
	bool on;
	uint64_t rate;				/* pages a second, 0: no limit */
	uint64_t set, fill;			/* bytes; 0: all, nothing */
	unsigned int set_percent, fill_percent; /* instead, if not 0 */
	enum workload_pattern pattern;
	bool whole_pages;
	uint64_t stop;	/* writes per vCPU, 0: never */
	uint64_t piece; /* bytes, 0: one */
};

/* What changes as it runs: the process guest's registers. The machine code of
 * kvm_flat.c knows the offsets. */
struct workload_regs {
	uint64_t rng, writes, errors, next; /* next: of pattern sequential */
};

/* What one vCPU works on; pages are numbered through the memory without its hole. Known
 * to kvm_flat.c too. */
struct workload_plan {
	uint64_t base[2];	 /* address of the memory below and above the hole */
	uint64_t low_pages;	 /* pages below it */
	uint64_t table;		 /* first page of the table of versions */
	uint64_t data;		 /* first data page: version 0 of the table */
	uint64_t first, pages;	 /* of this vCPU's working set */
	uint64_t hot_pages, hot; /* writes out of 256 that go to the first hot_pages */
	uint64_t sequential, whole;
	uint64_t stop;
	uint64_t per_write; /* ns (process) or TSC ticks (KVM) from write to write, 0 */
	/* Not known to the machine code. Pages of a piece and from one to the next; used:
	 * those of this vCPU that are ever written. stride 0: all in one. */
	uint64_t piece, stride, used;
};

/** workload_parse() - Return: 0, -EINVAL with @why */
int workload_parse(const char *text, struct workload *w, char *why, size_t why_len);

/** workload_text() - the same again, as workload_parse() takes it */
void workload_text(const struct workload *w, char text[WORKLOAD_TEXT_MAX]);

/**
 * workload_plan() - what vCPU @i of @n works on
 * @plan:	all but base and per_write
 *
 * Return: 0, -EINVAL: not enough memory for that working set
 */
int workload_plan(const struct workload *w, const struct ram *ram, unsigned int i,
		  unsigned int n, struct workload_plan *plan);

/** workload_regs_init() - as before the first write */
void workload_regs_init(struct workload_regs *r, unsigned int i);

/** workload_fill() - vCPU @i's part of what is filled at the start */
void workload_fill(const struct workload *w, const struct ram *ram, unsigned int i,
		   unsigned int n, const struct workload_plan *plan);

/** workload_step() - one write. Return: page number in struct ram's order of blocks
 * without padding; @table: that of the page of the table that was written too */
uint64_t workload_step(const struct workload_plan *plan, struct workload_regs *r,
		       uint64_t *table);

/**
 * workload_check() - look at all pages of a guest that is paused
 * @bad:	pages whose stamps are not of their version
 *
 * Return: pages looked at, -EINVAL
 */
int64_t workload_check(const struct workload *w, const struct ram *ram, unsigned int n,
		       uint64_t *bad);

#endif
