#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# A Linux guest in QEMU behind the vhost-user port: offloads, data intact both ways,
# super-packets in, TSO out; the guest rebooted from inside under traffic, reset, the daemon
# killed under it. And one with a packed ring, rebooted without a goodbye.

# shellcheck source=tests/vhost/qemu-lib.sh
. "$(dirname "$0")/qemu-lib.sh"

VM=10.0.0.11
PEER=10.0.0.1

# both_ways - is anything lost or changed?
both_ways()
{
	gn_exec peer ping -q -c 20 -i 0.05 -W 5 -s 1400 $VM &&
		guest vm1 "ping -q -c 3 -W 5 -s 1400 $PEER"
}

feature() { guest vm1 "ethtool -k eth0" | grep -q "^[[:space:]]*$1: on"; }

# merged CMD... - it succeeds, and of what the guest receives meanwhile most came as
# super-packets
merged()
{
	local p f
	p=$(gn_port_count vm1 rx_packets)
	f=$(gn_port_count vm1 rx_frames)
	"$@" || return
	p=$(($(gn_port_count vm1 rx_packets) - p))
	f=$(($(gn_port_count vm1 rx_frames) - f))
	echo "# $p packets in $f frames" >>"$GN_TMP/merged"
	[ $p -gt $((2 * f)) ] || { echo "$p packets in $f frames"; return 1; }
}

# segmented CMD... - it succeeds, and the guest left segmentation to the daemon
segmented()
{
	local p f
	p=$(gn_port_count vm1 tx_wire)
	f=$(gn_port_count vm1 tx_frames)
	"$@" || return
	p=$(($(gn_port_count vm1 tx_wire) - p))
	f=$(($(gn_port_count vm1 tx_frames) - f))
	[ $p -gt $((2 * f)) ] || { echo "$f frames became $p packets"; return 1; }
}

no_faults() { [ "$(gn_port_count vm1 faults)" = 0 ] && [ "$(gn_port_count vm1 tx_bad)" = 0 ]; }

qemu_initrd
qemu_host 1500
qemu_boot vm1 "$GN_TMP/vm1.vu"
gn_ok "boot"
guest_up vm1 11
gn_check "ping both ways" both_ways
for f in rx-checksumming tx-checksumming tcp-segmentation-offload generic-receive-offload; do
	gn_check "offload $f" feature $f
done
gn_check "driver statistics" guest vm1 "ethtool -S eth0 | grep -q rx_queue_0_packets"

gn_file 16
gn_check "IPv4 to the guest, merged" merged copy_in vm1 $VM
gn_check "IPv6 to the guest, merged" merged copy_in vm1 fd00::11
gn_check "IPv4 from the guest, segmented" segmented copy_out vm1 $PEER 16
gn_check "IPv6 from the guest, segmented" segmented copy_out vm1 fd00::1 16
cat "$GN_TMP/merged"
gn_check "no fault" no_faults

# ---- the guest's driver starts anew -------------------------------------------------
# reboots NAME COMMAND TIMES - the guest itself does it; has it come up so often then?
reboots()
{
	echo "0 $2" >&"${QEMU_FD[$1]}"
	qemu_ready "$1" "$3"
}

gn_spawn FLOOD gn_exec peer ping -q -i 0.002 -s 1400 $VM
if reboots vm1 "reboot -f" 2; then
	gn_check "the same QEMU" gn_not gn_gone "${QEMU_PID[vm1]}"
	guest_up vm1 11
	gn_check "after a reboot by the guest, under traffic" gn_wait 20 answers $VM
	gn_stop "$FLOOD"
	gn_check "data to it after the reboot" merged copy_in vm1 $VM
	gn_check "data from it after the reboot" segmented copy_out vm1 $PEER 4
	gn_check "no fault by the reboot" no_faults
else
	gn_fail "after a reboot by the guest" "it does not come up"
fi

qmp vm1 system_reset >/dev/null
if qemu_ready vm1 3; then
	guest_up vm1 11
	gn_check "after a reset" gn_wait 20 answers $VM
	gn_check "data after a reset" merged copy_in vm1 $VM
else
	gn_fail "after a reset" "the guest does not come up"
fi

# ---- the daemon killed: QEMU connects to the next one, the guest sees nothing ----------
gn_stop "$GN_DAEMON" KILL
qemu_daemon
gn_check "daemon killed and started again" gn_wait 20 answers $VM
gn_check "data to the guest after that" merged copy_in vm1 $VM
gn_check "data from the guest after that" copy_out vm1 $PEER 4
gn_check "no fault in the end" no_faults
qemu_end vm1

# ---- one queue pair, packed ring ------------------------------------------------------
QEMU_MAC=$GN_MAC2 QEMU_DEVICE=,romfile=,packed=on qemu_boot vm2 "$GN_TMP/vm2.vu"
packed() { [ "$(guest vm2 "cut -c35 /sys/bus/virtio/devices/virtio0/features")" = 1 ]; }
gn_check "packed ring" packed
guest_up vm2 12
gn_check "data to the packed ring" copy_in vm2 10.0.0.12
gn_check "data from the packed ring" copy_out vm2 $PEER 4
if reboots vm2 "echo b >/proc/sysrq-trigger" 2; then
	guest_up vm2 12
	gn_check "after a reboot by SysRq" gn_wait 20 answers 10.0.0.12
	gn_check "data to the packed ring after that" copy_in vm2 10.0.0.12
	gn_check "data from the packed ring after that" copy_out vm2 $PEER 4
else
	gn_fail "after a reboot by SysRq" "it does not come up"
fi
gn_check "no fault at either" test "$(gn_count faults)" = 0

qemu_end vm2
gn_world_end
