#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# A slow owner is no dead one: its agent is stopped again and again, each time for less than its
# lease. What needs it meanwhile waits and is then right; what does not goes on; nobody has an
# error, or reads zero or old bytes. SLOW_PULSES (30) of them under load.

# shellcheck disable=SC2317,SC2329,SC2086 # functions called through a name; numbers
# The longest stop and what passes between two signs of life are little more than half of it.
SHARE_LEASE=8000
# shellcheck source=tests/share/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/share/history-lib.sh
. "$(dirname "$0")/history-lib.sh"

PULSES=${SLOW_PULSES:-30}

# slow CASE WANTED NAME COMMAND... - answered so, and only when the owner goes on
slow()
{
	local line=
	gn_must kill -STOP "${AGENT[1]}"
	tell "${@:3}"
	IFS= read -r -t "${STOPPED:-0.2}" line <&"${APP_OUT[$3]}"
	gn_must kill -CONT "${AGENT[1]}"
	if [ -n "$line" ]; then
		gn_fail "$1: waits for the owner" "'$line' while that was stopped"
		return
	fi
	line=$(hear "$3")
	if [ "$line" = "$2" ]; then
		gn_ok "$1"
	else
		gn_fail "$1" "$3: '${*:4}' gave '$line', not '$2'"
	fi
}

share_net 3
for i in 1 2 3; do
	share_agent $i
	share_app $i
done
expect "owner exports" "ok *" 1 export mem 1048576 secret
expect "owner fills" ok 1 fill 0 1048576 7
for i in 2 3; do expect "n$i imports" "ok *" $i import mem secret; done

slow "a load" 7 2 load 0
slow "a store" ok 2 store 4096 8
expect "owner sees it" 8 1 load 4096
expect "and takes it back" ok 1 store 4096 13
slow "a load of what it took back" 13 2 load 4096
slow "a store to a page that is here to read" ok 2 store 0 9
slow "another node's load of that" 9 3 load 0
slow "a get" 9 3 get 0
slow "a put" 0 3 put 0 10
slow "a load of what was put" 10 2 load 0
slow "fetch_add" 10 3 add 0 5
slow "a scan" $((8192 * 7)) 3 sum 524288 65536
STOPPED=2.5 slow "a load, for a third of a lease" 7 2 load 786432
expect "n2 has a page to write" ok 2 store 8192 11
gn_must kill -STOP "${AGENT[1]}"
expect "the owner is slow: what n2 has to write goes on" ok 2 store 8192 12
expect "the owner is slow: and to read" 12 2 load 8192
gn_must kill -CONT "${AGENT[1]}"
expect "owner sees that" 12 1 load 8192

# All at once, against a sequential model.
history_begin
for ((n = 0; n < PULSES; n++)); do
	gn_must kill -STOP "${AGENT[1]}"
	sleep "0.$(printf %03d $((RANDOM % 200)))"
	gn_must kill -CONT "${AGENT[1]}"
	sleep "0.0$(printf %02d $((RANDOM % 50)))"
done
# spared NODE - nobody was taken for dead there
spared()
{
	gn_exec "n$1" "$GN_BIN/ghostmem" stat -j -a "$GN_TMP/n$1.sock" |
		jq -e '.counters | .owners_lost + .slots_dead + .pages_lost + .poisoned == 0'
}
for i in 1 2 3; do gn_check "n$i: no owner, importer or page was lost" spared $i; done
history_end "$PULSES stops"

# Who ends while it waits has changed nothing, and takes nothing with it.
counter() { gn_exec "n$1" "$GN_BIN/ghostmem" stat -j -a "$GN_TMP/n$1.sock" | jq ".counters.$2"; }
above() { [ "$(counter $1 $2)" -gt $3 ]; }
hasty() { [ "$(gn_exec n3 "$GN_BIN/tests/share/hostile" tcp:10.7.0.1:7400 4294967296 secret hasty)" = ok ]; }
gn_check "an importer ends before its page to write comes" hasty
expect "n3 loads that page" 15 3 load 0
# Its answer says that what n2 gave away has come.
expect "n2 loads a page" 7 2 load 131072
faults=$(counter 2 faults)
gn_must kill -STOP "${AGENT[1]}"
tell 2 store 65536 99
gn_check "n2 wants another to write" gn_wait 5 above 2 faults $faults
gn_must gn_stop "${APP[2]}" KILL
# By its answer it knows that nobody waits any more.
counter 2 faults >/dev/null
gn_must kill -CONT "${AGENT[1]}"
expect "n3 loads it" 7 3 load 65536

# The same while another importer is slow to give that page up: it ends when it has an answer.
importers() { gn_exec n1 "$GN_BIN/ghostmem" stat -j -a "$GN_TMP/n1.sock" |
	jq -r "[.home[] | select(.name | test(\"^$1\$\")) | .importers[].node] | sort | join(\" \")"; }
left() { [ "$(importers $1)" = "$2" ]; }
share_app 2 third
expect "n2 imports" "ok *" third import mem secret
faults=$(counter 2 faults)
gn_must kill -STOP "${AGENT[3]}"
tell third store 65536 99
gn_check "n2 wants that page to write" gn_wait 5 above 2 faults $faults
gn_must gn_stop "${APP[third]}" KILL
counter 2 faults >/dev/null
gn_check "it does not end yet" left mem "n2 n3"
gn_must kill -CONT "${AGENT[3]}"
gn_check "now it does" gn_wait 5 left mem n3
expect "n3 loads the page" 7 3 load 65536

# Who ends holds up nobody, though the owner of all that it has written is slow.
expect "n3 exports" "ok *" 3 export other 1048576 secret
expect "n3 stores" ok 3 store 0 21
share_app 2 one
share_app 2 many
expect "n2 imports that" "ok *" one import other secret
for ((n = 0; n < 10; n++)); do
	expect "n1 exports" "ok *" 1 export "r$n" 4096 secret
	expect "n2 stores" "ok *" many hold "r$n" secret
done
gn_must kill -STOP "${AGENT[1]}"
gn_must gn_stop "${APP[many]}" KILL
expect "n2 loads what n3 has" 21 one load 0
gn_check "n2 has lost nobody" [ "$(counter 2 owners_lost)" = 0 ]
gn_must kill -CONT "${AGENT[1]}"
gn_check "n2 leaves n1's" gn_wait 5 left 'r.' ""
for ((n = 0; n < 10; n++)); do
	expect "n1 has what was stored" "ok *" 1 import "r$n" secret
	expect "all of it" 7 1 load 0
done
exit $GN_FAILED
