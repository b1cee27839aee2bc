// SPDX-License-Identifier: BSD-2-Clause
/*
 * kvm_acpi: what Linux has to be told of CPUs, interrupt controllers and devices.
 *
 * ACPI 6.4: RSDP, XSDT, FADT, MADT, DSDT, FACS, one after the other at KVM_ACPI. The DSDT
 * is made of a few AML objects (chapter 20): \_S5, so that the guest can power off, and a
 * virtio-mmio device per network device (_HID LNRO0005, as Linux's driver knows it).
 */
#include <stddef.h>
#include <string.h>

#include "kvm.h"

#define IOAPIC	  0xfec00000u
#define LAPIC	  0xfee00000u
#define AML_ZERO  0x00
#define AML_NAME  0x08
#define AML_BYTE  0x0a
#define AML_DWORD 0x0c
#define AML_TEXT  0x0d
#define AML_SCOPE 0x10
#define AML_BUF	  0x11
#define AML_PACK  0x12
#define AML_EXT	  0x5b
#define AML_DEV	  0x82

struct __attribute__((packed)) head {
	char signature[4];
	uint32_t length;
	uint8_t revision, checksum;
	char oem[6], oem_table[8];
	uint32_t oem_revision;
	char creator[4];
	uint32_t creator_revision;
};

struct __attribute__((packed)) address {
	uint8_t space, width, offset, access;
	uint64_t at;
};

struct __attribute__((packed)) fadt {
	struct head h;
	uint32_t facs, dsdt;
	uint8_t reserved0, profile;
	uint16_t sci;
	uint32_t smi_cmd;
	uint8_t acpi_enable, acpi_disable, s4bios, pstate;
	uint32_t pm1a_evt, pm1b_evt, pm1a_cnt, pm1b_cnt, pm2_cnt, pm_tmr, gpe0, gpe1;
	uint8_t pm1_evt_len, pm1_cnt_len, pm2_cnt_len, pm_tmr_len, gpe0_len, gpe1_len,
		gpe1_base, cst;
	uint16_t lvl2, lvl3, flush_size, flush_stride;
	uint8_t duty_offset, duty_width, day_alarm, mon_alarm, century;
	uint16_t boot_arch;
	uint8_t reserved1;
	uint32_t flags;
	struct address reset;
	uint8_t reset_value;
	uint16_t arm_boot;
	uint8_t minor;
	uint64_t x_facs, x_dsdt;
	struct address x_pm1a_evt, x_pm1b_evt, x_pm1a_cnt, x_pm1b_cnt, x_pm2_cnt,
		x_pm_tmr, x_gpe0, x_gpe1, sleep_control, sleep_status;
	uint64_t hypervisor;
};
_Static_assert(sizeof(struct fadt) == 276, "ACPI 6.4, table 5.9");

#define FADT_WBINVD	(1U << 0)
#define FADT_PWR_BUTTON (1U << 4) /* none that is fixed */
#define FADT_SLP_BUTTON (1U << 5)
#define FADT_TMR_32	(1U << 8)
#define FADT_RESET	(1U << 10)
#define BOOT_NO_VGA	(1U << 2)
#define BOOT_NO_RTC	(1U << 5)

struct __attribute__((packed)) rsdp {
	char signature[8];
	uint8_t checksum;
	char oem[6];
	uint8_t revision;
	uint32_t rsdt, length;
	uint64_t xsdt;
	uint8_t checksum_all, reserved[3];
};

/* Where the next table goes. */
struct area {
	uint8_t *p;
	uint64_t gpa;
};

static uint8_t checksum(const void *p, size_t len)
{
	const uint8_t *b = p;
	uint8_t sum = 0;

	while (len--)
		sum = (uint8_t)(sum + *b++);
	return (uint8_t)-sum;
}

static struct head head(const char *signature, uint8_t revision)
{
	struct head h = { .revision = revision,
			  .oem_revision = 1,
			  .creator_revision = 1 };

	memcpy(h.signature, signature, 4);
	memcpy(h.oem, "GHOSTN", 6);
	memcpy(h.oem_table, "VMMIGRAT", 8);
	memcpy(h.creator, "GNIC", 4);
	return h;
}

/* Append a table whose header is set but for length and checksum. Return: its address */
static uint64_t add(struct area *a, void *table, size_t len)
{
	struct head *h = table;
	uint64_t at = a->gpa;

	h->length = (uint32_t)len;
	h->checksum = 0;
	h->checksum = checksum(table, len);
	memcpy(a->p, table, len);
	len = (len + 63) & ~63UL;
	a->p += len;
	a->gpa += len;
	return at;
}

/* ---- AML --------------------------------------------------------------------------- */

struct aml {
	uint8_t buf[1024];
	size_t len;
};

static void put(struct aml *a, const void *data, size_t len)
{
	memcpy(a->buf + a->len, data, len);
	a->len += len;
}

static void put1(struct aml *a, unsigned int v)
{
	a->buf[a->len++] = (uint8_t)v;
}

static void put4(struct aml *a, uint32_t v)
{
	put(a, &v, 4);
}

/* A package length in two bytes: enough for 4095, itself included. */
static size_t open_package(struct aml *a)
{
	a->len += 2;
	return a->len - 2;
}

static void close_package(struct aml *a, size_t at)
{
	size_t len = a->len - at;

	a->buf[at] = (uint8_t)(0x40 | (len & 0x0f));
	a->buf[at + 1] = (uint8_t)(len >> 4);
}

static void put_resources(struct aml *a, unsigned int i)
{
	const uint32_t base = (uint32_t)(KVM_MMIO + (uint64_t)i * KVM_MMIO_SIZE);
	size_t pkg;

	put1(a, AML_BUF);
	pkg = open_package(a);
	put1(a, AML_BYTE);
	put1(a, 12 + 9 + 2);
	/* Memory32Fixed, read and write. */
	put(a, (const uint8_t[]){ 0x86, 9, 0, 1 }, 4);
	put4(a, base);
	put4(a, KVM_MMIO_SIZE);
	/* Interrupt: consumer, edge, active high, exclusive; one. */
	put(a, (const uint8_t[]){ 0x89, 6, 0, 0x03, 1 }, 5);
	put4(a, KVM_NET_GSI + i);
	put(a, (const uint8_t[]){ 0x79, 0 }, 2); /* end */
	close_package(a, pkg);
}

static void put_device(struct aml *a, unsigned int i)
{
	const char name[4] = { 'V', 'R', '0', (char)('0' + i) };
	size_t pkg;

	put1(a, AML_EXT);
	put1(a, AML_DEV);
	pkg = open_package(a);
	put(a, name, 4);
	put1(a, AML_NAME);
	put(a, "_HID", 4);
	put1(a, AML_TEXT);
	put(a, "LNRO0005", 9);
	put1(a, AML_NAME);
	put(a, "_UID", 4);
	put1(a, AML_BYTE);
	put1(a, i);
	put1(a, AML_NAME);
	put(a, "_CCA", 4);
	put1(a, 1);
	put1(a, AML_NAME);
	put(a, "_CRS", 4);
	put_resources(a, i);
	close_package(a, pkg);
}

static uint64_t add_dsdt(struct vm *vm, struct area *area)
{
	struct aml a = { .len = sizeof(struct head) };
	struct head h = head("DSDT", 2);
	size_t pkg;

	put1(&a, AML_NAME);
	put(&a, "_S5_", 4);
	put1(&a, AML_PACK);
	pkg = open_package(&a);
	put(&a, (const uint8_t[]){ 4, AML_BYTE, 5, AML_BYTE, 5, AML_ZERO, AML_ZERO }, 7);
	close_package(&a, pkg);
	put1(&a, AML_SCOPE);
	pkg = open_package(&a);
	put(&a, "\\_SB_", 5);
	for (unsigned int i = 0; i < vm->conf.nnets; i++)
		put_device(&a, i);
	close_package(&a, pkg);
	memcpy(a.buf, &h, sizeof(h));
	return add(area, a.buf, a.len);
}

/* ---- tables ------------------------------------------------------------------------ */

static uint64_t add_madt(struct vm *vm, struct area *area)
{
	struct __attribute__((packed)) {
		struct head h;
		uint32_t lapic, flags;
		uint8_t entry[8 * VM_MAX_VCPUS + 12 + 10];
	} t = { .h = head("APIC", 5), .lapic = LAPIC, .flags = 1 /* and two PICs */ };
	const uint32_t io = IOAPIC, enabled = 1, sci = KVM_SCI;
	uint8_t *e = t.entry;

	for (unsigned int i = 0; i < vm->conf.vcpus; i++, e += 8) {
		memcpy(e, (uint8_t[]){ 0, 8, (uint8_t)i, (uint8_t)i }, 4);
		memcpy(e + 4, &enabled, 4);
	}
	memcpy(e, (uint8_t[]){ 1, 12, 0, 0 }, 4);
	memcpy(e + 4, &io, 4);
	e += 12;
	/* The system control interrupt: level, active high. */
	memcpy(e, (uint8_t[]){ 2, 10, 0, KVM_SCI }, 4);
	memcpy(e + 4, &sci, 4);
	e[8] = 0x0d;
	e += 10;
	return add(area, &t, (size_t)(e - (uint8_t *)&t));
}

static struct address port(uint64_t at, uint8_t bits)
{
	return (struct address){ .space = 1, .width = bits, .access = 0, .at = at };
}

static uint64_t add_fadt(struct area *area, uint64_t dsdt, uint64_t facs)
{
	struct fadt f = {
		.h = head("FACP", 6),
		.facs = (uint32_t)facs,
		.dsdt = (uint32_t)dsdt,
		.sci = KVM_SCI,
		.pm1a_evt = KVM_PM_PORT + KVM_PM_EVT,
		.pm1a_cnt = KVM_PM_PORT + KVM_PM_CNT,
		.pm_tmr = KVM_PM_PORT + KVM_PM_TMR,
		.pm1_evt_len = 4,
		.pm1_cnt_len = 2,
		.pm_tmr_len = 4,
		.lvl2 = 0xfff,
		.lvl3 = 0xfff,
		.boot_arch = BOOT_NO_VGA | BOOT_NO_RTC,
		.flags = FADT_WBINVD | FADT_PWR_BUTTON | FADT_SLP_BUTTON | FADT_TMR_32 |
			 FADT_RESET,
		.reset = port(KVM_KBD_PORT, 8),
		.reset_value = KVM_KBD_RESET,
		.minor = 4,
		.x_dsdt = dsdt,
		.x_pm1a_evt = port(KVM_PM_PORT + KVM_PM_EVT, 32),
		.x_pm1a_cnt = port(KVM_PM_PORT + KVM_PM_CNT, 16),
		.x_pm_tmr = port(KVM_PM_PORT + KVM_PM_TMR, 32),
	};

	return add(area, &f, sizeof(f));
}

void kvm_boot_acpi(struct vm *vm)
{
	struct area area = { .p = kvm_guest_at(vm, KVM_ACPI, 0x4000), .gpa = KVM_ACPI };
	struct rsdp *r = (struct rsdp *)area.p;
	struct __attribute__((packed)) {
		struct head h;
		uint64_t table[2];
	} xsdt = { .h = head("XSDT", 1) };
	uint64_t facs, dsdt;
	uint32_t len = 64;

	area.p += 64;
	area.gpa += 64;
	/* FACS: 64 bytes, without a checksum. */
	facs = area.gpa;
	memcpy(area.p, "FACS", 4);
	memcpy(area.p + 4, &len, 4);
	area.p[32] = 2; /* version */
	area.p += 64;
	area.gpa += 64;

	dsdt = add_dsdt(vm, &area);
	xsdt.table[0] = add_fadt(&area, dsdt, facs);
	xsdt.table[1] = add_madt(vm, &area);
	*r = (struct rsdp){ .revision = 2, .length = sizeof(*r) };
	memcpy(r->signature, "RSD PTR ", 8);
	memcpy(r->oem, "GHOSTN", 6);
	r->xsdt = add(&area, &xsdt, sizeof(xsdt));
	r->checksum = checksum(r, 20);
	r->checksum_all = checksum(r, sizeof(*r));
}
