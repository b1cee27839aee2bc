// SPDX-License-Identifier: BSD-2-Clause
/*
 * sandbox: capabilities by libcap-ng, system calls by libseccomp.
 *
 * Everything with more rights than the filter leaves happens before: programs
 * and pins are opened, AF_XDP and packet sockets bound, the control socket listens.
 * What stays is the packet path, the control socket, and adding and removing
 * instances: a TAP device, an entry in a map, an address in the NIC's filter.
 *
 * A call that is not listed kills the process, and the kernel logs it. Where an
 * argument is a number, it is checked too; behind pointers seccomp cannot look, so
 * clone3() is answered with ENOSYS, which makes the C library use clone().
 * seccomp(2), capabilities(7). Control thread, before others exist.
 */
#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <sched.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sandbox.h"
#include "../lib/log.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZER 1
#endif
#endif

static const int keep_caps[] = { CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF };

/* Any arguments. Grouped by who needs them. */
static const int allowed[] = {
	/* packet path */
	SCMP_SYS(epoll_wait),
	SCMP_SYS(epoll_pwait),
	SCMP_SYS(epoll_pwait2),
	SCMP_SYS(poll),
	SCMP_SYS(ppoll),
	SCMP_SYS(recvfrom),
	SCMP_SYS(recvmsg),
	SCMP_SYS(recvmmsg),
	SCMP_SYS(read),
	SCMP_SYS(write),
	SCMP_SYS(readv),
	SCMP_SYS(writev),
	/* threads, time, memory */
	SCMP_SYS(futex),
	SCMP_SYS(clock_gettime),
	SCMP_SYS(clock_nanosleep),
	SCMP_SYS(nanosleep),
	SCMP_SYS(gettimeofday),
	SCMP_SYS(sched_yield),
	SCMP_SYS(sched_setaffinity),
	SCMP_SYS(sched_getaffinity),
	SCMP_SYS(getcpu),
	SCMP_SYS(set_robust_list),
	SCMP_SYS(rseq),
	SCMP_SYS(gettid),
	SCMP_SYS(getpid),
	SCMP_SYS(munmap),
	SCMP_SYS(mremap),
	SCMP_SYS(madvise),
	SCMP_SYS(brk),
	SCMP_SYS(memfd_create),
	SCMP_SYS(ftruncate),
	SCMP_SYS(membarrier),
	SCMP_SYS(getrandom),
	SCMP_SYS(rt_sigaction),
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(sigaltstack),
	SCMP_SYS(restart_syscall),
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
	/* control socket, instances */
	SCMP_SYS(accept4),
	SCMP_SYS(close),
	SCMP_SYS(shutdown),
	SCMP_SYS(getsockopt),
	SCMP_SYS(setsockopt),
	SCMP_SYS(epoll_ctl),
	SCMP_SYS(epoll_create1),
	SCMP_SYS(eventfd2),
	SCMP_SYS(fcntl),
	SCMP_SYS(lseek),
	SCMP_SYS(fstat),
	SCMP_SYS(newfstatat),
	SCMP_SYS(stat),
	SCMP_SYS(lstat),
	SCMP_SYS(unlink),
	SCMP_SYS(unlinkat),
	/* ports that listen on a socket of their own and pass descriptors */
	SCMP_SYS(umask),
	SCMP_SYS(bind),
	SCMP_SYS(listen),
	SCMP_SYS(connect),
	SCMP_SYS(socketpair),
	SCMP_SYS(sendmsg),
	/* a vhost-user port that connects, and tries again */
	SCMP_SYS(timerfd_create),
	SCMP_SYS(timerfd_settime),
};

/* A TAP port and what it asks of its device; terminals are stdio's question. */
static const unsigned long ioctls[] = {
	TUNSETIFF,    TUNGETIFF,    TUNGETFEATURES, TUNSETOFFLOAD, TUNSETVNETHDRSZ,
	TUNSETVNETLE, TUNSETSNDBUF, TUNSETQUEUE,    SIOCGIFFLAGS,  SIOCSIFFLAGS,
	SIOCGIFMTU,   SIOCSIFMTU,   SIOCGIFHWADDR,  SIOCSIFHWADDR, SIOCGIFINDEX,
	SIOCETHTOOL,  FIONREAD,	    FIONBIO,	    TCGETS,
};

static const unsigned int bpf_cmds[] = {
	BPF_MAP_LOOKUP_ELEM,
	BPF_MAP_UPDATE_ELEM,
	BPF_MAP_DELETE_ELEM,
	BPF_MAP_GET_NEXT_KEY,
};

/*
 * Only what the process has can be kept; a daemon started with less has
 * opened what it needs already, and says so when it cannot open more.
 */
static int drop_caps(void)
{
	bool bounds, had[ARRAY_SIZE(keep_caps)];

	if (capng_get_caps_process())
		return -EINVAL;
	bounds = capng_have_capability(CAPNG_EFFECTIVE, CAP_SETPCAP);
	for (size_t i = 0; i < ARRAY_SIZE(keep_caps); i++)
		had[i] = capng_have_capability(CAPNG_PERMITTED,
					       (unsigned int)keep_caps[i]);
	capng_clear(CAPNG_SELECT_ALL);
	for (size_t i = 0; i < ARRAY_SIZE(keep_caps); i++)
		if (had[i])
			capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED,
				     (unsigned int)keep_caps[i]);
	/* Bounds first needs CAP_SETPCAP; without it no_new_privs does the same. */
	if (bounds && capng_apply(CAPNG_SELECT_BOUNDS))
		return -EPERM;
	return capng_apply(CAPNG_SELECT_CAPS) ? -EPERM : 0;
}

#define LOW32 0xffffffffU /* the kernel takes an int: libc may extend its sign */

/* Allowed if one argument, masked, has this value. */
static const struct rule {
	int nr;
	unsigned int arg;
	uint64_t mask, value;
} rules[] = {
	/* To connected sockets and AF_XDP's doorbell, never to an address. */
	{ SCMP_SYS(sendto), 4, UINT64_MAX, 0 },
	/* No new code. */
	{ SCMP_SYS(mmap), 2, PROT_EXEC, 0 },
	{ SCMP_SYS(mprotect), 2, PROT_EXEC, 0 },
	/* Threads, not processes. */
	{ SCMP_SYS(clone), 0, CLONE_THREAD | CLONE_VM, CLONE_THREAD | CLONE_VM },
	/* /dev/net/tun and sysfs; no file is made or emptied. */
	{ SCMP_SYS(openat), 2, O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY), 0 },
	/* A handle for SIOCSIFMTU; sockets of ports. Never one that leaves the host. */
	{ SCMP_SYS(socket), 0, LOW32, AF_UNIX },
	{ SCMP_SYS(prctl), 0, LOW32, PR_SET_NAME },
	/* glibc asks for the stack's limit when it makes a thread, and sets none. */
	{ SCMP_SYS(prlimit64), 2, UINT64_MAX, 0 },
};

static int allow(scmp_filter_ctx f, const struct rule *r)
{
	const struct scmp_arg_cmp cmp = {
		.arg = r->arg,
		.op = SCMP_CMP_MASKED_EQ,
		.datum_a = r->mask,
		.datum_b = r->value,
	};

	return seccomp_rule_add_array(f, SCMP_ACT_ALLOW, r->nr, 1, &cmp);
}

/* Calls whose arguments matter. Return: 0, -errno */
static int add_checked(scmp_filter_ctx f)
{
	const uint64_t pid = (uint64_t)getpid();
	const struct rule own_pid[] = {
		{ SCMP_SYS(tgkill), 0, LOW32, pid },
		{ SCMP_SYS(kill), 0, LOW32, pid },
	};
	int err = 0;

	for (size_t i = 0; !err && i < ARRAY_SIZE(rules); i++)
		err = allow(f, &rules[i]);
	for (size_t i = 0; !err && i < ARRAY_SIZE(own_pid); i++)
		err = allow(f, &own_pid[i]);
	for (size_t i = 0; !err && i < ARRAY_SIZE(ioctls); i++)
		err = allow(f, &(struct rule){ SCMP_SYS(ioctl), 1, LOW32, ioctls[i] });
	for (size_t i = 0; !err && i < ARRAY_SIZE(bpf_cmds); i++)
		err = allow(f, &(struct rule){ SCMP_SYS(bpf), 0, LOW32, bpf_cmds[i] });
	return err ? err
		   : seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
}

static int load_filter(void)
{
	scmp_filter_ctx f = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int err;

	if (!f)
		return -ENOMEM;
	err = seccomp_attr_set(f, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	if (!err)
		err = seccomp_attr_set(f, SCMP_FLTATR_CTL_TSYNC, 1);
	/* A binary tree: the packet path's sendto() has an argument to check, so the
	 * kernel cannot remember that it is allowed. */
	if (!err)
		err = seccomp_attr_set(f, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	for (size_t i = 0; !err && i < ARRAY_SIZE(allowed); i++)
		err = seccomp_rule_add(f, SCMP_ACT_ALLOW, allowed[i], 0);
	if (!err)
		err = add_checked(f);
	if (!err)
		err = seccomp_load(f);
	seccomp_release(f);
	return err;
}

int sandbox_enter(void)
{
	int err = drop_caps();

	if (!err && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		err = -errno;
	if (err) {
		log_err("cannot drop capabilities: %s", strerror(-err));
		return err;
	}
#ifdef SANITIZER
	/* Leak checks fork, trace and read /proc: not what the filter is for. */
	log_warn("built with a sanitizer: no system call filter");
	return 0;
#endif
	err = load_filter();
	if (err)
		log_err("cannot load the system call filter: %s; is "
			"CONFIG_SECCOMP_FILTER in the kernel?",
			strerror(-err));
	return err;
}
