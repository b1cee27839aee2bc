/* SPDX-License-Identifier: BSD-2-Clause */
/* dirty_kvm: what KVM's two dirty logs share. */
#ifndef VMM_DIRTY_KVM_H
#define VMM_DIRTY_KVM_H

#include "dirty.h"

/** dirty_kvm_check_slots() - each in one block? Return: 0, -EINVAL */
int dirty_kvm_check_slots(const struct ram *ram, const struct dirty_kvm_slot *slot,
			  unsigned int nslots);

/**
 * dirty_kvm_set_log() - set or clear KVM_MEM_LOG_DIRTY_PAGES of all slots
 *
 * Each is set up again with the address at which @ram has it, and no other flag. Return:
 * 0; -errno: none is logged
 */
int dirty_kvm_set_log(const struct ram *ram, int vm_fd, const struct dirty_kvm_slot *slot,
		      unsigned int nslots, bool on);

#endif
