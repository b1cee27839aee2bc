/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest in a disk's first sector (tests/share/qemu.sh): says that it is there at 0x9000, then,
 * with each tick of its clock, stores what it finds at 0xa000, and one, at 0x9008.
 */
	.code16
	.globl _start
_start:
	xor	%ax, %ax
	mov	%ax, %ds
	movl	$0x74736f68, 0x9000	/* "host" */
	sti
again:
	hlt
	movl	0xa000, %eax
	inc	%eax
	movl	%eax, 0x9008
	jmp	again
	.org	510
	.word	0xaa55
