#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# KVM's dirty bitmap and ring under the oracle of test_dirty, with real vCPUs: inside a
# virtual machine that has KVM, which an emulated AMD CPU provides everywhere.

# shellcheck source=tests/vm/lib.sh
. "$(dirname "$0")/../vm/lib.sh"

T=$VM_BIN/tests/migrate/test_dirty
[ -x "$T" ] || vm_die "no $T: run make migrate-tests"

vm_kernel
vm_initrd "$VM_DIR/dirty-kvm.img" "$VM_TOP/tests/migrate/guest/kvm.sh:/test" \
	"$T:/test_dirty" @kvm-amd
VM_RESUMES=1 vm_nested "$VM_DIR/dirty-kvm.img" 60
