/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * worker: one thread, one queue of one interface, one umem.
 *
 * A worker shares nothing it writes with another worker. The control thread
 * talks to it in one way: worker_call() runs a function on the worker, between
 * two bursts, and waits for it. Counters are read from outside without a lock:
 * each is one aligned word with one writer.
 */
#ifndef GN_WORKER_H
#define GN_WORKER_H

#include <pthread.h>
#include <stdatomic.h>

#include "agg.h"
#include "flow.h"
#include "instance.h"
#include "stream.h"
#include "xsk.h"

#define WORKER_BURST 64 /* descriptors per round; less than GN_STREAM_GAP */

/* X(field, meaning) */
#define WORKER_COUNTERS(X)                                                               \
	X(rx_bad_meta, "frames dropped: no valid metadata in front")                     \
	X(rx_bad_bounds, "frames dropped: metadata contradicts the frame's length")      \
	X(rx_no_instance, "frames dropped: the instance is gone")                        \
	X(rx_truncated, "frames dropped: continuation buffer missing or too many")       \
	X(flood_frames, "broadcast and multicast frames given to instances")             \
	X(flood_lost, "broadcast and multicast frames lost by a full socket")            \
	X(sleeps, "times the thread slept")                                              \
	X(bursts, "bursts received")                                                     \
	X(rx_in_step, "buffers whose metadata was read from the stream alone")           \
	X(agg_ns, "time from received buffers to complete chains, delivery excluded, "   \
		  "ns")

struct worker_stats {
#define WORKER_FIELD(f, help) uint64_t f;
	WORKER_COUNTERS(WORKER_FIELD)
#undef WORKER_FIELD
};

struct worker_conf {
	const char *ifname;
	unsigned int queue;
	int cpu; /* -1: not pinned */
	uint32_t chunks;
	uint32_t mtu;
	enum poll_mode poll;
	struct agg_conf agg;
	int flood_fd;		  /* socket of flood.h to serve, or -1; borrowed */
	struct gn_stream *stream; /* of the queue, mapped; NULL: none; borrowed */
};

struct worker {
	struct worker_conf conf;
	struct umem umem;
	struct mbuf_pool pool;
	struct xsk xsk;
	struct agg agg;
	struct inst_view view;
	struct flow_table flows;
	struct worker_stats stats;
	uint64_t rx_shape;	      /* see check_next() in rx.c; 0: none */
	struct stream_reader records; /* of the queue's stream */
	struct mbuf *rx_partial;      /* multi-buffer frame still incomplete, or NULL */
	bool rx_skip;		      /* its rest is thrown away */
	uint8_t *jumbo;		      /* [PORT_MAX_FRAME] where a frame longer than a
				       * chunk is built; NULL: no multi-buffer */
	uint16_t unsettled[GN_MAX_INSTANCES]; /* [nunsettled] slots: injected to */
	uint32_t nunsettled;
	uint16_t paused[GN_MAX_INSTANCES]; /* [npaused] slots: see worker_pause() */
	uint32_t npaused;
	uint64_t pause_due; /* the first one's end; UINT64_MAX: none */
	int epfd;	    /* everything the thread sleeps on */
	uint32_t awake;	    /* bursts since it slept; at AWAKE_BURSTS, where it stops, the
			     * socket is not in epfd */
	bool gone;	    /* nor is it, for ever: the socket is dead */
	int wakefd;	    /* eventfd of worker_call() */
	pthread_t thread;
	bool started;			    /* control thread */
	bool stopping;			    /* worker: set by the last call */
	pthread_mutex_t call_lock;	    /* one caller at a time */
	_Atomic(struct worker_call *) call; /* pending, or NULL */
};

/**
 * worker_create() - memory, socket and rings; no thread yet
 * @conf:	copied; ifname must outlive the worker
 * @out:	set on success; worker_destroy() frees it
 *
 * Return: 0 or -errno, logged
 */
int worker_create(const struct worker_conf *conf, struct worker **out);

/** worker_start() - run the thread. Return: 0, -errno */
int worker_start(struct worker *w);

/**
 * worker_call() - run @fn(@w, @arg) on the worker between two bursts; waits
 *
 * Before worker_start() and after worker_stop() it runs at once on the caller.
 * Control threads only, never a worker.
 */
void worker_call(struct worker *w, void (*fn)(struct worker *w, void *arg), void *arg);

/** worker_stop() - deliver what is held and what is in the RX ring, end the thread;
 * idempotent */
void worker_stop(struct worker *w);

/** worker_destroy() - close the socket, free all; NULL is fine */
void worker_destroy(struct worker *w);

/** worker_add_instance() - control thread: make @in known; its port has a queue for @w */
void worker_add_instance(struct worker *w, struct instance *in);

/** worker_del_instance() - control thread: on return @w holds no reference to @in */
void worker_del_instance(struct worker *w, struct instance *in);

/**
 * worker_pause() - on the worker: do not look at what @in sends before @until_ns,
 * CLOCK_MONOTONIC; it is not looked at already: nothing
 */
void worker_pause(struct worker *w, const struct instance *in, uint64_t until_ns);

/* The instance's queue on this worker. */
static inline struct port_queue *worker_queue(const struct worker *w,
					      const struct instance *in)
{
	return in->port->queue[w->conf.queue];
}

#endif
