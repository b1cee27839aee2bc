/* SPDX-License-Identifier: BSD-2-Clause */
/* confine: what the process of a VM gives up before it meets a guest or a stream. */
#ifndef VMM_CONFINE_H
#define VMM_CONFINE_H

/**
 * confine() - drop capabilities, never gain any, and make no system call any more but
 * those that a VMM needs
 * @accel:	"kvm" or "process"; NULL: either, and confine_to() says later which
 *
 * A guest that took the VMM over could still do what the VMM does with its descriptors
 * and read its user's files, and no more: it cannot run another program, map code, load
 * any into the kernel, look into other processes or signal them, make files, or leave its
 * namespaces.
 *
 * Before other threads exist. Return: 0, -errno
 */
int confine(const char *accel);

/**
 * confine_to() - the machine is there: what only making one takes, or one of the other
 * kind, is refused from now on. All threads. Return: 0, -errno
 */
int confine_to(const char *accel);

#endif
