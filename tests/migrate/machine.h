/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * machine: a guest of threads, to be migrated by the tests.
 *
 * The source has RAM, "vCPU" threads and "device" threads that write it, and a dirty log
 * of each kind that a real machine has:
 *
 *	MACHINE_MANUAL	vCPUs, by a log that keeps a bit until it is cleared, as KVM's
 *			with manual protect does
 *	MACHINE_SCAN	vCPUs, by PAGEMAP_SCAN of a mapping of their own
 *	MACHINE_VHOST	devices, by a vhost log
 *	(always)	devices, by dirty_user
 *
 * The destination makes RAM, takes the state, and records whether it was started. After a
 * migration machine_check() compares all there is to compare.
 */
#ifndef TEST_MACHINE_H
#define TEST_MACHINE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "../../vm-migrate/precopy/incoming.h"
#include "../../vm-migrate/precopy/precopy.h"

#define MACHINE_MAX_WRITERS 6
#define MACHINE_STATE_MAGIC 0x6d616368696e6531ULL /* begins its state */

enum machine_cpu_log { MACHINE_MANUAL, MACHINE_SCAN };

struct machine_conf {
	struct {
		uint64_t gpa, pages, filled; /* filled: of its pages hold something */
	} block[3];
	unsigned int nblocks;
	unsigned int vcpus, devices; /* threads */
	enum machine_cpu_log cpu_log;
	bool vhost;	      /* devices with odd numbers use the vhost log */
	unsigned int pace_us; /* between writes, 0: none */
	uint64_t span;	      /* pages that are written, from the first on; 0: all */
	uint64_t seed;
};

struct machine;

struct writer {
	struct machine *m;
	unsigned int index;
	bool device, vhost;
	pthread_t thread;
	_Atomic uint64_t writes;
};

/* The source */
struct machine {
	struct machine_conf conf;
	struct ram ram;
	struct dirty_set *dirty;
	struct dirty_source *user, *cpu;
	uint8_t *alias[3]; /* the vCPUs' mapping with MACHINE_SCAN */
	int uffd[3];
	uint64_t *vhost_log; /* by guest page */
	size_t vhost_bytes;

	struct writer writer[MACHINE_MAX_WRITERS];
	unsigned int nwriters;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool cpus_run, devices_run, quit;
	_Atomic unsigned int gate; /* 1: vCPUs, 2: devices may run */
	unsigned int parked[2];
	unsigned int throttle;

	/* What fails, once */
	bool fail_drain, fail_save;

	/* What was called */
	unsigned int pauses, drains, saves, resumes, releases;
};

/** machine_start() - Return: 0, -EOPNOTSUPP: no PAGEMAP_SCAN here, -errno */
int machine_start(const struct machine_conf *conf, struct machine **m);
void machine_stop(struct machine *m);
extern const struct precopy_vm_ops machine_ops;

/** machine_mark() - the log of a device, or of the CPU (MACHINE_MANUAL), has this page */
void machine_mark(struct machine *m, uint64_t page, bool device);

/** machine_runs() - do its writers get on? Waits for that if they may */
bool machine_runs(struct machine *m);
uint64_t machine_writes(const struct machine *m);

/* The destination, of machine_twin.c */
struct twin {
	struct ram ram;
	bool has_ram, loaded;
	uint64_t writes;		/* of the state */
	bool refuse;			/* the next state */
	struct precopy *_Atomic source; /* asked at start() if it has handed over */
	bool early;			/* it had not */
	_Atomic unsigned int started, abandoned, prepared;
	struct incoming *in;
	pthread_t thread;
	bool joined;
	int result;
};

/** twin_start() - listen on @uri and serve on a thread of its own */
int twin_start(struct twin *t, const struct incoming_conf *conf);
/** twin_join() - wait for its end; again is fine. Return: of incoming_run() */
int twin_join(struct twin *t);
/** twin_fini() - cancels if it has not ended */
void twin_fini(struct twin *t);
extern const struct incoming_vm_ops twin_ops;

/** machine_differs() - pages of the two RAMs that differ; both stand still */
uint64_t machine_differs(const struct machine *m, const struct twin *t);

/** test_uri() - "tcp:127.0.0.1:0" or unix:PATH of a socket of this process's own */
const char *test_uri(bool unix_socket, char buf[CHAN_URI_MAX]);

/** rnd() - xorshift64*; *@state is not 0 */
static inline uint64_t rnd(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*state = x;
	return x * 0x2545f4914f6cdd1dULL;
}

#endif
