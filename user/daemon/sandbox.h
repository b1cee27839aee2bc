/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * sandbox: what the daemon may still do once it runs.
 *
 * Kept: CAP_NET_ADMIN (a TAP port added at run time, address filters), CAP_NET_RAW (its
 * socket) and CAP_BPF (map updates). Everything else goes, no_new_privs is set, and
 * a seccomp filter kills the process on any system call that is not on the list.
 */
#ifndef GN_SANDBOX_H
#define GN_SANDBOX_H

/** sandbox_enter() - control thread, before workers start. Return: 0, -errno (logged) */
int sandbox_enter(void);

#endif
