/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * kvm: what the files of the KVM accelerator share.
 *
 *	accel_kvm.c	  the machine made, its dirty pages, the table
 *	kvm_vcpu.c	  vCPU threads: start, pause, throttle
 *	kvm_exit.c	  what vCPUs come out for: devices, the guest's end
 *	accel_kvm_state.c state of vCPUs and chips, saved and loaded
 *	kvm_cpuid.c	  what a vCPU says that it is
 *	kvm_boot.c	  a Linux bzImage by its 64-bit boot protocol
 *	kvm_acpi.c	  the tables that tell Linux of CPUs and devices
 *	kvm_flat.c	  the workload as machine code
 */
#ifndef VMM_KVM_H
#define VMM_KVM_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>

#include "serial.h"
#include "vm.h"

/* Guest-physical addresses and ports. Everything below 1 MiB is the boot's; RAM. */
#define KVM_GDT	       0x500
#define KVM_IDT	       0x600
#define KVM_ZERO_PAGE  0x7000 /* struct boot_params */
#define KVM_PML4       0x9000
#define KVM_PDPT       0xa000
#define KVM_CMDLINE    0x20000
#define KVM_FLAT_CODE  0x10000
#define KVM_FLAT_STUBS 0x10800
#define KVM_FLAT_VCPU  0x30000 /* 512 bytes a vCPU: regs, then plan */
#define KVM_PD	       0x40000 /* page directories, one a GiB */
#define KVM_PD_MAX     64
#define KVM_LOW_END    0x9fc00
#define KVM_ACPI       0xe0000
#define KVM_HIGH       0x100000
#define KVM_MMIO       0xd0000000ULL /* virtio devices, 4 KiB each */
#define KVM_MMIO_SIZE  0x1000
#define KVM_NET_GSI    16
#define KVM_SERIAL     0x3f8
#define KVM_SERIAL_GSI 4
#define KVM_FLAT_PORT  0x501 /* the workload has done its last write */
#define KVM_FAULT_PORT 0x502 /* it cannot go on */
#define KVM_PM_PORT    0x600 /* ACPI: event 4, control 2 at +4, timer 4 at +8 */
#define KVM_PM_EVT     0
#define KVM_PM_CNT     4
#define KVM_PM_TMR     8
#define KVM_PM_PORTS   12
#define KVM_SCI	       9
#define KVM_KBD_PORT   0x64 /* 0xfe resets */
#define KVM_KBD_RESET  0xfe

struct vcpu {
	struct vm *vm;
	unsigned int i;
	int fd;
	struct kvm_run *run;
	size_t run_size;
	pthread_t thread;
	bool started;		 /* thread exists */
	_Atomic bool inside;	 /* of KVM_RUN, or about to */
	_Atomic uint32_t exits;	 /* times that it came out */
	_Atomic uint64_t nap_ns; /* taken at the next exit: throttle */
	bool parked;		 /* under kvm.lock */
	uint32_t ring_next;	 /* dirty_kvm_vcpu.next */
};

struct kvm {
	int fd, vm_fd;
	unsigned int n;
	struct vcpu vcpu[VM_MAX_VCPUS];
	struct kvm_cpuid2 *cpuid; /* as this machine offers it; changed per vCPU */
	struct serial serial;
	uint16_t pm_enable, pm_control;
	int64_t pm_offset; /* of the timer, ticks */
	size_t xsave_size;
	uint32_t ring_bytes; /* 0: dirty bitmap */
	struct kvm_msr_list *msrs;

	pthread_mutex_t lock;
	pthread_cond_t cond; /* anything below; CLOCK_MONOTONIC */
	_Atomic bool stop;   /* vCPUs are to park */
	bool quit;	     /* and to end */
	uint32_t done;	     /* vCPUs whose workload has ended, a bit each */
	int end_err;	     /* of ended() */
	bool over;	     /* the guest has ended */

	pthread_t throttler;
	bool throttling; /* thread exists */
	_Atomic unsigned int throttle;

	pthread_mutex_t ring_lock; /* ring, while a vCPU drains it */
	struct dirty_source *ring;
	uint32_t loaded_vcpus, loaded_chips;
	bool loaded_clock, loaded_serial;
};

/** kvm_guest_at() - [gpa, gpa + len) here; NULL: not all RAM of one block */
void *kvm_guest_at(struct vm *vm, uint64_t gpa, uint64_t len);

/* ---- kvm_vcpu.c -------------------------------------------------------------------- */

/** kvm_vcpus_init() - the signal that gets vCPUs out of KVM_RUN, for the process */
void kvm_vcpus_init(void);
/** kvm_vcpus_end() - threads end, also in mid-guest; throttle is off. Twice is fine */
void kvm_vcpus_end(struct kvm *k);
/** kvm_vcpu_flush() - dirty_kvm_vcpu.kick: the vCPU @arg has left KVM_RUN once since the call */
void kvm_vcpu_flush(void *arg);
int kvm_start(struct vm *vm);
int kvm_pause(struct vm *vm);
int kvm_throttle(struct vm *vm, unsigned int percent);

/* ---- kvm_exit.c -------------------------------------------------------------------- */

/** kvm_handle_exit() - kvm_run says why it came out; on its thread */
void kvm_handle_exit(struct vcpu *v);
/** kvm_guest_over() - the guest has ended, @err of kvm_ended(); the first one counts */
void kvm_guest_over(struct vm *vm, int err, const char *why);
int kvm_ended(struct vm *vm);
/** kvm_serial_irq() - the serial port's line; @arg: struct kvm */
void kvm_serial_irq(void *arg, bool level);

/* ---- booting ----------------------------------------------------------------------- */

/** kvm_identity_map() - page tables and GDT for long mode, first @gib GiB, 1 to
 * KVM_PD_MAX
 */
void kvm_identity_map(struct vm *vm, unsigned int gib);
/** kvm_long_mode() - registers of a vCPU that begins at @rip with them. 0, -errno */
int kvm_long_mode(struct vcpu *v, const struct kvm_regs *regs);

int kvm_boot_linux(struct vm *vm);
void kvm_boot_acpi(struct vm *vm);
int kvm_boot_flat(struct vm *vm);
/** kvm_flat_fault_text() - what a vCPU that wrote to KVM_FAULT_PORT met with */
void kvm_flat_fault_text(struct vcpu *v, char *text, size_t len);
void kvm_flat_regs(struct vm *vm, unsigned int i, struct workload_regs *regs);

/** kvm_cpuid_get() - what this machine offers, as new memory. 0, -errno */
int kvm_cpuid_get(int kvm_fd, struct kvm_cpuid2 **out);
/** kvm_cpuid_for() - @c as vCPU @i has it: its APIC id, a package of its own */
void kvm_cpuid_for(struct kvm_cpuid2 *c, unsigned int i);
/**
 * kvm_cpuid_missing() - what @want promises and @have, this machine's, does not offer
 * @text: names it. Return: is there anything?
 */
bool kvm_cpuid_missing(const struct kvm_cpuid2 *want, const struct kvm_cpuid2 *have,
		       char *text, size_t len);

int kvm_state_init(struct vm *vm);
int kvm_state_save(struct vm *vm, struct state_writer *w);
int kvm_state_load(struct vm *vm, struct state_section *s);
int kvm_state_loaded(struct vm *vm);

uint32_t kvm_pm_timer(const struct kvm *k);

#endif
