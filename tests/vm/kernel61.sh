#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# The oldest kernel that is supported, Debian 12's 6.1: the verifier takes the XDP
# program, natively and generically, the packet fixtures of tests/xdp pass, and TCP goes
# through ghostnicd and a TAP. All of it inside a virtual machine, where
# guest/kernel61.sh runs.

# shellcheck source=tests/vm/lib.sh
. "$(dirname "$0")/lib.sh"

for p in ghostnic ghostnicd; do
	[ -x "$VM_BIN/$p" ] || vm_die "no $VM_BIN/$p: run make"
done

items=(
	"$VM_LIB/guest/kernel61.sh:/test"
	"$VM_TOP/tests/netns/lib.sh:/tests/netns/lib.sh"
	"$VM_BIN/ghostnic:/build/ghostnic"
	"$VM_BIN/ghostnicd:/build/ghostnicd"
	bash ip ss ping ethtool jq socat unshare nsenter mountpoint head timeout xdp-filter
	@veth @tun
)
# The dispatcher of libxdp, and the program of xdp-filter.
for o in /usr/lib/{*/,}bpf/{xdp-dispatcher,xdpfilt_alw_all}.o; do
	[ ! -e "$o" ] || items+=("$o")
done
fixtures=0
for t in "$VM_BIN"/tests/xdp/test_*; do
	case ${t##*/} in *.*) continue ;; esac
	[ -x "$t" ] || continue
	items+=("$t:/tests/xdp/${t##*/}")
	fixtures=$((fixtures + 1))
done
[ $fixtures -gt 0 ] || vm_die "no tests/xdp/test_* in $VM_BIN: run make xdp-tests"

vm_kernel
vm_initrd "$VM_DIR/kernel61.img" "${items[@]}"
vm_run "$VM_DIR/kernel61.img" 280
