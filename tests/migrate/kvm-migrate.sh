#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# The small VMM with real vCPUs: Debian's kernel boots in it, receives a TCP stream through
# ghostnicd, is paused, stays where it is after a migration that is cancelled and one that fails
# at its end, and is migrated under load, there and back, with KVM's bitmap and with its
# ring, with ghostnicd's DMA log and with the vhost log. All of it inside a virtual machine
# that has KVM, which an emulated AMD CPU provides everywhere; guest/kvm-migrate.sh runs
# there, and guest/stream.sh in the guest of the guest.

# shellcheck source=tests/vm/lib.sh
. "$(dirname "$0")/../vm/lib.sh"

for p in ghostnic ghostnicd vm-migrate/vm-migrate tests/migrate/test_ends; do
	[ -x "$VM_BIN/$p" ] || vm_die "no $VM_BIN/$p: run make all migrate-tests"
done
G=$VM_TOP/tests/migrate/guest

vm_kernel
vm_initrd "$VM_DIR/stream.img" "$G/stream.sh:/test" @virtio_mmio @virtio_net socat
items=(
	"$G/kvm-migrate.sh:/test"
	"$VM_TOP/tests/netns/lib.sh:/tests/netns/lib.sh"
	"$VM_BIN/ghostnic:/build/ghostnic"
	"$VM_BIN/ghostnicd:/build/ghostnicd"
	"$VM_BIN/vm-migrate/vm-migrate:/build/vm-migrate"
	"$VM_BIN/tests/migrate/test_ends:/build/tests/migrate/test_ends"
	"$VM_KERNEL:/guest/vmlinuz" "$VM_DIR/stream.img:/guest/initrd"
	bash ip ss ethtool jq socat unshare nsenter mountpoint head timeout
	@veth @tun @bridge @kvm-amd
)
for o in /usr/lib/{*/,}bpf/xdp-dispatcher.o; do
	[ ! -e "$o" ] || items+=("$o")
done
vm_initrd "$VM_DIR/kvm-migrate.img" "${items[@]}"
VM_SILENCE=120 vm_nested "$VM_DIR/kvm-migrate.img" 300 -m 2G
