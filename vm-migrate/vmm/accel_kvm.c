// SPDX-License-Identifier: BSD-2-Clause
/*
 * accel_kvm: vCPUs by KVM: the machine made, its dirty pages, its end. See kvm.h for the
 * other parts.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kvm.h"
#include "virtio_mmio.h"

#define TSS_ADDR     0xfffbd000u /* three pages that Intel's real mode needs */
#define IDENTITY_MAP 0xfffbc000u
#define RING_BYTES   (1u << 20)

void *kvm_guest_at(struct vm *vm, uint64_t gpa, uint64_t len)
{
	for (unsigned int i = 0; i < vm->ram.nblocks; i++) {
		const struct ram_block *b = &vm->ram.block[i];

		if (gpa >= b->gpa && gpa - b->gpa < b->size &&
		    len <= b->size - (gpa - b->gpa))
			return b->hva + (gpa - b->gpa);
	}
	return NULL;
}

/* ---- dirty pages ------------------------------------------------------------------- */

static unsigned int slots(const struct vm *vm, struct dirty_kvm_slot *slot)
{
	for (unsigned int i = 0; i < vm->ram.nblocks; i++)
		slot[i] = (struct dirty_kvm_slot){
			.slot = i,
			.first_page = vm->ram.block[i].first_page,
			.pages = vm->ram.block[i].size / RAM_PAGE_SIZE,
		};
	return vm->ram.nblocks;
}

static int kvm_add_dirty(struct vm *vm, struct dirty_set *set)
{
	struct kvm *k = vm->accel_data;
	struct dirty_kvm_slot slot[RAM_MAX_BLOCKS];
	struct dirty_kvm_vcpu cpu[VM_MAX_VCPUS];
	const unsigned int n = slots(vm, slot);
	struct dirty_source *src;
	int err;

	for (unsigned int i = 0; i < k->n; i++)
		cpu[i] = (struct dirty_kvm_vcpu){ .fd = k->vcpu[i].fd,
						  .kick = kvm_vcpu_flush,
						  .arg = &k->vcpu[i],
						  .next = &k->vcpu[i].ring_next };
	if (k->ring_bytes)
		err = dirty_kvm_ring_create(&vm->ram, k->vm_fd, k->ring_bytes, slot, n,
					    cpu, k->n, &src);
	else
		err = dirty_kvm_bitmap_create(&vm->ram, k->vm_fd, slot, n, &src);
	if (err)
		return vm_fail(vm, err, "KVM's dirty log: %s", strerror(-err));
	err = dirty_set_add(set, src);
	if (!err && k->ring_bytes) {
		pthread_mutex_lock(&k->ring_lock);
		k->ring = src;
		pthread_mutex_unlock(&k->ring_lock);
	}
	return err;
}

static void kvm_drop_dirty(struct vm *vm)
{
	struct kvm *k = vm->accel_data;

	pthread_mutex_lock(&k->ring_lock);
	k->ring = NULL;
	pthread_mutex_unlock(&k->ring_lock);
}

/* ---- creation ---------------------------------------------------------------------- */

static int open_kvm(struct vm *vm, struct kvm *k)
{
	static const struct {
		int cap;
		const char *name;
	} need[] = {
		{ KVM_CAP_IRQCHIP, "an interrupt controller" },
		{ KVM_CAP_PIT2, "a timer" },
		{ KVM_CAP_USER_MEMORY, "user memory" },
		{ KVM_CAP_XSAVE, "XSAVE" },
		{ KVM_CAP_XCRS, "XCRS" },
		{ KVM_CAP_DEBUGREGS, "debug registers" },
		{ KVM_CAP_VCPU_EVENTS, "vCPU events" },
		{ KVM_CAP_IMMEDIATE_EXIT, "immediate exit" },
		{ KVM_CAP_MP_STATE, "MP state" },
		{ KVM_CAP_ADJUST_CLOCK, "its clock" },
	};

	k->fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (k->fd < 0)
		return vm_fail(
			vm, -ENODEV,
			"/dev/kvm: %s; load kvm-intel or kvm-amd, join group kvm, or "
			"use --accel process with a workload",
			strerror(errno));
	if (ioctl(k->fd, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
		return vm_fail(vm, -ENODEV, "KVM has another interface");
	for (unsigned int i = 0; i < sizeof(need) / sizeof(need[0]); i++)
		if (ioctl(k->fd, KVM_CHECK_EXTENSION, need[i].cap) <= 0)
			return vm_fail(vm, -EOPNOTSUPP, "this machine's KVM lacks %s",
				       need[i].name);
	k->vm_fd = ioctl(k->fd, KVM_CREATE_VM, 0);
	if (k->vm_fd < 0)
		return vm_fail(vm, -errno, "KVM_CREATE_VM: %s", strerror(errno));
	return 0;
}

static int make_chips(struct vm *vm, struct kvm *k)
{
	const uint64_t map = IDENTITY_MAP;
	const struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };

	if (ioctl(k->vm_fd, KVM_SET_TSS_ADDR, TSS_ADDR) ||
	    ioctl(k->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &map) ||
	    ioctl(k->vm_fd, KVM_CREATE_IRQCHIP, 0) ||
	    ioctl(k->vm_fd, KVM_CREATE_PIT2, &pit))
		return vm_fail(vm, -errno, "KVM's chips: %s", strerror(errno));
	return 0;
}

static int make_slots(struct vm *vm, struct kvm *k)
{
	for (unsigned int i = 0; i < vm->ram.nblocks; i++) {
		const struct ram_block *b = &vm->ram.block[i];
		const struct kvm_userspace_memory_region r = {
			.slot = i,
			.guest_phys_addr = b->gpa,
			.memory_size = b->size,
			.userspace_addr = (uintptr_t)b->hva,
		};

		if (ioctl(k->vm_fd, KVM_SET_USER_MEMORY_REGION, &r))
			return vm_fail(vm, -errno, "memory of the guest: %s",
				       strerror(errno));
	}
	return 0;
}

static int make_ring(struct vm *vm, struct kvm *k)
{
	int err;

	if (vm->conf.track == VM_TRACK_PAGEMAP || vm->conf.track == VM_TRACK_SELF)
		return vm_fail(vm, -EINVAL, "KVM's pages are tracked by bitmap or ring");
	if (vm->conf.track != VM_TRACK_RING)
		return 0;
	k->ring_bytes = RING_BYTES;
	err = dirty_kvm_ring_enable(k->vm_fd, &k->ring_bytes);
	if (err)
		return vm_fail(vm, err,
			       "this machine's KVM has no dirty ring (%s); leave "
			       "--dirty ring out",
			       strerror(-err));
	return 0;
}

static int make_vcpu(struct vm *vm, struct kvm *k, unsigned int i)
{
	struct vcpu *v = &k->vcpu[i];
	const size_t len =
		sizeof(*k->cpuid) + k->cpuid->nent * sizeof(k->cpuid->entries[0]);
	struct kvm_cpuid2 *c;
	int err = 0;

	v->fd = ioctl(k->vm_fd, KVM_CREATE_VCPU, i);
	if (v->fd < 0)
		return vm_fail(vm, -errno, "vCPU %u: %s", i, strerror(errno));
	v->run = mmap(NULL, v->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (v->run == MAP_FAILED) {
		v->run = NULL;
		return vm_fail(vm, -errno, "vCPU %u: %s", i, strerror(errno));
	}
	c = malloc(len);
	if (!c)
		return vm_fail(vm, -ENOMEM, "out of memory");
	memcpy(c, k->cpuid, len);
	kvm_cpuid_for(c, i);
	if (ioctl(v->fd, KVM_SET_CPUID2, c))
		err = vm_fail(vm, -errno, "CPUID of vCPU %u: %s", i, strerror(errno));
	free(c);
	return err;
}

static int make_vcpus(struct vm *vm, struct kvm *k)
{
	int size = ioctl(k->fd, KVM_GET_VCPU_MMAP_SIZE, 0), err;

	if (size < (int)sizeof(struct kvm_run))
		return vm_fail(vm, -EOPNOTSUPP, "KVM_GET_VCPU_MMAP_SIZE: %s",
			       strerror(errno));
	err = kvm_cpuid_get(k->fd, &k->cpuid);
	if (err)
		return vm_fail(vm, err, "CPUID: %s", strerror(-err));
	for (unsigned int i = 0; i < k->n && !err; i++) {
		k->vcpu[i].run_size = (size_t)size;
		err = make_vcpu(vm, k, i);
	}
	return err;
}

static int kvm_create(struct vm *vm)
{
	struct kvm *k = calloc(1, sizeof(*k));
	pthread_condattr_t attr;
	int err;

	if (!k)
		return vm_fail(vm, -ENOMEM, "out of memory");
	vm->accel_data = k;
	k->fd = k->vm_fd = -1;
	k->n = vm->conf.vcpus;
	k->stop = true;
	pthread_mutex_init(&k->lock, NULL);
	pthread_mutex_init(&k->ring_lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&k->cond, &attr);
	pthread_condattr_destroy(&attr);
	serial_init(&k->serial, vm->conf.console_fd, kvm_serial_irq, k);
	for (unsigned int i = 0; i < VM_MAX_VCPUS; i++)
		k->vcpu[i] = (struct vcpu){ .vm = vm, .i = i, .fd = -1 };
	kvm_vcpus_init();
	vm->ended_fd = eventfd(0, EFD_CLOEXEC);
	if (vm->ended_fd < 0)
		return vm_fail(vm, -errno, "eventfd: %s", strerror(errno));
	err = open_kvm(vm, k);
	if (!err)
		err = make_chips(vm, k);
	if (!err)
		err = make_ring(vm, k);
	if (!err)
		err = make_slots(vm, k);
	if (!err)
		err = make_vcpus(vm, k);
	for (unsigned int i = 0; i < vm->conf.nnets && !err; i++)
		err = virtio_net_create(vm, i, k->vm_fd, &vm->net[i]);
	return err ? err : kvm_state_init(vm);
}

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

static void kvm_destroy(struct vm *vm)
{
	struct kvm *k = vm->accel_data;

	kvm_throttle(vm, 0);
	kvm_vcpus_end(k);
	for (unsigned int i = 0; i < k->n; i++) {
		struct vcpu *v = &k->vcpu[i];

		if (v->run)
			munmap(v->run, v->run_size);
		close_fd(v->fd);
	}
	for (unsigned int i = 0; i < VM_MAX_NETS; i++) {
		virtio_net_destroy(vm->net[i]);
		vm->net[i] = NULL;
	}
	serial_fini(&k->serial);
	close_fd(k->vm_fd);
	close_fd(k->fd);
	close_fd(vm->ended_fd);
	free(k->cpuid);
	free(k->msrs);
	pthread_cond_destroy(&k->cond);
	pthread_mutex_destroy(&k->ring_lock);
	pthread_mutex_destroy(&k->lock);
	free(k);
	vm->accel_data = NULL;
}

static int kvm_boot(struct vm *vm)
{
	return vm->conf.work.on ? kvm_boot_flat(vm) : kvm_boot_linux(vm);
}

static void kvm_regs(struct vm *vm, unsigned int i, struct workload_regs *regs)
{
	if (vm->conf.work.on)
		kvm_flat_regs(vm, i, regs);
}

static void kvm_input(struct vm *vm, const void *data, size_t len)
{
	struct kvm *k = vm->accel_data;

	serial_input(&k->serial, data, len);
}

const struct vm_accel accel_kvm = {
	.name = "kvm",
	.create = kvm_create,
	.boot = kvm_boot,
	.start = kvm_start,
	.pause = kvm_pause,
	.add_dirty = kvm_add_dirty,
	.drop_dirty = kvm_drop_dirty,
	.save = kvm_state_save,
	.load = kvm_state_load,
	.loaded = kvm_state_loaded,
	.throttle = kvm_throttle,
	.regs = kvm_regs,
	.ended = kvm_ended,
	.input = kvm_input,
	.destroy = kvm_destroy,
};
