// SPDX-License-Identifier: BSD-2-Clause
/*
 * agent_jail: what ghostmemd gives to jail.h.
 *
 * The agent needs no capability once it listens: who may use userfaultfd is a question to
 * the applications, which make their own and hand it over. What stays is memory, sockets
 * of the node and of the directory with the names to be resolved for them, the
 * directory's file. It starts no program and maps no code; libraries that the name
 * service would load are refused, and it goes on without them.
 */
#include <errno.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "agent_int.h"
#include "uffd.h"
#include "../../lib/jail.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static const int calls[] = {
	/* requests, faults, grants */
	SCMP_SYS(sendto),
	SCMP_SYS(sendmmsg),
	SCMP_SYS(fallocate),
	SCMP_SYS(mincore),
	/* connections, applications */
	SCMP_SYS(getsockname),
	SCMP_SYS(getpeername),
	SCMP_SYS(pipe2),
	SCMP_SYS(dup),
	/* the directory's file, what names are resolved with */
	SCMP_SYS(openat),
	SCMP_SYS(flock),
	SCMP_SYS(inotify_init1),
	SCMP_SYS(inotify_add_watch),
	SCMP_SYS(statx),
	SCMP_SYS(fstatfs),
	SCMP_SYS(statfs),
	SCMP_SYS(access),
	SCMP_SYS(faccessat),
	SCMP_SYS(faccessat2),
	SCMP_SYS(readlink),
	SCMP_SYS(readlinkat),
	SCMP_SYS(getdents64),
	SCMP_SYS(pread64),
	SCMP_SYS(preadv2),
	SCMP_SYS(pwrite64),
	SCMP_SYS(fsync),
	SCMP_SYS(fdatasync),
	SCMP_SYS(rename),
	SCMP_SYS(renameat),
	SCMP_SYS(renameat2),
	SCMP_SYS(chmod),
	SCMP_SYS(fchmod),
	SCMP_SYS(fchmodat),
	SCMP_SYS(uname),
	SCMP_SYS(getuid),
	SCMP_SYS(geteuid),
	SCMP_SYS(getgid),
	SCMP_SYS(getegid),
	/* a time limit for that lock, and for what userfaultfds say */
	SCMP_SYS(timer_create),
	SCMP_SYS(timer_settime),
	SCMP_SYS(timer_delete),
	/* threads, time, memory */
	SCMP_SYS(clock_getres),
	SCMP_SYS(time),
	SCMP_SYS(pidfd_open),
};

static const struct jail_rule rules[] = {
	{ SCMP_SYS(mmap), 2, PROT_EXEC, 0, 0 },
	{ SCMP_SYS(mmap), 2, PROT_EXEC, PROT_EXEC, EPERM },
	{ SCMP_SYS(mprotect), 2, PROT_EXEC, 0, 0 },
	/* Threads, not processes. */
	{ SCMP_SYS(clone), 0, CLONE_THREAD | CLONE_VM, CLONE_THREAD | CLONE_VM, 0 },
	{ SCMP_SYS(prctl), 0, JAIL_INT, PR_SET_NAME, 0 },
	/* glibc asks for the stack's limit when it makes a thread, and sets none. */
	{ SCMP_SYS(prlimit64), 2, UINT64_MAX, 0, 0 },
	JAIL_SOCKET(AF_UNIX),
	JAIL_SOCKET(AF_INET),
	JAIL_SOCKET(AF_INET6),
	JAIL_SOCKET(AF_NETLINK), /* getaddrinfo() asks what addresses this host has */
	/* Of userfaultfds that applications handed over. */
	JAIL_IOCTL(UFFDIO_COPY),
	JAIL_IOCTL(UFFDIO_ZEROPAGE),
	JAIL_IOCTL(UFFDIO_CONTINUE),
	JAIL_IOCTL(UFFDIO_WRITEPROTECT),
	JAIL_IOCTL(UFFDIO_POISON),
	JAIL_IOCTL(UFFDIO_WAKE),
	JAIL_IOCTL(UFFDIO_UNREGISTER),
	JAIL_IOCTL(FIONREAD),
	JAIL_IOCTL(FIONBIO),
	JAIL_IOCTL(TCGETS),
};

int agent_drop_caps(void)
{
	return jail_drop_caps(NULL, 0);
}

int agent_confine(void)
{
	static const struct jail jail = {
		.calls = calls,
		.ncalls = ARRAY_SIZE(calls),
		.rules = rules,
		.nrules = ARRAY_SIZE(rules),
	};

	return jail_filter(&jail);
}
