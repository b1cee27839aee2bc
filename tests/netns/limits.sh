#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# What an instance may send: from its own address and VLAN only, unless it was allowed
# more; and no faster than its rate, which is nobody else's.

# shellcheck source=tests/netns/lib.sh
. "$(dirname "$0")/lib.sh"

above() { [ "$("${@:2}")" -gt "$1" ]; }

# within MIN MAX CMD... - is the number that it prints between them?
within()
{
	local n
	n=$("${@:3}") || return 1
	echo "$n"
	jq -en "$n >= $1 and $n <= $2" >/dev/null
}

# mbits FROM TO ADDRESS ARGS... - iperf3 for two seconds, received
mbits()
{
	gn_iperf "$@" -t 2 >/dev/null && jq '.end.sum_received.bits_per_second / 1e6' "$GN_TMP/iperf.json"
}

# listed NAME JQ - what "instance list" says of it
listed() { gn_ghostnic instance list -j | jq -e ".instances[] | select(.name == \"$1\") | $2"; }

# sees NS IF FILTER CMD... - does a packet of FILTER come to IF when CMD has run?
sees()
{
	local rc
	gn_spawn SEES gn_exec "$1" tcpdump -ni "$2" -c 1 -Z root "$3"
	gn_wait 5 grep -q 'listening on' "$GN_TMP/SEES.log" || gn_die "no tcpdump"
	"${@:4}"
	gn_wait 2 gn_gone "$SEES"
	rc=$?
	gn_stop "$SEES"
	: >"$GN_TMP/SEES.log"
	return $rc
}


FOREIGN=02:00:00:00:00:99

# who_has NS - broadcasts: asks for an address that nobody has, another one each time
NOBODY=100
who_has()
{
	NOBODY=$((NOBODY + 1))
	gn_exec "$1" ping -q -c 3 -i 0.05 -W 0.2 10.0.0.$NOBODY
}

# spoof NS IF MAC - broadcasts from that source address
spoof()
{
	gn_must gn_exec "$1" ip link set dev "$2" address "$3"
	who_has "$1"
	return 0
}

# tagged NS IF - broadcasts in VLAN 7
tagged()
{
	gn_must gn_exec "$1" tc qdisc add dev "$2" clsact
	gn_must gn_exec "$1" tc filter add dev "$2" egress bpf da \
		obj "$GN_BIN/tests/netns/vlan.bpf.o" sec push
	who_has "$1"
	gn_must gn_exec "$1" tc qdisc del dev "$2" clsact
	return 0
}

gn_world 1500
gn_must gn_daemon host --iface h0 \
	--instance "vm1,mac=$GN_MAC1,port=tap:vm1,rate=100M" \
	--instance "vm2,mac=$GN_MAC2,port=tap:vm2,allow-spoof"
gn_vm 1 1500
gn_vm 2 1500
gn_check "ping" gn_wait 10 gn_ping peer 10.0.0.11
gn_check "ping of the other" gn_wait 10 gn_ping peer 10.0.0.12

# ---- rate ----
gn_check "the list shows the rate" listed vm1 '.rate == 100000000 and (.allow_spoof | not)'
gn_check "the list shows who may spoof" listed vm2 '.rate == 0 and .allow_spoof'
gn_check "the table shows both" sh -c "'$GN_BIN/ghostnic' instance list | grep -E 'vm1 .* 100M +no '"
gn_check "out: the rate, not more, not less" within 50 105 mbits vm1 peer 10.0.0.1
gn_check "each wait is counted" above 0 gn_port_count vm1 tx_paused
gn_check "nothing is lost by waiting" test "$(gn_port_count vm1 tx_dropped)" = 0
gn_check "in: no limit" within 300 1000000 mbits peer vm1 10.0.0.11
gn_check "to another instance: the same rate" within 50 105 mbits vm1 vm2 10.0.0.12
gn_spawn SERVER2 gn_exec peer iperf3 -s -p 5202
gn_wait 5 gn_listening peer 5202 || gn_die "no second server"
gn_spawn LIMITED gn_exec vm1 iperf3 -c 10.0.0.1 -p 5202 -t 30
gn_check "the other instance sends as fast as it can meanwhile" \
	within 300 1000000 mbits vm2 peer 10.0.0.1
gn_check "a file of its own arrives whole" eval 'gn_file 4; gn_copy vm1 peer 10.0.0.1'
gn_check "removed while it waits" gn_ghostnic instance del vm1
gn_check "added again" gn_ghostnic instance add "vm1,mac=$GN_MAC1,port=tap:vm1,rate=64k"
gn_stop "$LIMITED"
gn_vm 1 1500
# A super-packet left over from the stream takes up to 8 s at that rate.
gn_check "the slowest rate lets pings through" gn_wait 40 gn_ping peer 10.0.0.11

# ---- other addresses ----
# At a rate at which what the stream left behind is not in the way for long.
gn_must gn_ghostnic instance del vm1
gn_must gn_ghostnic instance add "vm1,mac=$GN_MAC1,port=tap:vm1,rate=100M"
gn_vm 1 1500
gn_check "a foreign address is not let out" gn_not sees peer p0 "ether src $FOREIGN" spoof vm1 vm1 $FOREIGN
gn_check "it is counted" gn_wait 20 above 0 gn_port_count vm1 tx_spoofed
gn_check "nor is it let to another instance" gn_not sees vm2 vm2 "ether src $FOREIGN" spoof vm1 vm1 $FOREIGN
gn_must gn_exec vm1 ip link set dev vm1 address $GN_MAC1
gn_check "a VLAN that it was not given is not, either" gn_not sees peer p0 "ether src $GN_MAC1 and vlan 7" tagged vm1 vm1
gn_check "one that may spoof does: address" sees peer p0 "ether src $FOREIGN" spoof vm2 vm2 $FOREIGN
gn_check "and to an instance" sees vm1 vm1 "ether src $FOREIGN" spoof vm2 vm2 $FOREIGN
gn_must gn_exec vm2 ip link set dev vm2 address $GN_MAC2
gn_check "and VLAN" sees peer p0 "ether src $GN_MAC2 and vlan 7" tagged vm2 vm2
gn_check "that is not counted" test "$(gn_port_count vm2 tx_spoofed)" = 0
gn_world_end
