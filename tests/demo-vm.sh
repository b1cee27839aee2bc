# shellcheck shell=bash
# SPDX-License-Identifier: BSD-2-Clause
#
# A part of demo.sh, which sources it: a QEMU guest, Debian's kernel and a busybox, receives
# through the daemon that runs already. Uses demo.sh's say(), give_up(), gn_* and qemu_*.

VM_MIB=16	# the guest's CPU is emulated

# demo_vm - a guest behind a vhost-user port; its numbers go to $GN_TMP/part.vm.json
demo_vm()
{
	local sock=$GN_TMP/vm2.vu packets frames out

	say "5. a virtual machine: an instance is added, QEMU connects to its vhost-user socket"
	echo "   fetching and unpacking Debian's kernel, if it is not here yet"
	qemu_initrd >"$GN_TMP/initrd.log" 2>&1 || give_up "no kernel: $(tail -n 1 "$GN_TMP/initrd.log")"
	gn_ghostnic instance add "vm2,mac=$GN_MAC2,port=vhost-user:$sock" >/dev/null ||
		give_up "the instance cannot be added"
	gn_ghostnic instance list | sed 's/^/   /'
	QEMU_MAC=$GN_MAC2 qemu_boot vm2 "$sock"
	guest_up vm2 12
	gn_wait 20 answers 10.0.0.12 || give_up "the virtual machine does not answer"
	printf '   %-22s %s\n' "its kernel" "$(guest vm2 'uname -r')"
	guest vm2 "ethtool -k eth0" | grep -E '^(rx-checksumming|tcp-segmentation-offload):' |
		sed 's/^/   in the guest: /'

	gn_file $VM_MIB
	out=$(copy_in vm2 10.0.0.12) ||
		give_up "peer -> VM: $out (SHA-256 differs, or it did not arrive)"
	printf '   %-22s %d MiB, SHA-256 equal: %.16s...\n' "peer -> VM, IPv4" $VM_MIB "$GN_SUM"
	out=$(copy_out vm2 10.0.0.1 $VM_MIB) ||
		give_up "VM -> peer: $out (SHA-256 differs, or it did not arrive)"
	printf '   %-22s %d MiB, SHA-256 equal\n' "VM -> peer, IPv4" $VM_MIB
	packets=$(gn_port_count vm2 rx_packets)
	frames=$(gn_port_count vm2 rx_frames)
	[ "$frames" -gt 0 ] || give_up "no frame was delivered to the virtual machine"
	printf '   %-22s %12s\n' "packets in" "$packets" "super-packets out" "$frames"
	jq -n --argjson mib $VM_MIB --argjson packets "$packets" --argjson frames "$frames" '{
		vm: { file_mib: $mib, sha256_equal: true, packets_in: $packets,
		      super_packets_out: $frames } }' >"$GN_TMP/part.vm.json"
	qemu_end vm2 2>/dev/null	# the shell says who was killed
}
