/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * process: what the two sides of the process accelerator share: accel_process.c, the VMM,
 * and process_guest.c, the child that is the guest.
 *
 * The "CPU state" is in a page of its own beside the RAM, struct shared, which is what
 * save() writes. The parent orders by one word there, `want`: an even number is "run",
 * an odd one "stop"; it grows with each order. Every thread looks at it between two
 * writes of the workload, and answers an odd one by storing the same number in its
 * `stopped`. An order is thus never taken for an older one, and as the store releases and
 * the parent's load acquires, all that the thread wrote is there when it counts as
 * stopped. A thread that waits for the time of its next write waits on the same word.
 *
 * The child ends when its socket's other end is closed: with the parent, however that
 * ends.
 */
#ifndef VMM_PROCESS_H
#define VMM_PROCESS_H

#include <linux/futex.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include "vm.h"

struct shared_vcpu {
	_Alignas(64) struct workload_regs regs;
	_Atomic uint32_t stopped;	 /* the order that this thread stopped for */
	_Atomic uint64_t writes, errors; /* copies for who looks at any time */
	struct workload_plan plan;
};

struct shared {
	_Atomic uint32_t want;	   /* futex; odd: stop */
	_Atomic uint32_t answers;  /* futex: changes when a thread stops */
	_Atomic uint32_t throttle; /* percent */
	_Atomic uint32_t logging;  /* keep the log of one's own */
	_Atomic uint32_t ended;	   /* threads that reached their last write */
	int32_t tracker; /* 0: userfaultfd is there, -errno: it is not. Constant once
			  * the child is up */
	struct shared_vcpu vcpu[VM_MAX_VCPUS];
};

struct process {
	struct shared *sh;
	uint64_t *log; /* [log_bytes / 8] bit per page from gpa 0 */
	size_t log_bytes;
	pid_t pid;
	int pidfd, sock; /* sock: the child ends when it is closed */
	unsigned int loaded;
};

static inline int futex(_Atomic uint32_t *word, int op, uint32_t val,
			const struct timespec *ts)
{
	return (int)syscall(SYS_futex, word, op, val, ts, NULL, 0);
}

/** process_guest() - be the guest: in the child that was forked, whose end of the socket
 * is @sock. Writes a byte there when it is up */
__attribute__((noreturn)) void process_guest(struct vm *vm, struct process *p, int sock);

#endif
