// SPDX-License-Identifier: BSD-2-Clause
/* kvm_rig: see kvm_rig.h. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../user/lib/clock.h"
#include "conform.h"
#include "kvm_rig.h"

#define CODE_BYTES 4096U
#define SPARE	   32U /* entries of the list that repeat its beginning */
#define SLOT	   31U /* of code and list */
#define WAIT_NS	   10000000000ULL

/*
 * ESI: the list, EBP: its length, EDI: state of the random numbers, ESP: writes so far.
 * No instruction uses a stack.
 */
asm(".pushsection .rodata\n"
    ".code32\n"
    ".macro random\n"
    "	mov %edi, %eax\n"
    "	shl $13, %eax\n"
    "	xor %eax, %edi\n"
    "	mov %edi, %eax\n"
    "	shr $17, %eax\n"
    "	xor %eax, %edi\n"
    "	mov %edi, %eax\n"
    "	shl $5, %eax\n"
    "	xor %eax, %edi\n"
    ".endm\n"
    "rig_wander:\n"
    "1:	random\n"
    "	mov %edi, %eax\n"
    "	mul %ebp\n"
    "	mov %edx, %ebx\n" /* the window: EDI / 2^32 of the list */
    "	mov $200, %ecx\n"
    "2:	random\n"
    "	mov %edi, %eax\n"
    "	and $31, %eax\n"
    "	add %ebx, %eax\n"
    "	mov (%esi,%eax,4), %edx\n"
    "	mov %edi, %eax\n"
    "	shr $8, %eax\n"
    "	and $0xffc, %eax\n"
    "	mov %edi, (%edx,%eax)\n"
    "	inc %esp\n"
    "	dec %ecx\n"
    "	jnz 2b\n"
    "	mov $10000, %ecx\n" /* leave it alone for a while */
    "3:	dec %ecx\n"
    "	jnz 3b\n"
    "	jmp 1b\n"
    "rig_once:\n"
    "	xor %ebx, %ebx\n"
    "4:	mov (%esi,%ebx,4), %edx\n"
    "	inc %edi\n"
    "	mov %edi, (%edx)\n"
    "	inc %esp\n"
    "	inc %ebx\n"
    "	cmp %ebp, %ebx\n"
    "	jb 4b\n"
    "	hlt\n"
    "rig_end:\n"
    ".code64\n"
    ".popsection\n");

extern const uint8_t rig_wander[], rig_once[], rig_end[];

static const uint8_t *const code_of[] = { rig_wander, rig_once };

static void on_signal(int sig)
{
}

static void nap(void)
{
	struct timespec ts = { 0, 30000 };

	nanosleep(&ts, NULL);
}

/* ---- vCPUs ---------------------------------------------------------------------------
 */

static struct kvm_segment segment(uint8_t type)
{
	return (struct kvm_segment){ .limit = 0xffffffff,
				     .selector = type == 11 ? 8 : 16,
				     .type = type,
				     .present = 1,
				     .db = 1,
				     .s = 1,
				     .g = 1 };
}

static void set_regs(struct kvm_rig_vcpu *v, enum kvm_rig_code code, unsigned int n)
{
	struct kvm_regs g = {
		.rip = KVM_RIG_GPA + (uint64_t)(code_of[code] - rig_wander),
		.rsi = KVM_RIG_GPA + CODE_BYTES,
		.rbp = n,
		.rdi = 0x9e3779b9U * (uint32_t)(v - v->r->vcpu + 1) | 1,
		.rflags = 2,
	};
	struct kvm_sregs s;

	assert_int_equal(ioctl(v->fd, KVM_GET_SREGS, &s), 0);
	s.cs = segment(11);
	s.ds = s.es = s.fs = s.gs = s.ss = segment(3);
	s.cr0 |= 1;
	assert_int_equal(ioctl(v->fd, KVM_SET_SREGS, &s), 0);
	assert_int_equal(ioctl(v->fd, KVM_SET_REGS, &g), 0);
}

/* Return: 0: it went on, 1: it halted, -1: it is broken */
static int run(struct kvm_rig_vcpu *v)
{
	int n = ioctl(v->fd, KVM_RUN, 0), err = errno;

	__atomic_fetch_add(&v->out, 1, __ATOMIC_SEQ_CST);
	if (n && (err == EINTR || err == EAGAIN))
		return 0;
	if (n) {
		__atomic_store_n(&v->broken, 1000 + (uint32_t)err, __ATOMIC_RELEASE);
		return -1;
	}
	switch (v->run->exit_reason) {
	case KVM_EXIT_INTR: return 0;
	case KVM_EXIT_DIRTY_RING_FULL:
		n = dirty_kvm_ring_drain(v->r->ring);
		if (!n)
			return 0;
		__atomic_store_n(&v->broken, 1000 - (uint32_t)n, __ATOMIC_RELEASE);
		return -1;
	case KVM_EXIT_HLT: return 1;
	default:
		__atomic_store_n(&v->broken, 1 + v->run->exit_reason, __ATOMIC_RELEASE);
		return -1;
	}
}

static void *vcpu_main(void *arg)
{
	struct kvm_rig_vcpu *v = arg;

	while (!__atomic_load_n(&v->quit, __ATOMIC_ACQUIRE)) {
		if (__atomic_load_n(&v->pause, __ATOMIC_ACQUIRE)) {
			__atomic_store_n(&v->parked, 1, __ATOMIC_RELEASE);
			nap();
			continue;
		}
		__atomic_store_n(&v->parked, 0, __ATOMIC_RELEASE);
		v->run->immediate_exit = 0;
		if (run(v))
			break;
	}
	__atomic_store_n(&v->parked, 1, __ATOMIC_RELEASE);
	return NULL;
}

/*
 * Nobody interrupts the guest, nor does it let itself be interrupted, and its code touches
 * nothing but its RAM. An interrupt has to read its table, of which nothing is there. The
 * address that KVM names was seen to be in it, and at least once not.
 */
static bool interrupted(uint32_t why)
{
	return why == 1 + KVM_EXIT_MMIO;
}

/* The test of it fails. That a vCPU shuts down, stands still or takes an interrupt may be the
 * emulated CPU's doing (vm_nested of tests/vm/lib.sh, which looks for this line). */
static void lost(const struct kvm_rig_vcpu *v)
{
	uint32_t why = __atomic_load_n(&v->broken, __ATOMIC_ACQUIRE);

	if (!why || why == 1 + KVM_EXIT_SHUTDOWN || interrupted(why))
		printf("# stood still: vCPU %u %s, MMIO %#llx\n",
		       (unsigned int)(v - v->r->vcpu),
		       !why		  ? "does not answer"
		       : interrupted(why) ? "was interrupted"
					  : "shut down",
		       interrupted(why) ? (unsigned long long)v->run->mmio.phys_addr : 0);
	else
		printf("# vCPU %u: %s %u\n", (unsigned int)(v - v->r->vcpu),
		       why >= 1000 ? "KVM_RUN or the ring failed, errno"
				   : "unexpected exit",
		       why >= 1000 ? why - 1000 : why - 1);
	fflush(stdout);
	fail_msg("a vCPU is lost");
}

/* Out of KVM_RUN, until @done says that it has been */
static void poke(struct kvm_rig_vcpu *v,
		 bool (*done)(struct kvm_rig_vcpu *v, uint32_t was))
{
	uint32_t was = __atomic_load_n(&v->out, __ATOMIC_SEQ_CST);
	uint64_t end = clock_ns() + WAIT_NS;

	while (!done(v, was)) {
		if (clock_ns() >= end)
			lost(v);
		v->run->immediate_exit = 1;
		pthread_kill(v->thread, SIGUSR1);
		nap();
	}
}

static bool is_parked(struct kvm_rig_vcpu *v, uint32_t was)
{
	return __atomic_load_n(&v->parked, __ATOMIC_ACQUIRE);
}

static bool was_out(struct kvm_rig_vcpu *v, uint32_t was)
{
	return is_parked(v, was) || __atomic_load_n(&v->out, __ATOMIC_SEQ_CST) != was;
}

void kvm_rig_kick(void *arg)
{
	poke(arg, was_out);
}

void kvm_rig_go(struct kvm_rig *r)
{
	for (unsigned int i = 0; i < r->nvcpus; i++)
		__atomic_store_n(&r->vcpu[i].pause, 0, __ATOMIC_RELEASE);
	for (unsigned int i = 0; i < r->nvcpus; i++) {
		const struct kvm_rig_vcpu *v = &r->vcpu[i];
		uint64_t end = clock_ns() + WAIT_NS;

		while (__atomic_load_n(&v->parked, __ATOMIC_ACQUIRE)) {
			if (__atomic_load_n(&v->broken, __ATOMIC_ACQUIRE) ||
			    clock_ns() >= end)
				lost(v);
			nap();
		}
	}
}

void kvm_rig_halt(struct kvm_rig *r)
{
	for (unsigned int i = 0; i < r->nvcpus; i++)
		__atomic_store_n(&r->vcpu[i].pause, 1, __ATOMIC_RELEASE);
	for (unsigned int i = 0; i < r->nvcpus; i++) {
		poke(&r->vcpu[i], is_parked);
		if (__atomic_load_n(&r->vcpu[i].broken, __ATOMIC_ACQUIRE))
			lost(&r->vcpu[i]);
	}
}

void kvm_rig_rewind(struct kvm_rig *r, unsigned int n)
{
	for (unsigned int i = 0; i < r->nvcpus; i++)
		set_regs(&r->vcpu[i], KVM_RIG_ONCE, n);
}

unsigned int kvm_rig_once(struct kvm_rig *r)
{
	struct kvm_rig_vcpu *v = &r->vcpu[0];
	unsigned int full = 0;
	int rc;

	v->run->immediate_exit = 0;
	while (!(rc = run(v)))
		full += v->run->exit_reason == KVM_EXIT_DIRTY_RING_FULL;
	assert_int_equal(rc, 1);
	return full;
}

uint64_t kvm_rig_writes(struct kvm_rig *r)
{
	uint64_t n = 0;

	for (unsigned int i = 0; i < r->nvcpus; i++) {
		struct kvm_regs g;

		assert_int_equal(ioctl(r->vcpu[i].fd, KVM_GET_REGS, &g), 0);
		n += (uint32_t)g.rsp; /* ESP */
	}
	return n;
}

/* ---- VM ------------------------------------------------------------------------------
 */

static int add_slot(int vm, uint32_t slot, uint64_t gpa, uint64_t bytes, void *hva)
{
	struct kvm_userspace_memory_region m = {
		.slot = slot,
		.guest_phys_addr = gpa,
		.memory_size = bytes,
		.userspace_addr = (uintptr_t)hva,
	};

	return ioctl(vm, KVM_SET_USER_MEMORY_REGION, &m) ? -errno : 0;
}

static int add_vcpu(struct kvm_rig *r, unsigned int i, enum kvm_rig_code code,
		    unsigned int n)
{
	struct kvm_rig_vcpu *v = &r->vcpu[i];

	v->r = r;
	v->pause = 1;
	v->fd = ioctl(r->vm, KVM_CREATE_VCPU, (unsigned long)i);
	if (v->fd < 0)
		return -errno;
	v->run = mmap(NULL, r->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	assert_true(v->run != MAP_FAILED);
	set_regs(v, code, n);
	r->nvcpus++;
	/* Who runs once does so on the caller's thread. */
	if (code == KVM_RIG_WANDER)
		assert_int_equal(pthread_create(&v->thread, NULL, vcpu_main, v), 0);
	else
		v->parked = 1;
	return 0;
}

static int set_up(struct kvm_rig *r, const struct ram *ram,
		  const struct dirty_kvm_slot *slot, unsigned int nslots,
		  unsigned int nvcpus, uint32_t *ring_bytes, enum kvm_rig_code code,
		  const uint32_t *list, unsigned int n)
{
	int err;

	r->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (r->kvm < 0)
		return -EOPNOTSUPP;
	r->vm = ioctl(r->kvm, KVM_CREATE_VM, 0);
	if (r->vm < 0)
		return -EOPNOTSUPP;
	err = ring_bytes ? dirty_kvm_ring_enable(r->vm, ring_bytes) : 0;
	if (err)
		return err;
	/* Intel without "unrestricted guest" wants room for these; nobody else does. */
	ioctl(r->vm, KVM_SET_TSS_ADDR, 0xfffbd000UL);
	for (unsigned int i = 0; i < nslots && !err; i++)
		err = add_slot(r->vm, slot[i].slot, ram_gpa(ram, slot[i].first_page),
			       slot[i].pages << RAM_PAGE_SHIFT,
			       ram_at(ram, slot[i].first_page));
	if (err)
		return err;

	r->low_bytes = (CODE_BYTES + (n + SPARE) * sizeof(*list) + 4095) & ~4095UL;
	r->low = mmap(NULL, r->low_bytes, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(r->low != MAP_FAILED);
	memcpy(r->low, rig_wander, (size_t)(rig_end - rig_wander));
	memcpy(r->low + CODE_BYTES, list, n * sizeof(*list));
	for (unsigned int i = 0; i < SPARE; i++)
		memcpy(r->low + CODE_BYTES + (n + i) * sizeof(*list), &list[i % n],
		       sizeof(*list));
	err = add_slot(r->vm, SLOT, KVM_RIG_GPA, r->low_bytes, r->low);
	if (err)
		return err;

	r->run_bytes = (size_t)ioctl(r->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	for (unsigned int i = 0; i < nvcpus && !err; i++)
		err = add_vcpu(r, i, code, n);
	return err;
}

int kvm_rig_open(struct kvm_rig *r, const struct ram *ram,
		 const struct dirty_kvm_slot *slot, unsigned int nslots,
		 unsigned int nvcpus, uint32_t *ring_bytes, enum kvm_rig_code code,
		 const uint32_t *list, unsigned int n)
{
	struct sigaction sa = { .sa_handler = on_signal };
	int err;

	memset(r, 0, sizeof(*r));
	r->kvm = r->vm = -1;
	sigaction(SIGUSR1, &sa, NULL);
	err = set_up(r, ram, slot, nslots, nvcpus, ring_bytes, code, list, n);
	if (err)
		kvm_rig_close(r);
	return err;
}

void kvm_rig_close(struct kvm_rig *r)
{
	for (unsigned int i = 0; i < r->nvcpus; i++) {
		struct kvm_rig_vcpu *v = &r->vcpu[i];

		__atomic_store_n(&v->quit, 1, __ATOMIC_RELEASE);
		if (v->thread) {
			poke(v, is_parked);
			pthread_join(v->thread, NULL);
		}
		munmap(v->run, r->run_bytes);
		close(v->fd);
	}
	if (r->low)
		munmap(r->low, r->low_bytes);
	if (r->vm >= 0)
		close(r->vm);
	if (r->kvm >= 0)
		close(r->kvm);
}
