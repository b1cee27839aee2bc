#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# /test of tests/migrate/kvm-flat.sh, in a guest that has KVM.

export GN_BIN=/build
# shellcheck source=tests/netns/lib.sh
. /tests/netns/lib.sh
# shellcheck source=tests/migrate/cli-lib.sh
. /tests/migrate/cli-lib.sh

MB=16
# gn_spawn sets these, and PLAY.
RUN_a='' RECV_b='' SEND=''

stage() { gn_note "$(cut -d' ' -f1 /proc/uptime) s: $1"; }

# flat NAME CPUS WORKLOAD ARG... - a source
flat()
{
	local name=$1 cpus=$2 work=$3
	shift 3
	gn_spawn "RUN_$name" "$VMM" run --json -a kvm -m ${MB}M -n "$cpus" -w "$work" -c "$name" "$@"
	gn_wait 10 state "$name" running
}

# arrives NAME ARG... - a receiver
arrives()
{
	local name=$1
	shift
	gn_spawn "RECV_$name" "$VMM" recv --json -l "unix:$GN_TMP/$name.in" -c "$name" "$@"
	gn_wait 10 state "$name" incoming
}

# each NAME - has every CPU written?
each() { says "$1" '"guest":' && [[ ! $STATUS =~ \"writes\":0[^0-9] ]]; }

# intact NAME - it is paused: no write was lost, none is made
intact()
{
	local n answer
	"$VMM" pause -c "$1" && state "$1" paused || return 1
	n=$(writes "$1")
	[[ ! $STATUS =~ \"errors\":[1-9] ]] || return 1
	answer=$(echo '{"cmd":"check"}' | socat -t 20 - "UNIX:$1")
	echo "$answer"
	number pages "$answer"
	[[ $answer == *'"ok":true'*'"bad":0'* ]] && [ "$N" -gt 3000 ] && [ "$(writes "$1")" = "$n" ]
}

# goes_on NAME - it runs, and all its CPUs write
goes_on() { state "$1" running && gn_wait 20 grows "$1" "$(writes "$1")"; }

# slow NAME ARG... - a migration to b that takes a while; on return it is under way
slow()
{
	rm -f SEND.log
	gn_spawn SEND "$VMM" send -j -c "$1" -t "unix:$GN_TMP/b.in" --bandwidth 512K
	gn_wait 30 says "$1" '"phase":"rounds"'
}

# sent CODE RESULT - how that ended
sent()
{
	gn_wait 30 gn_gone "$SEND" || return 1
	wait "$SEND"
	[ $? = "$1" ] && tail -n 1 SEND.log | grep "\"result\":\"$2\""
}

ended() { gives 0 '"how":"ended"' "$VMM" run --json -a kvm -m 16M -n 2 -w stop=500; }
gn_check "one that ends by itself ends its VM" ended

stage "vCPUs"
vcpus() { "$GN_BIN/tests/migrate/guest/vcpus" "$1"; }
gn_check "a guest is told that it was stopped" vcpus stopped
gn_check "one vCPU has ended, then it moves, then the other ends" vcpus half
gn_check "a stop between two exits of an instruction loses neither" vcpus two-exits
gn_check "a throttled vCPU wakes in time, whatever the clock says" vcpus nap

stage "four vCPUs"
gn_must flat a 4 rate=4000,fill=35%,set=20%
gn_check "four vCPUs write" gn_wait 20 each a
gn_check "paused, nothing is written, and nothing is wrong" intact a
"$VMM" resume -c a
gn_check "resumed" goes_on a

stage "undone"
cancelled()
{
	slow a && "$VMM" cancel -c a && sent 4 cancelled && goes_on a &&
		gn_wait 20 state b incoming
}
torn()
{
	slow a || return 1
	kill -KILL "$RECV_b"
	wait "$RECV_b"
	sent 1 failed && goes_on a
}
# A destination that received all and is of another opinion.
refused()
{
	gn_spawn PLAY "$GN_BIN/tests/migrate/test_ends" play "unix:$GN_TMP/play.in" 2 # PLAY_WRONG_DIGEST
	gn_wait 10 test -S play.in || return 1
	gives 1 'digest' "$VMM" send -j -c a -t "unix:$GN_TMP/play.in" --streams 1 && cat out &&
		number last_pages "$(tail -n 1 out)" && goes_on a
}
gn_must arrives b
gn_check "cancelled: it runs on" cancelled
gn_check "the destination is killed: it runs on" torn
gn_check "it fails after the vCPUs were stopped: they run on" refused
gn_check "nothing was lost by all that" intact a
"$VMM" resume -c a

stage "there, by the bitmap, throttled"
# moves FROM TO ARG... - and what it took is in $LAST
moves()
{
	local from=$1 to=$2
	shift 2
	timeout 100 "$VMM" send -j -c "$from" -t "unix:$GN_TMP/$to.in" "$@" >send.json
	LAST=$(tail -n 1 send.json)
	echo "$LAST"
	[[ $LAST == *'"audit_bad_pages":0,'*'"result":"done"'* ]] && gn_wait 20 goes_on "$to"
}
throttled()
{
	# More than 4 MiB in the first round, or the line counts as not measured yet.
	moves a b --bandwidth 2M --downtime-ms 400 && number throttle_percent "$LAST" && [ "$N" -gt 0 ]
}
figures()
{
	gn_note "$(jq -r '"\(.round) rounds, \(.elapsed_ms) ms, throttled by \(.throttle_percent) %, downtime \(.downtime_us / 1000 | floor) ms, \(.sent_pages) pages, dirty \(.dirty_pages_cpu), digest \(.digest)"' <<<"$LAST")"
}
gn_must arrives b
gn_check "it is throttled, and moves" throttled
figures
gn_check "the source has ended" status_of "$RUN_a"
gn_check "nothing was lost" intact b
gn_check "four vCPUs go on" each b

gn_check "quit" quit b "$RECV_b"
stage "done"
