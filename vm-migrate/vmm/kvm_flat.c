// SPDX-License-Identifier: BSD-2-Clause
/*
 * kvm_flat: the workload as a guest without an operating system.
 *
 * The code below does what workload_step() does, on struct workload_regs (rbx) and struct
 * workload_plan (rbp), which lie in guest memory; the assertions tie their offsets to it.
 * It waits for the time of its next write by the TSC, and ends by a write to
 * KVM_FLAT_PORT. It is position independent and uses no stack. The CPU uses one if there
 * is a fault, which is the machine's and not the code's: it then ends by a write to
 * KVM_FAULT_PORT, and the VMM says what happened instead of "triple fault".
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "kvm.h"

#define VCPU_BYTES  512
#define PLAN_AT	    64
#define FAULTS	    32
#define STUB_BYTES  16
#define DEFAULT_KHZ 1000000 /* who cannot say runs at some GHz */

#define CHECK_REG(f, at)                                                                 \
	_Static_assert(offsetof(struct workload_regs, f) == (at), "machine code")
#define CHECK_PLAN(f, at)                                                                \
	_Static_assert(offsetof(struct workload_plan, f) == (at), "machine code")

CHECK_REG(rng, 0);
CHECK_REG(writes, 8);
CHECK_REG(errors, 16);
CHECK_REG(next, 24);
CHECK_PLAN(base, 0);
CHECK_PLAN(low_pages, 16);
CHECK_PLAN(table, 24);
CHECK_PLAN(data, 32);
CHECK_PLAN(first, 40);
CHECK_PLAN(pages, 48);
CHECK_PLAN(hot_pages, 56);
CHECK_PLAN(hot, 64);
CHECK_PLAN(sequential, 72);
CHECK_PLAN(whole, 80);
CHECK_PLAN(stop, 88);
CHECK_PLAN(per_write, 96);
_Static_assert(KVM_FLAT_PORT == 0x501 && KVM_FAULT_PORT == 0x502, "machine code");

/* clang-format off */
__asm__(
	".pushsection .rodata\n"
	".globl kvm_flat_code, kvm_flat_at\n"
	"kvm_flat_code:\n"
	"	rdtsc\n"
	"	shl $32, %rdx\n"
	"	or %rdx, %rax\n"
	"	mov %rax, %r15\n"		/* when the next write is due */
	"10:	mov 88(%rbp), %rax\n"
	"	test %rax, %rax\n"
	"	jz 11f\n"
	"	cmp %rax, 8(%rbx)\n"
	"	jae 90f\n"
	"11:	mov 96(%rbp), %rcx\n"
	"	test %rcx, %rcx\n"
	"	jz 20f\n"
	"12:	rdtsc\n"
	"	shl $32, %rdx\n"
	"	or %rdx, %rax\n"
	"	cmp %r15, %rax\n"
	"	jae 13f\n"
	"	pause\n"
	"	jmp 12b\n"
	"13:	mov %rax, %rdx\n"
	"	sub %r15, %rdx\n"
	"	cmp $0x8000000, %rdx\n"		/* far too late: begin anew from now */
	"	jbe 14f\n"
	"	mov %rax, %r15\n"
	"14:	add %rcx, %r15\n"
	"20:	mov (%rbx), %rax\n"		/* the next random number */
	"	mov %rax, %rdx\n"
	"	shl $13, %rdx\n"
	"	xor %rdx, %rax\n"
	"	mov %rax, %rdx\n"
	"	shr $7, %rdx\n"
	"	xor %rdx, %rax\n"
	"	mov %rax, %rdx\n"
	"	shl $17, %rdx\n"
	"	xor %rdx, %rax\n"
	"	mov %rax, (%rbx)\n"
	"	mov %rax, %r12\n"
	"	cmpq $0, 72(%rbp)\n"
	"	jne 30f\n"
	"	mov 48(%rbp), %rcx\n"
	"	mov %rax, %rdx\n"
	"	shr $40, %rdx\n"
	"	and $255, %edx\n"
	"	cmp 64(%rbp), %rdx\n"
	"	jae 21f\n"
	"	mov 56(%rbp), %rcx\n"
	"21:	mov %eax, %eax\n"
	"	imul %rcx, %rax\n"
	"	shr $32, %rax\n"
	"	jmp 40f\n"
	"30:	mov 24(%rbx), %rax\n"		/* in sequence */
	"	lea 1(%rax), %rdx\n"
	"	cmp 48(%rbp), %rdx\n"
	"	jb 31f\n"
	"	xor %edx, %edx\n"
	"31:	mov %rdx, 24(%rbx)\n"
	"40:	add 40(%rbp), %rax\n"		/* r8: page, rdi: its address */
	"	mov %rax, %r8\n"
	"	cmp 16(%rbp), %rax\n"
	"	jae 41f\n"
	"	shl $12, %rax\n"
	"	add 0(%rbp), %rax\n"
	"	jmp 42f\n"
	"41:	sub 16(%rbp), %rax\n"
	"	shl $12, %rax\n"
	"	add 8(%rbp), %rax\n"
	"42:	mov %rax, %rdi\n"
	"	mov 24(%rbp), %rsi\n"		/* rsi: address of its version */
	"	shl $12, %rsi\n"
	"	add 0(%rbp), %rsi\n"
	"	mov %r8, %rdx\n"
	"	sub 32(%rbp), %rdx\n"
	"	lea (%rsi,%rdx,4), %rsi\n"
	"	lea 1(%r8,%r8), %r9\n"		/* r9: stamp of version 1 */
	"	movabs $0x9e3779b97f4a7c15, %rdx\n"
	"	imul %rdx, %r9\n"
	"	mov (%rsi), %eax\n"
	"	mov %rax, %r10\n"
	"	imul %r9, %r10\n"
	"	cmp %r10, (%rdi)\n"
	"	jne 50f\n"
	"	cmp %r10, 4088(%rdi)\n"
	"	je 51f\n"
	"50:	incq 16(%rbx)\n"
	"51:	inc %eax\n"
	"	mov %eax, (%rsi)\n"
	"	imul %r9, %rax\n"
	"	mov %rax, (%rdi)\n"
	"	cmpq $0, 80(%rbp)\n"
	"	je 61f\n"
	"	mov $1, %ecx\n"
	"60:	mov %r12, %rdx\n"
	"	shl $13, %rdx\n"
	"	xor %rdx, %r12\n"
	"	mov %r12, %rdx\n"
	"	shr $7, %rdx\n"
	"	xor %rdx, %r12\n"
	"	mov %r12, %rdx\n"
	"	shl $17, %rdx\n"
	"	xor %rdx, %r12\n"
	"	mov %r12, (%rdi,%rcx,8)\n"
	"	inc %ecx\n"
	"	cmp $511, %ecx\n"
	"	jb 60b\n"
	"61:	mov %rax, 4088(%rdi)\n"
	"	incq 8(%rbx)\n"
	"	jmp 10b\n"
	"90:	mov $0x501, %dx\n"
	"	out %al, %dx\n"
	"91:	cli\n"
	"	hlt\n"
	"	jmp 91b\n"
	"kvm_flat_fault:\n"		/* a fault; see flat_fault() */
	"	mov $0x502, %dx\n"
	"	out %al, %dx\n"
	"	jmp 91b\n"
	"kvm_flat_code_end:\n"
	".balign 4\n"
	"kvm_flat_at:\n"
	"	.long kvm_flat_fault - kvm_flat_code, kvm_flat_code_end - kvm_flat_code\n"
	".popsection\n");
/* clang-format on */

extern const uint8_t kvm_flat_code[];
extern const uint32_t kvm_flat_at[2]; /* where in it faults are handled; its end */

static struct workload_regs *regs_at(struct vm *vm, unsigned int i)
{
	return kvm_guest_at(vm, KVM_FLAT_VCPU + i * VCPU_BYTES, VCPU_BYTES);
}

void kvm_flat_regs(struct vm *vm, unsigned int i, struct workload_regs *regs)
{
	const volatile struct workload_regs *r = regs_at(vm, i);

	*regs = (struct workload_regs){ .writes = r->writes, .errors = r->errors };
}

/* A gate and a few bytes of code per exception: push its number, and 0 where the CPU
 * pushes no error code, and go on. */
static void make_idt(struct vm *vm)
{
	const uint32_t with_code = 1U << 8 | 0x1fU << 10 | 1U << 17 | 1U << 21 | 3U << 29;
	const uint64_t to = KVM_FLAT_CODE + kvm_flat_at[0];
	uint64_t *idt = kvm_guest_at(vm, KVM_IDT, FAULTS * 16);
	uint8_t *stub = kvm_guest_at(vm, KVM_FLAT_STUBS, FAULTS * STUB_BYTES);

	for (uint32_t i = 0; i < FAULTS; i++) {
		const uint64_t at = KVM_FLAT_STUBS + i * STUB_BYTES;
		uint8_t *s = stub + i * STUB_BYTES;
		const int32_t jump = (int32_t)((int64_t)to - (int64_t)(at + 9));

		memcpy(s, (const uint8_t[]){ 0x6a, 0, 0x6a, (uint8_t)i, 0xe9 }, 5);
		memcpy(s + 5, &jump, 4);
		/* Past the first push where the CPU has pushed. */
		idt[2 * i] = ((at + (with_code >> i & 1 ? 2 : 0)) & 0xffff) |
			     0x10u << 16 | 0x8e00ULL << 32 | (at >> 16) << 48;
		idt[2 * i + 1] = 0;
	}
}

void kvm_flat_fault_text(struct vcpu *v, char *text, size_t len)
{
	struct kvm_regs r = { 0 };
	struct kvm_sregs s = { 0 };
	const uint64_t *stack;

	ioctl(v->fd, KVM_GET_REGS, &r);
	ioctl(v->fd, KVM_GET_SREGS, &s);
	stack = kvm_guest_at(v->vm, r.rsp, 24);
	snprintf(text, len,
		 "the built-in guest: exception %llu, error %#llx, at %#llx, address "
		 "%#llx",
		 stack ? (unsigned long long)stack[0] : 0,
		 stack ? (unsigned long long)stack[1] : 0,
		 stack ? (unsigned long long)stack[2] : 0, (unsigned long long)s.cr2);
}

static int set_idt(struct vcpu *v)
{
	struct kvm_sregs s;

	if (ioctl(v->fd, KVM_GET_SREGS, &s))
		return -errno;
	s.idt = (struct kvm_dtable){ .base = KVM_IDT, .limit = FAULTS * 16 - 1 };
	return ioctl(v->fd, KVM_SET_SREGS, &s) ? -errno : 0;
}

int kvm_boot_flat(struct vm *vm)
{
	struct kvm *k = vm->accel_data;
	const struct ram_block *last = &vm->ram.block[vm->ram.nblocks - 1];
	const uint64_t top = last->gpa + last->size, gib = 1ULL << 30;
	const uint64_t rate = vm->conf.work.rate;

	if (top > KVM_PD_MAX * gib)
		return vm_fail(vm, -EINVAL, "the built-in guest knows %d GiB at most",
			       KVM_PD_MAX);
	kvm_identity_map(vm, (unsigned int)((top + gib - 1) / gib));
	memcpy(kvm_guest_at(vm, KVM_FLAT_CODE, 4096), kvm_flat_code, kvm_flat_at[1]);
	make_idt(vm);
	for (unsigned int i = 0; i < k->n; i++) {
		struct workload_regs *r = regs_at(vm, i);
		struct workload_plan *p = (void *)((uint8_t *)r + PLAN_AT), here;
		struct kvm_mp_state mp = { .mp_state = KVM_MP_STATE_RUNNABLE };
		const struct kvm_regs regs = {
			.rip = KVM_FLAT_CODE,
			.rbx = KVM_FLAT_VCPU + i * VCPU_BYTES,
			.rbp = KVM_FLAT_VCPU + i * VCPU_BYTES + PLAN_AT,
			.rsp = KVM_FLAT_VCPU + (i + 1) * VCPU_BYTES,
			.rflags = 2,
		};
		int khz = ioctl(k->vcpu[i].fd, KVM_GET_TSC_KHZ), err;

		workload_plan(&vm->conf.work, &vm->ram, i, k->n, &here);
		here.base[0] = (uintptr_t)vm->ram.block[0].hva;
		here.base[1] = vm->ram.nblocks > 1 ? (uintptr_t)vm->ram.block[1].hva : 0;
		workload_fill(&vm->conf.work, &vm->ram, i, k->n, &here);
		here.base[0] = vm->ram.block[0].gpa;
		here.base[1] = vm->ram.nblocks > 1 ? vm->ram.block[1].gpa : 0;
		if (khz <= 0)
			khz = DEFAULT_KHZ;
		here.per_write = rate ? (uint64_t)khz * 1000 * k->n / rate : 0;
		*p = here;
		workload_regs_init(r, i);
		err = kvm_long_mode(&k->vcpu[i], &regs);
		if (!err)
			err = set_idt(&k->vcpu[i]);
		if (!err && ioctl(k->vcpu[i].fd, KVM_SET_MP_STATE, &mp))
			err = -errno;
		if (err)
			return vm_fail(vm, err, "vCPU %u: %s", i, strerror(-err));
	}
	return 0;
}
