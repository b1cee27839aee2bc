/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * kvm_rig: a VM whose vCPUs do nothing but write to pages of a list, for tests and
 * benchmarks of KVM's dirty logs. No firmware, no devices: flat 32-bit code.
 */
#ifndef GN_TEST_KVM_RIG_H
#define GN_TEST_KVM_RIG_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "../../vm-migrate/dirty/dirty.h"

#define KVM_RIG_VCPUS 2U
#define KVM_RIG_GPA   0x80000000U /* of code and list, outside of the RAM under test */

enum kvm_rig_code {
	KVM_RIG_WANDER, /* random pages in windows that wander, for ever */
	KVM_RIG_ONCE,	/* every page of the list once, in order, then halt */
};

struct kvm_rig;

struct kvm_rig_vcpu {
	struct kvm_rig *r;
	int fd;
	struct kvm_run *run;
	pthread_t thread;
	uint64_t first_count;
	uint32_t ring_next;		   /* dirty_kvm_vcpu.next */
	uint32_t pause, parked, quit, out; /* atomic; out: times KVM_RUN returned */
	uint32_t broken;		   /* atomic: 0, 1 + exit reason, 1000 + errno */
};

struct kvm_rig {
	int kvm, vm;
	size_t run_bytes;
	uint8_t *low; /* code and list */
	size_t low_bytes;
	struct dirty_source *ring; /* NULL: no ring. Set before the vCPUs go */
	struct kvm_rig_vcpu vcpu[KVM_RIG_VCPUS];
	unsigned int nvcpus;
};

/**
 * kvm_rig_open() - a VM with @slot[] of @ram, and halted vCPUs
 * @ring_bytes:	0: no ring; else in: wish, out: got
 * @list:	[@n] guest-physical addresses of pages, below 4 GiB
 *
 * Return: 0; -EOPNOTSUPP: no usable KVM, or no ring; -errno
 */
int kvm_rig_open(struct kvm_rig *r, const struct ram *ram,
		 const struct dirty_kvm_slot *slot, unsigned int nslots,
		 unsigned int nvcpus, uint32_t *ring_bytes, enum kvm_rig_code code,
		 const uint32_t *list, unsigned int n);
void kvm_rig_close(struct kvm_rig *r);

void kvm_rig_go(struct kvm_rig *r);
void kvm_rig_halt(struct kvm_rig *r); /* on return no vCPU runs guest code */

/** kvm_rig_kick() - struct dirty_kvm_vcpu's; @arg: a struct kvm_rig_vcpu */
void kvm_rig_kick(void *arg);

/** kvm_rig_rewind() - halted vCPUs begin again, with the first @n pages of the list */
void kvm_rig_rewind(struct kvm_rig *r, unsigned int n);

/** kvm_rig_once() - KVM_RIG_ONCE, on this thread: vCPU 0 until it halts, draining the
 * ring whenever it is full. Return: times that it was */
unsigned int kvm_rig_once(struct kvm_rig *r);

/** kvm_rig_writes() - by vCPUs, which are halted, since they began */
uint64_t kvm_rig_writes(struct kvm_rig *r);

#endif
