/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fake_kvm: machines of the small VMM for fuzzing, on a KVM that is played here: ioctl() of
 * the program keeps what it is given as KVM does, gives it out again, and reads each
 * structure as far as KVM reads it. One thread.
 */
#ifndef FUZZ_FAKE_KVM_H
#define FUZZ_FAKE_KVM_H

#include "../../vm-migrate/vmm/kvm.h"

#define FAKE_KVM_MACHINES 2
#define FAKE_KVM_VCPUS	  2
#define FAKE_KVM_LOW	  (2UL << 20) /* bytes of RAM from 0 */
#define FAKE_KVM_HIGH                                                                    \
	(1UL << 20) /* and from VM_HOLE_END; its memory is the machines' own */

/** fake_kvm_init() - memory of all machines, which is never given back. Twice is fine */
void fake_kvm_init(void);
/**
 * fake_kvm_make() - machine @m, as after kvm_create() but without devices
 * @xsave:	bytes of FPU state that this KVM keeps
 */
struct vm *fake_kvm_make(unsigned int m, unsigned int vcpus, size_t xsave);
/** fake_kvm_end() - its devices are gone already */
void fake_kvm_end(struct vm *vm);

/** fake_kvm_vm_fd() - what its devices are told is KVM's */
int fake_kvm_vm_fd(const struct vm *vm);

/** fake_kvm_fail_at() - from now on, the @n-th call fails; 0: none */
void fake_kvm_fail_at(unsigned int n);
/** fake_kvm_whole() - has all of its state been set? */
bool fake_kvm_whole(const struct vm *vm);

#endif
