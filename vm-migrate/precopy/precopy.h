/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * precopy: the source of a live migration, from the first round to the hand-over.
 *
 *	rounds	  send what was written since the last round, while the machine runs
 *	decide	  when the rest fits the downtime budget, or the prediction says it never
 *		  will: throttle, raise the budget, or give up, as the user chose
 *	stop	  in this order, and nothing else in between:
 *		    1. pause()	  every vCPU has left the guest
 *		    2. drain()	  the device's rings have stopped, its last write is in
 *				  its log
 *		    3. save()	  vCPU and device state
 *		    4. harvest	  every log again
 *		    5. send	  what is left, END, state, digest
 *		    6. VERIFIED   the destination has the same digest, and every log is
 *				  still empty
 *		    7. HANDOVER, RUNNING
 *		    8. release()  only now may anything be closed
 *	audit	  the paused RAM is read again, hashed and compared with what was sent: a
 *		  difference is a lost write (while the destination runs already, unless
 *		  --verify full did this between 5 and 6). Logs must be empty.
 *
 * A failure at any point before HANDOVER undoes what was done and calls resume(): the
 * source runs on, nothing is lost because the next migration begins with all pages. After
 * HANDOVER see wire.h.
 *
 * One engine thread per migration (precopy_run() is called on it); status, cancel and
 * set_bandwidth from any thread.
 */
#ifndef VMM_PRECOPY_H
#define VMM_PRECOPY_H

#include <stdbool.h>
#include <stdint.h>

#include "../stream/chan.h"
#include "../dirty/dirty.h"
#include "../ram.h"
#include "../stream/sender.h"
#include "../state.h"

/* What a VMM does for its migration. All called on the engine thread. 0 or -errno. */
struct precopy_vm_ops {
	int (*pause)(void *vm); /* returns when no vCPU runs guest code */
	int (*drain)(void *vm); /* returns when no device writes guest memory */
	int (*save)(void *vm, struct state_writer *w);
	/* Undo pause and drain; only called if pause was. */
	void (*resume)(void *vm);
	/* The destination runs; devices may be closed. The RAM is still read (audit). */
	void (*release)(void *vm);
	/* 0..99 % of CPU time taken from the vCPUs, 0 again at the end unless the destination
	 * runs it; may be NULL. */
	int (*throttle)(void *vm, unsigned int percent);
};

enum precopy_stall { PRECOPY_THROTTLE, PRECOPY_RAISE, PRECOPY_ABORT };
enum precopy_verify { PRECOPY_VERIFY_DIGEST, PRECOPY_VERIFY_FULL, PRECOPY_VERIFY_NONE };

struct precopy_conf {
	const char *uri;
	struct chan_tls tls;
	unsigned int streams;	      /* 1..WIRE_MAX_STREAMS */
	unsigned int downtime_ms;     /* budget of steps 1 to 7 */
	unsigned int max_downtime_ms; /* PRECOPY_RAISE: never above */
	uint64_t bandwidth;	      /* bytes per second, 0: no limit */
	int zstd_level;		      /* 0: off */
	enum precopy_stall on_stall;
	enum precopy_verify verify;
	unsigned int connect_timeout_ms;
};

enum precopy_phase {
	PRECOPY_IDLE,
	PRECOPY_CONNECT,
	PRECOPY_ROUNDS,
	PRECOPY_STOP,
	PRECOPY_VERIFYING,
	PRECOPY_HANDING_OVER,
	PRECOPY_AUDIT,
	PRECOPY_DONE,	   /* the destination runs it */
	PRECOPY_FAILED,	   /* the source runs it */
	PRECOPY_CANCELLED, /* the source runs it */
	PRECOPY_UNCERTAIN, /* HANDOVER was sent and no answer came: paused here */
};

/* Where the downtime went; verify is what is waited for after still. */
enum precopy_step {
	PRECOPY_STEP_PAUSE, /* steps 1 and 2 */
	PRECOPY_STEP_SAVE,
	PRECOPY_STEP_HARVEST,
	PRECOPY_STEP_SEND,
	PRECOPY_STEP_STILL, /* are the logs empty? */
	PRECOPY_STEP_VERIFY,
	PRECOPY_STEP_HANDOVER,
	PRECOPY_STEPS
};

struct precopy_status {
	enum precopy_phase phase;
	unsigned int round;
	uint64_t elapsed_ms, eta_ms;	   /* eta: UINT64_MAX: not known or never */
	uint64_t ram_bytes, remaining;	   /* remaining: still to look at in this round */
	uint64_t dirty_rate, send_rate;	   /* bytes per second, of the last round */
	uint64_t dirty_by[DIRTY_BY_COUNT]; /* pages, all rounds */
	struct sender_stats sent;
	unsigned int throttle;		 /* percent */
	unsigned int downtime_budget_ms; /* now */
	uint64_t expected_downtime_us;
	uint64_t downtime_us;		 /* measured, 0 before */
	uint64_t step_us[PRECOPY_STEPS]; /* of it */
	uint64_t last_pages;		 /* that the last harvest found */
	uint64_t total_us;		 /* until the destination ran it, 0 before */
	uint64_t digest;
	int64_t audit_bad;	/* pages that differ; -1: not done, message may say why */
	uint64_t audit_page[8]; /* the first of them */
	int err;
	char message[200]; /* of the failure: cause, remedy; err is 0: a note */
};

struct precopy;

/**
 * precopy_create()
 * @conf:	copied, its strings too
 * @ram, @dirty, @ops, @vm: kept by the caller until precopy_destroy(); @dirty is stopped,
 *		and will be when precopy_run() returns
 * @config_json: what the destination makes its machine from; copied
 *
 * Return: 0, -EINVAL: conf, -ENOMEM
 */
int precopy_create(const struct precopy_conf *conf, const struct ram *ram,
		   struct dirty_set *dirty, const char *config_json,
		   const struct precopy_vm_ops *ops, void *vm, struct precopy **out);
/**
 * precopy_run() - the whole migration, once
 *
 * Return: 0: PRECOPY_DONE and the audit, if one was made, found nothing; -EUCLEAN: it found a lost
 * write (PRECOPY_DONE, or with PRECOPY_VERIFY_FULL PRECOPY_FAILED); -ECANCELED; -EBUSY:
 * PRECOPY_UNCERTAIN; -ETIME: the guest writes faster than is sent (PRECOPY_ABORT);
 * another -errno: PRECOPY_FAILED
 */
int precopy_run(struct precopy *p);
/** precopy_cancel() - give up; returns at once. Return: false: too late, HANDOVER was sent */
bool precopy_cancel(struct precopy *p);
void precopy_set_bandwidth(struct precopy *p, uint64_t bytes_per_s);
void precopy_status(struct precopy *p, struct precopy_status *st);
void precopy_destroy(struct precopy *p);

#endif
