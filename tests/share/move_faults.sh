#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# A move that fails, at each point where it can: what was before stays as it was, or, once the
# directory has changed, the new owner has all of it. Never two owners, never old bytes.

# shellcheck disable=SC2317,SC2329,SC2086 # functions called through a name; numbers
# Longer than this script keeps the directory from everybody.
export SHARE_LEASE=6000
FILL_AT=33554432
FILL_BYTES=33554432
# shellcheck source=tests/share/move-lib.sh
. "$(dirname "$0")/move-lib.sh"

again() { move 1 2; ended; }
is_owner() # CASE WANTED
{
	if owned "$2"; then gn_ok "$1"; else gn_fail "$1" "$(owner), not $2"; fi
}

fresh "to dies while it copies"
gn_must kill -STOP "${AGENT[2]}"
move 1 2
gn_must gn_wait 15 phase connect
kill_agent 2
gn_check "the move fails" gn_not ended
is_owner "n1 is the owner still" "n1 1"
# What n2 had to write is lost with it; the rest is whole.
expect "n3 loads what n1 stored" 11 3 load 4096
expect "n1 stores" ok 1 store 131072 5
expect "n3 sees it" 5 3 load 131072
expect "n3 adds" 0 3 add 65536 1

fresh "to dies before the directory changes"
to_commit
kill_agent 2
dir_give
gn_check "the move ends" gn_wait 20 gn_gone $MOVE
gn_check "n1 has n3's page" had 13
# By then the directory may have changed: then n2 was an owner that died.
if owned "n1 1" || owned "n1 2"; then
	expect "n3 loads what n1 stored" 11 3 load 4096
else
	expect "n3: the owner is gone" "sigbus" 3 load 40960
fi

fresh "from dies before the directory changes"
to_commit
kill_agent 1
dir_give
is_owner "n1 was the owner" "n1 1"
expect "a load at n3 ends" sigbus 3 load 40960
expect "and at n2" sigbus 2 load 40960
gn_check "n2 has given up" gn_wait 20 grep -q "does not come here" "$GN_TMP/pid.log"
is_owner "n2 has not taken it" "n1 1"

fresh "from dies when the directory has changed and nobody knows"
to_commit
gn_must gn_exec sw ip link set p1 down
dir_give
gn_must gn_wait 15 owned "n2 2"
kill_agent 1
whole "n2 serves" 2 3
is_owner "n2 is the owner" "n2 2"
gn_must gn_exec sw ip link set p1 up

# gone CASE - n1 has handed over and left; n2 cannot read the directory, so it does not know. A thread
# there waits for n1, which has passed it on
gone()
{
	fresh "$1"
	to_still
	tell 2 load $((FILL_AT + 32768))
	gn_must gn_wait 15 above 1 requests_held 0
	from_still
	gn_must kill -STOP "${AGENT[2]}"
	dir_give
	gn_must gn_wait 15 owned "n2 2"
	# In place, of which nobody is told.
	cp "$GN_TMP/dir.json" "$GN_TMP/dir.json.kept"
	: >"$GN_TMP/dir.json"
	gn_must kill -CONT "${AGENT[2]}"
	gn_check "n1 waits no longer for n2" gn_wait 15 above 1 moves_out 0
	# What n1 had said by then n2 has heard before this.
	gn_check "n2 is not the owner yet" [ "$(counter 2 moves_in)" = 0 ]
}
gone "from is gone before to knows that it is the owner"
gn_must mv "$GN_TMP/dir.json.kept" "$GN_TMP/dir.json"
if [ "$(hear 2)" = 3 ]; then gn_ok "a load that waited is done"; else gn_fail "a load that waited" "is not"; fi
gn_check "n1 has n3's page" had 13
gn_check "moved" ended
whole "n2 serves" 2 1 3

gone "from is gone, and the directory knows nothing of it"
echo '{"regions": {}}' >"$GN_TMP/dir.json"
asks_anew()
{
	gn_exec n2 "$GN_BIN/ghostmem" stat -j -a "$GN_TMP/n2.sock" | jq -e '.imports[0].connected | not'
}
gn_check "n2 does not wait at n1 for what that does not have" gn_wait 15 asks_anew

fresh "to dies when it is the owner"
move 1 2
gn_check "moved" ended
kill_agent 2
expect "n3: owner gone" sigbus 3 load 40960
expect "n1: owner gone" sigbus 1 load 40960
expect "event at n1: moved" 2 1 event
expect "event at n1: owner gone" 1 1 event

fresh "an importer is cut off meanwhile"
gn_must gn_exec sw ip link set p3 down
move 1 2
gn_check "moved" ended
gn_must gn_exec sw ip link set p3 up
whole "it finds the new owner" 3 1 2

fresh "it comes back while an importer is cut off" 4096
back() { GHOSTMEM_KEY=secret gn_exec n2 "$GN_BIN/ghostmem" move -a "$GN_TMP/n2.sock" mem --to n1; }
expect "n2 adds" 0 2 add 20480 5
gn_must gn_exec sw ip link set p3 down
move 1 2
gn_check "moved" ended
gn_check "and back" back
expect "n2 adds by the connection it had" 5 2 add 20480 7
is_owner "n1 is the owner again" "n1 3"
# n3 has a copy of this page to read: it is asked for that first.
tell 1 store 4096 99
gn_must gn_exec sw ip link set p3 up
if [ "$(hear 1)" = ok ]; then gn_ok "a store at n1 waited for n3"; else gn_fail "a store at n1" "is not done"; fi
expect "n3 sees it" 99 3 load 4096
expect "n1 loads what n3 had stored" 13 1 load 12288
expect "n3 stores" ok 3 store 12288 14
# By this n1 knows that n3 has got the page it wrote to; else the move waits for that.
expect "n3 loads another page" 0 3 load 36864
gn_must gn_exec sw ip link set p3 down
gn_check "moved once more" again
tell 1 store 4096 100
if [ "$(hear 1)" = ok ]; then gn_ok "a store once n3's lease is over"; else gn_fail "a store at n1" "is not done"; fi
gn_must gn_exec sw ip link set p3 up
expect "n3 has no old bytes" sigbus 3 load 4096
expect "n2 has the new ones" 100 2 load 4096

# What n1 sends to n2 goes through a proxy, so slowly that the copy is not over before it is cut.
# (A socat whose children are killed stops listening at times: it goes with them.)
proxy()
{
	gn_spawn PROXY gn_exec n2 socat TCP-LISTEN:7401,fork,reuseaddr TCP:10.7.0.2:7400
	gn_must gn_wait 15 gn_listening n2 7401
}
proxy
fresh "the connection is lost while it copies" 33554432 --advertise tcp:10.7.0.2:7401
gn_must gn_exec sw tc qdisc add dev p2 root tbf rate 50mbit burst 64k latency 50ms
move 1 2
gn_must gn_wait 20 above 2 move_pages_in 3000
# shellcheck disable=SC2154 # set by gn_spawn
read -ra lost <"/proc/$PROXY/task/$PROXY/children"
gn_stop "$PROXY" KILL
gn_must kill -KILL "${lost[@]}"
proxy
gn_must gn_exec sw tc qdisc del dev p2 root
gn_check "it ends well" ended
# Not from its beginning.
pages=$(counter 2 move_pages_in)
if [ "$pages" -lt 11000 ]; then gn_ok "it went on with the rest"; else gn_fail "it went on" "$pages pages"; fi
whole "moved" 1 2 3
gn_stop $PROXY

fresh "cancelled"
gn_must kill -STOP "${AGENT[2]}"
move 1 2
gn_must gn_wait 15 phase connect
kill $MOVE
gn_check "it ends" gn_wait 15 gn_gone $MOVE
gn_must kill -CONT "${AGENT[2]}"
cancelled() { [ "$(counter 1 moves_failed)" = 1 ]; }
gn_check "n1 knows" gn_wait 15 cancelled
whole "as before" 1 2 3
move 1 2
gn_check "and it can be moved" ended
whole "moved" 1 2 3
is_owner "n2 is the owner" "n2 2"

fresh "the directory does not answer"
to_commit
tell 3 store 262144 9
# Longer than n1 waits for an answer: it does not know then what became of its change.
unsure() { grep -q "does it have the move" "$GN_TMP/pid.log"; }
gn_check "n1 does not know" gn_wait 15 unsure
dir_give
gn_check "n1 stays the owner, with another epoch" gn_wait 15 owned "n1 2"
gn_check "the move has failed" gn_not ended
gn_check "n1 has n3's page" had 13
if [ "$(hear 3)" = ok ]; then gn_ok "a store that waited is done"; else gn_fail "a store that waited" "is not"; fi
expect "n1 sees it" 9 1 load 262144
whole "all go on" 1 2 3

fresh "from revokes it meanwhile"
gn_must kill -STOP "${AGENT[2]}"
move 1 2
gn_must gn_wait 15 phase connect
gn_must gn_exec n1 "$GN_BIN/ghostmem" revoke -a "$GN_TMP/n1.sock" mem
gn_check "the move fails" gn_not ended
gn_must kill -CONT "${AGENT[2]}"
expect "n3: no region" sigbus 3 load 40960
exit $GN_FAILED
