// SPDX-License-Identifier: BSD-2-Clause
/*
 * vm: what is the same for every accelerator. See vm.h.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "virtio_mmio.h"
#include "vm.h"

int vm_fail(struct vm *vm, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(vm->error, sizeof(vm->error), fmt, ap);
	va_end(ap);
	return err;
}

/* ---- creation ---------------------------------------------------------------------- */

static int make_ram(struct vm *vm)
{
	const struct vm_conf *c = &vm->conf;
	const unsigned int flags = c->huge ? RAM_HUGE : 0;
	const uint64_t low = c->memory < VM_HOLE_START ? c->memory : VM_HOLE_START;
	int err = ram_add(&vm->ram, 0, low, flags);

	if (!err && c->memory > low)
		err = ram_add(&vm->ram, VM_HOLE_END, c->memory - low, flags);
	if (err == -ENOMEM && c->huge)
		return vm_fail(vm, err,
			       "%llu MiB of huge pages are not there: raise "
			       "/proc/sys/vm/nr_hugepages, or leave --huge out",
			       (unsigned long long)c->memory >> 20);
	if (err)
		return vm_fail(vm, err, "cannot get %llu MiB of memory: %s",
			       (unsigned long long)c->memory >> 20, strerror(-err));
	return 0;
}

int vm_create(const struct vm_conf *conf, struct vm **out, char *why, size_t why_len)
{
	static const struct vm_accel *const accels[] = { &accel_kvm, &accel_process };
	struct vm *vm;
	int err = vm_conf_check(conf, why, why_len);

	if (err)
		return err;
	vm = calloc(1, sizeof(*vm));
	if (!vm) {
		snprintf(why, why_len, "out of memory");
		return -ENOMEM;
	}
	vm->conf = *conf;
	vm->ended_fd = -1;
	pthread_mutex_init(&vm->lock, NULL);
	ram_init(&vm->ram);
	for (unsigned int i = 0; i < sizeof(accels) / sizeof(accels[0]); i++)
		if (!strcmp(conf->accel, accels[i]->name))
			vm->accel = accels[i];
	err = make_ram(vm);
	if (!err)
		err = vm->accel->create(vm);
	if (err) {
		snprintf(why, why_len, "%s", vm->error);
		vm_destroy(vm);
		return err;
	}
	*out = vm;
	return 0;
}

void vm_destroy(struct vm *vm)
{
	if (!vm)
		return;
	if (vm->accel_data)
		vm->accel->destroy(vm);
	ram_fini(&vm->ram);
	pthread_mutex_destroy(&vm->lock);
	free(vm);
}

/* ---- running ----------------------------------------------------------------------- */

int vm_boot(struct vm *vm)
{
	return vm->accel->boot(vm);
}

static void undrain(struct vm *vm)
{
	for (unsigned int i = 0; vm->drained && i < VM_MAX_NETS; i++)
		if (vm->net[i])
			virtio_net_resume(vm->net[i]);
	vm->drained = false;
}

int vm_start(struct vm *vm)
{
	int err = 0;

	pthread_mutex_lock(&vm->lock);
	if (!vm->running) {
		undrain(vm);
		err = vm->accel->start(vm);
		vm->running = !err;
	}
	pthread_mutex_unlock(&vm->lock);
	return err;
}

int vm_pause(struct vm *vm)
{
	int err = 0;

	pthread_mutex_lock(&vm->lock);
	if (vm->running) {
		err = vm->accel->pause(vm);
		vm->running = !!err;
	}
	pthread_mutex_unlock(&vm->lock);
	return err;
}

int vm_drain(struct vm *vm)
{
	int err = 0;

	pthread_mutex_lock(&vm->lock);
	for (unsigned int i = 0; i < VM_MAX_NETS && !err; i++)
		if (vm->net[i])
			err = virtio_net_drain(vm->net[i]);
	vm->drained = true; /* of those that were, also after a failure */
	if (err)
		vm_fail(vm, err, "the network's back end does not stop: %s",
			strerror(-err));
	pthread_mutex_unlock(&vm->lock);
	return err;
}

int vm_throttle(struct vm *vm, unsigned int percent)
{
	int err;

	pthread_mutex_lock(&vm->lock);
	err = vm->accel->throttle(vm, percent);
	pthread_mutex_unlock(&vm->lock);
	return err;
}

/* ---- dirty pages ------------------------------------------------------------------- */

int vm_dirty(struct vm *vm, struct dirty_set **out)
{
	struct dirty_set *set;
	int err = dirty_set_create(&vm->ram, &set);

	if (err)
		return vm_fail(vm, err, "out of memory");
	err = vm->accel->add_dirty(vm, set);
	for (unsigned int i = 0; i < VM_MAX_NETS && !err; i++)
		if (vm->net[i])
			err = virtio_net_add_dirty(vm->net[i], set);
	if (err) {
		if (!vm->error[0])
			vm_fail(vm, err, "dirty pages cannot be tracked: %s",
				strerror(-err));
		vm_dirty_end(vm, set);
		return err;
	}
	*out = set;
	return 0;
}

void vm_dirty_end(struct vm *vm, struct dirty_set *set)
{
	if (!set)
		return;
	if (vm->accel->drop_dirty)
		vm->accel->drop_dirty(vm);
	dirty_set_destroy(set);
}

/* ---- state ------------------------------------------------------------------------- */

int vm_save(struct vm *vm, struct state_writer *w)
{
	int err;

	pthread_mutex_lock(&vm->lock);
	err = vm->accel->save(vm, w);
	for (unsigned int i = 0; i < VM_MAX_NETS && !err; i++)
		if (vm->net[i])
			virtio_net_save(vm->net[i], i, w);
	if (!err && w->err)
		err = vm_fail(vm, w->err, "cannot save the state: %s", strerror(-w->err));
	pthread_mutex_unlock(&vm->lock);
	return err;
}

static int load_section(struct vm *vm, struct state_section *s)
{
	int err = vm->accel->load(vm, s);

	if (err == -ENOENT && !strcmp(s->name, VIRTIO_NET_SECTION) &&
	    s->instance < VM_MAX_NETS && vm->net[s->instance])
		err = virtio_net_load(vm->net[s->instance], s);
	if (err == -ENOENT)
		return vm_fail(vm, -EBADMSG,
			       "the state has a section %s/%u that this machine does not "
			       "know; is the destination's version older?",
			       s->name, s->instance);
	if (!err && state_done(s))
		err = vm_fail(vm, -EBADMSG,
			      "section %s/%u of version %u has not the "
			      "length that it should",
			      s->name, s->instance, s->version);
	if (err && !vm->error[0])
		vm_fail(vm, err, "section %s/%u of the state is not accepted: %s",
			s->name, s->instance, strerror(-err));
	return err;
}

int vm_load(struct vm *vm, const uint8_t *state, size_t len)
{
	struct state_section s;
	int err = 0, n;

	pthread_mutex_lock(&vm->lock);
	vm->error[0] = '\0';
	while (!err && (n = state_next(&state, &len, &s)) != 0)
		err = n < 0 ? vm_fail(vm, n, "the state is damaged")
			    : load_section(vm, &s);
	if (!err && vm->accel->loaded)
		err = vm->accel->loaded(vm);
	for (unsigned int i = 0; i < VM_MAX_NETS && !err; i++)
		if (vm->net[i] && !virtio_net_loaded(vm->net[i]))
			err = vm_fail(vm, -EBADMSG,
				      "the state of network device %u is missing", i);
	vm->drained = !err; /* rings start with the machine */
	pthread_mutex_unlock(&vm->lock);
	return err;
}
