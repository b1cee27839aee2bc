/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * rate: how fast memory is dirtied, how much of it at all, and what a migration would
 * make of that.
 *
 * A rate alone predicts badly: a process that writes the same pages over and over has a
 * high rate for short times and none for long ones. So the measure is a curve, the
 * distinct bytes that are dirtied within a window, over the window's length. It is taken
 * from harvests at a fixed interval, ORed together over 1, 2, 4, ... intervals.
 *
 * One thread per object.
 */
#ifndef VMM_RATE_H
#define VMM_RATE_H

#include <jansson.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

struct dirty_set;

#define RATE_MAX_INTERVALS 1000
#define RATE_LEVELS	   11 /* windows of 1 to 1024 intervals, and the whole */

/* ---- windows ------------------------------------------------------------------------
 */

struct rate_windows {
	size_t words;
	unsigned int levels;	   /* in use */
	unsigned int n;		   /* intervals so far */
	uint64_t sum[RATE_LEVELS]; /* bits of those that were closed */
	unsigned int closed[RATE_LEVELS];
	uint64_t *all; /* [words] since the beginning; then of each level's open window */
	uint64_t distinct; /* bits of all */
};

/** rate_windows_init() - for @max intervals over bitmaps of @bits. Return: 0, -ENOMEM */
int rate_windows_init(struct rate_windows *w, uint64_t bits, unsigned int max);
void rate_windows_fini(struct rate_windows *w);
/** rate_windows_add() - what one interval dirtied */
void rate_windows_add(struct rate_windows *w, const uint64_t *bitmap);

/* ---- report -------------------------------------------------------------------------
 */

struct rate_point {
	double seconds, bytes; /* a window, and what it dirties in the mean */
};

struct rate_interval {
	double seconds, dirty; /* bytes */
	double cpu, device;    /* bytes, if report.by_source; a page may be in both */
	double distinct;       /* bytes since the beginning; below 0: not known */
};

struct rate_report {
	char method[32];  /* "pagemap", "soft-dirty", "page hashes", ... */
	char note[256];	  /* what to know about the numbers, "": nothing */
	double ram_bytes; /* populated: what the first round sends */
	bool by_source;
	double margin;	      /* of the rate, 95 % confidence, bytes/s; 0: counted */
	unsigned int samples; /* pages that were looked at; 0: all */
	unsigned int n;
	struct rate_interval interval[RATE_MAX_INTERVALS];
	unsigned int npoints;
	struct rate_point point[RATE_LEVELS + 1]; /* ascending */
};

/** rate_mean() - bytes per second; @device: those of devices */
double rate_mean(const struct rate_report *r, bool device);

/** rate_points() - from windows; bytes of a bit, and of growth per second beside them */
void rate_points(struct rate_report *r, const struct rate_windows *w, double bit_bytes,
		 double growth);

/** rate_within() - bytes that are dirtied within @seconds, by the curve */
double rate_within(const struct rate_report *r, double seconds);

/* ---- forecast -------------------------------------------------------------------------
 */

#define RATE_FOREVER 60 /* rounds: it does not converge */

struct rate_forecast {
	bool converges;
	unsigned int rounds; /* the last one included, which the guest waits for */
	double total_s, downtime_s, bytes;
};

/** rate_forecast() - a pre-copy migration at @bandwidth (bytes/s) that stops the guest
 * when the rest takes @budget_s or less */
void rate_forecast(const struct rate_report *r, double bandwidth, double budget_s,
		   struct rate_forecast *f);

/* ---- sources --------------------------------------------------------------------------
 */

struct rate_source;

struct rate_source_ops {
	/* What was dirtied since the last call into bitmap, all zeros; the first is begun
	 * by creation. by: bits by the CPU and by devices, if by_source. 0, -errno */
	int (*harvest)(struct rate_source *s, uint64_t *bitmap, uint64_t by[2]);
	void (*destroy)(struct rate_source *s);
};

/* The first member of each kind's own. */
struct rate_source {
	const struct rate_source_ops *ops;
	uint64_t bits;
	double bit_bytes, ram_bytes;
	double growth; /* bytes in pages that the last interval brought */
	/* By clock_ns(), of one whose harvests take long: until when the last one counts,
	 * and since when the next one does. 0: its end */
	uint64_t until_ns, since_ns;
	bool by_source;
	unsigned int samples;
	char method[32], note[256];
};

enum rate_method { RATE_AUTO, RATE_PAGEMAP, RATE_SOFT_DIRTY, RATE_HASHES };

/**
 * rate_pid_create() - any process
 * @samples:	pages to hash, at most
 * @why:	[@why_len] on failure
 *
 * Return: 0; -ESRCH; -EPERM; -EOPNOTSUPP: @method does not work here; another -errno
 */
int rate_pid_create(int pid, enum rate_method method, unsigned int samples,
		    struct rate_source **out, char *why, size_t why_len);

/** rate_dirty_create() - the logs of a dirty set that was started
 * @set:	kept by the caller, who destroys the source first
 */
int rate_dirty_create(struct dirty_set *set, struct rate_source **out);

/* One measurement, step by step, for those who wait in a loop of their own. */
struct rate_run {
	struct rate_source *src;
	struct rate_report *report;
	struct rate_windows windows;
	uint64_t *bitmap;
	uint64_t then_ns, bits; /* bits: of all harvests */
	double growth;
};

/** rate_begin() - now the first interval begins. @n: of intervals, at most */
int rate_begin(struct rate_run *run, struct rate_source *src, unsigned int n,
	       struct rate_report *r);
/** rate_step() - an interval ends here. Return: 0, -ENOSPC: enough; -errno of the source
 */
int rate_step(struct rate_run *run);
/** rate_end() - finish the report and free; also after a failure */
void rate_end(struct rate_run *run);

/**
 * rate_measure() - harvest @n times, @interval_s apart
 * @cancel:	set: stop after the running interval; what was measured counts
 * @tick:	after each interval; may be NULL
 *
 * Return: 0; -errno of the source: nothing was measured
 */
int rate_measure(struct rate_source *s, double interval_s, unsigned int n,
		 volatile sig_atomic_t *cancel, void (*tick)(const struct rate_report *r),
		 struct rate_report *r);

/** rate_qmp() - a QEMU's guest; see rate_qmp.c */
struct rate_qmp_conf {
	const char *path;		    /* of the monitor */
	int pid;			    /* 0: who listens there */
	const char *instance, *iface, *ctl; /* ghostnicd's, for the device; NULL: not */
	double seconds, interval_s;
	unsigned int samples;
	volatile sig_atomic_t *cancel;
	void (*tick)(const struct rate_report *r);
};
int rate_qmp(const struct rate_qmp_conf *conf, struct rate_report *r, char *why,
	     size_t why_len);

/* Of an interval; a VM that nobody asks for twice as long ends the measurement. */
#define RATE_CONTROL_MAX_S   5
#define RATE_CONTROL_IDLE_MS (2000 * RATE_CONTROL_MAX_S)

/** rate_control() - a VM of `vm-migrate run`, asked through its control socket; as
 * rate_measure(), @interval_s at most RATE_CONTROL_MAX_S */
int rate_control(const char *path, double interval_s, unsigned int n,
		 volatile sig_atomic_t *cancel, void (*tick)(const struct rate_report *r),
		 struct rate_report *r, char *why, size_t why_len);

/* ---- as JSON, between the VM and rate_control()
 * ------------------------------------------ */

/** rate_interval_json() - the last interval of @r, and what a report begins with */
json_t *rate_interval_json(const struct rate_report *r);
/** rate_interval_parse() - append it to @r. Return: 0, -EPROTO */
int rate_interval_parse(const json_t *o, struct rate_report *r);
/** rate_points_json() - the curve */
json_t *rate_points_json(const struct rate_report *r);
int rate_points_parse(const json_t *list, struct rate_report *r);

/** rate_wait() - until clock_ns() is @at_ns, or @cancel */
void rate_wait(uint64_t at_ns, const volatile sig_atomic_t *cancel);

#endif
