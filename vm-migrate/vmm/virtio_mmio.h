/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * virtio_mmio: a virtio network device at a page of guest-physical addresses, whose rings
 * a vhost-user back end serves. Source: virtio 1.2, 4.2 (MMIO) and 5.1 (network).
 *
 * This file has the registers only. Notifications go from KVM to the back end by
 * ioeventfd, interrupts from the back end to KVM by irqfd: while packets flow, the VMM's
 * process is not woken.
 *
 * Any thread; a lock of its own. drain, save, load and resume: vm.c's callers.
 */
#ifndef VMM_VIRTIO_MMIO_H
#define VMM_VIRTIO_MMIO_H

#include <stdint.h>

#include "vm.h"

#define VIRTIO_NET_SECTION "virtio-net"

struct virtio_net_front;

/**
 * virtio_net_create() - device @i of @vm, connected to its back end
 * @vm_fd:	KVM's, for notifications and interrupts
 *
 * Return: 0; -errno and vm->error
 */
int virtio_net_create(struct vm *vm, unsigned int i, int vm_fd,
		      struct virtio_net_front **out);
/** virtio_net_destroy() - NULL is fine */
void virtio_net_destroy(struct virtio_net_front *n);

/* [@off, @off + @len) of its page. */
void virtio_net_read(struct virtio_net_front *n, uint64_t off, void *data, uint32_t len);
void virtio_net_write(struct virtio_net_front *n, uint64_t off, const void *data,
		      uint32_t len);

/** virtio_net_drain() - on return the back end writes no memory. Return: 0, -errno */
int virtio_net_drain(struct virtio_net_front *n);
/** virtio_net_resume() - let it go on. A back end that does not is the guest's loss of
 * its network, which is logged, not of the machine */
void virtio_net_resume(struct virtio_net_front *n);

int virtio_net_add_dirty(struct virtio_net_front *n, struct dirty_set *set);
void virtio_net_save(struct virtio_net_front *n, unsigned int i, struct state_writer *w);
/** virtio_net_load() - Return: 0, -EPROTONOSUPPORT, -EBADMSG */
int virtio_net_load(struct virtio_net_front *n, struct state_section *s);
bool virtio_net_loaded(const struct virtio_net_front *n);

#endif
