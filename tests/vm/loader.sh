#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Parts of tests/netns/loader.sh once more, on a kernel that has what libxdp's dispatcher needs
# (freplace), whatever the kernel outside has: attach beside xdp-filter, in both orders, with
# names that change hands, and being killed at every step with the dispatcher's own pins to leave behind.

# shellcheck source=tests/vm/lib.sh
. "$(dirname "$0")/lib.sh"

[ -x "$VM_BIN/ghostnic" ] || vm_die "no $VM_BIN/ghostnic: run make"

items=(
	"$VM_LIB/guest/loader.sh:/test"
	"$VM_TOP/tests/netns/loader.sh:/tests/netns/loader.sh"
	"$VM_TOP/tests/netns/lib.sh:/tests/netns/lib.sh"
	"$VM_BIN/ghostnic:/build/ghostnic"
	bash ip ethtool jq ping strace unshare nsenter setpriv mountpoint timeout
	xdp-filter xdp-loader
	@veth
)
for o in /usr/lib/*/bpf/xdp*.o /usr/lib/bpf/xdp*.o; do
	[ ! -e "$o" ] || items+=("$o")
done

vm_kernel
vm_initrd "$VM_DIR/loader.img" "${items[@]}"
vm_run "$VM_DIR/loader.img" 300
