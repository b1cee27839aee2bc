#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Broadcast and multicast reach the host and every instance of their VLAN, and no other: vm1
# and vm4 are in VLAN 11, vm2 in VLAN 20, vm3 in none. Frames are written as they are to be on
# the wire, and read as they came.
#
# That something did not arrive is seen without waiting for it: all frames take one path, in
# order. Who has got a frame of the second round has got all that was to come of the first.

# shellcheck source=tests/netns/lib.sh
. "$(dirname "$0")/lib.sh"

BROADCAST='\xff\xff\xff\xff\xff\xff'
MULTICAST='\x01\x00\x5e\x01\x02\x03'
MULTICAST6='\x33\x33\x00\x01\x02\x03'
TYPE='\x88\xb5'		# for experiments, IEEE 802
MAC=02:00:00:00:00:1	# and the instance's number

# bytes MAC - as printf takes them
bytes() { echo "\\x${1//:/\\x}"; }

# frame NS IF DESTINATION SOURCE TAG TEXT
frame()
{
	printf "$3$4$5$TYPE%-60s" "$6" | gn_exec "$1" socat -u - "INTERFACE:$2"
}

# listen NS IF - all it gets into a file, tags where they were
listen()
{
	gn_spawn "LISTEN_$1" gn_exec "$1" tcpdump -i "$2" -Q in -Z root --immediate-mode \
		-U -w "$GN_TMP/got.$1"
	gn_wait 10 grep -q 'listening on' "$GN_TMP/LISTEN_$1.log" || gn_die "no listener in $1"
}

has() { grep -qaF -- "$2" "$GN_TMP/got.$1"; }

# got NS TEXT... - these, and of all texts no other
got()
{
	local ns=$1 t rc=0
	shift
	for t in eleven twenty none; do
		case " $* " in
		*" $t "*) has "$ns" "$KIND-$t-1" || { echo "$ns lacks $t"; rc=1; } ;;
		*) ! has "$ns" "$KIND-$t-" || { echo "$ns has $t"; rc=1; } ;;
		esac
	done
	return $rc
}

# untagged NS - what it got has its type behind its addresses
untagged() { ! LC_ALL=C grep -qaP '\x81\x00\x00' "$GN_TMP/got.$1"; }

# second NS... - each has got what is its own of the second round
second()
{
	has vm1 "$KIND-eleven-2" && has vm4 "$KIND-eleven-2" && has vm2 "$KIND-twenty-2" &&
		has vm3 "$KIND-none-2" && has host "$KIND-eleven-2" && has host "$KIND-twenty-2" &&
		has host "$KIND-none-2"
}

# from_wire KIND DESTINATION
from_wire()
{
	local round src
	KIND=$1
	src=$(bytes "$(gn_mac peer p0)")
	for round in 1 2; do
		frame peer p0 "$2" "$src" '\x81\x00\x00\x0b' "$KIND-eleven-$round"
		frame peer p0 "$2" "$src" '\x81\x00\x00\x14' "$KIND-twenty-$round"
		frame peer p0 "$2" "$src" '' "$KIND-none-$round"
	done
	gn_check "$1: all that is to arrive arrives" gn_wait 10 second
	gn_check "$1: VLAN 11 to its first instance only" got vm1 eleven
	gn_check "$1: VLAN 11 to its second instance" got vm4 eleven
	gn_check "$1: VLAN 20 to its instance only" got vm2 twenty
	gn_check "$1: no VLAN to the instance without" got vm3 none
	gn_check "$1: everything to the host" got host eleven twenty none
}

second_wire()
{
	has vm4 "$KIND-eleven-2" && has peer "$KIND-eleven-2" && has peer "$KIND-twenty-2" &&
		has peer "$KIND-none-2"
}

# from_instances KIND DESTINATION - vm1, vm2 and vm3 send; vm4 is the only neighbour
from_instances()
{
	local round
	KIND=$1
	for round in 1 2; do
		frame vm2 vm2 "$2" "$(bytes ${MAC}2)" '' "$KIND-twenty-$round"
		frame vm3 vm3 "$2" "$(bytes ${MAC}3)" '' "$KIND-none-$round"
		frame vm1 vm1 "$2" "$(bytes ${MAC}1)" '' "$KIND-eleven-$round"
	done
	gn_check "$1: all that is to arrive arrives" gn_wait 10 second_wire
	gn_check "$1: to the neighbour in the VLAN only" got vm4 eleven
	gn_check "$1: everything to the wire" got peer eleven twenty none
	gn_check "$1: with the tag of VLAN 11" \
		env LC_ALL=C grep -qaP "\\x81\\x00\\x00\\x0b\\x88\\xb5$KIND-eleven" "$GN_TMP/got.peer"
	gn_check "$1: with the tag of VLAN 20" \
		env LC_ALL=C grep -qaP "\\x81\\x00\\x00\\x14\\x88\\xb5$KIND-twenty" "$GN_TMP/got.peer"
}

gn_world 1500
gn_ns vm3 vm4
vlan=([1]=",vlan=11" [2]=",vlan=20" [3]="" [4]=",vlan=11")
specs=()
for n in 1 2 3 4; do
	specs+=(--instance "vm$n,mac=$MAC$n${vlan[n]},port=tap:vm$n")
done
gn_must gn_daemon host --iface h0 "${specs[@]}"
for n in 1 2 3 4; do
	gn_wait 5 gn_exec host ip link show dev vm$n || gn_die "no TAP vm$n"
	gn_must gn_exec host ip link set dev vm$n netns /run/netns/vm$n
	gn_must gn_exec vm$n ip link set dev vm$n address $MAC$n up
	listen vm$n vm$n
done
listen host h0
listen peer p0
from_wire broadcast "$BROADCAST"
from_wire multicast "$MULTICAST"
from_wire multicast6 "$MULTICAST6"
gn_check "instances get them without tags" eval 'untagged vm1 && untagged vm2'
from_instances out-broadcast "$BROADCAST"
from_instances out-multicast "$MULTICAST"
gn_world_end
gn_ns_del vm3 vm4
