// SPDX-License-Identifier: BSD-2-Clause
/*
 * confine: a child gives up its rights as a VMM does, for either kind of machine, before
 * and after it is made, and then tries one thing. What a VMM needs must work; what it
 * does not must fail with EPERM, or end it by SIGSYS. The same is tried in a free child
 * first, so that it is the filter which refuses.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../user/lib/sanitizer.h"
#include "../../vm-migrate/kernel.h"
#include "../../vm-migrate/vmm/confine.h"

enum outcome { DID = 40, REFUSED, OTHER, KILLED }; /* exit status of a child */

enum when {
	RUN_KVM = 1,	 /* begins as a machine of KVM */
	RUN_PROCESS = 2, /* as a process */
	RECV = 4,	 /* waits for either */
	MADE_KVM = 8,	 /* has one */
	MADE_PROCESS = 16,
	ALWAYS = 31,
	NO_KVM = RUN_PROCESS | MADE_PROCESS,
	MADE = MADE_KVM | MADE_PROCESS,
};

static void give_up(enum when w)
{
	const char *made = w == MADE_KVM ? "kvm" : w == MADE_PROCESS ? "process" : NULL;
	int err = confine(w == RUN_KVM ? "kvm" : w == RUN_PROCESS ? "process" : NULL);

	if (!err && made)
		err = confine_to(made);
	if (err)
		_exit(1);
}

static enum outcome try(long (*fn)(void), enum when w)
{
	const struct rlimit no_core = { 0, 0 };
	int status;
	pid_t pid = fork();

	assert_return_code(pid, errno);
	if (!pid) {
		long rc;

		setrlimit(RLIMIT_CORE, &no_core);
		if (w)
			give_up(w);
		rc = fn();
		_exit(rc >= 0 ? DID : errno == EPERM ? REFUSED : OTHER);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFSIGNALED(status))
		return WTERMSIG(status) == SIGSYS ? KILLED : OTHER;
	return WEXITSTATUS(status);
}

/* ---- what is tried ------------------------------------------------------------------
 */

static long do_exec(void)
{
	char *argv[] = { (char *)"true", NULL };

	return execv("/bin/true", argv);
}

static long do_ptrace(void)
{
	return ptrace(PTRACE_TRACEME, 0, NULL, NULL);
}

static long do_read_other(void)
{
	struct iovec v = { &v, sizeof(v) };

	return syscall(SYS_process_vm_readv, getppid(), &v, 1, &v, 1, 0);
}

static long do_bpf(void)
{
	return syscall(SYS_bpf, 0, NULL, 0);
}

static long do_module(void)
{
	return syscall(SYS_finit_module, -1, "", 0);
}

static long do_mount(void)
{
	return mount("none", "/nonexistent", "tmpfs", 0, NULL);
}

static long do_unshare(void)
{
	return unshare(CLONE_NEWUTS);
}

static long do_packet(void)
{
	return socket(AF_PACKET, SOCK_RAW, 0);
}

static long do_kill(void)
{
	return kill(getppid(), 0);
}

static long do_create(void)
{
	return open("/tmp/test_confine", O_CREAT | O_WRONLY, 0600);
}

static long do_truncate(void)
{
	return open("/dev/null", O_WRONLY | O_TRUNC);
}

static long do_chmod(void)
{
	return chmod("/nonexistent", 0);
}

static long do_rename(void)
{
	return rename("/nonexistent", "/nonexistent2");
}

static long do_link(void)
{
	return symlink("/nonexistent/a", "/nonexistent/b");
}

static long do_exec_map(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		    0) == MAP_FAILED
		       ? -1
		       : 0;
}

static long do_exec_protect(void)
{
	void *p = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return mprotect(p, 4096, PROT_READ | PROT_EXEC);
}

static long do_rlimit(void)
{
	const struct rlimit none = { 0, 0 };

	return setrlimit(RLIMIT_NPROC, &none);
}

static long do_uring(void)
{
	return syscall(SYS_io_uring_setup, 0, NULL);
}

static long do_keyring(void)
{
	return syscall(SYS_keyctl, 0, -1, 0);
}

static long do_ioctl(void)
{
	return ioctl(-1, TIOCSTI, "x");
}

static long do_kvm_run(void)
{
	return ioctl(-1, KVM_RUN, 0);
}

static long do_kvm_vm(void)
{
	return ioctl(-1, KVM_CREATE_VM, 0);
}

static long do_kvm_vcpu(void)
{
	return ioctl(-1, KVM_CREATE_VCPU, 0);
}

static long do_kvm_debug(void) /* no VMM here does */
{
	return ioctl(-1, KVM_SET_GUEST_DEBUG, NULL);
}

static long do_scan(void)
{
	return ioctl(-1, PAGEMAP_SCAN, NULL);
}

static long do_fork(void)
{
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	return pid < 0 ? -1 : waitpid(pid, NULL, 0);
}

static long do_vfork(void)
{
	return syscall(SYS_clone, SIGCHLD | CLONE_NEWUTS, 0, 0, 0, 0);
}

static long do_uffd(void)
{
	return syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
}

static void *thread(void *arg)
{
	char *p = malloc(1 << 20); /* a new arena: mmap(), mprotect() */

	memset(p, 1, 1 << 20);
	free(p);
	return arg;
}

static long do_thread(void)
{
	pthread_t t;
	int arg;
	void *ret = NULL;

	if (pthread_create(&t, NULL, thread, &arg) || pthread_join(t, &ret))
		return -1;
	return ret == &arg ? 0 : -1;
}

static long do_sockets(void)
{
	int fd[2];

	if (socket(AF_INET, SOCK_STREAM, 0) < 0 || socket(AF_INET6, SOCK_STREAM, 0) < 0)
		return -1;
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, fd) ||
	    send(fd[0], "x", 1, MSG_NOSIGNAL) < 0)
		return -1;
	return recv(fd[1], fd, 1, MSG_DONTWAIT);
}

static long do_memory(void)
{
	int fd = memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	void *p;

	if (fd < 0 || ftruncate(fd, 4096) || fcntl(fd, F_ADD_SEALS, F_SEAL_GROW))
		return -1;
	p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return -1;
	*(char *)p = 1;
	return lseek(fd, 0, SEEK_DATA);
}

static long do_read_file(void)
{
	char c;
	int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -1 : read(fd, &c, 1);
}

static const struct {
	const char *name;
	long (*fn)(void);
	unsigned int refused, killed; /* enum when; in all others it works as if free */
} tries[] = {
	{ "exec", do_exec, 0, ALWAYS },
	{ "ptrace", do_ptrace, 0, ALWAYS },
	{ "process_vm_readv", do_read_other, 0, ALWAYS },
	{ "bpf", do_bpf, 0, ALWAYS },
	{ "finit_module", do_module, 0, ALWAYS },
	{ "mount", do_mount, 0, ALWAYS },
	{ "unshare", do_unshare, 0, ALWAYS },
	{ "packet socket", do_packet, ALWAYS, 0 },
	{ "signal to another process", do_kill, ALWAYS, 0 },
	{ "new file", do_create, ALWAYS, 0 },
	{ "truncated file", do_truncate, ALWAYS, 0 },
	{ "chmod", do_chmod, ALWAYS, 0 },
	{ "rename", do_rename, ALWAYS, 0 },
	{ "symlink", do_link, ALWAYS, 0 },
	{ "executable mapping", do_exec_map, ALWAYS, 0 },
	{ "mapping made executable", do_exec_protect, ALWAYS, 0 },
	{ "setrlimit", do_rlimit, ALWAYS, 0 },
	{ "io_uring", do_uring, ALWAYS, 0 },
	{ "keyctl", do_keyring, ALWAYS, 0 },
	{ "TIOCSTI", do_ioctl, ALWAYS, 0 },
	{ "KVM_SET_GUEST_DEBUG", do_kvm_debug, ALWAYS, 0 },
	{ "KVM_RUN", do_kvm_run, NO_KVM, 0 },
	{ "KVM_CREATE_VM", do_kvm_vm, NO_KVM | MADE, 0 },
	{ "KVM_CREATE_VCPU", do_kvm_vcpu, NO_KVM | MADE, 0 },
	{ "PAGEMAP_SCAN", do_scan, MADE_KVM, 0 },
	{ "fork", do_fork, MADE | RUN_KVM, 0 },
	{ "fork into a namespace", do_vfork, ALWAYS, 0 },
	{ "userfaultfd", do_uffd, MADE, 0 },
	{ "thread", do_thread, 0, 0 },
	{ "sockets", do_sockets, 0, 0 },
	{ "memory", do_memory, 0, 0 },
	{ "read a file", do_read_file, 0, 0 },
};

static void check(size_t i, enum when w, enum outcome free_child)
{
	enum outcome got = try(tries[i].fn, w), want = free_child;

	if (tries[i].refused & w)
		want = REFUSED;
	if (tries[i].killed & w)
		want = KILLED;
	if (got != want)
		fail_msg("%s, state %d: outcome %d, not %d", tries[i].name, w, got, want);
}

static void test_calls(void **state)
{
	(void)state;
	if (GN_SANITIZED)
		skip();
	for (size_t i = 0; i < sizeof(tries) / sizeof(tries[0]); i++) {
		enum outcome free_child = try(tries[i].fn, 0);

		/* Who runs the tests may not; then nothing shows who refused it. */
		if (free_child == REFUSED) {
			print_message("%s: not allowed here at all\n", tries[i].name);
			continue;
		}
		for (unsigned int w = 1; w & ALWAYS; w <<= 1)
			check(i, (enum when)w, free_child);
	}
}

/* A process that is going to be a guest puts its own filter on top. */
static long do_second_filter(void)
{
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || confine_to("process") ? -1 : 0;
}

static void test_second(void **state)
{
	(void)state;
	if (GN_SANITIZED)
		skip();
	assert_int_equal(try(do_second_filter, RUN_PROCESS), DID);
	assert_int_equal(try(do_second_filter, MADE_PROCESS), DID);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_calls),
		cmocka_unit_test(test_second),
	};

	return cmocka_run_group_tests_name("confine", tests, NULL, NULL);
}
