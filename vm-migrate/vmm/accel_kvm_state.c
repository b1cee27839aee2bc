// SPDX-License-Identifier: BSD-2-Clause
/*
 * accel_kvm_state: what KVM keeps of a machine, out of it and into another.
 *
 * A section per kind and vCPU holds KVM's own structure, whose layout is the kernel's
 * stable interface. All vCPUs are parked, and what an exit had left to do is done (see
 * vcpu_complete()).
 *
 * The order matters. CPUID comes before everything that it decides about. The APIC's base
 * is in the sregs and has to be there before the LAPIC; the LAPIC before the MSRs, among
 * which is the TSC deadline, whose timer it starts; events last, as MP state and
 * registers change them. A state is loaded in the order in which it is saved.
 *
 * Source: Documentation/virt/kvm/api.rst, by ioctl.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "kvm.h"

#define MAX_CPUID 256
#define MAX_MSRS  1024
#define CHIPS	  3

/* ---- fixed structures -------------------------------------------------------------- */

/* Kinds of vCPU state that are one structure, in their order. */
enum {
	K_CPUID,
	K_TSC_KHZ,
	K_MP_STATE,
	K_REGS,
	K_SREGS,
	K_XSAVE,
	K_XCRS,
	K_DEBUGREGS,
	K_LAPIC,
	K_MSRS,
	K_EVENTS,
	NKINDS
};

struct kind {
	const char *name;
	unsigned long get, set;
	size_t size; /* 0: has functions of its own */
};

static const struct kind kinds[NKINDS] = {
	[K_CPUID] = { .name = "kvm.cpuid" },
	[K_TSC_KHZ] = { .name = "kvm.tsc_khz" },
	[K_MP_STATE] = { "kvm.mp_state", KVM_GET_MP_STATE, KVM_SET_MP_STATE,
			 sizeof(struct kvm_mp_state) },
	[K_REGS] = { "kvm.regs", KVM_GET_REGS, KVM_SET_REGS, sizeof(struct kvm_regs) },
	[K_SREGS] = { "kvm.sregs", KVM_GET_SREGS, KVM_SET_SREGS,
		      sizeof(struct kvm_sregs) },
	[K_XSAVE] = { .name = "kvm.xsave" },
	[K_XCRS] = { "kvm.xcrs", KVM_GET_XCRS, KVM_SET_XCRS, sizeof(struct kvm_xcrs) },
	[K_DEBUGREGS] = { "kvm.debugregs", KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS,
			  sizeof(struct kvm_debugregs) },
	[K_LAPIC] = { "kvm.lapic", KVM_GET_LAPIC, KVM_SET_LAPIC,
		      sizeof(struct kvm_lapic_state) },
	[K_MSRS] = { .name = "kvm.msrs" },
	[K_EVENTS] = { "kvm.events", KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS,
		       sizeof(struct kvm_vcpu_events) },
};

union fixed {
	struct kvm_mp_state mp;
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_xcrs xcrs;
	struct kvm_debugregs debugregs;
	struct kvm_lapic_state lapic;
	struct kvm_vcpu_events events;
};

/* Room for one of them. */
union one_msr {
	struct kvm_msrs list;
	uint8_t room[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
};

/* Return: could it be read? */
static bool get_msr(int fd, uint32_t index, uint64_t *value)
{
	union one_msr m = { .room = { 0 } };

	m.list.nmsrs = 1;
	m.list.entries[0].index = index;
	if (ioctl(fd, KVM_GET_MSRS, &m) != 1)
		return false;
	*value = m.list.entries[0].data;
	return true;
}

int kvm_state_init(struct vm *vm)
{
	struct kvm *k = vm->accel_data;
	struct kvm_msr_list probe = { .nmsrs = 0 };
	int size;

	if (!ioctl(k->fd, KVM_GET_MSR_INDEX_LIST, &probe) || errno != E2BIG)
		return vm_fail(vm, -EOPNOTSUPP, "KVM does not list the MSRs");
	k->msrs = calloc(1, sizeof(probe) + probe.nmsrs * sizeof(probe.indices[0]));
	if (!k->msrs)
		return vm_fail(vm, -ENOMEM, "out of memory");
	k->msrs->nmsrs = probe.nmsrs;
	if (ioctl(k->fd, KVM_GET_MSR_INDEX_LIST, k->msrs))
		return vm_fail(vm, -errno, "KVM_GET_MSR_INDEX_LIST: %s", strerror(errno));
	/* With the larger states (AMX) the structure grows: Linux 5.17. */
	size = ioctl(k->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
	k->xsave_size = size > (int)sizeof(struct kvm_xsave) ? (size_t)size
							     : sizeof(struct kvm_xsave);
	return 0;
}

/* ---- save -------------------------------------------------------------------------- */

static int fail(struct vm *vm, const char *what, unsigned int i, int err)
{
	return vm_fail(vm, err, "%s of vCPU %u: %s", what, i, strerror(-err));
}

static int save_cpuid(struct vcpu *v, struct state_writer *w)
{
	struct kvm *k = v->vm->accel_data;
	const size_t len =
		sizeof(*k->cpuid) + k->cpuid->nent * sizeof(k->cpuid->entries[0]);
	struct kvm_cpuid2 *c = malloc(len);

	if (!c)
		return -ENOMEM;
	memcpy(c, k->cpuid, len);
	kvm_cpuid_for(c, v->i);
	state_put_u32(w, c->nent);
	state_put(w, c->entries, c->nent * sizeof(c->entries[0]));
	free(c);
	return 0;
}

static int save_xsave(struct vcpu *v, struct state_writer *w)
{
	struct kvm *k = v->vm->accel_data;
	const bool big = k->xsave_size > sizeof(struct kvm_xsave);
	void *buf = calloc(1, k->xsave_size);
	int err = buf ? 0 : -ENOMEM;

	if (!err && ioctl(v->fd, big ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, buf))
		err = -errno;
	if (!err) {
		state_put_u32(w, (uint32_t)k->xsave_size);
		state_put(w, buf, k->xsave_size);
	}
	free(buf);
	return err;
}

/* What can be read, of what KVM says that a machine may have. */
static int save_msrs(struct vcpu *v, struct state_writer *w)
{
	const struct kvm *k = v->vm->accel_data;
	struct kvm_msr_entry *m = calloc(MAX_MSRS, sizeof(*m));
	uint32_t n = 0;

	if (!m)
		return -ENOMEM;
	for (uint32_t i = 0; i < k->msrs->nmsrs && n < MAX_MSRS; i++) {
		uint64_t value;

		if (get_msr(v->fd, k->msrs->indices[i], &value))
			m[n++] = (struct kvm_msr_entry){ .index = k->msrs->indices[i],
							 .data = value };
	}
	state_put_u32(w, n);
	for (uint32_t i = 0; i < n; i++) {
		state_put_u32(w, m[i].index);
		state_put_u64(w, m[i].data);
	}
	free(m);
	return 0;
}

static int save_fixed(struct vcpu *v, const struct kind *kd, struct state_writer *w)
{
	union fixed f = { .mp = { 0 } };

	if (ioctl(v->fd, kd->get, &f))
		return -errno;
	state_put(w, &f, kd->size);
	return 0;
}

static int save_vcpu(struct vcpu *v, struct state_writer *w)
{
	for (unsigned int i = 0; i < NKINDS; i++) {
		int khz, err = 0;

		state_begin(w, kinds[i].name, v->i, 1);
		switch (i) {
		case K_CPUID: err = save_cpuid(v, w); break;
		case K_TSC_KHZ:
			khz = ioctl(v->fd, KVM_GET_TSC_KHZ);
			state_put_u32(w, khz > 0 ? (uint32_t)khz : 0);
			break;
		case K_XSAVE: err = save_xsave(v, w); break;
		case K_MSRS: err = save_msrs(v, w); break;
		default: err = save_fixed(v, &kinds[i], w); break;
		}
		state_end(w);
		if (err)
			return fail(v->vm, kinds[i].name, v->i, err);
	}
	return 0;
}

static int save_chips(struct vm *vm, struct state_writer *w)
{
	struct kvm *k = vm->accel_data;
	struct kvm_pit_state2 pit;
	struct kvm_clock_data clock = { 0 };

	for (uint32_t i = 0; i < CHIPS; i++) {
		struct kvm_irqchip chip = { .chip_id = i };

		if (ioctl(k->vm_fd, KVM_GET_IRQCHIP, &chip))
			return vm_fail(vm, -errno, "interrupt controller %u: %s", i,
				       strerror(errno));
		state_begin(w, "kvm.irqchip", i, 1);
		state_put(w, &chip, sizeof(chip));
		state_end(w);
	}
	if (ioctl(k->vm_fd, KVM_GET_PIT2, &pit) || ioctl(k->vm_fd, KVM_GET_CLOCK, &clock))
		return vm_fail(vm, -errno, "timers: %s", strerror(errno));
	state_begin(w, "kvm.pit", 0, 1);
	state_put(w, &pit, sizeof(pit));
	state_end(w);
	state_begin(w, "kvm.clock", 0, 1);
	state_put_u64(w, clock.clock);
	state_put_u32(w, clock.flags);
	state_put_u64(w, clock.realtime);
	state_end(w);
	state_begin(w, "acpi.pm", 0, 1);
	state_put_u32(w, k->pm_enable);
	state_put_u32(w, k->pm_control);
	state_put_u32(w, kvm_pm_timer(k));
	state_end(w);
	return 0;
}

int kvm_state_save(struct vm *vm, struct state_writer *w)
{
	struct kvm *k = vm->accel_data;
	int err = 0;

	for (unsigned int i = 0; i < k->n && !err; i++)
		err = save_vcpu(&k->vcpu[i], w);
	if (!err)
		err = save_chips(vm, w);
	if (!err)
		serial_save(&k->serial, w);
	/* Of the built-in guest, if there is anything to tell. All vCPUs are parked. */
	if (!err && k->done) {
		state_begin(w, "kvm.done", 0, 1);
		state_put_u32(w, k->done);
		state_end(w);
	}
	return err;
}

/* ---- load -------------------------------------------------------------------------- */

static int load_cpuid(struct vcpu *v, struct state_section *s)
{
	struct kvm *k = v->vm->accel_data;
	const uint32_t n = state_get_u32(s);
	struct kvm_cpuid2 *c;
	char what[160];
	int err = 0;

	if (n > MAX_CPUID)
		return -EBADMSG;
	c = calloc(1, sizeof(*c) + n * sizeof(c->entries[0]));
	if (!c)
		return -ENOMEM;
	c->nent = n;
	state_get(s, c->entries, n * sizeof(c->entries[0]));
	if (kvm_cpuid_missing(c, k->cpuid, what, sizeof(what)))
		err = vm_fail(v->vm, -EOPNOTSUPP,
			      "this CPU lacks what the guest has been using: %s; migrate "
			      "to a CPU of the same kind",
			      what);
	else if (ioctl(v->fd, KVM_SET_CPUID2, c))
		err = -errno;
	/* The next migration passes on the guest's, not this machine's. */
	if (!err && !v->i) {
		free(k->cpuid);
		k->cpuid = c;
		c = NULL;
	}
	free(c);
	return err;
}

static int load_tsc_khz(struct vcpu *v, struct state_section *s)
{
	const uint32_t khz = state_get_u32(s);
	const int mine = ioctl(v->fd, KVM_GET_TSC_KHZ);
	const uint32_t diff = mine > 0 && (uint32_t)mine > khz ? (uint32_t)mine - khz
							       : khz - (uint32_t)mine;

	/* Calibration differs by some parts in a million from boot to boot. */
	if (!khz || mine <= 0 || diff <= khz / 4000)
		return 0;
	if (ioctl(v->fd, KVM_SET_TSC_KHZ, khz))
		return vm_fail(
			v->vm, -EOPNOTSUPP,
			"the guest's TSC runs at %u kHz, this machine's at %d, and "
			"this CPU cannot scale it",
			khz, mine);
	return 0;
}

static int load_xsave(struct vcpu *v, struct state_section *s)
{
	struct kvm *k = v->vm->accel_data;
	const uint32_t size = state_get_u32(s);
	uint8_t *buf;
	int err;

	/* What is larger here is zero there: KVM takes as much as it knows. */
	if (size < sizeof(struct kvm_xsave) || size > k->xsave_size)
		return vm_fail(v->vm, -EOPNOTSUPP,
			       "the guest's FPU state has %u bytes, this machine's %zu",
			       size, k->xsave_size);
	buf = calloc(1, k->xsave_size);
	if (!buf)
		return -ENOMEM;
	state_get(s, buf, size);
	err = ioctl(v->fd, KVM_SET_XSAVE, buf) ? -errno : 0;
	free(buf);
	return err;
}

/* Some cannot be written, or not to this value: fine if they have it already. */
static int load_msr(struct vcpu *v, uint32_t index, uint64_t value)
{
	union one_msr m = { .room = { 0 } };
	uint64_t now;

	m.list.nmsrs = 1;
	m.list.entries[0] = (struct kvm_msr_entry){ .index = index, .data = value };
	if (ioctl(v->fd, KVM_SET_MSRS, &m) == 1)
		return 0;
	if (get_msr(v->fd, index, &now) && now == value)
		return 0;
	return vm_fail(v->vm, -EOPNOTSUPP,
		       "this machine does not take the guest's MSR %#x = %#llx", index,
		       (unsigned long long)value);
}

static int load_msrs(struct vcpu *v, struct state_section *s)
{
	const uint32_t n = state_get_u32(s);
	int err = n > MAX_MSRS ? -EBADMSG : 0;

	for (uint32_t i = 0; i < n && !err; i++) {
		uint32_t index = state_get_u32(s);
		uint64_t value = state_get_u64(s);

		err = s->err ? s->err : load_msr(v, index, value);
	}
	return err;
}

static int load_fixed(struct vcpu *v, const struct kind *kd, struct state_section *s)
{
	union fixed f = { .mp = { 0 } };

	if (s->len != kd->size)
		return -EBADMSG;
	state_get(s, &f, kd->size);
	return ioctl(v->fd, kd->set, &f) ? -errno : 0;
}

static int load_vcpu(struct vcpu *v, unsigned int kd, struct state_section *s)
{
	switch (kd) {
	case K_CPUID: return load_cpuid(v, s);
	case K_TSC_KHZ: return load_tsc_khz(v, s);
	case K_XSAVE: return load_xsave(v, s);
	case K_MSRS: return load_msrs(v, s);
	default: return load_fixed(v, &kinds[kd], s);
	}
}

static int load_chip(struct kvm *k, struct state_section *s)
{
	struct kvm_irqchip chip;

	if (s->instance >= CHIPS)
		return -EBADMSG;
	state_get(s, &chip, sizeof(chip));
	if (chip.chip_id != s->instance)
		return -EBADMSG;
	k->loaded_chips |= 1U << s->instance;
	return ioctl(k->vm_fd, KVM_SET_IRQCHIP, &chip) ? -errno : 0;
}

static int load_clock(struct kvm *k, struct state_section *s)
{
	struct kvm_clock_data clock = { 0 };
	uint32_t flags;

	clock.clock = state_get_u64(s);
	flags = state_get_u32(s);
	clock.realtime = state_get_u64(s);
	/* With the wall-clock time of the save KVM adds what has passed since then. Linux
	 * 5.16; an older one takes no flags. */
	clock.flags = flags & KVM_CLOCK_REALTIME;
	k->loaded_clock = true;
	if (!ioctl(k->vm_fd, KVM_SET_CLOCK, &clock))
		return 0;
	clock.flags = 0;
	return ioctl(k->vm_fd, KVM_SET_CLOCK, &clock) ? -errno : 0;
}

static int load_pm(struct kvm *k, struct state_section *s)
{
	uint32_t timer;

	k->pm_enable = (uint16_t)state_get_u32(s);
	k->pm_control = (uint16_t)state_get_u32(s);
	timer = state_get_u32(s);
	k->pm_offset += (int64_t)(int32_t)(timer - kvm_pm_timer(k));
	return 0;
}

/* A machine of which all have ended does not move. */
static int load_done(struct vm *vm, struct state_section *s)
{
	struct kvm *k = vm->accel_data;

	k->done = state_get_u32(s);
	return vm->conf.work.on && k->done < (1U << k->n) - 1 ? 0 : -EBADMSG;
}

static int load_machine(struct vm *vm, struct state_section *s)
{
	struct kvm *k = vm->accel_data;
	struct kvm_pit_state2 pit;

	if (!strcmp(s->name, SERIAL_SECTION)) {
		k->loaded_serial = true;
		return serial_load(&k->serial, s);
	}
	if (!strcmp(s->name, "kvm.irqchip"))
		return load_chip(k, s);
	if (!strcmp(s->name, "kvm.clock"))
		return load_clock(k, s);
	if (!strcmp(s->name, "acpi.pm"))
		return load_pm(k, s);
	if (!strcmp(s->name, "kvm.done"))
		return load_done(vm, s);
	state_get(s, &pit, sizeof(pit));
	k->loaded_chips |= 1U << CHIPS;
	return ioctl(k->vm_fd, KVM_SET_PIT2, &pit) ? -errno : 0;
}

static const char *const machine[] = { "kvm.irqchip", "kvm.pit",      "kvm.clock",
				       "acpi.pm",     SERIAL_SECTION, "kvm.done" };

int kvm_state_load(struct vm *vm, struct state_section *s)
{
	struct kvm *k = vm->accel_data;

	for (unsigned int i = 0; i < NKINDS; i++) {
		if (strcmp(s->name, kinds[i].name) != 0)
			continue;
		if (s->version != 1)
			return -EPROTONOSUPPORT;
		/* All kinds of one vCPU, in their order. */
		if (s->instance >= k->n || k->loaded_vcpus != s->instance * NKINDS + i)
			return -EBADMSG;
		k->loaded_vcpus++;
		return load_vcpu(&k->vcpu[s->instance], i, s);
	}
	for (unsigned int i = 0; i < sizeof(machine) / sizeof(machine[0]); i++)
		if (!strcmp(s->name, machine[i]))
			return s->version == 1 ? load_machine(vm, s) : -EPROTONOSUPPORT;
	return -ENOENT;
}

int kvm_state_loaded(struct vm *vm)
{
	struct kvm *k = vm->accel_data;

	if (k->loaded_vcpus != k->n * NKINDS || k->loaded_chips != (2U << CHIPS) - 1 ||
	    !k->loaded_clock || !k->loaded_serial)
		return vm_fail(vm, -EBADMSG, "a part of the machine's state is missing");
	return 0;
}
