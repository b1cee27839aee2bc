#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Importers that give pages back to an owner that stands still, during a move, and cannot take
# them: because their applications end, because their agent does, or because they say again what
# may have got lost. Nobody else has those bytes, and they are not to get lost.

# shellcheck disable=SC2317,SC2329,SC2086 # functions called through a name; numbers
export SHARE_LEASE=40000
FILL_AT=32768
FILL_BYTES=131072
# shellcheck source=tests/share/move-lib.sh
. "$(dirname "$0")/move-lib.sh"

heard() # CASE WORD - from hostile.c
{
	local line
	read -r -t 20 line <&"$FROM" || line="no answer"
	if [ "$line" = "$2" ]; then gn_ok "$1"; else gn_fail "$1" "'$line', not '$2'"; fi
}

# still - n2 has all of it and does not say so: n3 is slow to give back a page, for which n1 then
# waits, so there is time to stop n2
still()
{
	gn_must kill -STOP "${AGENT[3]}"
	tell 1 load 12288
	move 1 2
	gn_must gn_wait 15 phase switch
	gn_must kill -STOP "${AGENT[2]}"
	gn_must kill -CONT "${AGENT[3]}"
	gn_check "n1 stands still" had 13
	HELD=$(counter 1 requests_held)
}
go_on()
{
	gn_must kill -CONT "${AGENT[2]}"
	gn_check "moved" ended
}

fresh "an importer's applications end"
expect "n3 stores" ok 3 store 262144 77
mkfifo "$GN_TMP/to" "$GN_TMP/from"
gn_exec n3 "$GN_BIN/tests/share/hostile" tcp:10.7.0.1:7400 4294967296 secret writer \
	<"$GN_TMP/to" >"$GN_TMP/from" &
GN_PIDS+=($!)
exec {TO}>"$GN_TMP/to" {FROM}<"$GN_TMP/from"
heard "another has two pages to write" ok
heard "and n1 knows that it has them" "done"
still
gn_must gn_stop "${APP[3]}"
gn_check "n1 puts n3 off" gn_wait 15 above 1 requests_held $HELD
echo >&$TO
heard "what the other says again is not done" undone
heard "what it gives back it may keep" EAGAIN
go_on
expect "n1 loads what n3 had stored last" 77 1 load 262144
echo >&$TO
heard "said again after the move: not done" undone
heard "but told where to" EREMCHG

fresh "an importer's agent ends"
expect "n3 stores" ok 3 store 262144 77
still
gn_stop "${AGENT[3]}"
gn_check "n1 had put n3 off" above 1 requests_held $HELD
share_agent 3
go_on
expect "n1 loads what n3 had stored last" 77 1 load 262144
expect "n3 stores" ok 3 store 262152 78
expect "n1 sees it" 78 1 load 262152
whole "all go on"
exit $GN_FAILED
