/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest in a disk's first sector (writer-lib.sh), whose CPU writes all the time, so that its
 * memory tells whether a write is missing:
 *
 * It fills every STRIDE-th page from FILL to below END with numbers that follow from SEED.
 * Then it goes round PAGES pages from HOT on and adds one to the first and to the last word
 * of each, in turn, for ever. So at any moment all words before some place are greater by
 * one than those after it, and a write that was lost shows for ever after.
 *
 * The CPU forgets its translations before each write (by CR4): without KVM, QEMU before 9.0 may
 * not find writes through those that it had before it looked.
 */
	.code16
	.globl	_start
_start:
	cli				/* for good: nobody else writes */
	xor	%ax, %ax
	mov	%ax, %ds
	lgdt	gdtr
	mov	%cr0, %eax
	or	$1, %al
	mov	%eax, %cr0
	ljmp	$8, $flat
	.code32
flat:
	mov	$16, %ax
	mov	%ax, %ds
	mov	%ax, %es
	mov	$SEED, %eax
	mov	$FILL, %edi
	cld
page:
	cmp	$END, %edi
	jae	round
	mov	$1024, %ecx
1:	imul	$1664525, %eax, %eax
	add	$1013904223, %eax
	stosl
	loop	1b
	add	$((STRIDE - 1) * 4096), %edi
	jmp	page

	.macro	forget
	mov	%cr4, %eax
	xor	$0x10, %al
	mov	%eax, %cr4
	.endm
round:
	mov	$HOT, %edi
	mov	$PAGES, %ecx
2:	forget
	incl	(%edi)
	forget
	incl	4092(%edi)
	add	$4096, %edi
	loop	2b
	jmp	round

gdt:	.quad	0, 0x00cf9a000000ffff, 0x00cf92000000ffff
gdtr:	.word	. - gdt - 1
	.long	gdt
	.org	510
	.word	0xaa55
