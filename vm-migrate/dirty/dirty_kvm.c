// SPDX-License-Identifier: BSD-2-Clause
/* dirty_kvm: see dirty_kvm.h. */
#include <errno.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>

#include "dirty_kvm.h"

int dirty_kvm_check_slots(const struct ram *ram, const struct dirty_kvm_slot *slot,
			  unsigned int nslots)
{
	for (unsigned int i = 0; i < nslots; i++) {
		const struct ram_block *b = ram_block_of(ram, slot[i].first_page);

		if (!b || !slot[i].pages ||
		    slot[i].pages > (b->size >> RAM_PAGE_SHIFT) -
					    (slot[i].first_page - b->first_page))
			return -EINVAL;
	}
	return 0;
}

static int set_log(const struct ram *ram, int vm_fd, const struct dirty_kvm_slot *slot,
		   bool on)
{
	struct kvm_userspace_memory_region r = {
		.slot = slot->slot,
		.flags = on ? KVM_MEM_LOG_DIRTY_PAGES : 0,
		.guest_phys_addr = ram_gpa(ram, slot->first_page),
		.memory_size = slot->pages << RAM_PAGE_SHIFT,
		.userspace_addr = (uintptr_t)ram_at(ram, slot->first_page),
	};

	return ioctl(vm_fd, KVM_SET_USER_MEMORY_REGION, &r) ? -errno : 0;
}

int dirty_kvm_set_log(const struct ram *ram, int vm_fd, const struct dirty_kvm_slot *slot,
		      unsigned int nslots, bool on)
{
	int err = 0;
	unsigned int i;

	for (i = 0; i < nslots && !err; i++)
		err = set_log(ram, vm_fd, &slot[i], on);
	if (!err || !on)
		return err;
	while (i--)
		set_log(ram, vm_fd, &slot[i], false);
	return err;
}
