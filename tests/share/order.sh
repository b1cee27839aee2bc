#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Memory order over three nodes: litmus tests, LITMUS_RUNS (10^6) runs each, and random
# histories of HISTORY_OPS (20000) operations a node checked against a sequential memory. With
# LITMUS_PAGE=2M litmus tests alone, on such pages.

# shellcheck disable=SC2317,SC2329,SC2086 # functions called through a name; numbers
# shellcheck source=tests/share/lib.sh
. "$(dirname "$0")/lib.sh"

LITMUS_RUNS=${LITMUS_RUNS:-1000000}
HISTORY_OPS=${HISTORY_OPS:-20000}
T=$GN_BIN/tests/share
LITMUS_PAGE=${LITMUS_PAGE:-4K}
SIZE=1M
[ $LITMUS_PAGE = 4K ] || SIZE=20M
declare -A THREADS=([SB]=2 [MP]=2 [LB]=2 [IRIW]=4 [CoRR]=3 [2+2W]=2)

share_net 3
for i in 1 2 3; do share_agent $i; done

# region NAME SIZE - exported by node 1 until the test ends, or $EXPORTER
region()
{
	GHOSTMEM_KEY=secret gn_spawn EXPORTER gn_exec n1 "$GN_BIN/ghostmem" export \
		-a "$GN_TMP/n1.sock" --page-size $LITMUS_PAGE "$1" "$2"
	gn_must gn_wait 5 known "$1"
}
known() { gn_exec n1 "$GN_BIN/ghostmem" ls -a "$GN_TMP/n1.sock" | grep -q "^$1 "; }

# litmus TEST FIRST-NODE - its threads on the nodes from FIRST-NODE on; once more, ten times at
# most, if none of the runs had its threads at the same time
litmus()
{
	local try
	for try in {1..10}; do
		litmus_once "$1" "$2" "litmus-$2-$try" && return
		grep -q 'forbidden 0 mixed 0$' "$GN_TMP/litmus" || return
	done
	return 1
}
litmus_once() # TEST FIRST-NODE REGION
{
	local t node pid pids=() rc=0
	region "$3" $SIZE
	for ((t = 0; t < THREADS[$1]; t++)); do
		node=$((($2 + t - 1) % 3 + 1))
		gn_exec n$node "$T/litmus" "$GN_TMP/n$node.sock" "$3" secret "$1" $t \
			"$LITMUS_RUNS" >"$GN_TMP/litmus.$t" 2>&1 &
		pids+=($!)
	done
	for pid in "${pids[@]}"; do wait "$pid" || rc=1; done
	# Its memory is for the next one.
	gn_stop "$EXPORTER"
	sed 's/^/# /' "$GN_TMP"/litmus.?
	mv "$GN_TMP/litmus.0" "$GN_TMP/litmus"
	rm -f "$GN_TMP"/litmus.?
	[ $rc = 0 ] && grep -qE 'forbidden 0 mixed [1-9]' "$GN_TMP/litmus"
}

first=1
for test in SB MP LB IRIW CoRR 2+2W; do
	if litmus $test $first; then
		gn_ok "$test"
	else
		gn_fail "$test" "forbidden outcome, no overlap, or an error: see above"
	fi
	first=$((first + 1))
done
[ $LITMUS_PAGE = 4K ] || exit $GN_FAILED

history()
{
	local i pids=() pid
	for i in 1 2 3; do
		gn_exec n$i "$T/history" run "$GN_TMP/n$i.sock" history secret $i \
			"$HISTORY_OPS" "$GN_TMP/history.$i" &
		pids+=($!)
	done
	for pid in "${pids[@]}"; do wait "$pid" || return; done
	"$T/history" check "$GN_TMP"/history.[123]
}
region history 64K
gn_check "history of $((3 * HISTORY_OPS)) operations" history
# The check can fail: a value nobody wrote.
spoil()
{
	printf '\xff' | dd of="$GN_TMP/history.1" bs=1 seek=16 conv=notrunc status=none
	"$T/history" check "$GN_TMP"/history.[123]
}
gn_check "a spoilt history is found" gn_not spoil
exit $GN_FAILED
