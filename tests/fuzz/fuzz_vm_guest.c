// SPDX-License-Identifier: BSD-2-Clause
/*
 * Fuzz what a guest does to its VMM: ports and virtio registers, any access in any order,
 * and what a vhost-user back end answers; between them, what a migration does.
 *
 * Input: features of the back end, then operations. The CPU's exits come as KVM tells of
 * them. No back end writes memory once the device is drained, or without a log once there
 * has to be one; a guest moves whatever it did, to the same state.
 *
 * Under libFuzzer, `fuzz_vm_guest --seeds DIR` writes the seeds.
 */
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_net.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "../../user/lib/log.h"
#include "../../vm-migrate/vmm/virtio_mmio.h"
#include "fake_back.h"
#include "fake_kvm.h"
#include "input.h"

#define MAX_OPS	  400
#define RUN_BYTES 0x2000 /* of struct kvm_run, with the page of port data */
#define IO_BYTES  64

enum op {
	OP_READ, /* offset (2), bytes (1) */
	OP_WRITE,
	OP_IN, /* port (1), bytes of an access, accesses */
	OP_OUT,
	OP_TYPE,   /* at the console */
	OP_SPOIL,  /* how, when, bytes */
	OP_LET_GO, /* the back end, of connections that were given up */
	OP_STOP,
	OP_RESUME,
	OP_LOG,
	OP_UNLOG,
	OP_MARK, /* where (2), bytes: by the back end */
	OP_MOVE,
	OP_MEMORY, /* where (2), bytes: by the guest */
	OPS
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static struct vm *vm;
static unsigned int machine;
static struct dirty_set *set;
static bool stopped;

/* ---- guest ------------------------------------------------------------------------- */

static struct vcpu *cpu(void)
{
	return &((struct kvm *)vm->accel_data)->vcpu[0];
}

static void mmio(struct input *in, bool write)
{
	struct kvm_run *run = cpu()->run;
	const uint32_t at = input_u8(in) | (uint32_t)input_u8(in) << 8;

	run->exit_reason = KVM_EXIT_MMIO;
	run->mmio.phys_addr = KVM_MMIO + at;
	run->mmio.len = 1U << (input_u8(in) & 3);
	run->mmio.is_write = write;
	if (write)
		input_get(in, run->mmio.data, run->mmio.len);
	kvm_handle_exit(cpu());
}

static void ports(struct input *in, bool out)
{
	static const uint16_t base[] = { KVM_SERIAL, KVM_PM_PORT, KVM_FLAT_PORT,
					 KVM_KBD_PORT };
	struct kvm_run *run = cpu()->run;
	const uint8_t at = input_u8(in), size = input_u8(in);

	run->exit_reason = KVM_EXIT_IO;
	run->io.direction = out ? KVM_EXIT_IO_OUT : KVM_EXIT_IO_IN;
	run->io.port = (uint16_t)(base[at >> 6] + (at & 63));
	run->io.size = (uint8_t)(1 << size % 3);
	run->io.count = 1 + input_u8(in) % (IO_BYTES / 4);
	/* The end of what is there. */
	run->io.data_offset = RUN_BYTES - run->io.size * run->io.count;
	if (out)
		input_get(in, (uint8_t *)run + run->io.data_offset,
			  run->io.size * run->io.count);
	kvm_handle_exit(cpu());
}

static void memory(struct input *in)
{
	const uint64_t at = input_u8(in) | (uint64_t)input_u8(in) << 8;
	size_t len = input_u8(in);
	const uint8_t *p = input_some(in, len, &len);

	memcpy(vm->ram.block[0].hva + at, p, len);
}

/* ---- host -------------------------------------------------------------------------- */

static void machine_make(uint64_t features)
{
	vm = fake_kvm_make(machine, FAKE_KVM_VCPUS, sizeof(struct kvm_xsave));
	vm->conf.work.on = true;
	vm->conf.nnets = 1;
	strcpy(vm->conf.net[0].socket, "/played");
	memcpy(vm->conf.net[0].mac, "\2\0\0\0\0\1", 6);
	cpu()->run = calloc(1, RUN_BYTES);
	CHECK(cpu()->run);
	fake_back_begin(&vm->ram, features);
	CHECK(!virtio_net_create(vm, 0, fake_kvm_vm_fd(vm), &vm->net[0]));
}

static void machine_end(void)
{
	dirty_set_destroy(set);
	set = NULL;
	virtio_net_destroy(vm->net[0]);
	vm->net[0] = NULL;
	free(cpu()->run);
	fake_kvm_end(vm);
	fake_back_forget();
}

static uint32_t reg(uint64_t at)
{
	uint32_t v;

	virtio_net_read(vm->net[0], at, &v, sizeof(v));
	return v;
}

static void set_reg(uint64_t at, uint32_t v)
{
	virtio_net_write(vm->net[0], at, &v, sizeof(v));
}

static void ask_features(void)
{
	uint64_t offered = reg(VIRTIO_MMIO_DEVICE_FEATURES);
	set_reg(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
	offered |= (uint64_t)reg(VIRTIO_MMIO_DEVICE_FEATURES) << 32;
	set_reg(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
	fake_back_allow(offered);
}

static void stop(void)
{
	if (virtio_net_drain(vm->net[0]))
		return;
	stopped = true;
	CHECK(!fake_back_writes(true));
}

static void resume(void)
{
	virtio_net_resume(vm->net[0]);
	stopped = false;
}

static void log_on(void)
{
	if (!set) {
		CHECK(!dirty_set_create(&vm->ram, &set));
		CHECK(!virtio_net_add_dirty(vm->net[0], set));
	}
	if (set->started)
		return;
	fake_back_must_log(true);
	if (dirty_set_start(set, NULL))
		fake_back_must_log(false);
	else
		CHECK(!fake_back_writes(false));
}

static void log_off(void)
{
	fake_back_must_log(false);
	dirty_set_destroy(set);
	set = NULL;
}

static void marks(struct input *in)
{
	static uint64_t found[(FAKE_KVM_LOW + FAKE_KVM_HIGH) / RAM_PAGE_SIZE / 64],
		all[sizeof(found) / sizeof(found[0])];
	const uint64_t at = (input_u8(in) | (uint64_t)input_u8(in) << 8) * 4;
	size_t len = input_u8(in);
	const uint8_t *p = input_some(in, len, &len);
	struct dirty_found f;

	if (!set || !set->started)
		return;
	fake_back_marks(at, p, len);
	CHECK(ram_words(&vm->ram) == sizeof(found) / sizeof(found[0]));
	memset(found, 0, sizeof(found));
	ram_mark_all(&vm->ram, all);
	CHECK(!dirty_set_harvest(set, found, NULL, &f));
	for (size_t i = 0; i < sizeof(found) / sizeof(found[0]); i++)
		CHECK(!(found[i] & ~all[i]));
}

/* ---- migration --------------------------------------------------------------------- */

/* Where two states differ, and were not the clock's. */
static void check_same(const struct state_writer *a, const struct state_writer *b)
{
	const uint8_t *p = a->buf, *q = b->buf;
	size_t n = a->len, m = b->len;
	struct state_section s, t;

	CHECK(n == m);
	while (state_next(&p, &n, &s) == 1) {
		CHECK(state_next(&q, &m, &t) == 1);
		CHECK(!strcmp(s.name, t.name) && s.len == t.len);
		CHECK(!strcmp(s.name, "acpi.pm") || !memcmp(s.data, t.data, s.len));
	}
}

/* To another back end, of what this one has offered. */
static void move(void)
{
	const uint64_t features = fake_back_features();
	struct state_writer a, b;

	log_on();
	stop();
	if (!stopped || ((struct kvm *)vm->accel_data)->over)
		return;
	state_init(&a);
	state_init(&b);
	CHECK(!vm_save(vm, &a) && !state_finish(&a));
	machine_end();
	machine = !machine;
	machine_make(features);
	if (vm_load(vm, a.buf, a.len)) {
		fprintf(stderr, "%s\n", vm->error);
		abort();
	}
	CHECK(!vm_save(vm, &b) && !state_finish(&b));
	check_same(&a, &b);
	ask_features();
	state_fini(&a);
	state_fini(&b);
}

/* ---- input ------------------------------------------------------------------------- */

static void step(struct input *in)
{
	const uint8_t op = input_u8(in) % OPS;
	uint8_t how, when;
	const uint8_t *p;
	size_t len;

	switch (op) {
	case OP_READ: mmio(in, false); break;
	case OP_WRITE: mmio(in, true); break;
	case OP_IN: ports(in, false); break;
	case OP_OUT: ports(in, true); break;
	case OP_TYPE:
		p = input_some(in, input_u8(in), &len);
		vm->accel->input(vm, p, len);
		break;
	case OP_SPOIL:
		how = input_u8(in) % BACK_SPOILS;
		when = input_u8(in);
		p = input_some(in, input_u8(in), &len);
		fake_back_spoil(how, when, p, len);
		break;
	case OP_LET_GO: fake_back_let_go(); break;
	case OP_STOP: stop(); break;
	case OP_RESUME: resume(); break;
	case OP_LOG: log_on(); break;
	case OP_UNLOG: log_off(); break;
	case OP_MARK: marks(in); break;
	case OP_MOVE: move(); break;
	default: memory(in); break;
	}
	/* Whatever happens meanwhile: nothing is given away that was drained. */
	CHECK(!stopped || !fake_back_writes(true));
	CHECK(!set || !set->started || !fake_back_writes(false));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* VERSION_1, protocol features, log; without the first two there is no device. */
	const uint64_t usual = 1ULL << VIRTIO_F_VERSION_1 | 1ULL << 30 | 1ULL << 26;
	struct input in = { data, size };
	int lowest, after;

	fake_kvm_init();
	lowest = dup(STDERR_FILENO);
	close(lowest);
	log_set_level(LOG_LVL_ERROR);
	machine = 0;
	stopped = false;
	machine_make(usual | input_u32(&in));
	ask_features();
	for (unsigned int i = 0; i < MAX_OPS && in.n; i++)
		step(&in);
	machine_end();
	after = dup(STDERR_FILENO);
	close(after);
	CHECK(after == lowest);
	return 0;
}

/* ---- seeds ------------------------------------------------------------------------- */

static struct {
	uint8_t p[4096];
	size_t n;
} seed;

static void put(unsigned int n, ...)
{
	va_list ap;

	va_start(ap, n);
	while (n--)
		seed.p[seed.n++] = (uint8_t)va_arg(ap, int);
	va_end(ap);
}

static void put_reg(unsigned int at, uint32_t v)
{
	put(8, OP_WRITE, at & 255, at >> 8, 2, v & 255, v >> 8 & 255, v >> 16 & 255,
	    v >> 24);
}

static void put_driver(void)
{
	const uint32_t ok = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |
			    VIRTIO_CONFIG_S_FEATURES_OK;

	put_reg(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	put_reg(VIRTIO_MMIO_DRIVER_FEATURES, 1U << VIRTIO_NET_F_MAC);
	put_reg(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	put_reg(VIRTIO_MMIO_DRIVER_FEATURES, 1);
	put_reg(VIRTIO_MMIO_STATUS, ok);
	for (uint32_t i = 0; i < 2; i++) {
		put_reg(VIRTIO_MMIO_QUEUE_SEL, i);
		put_reg(VIRTIO_MMIO_QUEUE_NUM, 64);
		put_reg(VIRTIO_MMIO_QUEUE_DESC_LOW, 0x3000 * (i + 1));
		put_reg(VIRTIO_MMIO_QUEUE_AVAIL_LOW, 0x3000 * (i + 1) + 0x1000);
		put_reg(VIRTIO_MMIO_QUEUE_USED_LOW, 0x3000 * (i + 1) + 0x2000);
		put_reg(VIRTIO_MMIO_QUEUE_READY, 1);
	}
	put_reg(VIRTIO_MMIO_STATUS, ok | VIRTIO_CONFIG_S_DRIVER_OK);
}

static void put_end(const char *dir, const char *name)
{
	input_save_seed(dir, name, seed.p, seed.n);
	seed.n = 0;
}

static void save_seeds(const char *dir)
{
	char name[32];

	put(4, 0xff, 0xff, 0xff, 0xff);
	for (unsigned int at = 0; at < VIRTIO_MMIO_CONFIG + 16; at += 4)
		put(4, OP_READ, at & 255, at >> 8, at % 3);
	put_reg(VIRTIO_MMIO_STATUS, 0);
	put_end(dir, "registers");

	put(4, 0, 0, 0, 0);
	for (int at = 0; at < 255; at += 5) {
		put(5, OP_OUT, at, at, 1, 0x13);
		put(4, OP_IN, at, at, at);
	}
	put(6, OP_TYPE, 4, 'a', 'b', 'c', '\n');
	put(1, OP_MOVE);
	put_end(dir, "ports");

	put(4, 0, 0, 0, 0);
	put_driver();
	put(2, OP_STOP, OP_RESUME);
	put(1, OP_MOVE);
	put(2, OP_RESUME, OP_UNLOG);
	put_reg(VIRTIO_MMIO_STATUS, 0);
	put_end(dir, "moves");

	put(4, 0, 0, 0, 0);
	put_driver();
	put(1, OP_LOG);
	put(6, OP_MARK, 0, 0, 2, 0xff, 0x11);
	put(6, OP_MARK, 0, 0x80, 2, 0xff, 0x11);
	put(2, OP_UNLOG, OP_MOVE);
	put_end(dir, "log");

	for (int how = BACK_RAW; how < BACK_SPOILS; how++) {
		put(4, 0, 0, 0, 0);
		put_driver();
		put(8, OP_SPOIL, how, 0, 4, 1, 0, 0, 0);
		put(4, OP_STOP, OP_LET_GO, OP_STOP, OP_RESUME);
		put(8, OP_SPOIL, how, 1, 4, 1, 0, 0, 0);
		put(4, OP_LOG, OP_STOP, OP_LET_GO, OP_MOVE);
		put(8, OP_SPOIL, how, 7, 4, 1, 0, 0, 0);
		put(2, OP_RESUME, OP_STOP);
		snprintf(name, sizeof(name), "back%d", how);
		put_end(dir, name);
	}
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	if (*argc != 3 || strcmp((*argv)[1], "--seeds"))
		return 0;
	save_seeds((*argv)[2]);
	exit(0);
}
