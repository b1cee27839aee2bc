#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Agents are killed and started again, RESTARTS (6) times each, under applications on three
# nodes that load, store, get and swap: first an importer's, then the owner's, then by turns.
# No application sees an error, and what they did is what a sequential memory would do. (Many
# kills, at any time: kills.sh.)

# shellcheck disable=SC2317,SC2329,SC2086 # functions called through a name; numbers
SHARE_LEASE=3000
# shellcheck source=tests/share/lib.sh
. "$(dirname "$0")/lib.sh"

RESTARTS=${RESTARTS:-6}
T=$GN_BIN/tests/share
STOP=$GN_TMP/enough

stat_of() { gn_exec "n$1" "$GN_BIN/ghostmem" stat -j -a "$GN_TMP/n$1.sock" 2>/dev/null; }
known() { gn_exec n1 "$GN_BIN/ghostmem" ls -a "$GN_TMP/n1.sock" | grep -q "^$1 "; }

# back I REGION - the agent of node I serves it, and everybody is connected
back()
{
	if [ "$1" = 1 ]; then
		[ "$(stat_of 1 | jq '[.home[] | select(.name == "'"$2"'") | .importers[] |
			select(.connected)] | length')" = 2 ]
	else
		[ "$(stat_of "$1" | jq '[.imports[] | select(.name == "'"$2"'" and .connected and
			(.dead | not))] | length')" = 1 ]
	fi
}

begun() { [ "$(cat "$GN_TMP"/history.?.log | grep -c "^begun")" = 3 ]; }

# run NAME NODE... - histories, while the agents of NODEs are restarted in turn
run()
{
	local name=$1 i pid pids=() rc=0 n=0 node
	shift
	GHOSTMEM_KEY=secret gn_spawn pid gn_exec n1 "$GN_BIN/ghostmem" export \
		-a "$GN_TMP/n1.sock" "$name" 1M
	gn_must gn_wait 5 known "$name"
	rm -f "$STOP"
	for i in 1 2 3; do
		HISTORY_STOP=$STOP gn_exec n$i "$T/history" run "$GN_TMP/n$i.sock" "$name" \
			secret $i 2000000 "$GN_TMP/history.$i" \
			>"$GN_TMP/history.$i.log" 2>&1 &
		pids+=($!)
	done
	gn_must gn_wait 10 begun
	gn_must gn_wait 10 back 1 "$name"
	while [ $n -lt "$RESTARTS" ]; do
		for node; do
			gn_stop "${AGENT[$node]}" KILL
			share_agent $node
			gn_wait 5 back $node "$name" || { rc=1; break 2; }
		done
		n=$((n + 1))
	done
	: >"$STOP"
	for pid in "${pids[@]}"; do wait "$pid" || rc=1; done
	cat "$GN_TMP"/history.?.log
	[ $rc = 0 ] && "$T/history" check "$GN_TMP"/history.[123]
	rc=$?
	rm -f "$GN_TMP"/history.*
	return $rc
}

share_net 3
for i in 1 2 3; do share_agent $i; done
gn_check "importer's agent restarted $RESTARTS times" run importer 2
gn_check "owner's agent restarted $RESTARTS times" run owner 1
RESTARTS=$(((RESTARTS + 3) / 4))
gn_check "both in turn" run both 1 2

# An exporter whose agent has gone does not wait for another one, for a lease of one minute.
gn_stop "${AGENT[3]}"
SHARE_LEASE=60000
share_agent 3
GHOSTMEM_KEY=secret gn_spawn pid gn_exec n3 "$GN_BIN/ghostmem" export -a "$GN_TMP/n3.sock" last 1M
gn_must gn_wait 5 known last
gn_stop "${AGENT[3]}" KILL
gn_must kill -TERM "$pid"
gn_check "an exporter ends after its agent" gn_wait 30 gn_gone "$pid"
exit $GN_FAILED
