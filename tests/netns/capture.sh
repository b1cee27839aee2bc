#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# ghostnic capture: of an instance behind a TAP and of one behind a shared-memory port,
# super-packets and packets, both directions, cut and counted, to a file and to a pipe. The
# judge of the files is tcpdump, which also sums the payload of every packet.

# shellcheck source=tests/netns/lib.sh
. "$(dirname "$0")/lib.sh"

PEER=$GN_BIN/tests/netns/shm_peer
SOCK=$GN_TMP/vm1.port

log_says() { grep -q -- "$1" "$GN_TMP/GN_DAEMON.log"; }
above() { [ "$("${@:2}")" -gt "$1" ]; }

# capture FILE ARGS... - in the background, running when this returns
capture()
{
	local file=$1
	shift
	rm -f "$file"
	gn_spawn CAPTURE gn_ghostnic capture -w "$file" "$@"
	gn_wait 5 log_says "capture of .* by pid $CAPTURE\"" || gn_die "no capture: $*"
}

# captured - end it; it must say that it worked
captured()
{
	kill -INT "$CAPTURE"
	gn_wait 5 gn_gone "$CAPTURE" || return 1
	wait "$CAPTURE"
}

# show FILE [FILTER...] - a line per packet
show()
{
	local file=$1
	shift
	tcpdump -nn -r "$file" "$@" 2>/dev/null
}

# longest FILE - bytes of the longest packet, Ethernet header included
longest()
{
	tcpdump -e -nn -r "$1" 2>/dev/null | sed -nE 's/.*, length ([0-9]+): .*/\1/p' |
		sort -n | tail -n 1
}

# payload FILE ADDRESS - TCP bytes sent from there, retransmissions apart
payload()
{
	show "$1" "tcp and src host $2" | sed -nE 's/.* seq ([0-9]+):([0-9]+),.*/\1 \2/p' |
		awk '!seen[$0]++ { if ($2 > end) { n += $2 - ($1 > end ? $1 : end); end = $2 } }
			END { print n + 0 }'
}

all_there()
{
	local want got
	want=$(stat -c %s "$GN_TMP/file")
	got=$(payload "$1" "$2")
	echo "$got of $want bytes"
	[ "$got" = "$want" ]
}

# Every packet's IP and TCP checksum, by tcpdump, which says so for each.
sums_right()
{
	local good
	tcpdump -nn -vv -r "$1" tcp >"$GN_TMP/dump" 2>/dev/null
	good=$(grep -c '(correct)' "$GN_TMP/dump")
	echo "$good right"
	[ "$good" -gt 1000 ] && ! grep -m 3 -E 'incorrect|bad cksum|truncated' "$GN_TMP/dump"
}

# instances ARGS... - the daemon: vm1 behind shared memory, vm2 behind a TAP
instances()
{
	gn_must gn_daemon host --iface h0 --instance "vm1,mac=$GN_MAC1,port=shm:$SOCK" \
		--instance "vm2,mac=$GN_MAC2,port=tap:vm2" "$@"
	gn_vm 2 1500
	: >"$GN_TMP/CLIENT.log"
	gn_spawn CLIENT gn_exec vm1 "$PEER" "$SOCK" tap vm1
	gn_wait 5 grep -q ready "$GN_TMP/CLIENT.log" || gn_die "no client on $SOCK"
	gn_must gn_exec vm1 ip link set dev vm1 address "$GN_MAC1" mtu 1500 up
	gn_addr vm1 vm1 11
}

gn_file 8
gn_world 1500
instances

# both VM ADDRESS PORT - an instance, whatever its port is
both()
{
	local vm=$1 addr=$2 f=$GN_TMP/$1.pcapng
	capture "$f" --instance "$vm"
	gn_check "$3: a file in, captured" gn_copy peer "$vm" "$addr"
	gn_check "$3: a ping, captured" gn_ping peer "$addr"
	gn_check "$3: the capture ends well" captured
	gn_check "$3: the file's every byte was captured" all_there "$f" 10.0.0.1
	gn_check "$3: in super-packets" test "$(longest "$f")" -gt 3000
	gn_check "$3: pings and their answers" test "$(show "$f" icmp | wc -l)" = 6
	gn_check "$3: what it sent, too" test "$(show "$f" "src host $addr and tcp" | wc -l)" -gt 10
	gn_check "$3: the file is its owner's" test "$(stat -c %a "$f")" = 600

	capture "$f" --instance "$vm" --segments
	gn_check "$3: a file in, cut into packets" gn_copy peer "$vm" "$addr"
	gn_check "$3: a file out, cut into packets" gn_copy "$vm" peer 10.0.0.1
	gn_check "$3: that capture ends well" captured
	gn_check "$3: packets fit the wire" test "$(longest "$f")" -le 1514
	gn_check "$3: every checksum is right" sums_right "$f"
}
both vm2 10.0.0.12 tap
both vm1 10.0.0.11 shm

# ---- options, ends, mistakes ----
capture "$GN_TMP/c.pcapng" --instance vm2 -c 4 -s 60
gn_check "a ping" gn_ping peer 10.0.0.12
gn_check "it ends by itself after so many" gn_wait 5 gn_gone "$CAPTURE"
gn_check "so many packets it has" test "$(show "$GN_TMP/c.pcapng" | wc -l)" = 4
gn_check "and says so" grep -q '^4 packets captured, 0 lost' "$GN_TMP/CAPTURE.log"
gn_check "cut to the snap length, the length kept" test \
	"$(tcpdump -e -nn -r "$GN_TMP/c.pcapng" icmp 2>/dev/null | grep -c 'length 98')" -gt 0
to_pipe()
{
	"$GN_BIN/ghostnic" capture --instance vm2 -c 2 -w - >"$GN_TMP/pipe" &
	local p=$!
	gn_wait 5 log_says "capture of vm2 by pid $p\"" || return 1
	gn_ping peer 10.0.0.12
	wait $p && [ "$(tcpdump -nn -r - <"$GN_TMP/pipe" 2>/dev/null | wc -l)" = 2 ]
}
gn_check "to standard output" to_pipe
# pure - with -w - and -j, what goes wrong is said on standard error alone
pure()
{
	local rc
	"$GN_BIN/ghostnic" capture -j --instance vm9 -w - >"$GN_TMP/pipe" 2>"$GN_TMP/err"
	rc=$?
	[ $rc = 1 ] && [ ! -s "$GN_TMP/pipe" ] && grep -q '^ghostnic: no instance vm9' "$GN_TMP/err"
}
gn_check "standard output has packets only" pure

# ---- a reader that takes nothing: the pipe is full, and the capture waits for it ----
# stalled - a capture to a FIFO that is open, and more than fits into it
stalled()
{
	gn_spawn CAPTURE gn_ghostnic capture -w "$GN_TMP/fifo" --instance vm2
	gn_wait 5 log_says "capture of vm2 by pid $CAPTURE\"" || return 1
	gn_copy peer vm2 10.0.0.12
}
as_said()
{
	tcpdump -nn -r "$1" >"$GN_TMP/dump" &&
		grep "^$(wc -l <"$GN_TMP/dump") packets captured" "$GN_TMP/CAPTURE.log"
}
gn_must mkfifo "$GN_TMP/fifo"
exec 7<>"$GN_TMP/fifo"
gn_check "a reader that stalls" stalled
kill -TERM "$CAPTURE"
gn_check "a signal ends its capture all the same" gn_wait 5 gn_gone "$CAPTURE"
wait "$CAPTURE"
gn_check "which fails" test $? = 1
gn_check "and says why" grep -q 'fifo: the file has no end: its reader takes nothing' "$GN_TMP/CAPTURE.log"
gn_must dd <&7 of=/dev/null bs=64k count=1 status=none
gn_check "a reader that stalls again" stalled
gn_spawn READER sh -c "exec 7>&-; exec cat '$GN_TMP/fifo' >'$GN_TMP/c.pcapng'"
gn_must gn_wait 5 test -s "$GN_TMP/c.pcapng"
gn_check "and goes on has a whole file" captured
exec 7>&-
gn_wait 5 gn_gone "$READER" || gn_die "the reader of the FIFO reads on"
gn_check "of as many packets as are said" as_said "$GN_TMP/c.pcapng"
gn_check "an unknown instance is refused" gn_not gn_ghostnic capture --instance vm9 -w /dev/null
gn_check "no file, no capture" gn_not gn_ghostnic capture --instance vm2
capture "$GN_TMP/c.pcapng" --instance vm2
gn_check "a second capture is refused" gn_not gn_ghostnic capture --instance vm2 -w /dev/null
FIRST=$CAPTURE
capture "$GN_TMP/d.pcapng" --instance vm1
gn_check "one of another instance is not" captured
CAPTURE=$FIRST
kill -KILL "$CAPTURE"
gn_check "a killed capture's end is noticed" gn_wait 5 log_says "capture of vm2 by pid $CAPTURE ends"
capture "$GN_TMP/c.pcapng" --instance vm2
gn_must gn_ghostnic instance del vm2
gn_wait 5 gn_gone "$CAPTURE" || gn_fail "a removed instance ends its capture" "it runs on"
wait "$CAPTURE"
gn_check "a removed instance ends its capture, which fails" test $? = 1
gn_check "and leaves a whole file" tcpdump -nn -r "$GN_TMP/c.pcapng"
gn_stop "$CLIENT"
gn_world_end

# ---- two queues, which the client and the capture have each ----
# by_queue N - packets that came by it
by_queue() { gn_ghostnic stats -j | jq ".interfaces[0].queues[] | select(.queue == $1) | .agg.packets"; }

# flows VM ADDRESS - eight of them, again if all are on one queue: their hashes say which
flows()
{
	rm -f "$GN_TMP/iperf.json"
	gn_iperf peer "$1" "$2" -n 8M -P 8 && above 100 by_queue 0 && above 100 by_queue 1
}

# ports FILE - of how many ports of the peer does it have data?
ports() { show "$1" 'src host 10.0.0.1 and tcp dst port 5201' | awk '{ print $3 }' | sort -u | wc -l; }

GN_QUEUES=2 gn_world 1500
instances --queues 2
for vm in vm1 vm2; do
	addr=10.0.0.1${vm#vm}
	gn_check "two queues, $vm: a file in" gn_wait 10 gn_copy peer $vm "$addr"
	gn_check "two queues, $vm: a file out" gn_copy $vm peer 10.0.0.1
	gn_server $vm
	capture "$GN_TMP/$vm.pcapng" --instance $vm -s 100
	gn_check "two queues, $vm: several flows, by both" gn_wait 20 flows $vm "$addr"
	gn_check "two queues, $vm: the capture ends well" captured
	gn_check "two queues, $vm: every flow was captured" above 8 ports "$GN_TMP/$vm.pcapng"
	gn_check "two queues, $vm: nothing refused" test "$(gn_count tx_bad)" = 0
done
gn_stop "$CLIENT"
gn_world_end
