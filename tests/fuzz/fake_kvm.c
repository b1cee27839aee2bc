// SPDX-License-Identifier: BSD-2-Clause
/* fake_kvm: see fake_kvm.h. Source: Documentation/virt/kvm/api.rst, by ioctl. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "fake_kvm.h"
#include "input.h"

#define FIRST_FD    100000 /* not of files */
#define FDS	    16	   /* of a machine: its own, then the vCPUs' */
#define MAX_CPUID   256	   /* KVM_MAX_CPUID_ENTRIES */
#define MAX_XSAVE   8192
#define CHIPS	    3
#define MY_TSC_KHZ  3000000
#define MAX_TSC_KHZ 10000000

/* One cannot be written but to what it is, and there is one that does not exist. */
static const uint32_t msrs[] = { 0x10, 0x174, 0x6e0, 0xc0000080, 0x3a };
#define MSRS	 (sizeof(msrs) / sizeof(msrs[0]))
#define FIXED_AT 4

/* In the order in which they may be set. */
enum { CPUID, MP_STATE, REGS, SREGS, XSAVE, XCRS, DEBUGREGS, LAPIC, MSR, EVENTS, KINDS };

struct fake_vcpu {
	struct kvm_cpuid_entry2 cpuid[MAX_CPUID];
	unsigned int ncpuid, order; /* order: the kind that was set last */
	uint32_t set;		    /* kinds, a bit each */
	int khz;
	struct kvm_mp_state mp;
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_xcrs xcrs;
	struct kvm_debugregs debugregs;
	struct kvm_lapic_state lapic;
	struct kvm_vcpu_events events;
	uint8_t xsave[MAX_XSAVE];
	uint64_t msr[MSRS];
};

struct fake {
	struct vm vm;
	struct kvm kvm;
	struct fake_vcpu vcpu[FAKE_KVM_VCPUS];
	struct kvm_irqchip chip[CHIPS];
	struct kvm_pit_state2 pit;
	struct kvm_clock_data clock;
	uint32_t chips, pits, clocks; /* that were set */
};

static struct ram ram[FAKE_KVM_MACHINES];
static struct fake fake[FAKE_KVM_MACHINES];
static unsigned int fail_at;

/* ---- what is played ---------------------------------------------------------------- */

struct piece {
	unsigned long get, set;
	size_t at, size;
	unsigned int kind;
};

#define PIECE(name, member, kind)                                                        \
	{                                                                                \
		KVM_GET_##name, KVM_SET_##name, offsetof(struct fake_vcpu, member),      \
			sizeof(((struct fake_vcpu *)0)->member), kind                    \
	}

static const struct piece pieces[] = {
	PIECE(MP_STATE, mp, MP_STATE),
	PIECE(REGS, regs, REGS),
	PIECE(SREGS, sregs, SREGS),
	PIECE(XCRS, xcrs, XCRS),
	PIECE(DEBUGREGS, debugregs, DEBUGREGS),
	PIECE(LAPIC, lapic, LAPIC),
	PIECE(VCPU_EVENTS, events, EVENTS),
};

static int no(int err)
{
	errno = err;
	return -1;
}

static void was_set(struct fake_vcpu *v, unsigned int kind)
{
	CHECK(kind >= v->order);
	v->order = kind;
	v->set |= 1U << kind;
}

static int set_cpuid(struct fake_vcpu *v, const struct kvm_cpuid2 *c)
{
	if (c->nent > MAX_CPUID)
		return no(E2BIG);
	memcpy(v->cpuid, c->entries, c->nent * sizeof(c->entries[0]));
	v->ncpuid = c->nent;
	was_set(v, CPUID);
	return 0;
}

/* Return: how many of one it took */
static int set_msr(struct fake_vcpu *v, const struct kvm_msrs *m)
{
	CHECK(m->nmsrs == 1);
	was_set(v, MSR);
	for (unsigned int i = 0; i < MSRS; i++) {
		if (m->entries[0].index != msrs[i])
			continue;
		if (i == FIXED_AT && m->entries[0].data != v->msr[i])
			return 0;
		v->msr[i] = m->entries[0].data;
		return 1;
	}
	return 0;
}

static int get_msr(const struct fake_vcpu *v, struct kvm_msrs *m)
{
	CHECK(m->nmsrs == 1);
	for (unsigned int i = 0; i < MSRS; i++)
		if (m->entries[0].index == msrs[i]) {
			m->entries[0].data = v->msr[i];
			return 1;
		}
	return 0;
}

static int on_vcpu(const struct fake *f, struct fake_vcpu *v, unsigned long req,
		   void *arg)
{
	const size_t xsave = f->kvm.xsave_size;

	for (unsigned int i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
		uint8_t *mine = (uint8_t *)v + pieces[i].at;

		if (req == pieces[i].get)
			memcpy(arg, mine, pieces[i].size);
		if (req == pieces[i].set) {
			memcpy(mine, arg, pieces[i].size);
			was_set(v, pieces[i].kind);
		}
		if (req == pieces[i].set || req == pieces[i].get)
			return 0;
	}
	switch (req) {
	case KVM_SET_CPUID2: return set_cpuid(v, arg);
	case KVM_GET_TSC_KHZ: return v->khz;
	case KVM_SET_TSC_KHZ:
		if ((uintptr_t)arg > MAX_TSC_KHZ)
			return no(EINVAL);
		v->khz = (int)(uintptr_t)arg;
		return 0;
	case KVM_SET_MSRS: return set_msr(v, arg);
	case KVM_GET_MSRS: return get_msr(v, arg);
	case KVM_SET_XSAVE:
		memcpy(v->xsave, arg, xsave);
		was_set(v, XSAVE);
		return 0;
	case KVM_GET_XSAVE:
		CHECK(xsave == sizeof(struct kvm_xsave));
		memcpy(arg, v->xsave, xsave);
		return 0;
	case KVM_GET_XSAVE2: memcpy(arg, v->xsave, xsave); return 0;
	default: return no(EINVAL);
	}
}

static int on_vm(struct fake *f, unsigned long req, void *arg)
{
	struct kvm_irqchip *chip = arg;

	switch (req) {
	case KVM_SET_IRQCHIP:
		if (chip->chip_id >= CHIPS)
			return no(EINVAL);
		f->chip[chip->chip_id] = *chip;
		f->chips |= 1U << chip->chip_id;
		return 0;
	case KVM_GET_IRQCHIP:
		CHECK(chip->chip_id < CHIPS);
		*chip = f->chip[chip->chip_id];
		return 0;
	case KVM_SET_PIT2:
		memcpy(&f->pit, arg, sizeof(f->pit));
		f->pits++;
		return 0;
	case KVM_GET_PIT2: memcpy(arg, &f->pit, sizeof(f->pit)); return 0;
	case KVM_SET_CLOCK:
		memcpy(&f->clock, arg, sizeof(f->clock));
		f->clocks++;
		return 0;
	case KVM_GET_CLOCK: memcpy(arg, &f->clock, sizeof(f->clock)); return 0;
	case KVM_IRQ_LINE:
	case KVM_IOEVENTFD:
	case KVM_IRQFD: return 0;
	default: return no(EINVAL);
	}
}

int ioctl(int fd, unsigned long req, ...);
int ioctl(int fd, unsigned long req, ...)
{
	const unsigned int m = (unsigned int)(fd - FIRST_FD) / FDS,
			   i = (unsigned int)(fd - FIRST_FD) % FDS;
	va_list ap;
	void *arg;

	if (fd < FIRST_FD || m >= FAKE_KVM_MACHINES || i > FAKE_KVM_VCPUS)
		return no(EBADF);
	va_start(ap, req);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (req != KVM_IRQ_LINE && fail_at && !--fail_at)
		return no(EINVAL);
	return i ? on_vcpu(&fake[m], &fake[m].vcpu[i - 1], req, arg)
		 : on_vm(&fake[m], req, arg);
}

/* ---- machines ---------------------------------------------------------------------- */

/* What this machine can: some of the features that are looked at. */
static struct kvm_cpuid2 *my_cpuid(void)
{
	static const struct kvm_cpuid_entry2 e[] = {
		{ .function = 1, .ebx = 0x800, .ecx = 0xfffa3203, .edx = 0x1f8bfbff },
		{ .function = 4, .eax = 0x1c000121, .flags = 1 },
		{ .function = 7, .ebx = 0x219c07ab, .ecx = 0x400004, .flags = 1 },
		{ .function = 0xb, .eax = 1, .ebx = 2, .flags = 1 },
		{ .function = 0xd, .eax = 7, .flags = 1 },
		{ .function = 0x80000001, .ecx = 0x4003f7, .edx = 0x2fd3fbff },
		{ .function = 0x80000008, .eax = 0x3028, .ecx = 0x3007 },
		{ .function = 0x40000001, .eax = 0x1007afb },
	};
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + sizeof(e));

	CHECK(c);
	c->nent = sizeof(e) / sizeof(e[0]);
	memcpy(c->entries, e, sizeof(e));
	return c;
}

static void make_kvm(struct fake *f, unsigned int m, unsigned int vcpus, size_t xsave)
{
	struct kvm *k = &f->kvm;

	k->fd = -1;
	k->vm_fd = FIRST_FD + (int)(m * FDS);
	k->n = vcpus;
	k->stop = true;
	k->cpuid = my_cpuid();
	k->xsave_size = xsave;
	k->msrs = calloc(1, sizeof(*k->msrs) + sizeof(msrs));
	CHECK(k->msrs && vcpus <= FAKE_KVM_VCPUS && xsave <= MAX_XSAVE);
	k->msrs->nmsrs = MSRS;
	memcpy(k->msrs->indices, msrs, sizeof(msrs));
	pthread_mutex_init(&k->lock, NULL);
	pthread_mutex_init(&k->ring_lock, NULL);
	serial_init(&k->serial, f->vm.conf.console_fd, kvm_serial_irq, k);
	for (uint32_t i = 0; i < CHIPS; i++)
		f->chip[i].chip_id = i;
	for (unsigned int i = 0; i < vcpus; i++) {
		k->vcpu[i] = (struct vcpu){ .vm = &f->vm, .i = i };
		k->vcpu[i].fd = k->vm_fd + 1 + (int)i;
		f->vcpu[i].khz = MY_TSC_KHZ;
	}
}

void fake_kvm_init(void)
{
	for (unsigned int m = 0; m < FAKE_KVM_MACHINES && !ram[m].nblocks; m++) {
		ram_init(&ram[m]);
		CHECK(!ram_add(&ram[m], 0, FAKE_KVM_LOW, 0));
		CHECK(!ram_add(&ram[m], VM_HOLE_END, FAKE_KVM_HIGH, 0));
	}
}

struct vm *fake_kvm_make(unsigned int m, unsigned int vcpus, size_t xsave)
{
	struct fake *f = &fake[m];

	memset(f, 0, sizeof(*f));
	f->vm.ram = ram[m];
	f->vm.accel = &accel_kvm;
	f->vm.accel_data = &f->kvm;
	f->vm.conf.vcpus = vcpus;
	f->vm.conf.console_fd = -1;
	f->vm.ended_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	CHECK(f->vm.ended_fd >= 0);
	pthread_mutex_init(&f->vm.lock, NULL);
	make_kvm(f, m, vcpus, xsave);
	fail_at = 0;
	return &f->vm;
}

void fake_kvm_end(struct vm *vm)
{
	struct kvm *k = vm->accel_data;

	serial_fini(&k->serial);
	free(k->cpuid);
	free(k->msrs);
	pthread_mutex_destroy(&k->lock);
	pthread_mutex_destroy(&k->ring_lock);
	pthread_mutex_destroy(&vm->lock);
	close(vm->ended_fd);
}

int fake_kvm_vm_fd(const struct vm *vm)
{
	return ((const struct kvm *)vm->accel_data)->vm_fd;
}

void fake_kvm_fail_at(unsigned int n)
{
	fail_at = n;
}

bool fake_kvm_whole(const struct vm *vm)
{
	const struct fake *f = (const struct fake *)vm;

	for (unsigned int i = 0; i < f->kvm.n; i++)
		if ((f->vcpu[i].set | 1U << MSR) != (1U << KINDS) - 1)
			return false;
	return f->chips == (1U << CHIPS) - 1 && f->pits && f->clocks;
}
