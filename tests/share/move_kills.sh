#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Moves and restarts of agents at once: a region goes round three nodes, under histories and
# increments, while agents of the old owner, the new one and an importer are killed at random
# and started again, MOVE_KILLS (20) times. A move may fail then, nothing else may. And who was
# cut off while the region went away and came back has no old pages. SEED repeats the choices.
# SHARE_TLS: psk or x509, between the nodes; GHOSTMEM_UFFD=6.1: as on Linux 6.1.

# shellcheck disable=SC2317,SC2329,SC2086 # functions called through a name; numbers
# Programs wait for agents that come back within a lease: all of them are given the time.
SHARE_LEASE=20000
TOGETHER=5 # s, after which it is made sure that all are connected
# shellcheck source=tests/share/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/share/history-lib.sh
. "$(dirname "$0")/history-lib.sh"

KILLS=${MOVE_KILLS:-20}
SEED=${SEED:-$((RANDOM << 15 | RANDOM))}
RANDOM=$SEED
gn_note "SEED=$SEED"

owner() { jq -r ".regions[\"$1\"].node" "$GN_TMP/dir.json"; }
# together - every node serves it, or is connected to who does
together()
{
	local i
	for i in 1 2 3; do
		gn_exec n$i timeout 5 "$GN_BIN/ghostmem" stat -j -a "$GN_TMP/n$i.sock" |
			jq -e '(.home + (.imports | map(select(.connected)))) |
				any(.name == "history")' >"$GN_TMP/together" || return 1
	done
}
# move FROM TO NAME
move()
{
	GHOSTMEM_KEY=secret gn_exec "n$1" timeout 20 "$GN_BIN/ghostmem" move -j \
		-a "$GN_TMP/n$1.sock" "$3" --to "n$2" >>"$GN_TMP/move.out" 2>&1
}

# mover - move it on, whoever has it, until the test ends
mover()
{
	local at to n=0 failed=0
	while [ ! -e "$GN_TMP/end" ]; do
		at=$(owner history)
		at=${at#n}
		to=$(((at + RANDOM % 2) % 3 + 1))
		if move $at $to history; then
			n=$((n + 1))
			: >"$GN_TMP/moved"
		else
			failed=$((failed + 1))
			sleep 0.05
		fi
	done
	echo "$n $failed" >"$GN_TMP/moves"
}

share_secure
share_net 3
for i in 1 2 3; do share_agent $i; done
export HISTORY_SEED=$SEED
history_begin
mover &
mover=$!
since=$SECONDS
for ((n = 0; n < KILLS; n++)); do
	sleep "0.$(printf %03d $((RANDOM % 250)))"
	i=$((RANDOM % 3 + 1))
	gn_stop "${AGENT[$i]}" KILL
	share_agent $i
	[ $((SECONDS - since)) -ge $TOGETHER ] || continue
	gn_wait 20 together || gn_note "n1 to n3 are not together again"
	since=$SECONDS
done
# If every one so far met a kill: the next does not.
gn_check "it has moved" gn_wait 60 test -e "$GN_TMP/moved"
history_end "moves and kills"
wait $mover
read -r moves failed <"$GN_TMP/moves"
gn_note "$KILLS kills, $moves moves, $failed that failed"
exit $GN_FAILED
