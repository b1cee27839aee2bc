#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# KILLS (300) random kills of agents, owners' and importers', one to three at a time, also in
# the middle of taking over from the one before, while litmus tests run on a region of node 2
# and a random history and increments on one of node 1. Nothing forbidden is seen, no program
# has an error, no increment is lost or done twice.
# SEED repeats the choice of agents, moments and operations, as far as the machine allows.

# shellcheck disable=SC2317,SC2329,SC2086 # functions called through a name; numbers
# Only who stays away for long loses what it held.
SHARE_LEASE=6000
# shellcheck source=tests/share/lib.sh
. "$(dirname "$0")/lib.sh"

KILLS=${KILLS:-300}
SEED=${SEED:-$((RANDOM << 15 | RANDOM))}
T=$GN_BIN/tests/share
STOP=$GN_TMP/enough
declare -A THREADS=([SB]=2 [MP]=2 [LB]=2 [IRIW]=4 [CoRR]=3 [2+2W]=2)
RANDOM=$SEED
gn_note "SEED=$SEED"

known() { gn_exec n1 "$GN_BIN/ghostmem" ls -a "$GN_TMP/n1.sock" | grep -q "^$1 "; }

# region NODE NAME
region()
{
	local pid
	GHOSTMEM_KEY=secret gn_spawn pid gn_exec "n$1" "$GN_BIN/ghostmem" export \
		-a "$GN_TMP/n$1.sock" "$2" 1M
	gn_must gn_wait 5 known "$2"
}

# settled NODE... - their agents have everything again: windows, importers, owners
settled()
{
	local i
	for i; do
		gn_exec n$i "$GN_BIN/ghostmem" stat -j -a "$GN_TMP/n$i.sock" 2>/dev/null
	done | jq -se --argjson n $# 'length == $n and
		([.[].home[] | .importers[] | select(.connected | not)] | length) == 0 and
		([.[].imports[] | select((.connected | not) or .dead)] | length) == 0' >/dev/null
}

# begun N PROGRAM - N of them say so
begun() { [ "$(cat "$GN_TMP/$2".?.log | grep -c "^begun")" = "$1" ]; }

# pause - up to 63 ms, so that kills fall anywhere
pause() { sleep "0.0$(printf %02d $((RANDOM % 64)))"; }

# kill_some N - N kills of agents
kill_some()
{
	local n=$1 i pid set again=0
	while [ $n -gt 0 ]; do
		pause
		set=$((RANDOM % 7 + 1))
		for i in 1 2 3; do
			[ $((set >> (i - 1) & 1)) = 1 ] || continue
			kill -KILL "${AGENT[$i]}"
			n=$((n - 1))
			killed=$((killed + 1))
		done
		for i in 1 2 3; do
			[ $((set >> (i - 1) & 1)) = 1 ] || continue
			wait "${AGENT[$i]}" 2>/dev/null
			gn_spawn pid share_agent_exec $i
			AGENT[$i]=$pid
		done
		# Most kills come before the one before is settled.
		[ $((RANDOM % 8)) != 0 ] && [ $again -lt 8 ] && again=$((again + 1)) && continue
		again=0
		gn_wait 10 settled 1 2 3 || return 1
	done
	gn_wait 10 settled 1 2 3
}

# litmus TEST - while agents are killed. Each of its threads is on a node of its own, but IRIW's
# last: on one node stores are as late as the processor has them, which SB would see.
litmus()
{
	local t node pid pids=() rc=0 first=$RANDOM log=$GN_TMP/litmus.$1
	rm -f "$STOP"
	for ((t = 0; t < THREADS[$1]; t++)); do
		node=$(((t + first) % 3 + 1))
		LITMUS_STOP=$STOP gn_exec n$node nice "$T/litmus" "$GN_TMP/n$node.sock" litmus secret \
			"$1" $t 1000000000 >"$log.$t.log" 2>&1 &
		pids+=($!)
	done
	gn_wait 10 begun ${#pids[@]} litmus.$1 || gn_note "they do not begin"
	kill_some $(((KILLS + 5) / 6)) || { rc=1; gn_note "agents do not come back"; }
	: >"$STOP"
	for pid in "${pids[@]}"; do wait "$pid" || rc=1; done
	sed 's/^/# /' "$log".?.log
	[ $rc = 0 ] && grep -qE 'runs [1-9][0-9]* forbidden 0 ' "$log.0.log"
}

share_net 3
for i in 1 2 3; do share_agent $i; done
region 1 history
region 2 litmus
pids=()
for i in 1 2 3; do
	HISTORY_SEED=$SEED HISTORY_STOP=$GN_TMP/end gn_exec n$i nice "$T/history" run \
		"$GN_TMP/n$i.sock" history secret $i 4000000 "$GN_TMP/history.$i" \
		>"$GN_TMP/history.$i.log" 2>&1 &
	pids+=($!)
done
gn_must gn_wait 10 begun 3 history
for i in 1 2 3; do
	gn_exec n$i nice "$T/adds" run "$GN_TMP/n$i.sock" history secret 65536 "$GN_TMP/end" \
		>"$GN_TMP/adds.$i.log" 2>&1 &
	pids+=($!)
done
gn_must gn_wait 10 begun 3 adds
killed=0
for test in SB MP LB IRIW CoRR 2+2W; do
	if litmus $test; then
		gn_ok "$test while agents are killed"
	else
		gn_fail "$test" "forbidden outcome or an error, see above; SEED=$SEED"
		exit 1
	fi
done
: >"$GN_TMP/end"
rc=0
for pid in "${pids[@]}"; do wait "$pid" || rc=1; done
sed 's/^/# /' "$GN_TMP"/{history,adds}.?.log
gn_check "no program has an error" [ $rc = 0 ]
gn_check "$killed agents killed: the history is what a sequential memory does" \
	"$T/history" check "$GN_TMP"/history.[123]
total() { cat "$GN_TMP"/adds.?.log | awk '/^[0-9]/ { n += $1 } END { print n }'; }
gn_check "no increment is lost or done twice" gn_exec n3 "$T/adds" check "$GN_TMP/n3.sock" \
	history secret 65536 "$(total)"
sed 's/^/# /' "$GN_TMP/check.out"
exit $GN_FAILED
