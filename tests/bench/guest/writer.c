// SPDX-License-Identifier: BSD-2-Clause
/*
 * The guest of `make bench-migrate` under QEMU: no kernel, a multiboot image in 32-bit
 * protected mode without paging. It writes 16 bytes each to random pages, so many a
 * second, and sleeps in between, as the built-in workload of `vm-migrate run` does.
 *
 * Command line: PAGES_PER_S FIRST_PAGE PAGES. At physical address COUNT_AT it keeps the
 * number of its writes.
 */
#include <stdint.h>

#define HZ	 250
#define PIT_HZ	 1193182
#define COUNT_AT 0x200000
#define STACK	 16384

/* Multiboot 0.6.96: header in the first 8 KiB of the file, checksum to 0. */
__attribute__((section(".multiboot"),
	       used)) static const uint32_t header[3] = { 0x1badb002, 0, -0x1badb002u };

struct multiboot_info {
	uint32_t flags, mem_lower, mem_upper, boot_device, cmdline;
};

static uint8_t stack[STACK] __attribute__((aligned(16), used));
static volatile uint32_t ticks;

static inline void outb(uint16_t port, uint8_t v)
{
	__asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}

/* ---- interrupts: the timer, and nothing else ------------------------------------------
 */

struct gate {
	uint16_t low, selector;
	uint8_t zero, type;
	uint16_t high;
} __attribute__((packed));

struct table {
	uint16_t limit;
	uint32_t base;
} __attribute__((packed));

static struct gate idt[33];
static const uint64_t gdt[3] = { 0, 0x00cf9a000000ffffULL, 0x00cf92000000ffffULL };

__attribute__((interrupt)) static void timer(void *frame)
{
	(void)frame;
	ticks++;
	outb(0x20, 0x20); /* end of interrupt */
}

static void interrupts(void)
{
	const struct table g = { sizeof(gdt) - 1, (uint32_t)gdt };
	const struct table i = { sizeof(idt) - 1, (uint32_t)idt };

	__asm__ volatile("lgdt %0\n\tljmp $8, $1f\n1:\n\t"
			 "mov $16, %%eax\n\tmov %%ax, %%ds\n\tmov %%ax, %%es\n\t"
			 "mov %%ax, %%ss\n\tmov %%ax, %%fs\n\tmov %%ax, %%gs"
			 :
			 : "m"(g)
			 : "eax", "memory");
	idt[32] = (struct gate){ (uint16_t)(uint32_t)timer, 8, 0, 0x8e,
				 (uint16_t)((uint32_t)timer >> 16) };
	__asm__ volatile("lidt %0" : : "m"(i));
	/* 8259s: vectors from 32, all masked but IRQ 0. */
	outb(0x20, 0x11);
	outb(0xa0, 0x11);
	outb(0x21, 32);
	outb(0xa1, 40);
	outb(0x21, 4);
	outb(0xa1, 2);
	outb(0x21, 1);
	outb(0xa1, 1);
	outb(0x21, 0xfe);
	outb(0xa1, 0xff);
	/* 8254: channel 0, mode 2. */
	outb(0x43, 0x34);
	outb(0x40, (PIT_HZ / HZ) & 0xff);
	outb(0x40, (PIT_HZ / HZ) >> 8);
}

/* ---- writing
 * ---------------------------------------------------------------------------- */

static uint32_t number(const char **s)
{
	uint32_t v = 0;

	while (**s == ' ')
		(*s)++;
	while (**s >= '0' && **s <= '9')
		v = v * 10 + (uint32_t)(*(*s)++ - '0');
	return v;
}

static uint32_t next_random(void)
{
	static uint32_t x = 2463534242u; /* xorshift32: Marsaglia 2003 */

	x ^= x << 13;
	x ^= x >> 17;
	x ^= x << 5;
	return x;
}

__attribute__((used, noreturn)) static void run(const struct multiboot_info *info)
{
	volatile uint32_t *count = (volatile uint32_t *)COUNT_AT;
	const char *s = (const char *)info->cmdline;
	uint32_t rate, first, pages, last = 0, credit = 0;

	while (*s && *s != ' ')
		s++; /* the image's name */
	rate = number(&s);
	first = number(&s);
	pages = number(&s);
	*count = 0;
	interrupts();
	for (;;) {
		uint32_t now;

		__asm__ volatile("sti\n\thlt\n\tcli" : : : "memory");
		now = ticks;
		/* Not what a long stop would make up for. */
		credit += (now - last > HZ ? HZ : now - last) * rate;
		last = now;
		for (; credit >= HZ; credit -= HZ) {
			uint32_t page = first + next_random() % pages;
			volatile uint32_t *p = (volatile uint32_t *)(page << 12);

			for (int i = 0; i < 4; i++)
				p[i] = *count + (uint32_t)i;
			(*count)++;
		}
	}
}

__attribute__((naked, used, section(".text.start"))) void _start(void)
{
	__asm__ volatile("cli\n\tmov $stack + %c0, %%esp\n\tpush %%ebx\n\tcall run"
			 :
			 : "i"(STACK));
}
