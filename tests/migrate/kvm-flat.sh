#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# The built-in guest with real vCPUs, which notices a lost write itself: four of them are
# paused, migrated, throttled, and stay where they are when a migration is cancelled, loses its
# destination, or fails after they stopped; before that, what guest/vcpus.c looks at from within.
# All of it inside a virtual machine that has KVM, which an emulated AMD CPU provides everywhere;
# guest/kvm-flat.sh runs there.

# shellcheck source=tests/vm/lib.sh
. "$(dirname "$0")/../vm/lib.sh"

ENDS=$VM_BIN/tests/migrate/test_ends
VCPUS=$VM_BIN/tests/migrate/guest/vcpus
for p in "$VM_BIN/vm-migrate/vm-migrate" "$ENDS" "$VCPUS"; do
	[ -x "$p" ] || vm_die "no $p: run make all migrate-tests"
done

vm_kernel
vm_initrd "$VM_DIR/kvm-flat.img" "$VM_TOP/tests/migrate/guest/kvm-flat.sh:/test" \
	"$VM_TOP/tests/netns/lib.sh:/tests/netns/lib.sh" \
	"$VM_TOP/tests/migrate/cli-lib.sh:/tests/migrate/cli-lib.sh" \
	"$VM_BIN/vm-migrate/vm-migrate:/build/vm-migrate/vm-migrate" "$ENDS:/build/tests/migrate/test_ends" \
	"$VCPUS:/build/tests/migrate/guest/vcpus" \
	bash ip jq socat unshare mountpoint timeout @kvm-amd
VM_SILENCE=90 vm_nested "$VM_DIR/kvm-flat.img" 300
