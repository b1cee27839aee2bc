// SPDX-License-Identifier: BSD-2-Clause
/* jail: see jail.h. */
#include <cap-ng.h>
#include <errno.h>
#include <seccomp.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "jail.h"
#include "log.h"
#include "sanitizer.h"

#define KEEP_MAX 8

/*
 * Only what the process has can be kept; one that was started with less has opened what
 * it needs already, and says so when it cannot open more.
 */
static int drop_caps(const int *keep, size_t n)
{
	bool bounds, had[KEEP_MAX];

	if (n > KEEP_MAX || capng_get_caps_process())
		return -EINVAL;
	bounds = capng_have_capability(CAPNG_EFFECTIVE, CAP_SETPCAP);
	for (size_t i = 0; i < n; i++)
		had[i] = capng_have_capability(CAPNG_PERMITTED, (unsigned int)keep[i]);
	capng_clear(CAPNG_SELECT_ALL);
	for (size_t i = 0; i < n; i++)
		if (had[i])
			capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED,
				     (unsigned int)keep[i]);
	/* Bounds first needs CAP_SETPCAP; without it no_new_privs does the same. */
	if (bounds && capng_apply(CAPNG_SELECT_BOUNDS))
		return -EPERM;
	return capng_apply(CAPNG_SELECT_CAPS) ? -EPERM : 0;
}

int jail_drop_caps(const int *keep, size_t n)
{
	int err = drop_caps(keep, n);

	if (!err && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		err = -errno;
	if (err)
		log_err("cannot drop capabilities: %s", strerror(-err));
	return err;
}

static int add_rule(scmp_filter_ctx f, const struct jail_rule *r)
{
	const struct scmp_arg_cmp cmp = {
		.arg = r->arg,
		.op = SCMP_CMP_MASKED_EQ,
		.datum_a = r->mask,
		.datum_b = r->value,
	};

	return seccomp_rule_add_array(
		f, r->err ? SCMP_ACT_ERRNO((uint32_t)r->err) : SCMP_ACT_ALLOW, r->nr, 1,
		&cmp);
}

/* What every daemon of an event loop and threads needs, with any arguments. */
static const int common[] = {
	/* threads, time, memory */
	SCMP_SYS(futex),
	SCMP_SYS(clock_gettime),
	SCMP_SYS(clock_nanosleep),
	SCMP_SYS(nanosleep),
	SCMP_SYS(gettimeofday),
	SCMP_SYS(sched_yield),
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
	SCMP_SYS(sysinfo), /* a long qsort() in glibc up to 2.38 asks */
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
	/* descriptors, sockets, files that are open */
	SCMP_SYS(epoll_wait),
	SCMP_SYS(epoll_pwait),
	SCMP_SYS(epoll_pwait2),
	SCMP_SYS(epoll_ctl),
	SCMP_SYS(epoll_create1),
	SCMP_SYS(eventfd2),
	SCMP_SYS(timerfd_create),
	SCMP_SYS(timerfd_settime),
	SCMP_SYS(poll),
	SCMP_SYS(ppoll),
	SCMP_SYS(read),
	SCMP_SYS(readv),
	SCMP_SYS(write),
	SCMP_SYS(writev),
	SCMP_SYS(recvfrom),
	SCMP_SYS(recvmsg),
	SCMP_SYS(recvmmsg),
	SCMP_SYS(sendmsg),
	SCMP_SYS(accept4),
	SCMP_SYS(bind),
	SCMP_SYS(listen),
	SCMP_SYS(connect),
	SCMP_SYS(shutdown),
	SCMP_SYS(socketpair),
	SCMP_SYS(getsockopt),
	SCMP_SYS(setsockopt),
	SCMP_SYS(close),
	SCMP_SYS(fcntl),
	SCMP_SYS(lseek),
	SCMP_SYS(fstat),
	SCMP_SYS(newfstatat),
	SCMP_SYS(stat),
	SCMP_SYS(lstat),
	SCMP_SYS(unlink),
	SCMP_SYS(unlinkat),
	SCMP_SYS(umask),
};

/* An error that anything else gets as well is no rule of its own. */
static bool is_default(const struct jail *j, const struct jail_rule *r)
{
	return r->err && r->err == j->otherwise;
}

static int add_rules(scmp_filter_ctx f, const struct jail *j)
{
	const uint64_t pid = (uint64_t)getpid();
	const struct jail_rule own_pid[] = {
		{ SCMP_SYS(tgkill), 0, JAIL_INT, pid, 0 },
		{ SCMP_SYS(kill), 0, JAIL_INT, pid, 0 },
	};
	int err = 0;

	for (size_t i = 0; !err && i < sizeof(common) / sizeof(*common); i++)
		err = seccomp_rule_add(f, SCMP_ACT_ALLOW, common[i], 0);
	for (size_t i = 0; !err && i < j->ncalls; i++)
		err = seccomp_rule_add(f, SCMP_ACT_ALLOW, j->calls[i], 0);
	for (size_t i = 0; !err && i < j->nrules; i++)
		if (!is_default(j, &j->rules[i]))
			err = add_rule(f, &j->rules[i]);
	for (size_t i = 0; !err && j->otherwise && i < j->nfatal; i++)
		err = seccomp_rule_add(f, SCMP_ACT_KILL_PROCESS, j->fatal[i], 0);
	for (size_t i = 0; !err && i < sizeof(own_pid) / sizeof(*own_pid); i++)
		err = add_rule(f, &own_pid[i]);
	return err ? err
		   : seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
}

/* Of @j, or of @rules that are taken from what another filter allows. */
static int load_filter(const struct jail *j, const struct jail_rule *rules, size_t n)
{
	scmp_filter_ctx f =
		seccomp_init(!j		    ? SCMP_ACT_ALLOW
			     : j->otherwise ? SCMP_ACT_ERRNO((uint32_t)j->otherwise)
					    : SCMP_ACT_KILL_PROCESS);
	int err;

	if (!f)
		return -ENOMEM;
	err = seccomp_attr_set(f, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	if (!err)
		err = seccomp_attr_set(f, SCMP_FLTATR_CTL_TSYNC, 1);
	/* A binary tree: the calls of a fast path that have arguments to check cannot be
	 * remembered by the kernel as allowed. */
	if (!err)
		err = seccomp_attr_set(f, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	if (!err && j)
		err = add_rules(f, j);
	for (size_t i = 0; !err && i < n; i++)
		err = add_rule(f, &rules[i]);
	if (!err)
		err = seccomp_load(f);
	seccomp_release(f);
	return err;
}

static int load(const struct jail *j, const struct jail_rule *rules, size_t n)
{
#if GN_SANITIZED
	/* Leak checks fork, trace and read /proc: not what the filter is for. */
	(void)load_filter;
	(void)j;
	(void)rules;
	(void)n;
	log_warn("built with a sanitizer: no system call filter");
	return 0;
#else
	int err = load_filter(j, rules, n);

	if (err)
		log_err("cannot load the system call filter: %s; is "
			"CONFIG_SECCOMP_FILTER in the kernel?",
			strerror(-err));
	return err;
#endif
}

int jail_filter(const struct jail *j)
{
	return load(j, NULL, 0);
}

int jail_narrow(const struct jail_rule *rules, size_t n)
{
	return load(NULL, rules, n);
}
