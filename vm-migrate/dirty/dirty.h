/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * dirty: who wrote which guest page, from any log that a kernel or a device keeps.
 *
 * One struct dirty_ops per kind of log (the table at the end of this file), a set of
 * sources per VM, one bitmap out of it. All sources of a set are indexed by the page
 * numbers of one struct ram.
 *
 * The rule that everything stands on: a writer stores its data and then sets the bit; a
 * harvester takes the bit and then reads the page. A page that is written while it is
 * being sent is therefore found by the next harvest, and a harvest after all writers have
 * stopped finds what is left.
 *
 *	start()		every write from here on is found by a harvest. Pages written
 *			before need not be: the first round sends all of them
 *	harvest()	take what was written since the last harvest
 *	clear()		arm the log again for pages that were harvested, just before they
 *			are read. Needed by KVM's manual protect only; the others arm
 *			when they harvest
 *	arm()		after a lazy start (dirty_set_lazy()): arm it for pages of the first
 *			round, before they are read. PAGEMAP_SCAN
 *	stop()		no longer log
 *
 * Threads: start, harvest and stop from one thread at a time; clear from any number of
 * threads, on disjoint ranges, not during harvest; arm the same, and ranges may overlap.
 * Writers may run all the time.
 */
#ifndef VMM_DIRTY_H
#define VMM_DIRTY_H

#include <stdbool.h>
#include <stdint.h>

#include "../ram.h"

#define DIRTY_MAX_SOURCES 16

enum dirty_by { DIRTY_BY_CPU, DIRTY_BY_DEVICE, DIRTY_BY_COUNT };

struct dirty_source;

struct dirty_ops {
	const char *name;
	enum dirty_by by;
	/* 0, -errno. -EOPNOTSUPP: this kernel cannot, and no other state changed. */
	int (*start)(struct dirty_source *src);
	/*
	 * OR what is dirty into bitmap[ram_words()]. Returns pages found, or -errno: then
	 * the log is in doubt and all memory counts as dirty.
	 */
	int64_t (*harvest)(struct dirty_source *src, uint64_t *bitmap);
	/*
	 * May be NULL. [first, first + n): whole words of the bitmap, in one block.
	 * @taken: [n / 64] the pages among them that the caller reads afterwards, every
	 * one of them: what is cleared here is in no later harvest.
	 */
	int (*clear)(struct dirty_source *src, uint64_t first, uint64_t n,
		     const uint64_t *taken);
	/*
	 * May be NULL: start() does not heed dirty_source.lazy. [@first, @first + @n) as for
	 * clear(). @round: [n / 64] what is read in this round, by this or any other thread
	 * that has called this for it. Others may take bits out that they have read.
	 */
	int (*arm)(struct dirty_source *src, uint64_t first, uint64_t n,
		   const uint64_t *round);
	void (*stop)(struct dirty_source *src);
	void (*destroy)(struct dirty_source *src); /* stopped before */
};

/* The first member of every kind's own struct. */
struct dirty_source {
	const struct dirty_ops *ops;
	const struct ram *ram; /* outlives the source */
	bool hasty;	       /* dirty_set_hasty() */
	bool last;	       /* dirty_set_last() */
	bool lazy;	       /* dirty_set_lazy(), and it can */
	/* What not being hasty cost the last harvest that was not */
	uint64_t thorough_ns;
	/* Counted by dirty_set: */
	uint64_t harvests, pages; /* pages reported, all harvests */
	uint64_t in_doubt;	  /* harvests that failed: everything was resent */
	uint64_t harvest_ns;
};

struct dirty_set {
	const struct ram *ram;
	struct dirty_source *src[DIRTY_MAX_SOURCES]; /* owned */
	unsigned int nsrc;
	bool started, lazy; /* lazy: the next start is to be */
};

/* What one harvest found. Pages. */
struct dirty_found {
	uint64_t by[DIRTY_BY_COUNT]; /* a page may be in both */
	uint64_t merged;	     /* bits of the bitmap after it */
};

/** dirty_set_create() - no sources yet. Return: 0, -ENOMEM */
int dirty_set_create(const struct ram *ram, struct dirty_set **set);

/** dirty_set_destroy() - stop, destroy the sources; NULL is fine */
void dirty_set_destroy(struct dirty_set *set);

/** dirty_set_add() - takes @src over, also on failure. Return: 0, -ENOSPC; -EBUSY: it
 * has been started */
int dirty_set_add(struct dirty_set *set, struct dirty_source *src);

/** dirty_set_start() - start all or none. Return: 0, or the -errno of the first that
 * failed, whose name is in @failed if that is not NULL */
int dirty_set_start(struct dirty_set *set, const char **failed);

/**
 * dirty_set_lazy() - the next dirty_set_start() may leave it to dirty_set_arm() to arm logs
 *
 * For a caller that then sends all that is populated and calls dirty_set_arm() for it, as
 * the first round of a migration does: pages are protected while others are on their way
 * already, and what is written before that is not sent twice. What that is not called for
 * is in the first harvest, written or not.
 */
void dirty_set_lazy(struct dirty_set *set);

/** dirty_set_share() - of the time from dirty_set_start() to the first harvest, how much a
 * page was watched on average, if pages were armed one after the other meanwhile */
double dirty_set_share(const struct dirty_set *set);

/** dirty_set_stop() - stop all; twice is fine */
void dirty_set_stop(struct dirty_set *set);

/**
 * dirty_set_harvest() - take every log
 * @bitmap:	[ram_words()] what is dirty is ORed into it
 * @by:		[DIRTY_BY_COUNT] zeroed bitmaps that get the pages by who wrote them; it or
 *		any of them may be NULL
 * @found:	filled
 *
 * A source that fails makes all its memory dirty (counted in in_doubt), never none.
 * Return: 0; never fails
 */
int dirty_set_harvest(struct dirty_set *set, uint64_t *bitmap, uint64_t **by,
		      struct dirty_found *found);

/**
 * dirty_set_hasty() - harvests may leave for a later one what takes long to find
 *
 * For those of a pre-copy's rounds. The one after the last writer has stopped must not be
 * hasty, and at first none is.
 */
void dirty_set_hasty(struct dirty_set *set, bool hasty);

/**
 * dirty_set_last() - nobody writes any more until the next dirty_set_start()
 *
 * A harvest from now on need not arm the log again, which for PAGEMAP_SCAN is most of the
 * work. So the next one may report the same pages again, with those that somebody wrote
 * all the same.
 */
void dirty_set_last(struct dirty_set *set);

/** dirty_set_thorough_ns() - what a harvest takes longer if it is not hasty */
uint64_t dirty_set_thorough_ns(const struct dirty_set *set);

/** dirty_set_clear() - call just before reading the pages; see struct dirty_ops.
 * Return: 0, -errno of the first that failed: the pages must be sent again */
int dirty_set_clear(struct dirty_set *set, uint64_t first, uint64_t n,
		    const uint64_t *taken);

/** dirty_set_arm() - call before reading the pages of a first round; see struct dirty_ops.
 * Return: 0, -errno of the first that failed: the migration has to begin again */
int dirty_set_arm(struct dirty_set *set, uint64_t first, uint64_t n,
		  const uint64_t *round);

/* ---- kinds. Each sets *src on success; the set that it is added to frees it. ------ */

struct dirty_kvm_slot {
	uint32_t slot; /* address space << 16 | id, as in KVM_SET_USER_MEMORY_REGION */
	uint64_t first_page; /* of the slot, in ram */
	uint64_t pages;
};

/**
 * dirty_kvm_bitmap_create() - KVM_GET_DIRTY_LOG with KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2
 * @vm_fd:	of the calling process (KVM refuses others), kept by the caller
 *
 * start() and stop() set and clear KVM_MEM_LOG_DIRTY_PAGES of each slot. Source:
 * Documentation/virt/kvm/api.rst 4.8 and 4.117.
 */
int dirty_kvm_bitmap_create(const struct ram *ram, int vm_fd,
			    const struct dirty_kvm_slot *slot, unsigned int nslots,
			    struct dirty_source **src);

struct dirty_kvm_vcpu {
	int fd;
	/* Gets the vCPU out of KVM_RUN, which flushes what the CPU holds back (PML).
	 * Returns when it is out; may be NULL if it is stopped whenever harvest runs. */
	void (*kick)(void *arg);
	void *arg;
	/*
	 * Where the vCPU's ring is read on: 0 when the vCPU is created, and then the
	 * sources' alone, one after the other. KVM counts from there as long as the vCPU
	 * lives, so a source that began again at 0 would find nothing. The caller keeps it
	 * as long as the vCPU.
	 */
	uint32_t *next;
};

/**
 * dirty_kvm_ring_create() - KVM_CAP_DIRTY_LOG_RING(_ACQ_REL): one ring per vCPU
 * @bytes:	size of each ring, as enabled before the first vCPU was created
 *
 * dirty_kvm_ring_enable() is that enabling. A vCPU whose ring is full leaves KVM_RUN with
 * KVM_EXIT_DIRTY_RING_FULL: its thread calls dirty_kvm_ring_drain(), any thread may.
 * One source of a vCPU at a time. Source: api.rst 8.29.
 */
int dirty_kvm_ring_create(const struct ram *ram, int vm_fd, uint32_t bytes,
			  const struct dirty_kvm_slot *slot, unsigned int nslots,
			  const struct dirty_kvm_vcpu *vcpu, unsigned int nvcpus,
			  struct dirty_source **src);
int dirty_kvm_ring_enable(int vm_fd, uint32_t *bytes /* in: wish, out: got */);
int dirty_kvm_ring_drain(struct dirty_source *src);

/**
 * dirty_pagemap_create() - PAGEMAP_SCAN of a process that write-protects its RAM itself
 * @pagemap_fd:	/proc/PID/pagemap of the process, duplicated
 * @va:		[ram->nblocks] where each block is mapped *there*
 *
 * The process has registered these ranges with userfaultfd, UFFD_FEATURE_WP_ASYNC and
 * UFFDIO_REGISTER_MODE_WP (dirty_pagemap_register()). Sees what that mapping writes,
 * nothing else: not another mapping, not pwrite(). Linux 6.7. Source:
 * Documentation/admin-guide/mm/pagemap.rst, userfaultfd.rst.
 */
int dirty_pagemap_create(const struct ram *ram, int pagemap_fd, const uint64_t *va,
			 struct dirty_source **src);

/**
 * dirty_pagemap_register() - in the process that owns the mapping: let it be scanned
 * @va, @bytes:	page aligned; anonymous or memfd memory
 *
 * Return: a userfaultfd to keep open as long as the memory is to be tracked; -EOPNOTSUPP:
 * the kernel is older than 6.7; -EPERM; -errno
 */
int dirty_pagemap_register(void *va, size_t bytes);

/**
 * dirty_vhost_log_create() - the log of vhost and vhost-user devices (VHOST_F_LOG_ALL)
 * @log:	[@log_bytes, a multiple of 8] shared with the device; bit n is guest page
 *		n from gpa 0; the caller maps it, keeps it, and gives it to the device
 *		(VHOST_USER_SET_LOG_BASE)
 * @enable:	called by start (true) and stop (false): the front end sends the features
 *		and ring addresses again. Returns 0, -errno
 */
int dirty_vhost_log_create(const struct ram *ram, uint64_t *log, size_t log_bytes,
			   int (*enable)(void *arg, bool on), void *arg,
			   struct dirty_source **src);

/**
 * dirty_daemon_create() - the alternating pair of bitmaps of ghostnicd's DMA log
 * @ctl:	its control socket, NULL: the default
 * @iface:	interface of the instance, NULL: the daemon's only one
 * @instance:	whose device writes are wanted
 *
 * start enables the pair with an owner name of its own and maps both bitmaps; harvest
 * swaps them and takes the one that nobody writes any more. Pages that the device wrote
 * beyond the bitmap make the harvest fail: everything is dirty.
 */
int dirty_daemon_create(const struct ram *ram, const char *ctl, const char *iface,
			const char *instance, struct dirty_source **src);

/**
 * dirty_user_create() - writes by this process's own devices and loaders
 *
 * KVM and PAGEMAP_SCAN do not see them, so whoever writes guest memory through the VMM's
 * own mapping calls dirty_user_mark() after the write. Cheap when not started. For
 * authors of VMMs (docs/migrate.md): the one here has no device that writes memory in its
 * process.
 */
int dirty_user_create(const struct ram *ram, struct dirty_source **src);
void dirty_user_mark(struct dirty_source *src, uint64_t gpa, uint64_t len);

#endif
