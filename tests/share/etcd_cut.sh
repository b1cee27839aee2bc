#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Owners that run, and cannot renew their lease in etcd: etcd is down for longer than it, or they
# are cut off from it, alone (n1, whom importers reach all the time) or from everybody (n4).
# Within a lease and a second they and their importers end with SIGBUS and -EIO, and read no
# other than the right value until then; another node takes the name, with another address; healed,
# they serve and get nothing of the old region.

# shellcheck disable=SC2317,SC2329 # functions called through a name
# shellcheck source=tests/share/lib.sh
. "$(dirname "$0")/lib.sh"

GRACE=700 # ms: what this script itself may take
ms() { echo $((${EPOCHREALTIME/./} / 1000)); }

share_net 4
# etcd is behind a bridge of its own.
gn_must gn_exec sw ip link add br1 type bridge
gn_must gn_exec sw ip link set br1 up
gn_must gn_exec sw ip addr add 10.8.0.9/24 dev br1
for i in 1 2 3 4; do
	gn_veth "n$i" eth1 sw "e$i"
	gn_must gn_exec sw ip link set "e$i" master br1
	gn_must gn_exec "n$i" ip addr add "10.8.0.$i/24" dev eth1
done
# Unplugged without a sign of it: no carrier is lost, packets are.
unplug() { gn_must gn_exec sw ip link set "$1" nomaster; }
plug() { gn_must gn_exec sw ip link set "$1" master "br$2"; }

URL=http://10.8.0.9:2379
# answers NAME WANTED COMMAND... - "ok BUS" of a command tried until it is so; sets BUS
answers()
{
	local got
	got=$(ask "$1" "${@:3}")
	BUS=${got#ok }
	# shellcheck disable=SC2053 # a pattern, on purpose
	[[ $got == $2 ]]
}

# ends CASE FROM-MS VALUE NAME COMMAND... - gives VALUE, and -EIO a lease and a second after FROM-MS
ends()
{
	local got took
	while got=$(ask "${@:4}"); do
		took=$(($(ms) - $2))
		[ "$got" = "$3" ] || break
		[ $took -le $((SHARE_LEASE + 1000 + GRACE)) ] || break
		sleep 0.05
	done
	in_time "$1" "$got" $took "error EIO"
}
in_time()
{
	if [ "$2" = "$4" ] && [ "$3" -le $((SHARE_LEASE + 1000 + GRACE)) ]; then
		gn_ok "$1"
	else
		gn_fail "$1" "'$2' after $3 ms, not '$4' within $((SHARE_LEASE + 1000))"
	fi
	gn_note "$1: $3 ms"
}

# blocked CASE FROM-MS NAME - what NAME was told ends with SIGBUS, in time
blocked()
{
	local got
	got=$(hear "$3")
	in_time "$1" "$got" $(($(ms) - $2)) sigbus
}

# over CASE NAME ERROR - nothing of the old region is to be had
over()
{
	expect "$1: a page it read" sigbus "$2" load 0
	expect "$1: a page it wrote" sigbus "$2" load 4096
	expect "$1: another one" sigbus "$2" load 65536
	expect "$1: a store" sigbus "$2" store 4096 5
	expect "$1: get" "error $3" "$2" get 0
	expect "$1: put" "error $3" "$2" put 0 5
	expect "$1: fetch_add" "error $3" "$2" add 0 5
}

# share REGION OWNER IMPORTER... - applications named REGION.NODE: 42 in all words, each has a page
# it read and the last one page 1 to write, with 43
share()
{
	local region=$1 owner=$2 i
	shift 2
	for i in "$owner" "$@"; do
		share_app "$i" "$region.$i"
		[ "$i" != "$owner" ] || gn_wait 10 answers "$region.$i" "ok *" export "$region" 1048576 secret ||
			gn_die "region $region is not exported"
		[ "$i" != "$owner" ] || expect "$region: owner fills" ok "$region.$i" fill 0 1048576 42
		[ "$i" = "$owner" ] || expect "$region: n$i imports" "ok $BUS" "$region.$i" import "$region" secret
		expect "$region: n$i reads" 42 "$region.$i" load 0
	done
	expect "$region: n$i has a page to write" ok "$region.$i" store 4096 43
}

etcd_start
for i in 1 2 3 4; do share_agent "$i" --directory "etcd:$URL/cut"; done

# etcd is down for longer than the lease: nobody knows who owns what.
share down 1 2
gn_stop "$ETCD" KILL
from=$(ms)
ends "etcd down: get" "$from" 42 down.2 get 8
ends "etcd down: owner's get" "$from" 42 down.1 get 8
over "etcd down: n2" down.2 EIO
over "etcd down: owner" down.1 EIO
expect "etcd down: event at n2" 1 down.2 event
expect "etcd down: event at n1" 1 down.1 event
etcd_start
over "etcd back: n2" down.2 EIO
share down2 1 2

share mem 1 2
MEM=$BUS
share far 4 2
FAR=$BUS
unplug e1
unplug e4
unplug p4
from=$(ms)
tell far.2 load 131072
ends "n1 cut off from etcd: get" "$from" 42 mem.2 get 8
ends "n1 cut off from etcd: owner's get" "$from" 42 mem.1 get 8
blocked "n4 cut off from all: a load that waits" "$from" far.2
ends "n4 cut off from all: owner's get" "$from" 42 far.4 get 8
over "cut off from etcd: n2" mem.2 EIO
over "cut off from etcd: owner" mem.1 EIO
over "cut off from all: n2" far.2 EIO
over "cut off from all: owner" far.4 EIO
for i in mem.1 mem.2 far.4 far.2; do expect "event at $i" 1 $i event; done

# n3 takes their names.
share_app 3 mem.3
share_app 3 far.3
for i in mem far; do
	gn_check "n3 takes the name $i" gn_wait 15 answers $i.3 "ok *" export $i 1048576 other
	case $BUS in
	"$MEM" | "$FAR") gn_fail "$i: another address" "$BUS" ;;
	esac
	expect "$i: n3 fills" ok $i.3 fill 0 1048576 99
	share_app 2 new.$i
	expect "$i: n2 imports from n3" "ok $BUS" new.$i import $i other
	expect "$i: and loads" 99 new.$i load 0
done
over "taken over: n2" mem.2 EIO
over "taken over: owner cut off from etcd" mem.1 EIO
over "taken over: owner cut off from all" far.4 EIO

plug e1 1
plug e4 1
plug p4 0
# refuses NODE BUS - its agent serves nothing at the old address
refuses()
{
	gn_exec n2 timeout 20 "$GN_BIN/tests/share/hostile" "tcp:10.7.0.$1:7400" "$2" secret none |
		grep -qx 'E[A-Z]* open'
}
lives() { answers "$1" "error EEXIST" export "$2" 4096 secret; }
for i in "1 mem $MEM" "4 far $FAR"; do
	read -r n name bus <<<"$i"
	share_app "$n" "late.$n"
	gn_check "healed: n$n hears that $name is another's" gn_wait 15 lives "late.$n" "$name"
	gn_check "healed: n$n refuses the old address" gn_wait 15 refuses "$n" "$bus"
	expect "healed: n$n imports it from n3" "ok *" "late.$n" import "$name" other
	expect "healed: n$n loads n3's value" 99 "late.$n" load 0
	over "healed: n$n" "$name.$n" EIO
	over "healed: n2, $name" "$name.2" EIO
	gn_check "n$n has said it" grep -q "region $name: the lease has ended" "$GN_TMP/pid.log"
	expect "n3 has its bytes" 99 "$name.3" load 4096
done
exit $GN_FAILED
