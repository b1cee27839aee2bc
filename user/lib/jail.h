/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * jail: give up rights for good: capabilities by libcap-ng, system calls by libseccomp.
 *
 * A call that is not listed kills the process, and the kernel logs it, or fails with an
 * error of one's choice. Where an argument
 * is a number, it is checked too; behind pointers seccomp cannot look, so clone3() is
 * answered with ENOSYS, which makes the C library use clone(). seccomp(2),
 * capabilities(7).
 */
#ifndef GN_JAIL_H
#define GN_JAIL_H

#include <stddef.h>
#include <stdint.h>

#define JAIL_INT 0xffffffffU /* the kernel takes an int: libc may extend its sign */

/* Allowed, or answered with an error, if one argument, masked, has this value. */
struct jail_rule {
	int nr;
	unsigned int arg;
	uint64_t mask, value;
	int err; /* 0: allowed */
};

/* Allowed: one request of ioctl(), one family of socket(). SCMP_SYS(): seccomp.h */
#define JAIL_IOCTL(x)                                                                    \
	{                                                                                \
		SCMP_SYS(ioctl), 1, JAIL_INT, (x), 0                                     \
	}
#define JAIL_SOCKET(x)                                                                   \
	{                                                                                \
		SCMP_SYS(socket), 0, JAIL_INT, (x), 0                                    \
	}

struct jail {
	/* Beside those of threads, sockets and event loops, which all get (jail.c) */
	const int *calls; /* with any arguments */
	size_t ncalls;
	const struct jail_rule *rules;
	size_t nrules;
	int otherwise;	  /* errno of what is not listed; 0: it kills */
	const int *fatal; /* kill even if otherwise is an error */
	size_t nfatal;
};

/**
 * jail_drop_caps() - keep these capabilities, of those there are, and set no_new_privs;
 * also in the bounding set, if that is allowed. This thread and those it will make.
 *
 * Return: 0, -errno (logged)
 */
int jail_drop_caps(const int *keep, size_t n);

/**
 * jail_filter() - from now on these system calls only, and signals to this process. All
 * threads. Built with a sanitizer it does nothing, and says so. Return: 0, -errno
 * (logged)
 */
int jail_filter(const struct jail *j);

/**
 * jail_narrow() - after jail_filter(): what matches one of these rules fails with the
 * rule's error from now on, whatever was allowed. All threads. As jail_filter()
 */
int jail_narrow(const struct jail_rule *rules, size_t n);

#endif
