#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Two Linux guests on one daemon with two queue pairs each, one with long packed rings, the
# other with split rings and a QEMU that listens: jumbo frames, iperf3, and each other's TCP;
# the daemon killed under them, and once more while one of them is reset.

# shellcheck source=tests/vhost/qemu-lib.sh
. "$(dirname "$0")/qemu-lib.sh"

# feature_bit NAME BIT - did guest and back end agree on it?
feature_bit() { [ "$(guest "$1" "cut -c$(($2 + 1)) /sys/bus/virtio/devices/virtio0/features")" = "$3" ]; }

two_queues() { guest "$1" "ethtool -L eth0 combined 2 && ethtool -l eth0 | sed '1,/Current/d' | grep -q 'Combined:[[:space:]]*2'"; }

# guest_copy FROM TO ADDRESS MIB - by TCP from guest to guest
guest_copy()
{
	local sum got

	sum=$(guest "$1" "head -c $(($4 << 20)) /dev/urandom >/tmp/file; sha256sum </tmp/file") || return
	guest "$2" "rm -f /tmp/sum; socat -u TCP4-LISTEN:9000,reuseaddr SYSTEM:'sha256sum >/tmp/s; mv /tmp/s /tmp/sum' >/tmp/socat 2>&1 &"
	gn_wait 20 guest "$2" "netstat -ltn | grep -q :9000" || return
	guest "$1" "timeout 50 socat -u OPEN:/tmp/file TCP4:$3:9000" || return
	gn_wait 40 guest "$2" "test -s /tmp/sum" || return
	got=$(guest "$2" "cat /tmp/sum")
	[ "$sum" = "$got" ] || { echo "sent $sum, got $got"; return 1; }
}

# in_larger_frames CMD... - it succeeds, and frames between guests were not segmented
in_larger_frames()
{
	local f b
	f=$(gn_port_count vm2 rx_local)
	b=$(gn_port_count vm1 tx_bytes)
	"$@" || return
	f=$(($(gn_port_count vm2 rx_local) - f))
	b=$(($(gn_port_count vm1 tx_bytes) - b))
	echo "$b bytes in $f frames"
	[ $f -gt 0 ] && [ $((b / f)) -gt 10000 ]
}

# iperf ARG... - towards the peer's server, some bytes have to arrive
iperf()
{
	guest vm1 "iperf3 -c 10.0.0.1 -t 2 -P 2 -J $* >/tmp/iperf; s=\$?; cat /tmp/iperf; exit \$s" |
		jq -e '.end.sum_received.bytes > 1000000'
}

# queues_used - the guest has sent by both rings
queues_used()
{
	guest vm1 "ethtool -S eth0" | awk '/tx_queue_[01]_packets/ && $2 > 0 { n++ } END { exit n != 2 }'
}

no_faults() { [ "$(gn_count faults)" = 0 ] && [ "$(gn_count tx_bad)" = 0 ]; }

MTU=9000
gn_jumbo "mtu 9000" || MTU=1500
qemu_initrd
QEMU_LISTENS=,client
qemu_host $MTU
QEMU_SMP=2 QEMU_NETDEV=,queues=2 \
	QEMU_DEVICE=,romfile=,packed=on,mq=on,rx_queue_size=1024,tx_queue_size=1024 \
	qemu_boot vm1 "$GN_TMP/vm1.vu"
QEMU_MAC=$GN_MAC2 QEMU_CHARDEV=,server=on,wait=off QEMU_SMP=2 QEMU_NETDEV=,queues=2 \
	QEMU_DEVICE=,romfile=,mq=on qemu_boot vm2 "$GN_TMP/vm2.vu"
gn_ok "both boot"
gn_check "packed ring" feature_bit vm1 34 1
gn_check "split ring" feature_bit vm2 34 0
gn_check "two queue pairs, packed" two_queues vm1
gn_check "two queue pairs, split" two_queues vm2
gn_check "rings of 1024" test "$(guest vm1 "ethtool -g eth0" | awk '/^[RT]X:/ && $2 == 1024' | wc -l)" = 4
guest_up vm1 11 $MTU
guest_up vm2 12 $MTU

gn_check "large frames to the packed ring" gn_exec peer ping -q -c 5 -i 0.1 -W 5 -s $((MTU - 100)) -M "do" 10.0.0.11
gn_check "large frames to the split ring" gn_exec peer ping -q -c 5 -i 0.1 -W 5 -s $((MTU - 100)) -M "do" 10.0.0.12
gn_check "from guest to guest" guest vm1 "ping -q -c 3 -W 5 -s $((MTU - 100)) 10.0.0.12"
gn_check "TCP from guest to guest, whole frames" in_larger_frames guest_copy vm1 vm2 10.0.0.12 8
gn_check "TCP the other way" guest_copy vm2 vm1 10.0.0.11 8
gn_file 16
gn_check "TCP from the network, packed ring" copy_in vm1 10.0.0.11
gn_check "TCP to the network, packed ring" copy_out vm1 10.0.0.1 8
gn_server peer
gn_check "iperf3 from the guest" iperf
gn_check "iperf3 to the guest" iperf -R
gn_check "both queues were used" queues_used
gn_check "no fault" no_faults

# ---- the daemon killed under both: QEMU does not know where a packed ring has come to ---
# killed_under_load - three times, while packets go both ways
killed_under_load()
{
	local seen
	for _ in 1 2 3; do
		gn_spawn FLOOD gn_exec peer ping -q -f -s 1400 10.0.0.11
		seen=$(gn_port_count vm1 tx_frames)
		gn_wait 20 sent_more $((seen + 500)) || return
		gn_stop "$GN_DAEMON" KILL
		gn_stop "$FLOOD"
		qemu_daemon
		gn_wait 30 answers 10.0.0.11 || { echo "the packed ring does not go on"; return 1; }
		gn_wait 30 answers 10.0.0.12 || { echo "the split ring does not go on"; return 1; }
	done
}
sent_more() { [ "$(gn_port_count vm1 tx_frames)" -gt "$1" ]; }
gn_check "daemon killed under load, three times" killed_under_load
gn_check "data to the packed ring after that" copy_in vm1 10.0.0.11
gn_check "data from the packed ring after that" copy_out vm1 10.0.0.1 4
gn_stop "$GN_DAEMON"
gn_check "positions are kept for the next daemon" test -s "$GHOSTNIC_CTL.rings"
qemu_daemon
gn_check "daemon stopped in order, and started again" gn_wait 30 answers 10.0.0.11

# ---- a guest reset while there is no daemon: its packed rings begin anew ------------------
gn_stop "$GN_DAEMON" KILL
qmp vm1 system_reset >/dev/null
if qemu_ready vm1 2; then
	guest_up vm1 11 $MTU
	qemu_daemon
	gn_check "reset while no daemon ran" gn_wait 30 answers 10.0.0.11
	gn_check "data after that" copy_in vm1 10.0.0.11
else
	gn_fail "reset while no daemon ran" "the guest does not come up"
fi
gn_check "no fault in the end" no_faults

qemu_end vm1 vm2
gn_world_end
