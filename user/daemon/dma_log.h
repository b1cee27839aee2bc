/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * dma_log: guest pages that the device wrote while its VM migrates.
 *
 * One per instance. Off, it costs one predictable branch. On, every guest
 * physical range that the device writes is marked, one bit per 4 KiB page, in each
 * sink that is set:
 *
 * - the front end's own log (vhost-user SET_LOG_BASE): QEMU merges it with its CPU log;
 * - a pair of bitmaps in memfds that alternate, for vm-migrate: one is written while
 *   the other is harvested (patent US12117947B2).
 *
 * That the log is on stands in XDP's map of instances too (GN_INSTANCE_LOGGED), set before
 * the first write is marked and cleared after the last, and travels in the metadata of
 * each frame (GN_F_LOGGED), as the patents have it. But frames that were on their way
 * when the log was turned on do not have it, frames of local instances have no
 * metadata, and the device writes rings without any frame. So what is marked is decided
 * by @on alone, and the flag is counted only: flagged and unflagged tell from which
 * packet on the whole way knows of the migration.
 *
 * Page n is bit n % 8 of byte n / 8. Bits outside a sink are counted, not lost in
 * silence.
 *
 * A sink is changed by publishing another map and then waiting for a grace period:
 * every worker that may mark has passed a point between two bursts, so none still holds
 * the old one. The caller knows the workers, and passes a function that waits for them
 * (port_env.call() on each). Marking: any worker of the instance. The rest: control
 * thread.
 */
#ifndef GN_DMA_LOG_H
#define GN_DMA_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DMA_LOG_PAGE_SHIFT 12
/* Guest addresses have at most 52 bits on any CPU. */
#define DMA_LOG_MAX_PAGES (1ULL << (52 - DMA_LOG_PAGE_SHIFT))
#define DMA_LOG_OWNER_MAX 64

struct dma_log_map {
	uint8_t *base;
	uint64_t bits; /* pages it covers */
};

struct dma_log {
	bool on;		   /* any sink is set; atomic */
	struct dma_log_map *front; /* atomic: one of front_map[], NULL: not set */
	struct dma_log_map *pair;  /* atomic: one of pair_map[], NULL: not set */
	uint64_t marked;	   /* pages marked, repeatedly or not; atomic */
	uint64_t beyond;	   /* pages outside a sink; atomic */
	uint64_t pair_beyond; /* of those, the pair's, since it was enabled; atomic */
	uint64_t flagged, unflagged; /* wire packets that came while on, by GN_F_LOGGED of
				      * their chain's first; atomic */
	/* Control thread: */
	struct dma_log_map front_map[2], pair_map[2];
	int pair_fd[2];			    /* memfds, -1 */
	char pair_owner[DMA_LOG_OWNER_MAX]; /* who may swap the pair; "": anyone */
};

/* Returns when each worker has passed a point between two bursts; what it did before is
 * then visible to the caller, and what the caller did before to it. */
struct dma_log_grace {
	void (*wait)(void *arg);
	void *arg;
};

/** dma_log_init() - off, no sinks */
void dma_log_init(struct dma_log *log);

/** dma_log_fini() - free the pair; no worker runs. The front end's map is the caller's.
 */
void dma_log_fini(struct dma_log *log);

/**
 * dma_log_set_front() - mark in the front end's log, in another one, or no longer
 * @base:	shared mapping, owned by the caller, guarded by vu_map_create(); NULL:
 * none
 * @size:	bytes
 *
 * On return every write to come is marked in the new map and none in the old, which may
 * be unmapped; in between each write is in one of them.
 */
void dma_log_set_front(struct dma_log *log, uint8_t *base, uint64_t size,
		       const struct dma_log_grace *grace);

/**
 * dma_log_enable_pair() - start marking in a pair of bitmaps, both empty
 * @pages:	guest pages to cover, > 0
 *
 * On success log->pair_fd[] are two memfds of a fixed size, whole pages, owned by @log,
 * and every write to come is marked. Return: 0, -EALREADY, -EINVAL, or -errno
 */
int dma_log_enable_pair(struct dma_log *log, uint64_t pages,
			const struct dma_log_grace *grace);

/**
 * dma_log_end_pair() - stop marking in the pair, which stays until it is freed
 *
 * What its harvester has not cleared in the one bitmap, for want of an answer or of a file
 * to write it to, is marked in the other one, too. Return: which of log->pair_fd[] has all
 * pages now, -ENOENT: no pair
 */
int dma_log_end_pair(struct dma_log *log, const struct dma_log_grace *grace);

/** dma_log_disable_pair() - stop marking in the pair, if that has not ended, and free it;
 * nothing if there is none */
void dma_log_disable_pair(struct dma_log *log, const struct dma_log_grace *grace);

/**
 * dma_log_swap() - from now on mark in the other bitmap, which its harvester has cleared
 * Return: which of log->pair_fd[] to harvest: nobody writes it until the next swap,
 * -ENOENT: no pair
 */
int dma_log_swap(struct dma_log *log, const struct dma_log_grace *grace);

/** dma_log_active() - which of log->pair_fd[] is marked in now, -ENOENT: no pair. Control
 * thread */
int dma_log_active(const struct dma_log *log);

/**
 * dma_log_dirty() - pages that are marked in bitmap @i of the pair, which may be in use
 * Only what was ever marked costs time. Return: pages; 0: no pair. Control thread
 */
uint64_t dma_log_dirty(const struct dma_log *log, unsigned int i);

/** dma_log_mark_front() - only in the front end's log; see dma_log_mark() */
void dma_log_mark_front(struct dma_log *log, uint64_t gpa, uint64_t len);

/** dma_log_mark_pair() - only in the pair; see dma_log_mark() */
void dma_log_mark_pair(struct dma_log *log, uint64_t gpa, uint64_t len);

/** dma_log_count() - so many packets with the flag and without it came; only while on */
void dma_log_count(struct dma_log *log, uint64_t flagged, uint64_t unflagged);

static inline bool dma_log_on(const struct dma_log *log)
{
	return __builtin_expect(__atomic_load_n(&log->on, __ATOMIC_RELAXED), 0);
}

/**
 * dma_log_mark() - the device wrote [@gpa, @gpa + @len); call after the data, before
 * the used index is published
 */
static inline void dma_log_mark(struct dma_log *log, uint64_t gpa, uint64_t len)
{
	if (dma_log_on(log)) {
		dma_log_mark_front(log, gpa, len);
		dma_log_mark_pair(log, gpa, len);
	}
}

#endif
