# shellcheck shell=bash
# SPDX-License-Identifier: BSD-2-Clause
#
# A region of three nodes that moves, stopped where a test wants it. A script sets
#
#	SHARE_LEASE	milliseconds
#	FILL_AT		where what makes the copy long begins, 32 KiB or more
#	FILL_BYTES	how much of it fresh() fills when it is not told
#
# and sources this.

# shellcheck disable=SC2317,SC2329,SC2086 # functions called through a name; numbers
# shellcheck source=tests/share/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# move FROM TO - in the background
move()
{
	# Not what the move before said: the one in the background may open it later.
	: >"$GN_TMP/move.out"
	GHOSTMEM_KEY=secret GN_REPLACE=1 gn_exec "n$1" "$GN_BIN/ghostmem" move -j \
		-a "$GN_TMP/n$1.sock" mem --to "n$2" >"$GN_TMP/move.out" 2>&1 &
	MOVE=$!
	GN_PIDS+=($!)
}
ended() { wait $MOVE; }
phase() { grep -q "\"phase\":\"$1\"" "$GN_TMP/move.out"; }
owner() { jq -r '.regions.mem | "\(.node) \(.epoch)"' "$GN_TMP/dir.json"; }
owned() { [ "$(owner)" = "$1" ]; }
kill_agent() { gn_stop "${AGENT[$1]}" KILL; }
counter() { gn_exec "n$1" "$GN_BIN/ghostmem" stat -j -a "$GN_TMP/n$1.sock" | jq ".counters.$2"; }
above() { [ "$(counter $1 $2)" -gt $3 ]; }

# dir_take, dir_give - nobody changes the directory between them
dir_take() { exec {LOCK}<>"$GN_TMP/dir.json.lock" && flock $LOCK; }
dir_give() { exec {LOCK}>&-; }

# had WORD - what n1 asked for meanwhile has come
had() { [ "$(hear 1)" = "$1" ]; }

# to_commit - n2 has all of it, and n1 is about to tell the directory, which does not answer: n3
# is slow to give back a page, for which n1 then waits (had 13), so there is time to take the
# directory away. In two steps: to_still, from_still
to_still()
{
	gn_must kill -STOP "${AGENT[3]}"
	tell 1 load 12288
	move 1 2
	gn_must gn_wait 15 phase switch
}
from_still()
{
	dir_take
	gn_must kill -CONT "${AGENT[3]}"
	gn_must gn_wait 15 phase commit
}
to_commit()
{
	to_still
	from_still
}

# fresh CASE [BYTES [ARGS-OF-N2...]] - three nodes; the region is n1's, page i is held to write by
# node i, page 1 by n3 to read, and BYTES from FILL_AT on are filled
fresh()
{
	local i
	for i in 1 2 3; do
		[ -z "${AGENT[$i]-}" ] || kill_agent $i
		[ -z "${APP[$i]-}" ] || gn_stop "${APP[$i]}" KILL
		rm -f "$GN_TMP/$i.in" "$GN_TMP/$i.out" "$GN_TMP/n$i.sock"
	done
	rm -f "$GN_TMP/dir.json" "$GN_TMP/dir.json.nodes"
	: >"$GN_TMP/pid.log"
	for i in 1 2 3; do
		if [ $i = 2 ]; then share_agent 2 "${@:3}"; else share_agent $i; fi
		share_app $i
	done
	expect "-- $1: n1 exports" "ok 4294967296" 1 export mem 67108864 secret
	expect "fills" ok 1 fill $FILL_AT ${2:-$FILL_BYTES} 3
	expect "n2 imports" "ok 4294967296" 2 import mem secret
	expect "n3 imports" "ok 4294967296" 3 import mem secret
	for i in 1 2 3; do expect "n$i stores" ok $i store $((i * 4096)) 1$i; done
	expect "n3 reads" 11 3 load 4096
	N=0
}

# whole CASE [NODES...] - they, or all, see what was stored, and can store
whole()
{
	local i j case=$1
	shift
	[ $# != 0 ] || set -- 1 2 3
	for i in "$@"; do
		for j in 1 2 3; do expect "$case: n$i loads" 1$j $i load $((j * 4096)); done
		expect "$case: n$i reads what was filled" 3 $i load $((FILL_AT + 32768))
		expect "$case: n$i adds" $N $i add 16384 1
		N=$((N + 1))
		expect "$case: n$i stores" ok $i store 20480 $N
	done
	for i in "$@"; do expect "$case: n$i sees the last store" $N $i load 20480; done
}

share_net 3
