// SPDX-License-Identifier: BSD-2-Clause
/*
 * kvm_boot: a Linux bzImage by the 64-bit boot protocol, without firmware.
 *
 * Source: Documentation/arch/x86/boot.rst and zero-page.rst. The CPU begins in long mode
 * with memory mapped one to one, at the image's second entry, with the zero page in rsi.
 */
#include <asm/bootparam.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kvm.h"

#define BOOT_MAGIC    0x53726448 /* HdrS */
#define MIN_VERSION   0x020c	 /* the 64-bit entry */
#define ENTRY_64      0x200
#define SETUP_AT      0x1f1
#define SECTOR	      512
#define LOADER_OTHER  0xff
#define E820_MEMORY   1
#define E820_RESERVED 2
#define BOOT_GIB      4 /* mapped at the beginning */

#define PTE_PRESENT 1ULL
#define PTE_WRITE   2ULL
#define PTE_LARGE   0x80ULL

#define CR0_PE	 (1ULL << 0)
#define CR0_ET	 (1ULL << 4)
#define CR0_NE	 (1ULL << 5)
#define CR0_PG	 (1ULL << 31)
#define CR4_PAE	 (1ULL << 5)
#define EFER_LME (1ULL << 8)
#define EFER_LMA (1ULL << 10)

/* ---- long mode --------------------------------------------------------------------- */

void kvm_identity_map(struct vm *vm, unsigned int gib)
{
	uint64_t *pml4 = kvm_guest_at(vm, KVM_PML4, 4096);
	uint64_t *pdpt = kvm_guest_at(vm, KVM_PDPT, 4096);
	uint64_t *gdt = kvm_guest_at(vm, KVM_GDT, 32);

	memset(pml4, 0, 4096);
	memset(pdpt, 0, 4096);
	pml4[0] = KVM_PDPT | PTE_PRESENT | PTE_WRITE;
	for (unsigned int i = 0; i < gib; i++) {
		uint64_t at = KVM_PD + i * 4096ULL;
		uint64_t *pd = kvm_guest_at(vm, at, 4096);

		pdpt[i] = at | PTE_PRESENT | PTE_WRITE;
		for (uint64_t n = 0; n < 512; n++)
			pd[n] = ((uint64_t)i << 30) + (n << 21) + PTE_PRESENT +
				PTE_WRITE + PTE_LARGE;
	}
	gdt[0] = gdt[1] = 0;
	gdt[2] = 0x00af9b000000ffffULL; /* 0x10: code, 64 bits */
	gdt[3] = 0x00cf93000000ffffULL; /* 0x18: data */
}

static struct kvm_segment segment(uint16_t selector, bool code)
{
	return (struct kvm_segment){
		.limit = 0xffffffff,
		.selector = selector,
		.type = code ? 0xb : 0x3,
		.present = 1,
		.db = !code,
		.s = 1,
		.l = code,
		.g = 1,
	};
}

int kvm_long_mode(struct vcpu *v, const struct kvm_regs *regs)
{
	struct kvm_sregs s;

	if (ioctl(v->fd, KVM_GET_SREGS, &s))
		return -errno;
	s.cs = segment(0x10, true);
	s.ds = s.es = s.fs = s.gs = s.ss = segment(0x18, false);
	s.gdt = (struct kvm_dtable){ .base = KVM_GDT, .limit = 31 };
	s.cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_PG;
	s.cr3 = KVM_PML4;
	s.cr4 = CR4_PAE;
	s.efer = EFER_LME | EFER_LMA;
	if (ioctl(v->fd, KVM_SET_SREGS, &s) || ioctl(v->fd, KVM_SET_REGS, regs))
		return -errno;
	return 0;
}

/* ---- files ------------------------------------------------------------------------- */

/* [@from, @from + @len) of a file, all of it. */
static int read_at(struct vm *vm, int fd, const char *path, uint64_t from, void *to,
		   uint64_t len)
{
	while (len) {
		ssize_t n = pread(fd, to, len, (off_t)from);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return vm_fail(vm, -errno, "%s: %s", path, strerror(errno));
		if (!n)
			return vm_fail(vm, -EINVAL, "%s: too short", path);
		to = (uint8_t *)to + n;
		from += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

static int open_file(struct vm *vm, const char *path, uint64_t *size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return vm_fail(vm, -errno, "%s: %s", path, strerror(errno));
	if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
		close(fd);
		return vm_fail(vm, -EINVAL, "%s: not a file", path);
	}
	*size = (uint64_t)st.st_size;
	return fd;
}

/* ---- kernel ------------------------------------------------------------------------ */

static int check_header(struct vm *vm, const struct setup_header *h)
{
	const char *path = vm->conf.kernel;

	if (h->boot_flag != 0xaa55 || h->header != BOOT_MAGIC)
		return vm_fail(vm, -EINVAL, "%s: no Linux bzImage", path);
	if (h->version < MIN_VERSION || !(h->xloadflags & XLF_KERNEL_64) ||
	    !(h->loadflags & LOADED_HIGH))
		return vm_fail(vm, -EINVAL, "%s: no 64-bit kernel, or older than 3.8",
			       path);
	return 0;
}

/* Where it would like to be, or at the beginning of high memory. */
static int place(struct vm *vm, const struct setup_header *h, uint64_t bytes,
		 uint64_t *load)
{
	const uint64_t low = vm->ram.block[0].size;
	const uint64_t need = bytes > h->init_size ? bytes : h->init_size;

	*load = h->pref_address;
	if (*load < KVM_HIGH || *load + need > low)
		*load = KVM_HIGH;
	if (h->pref_address + h->init_size > low || *load + need > low)
		return vm_fail(
			vm, -EINVAL,
			"%s: needs %llu MiB of memory to unpack itself; the VM has "
			"%llu",
			vm->conf.kernel,
			(unsigned long long)(h->pref_address + h->init_size + (1 << 20) -
					     1) >>
				20,
			(unsigned long long)low >> 20);
	return 0;
}

static int load_kernel(struct vm *vm, struct boot_params *bp, uint64_t *entry)
{
	const char *path = vm->conf.kernel;
	uint64_t size, setup, load = 0;
	uint8_t head[SECTOR * 2];
	struct setup_header *h = &bp->hdr;
	int fd = open_file(vm, path, &size), err;

	if (fd < 0)
		return fd;
	err = read_at(vm, fd, path, 0, head, sizeof(head));
	if (err)
		goto out;
	/* The header says itself where it ends: the jump over it. */
	memcpy(h, head + SETUP_AT, sizeof(*h));
	if (head[0x201] + 0x202U - SETUP_AT < sizeof(*h))
		memset((uint8_t *)h + (head[0x201] + 0x202U - SETUP_AT), 0,
		       sizeof(*h) - (head[0x201] + 0x202U - SETUP_AT));
	err = check_header(vm, h);
	if (err)
		goto out;
	setup = (uint64_t)(h->setup_sects ? h->setup_sects + 1 : 5) * SECTOR;
	err = size <= setup ? vm_fail(vm, -EINVAL, "%s: too short", path)
			    : place(vm, h, size - setup, &load);
	if (!err)
		err = read_at(vm, fd, path, setup, kvm_guest_at(vm, load, size - setup),
			      size - setup);
	h->code32_start = (uint32_t)load;
	*entry = load + ENTRY_64;
out:
	close(fd);
	return err;
}

/* As high as it may be, so that the kernel can unpack itself below. */
static int load_initrd(struct vm *vm, struct boot_params *bp)
{
	const char *path = vm->conf.initrd;
	const struct setup_header *h = &bp->hdr;
	uint64_t size, top = vm->ram.block[0].size, at;
	int fd, err;

	if (!*path)
		return 0;
	fd = open_file(vm, path, &size);
	if (fd < 0)
		return fd;
	if (top > (uint64_t)h->initrd_addr_max + 1)
		top = (uint64_t)h->initrd_addr_max + 1;
	at = size < top ? (top - size) & ~0xfffULL : 0;
	if (at < h->pref_address + h->init_size)
		err = vm_fail(vm, -EINVAL,
			      "%s: %llu MiB do not fit the VM's memory beside the kernel",
			      path, (unsigned long long)size >> 20);
	else
		err = read_at(vm, fd, path, 0, kvm_guest_at(vm, at, size), size);
	close(fd);
	bp->hdr.ramdisk_image = (uint32_t)at;
	bp->hdr.ramdisk_size = (uint32_t)size;
	return err;
}

static void add_e820(struct boot_params *bp, uint64_t from, uint64_t to, uint32_t type)
{
	bp->e820_table[bp->e820_entries++] =
		(struct boot_e820_entry){ .addr = from, .size = to - from, .type = type };
}

int kvm_boot_linux(struct vm *vm)
{
	struct kvm *k = vm->accel_data;
	struct boot_params *bp = kvm_guest_at(vm, KVM_ZERO_PAGE, 4096);
	const struct ram *ram = &vm->ram;
	struct kvm_regs regs = { .rflags = 2, .rsi = KVM_ZERO_PAGE };
	size_t len = strlen(vm->conf.append);
	int err;

	memset(bp, 0, sizeof(*bp));
	err = load_kernel(vm, bp, (uint64_t *)&regs.rip);
	if (!err)
		err = load_initrd(vm, bp);
	if (err)
		return err;
	if (len > bp->hdr.cmdline_size)
		return vm_fail(vm, -EINVAL, "the kernel takes %u bytes of command line",
			       bp->hdr.cmdline_size);
	memcpy(kvm_guest_at(vm, KVM_CMDLINE, len + 1), vm->conf.append, len + 1);
	bp->hdr.cmd_line_ptr = KVM_CMDLINE;
	bp->hdr.type_of_loader = LOADER_OTHER;
	bp->acpi_rsdp_addr = KVM_ACPI;
	add_e820(bp, 0, KVM_LOW_END, E820_MEMORY);
	add_e820(bp, KVM_ACPI, KVM_HIGH, E820_RESERVED);
	add_e820(bp, KVM_HIGH, ram->block[0].size, E820_MEMORY);
	if (ram->nblocks > 1)
		add_e820(bp, ram->block[1].gpa, ram->block[1].gpa + ram->block[1].size,
			 E820_MEMORY);
	kvm_boot_acpi(vm);
	kvm_identity_map(vm, BOOT_GIB);
	/* The others wait for the first to start them (SIPI), as KVM has made them. */
	err = kvm_long_mode(&k->vcpu[0], &regs);
	return err ? vm_fail(vm, err, "registers: %s", strerror(-err)) : 0;
}
