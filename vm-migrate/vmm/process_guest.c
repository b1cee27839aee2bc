// SPDX-License-Identifier: BSD-2-Clause
/*
 * process_guest: the child process that is the guest; see process.h.
 *
 * It shares the RAM (memfds), runs one thread per vCPU that executes the workload on it,
 * and can do nothing else: no new privileges, its descriptors closed, a seccomp filter
 * that leaves waiting and ending.
 */
#include <errno.h>
#include <pthread.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/prctl.h>

#include "../../user/lib/clock.h"
#include "../../user/lib/sanitizer.h"
#include "process.h"

#define BATCH	    64	     /* writes between two looks at the clock */
#define CATCH_UP_NS 50000000 /* who is later than this begins anew from now */
#define CHILD_SOCK  3

struct guest {
	struct vm *vm;
	struct process *p;
	unsigned int i;
};

/* Wait at most @ns, or until there is an order other than @seen. */
static void wait_order(struct shared *sh, uint32_t seen, uint64_t ns)
{
	struct timespec ts = { .tv_sec = (time_t)(ns / 1000000000),
			       .tv_nsec = (long)(ns % 1000000000) };

	futex(&sh->want, FUTEX_WAIT, seen, ns == UINT64_MAX ? NULL : &ts);
}

static void stop_here(struct shared *sh, struct shared_vcpu *v, uint32_t order)
{
	atomic_store_explicit(&v->stopped, order, memory_order_release);
	atomic_fetch_add_explicit(&sh->answers, 1, memory_order_release);
	futex(&sh->answers, FUTEX_WAKE, 1, NULL);
	while (atomic_load_explicit(&sh->want, memory_order_acquire) == order)
		wait_order(sh, order, UINT64_MAX);
}

/* The write is done; pairs with the exchange of the harvest, which then reads the page.
 */
static void log_page(const struct guest *g, const struct workload_plan *plan,
		     uint64_t page)
{
	uint64_t gfn = page;

	if (page >= plan->low_pages)
		gfn += (VM_HOLE_END >> RAM_PAGE_SHIFT) - plan->low_pages;
	__atomic_fetch_or(&g->p->log[gfn / 64], 1ULL << gfn % 64, __ATOMIC_SEQ_CST);
}

static void step(const struct guest *g, struct shared_vcpu *v)
{
	uint64_t table, page = workload_step(&v->plan, &v->regs, &table);

	if (atomic_load_explicit(&g->p->sh->logging, memory_order_relaxed)) {
		log_page(g, &v->plan, page);
		log_page(g, &v->plan, table);
	}
}

/*
 * Writes until an order comes or it is time to wait. Return: ns to wait
 */
static uint64_t work(const struct guest *g, struct shared_vcpu *v, uint64_t *due)
{
	const uint32_t percent =
		atomic_load_explicit(&g->p->sh->throttle, memory_order_relaxed);
	const uint64_t begin = clock_ns();
	uint64_t gap = v->plan.per_write, now;

	if (percent)
		gap = gap * 100 / (100 - percent);
	if (*due + CATCH_UP_NS < begin)
		*due = begin;
	for (unsigned int n = 0; n < BATCH && *due <= begin; n++) {
		if (v->plan.stop && v->regs.writes >= v->plan.stop)
			break;
		step(g, v);
		*due += gap;
	}
	atomic_store_explicit(&v->writes, v->regs.writes, memory_order_relaxed);
	atomic_store_explicit(&v->errors, v->regs.errors, memory_order_relaxed);
	now = clock_ns();
	if (!gap && percent)
		return (now - begin) * percent / (100 - percent);
	return *due > now ? *due - now : 0;
}

static void *vcpu_main(void *arg)
{
	const struct guest *g = arg;
	struct shared *sh = g->p->sh;
	struct shared_vcpu *v = &sh->vcpu[g->i];
	uint64_t due = 0;

	for (;;) {
		uint32_t order = atomic_load_explicit(&sh->want, memory_order_acquire);
		uint64_t wait;

		if (order & 1) {
			stop_here(sh, v, order);
			continue;
		}
		wait = work(g, v, &due);
		if (v->plan.stop && v->regs.writes >= v->plan.stop)
			break;
		if (wait)
			wait_order(sh, order, wait);
	}
	if (atomic_fetch_add(&sh->ended, 1) + 1 == g->vm->conf.vcpus)
		syscall(SYS_exit_group, 0); /* and nothing that hooks the exit */
	/* Its registers stay as they are; it answers orders until the others end too. */
	for (;;) {
		uint32_t order = atomic_load_explicit(&sh->want, memory_order_acquire);

		if (order & 1)
			stop_here(sh, v, order);
		else
			wait_order(sh, order, UINT64_MAX);
	}
	return NULL;
}

#if !GN_SANITIZED
/* Waiting, the time, the socket, and the end. */
static int sandbox(void)
{
	static const int calls[] = {
		SCMP_SYS(futex),	  SCMP_SYS(exit),
		SCMP_SYS(exit_group),	  SCMP_SYS(clock_gettime),
		SCMP_SYS(rt_sigreturn),	  SCMP_SYS(restart_syscall),
		SCMP_SYS(rt_sigprocmask), SCMP_SYS(sched_yield),
	};
	static const int on_socket[] = { SCMP_SYS(read), SCMP_SYS(write) };
	scmp_filter_ctx f = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int err = f ? seccomp_attr_set(f, SCMP_FLTATR_CTL_TSYNC, 1) : -ENOMEM;

	for (unsigned int i = 0; !err && i < sizeof(calls) / sizeof(calls[0]); i++)
		err = seccomp_rule_add(f, SCMP_ACT_ALLOW, calls[i], 0);
	for (unsigned int i = 0; !err && i < 2; i++)
		err = seccomp_rule_add(f, SCMP_ACT_ALLOW, on_socket[i], 1,
				       SCMP_A0(SCMP_CMP_EQ, CHILD_SOCK, 0));
	if (!err)
		err = seccomp_load(f);
	if (f)
		seccomp_release(f);
	return err;
}

#endif

static int child_track(const struct vm *vm)
{
	for (unsigned int i = 0; i < vm->ram.nblocks; i++) {
		const struct ram_block *b = &vm->ram.block[i];
		/* Stays open: the registration goes with it. */
		int fd = dirty_pagemap_register(b->hva, b->size);

		if (fd < 0)
			return fd;
	}
	return 0;
}

static int child_threads(struct vm *vm, struct process *p)
{
	static struct guest g[VM_MAX_VCPUS];

	for (unsigned int i = 0; i < vm->conf.vcpus; i++) {
		pthread_t t;
		int err;

		g[i] = (struct guest){ .vm = vm, .p = p, .i = i };
		err = pthread_create(&t, NULL, vcpu_main, &g[i]);
		if (err)
			return -err;
	}
	/* A thread that is still beginning makes system calls that it never makes again.
	 */
	for (;;) {
		uint32_t n = atomic_load(&p->sh->answers);

		if (n >= vm->conf.vcpus)
			return 0;
		futex(&p->sh->answers, FUTEX_WAIT, n, NULL);
	}
}

void process_guest(struct vm *vm, struct process *p, int sock)
{
	sigset_t all;
	char c;
	int err;

	/* Signals of the terminal are for the VMM, which then decides. */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	if ((sock != CHILD_SOCK && dup2(sock, CHILD_SOCK) != CHILD_SOCK) ||
	    close_range(CHILD_SOCK + 1, UINT32_MAX, 0) ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		_exit(1);
	prctl(PR_SET_NAME, "vm-migrate-cpu");
	p->sh->tracker = vm->conf.track == VM_TRACK_SELF ? -EOPNOTSUPP : child_track(vm);
	err = child_threads(vm, p);
#if !GN_SANITIZED /* whose own threads make calls of their own */
	if (!err)
		err = sandbox();
#endif
	if (err || write(CHILD_SOCK, "", 1) != 1)
		_exit(1);
	/* Until the other end is closed. */
	while (read(CHILD_SOCK, &c, 1) < 0 && errno == EINTR)
		;
	_exit(1);
}
