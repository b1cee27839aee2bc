#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# An owner that was stopped for longer than its lease finds requests that have waited for it. It
# answers none of them as the owner, whatever it looks at first when it goes on.

# shellcheck disable=SC2317,SC2329 # functions called through a name
SHARE_LEASE=500
# shellcheck source=tests/share/lib.sh
. "$(dirname "$0")/lib.sh"

ROUNDS=3
CLIENTS=4	# one of them is likely to be first, before the timer
boot_ms() { awk '{ printf "%d", $1 * 1000 }' /proc/uptime; }
past() { [ "$(boot_ms)" -gt "$1" ]; }
exported() { [[ $(ask 1 export "$1" 1048576 secret) == ok* ]]; }
busy() { gn_exec n1 "$GN_BIN/ghostmem" stat -j -a "$GN_TMP/n1.sock" | jq -e ".counters.gets > $1" >/dev/null; }

share_net 2
share_agent 1
share_app 1
round=0
tries=0
while [ $round -lt $ROUNDS ] && [ $tries -lt 20 ]; do
	tries=$((tries + 1))
	gn_wait 10 exported "r$tries" || gn_die "region r$tries is not exported"
	bus=$(gn_exec n1 "$GN_BIN/ghostmem" ls -j -a "$GN_TMP/n1.sock" |
		jq -r "[.. | objects | select(.name? == \"r$tries\") | .bus][0]")
	gets=$(gn_exec n1 "$GN_BIN/ghostmem" stat -j -a "$GN_TMP/n1.sock" | jq .counters.gets)
	pids=()
	for i in $(seq $CLIENTS); do
		gn_exec n2 timeout 30 "$GN_BIN/tests/share/hostile" tcp:10.7.0.1:7400 "$bus" secret \
			patient "$SHARE_LEASE" >"$GN_TMP/patient.$i" 2>&1 &
		pids+=($!)
	done
	gn_wait 5 busy $((gets + 8 * CLIENTS)) || gn_note "round $tries: it is slow"
	gn_must kill -STOP "${AGENT[1]}"
	gn_wait 10 past $(($(boot_ms) + SHARE_LEASE + 20)) || gn_die "time stands still"
	gn_must kill -CONT "${AGENT[1]}"
	for pid in "${pids[@]}"; do wait "$pid"; done
	got=$(sort "$GN_TMP"/patient.* | uniq -c | tr -s ' \n' ' ')
	gn_note "round $tries:$got"
	# On a very busy machine the lease may have ended before.
	case $got in
	*late*) gn_fail "nothing is answered after the lease" "$got"; break ;;
	*ESTALE* | *ECONN* | *ERANGE*) round=$((round + 1)) ;;
	esac
done
[ $round = $ROUNDS ] && gn_ok "nothing is answered after the lease, in $ROUNDS rounds"
[ $round = $ROUNDS ] || gn_fail "$ROUNDS rounds" "$round in $tries"
exit $GN_FAILED
