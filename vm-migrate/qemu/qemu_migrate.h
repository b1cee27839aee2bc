/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * qemu_migrate: one migration between two QEMUs, and the proof that it lost nothing.
 *
 *	check	   both can, and have the same shape (qemu_check.h, qemu_ram.h)
 *	hold	   "stop" while the destination waits: it will not run by itself, and with
 *		   late-block-activate it does not take the disks either
 *	log	   ghostnicd's DMA log of the instance, if one is named
 *	transfer   QEMU's own migration
 *	compare    both guests are paused: RAM against RAM, page by page
 *	hand over  "cont" at the destination, unless the source's user had paused it
 *
 * What fails before "cont" is rolled back: the destination ends, the source's guest goes
 * on, capabilities and parameters are as before. The destination ends first, so that
 * never two of them run. After "cont" was sent and no answer came, nobody can know; the
 * source then stays paused.
 *
 * A migration whose guest is on both sides already, paused, begins with "compare", and
 * undoes nothing: the guest may have run at the destination since.
 *
 * One thread; conf.cancel may be set by a signal handler.
 */
#ifndef VMM_QEMU_MIGRATE_H
#define VMM_QEMU_MIGRATE_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "../precopy/precopy.h"

enum qemu_verify {
	QEMU_VERIFY_FULL,   /* all RAM */
	QEMU_VERIFY_DEVICE, /* what the device wrote during the migration */
	QEMU_VERIFY_NONE,
};

struct qemu_progress {
	const char *phase; /* "transfer", "compare", ... */
	uint64_t elapsed_ms;
	uint64_t total, remaining, sent; /* bytes */
	uint64_t round;			 /* passes over the dirty pages */
	uint64_t send_rate, dirty_rate;	 /* bytes per second, as QEMU measures them */
	uint64_t device_rate;		 /* bytes per second that the device dirtied */
	uint64_t device_pages;		 /* so far, each as often as it was found */
	uint64_t expected_downtime_ms;	 /* 0: not known */
	unsigned int throttle;		 /* percent */
};

struct qemu_conf {
	const char *src_path, *dst_path; /* QMP sockets */
	pid_t src_pid, dst_pid;		 /* 0: who listens at the sockets */
	const char *uri;		 /* of QEMU: tcp:HOST:PORT, unix:PATH, ... */
	unsigned int downtime_ms, max_downtime_ms;
	uint64_t bandwidth;   /* bytes per second, 0: no limit */
	unsigned int streams; /* above 1: multifd */
	unsigned int zstd;    /* level, 0: off; needs multifd */
	enum precopy_stall on_stall;
	enum qemu_verify verify;
	const char *tls_creds, *tls_hostname; /* id of the object, NULL: no TLS */
	const char *instance, *iface, *ctl;   /* ghostnicd's; instance NULL: no log */
	bool quit_source;		      /* end the source's QEMU after success */
	bool check_only;
	unsigned int timeout_s; /* of the transfer, 0: none */
	volatile sig_atomic_t *cancel;
	void (*progress)(const struct qemu_progress *p); /* ten times a second */
	void (*note)(const char *text);			 /* warnings */
	void (*problem)(const char *text);		 /* of the check, each */
};

struct qemu_result {
	uint64_t total_ms;    /* of all */
	uint64_t transfer_ms; /* QEMU's total-time */
	uint64_t
		downtime_ms; /* guest stopped at the source, running at the destination */
	uint64_t qemu_downtime_ms, compare_ms;
	uint64_t bytes, rounds;
	uint64_t pages_compared, pages_differ, device_differ; /* device_differ: of those
							       * that the device wrote */
	uint64_t first_gpa;				      /* of those that differ */
	uint64_t device_pages; /* distinct pages that the device wrote */
	uint64_t device_late;  /* pages it wrote after the guest was stopped */
	bool compared;
	bool rolled_back; /* the source's guest was stopped, and runs again */
	char message[512];
};

/**
 * qemu_migrate() - all of it
 * Return: 0: the guest is at the destination, and runs if it ran; otherwise result.message says why:
 * -EOPNOTSUPP: the check found problems; -ENOENT, -ECONNREFUSED: no QEMU there;
 * -ECANCELED; -EUCLEAN: a lost write was found; -EBUSY: uncertain, both are paused or
 * gone; another -errno. With all but -EBUSY the source's guest is as it was
 */
int qemu_migrate(const struct qemu_conf *conf, struct qemu_result *res);

#endif
