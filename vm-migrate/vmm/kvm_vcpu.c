// SPDX-License-Identifier: BSD-2-Clause
/*
 * kvm_vcpu: the threads of the vCPUs, one each, and how they are stopped.
 *
 * Stopping. `stop` is set, then every vCPU is got out of KVM_RUN: kvm_run.immediate_exit
 * is set and the thread gets a signal, whose handler does nothing. The thread clears
 * immediate_exit before it looks at stop, and the other side sets stop before
 * immediate_exit: either the thread sees stop, or KVM_RUN returns at once. A thread parks
 * only after vcpu_complete(): an exit for I/O is finished by the next KVM_RUN, so a state
 * saved before that would lose what the guest read.
 *
 * Throttling. A thread of its own kicks the vCPUs every 10 ms and has each sleep for its
 * share; there is none at 0 percent.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "kvm.h"

#define KICK_SIGNAL SIGRTMIN
#define PERIOD_NS   10000000u
/* A vCPU of an overcommitted host comes out later than that never. */
#define PARK_MS 10000

/* ---- vCPU threads ------------------------------------------------------------------ */

static void nothing(int sig)
{
}

/*
 * What the last exit began, KVM_RUN finishes before it looks at immediate_exit. That may
 * take another exit: an instruction that reads a device may write to one, too.
 */
static void vcpu_complete(struct vcpu *v)
{
	v->run->immediate_exit = 1;
	while (!ioctl(v->fd, KVM_RUN, 0))
		kvm_handle_exit(v);
	v->run->immediate_exit = 0;
}

/* Return: false: the VM is being destroyed */
static bool vcpu_park(struct vcpu *v)
{
	struct kvm *k = v->vm->accel_data;
	bool quit;

	vcpu_complete(v);
	pthread_mutex_lock(&k->lock);
	v->parked = true;
	pthread_cond_broadcast(&k->cond);
	while ((k->stop || k->over) && !k->quit)
		pthread_cond_wait(&k->cond, &k->lock);
	v->parked = false;
	quit = k->quit;
	pthread_mutex_unlock(&k->lock);
	return !quit;
}

/* Sleep for @ns, or until there is an order. */
static void nap(struct kvm *k, uint64_t ns, bool (*over)(const struct kvm *k))
{
	struct timespec end;
	int err = 0;

	clock_gettime(CLOCK_MONOTONIC, &end);
	ns += (uint64_t)end.tv_nsec;
	end.tv_sec += (time_t)(ns / 1000000000);
	end.tv_nsec = (long)(ns % 1000000000);
	pthread_mutex_lock(&k->lock);
	while (!over(k) && !err)
		err = pthread_cond_timedwait(&k->cond, &k->lock, &end);
	pthread_mutex_unlock(&k->lock);
}

static bool unthrottled(const struct kvm *k)
{
	return !k->throttle;
}

static bool rested(const struct kvm *k)
{
	return k->stop || k->over || unthrottled(k);
}

static void vcpu_nap(struct vcpu *v)
{
	uint64_t ns = atomic_exchange(&v->nap_ns, 0);

	if (ns)
		nap(v->vm->accel_data, ns, rested);
}

static void *vcpu_main(void *arg)
{
	struct vcpu *v = arg;
	struct kvm *k = v->vm->accel_data;

	for (;;) {
		int rc;

		atomic_store(&v->inside, true);
		v->run->immediate_exit = 0;
		atomic_thread_fence(memory_order_seq_cst); /* pairs with vcpu_kick() */
		if (k->stop || k->over) {
			atomic_store(&v->inside, false);
			if (!vcpu_park(v))
				return NULL;
			continue;
		}
		rc = ioctl(v->fd, KVM_RUN, 0) ? errno : 0;
		atomic_store(&v->inside, false);
		atomic_fetch_add(&v->exits, 1);
		if (!rc)
			kvm_handle_exit(v);
		else if (rc != EINTR && rc != EAGAIN)
			kvm_guest_over(v->vm, -rc, "KVM_RUN failed");
		vcpu_nap(v);
	}
}

static void vcpu_kick(struct vcpu *v)
{
	atomic_thread_fence(memory_order_seq_cst); /* pairs with vcpu_main() */
	v->run->immediate_exit = 1;
	pthread_kill(v->thread, KICK_SIGNAL);
}

/* dirty_kvm_vcpu.kick: on return it has left KVM_RUN once since the call. */
void kvm_vcpu_flush(void *arg)
{
	struct vcpu *v = arg;
	const uint32_t before = v->exits;
	const struct timespec tick = { .tv_nsec = 100000 };

	if (!v->started)
		return;
	while (v->inside && v->exits == before) {
		vcpu_kick(v);
		nanosleep(&tick, NULL);
	}
}

int kvm_start(struct vm *vm)
{
	struct kvm *k = vm->accel_data;
	int err = 0;

	pthread_mutex_lock(&k->lock);
	if (k->over)
		err = vm_fail(vm, -ESRCH, "the guest has ended");
	/* Tells the guest's watchdogs that it was stopped, here or where it comes from;
	 * without kvmclock there is none to tell. */
	for (unsigned int i = 0; i < k->n && !err; i++)
		ioctl(k->vcpu[i].fd, KVM_KVMCLOCK_CTRL, 0);
	k->stop = !!err;
	pthread_cond_broadcast(&k->cond);
	pthread_mutex_unlock(&k->lock);
	for (unsigned int i = 0; i < k->n && !err; i++) {
		struct vcpu *v = &k->vcpu[i];

		if (v->started)
			continue;
		err = -pthread_create(&v->thread, NULL, vcpu_main, v);
		v->started = !err;
		if (err)
			vm_fail(vm, err, "no thread for vCPU %u: %s", i, strerror(-err));
	}
	return err;
}

static bool all_parked(const struct kvm *k)
{
	for (unsigned int i = 0; i < k->n; i++)
		if (k->vcpu[i].started && !k->vcpu[i].parked)
			return false;
	return true;
}

int kvm_pause(struct vm *vm)
{
	struct kvm *k = vm->accel_data;
	struct timespec end;
	int err = 0;

	pthread_mutex_lock(&k->lock);
	k->stop = true;
	pthread_cond_broadcast(&k->cond);
	pthread_mutex_unlock(&k->lock);
	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += PARK_MS / 1000;
	for (unsigned int i = 0; i < k->n; i++)
		if (k->vcpu[i].started)
			vcpu_kick(&k->vcpu[i]);
	pthread_mutex_lock(&k->lock);
	while (!all_parked(k) && !err)
		err = -pthread_cond_timedwait(&k->cond, &k->lock, &end);
	if (!err && k->over)
		err = -ESRCH;
	if (err) {
		k->stop = false;
		pthread_cond_broadcast(&k->cond);
	}
	pthread_mutex_unlock(&k->lock);
	if (err == -ESRCH)
		return vm_fail(vm, err, "the guest has ended");
	return err ? vm_fail(vm, err, "a vCPU does not stop") : 0;
}

/* ---- throttle ---------------------------------------------------------------------- */

static void *throttler_main(void *arg)
{
	struct kvm *k = arg;
	unsigned int percent;

	while ((percent = k->throttle)) {
		const uint64_t share = (uint64_t)PERIOD_NS * percent / (100 - percent);

		for (unsigned int i = 0; i < k->n; i++) {
			if (!k->vcpu[i].started)
				continue;
			atomic_store(&k->vcpu[i].nap_ns, share);
			vcpu_kick(&k->vcpu[i]);
		}
		nap(k, PERIOD_NS + share, unthrottled);
	}
	return NULL;
}

int kvm_throttle(struct vm *vm, unsigned int percent)
{
	struct kvm *k = vm->accel_data;
	int err = 0;

	pthread_mutex_lock(&k->lock);
	k->throttle = percent > 99 ? 99 : percent;
	pthread_cond_broadcast(&k->cond);
	pthread_mutex_unlock(&k->lock);
	if (percent && !k->throttling) {
		err = -pthread_create(&k->throttler, NULL, throttler_main, k);
		k->throttling = !err;
	} else if (!percent && k->throttling) {
		pthread_join(k->throttler, NULL);
		k->throttling = false;
	}
	return err ? vm_fail(vm, err, "no thread: %s", strerror(-err)) : 0;
}

/* ---- beginning and end ------------------------------------------------------------- */

void kvm_vcpus_init(void)
{
	const struct sigaction sa = { .sa_handler = nothing };

	sigaction(KICK_SIGNAL, &sa, NULL);
}

void kvm_vcpus_end(struct kvm *k)
{
	pthread_mutex_lock(&k->lock);
	k->quit = true;
	k->stop = true;
	pthread_cond_broadcast(&k->cond);
	pthread_mutex_unlock(&k->lock);
	for (unsigned int i = 0; i < k->n; i++) {
		struct vcpu *v = &k->vcpu[i];

		if (!v->started)
			continue;
		vcpu_kick(v);
		pthread_join(v->thread, NULL);
		v->started = false;
	}
}
