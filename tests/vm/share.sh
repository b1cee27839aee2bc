#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Shared memory on the oldest kernel that is supported, Debian 12's 6.1, whose userfaultfd
# lacks what newer ones have: two nodes in network namespaces of a virtual machine, where
# guest/share.sh runs.

# shellcheck source=tests/vm/lib.sh
. "$(dirname "$0")/lib.sh"

for p in ghostmemd ghostmem tests/share/node; do
	[ -x "$VM_BIN/$p" ] || vm_die "no $VM_BIN/$p: run make all share-tests"
done

vm_kernel
vm_initrd "$VM_DIR/share.img" \
	"$VM_LIB/guest/share.sh:/test" \
	"$VM_LIB/guest/share.sh:/tests/share/guest.sh" \
	"$VM_TOP/tests/netns/lib.sh:/tests/netns/lib.sh" \
	"$VM_TOP/tests/share/lib.sh:/tests/share/lib.sh" \
	"$VM_BIN/ghostmemd:/build/ghostmemd" \
	"$VM_BIN/ghostmem:/build/ghostmem" \
	"$VM_BIN/tests/share/node:/build/tests/share/node" \
	bash ip jq unshare nsenter mountpoint timeout grep @veth @bridge
vm_run "$VM_DIR/share.img" 200
