/* SPDX-License-Identifier: BSD-2-Clause */
/* kinds: the dirty logs that conform drives, with what writes for each. */
#ifndef GN_TEST_KINDS_H
#define GN_TEST_KINDS_H

#include "conform.h"

extern const struct conform_kind kind_user;	 /* threads that mark */
extern const struct conform_kind kind_vhost_log; /* threads that are a back end */
extern const struct conform_kind kind_pagemap;	 /* a child that writes */
extern const struct conform_kind kind_mixed;	 /* all three, on the same memory */
extern const struct conform_kind kind_ring; /* KVM's ring, before a KVM that is played */

/* Need a usable /dev/kvm: vCPUs that write */
extern const struct conform_kind kind_kvm_bitmap;
extern const struct conform_kind kind_kvm_ring;	      /* room for plenty */
extern const struct conform_kind kind_kvm_ring_small; /* often full */
extern const struct conform_kind kind_kvm_mixed;      /* with a device that marks */

/* Needs a running ghostnicd; see kind_daemon.c */
extern const struct conform_kind kind_daemon;
extern const char *kind_daemon_ctl, *kind_daemon_socket[2];
void test_daemon_owner(void **state); /* a cmocka test */

void test_sparse(void **state); /* a cmocka test, needs nothing */

/* Writers that are threads of this process, for kinds that need some. */
struct threads;
struct threads *threads_start(struct conform *c, unsigned int n,
			      void (*mark)(struct conform *c, uint64_t page));
void threads_go(struct threads *t);
void threads_halt(struct threads *t);
uint64_t threads_end(struct threads *t); /* Return: writes */

#endif
