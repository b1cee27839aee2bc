// SPDX-License-Identifier: BSD-2-Clause
/*
 * vcpus: what the small VMM's vCPUs do at a stop and a start, looked at from within its
 * process. Needs KVM.
 *
 *	vcpus CASE	exit status 0: as it should be
 */
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "../../../user/lib/clock.h"
#include "../../../vm-migrate/vmm/kvm.h"

#define MEMORY	   (16UL << 20)
#define FLAT_BYTES 512 /* of a vCPU of the workload, see kvm_flat.c: registers and plan */
#define PLAN_AT	   64
#define PATIENCE_S 30

__attribute__((noreturn)) static void die(const char *what, const char *why)
{
	fprintf(stderr, "vcpus: %s: %s\n", what, why);
	exit(1);
}

static void must(int err, struct vm *vm, const char *what)
{
	if (err)
		die(what, vm->error[0] ? vm->error : strerror(-err));
}

/* A machine that is not booted, its guest the workload. */
static struct vm *make(const char *work, unsigned int vcpus)
{
	struct vm_conf conf = {
		.accel = "kvm", .memory = MEMORY, .vcpus = vcpus, .console_fd = -1
	};
	char why[256];
	struct vm *vm;

	if (workload_parse(work, &conf.work, why, sizeof(why)) ||
	    vm_create(&conf, &vm, why, sizeof(why)))
		die("no machine", why);
	return vm;
}

static struct vm *booted(const char *work, unsigned int vcpus)
{
	struct vm *vm = make(work, vcpus);

	must(vm_boot(vm), vm, "boot");
	return vm;
}

static struct kvm *kvm_of(struct vm *vm)
{
	return vm->accel_data;
}

/* Pause @vm, and go on in a new one, which is not started. */
static struct vm *moved(struct vm *vm, const char *work, unsigned int vcpus)
{
	struct vm *to = make(work, vcpus);
	struct state_writer w;

	state_init(&w);
	must(vm_pause(vm), vm, "pause");
	must(vm_save(vm, &w), vm, "save");
	memcpy(to->ram.block[0].hva, vm->ram.block[0].hva, MEMORY);
	must(vm_load(to, w.buf, w.len), to, "load");
	state_fini(&w);
	vm_destroy(vm);
	return to;
}

static void await(bool (*holds)(struct vm *vm), struct vm *vm, const char *what)
{
	const uint64_t deadline = clock_ns() + PATIENCE_S * 1000000000ULL;
	const struct timespec tick = { .tv_nsec = 1000000 };

	while (!holds(vm)) {
		if (clock_ns() > deadline)
			die(what, "not seen");
		nanosleep(&tick, NULL);
	}
}

/* ---- a guest is told that it was stopped ------------------------------------------- */

#define SYSTEM_TIME   0x4b564d01 /* MSR: kvmclock at that address */
#define CLOCK_AT      0x8000	 /* where nothing is; 32 bytes for each vCPU */
#define CLOCK_BYTES   32
#define FLAGS_AT      29
#define GUEST_STOPPED 2

static volatile uint8_t *clock_flags(struct vm *vm, unsigned int i)
{
	return vm->ram.block[0].hva + CLOCK_AT + (size_t)i * CLOCK_BYTES + FLAGS_AT;
}

static void use_clock(struct vcpu *v)
{
	union {
		struct kvm_msrs list;
		uint8_t room[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
	} m = { .room = { 0 } };

	m.list.nmsrs = 1;
	m.list.entries[0].index = SYSTEM_TIME;
	m.list.entries[0].data = (CLOCK_AT + (uint64_t)v->i * CLOCK_BYTES) | 1;
	if (ioctl(v->fd, KVM_SET_MSRS, &m) != 1)
		die("kvmclock", strerror(errno));
}

static bool told(struct vm *vm)
{
	for (unsigned int i = 0; i < kvm_of(vm)->n; i++)
		if (!(*clock_flags(vm, i) & GUEST_STOPPED))
			return false;
	return true;
}

/* As the guest's watchdog does */
static void forget(struct vm *vm)
{
	for (unsigned int i = 0; i < kvm_of(vm)->n; i++)
		*clock_flags(vm, i) = 0;
}

static void stopped(void)
{
	static const char work[] = "rate=1000";
	struct vm *vm = booted(work, 2);

	for (unsigned int i = 0; i < 2; i++)
		use_clock(&kvm_of(vm)->vcpu[i]);
	must(vm_start(vm), vm, "start");
	must(vm_pause(vm), vm, "pause");
	forget(vm);
	must(vm_start(vm), vm, "resume");
	await(told, vm, "that it was paused");
	must(vm_pause(vm), vm, "pause");
	forget(vm);
	vm = moved(vm, work, 2);
	must(vm_start(vm), vm, "start of the destination");
	await(told, vm, "that it was stopped and moved");
	vm_destroy(vm);
}

/* ---- a workload ends --------------------------------------------------------------- */

static void stop_at(struct vm *vm, unsigned int i, uint64_t writes)
{
	struct workload_plan *p =
		kvm_guest_at(vm, KVM_FLAT_VCPU + i * FLAT_BYTES + PLAN_AT, sizeof(*p));

	*(volatile uint64_t *)&p->stop = writes;
}

static bool one_done(struct vm *vm)
{
	struct kvm *k = kvm_of(vm);
	bool done;

	pthread_mutex_lock(&k->lock);
	done = k->done;
	pthread_mutex_unlock(&k->lock);
	return done;
}

static bool ended(struct vm *vm)
{
	struct pollfd p = { .fd = vm->ended_fd, .events = POLLIN };

	return poll(&p, 1, 0) == 1;
}

/* One vCPU has ended before the machine moves, the other one does after that. */
static void half(void)
{
	static const char work[] = "rate=1000,stop=10";
	struct vm *vm = booted(work, 2);

	stop_at(vm, 1, 0);
	must(vm_start(vm), vm, "start");
	await(one_done, vm, "the end of one vCPU");
	vm = moved(vm, work, 2);
	stop_at(vm, 1, 1);
	must(vm_start(vm), vm, "start of the destination");
	await(ended, vm, "the end of the machine");
	must(vm->accel->ended(vm), vm, "its end");
	vm_destroy(vm);
}

/* ---- an instruction has two exits -------------------------------------------------- */

/* What a device would keep, which the guest increments; the linker puts these functions in
 * the place of the network device's. */
static struct {
	_Atomic uint32_t value, reads;
	_Atomic bool hold, held;
} device;

void __wrap_virtio_net_read(struct kvm *k, uint64_t off, void *data, uint32_t len);
void __wrap_virtio_net_write(struct kvm *k, uint64_t off, const void *data, uint32_t len);

/* The vCPU is in the first of the two when it is told to stop. */
void __wrap_virtio_net_read(struct kvm *k, uint64_t off, void *data, uint32_t len)
{
	const struct timespec tick = { .tv_nsec = 100000 };
	uint32_t v = device.value;

	memcpy(data, &v, sizeof(v));
	device.reads++;
	while (device.hold && !k->stop) {
		device.held = true;
		nanosleep(&tick, NULL);
	}
}

void __wrap_virtio_net_write(struct kvm *k, uint64_t off, const void *data, uint32_t len)
{
	uint32_t v;

	memcpy(&v, data, sizeof(v));
	device.value = v;
}

static bool held(struct vm *vm)
{
	return device.held;
}

static void two_exits(void)
{
	/* incl (%rdi); inc %r8; jmp to the first */
	static const uint8_t code[] = { 0xff, 0x07, 0x49, 0xff, 0xc0, 0xeb, 0xf9 };
	struct vm *vm = booted("rate=1000", 1);
	struct vcpu *v = &kvm_of(vm)->vcpu[0];
	struct kvm_regs r;

	kvm_identity_map(vm, 4);
	memcpy(kvm_guest_at(vm, KVM_FLAT_CODE, sizeof(code)), code, sizeof(code));
	must(ioctl(v->fd, KVM_GET_REGS, &r) ? -errno : 0, vm, "registers");
	r.rdi = KVM_MMIO;
	r.r8 = 0;
	must(ioctl(v->fd, KVM_SET_REGS, &r) ? -errno : 0, vm, "registers");
	vm->net[0] = (void *)kvm_of(vm);
	for (unsigned int i = 0; i < 10; i++) {
		device.held = false;
		device.hold = true;
		must(vm_start(vm), vm, "start");
		await(held, vm, "a read of the device");
		must(vm_pause(vm), vm, "pause");
		device.hold = false;
		must(ioctl(v->fd, KVM_GET_REGS, &r) ? -errno : 0, vm, "registers");
		if (device.value != device.reads || r.r8 + 1 < device.value)
			die("an increment", "is lost");
	}
	vm->net[0] = NULL;
	vm_destroy(vm);
}

/* ---- a throttled vCPU rests -------------------------------------------------------- */

static uint64_t writes(struct vm *vm)
{
	struct workload_regs r;

	vm->accel->regs(vm, 0, &r);
	return r.writes;
}

static uint64_t writes_then;

static bool writes_on(struct vm *vm)
{
	return writes(vm) > writes_then;
}

static bool rests(struct vm *vm)
{
	return !kvm_of(vm)->vcpu[0].nap_ns;
}

/* Its vCPU rests for so long, or is about to. */
static void rest(struct vm *vm, uint64_t ns)
{
	struct kvm *k = kvm_of(vm);

	k->throttle = 50;
	k->vcpu[0].nap_ns = ns;
	kvm_vcpu_flush(&k->vcpu[0]);
	await(rests, vm, "that it rests");
	writes_then = writes(vm);
}

static void move_clock(int seconds)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_sec += seconds;
	if (clock_settime(CLOCK_REALTIME, &ts))
		die("the clock", strerror(errno));
}

static void nap(void)
{
	const uint64_t hour = 3600000000000ULL;
	struct vm *vm = booted("rate=1000", 1);

	must(vm_start(vm), vm, "start");
	await(writes_on, vm, "a write");
	rest(vm, hour);
	must(vm_throttle(vm, 0), vm, "throttle");
	await(writes_on, vm, "that it wakes when it is not throttled any more");
	for (unsigned int i = 0; i < 3; i++) {
		rest(vm, hour / 3600 / 4);
		move_clock(-3600);
		await(writes_on, vm, "that it wakes when the clock was set back");
		move_clock(3600);
	}
	vm_destroy(vm);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} cases[] = {
		{ "stopped", stopped },
		{ "half", half },
		{ "two-exits", two_exits },
		{ "nap", nap },
	};

	for (unsigned int i = 0; i < sizeof(cases) / sizeof(cases[0]) && argc == 2; i++)
		if (!strcmp(argv[1], cases[i].name)) {
			cases[i].run();
			return 0;
		}
	fprintf(stderr, "usage: vcpus CASE\n");
	return 2;
}
