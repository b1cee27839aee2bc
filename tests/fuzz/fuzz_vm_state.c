// SPDX-License-Identifier: BSD-2-Clause
/*
 * Fuzz what a migration's source says of its machine beside the RAM: vCPUs, chips, serial
 * port, network device, loaded as by the destination.
 *
 * Input: the destination (struct control), then changes to the state of a true machine,
 * so that all but what was changed is right. What is accepted has set everything; its
 * devices run, and it is the same on a next machine.
 *
 * Under libFuzzer, `fuzz_vm_state --seeds DIR` writes the seeds.
 */
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <string.h>
#include <unistd.h>

#include "../../user/lib/log.h"
#include "../../vm-migrate/vmm/virtio_mmio.h"
#include "fake_back.h"
#include "fake_kvm.h"
#include "input.h"

#define MAX_SECTIONS 64
#define MAX_BYTES    10000 /* of a section */
#define MAX_CHANGES  64
#define XSAVE_BIG    8192
#define FEATURES     (1ULL << VIRTIO_F_VERSION_1 | 1ULL << 30 | 1ULL << 26 | 0x28ffffULL)

struct control {
	uint8_t flags; /* C_* */
	uint8_t fail;  /* this call of KVM */
	uint16_t less; /* features that the back end here lacks */
};

#define C_ONE_VCPU 1
#define C_BIG	   2 /* keeps more FPU state */
#define C_NO_WORK  4 /* not the built-in guest */
#define C_RAW	   8 /* what follows is the state */

/* Each followed by the number of a section, and what is said here. */
enum change {
	SET,	  /* offset (2), length, bytes */
	CUT,	  /* length (2) */
	GROW,	  /* by */
	DROP,	  /* - */
	AGAIN,	  /* -: at the end */
	SWAP,	  /* number of another */
	VERSION,  /* it */
	INSTANCE, /* it */
	NAME,	  /* number of the one whose name it has */
	CHANGES
};

struct section {
	char name[STATE_NAME_MAX];
	uint32_t instance, version, len;
	uint8_t data[MAX_BYTES];
};

static struct section truth[MAX_SECTIONS], said[MAX_SECTIONS];
static unsigned int ntruth, nsaid;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* ---- machines ---------------------------------------------------------------------- */

static struct vm *make(unsigned int m, const struct control *c)
{
	struct vm *vm =
		fake_kvm_make(m, c->flags & C_ONE_VCPU ? 1 : 2,
			      c->flags & C_BIG ? XSAVE_BIG : sizeof(struct kvm_xsave));

	vm->conf.work.on = !(c->flags & C_NO_WORK);
	vm->conf.nnets = 1;
	strcpy(vm->conf.net[0].socket, "/played");
	fake_back_begin(&vm->ram, FEATURES & ~(uint64_t)c->less);
	CHECK(!virtio_net_create(vm, 0, fake_kvm_vm_fd(vm), &vm->net[0]));
	return vm;
}

static void end(struct vm *vm)
{
	virtio_net_destroy(vm->net[0]);
	fake_kvm_end(vm);
	fake_back_forget();
}

static void reg(struct vm *vm, uint64_t at, uint32_t v)
{
	virtio_net_write(vm->net[0], at, &v, sizeof(v));
}

/* A guest whose driver and console run. */
static void run_guest(struct vm *vm)
{
	struct kvm *k = vm->accel_data;

	reg(vm, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	reg(vm, VIRTIO_MMIO_DRIVER_FEATURES, 1);
	reg(vm, VIRTIO_MMIO_STATUS, 0xb);
	for (uint32_t i = 0; i < 2; i++) {
		reg(vm, VIRTIO_MMIO_QUEUE_SEL, i);
		reg(vm, VIRTIO_MMIO_QUEUE_NUM, 64);
		reg(vm, VIRTIO_MMIO_QUEUE_DESC_LOW, 0x3000 * (i + 1));
		reg(vm, VIRTIO_MMIO_QUEUE_AVAIL_LOW, 0x3000 * (i + 1) + 0x1000);
		reg(vm, VIRTIO_MMIO_QUEUE_USED_LOW, 0x3000 * (i + 1) + 0x2000);
		reg(vm, VIRTIO_MMIO_QUEUE_READY, 1);
	}
	reg(vm, VIRTIO_MMIO_STATUS, 0xf);
	serial_write(&k->serial, 1, 3);
	serial_input(&k->serial, (const uint8_t *)"hello", 5);
	k->done = 1;
}

static void take_sections(const struct state_writer *w)
{
	const uint8_t *p = w->buf;
	struct state_section s;
	size_t n = w->len;

	while (state_next(&p, &n, &s) == 1) {
		struct section *t = &truth[ntruth++];

		CHECK(ntruth <= MAX_SECTIONS && s.len <= MAX_BYTES);
		*t = (struct section){ .instance = s.instance,
				       .version = s.version,
				       .len = s.len };
		memcpy(t->name, s.name, sizeof(s.name));
		memcpy(t->data, s.data, s.len);
	}
}

static void init(void)
{
	const struct control c = { 0 };
	struct state_writer w;
	struct vm *vm;

	log_set_level(LOG_LVL_ERROR);
	fake_kvm_init();
	vm = make(0, &c);
	run_guest(vm);
	CHECK(!vm_drain(vm));
	state_init(&w);
	CHECK(!vm_save(vm, &w) && !state_finish(&w));
	take_sections(&w);
	state_fini(&w);
	end(vm);
}

/* ---- changes ----------------------------------------------------------------------- */

static void set(struct input *in, struct section *s)
{
	uint32_t at = input_u8(in) | (uint32_t)input_u8(in) << 8;
	size_t len = input_u8(in);

	at %= MAX_BYTES;
	len = len < MAX_BYTES - at ? len : MAX_BYTES - at;
	input_get(in, s->data + at, len);
}

static void change(struct input *in)
{
	const uint8_t what = input_u8(in) % CHANGES;
	const unsigned int i = input_u8(in) % nsaid;
	static struct section other;
	struct section *s = &said[i];
	uint32_t v;

	switch (what) {
	case SET: set(in, s); break;
	case CUT:
		v = input_u8(in) | (uint32_t)input_u8(in) << 8;
		s->len = v < s->len ? v : s->len;
		break;
	case GROW:
		v = s->len + input_u8(in);
		s->len = v < MAX_BYTES ? v : MAX_BYTES;
		break;
	case DROP:
		if (nsaid > 1)
			memmove(s, s + 1, (--nsaid - i) * sizeof(*s));
		break;
	case AGAIN:
		if (nsaid < MAX_SECTIONS)
			said[nsaid++] = *s;
		break;
	case SWAP:
		v = input_u8(in) % nsaid;
		other = *s;
		*s = said[v];
		said[v] = other;
		break;
	case VERSION: s->version = input_u8(in); break;
	case INSTANCE: s->instance = input_u8(in); break;
	default: memcpy(s->name, truth[input_u8(in) % ntruth].name, sizeof(s->name));
	}
}

static void build(struct input *in, struct state_writer *w)
{
	memcpy(said, truth, ntruth * sizeof(truth[0]));
	nsaid = ntruth;
	for (unsigned int i = 0; i < MAX_CHANGES && in->n; i++)
		change(in);
	for (unsigned int i = 0; i < nsaid; i++) {
		state_begin(w, said[i].name, said[i].instance, said[i].version);
		state_put(w, said[i].data, said[i].len);
		state_end(w);
	}
	CHECK(!state_finish(w));
}

/* ---- what is accepted -------------------------------------------------------------- */

static void use(struct vm *vm)
{
	struct kvm *k = vm->accel_data;
	uint8_t v[8];

	CHECK(fake_kvm_whole(vm));
	CHECK(k->serial.count <= SERIAL_FIFO && k->serial.head < SERIAL_FIFO);
	for (uint64_t at = 0; at < VIRTIO_MMIO_CONFIG + 32; at += 4)
		virtio_net_read(vm->net[0], at, v, 4);
	virtio_net_resume(vm->net[0]);
	for (unsigned int i = 0; i < 2 * SERIAL_FIFO; i++) {
		serial_read(&k->serial, i);
		serial_input(&k->serial, v, i % 3);
	}
	CHECK(!vm_drain(vm) && !fake_back_writes(true));
}

/* But for the timer, which goes on. */
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

static void load(const struct control *c, const uint8_t *state, size_t len)
{
	struct vm *vm = make(0, c), *next;
	struct state_writer a, b;
	int err;

	fake_kvm_fail_at(c->fail);
	err = vm_load(vm, state, len);
	fake_kvm_fail_at(0);
	CHECK(err <= 0 && (!err || vm->error[0]));
	if (!err) {
		use(vm);
		state_init(&a);
		state_init(&b);
		CHECK(!vm_save(vm, &a) && !state_finish(&a));
		fake_back_forget();
		next = make(1, c);
		if (vm_load(next, a.buf, a.len)) {
			fprintf(stderr, "%s\n", next->error);
			abort();
		}
		CHECK(!vm_save(next, &b) && !state_finish(&b));
		check_same(&a, &b);
		end(next);
		state_fini(&a);
		state_fini(&b);
	}
	end(vm);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct state_writer w;
	struct control c;

	input_get(&in, &c, sizeof(c));
	if (c.flags & C_RAW) {
		load(&c, in.p, in.n);
		return 0;
	}
	state_init(&w);
	build(&in, &w);
	load(&c, w.buf, w.len);
	state_fini(&w);
	return 0;
}

/* ---- seeds ------------------------------------------------------------------------- */

static void save_seeds(const char *dir)
{
	static const uint8_t flags[] = { 0, C_BIG, C_ONE_VCPU, C_NO_WORK };
	char name[64];

	for (unsigned int i = 0; i < sizeof(flags); i++) {
		const struct control c = { .flags = flags[i] };

		snprintf(name, sizeof(name), "machine%u", i);
		input_save_seed(dir, name, &c, sizeof(c));
	}
	for (uint8_t i = 0; i < ntruth; i++) {
		const uint8_t s[] = { 0, 0, 0, 0, SET, i, 0, 0, 4, 1, 0, 0, 0 };

		if (truth[i].instance)
			continue;
		snprintf(name, sizeof(name), "set.%s", truth[i].name);
		input_save_seed(dir, name, s, sizeof(s));
	}
	for (uint8_t what = CUT; what < CHANGES; what++) {
		const uint8_t s[] = { C_BIG, 20, 0, 0, what, 1, 2, what, 12, 3 };

		snprintf(name, sizeof(name), "change%u", what);
		input_save_seed(dir, name, s, sizeof(s));
	}
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	init();
	if (*argc != 3 || strcmp((*argv)[1], "--seeds"))
		return 0;
	save_seeds((*argv)[2]);
	exit(0);
}
