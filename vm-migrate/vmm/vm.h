/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vm: a machine of the small VMM, whatever runs its CPUs.
 *
 * struct vm_accel is the seam: accel_kvm.c runs vCPUs by KVM; accel_process.c runs the
 * "guest" as a sandboxed child process that shares the memfd RAM and executes the
 * workload, for machines without KVM and for fast tests. Control, migration and command
 * line are the same for both.
 *
 *	create    RAM, vCPUs or child; nothing runs
 *	boot	  kernel and registers, or the workload (not on a destination)
 *	start / pause	  any number of times; after pause() returns no guest code runs
 *
 * Threads: start, pause, save, load and throttle are serialised by a lock in vm.c; the
 * control thread calls them while no migration runs, the engine thread during one.
 */
#ifndef VMM_VM_H
#define VMM_VM_H

#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "../dirty/dirty.h"
#include "../ram.h"
#include "../state.h"
#include "workload.h"

#define VM_MAX_VCPUS 8
#define VM_MAX_NETS  4

/* Guest-physical layout: what does not fit below the hole goes above 4 GiB. */
#define VM_HOLE_START 0xc0000000ULL
#define VM_HOLE_END   0x100000000ULL
#define VM_MIN_MEMORY (8ULL << 20)
#define VM_MAX_MEMORY (1ULL << 40)

/* How the CPUs' writes are found. KVM: bitmap (default) or ring; a process: pagemap
 * (default where the kernel can) or self, a log that the guest keeps itself. */
enum vm_track {
	VM_TRACK_AUTO,
	VM_TRACK_BITMAP,
	VM_TRACK_RING,
	VM_TRACK_PAGEMAP,
	VM_TRACK_SELF
};

struct vm_net_conf {
	char socket[108]; /* of the vhost-user back end */
	uint8_t mac[6];
	char instance[64]; /* of ghostnicd, "": the vhost log tracks the device */
};

/* What makes a machine; vm_conf_json() carries all of it but what is local. */
struct vm_conf {
	char accel[16];	 /* "kvm", "process" */
	uint64_t memory; /* bytes, a multiple of 2 MiB */
	bool huge;	 /* local */
	unsigned int vcpus;
	enum vm_track track;				       /* local */
	char kernel[PATH_MAX], initrd[PATH_MAX], append[2048]; /* local */
	struct workload work;				       /* none: boot the kernel */
	struct vm_net_conf net[VM_MAX_NETS];		       /* sockets are local */
	unsigned int nnets;
	char ctl[108];	/* of ghostnicd, for nets with an instance; local; "": default */
	int console_fd; /* where the serial console writes, -1: nowhere; local */
	bool start_paused; /* the source was paused when it was migrated */
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
	/* The same source is about to be destroyed with its set. May be NULL. */
	void (*drop_dirty)(struct vm *vm);
	int (*save)(struct vm *vm, struct state_writer *w);
	/* One section that save() wrote. -ENOENT: not one of ours. */
	int (*load)(struct vm *vm, struct state_section *s);
	/* All sections are there: anything missing? May be NULL. */
	int (*loaded)(struct vm *vm);
	int (*throttle)(struct vm *vm, unsigned int percent);
	/* Counters of vCPU @i's workload. Any time. */
	void (*regs)(struct vm *vm, unsigned int i, struct workload_regs *regs);
	/* ended_fd is readable: how? 0: in order, else -errno; vm->error says it */
	int (*ended)(struct vm *vm);
	/* Bytes typed at the serial console. May be NULL. */
	void (*input)(struct vm *vm, const void *data, size_t len);
	void (*destroy)(struct vm *vm);
};

extern const struct vm_accel accel_kvm, accel_process;

struct virtio_net_front;

struct vm {
	struct vm_conf conf;
	const struct vm_accel *accel;
	void *accel_data;
	struct ram ram;
	int ended_fd; /* readable when the guest has ended by itself; the accelerator's */
	struct virtio_net_front *net[VM_MAX_NETS];
	pthread_mutex_t lock;
	bool running;	 /* under lock */
	bool drained;	 /* under lock */
	char error[256]; /* of the last failure, for people */
};

/** vm_create() - machine of @conf, nothing runs. @why: message on failure. */
int vm_create(const struct vm_conf *conf, struct vm **out, char *why, size_t why_len);

/** vm_destroy() - NULL is fine */
void vm_destroy(struct vm *vm);

/* Each 0 or -errno, then vm->error says why. Twice is fine. */
int vm_boot(struct vm *vm);
int vm_start(struct vm *vm);
int vm_pause(struct vm *vm);
int vm_throttle(struct vm *vm, unsigned int percent);

/** vm_drain() - stop the devices' rings: on return no device writes guest memory. The
 * vCPUs are stopped. vm_start() lets them go on */
int vm_drain(struct vm *vm);

/** vm_dirty() - a set of everything that tracks this machine's writes */
int vm_dirty(struct vm *vm, struct dirty_set **out);
/** vm_dirty_end() - destroy it; NULL is fine */
void vm_dirty_end(struct vm *vm, struct dirty_set *set);

/** vm_save() - state beside the RAM; paused and drained */
int vm_save(struct vm *vm, struct state_writer *w);
/** vm_load() - the same into a machine that was created and not booted */
int vm_load(struct vm *vm, const uint8_t *state, size_t len);

/** vm_fail() - set vm->error. Return: @err */
int vm_fail(struct vm *vm, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* ---- configuration ----------------------------------------------------------------- */

/** vm_conf_check() - is it possible? Return: 0, -EINVAL with @why */
int vm_conf_check(const struct vm_conf *conf, char *why, size_t why_len);

/** vm_conf_json() - what the destination has to know; the caller frees it. NULL: memory
 */
char *vm_conf_json(const struct vm_conf *conf);

/**
 * vm_conf_parse() - foreign text into @conf, whose local parts stay as they are
 * Return: 0, -EINVAL with @why
 */
int vm_conf_parse(const char *json, struct vm_conf *conf, char *why, size_t why_len);

/** vm_parse_mac() - "02:00:00:00:00:11". Return: 0, -EINVAL */
int vm_parse_mac(const char *s, uint8_t mac[6]);

#endif
