/* SPDX-License-Identifier: BSD-2-Clause */
/* qemu_job: what qemu_migrate.c and qemu_transfer.c share. One thread. */
#ifndef VMM_QEMU_JOB_H
#define VMM_QEMU_JOB_H

#include "../dirty/dirty.h"
#include "qemu_migrate.h"
#include "qemu_ram.h"
#include "qemu_settings.h"

struct qemu_job {
	const struct qemu_conf *conf;
	struct qemu_result *res;
	struct qemu_progress progress;
	uint64_t start_ns;
	struct qmp *src, *dst;
	pid_t src_pid, dst_pid;
	struct qemu_ram src_ram, dst_ram; /* no backends: not looked for */
	struct qemu_settings src_saved, dst_saved;
	struct dirty_set *log;		 /* of the device; NULL: none */
	uint64_t *by_device;		 /* [ram_words(&src_ram.ram)] pages it wrote */
	uint64_t *late;			 /* the same, after the guest was stopped */
	bool was_paused;		 /* the source's guest, by its user */
	bool transfer_begun;		 /* the destination cannot be used again */
	uint64_t stopped_us, resumed_us; /* since 1970; 0: not yet */
};

/** qemu_job_fail() - set the result's message. Return: @err */
int qemu_job_fail(struct qemu_job *j, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/** qemu_job_qmp_fail() - the same with the words of @q */
int qemu_job_qmp_fail(struct qemu_job *j, struct qmp *q, int err);
uint64_t qemu_job_ms(const struct qemu_job *j);
bool qemu_job_cancelled(const struct qemu_job *j);
void qemu_job_phase(struct qemu_job *j, const char *phase);
/** qemu_job_runs() - is its guest's state @status? */
bool qemu_job_runs(struct qmp *q, const char *status);

/**
 * qemu_transfer() - QEMU's migration, until the source says "completed"
 *
 * On failure the migration is over, or was cancelled, and the source is as QEMU leaves
 * it. Return: 0, -ECANCELED, -errno
 */
int qemu_transfer(struct qemu_job *j);

#endif
