/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vm: a machine of the small VMM, whatever runs its CPUs.
 *
 * struct vm_accel is the seam: accel_kvm.c runs vCPUs by KVM; accel_process.c runs the
 * "guest" as a sandboxed child process that shares the memfd RAM and executes the
 * workload, for machines without KVM and for fast tests. Control, migration, network and
 * command line are the same for both.
 *
 *	create    RAM, vCPUs or child; nothing runs
 *	boot	  kernel and registers, or the workload (not on a destination)
 *	start / pause	  any number of times; after pause() returns no guest code runs
 *
 * All functions on the VM's control thread or, during a migration, on its engine thread;
 * never on both (vm.c serialises).
 */
#ifndef VMM_VM_H
#define VMM_VM_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "../dirty.h"
#include "../ram.h"
#include "../state.h"

#define VM_MAX_VCPUS 8
#define VM_MAX_NETS  4

struct vm_net_conf {
	char socket[108]; /* of the vhost-user back end */
	uint8_t mac[6];
	char instance[64]; /* of ghostnicd, "": the vhost log tracks the device */
};

/* What makes a machine; config_json carries all of it but the local paths. */
struct vm_conf {
	char accel[16];	 /* "kvm", "process" */
	uint64_t memory; /* bytes, a multiple of 2 MiB */
	bool huge;
	unsigned int vcpus;
	bool dirty_ring; /* KVM: ring instead of bitmap */
	char kernel[PATH_MAX], initrd[PATH_MAX], append[2048];
	char workload[256]; /* see workload.h; "": boot the kernel */
	struct vm_net_conf net[VM_MAX_NETS];
	unsigned int nnets;
	char ctl[108];	/* of ghostnicd, for nets with an instance */
	int console_fd; /* where the serial console writes, -1: nowhere */
};

struct vm;

struct vm_accel {
	const char *name;
	int (*create)(struct vm *vm);
	int (*boot)(struct vm *vm);
	int (*start)(struct vm *vm);
	int (*pause)(struct vm *vm);
	/* Add the CPU's dirty source(s) to @set. */
	int (*add_dirty)(struct vm *vm, struct dirty_set *set);
	int (*save)(struct vm *vm, struct state_writer *w);
	/* One section that save() wrote. -ENOENT: not one of ours. */
	int (*load)(struct vm *vm, struct state_section *s);
	int (*throttle)(struct vm *vm, unsigned int percent);
	/* Waits until the guest has ended by itself, or timeout. 1: ended, 0: not yet. */
	int (*wait)(struct vm *vm, int timeout_ms);
	void (*destroy)(struct vm *vm);
};

extern const struct vm_accel accel_kvm, accel_process;

struct vm {
	struct vm_conf conf;
	const struct vm_accel *accel;
	void *accel_data;
	struct ram ram;
	struct dirty_source
		*user_log;	/* while a migration runs: writes by our own devices */
	void *net[VM_MAX_NETS]; /* struct virtio_net_front */
	bool running;
	char error[256]; /* of the last failure, for people */
};

/** vm_create() - machine of @conf, nothing runs. @why: message on failure. */
int vm_create(const struct vm_conf *conf, struct vm **vm, char *why, size_t why_len);
void vm_destroy(struct vm *vm);

#endif
