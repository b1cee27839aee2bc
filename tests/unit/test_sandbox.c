// SPDX-License-Identifier: BSD-2-Clause
/*
 * sandbox: a child enters it and then tries one thing. What the daemon needs must work,
 * anything else must kill the child by SIGSYS; capabilities must be gone.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../user/daemon/sandbox.h"
#include "../../user/lib/sanitizer.h"

#define DONE 42 /* exit status of a child that did what it was to do */

static int pair[2]; /* a socket pair made before the sandbox */

/* Sanitizers need calls that the filter is there to stop: see sandbox.c. */
static void need_filter(void)
{
	if (GN_SANITIZED) {
		print_message("built with a sanitizer: no system call filter\n");
		skip();
	}
}

/* Run @fn in a sandboxed child. Return: its wait status */
static int in_sandbox(void (*fn)(void))
{
	const struct rlimit no_core = { 0, 0 };
	int status;
	pid_t pid = fork();

	assert_return_code(pid, errno);
	if (!pid) {
		setrlimit(RLIMIT_CORE, &no_core);
		if (sandbox_enter())
			_exit(1);
		fn();
		_exit(DONE);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

/* ---- what must work -------------------------------------------------------------- */

/* The child's assert: cmocka's would longjmp() into the parent's test. */
static void must(bool ok, int line)
{
	char text[64];

	if (ok)
		return;
	snprintf(text, sizeof(text), "line %d: %s\n", line, strerror(errno));
	if (write(STDERR_FILENO, text, strlen(text)) < 0)
		_exit(3);
	_exit(2);
}

#define MUST(cond) must(cond, __LINE__)

static void *thread(void *arg)
{
	char *p = malloc(1 << 20); /* a new arena: mmap(), mprotect() */

	MUST(p);
	memset(p, 1, 1 << 20);
	free(p);
	return arg;
}

static void do_thread(void)
{
	cpu_set_t set;
	pthread_t t;
	void *ret;
	int arg;

	MUST(!sched_getaffinity(0, sizeof(set), &set));
	MUST(!pthread_create(&t, NULL, thread, &arg));
	MUST(!pthread_setaffinity_np(t, sizeof(set), &set));
	MUST(!pthread_join(t, &ret) && ret == &arg);
}

/* What the control socket does with a client. */
static void do_serve(void)
{
	struct epoll_event ev = { .events = EPOLLIN };
	int epfd = epoll_create1(EPOLL_CLOEXEC);
	char c;

	MUST(epfd >= 0);
	MUST(!epoll_ctl(epfd, EPOLL_CTL_ADD, pair[0], &ev));
	MUST(send(pair[1], "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT) == 1);
	MUST(epoll_wait(epfd, &ev, 1, 1000) == 1);
	MUST(recv(pair[0], &c, 1, MSG_DONTWAIT) == 1 && c == 'x');
	MUST(!close(pair[0]) && !close(pair[1]) && !close(epfd));
}

/* What adding a TAP port does; without the right to, EPERM, not death. */
static void do_tap(void)
{
	struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC), sock;

	MUST(fd >= 0 || errno == ENOENT || errno == EACCES || errno == ENODEV);
	if (ioctl(fd, TUNSETIFF, &ifr))
		MUST(errno == EPERM || errno == EBADF);
	sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	MUST(sock >= 0);
	memset(&ifr, 0, sizeof(ifr));
	strcpy(ifr.ifr_name, "lo");
	MUST(!ioctl(sock, SIOCGIFMTU, &ifr) && ifr.ifr_mtu > 0);
}

/* What changing a pinned map does: refused by the map, not by the filter. */
static void do_map(void)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.map_fd = (__u32)-1;
	MUST(syscall(SYS_bpf, BPF_MAP_UPDATE_ELEM, &attr, sizeof(attr)) < 0);
	MUST(syscall(SYS_bpf, BPF_MAP_DELETE_ELEM, &attr, sizeof(attr)) < 0);
	MUST(syscall(SYS_bpf, BPF_MAP_LOOKUP_ELEM, &attr, sizeof(attr)) < 0);
}

static int descending(const void *a, const void *b)
{
	const int *x = a, *y = b;

	return (*x < *y) - (*x > *y);
}

/* Some versions of the C library ask for the size of the memory before a long sort. */
static void do_sort(void)
{
	static int v[100000];

	for (int i = 0; i < 100000; i++)
		v[i] = i;
	qsort(v, 100000, sizeof(v[0]), descending);
	MUST(v[0] == 99999 && v[99999] == 0);
}

static void do_room(void)
{
	int fd = memfd_create("room", MFD_CLOEXEC);

	MUST(fd >= 0 && !fallocate(fd, 0, 0, 4096));
}

static void do_time_and_log(void)
{
	struct timespec ts;

	MUST(!clock_gettime(CLOCK_REALTIME, &ts) && gmtime(&ts.tv_sec));
	MUST(fprintf(stderr, "%s", "") == 0);
}

static void allows_what_runs(void **state)
{
	static void (*const fn[])(void) = {
		do_thread, do_serve, do_tap, do_map, do_sort, do_room, do_time_and_log,
	};

	for (size_t i = 0; i < sizeof(fn) / sizeof(fn[0]); i++) {
		int status = in_sandbox(fn[i]);

		if (!WIFEXITED(status) || WEXITSTATUS(status) != DONE)
			fail_msg("action %zu: %s %d", i,
				 WIFSIGNALED(status) ? "signal" : "status",
				 WIFSIGNALED(status) ? WTERMSIG(status)
						     : WEXITSTATUS(status));
	}
}

/* ---- what must not ----------------------------------------------------------------- */

static void do_exec(void)
{
	char *argv[] = { (char *)"true", NULL };

	execv("/bin/true", argv);
}

static void do_ptrace(void)
{
	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
}
static void do_inet(void)
{
	socket(AF_INET, SOCK_STREAM, 0);
}
static void do_packet(void)
{
	socket(AF_PACKET, SOCK_RAW, 0);
}
static void do_fork(void)
{
	syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}
static void do_sendto(void)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX, .sun_path = "/x" };

	sendto(pair[0], "x", 1, MSG_NOSIGNAL, (struct sockaddr *)&sun, sizeof(sun));
}

static void do_create(void)
{
	open("/tmp/test_sandbox", O_CREAT | O_WRONLY, 0600);
}
static void do_truncate(void)
{
	open("/dev/null", O_WRONLY | O_TRUNC);
}
static void do_hole(void)
{
	int fd = memfd_create("hole", MFD_CLOEXEC);

	fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096);
}
static void do_chmod(void)
{
	chmod("/nonexistent", 0);
}
static void do_mount(void)
{
	mount("none", "/nonexistent", "tmpfs", 0, NULL);
}
static void do_setuid(void)
{
	syscall(SYS_setuid, 0);
}
static void do_kill(void)
{
	kill(getppid(), 0);
}
static void do_ioctl(void)
{
	ioctl(pair[0], TIOCSTI, "x");
}
static void do_rlimit(void)
{
	const struct rlimit none = { 0, 0 };

	setrlimit(RLIMIT_NPROC, &none);
}

static void do_exec_map(void)
{
	mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void do_exec_protect(void)
{
	void *p = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	mprotect(p, 4096, PROT_READ | PROT_EXEC);
}

static void do_prog_load(void)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof(attr));
}

static void do_unshare(void)
{
	unshare(CLONE_NEWUSER);
}
static void do_prctl(void)
{
	prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

static void kills_the_rest(void **state)
{
#define TRY(fn)                                                                          \
	{                                                                                \
		fn, #fn                                                                  \
	}
	static const struct {
		void (*fn)(void);
		const char *name;
	} tries[] = {
		TRY(do_exec),	      TRY(do_ptrace),	 TRY(do_inet),
		TRY(do_packet),	      TRY(do_fork),	 TRY(do_sendto),
		TRY(do_create),	      TRY(do_truncate),	 TRY(do_chmod),
		TRY(do_mount),	      TRY(do_setuid),	 TRY(do_kill),
		TRY(do_ioctl),	      TRY(do_rlimit),	 TRY(do_exec_map),
		TRY(do_exec_protect), TRY(do_prog_load), TRY(do_unshare),
		TRY(do_prctl),	      TRY(do_hole),
	};

	need_filter();
	for (size_t i = 0; i < sizeof(tries) / sizeof(tries[0]); i++) {
		int status = in_sandbox(tries[i].fn);

		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS)
			fail_msg("%s: wait status %#x instead of SIGSYS", tries[i].name,
				 (unsigned int)status);
	}
}

/* A thread that is there before the filter is under it, too. */
static pthread_barrier_t barrier;

static void *early_thread(void *arg)
{
	pthread_barrier_wait(&barrier);
	do_inet();
	return NULL;
}

static void covers_all_threads(void **state)
{
	const struct rlimit no_core = { 0, 0 };
	int status;
	pid_t pid;

	need_filter();
	pid = fork();
	assert_return_code(pid, errno);
	if (!pid) {
		pthread_t t;

		setrlimit(RLIMIT_CORE, &no_core);
		pthread_barrier_init(&barrier, NULL, 2);
		MUST(!pthread_create(&t, NULL, early_thread, NULL));
		if (sandbox_enter())
			_exit(1);
		pthread_barrier_wait(&barrier);
		pthread_join(t, NULL);
		_exit(DONE);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGSYS);
}

/* ---- capabilities ---------------------------------------------------------------------
 */

/* One hexadecimal line of /proc/self/status. */
static uint64_t status_field(const char *name)
{
	char line[256];
	unsigned long long v = 0;
	bool found = false;
	FILE *f = fopen("/proc/self/status", "re");

	MUST(f);
	while (!found && fgets(line, sizeof(line), f))
		if (!strncmp(line, name, strlen(name)))
			found = sscanf(line + strlen(name), ": %llx", &v) == 1;
	fclose(f);
	MUST(found);
	return v;
}

static bool full_root;

static void check_caps(void)
{
	const uint64_t keep =
		1ULL << CAP_NET_ADMIN | 1ULL << CAP_NET_RAW | 1ULL << CAP_BPF;

	MUST(!(status_field("CapEff") & ~keep));
	MUST(!(status_field("CapPrm") & ~keep));
	MUST(!status_field("CapInh"));
	MUST(!status_field("CapAmb"));
	if (full_root) {
		MUST(status_field("CapEff") == keep);
		MUST(!status_field("CapBnd"));
	}
	MUST(status_field("NoNewPrivs") == 1);
}

static void drops_capabilities(void **state)
{
	const uint64_t need = 1ULL << CAP_NET_ADMIN | 1ULL << CAP_NET_RAW |
			      1ULL << CAP_BPF | 1ULL << CAP_SETPCAP;
	int status;

	full_root = (status_field("CapEff") & need) == need;
	status = in_sandbox(check_caps);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), DONE);
}

static int make_pair(void **state)
{
	return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(allows_what_runs),
		cmocka_unit_test(kills_the_rest),
		cmocka_unit_test(covers_all_threads),
		cmocka_unit_test(drops_capabilities),
	};

	return cmocka_run_group_tests_name("sandbox", tests, make_pair, NULL);
}
