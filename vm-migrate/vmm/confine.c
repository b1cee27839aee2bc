// SPDX-License-Identifier: BSD-2-Clause
/*
 * confine: what a VMM gives to jail.h.
 *
 * A call that is not listed fails with EPERM: libraries try what they can do without. One
 * that only somebody who took the process over would make kills it.
 *
 * A process as the guest is forked and puts on a filter of its own (process_guest.c);
 * what it does until then is in the list too. Once the machine is made, confine_to()
 * takes away what only that needed; a destination does so when a machine has arrived,
 * since until then another attempt may bring one of the other kind.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/kvm.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <termios.h>

#include "../../user/lib/jail.h"
#include "../kernel.h"
#include "confine.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* As glibc does it */
#define FORK	    (CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID | SIGCHLD)
#define MAKES_FILES (O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY))

static const int calls[] = {
	/* streams, the control socket; names that are resolved */
	SCMP_SYS(sendto),
	SCMP_SYS(sendmmsg),
	SCMP_SYS(getsockname),
	SCMP_SYS(getpeername),
	SCMP_SYS(pipe2),
	SCMP_SYS(dup),
	/* files: kernel, keys, what the C library looks up */
	SCMP_SYS(pread64),
	SCMP_SYS(preadv),
	SCMP_SYS(pwrite64), /* the RAM's memfd */
	SCMP_SYS(access),
	SCMP_SYS(faccessat),
	SCMP_SYS(faccessat2),
	SCMP_SYS(statx),
	SCMP_SYS(fstatfs),
	SCMP_SYS(statfs),
	SCMP_SYS(readlink),
	SCMP_SYS(readlinkat),
	SCMP_SYS(getdents64),
	SCMP_SYS(uname),
	SCMP_SYS(getuid),
	SCMP_SYS(geteuid),
	SCMP_SYS(getgid),
	SCMP_SYS(getegid),
	/* threads, time */
	SCMP_SYS(clock_getres),
	SCMP_SYS(time),
	SCMP_SYS(getrusage),
	/* the process that is a guest, and what it does before it is one */
	SCMP_SYS(pidfd_open),
	SCMP_SYS(pidfd_send_signal),
	SCMP_SYS(waitid),
	SCMP_SYS(wait4),
	SCMP_SYS(dup2),
	SCMP_SYS(close_range),
	SCMP_SYS(userfaultfd),
};

/* Nothing here does these, nor does a library that it uses. */
static const int fatal[] = {
	SCMP_SYS(execve),
	SCMP_SYS(execveat),
	SCMP_SYS(ptrace),
	SCMP_SYS(process_vm_readv),
	SCMP_SYS(process_vm_writev),
	SCMP_SYS(pidfd_getfd),
	SCMP_SYS(init_module),
	SCMP_SYS(finit_module),
	SCMP_SYS(kexec_load),
	SCMP_SYS(kexec_file_load),
	SCMP_SYS(bpf),
	SCMP_SYS(unshare),
	SCMP_SYS(setns),
	SCMP_SYS(mount),
	SCMP_SYS(pivot_root),
	SCMP_SYS(chroot),
};

#define PRCTL(x)                                                                         \
	{                                                                                \
		SCMP_SYS(prctl), 0, JAIL_INT, (x), 0                                     \
	}

static const struct jail_rule rules[] = {
	{ SCMP_SYS(mmap), 2, PROT_EXEC, 0, 0 },
	{ SCMP_SYS(mprotect), 2, PROT_EXEC, 0, 0 },
	{ SCMP_SYS(openat), 2, MAKES_FILES, 0, 0 },
	/* Threads; and one kind of process. */
	{ SCMP_SYS(clone), 0, CLONE_THREAD | CLONE_VM, CLONE_THREAD | CLONE_VM, 0 },
	{ SCMP_SYS(clone), 0, JAIL_INT, FORK, 0 },
	/* A further filter, and libseccomp's questions about what the kernel can do. */
	{ SCMP_SYS(seccomp), 0, JAIL_INT, SECCOMP_SET_MODE_FILTER, 0 },
	{ SCMP_SYS(seccomp), 0, JAIL_INT, SECCOMP_GET_ACTION_AVAIL, 0 },
	PRCTL(PR_SET_NAME),
	PRCTL(PR_SET_NO_NEW_PRIVS),
	PRCTL(PR_GET_SECCOMP),
	/* glibc asks for the stack's limit when it makes a thread, and sets none. */
	{ SCMP_SYS(prlimit64), 2, UINT64_MAX, 0, 0 },
	JAIL_SOCKET(AF_UNIX),
	JAIL_SOCKET(AF_INET),
	JAIL_SOCKET(AF_INET6),
	JAIL_SOCKET(AF_NETLINK), /* getaddrinfo() asks what addresses this host has */
	JAIL_IOCTL(FIONREAD),
	JAIL_IOCTL(FIONBIO),
	JAIL_IOCTL(TIOCOUTQ), /* SIOCOUTQ too */
	JAIL_IOCTL(TIOCGWINSZ),
	JAIL_IOCTL(TCGETS), /* the console, and as it was at the end */
	JAIL_IOCTL(TCSETS),
	JAIL_IOCTL(UFFDIO_API),
	JAIL_IOCTL(UFFDIO_REGISTER),
	JAIL_IOCTL(PAGEMAP_SCAN),
	/* KVM: the system, */
	JAIL_IOCTL(KVM_GET_API_VERSION),
	JAIL_IOCTL(KVM_CHECK_EXTENSION),
	JAIL_IOCTL(KVM_CREATE_VM),
	JAIL_IOCTL(KVM_GET_VCPU_MMAP_SIZE),
	JAIL_IOCTL(KVM_GET_SUPPORTED_CPUID),
	JAIL_IOCTL(KVM_GET_MSR_INDEX_LIST),
	/* the machine, */
	JAIL_IOCTL(KVM_ENABLE_CAP),
	JAIL_IOCTL(KVM_SET_TSS_ADDR),
	JAIL_IOCTL(KVM_SET_IDENTITY_MAP_ADDR),
	JAIL_IOCTL(KVM_CREATE_IRQCHIP),
	JAIL_IOCTL(KVM_CREATE_PIT2),
	JAIL_IOCTL(KVM_CREATE_VCPU),
	JAIL_IOCTL(KVM_SET_USER_MEMORY_REGION),
	JAIL_IOCTL(KVM_IOEVENTFD),
	JAIL_IOCTL(KVM_IRQFD),
	JAIL_IOCTL(KVM_IRQ_LINE),
	JAIL_IOCTL(KVM_GET_DIRTY_LOG),
	JAIL_IOCTL(KVM_CLEAR_DIRTY_LOG),
	JAIL_IOCTL(KVM_RESET_DIRTY_RINGS),
	JAIL_IOCTL(KVM_GET_IRQCHIP),
	JAIL_IOCTL(KVM_SET_IRQCHIP),
	JAIL_IOCTL(KVM_GET_PIT2),
	JAIL_IOCTL(KVM_SET_PIT2),
	JAIL_IOCTL(KVM_GET_CLOCK),
	JAIL_IOCTL(KVM_SET_CLOCK),
	/* a vCPU */
	JAIL_IOCTL(KVM_RUN),
	JAIL_IOCTL(KVM_SET_CPUID2),
	JAIL_IOCTL(KVM_GET_REGS),
	JAIL_IOCTL(KVM_SET_REGS),
	JAIL_IOCTL(KVM_GET_SREGS),
	JAIL_IOCTL(KVM_SET_SREGS),
	JAIL_IOCTL(KVM_GET_MSRS),
	JAIL_IOCTL(KVM_SET_MSRS),
	JAIL_IOCTL(KVM_GET_LAPIC),
	JAIL_IOCTL(KVM_SET_LAPIC),
	JAIL_IOCTL(KVM_GET_MP_STATE),
	JAIL_IOCTL(KVM_SET_MP_STATE),
	JAIL_IOCTL(KVM_GET_VCPU_EVENTS),
	JAIL_IOCTL(KVM_SET_VCPU_EVENTS),
	JAIL_IOCTL(KVM_GET_DEBUGREGS),
	JAIL_IOCTL(KVM_SET_DEBUGREGS),
	JAIL_IOCTL(KVM_GET_XSAVE),
	JAIL_IOCTL(KVM_GET_XSAVE2),
	JAIL_IOCTL(KVM_SET_XSAVE),
	JAIL_IOCTL(KVM_GET_XCRS),
	JAIL_IOCTL(KVM_SET_XCRS),
	JAIL_IOCTL(KVM_GET_TSC_KHZ),
	JAIL_IOCTL(KVM_SET_TSC_KHZ),
	JAIL_IOCTL(KVM_KVMCLOCK_CTRL),
};

/* Once a machine is there, of either kind. */
#define NO_NEW_MACHINE                                                                   \
	{ SCMP_SYS(clone), 0, CLONE_THREAD, 0, EPERM },                                  \
		{ SCMP_SYS(userfaultfd), 0, 0, 0, EPERM },                               \
		{ SCMP_SYS(pidfd_open), 0, 0, 0, EPERM },                                \
		{ SCMP_SYS(ioctl), 1, JAIL_INT, KVM_CREATE_VM, EPERM },                  \
		{ SCMP_SYS(ioctl), 1, JAIL_INT, KVM_CREATE_VCPU, EPERM },                \
		{ SCMP_SYS(ioctl), 1, JAIL_INT, UFFDIO_API, EPERM },                     \
	{                                                                                \
		SCMP_SYS(ioctl), 1, JAIL_INT, UFFDIO_REGISTER, EPERM                     \
	}

static const struct jail_rule to_kvm[] = {
	NO_NEW_MACHINE,
	{ SCMP_SYS(ioctl), 1, JAIL_INT, PAGEMAP_SCAN, EPERM },
	{ SCMP_SYS(pidfd_send_signal), 0, 0, 0, EPERM },
};

static const struct jail_rule to_process[] = {
	NO_NEW_MACHINE,
	{ SCMP_SYS(ioctl), 1, 0xff00, KVMIO << 8, EPERM },
};

int confine_to(const char *accel)
{
	if (!strcmp(accel, "kvm"))
		return jail_narrow(to_kvm, ARRAY_SIZE(to_kvm));
	return jail_narrow(to_process, ARRAY_SIZE(to_process));
}

/* Not yet made; the other kind never will be. */
static int before(const char *accel)
{
	static const struct jail_rule no_fork = { SCMP_SYS(clone), 0, CLONE_THREAD, 0,
						  EPERM };

	if (!strcmp(accel, "kvm"))
		return jail_narrow(&no_fork, 1);
	return jail_narrow(&to_process[ARRAY_SIZE(to_process) - 1], 1);
}

int confine(const char *accel)
{
	static const int keep[] = { CAP_NET_BIND_SERVICE }; /* ports below 1024 */
	static const struct jail jail = {
		.calls = calls,
		.ncalls = ARRAY_SIZE(calls),
		.rules = rules,
		.nrules = ARRAY_SIZE(rules),
		.otherwise = EPERM,
		.fatal = fatal,
		.nfatal = ARRAY_SIZE(fatal),
	};
	int err = jail_drop_caps(keep, ARRAY_SIZE(keep));

	if (!err)
		err = jail_filter(&jail);
	return err || !accel ? err : before(accel);
}
