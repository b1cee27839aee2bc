// SPDX-License-Identifier: BSD-2-Clause
/*
 * kvm_exit: what a vCPU comes out of KVM_RUN for: ports, devices, a full dirty ring, the
 * guest's end. On the vCPU's thread.
 *
 * The end. A guest that powers off, resets or breaks is over: its vCPUs park, ended_fd
 * becomes readable.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "../../user/lib/clock.h"
#include "../../user/lib/log.h"
#include "kvm.h"
#include "virtio_mmio.h"

#define PM_HZ	  3579545
#define PM_S5	  (1u << 13 | 5u << 10) /* sleep enable, type 5 */
#define PM_SLP_EN (1u << 13)
#define PM_SCI_EN 1u

/* ---- the guest's end --------------------------------------------------------------- */

void kvm_guest_over(struct vm *vm, int err, const char *why)
{
	struct kvm *k = vm->accel_data;
	const uint64_t one = 1;

	pthread_mutex_lock(&k->lock);
	if (!k->over) {
		k->over = true;
		k->end_err = err;
		snprintf(vm->error, sizeof(vm->error), "%s", why);
		if (write(vm->ended_fd, &one, sizeof(one)) < 0)
			log_err("eventfd: %s", strerror(errno));
	}
	pthread_mutex_unlock(&k->lock);
}

int kvm_ended(struct vm *vm)
{
	struct kvm *k = vm->accel_data;
	int err;

	pthread_mutex_lock(&k->lock);
	err = k->end_err;
	pthread_mutex_unlock(&k->lock);
	return err;
}

/* ---- devices ----------------------------------------------------------------------- */

void kvm_serial_irq(void *arg, bool level)
{
	struct kvm *k = arg;
	struct kvm_irq_level l = { .irq = KVM_SERIAL_GSI, .level = level };

	ioctl(k->vm_fd, KVM_IRQ_LINE, &l);
}

uint32_t kvm_pm_timer(const struct kvm *k)
{
	const uint64_t ns = clock_ns();

	return (uint32_t)((int64_t)(ns / 1000000000 * PM_HZ +
				    ns % 1000000000 * PM_HZ / 1000000000) +
			  k->pm_offset);
}

static uint32_t pm_read(struct kvm *k, unsigned int at)
{
	switch (at) {
	case KVM_PM_EVT + 2: return k->pm_enable;
	case KVM_PM_CNT: return k->pm_control | PM_SCI_EN;
	case KVM_PM_TMR: return kvm_pm_timer(k);
	default: return 0;
	}
}

static void pm_write(struct vm *vm, unsigned int at, uint32_t v)
{
	struct kvm *k = vm->accel_data;

	if (at == KVM_PM_EVT + 2)
		k->pm_enable = (uint16_t)v;
	if (at != KVM_PM_CNT)
		return;
	k->pm_control = (uint16_t)(v & ~PM_SLP_EN);
	if ((v & PM_S5) == PM_S5)
		kvm_guest_over(vm, 0, "the guest powered off");
}

static void flat_done(struct vcpu *cpu)
{
	struct kvm *k = cpu->vm->accel_data;
	bool all;

	pthread_mutex_lock(&k->lock);
	k->done |= 1U << cpu->i;
	all = k->done == (1U << k->n) - 1;
	pthread_mutex_unlock(&k->lock);
	if (all)
		kvm_guest_over(cpu->vm, 0, "the workload has ended");
}

static void flat_fault(struct vcpu *cpu)
{
	char why[160];

	kvm_flat_fault_text(cpu, why, sizeof(why));
	kvm_guest_over(cpu->vm, -EIO, why);
}

static void port_out(struct vcpu *cpu, uint16_t port, uint32_t v)
{
	struct vm *vm = cpu->vm;
	struct kvm *k = vm->accel_data;

	if (port >= KVM_SERIAL && port < KVM_SERIAL + SERIAL_PORTS)
		serial_write(&k->serial, port - KVM_SERIAL, (uint8_t)v);
	else if (port >= KVM_PM_PORT && port < KVM_PM_PORT + KVM_PM_PORTS)
		pm_write(vm, port - KVM_PM_PORT, v);
	else if (port == KVM_KBD_PORT && (uint8_t)v == KVM_KBD_RESET)
		kvm_guest_over(vm, 0, "the guest restarted, which ends this VM");
	else if (port == KVM_FLAT_PORT && vm->conf.work.on)
		flat_done(cpu);
	else if (port == KVM_FAULT_PORT && vm->conf.work.on)
		flat_fault(cpu);
}

/* What is not there reads as all ones. */
static uint32_t port_in(struct vm *vm, uint16_t port)
{
	struct kvm *k = vm->accel_data;

	if (port >= KVM_SERIAL && port < KVM_SERIAL + SERIAL_PORTS)
		return serial_read(&k->serial, port - KVM_SERIAL);
	if (port >= KVM_PM_PORT && port < KVM_PM_PORT + KVM_PM_PORTS)
		return pm_read(k, port - KVM_PM_PORT);
	return port == KVM_KBD_PORT ? 0 : UINT32_MAX;
}

static void exit_io(struct vcpu *v)
{
	struct kvm_run *run = v->run;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;

	for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
		uint32_t x = 0;

		if (run->io.direction == KVM_EXIT_IO_OUT) {
			memcpy(&x, data, run->io.size);
			port_out(v, run->io.port, x);
		} else {
			x = port_in(v->vm, run->io.port);
			memcpy(data, &x, run->io.size);
		}
	}
}

static void exit_mmio(struct vcpu *v)
{
	struct kvm_run *run = v->run;
	const uint64_t off = run->mmio.phys_addr - KVM_MMIO;
	struct virtio_net_front *n = NULL;

	if (run->mmio.phys_addr >= KVM_MMIO && off / KVM_MMIO_SIZE < VM_MAX_NETS)
		n = v->vm->net[off / KVM_MMIO_SIZE];
	if (n && run->mmio.is_write)
		virtio_net_write(n, off % KVM_MMIO_SIZE, run->mmio.data, run->mmio.len);
	else if (n)
		virtio_net_read(n, off % KVM_MMIO_SIZE, run->mmio.data, run->mmio.len);
	else if (!run->mmio.is_write)
		memset(run->mmio.data, 0xff, sizeof(run->mmio.data));
}

static void exit_internal(struct vcpu *v)
{
	char why[160];

	snprintf(why, sizeof(why), "KVM cannot run vCPU %u: internal error %u", v->i,
		 v->run->internal.suberror);
	kvm_guest_over(v->vm, -EIO, why);
}

static void exit_shutdown(struct vcpu *v)
{
	struct kvm_regs r = { 0 };
	struct kvm_sregs s = { 0 };
	char why[160];

	ioctl(v->fd, KVM_GET_REGS, &r);
	ioctl(v->fd, KVM_GET_SREGS, &s);
	snprintf(why, sizeof(why),
		 "the guest crashed (triple fault): vCPU %u, rip %#llx, cr2 %#llx, cr3 "
		 "%#llx",
		 v->i, (unsigned long long)r.rip, (unsigned long long)s.cr2,
		 (unsigned long long)s.cr3);
	kvm_guest_over(v->vm, -EIO, why);
}

static void ring_full(struct vcpu *v)
{
	struct kvm *k = v->vm->accel_data;

	pthread_mutex_lock(&k->ring_lock);
	if (k->ring)
		dirty_kvm_ring_drain(k->ring);
	else
		ioctl(k->vm_fd, KVM_RESET_DIRTY_RINGS, 0);
	pthread_mutex_unlock(&k->ring_lock);
}

void kvm_handle_exit(struct vcpu *v)
{
	char why[160];

	switch (v->run->exit_reason) {
	case KVM_EXIT_IO: exit_io(v); return;
	case KVM_EXIT_MMIO: exit_mmio(v); return;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
	case KVM_EXIT_HLT: return;
	case KVM_EXIT_DIRTY_RING_FULL: ring_full(v); return;
	case KVM_EXIT_SHUTDOWN: exit_shutdown(v); return;
	case KVM_EXIT_SYSTEM_EVENT: kvm_guest_over(v->vm, 0, "the guest ended"); return;
	case KVM_EXIT_INTERNAL_ERROR: exit_internal(v); return;
	case KVM_EXIT_FAIL_ENTRY:
		snprintf(why, sizeof(why), "KVM cannot enter vCPU %u: reason %#llx", v->i,
			 (unsigned long long)
				 v->run->fail_entry.hardware_entry_failure_reason);
		kvm_guest_over(v->vm, -EIO, why);
		return;
	default:
		snprintf(why, sizeof(why), "KVM left vCPU %u for reason %u", v->i,
			 v->run->exit_reason);
		kvm_guest_over(v->vm, -EIO, why);
	}
}
