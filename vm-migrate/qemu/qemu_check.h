/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * qemu_check: can this QEMU's guest go to that one? Every reason why not, before anything
 * is changed. Only asks. One thread.
 */
#ifndef VMM_QEMU_CHECK_H
#define VMM_QEMU_CHECK_H

#include "qmp.h"

struct qemu_check_conf {
	/* Capabilities of migrate-set-capabilities that will be used, NULL ends them. */
	const char *const *src_caps, *const *dst_caps;
	/* Called with each problem: what is missing, and the remedy. */
	void (*problem)(void *arg, const char *text);
	/* May matter, does not prevent it. */
	void (*warning)(void *arg, const char *text);
	void *arg;
};

enum qemu_check_state {
	QEMU_CHECK_READY,	/* source runs or is paused, destination waits */
	QEMU_CHECK_TRANSFERRED, /* the guest is on both, paused: an earlier run ended
				 * between the transfer and the decision; or it has run at
				 * the destination, and was paused there */
};

/**
 * qemu_check() - ask both
 * Return: problems found, 0: none, and then @state is set; -errno: one does not answer,
 * qmp_error() of it says so and *failed is set to it
 */
int qemu_check(struct qmp *src, struct qmp *dst, const struct qemu_check_conf *conf,
	       enum qemu_check_state *state, struct qmp **failed);

#endif
