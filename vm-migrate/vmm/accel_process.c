// SPDX-License-Identifier: BSD-2-Clause
/*
 * accel_process: a child process is the guest; see process.h. This is the VMM's side.
 *
 * Dirty pages: the child registers its mapping with userfaultfd, and the parent asks
 * PAGEMAP_SCAN (Linux 6.7). Where the kernel cannot, the child keeps a log itself, in the
 * format of a vhost log: it stores data, then sets the bit.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "../../user/lib/clock.h"
#include "process.h"

#define STOP_MS	 5000  /* a step of the workload takes microseconds */
#define READY_MS 10000 /* until the child is up */
#define SECTION	 "process.vcpu"

/* ---- the guest process ------------------------------------------------------------- */

static bool child_gone(const struct process *p, int timeout_ms)
{
	struct pollfd pfd = { .fd = p->pidfd, .events = POLLIN };

	return poll(&pfd, 1, timeout_ms) > 0;
}

static int process_ended(struct vm *vm)
{
	struct process *p = vm->accel_data;
	siginfo_t si = { .si_code = 0 };

	if (waitid(P_PIDFD, (id_t)p->pidfd, &si, WEXITED | WNOHANG | WNOWAIT))
		return vm_fail(vm, -errno, "the guest process cannot be waited for");
	if (si.si_code == CLD_EXITED && !si.si_status)
		return 0;
	if (si.si_code == CLD_EXITED)
		return vm_fail(vm, -ECHILD, "the guest process ended with status %d",
			       si.si_status);
	return vm_fail(vm, -ECHILD, "the guest process was killed by signal %d%s",
		       si.si_status,
		       si.si_status == SIGSYS ? ": it left its sandbox" : "");
}

/* Until it says that it is up. */
static int child_wait(struct vm *vm, struct process *p)
{
	struct pollfd pfd = { .fd = p->sock, .events = POLLIN };
	char c;

	if (poll(&pfd, 1, READY_MS) > 0 && read(p->sock, &c, 1) == 1)
		return 0;
	if (child_gone(p, 1000) && process_ended(vm))
		return -ECHILD;
	return vm_fail(vm, -ETIMEDOUT, "the guest process does not come up");
}

static int child_start(struct vm *vm, struct process *p)
{
	int sv[2], err;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv))
		return vm_fail(vm, -errno, "no socket pair: %s", strerror(errno));
	fflush(NULL);
	p->pid = fork();
	err = -errno;
	if (!p->pid)
		process_guest(vm, p, sv[1]);
	close(sv[1]);
	p->sock = sv[0];
	if (p->pid < 0)
		return vm_fail(vm, err, "no guest process: %s", strerror(-err));
	p->pidfd = (int)syscall(SYS_pidfd_open, p->pid, 0);
	if (p->pidfd < 0)
		return vm_fail(vm, -errno, "pidfd_open: %s", strerror(errno));
	err = child_wait(vm, p);
	if (err)
		return err;
	if (vm->conf.track == VM_TRACK_PAGEMAP && p->sh->tracker)
		return vm_fail(
			vm, p->sh->tracker,
			"this kernel cannot track the guest's pages (%s): it takes "
			"Linux 6.7 and the right to use userfaultfd; leave --dirty "
			"pagemap out",
			strerror(-p->sh->tracker));
	vm->ended_fd = p->pidfd;
	return 0;
}

static void plan(struct vm *vm, struct shared *sh)
{
	const unsigned int n = vm->conf.vcpus;
	const uint64_t rate = vm->conf.work.rate;

	for (unsigned int i = 0; i < n; i++) {
		struct workload_plan *w = &sh->vcpu[i].plan;

		workload_plan(&vm->conf.work, &vm->ram, i, n, w); /* conf was checked */
		w->base[0] = (uintptr_t)vm->ram.block[0].hva;
		if (vm->ram.nblocks > 1)
			w->base[1] = (uintptr_t)vm->ram.block[1].hva;
		w->per_write = rate ? 1000000000ULL * n / rate : 0;
		workload_regs_init(&sh->vcpu[i].regs, i);
	}
}

static void *map_shared(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static int process_create(struct vm *vm)
{
	const struct ram_block *last = &vm->ram.block[vm->ram.nblocks - 1];
	struct process *p = calloc(1, sizeof(*p));

	if (vm->conf.track == VM_TRACK_BITMAP || vm->conf.track == VM_TRACK_RING) {
		free(p);
		return vm_fail(vm, -EINVAL, "a process is tracked by pagemap or self");
	}
	if (vm->conf.nnets) {
		free(p);
		return vm_fail(vm, -EINVAL, "a process guest has no network device");
	}
	if (!p)
		return vm_fail(vm, -ENOMEM, "out of memory");
	p->pid = p->pidfd = p->sock = -1;
	vm->accel_data = p;
	p->log_bytes = ((last->gpa + last->size) / RAM_PAGE_SIZE + 63) / 64 * 8;
	p->log = map_shared(p->log_bytes);
	p->sh = map_shared(sizeof(*p->sh));
	if (!p->log || !p->sh)
		return vm_fail(vm, -ENOMEM, "out of memory");
	p->sh->want = 1;
	plan(vm, p->sh);
	return child_start(vm, p);
}

static void process_destroy(struct vm *vm)
{
	struct process *p = vm->accel_data;

	if (p->sock >= 0)
		close(p->sock);
	if (p->pid > 0) {
		/* Else the socket, which is closed, ends it. */
		if (p->pidfd >= 0)
			syscall(SYS_pidfd_send_signal, p->pidfd, SIGKILL, NULL, 0);
		while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	if (p->pidfd >= 0)
		close(p->pidfd);
	if (p->log)
		munmap(p->log, p->log_bytes);
	if (p->sh)
		munmap(p->sh, sizeof(*p->sh));
	free(p);
	vm->accel_data = NULL;
}

static int process_boot(struct vm *vm)
{
	struct process *p = vm->accel_data;

	for (unsigned int i = 0; i < vm->conf.vcpus; i++)
		workload_fill(&vm->conf.work, &vm->ram, i, vm->conf.vcpus,
			      &p->sh->vcpu[i].plan);
	return 0;
}

static int process_start(struct vm *vm)
{
	struct process *p = vm->accel_data;

	if (child_gone(p, 0)) {
		if (!process_ended(vm))
			vm_fail(vm, -ESRCH, "the guest has ended");
		return -ESRCH;
	}
	atomic_fetch_add_explicit(&p->sh->want, 1, memory_order_release);
	futex(&p->sh->want, FUTEX_WAKE, INT32_MAX, NULL);
	return 0;
}

static bool all_stopped(struct vm *vm, uint32_t order)
{
	struct process *p = vm->accel_data;

	for (unsigned int i = 0; i < vm->conf.vcpus; i++)
		if (atomic_load_explicit(&p->sh->vcpu[i].stopped, memory_order_acquire) !=
		    order)
			return false;
	return true;
}

static int process_pause(struct vm *vm)
{
	const struct timespec tick = { .tv_nsec = 50000000 };
	const uint64_t end = clock_ns() + STOP_MS * 1000000ULL;
	struct process *p = vm->accel_data;
	uint32_t order =
		atomic_fetch_add_explicit(&p->sh->want, 1, memory_order_release) + 1;

	futex(&p->sh->want, FUTEX_WAKE, INT32_MAX, NULL);
	for (;;) {
		uint32_t seen = atomic_load(&p->sh->answers);

		if (all_stopped(vm, order))
			return 0;
		if (child_gone(p, 0)) {
			atomic_fetch_add(&p->sh->want, 1);
			if (!process_ended(vm))
				vm_fail(vm, -ESRCH, "the guest has ended");
			return -ESRCH;
		}
		if (clock_ns() > end)
			break;
		futex(&p->sh->answers, FUTEX_WAIT, seen, &tick);
	}
	atomic_fetch_add(&p->sh->want, 1);
	futex(&p->sh->want, FUTEX_WAKE, INT32_MAX, NULL);
	return vm_fail(vm, -ETIMEDOUT, "the guest process does not stop");
}

/* ---- migration --------------------------------------------------------------------- */

static int self_log(void *arg, bool on)
{
	struct process *p = arg;

	atomic_store(&p->sh->logging, on);
	return 0;
}

/* A log that the guest's CPUs keep is not a device's. */
static int add_self(struct vm *vm, struct process *p, struct dirty_set *set)
{
	static struct dirty_ops ops;
	struct dirty_source *src;
	int err =
		dirty_vhost_log_create(&vm->ram, p->log, p->log_bytes, self_log, p, &src);

	if (err)
		return err;
	ops = *src->ops;
	ops.name = "self";
	ops.by = DIRTY_BY_CPU;
	src->ops = &ops;
	return dirty_set_add(set, src);
}

static int process_add_dirty(struct vm *vm, struct dirty_set *set)
{
	struct process *p = vm->accel_data;
	uint64_t va[RAM_MAX_BLOCKS];
	struct dirty_source *src;
	char path[64];
	int fd, err;

	if (p->sh->tracker)
		return add_self(vm, p, set);
	for (unsigned int i = 0; i < vm->ram.nblocks; i++)
		va[i] = (uintptr_t)vm->ram.block[i].hva; /* a fork's are the same */
	snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)p->pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return vm_fail(vm, -errno, "%s: %s", path, strerror(errno));
	err = dirty_pagemap_create(&vm->ram, fd, va, &src);
	close(fd);
	return err ? err : dirty_set_add(set, src);
}

static int process_save(struct vm *vm, struct state_writer *w)
{
	struct process *p = vm->accel_data;

	for (unsigned int i = 0; i < vm->conf.vcpus; i++) {
		const struct workload_regs *r = &p->sh->vcpu[i].regs;

		state_begin(w, SECTION, i, 1);
		state_put_u64(w, r->rng);
		state_put_u64(w, r->writes);
		state_put_u64(w, r->errors);
		state_put_u64(w, r->next);
		state_end(w);
	}
	return 0;
}

static int process_load(struct vm *vm, struct state_section *s)
{
	struct process *p = vm->accel_data;
	struct shared_vcpu *v;

	if (strcmp(s->name, SECTION) != 0)
		return -ENOENT;
	if (s->version != 1)
		return -EPROTONOSUPPORT;
	if (s->instance >= vm->conf.vcpus || p->loaded & 1U << s->instance)
		return -EBADMSG;
	p->loaded |= 1U << s->instance;
	v = &p->sh->vcpu[s->instance];
	v->regs.rng = state_get_u64(s);
	v->regs.writes = state_get_u64(s);
	v->regs.errors = state_get_u64(s);
	v->regs.next = state_get_u64(s);
	if (!v->regs.rng || v->regs.next >= v->plan.pages)
		return -EBADMSG;
	v->writes = v->regs.writes;
	v->errors = v->regs.errors;
	return 0;
}

static int process_loaded(struct vm *vm)
{
	struct process *p = vm->accel_data;

	if (p->loaded != (1U << vm->conf.vcpus) - 1)
		return vm_fail(vm, -EBADMSG, "the state of a vCPU is missing");
	return 0;
}

static int process_throttle(struct vm *vm, unsigned int percent)
{
	struct process *p = vm->accel_data;

	atomic_store(&p->sh->throttle, percent > 99 ? 99 : percent);
	return 0;
}

static void process_regs(struct vm *vm, unsigned int i, struct workload_regs *regs)
{
	struct process *p = vm->accel_data;
	const struct shared_vcpu *v = &p->sh->vcpu[i];

	*regs = (struct workload_regs){ .writes = v->writes, .errors = v->errors };
}

const struct vm_accel accel_process = {
	.name = "process",
	.create = process_create,
	.boot = process_boot,
	.start = process_start,
	.pause = process_pause,
	.add_dirty = process_add_dirty,
	.save = process_save,
	.load = process_load,
	.loaded = process_loaded,
	.throttle = process_throttle,
	.regs = process_regs,
	.ended = process_ended,
	.destroy = process_destroy,
};
