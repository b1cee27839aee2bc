#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Agents that are killed while a region moves, each at a point of the move that is made sure
# of, and started again: programs wait for them, and go on with what was there.

# shellcheck disable=SC2317,SC2329,SC2086 # functions called through a name; numbers
# Nothing here waits for a lease to end; a region stands still for half of one at most.
export SHARE_LEASE=20000
FILL_AT=32768
FILL_BYTES=131072
# shellcheck source=tests/share/move-lib.sh
. "$(dirname "$0")/move-lib.sh"

# What the region waits for to stand still is with an agent that has to come back.
fresh "an importer is killed, and the region waits for its page"
kill_agent 3
tell 1 load 12288
move 1 2
gn_must gn_wait 15 phase switch
share_agent 3
gn_check "it moves" ended
gn_check "n2 is the owner" owned "n2 2"
gn_check "n1 has n3's page" had 13
whole "moved"

# What n1 has granted is on its way to n3's agent, which will not get it: the link is cut
# between the request and the answer.
fresh "an importer is killed before it gets what was granted"
granted=$(counter 1 grants_write)
faults=$(counter 3 faults)
gn_must kill -STOP "${AGENT[1]}"
tell 3 store 32768 22
gn_must gn_wait 15 above 3 faults "$faults"
gn_must gn_exec sw ip link set p3 down
gn_must kill -CONT "${AGENT[1]}"
gn_must gn_wait 15 above 1 grants_write "$granted"
move 1 2
gn_must gn_wait 15 phase switch
kill_agent 3
gn_must gn_exec sw ip link set p3 up
share_agent 3
gn_check "it moves" ended
if [ "$(hear 3)" = ok ]; then gn_ok "the store is done"; else gn_fail "the store" "is not done"; fi
expect "n1 sees it" 22 1 load 32768
expect "and what is beside it" 3 1 load 32776
whole "moved"

# n3 has given a page back, and n1's agent died before it read that; the next one knows of no
# question to n3, and moves the region before n3 is back.
fresh "from is killed before it gets what an importer gave, and moves without it"
asked=$(counter 1 inv_out)
came=$(counter 3 inv_in)
gn_must kill -STOP "${AGENT[3]}"
GHOSTMEM_KEY=secret GN_REPLACE=1 gn_exec n2 "$GN_BIN/ghostmem" get -a "$GN_TMP/n2.sock" mem 12288 8 \
	>"$GN_TMP/get.log" 2>&1 &
get=$!
GN_PIDS+=("$get")
gn_must gn_wait 15 above 1 inv_out "$asked"
gn_must kill -STOP "${AGENT[1]}"
gn_must kill -CONT "${AGENT[3]}"
gn_must gn_wait 15 above 3 inv_in "$came"
gn_must gn_exec sw ip link set p3 down
gn_stop $get KILL
kill_agent 1
share_agent 1
again() { move 1 2; ended; }
gn_check "it moves" gn_wait 10 again
gn_must gn_exec sw ip link set p3 up
whole "n2 serves"

# Its windows are not back when the move begins: a new import would have none of them.
fresh "to is killed, and its application is late"
gn_must kill -STOP "${APP[2]}"
kill_agent 2
share_agent 2
move 1 2
gn_must gn_wait 15 above 1 moves_put_off 2
gn_check "the move waits for it" owned "n1 1"
gn_must kill -CONT "${APP[2]}"
gn_check "it moves" ended
gn_check "n2 is the owner" owned "n2 2"
whole "moved"

# Its first renewal has failed, and the next one is seconds away.
fresh "to is new, and has no lease of its own yet"
kill_agent 2
dir_take
# It must not have the lock with the rest of what is open here.
eval "share_agent 2 $LOCK>&-"
gn_must gn_wait 10 grep -q "renewal: Connection timed out" "$GN_TMP/pid.log"
dir_give
move 1 2
gn_check "it moves" ended
whole "n2 serves"

fresh "from is killed before the directory has it"
to_commit
kill_agent 1
dir_give
share_agent 1
gn_check "n1 has n3's page" had 13
whole "as before"
gn_check "n1 is the owner" owned "n1 2"
move 1 2
gn_check "it moves" ended
whole "moved"

fresh "from is killed when the directory has it, and nobody knows"
to_commit
gn_must gn_exec sw ip link set p1 down
dir_give
gn_must gn_wait 15 owned "n2 2"
kill_agent 1
gn_must gn_exec sw ip link set p1 up
share_agent 1
gn_check "n1 has n3's page" had 13
whole "n2 serves"
gn_check "n2 is the owner" owned "n2 2"
move 2 1
gn_check "it moves back" ended
whole "n1 serves"

fresh "from is killed then, and comes back when the region has moved on"
to_commit
gn_must gn_exec sw ip link set p1 down
dir_give
gn_must gn_wait 15 owned "n2 2"
kill_agent 1
gn_must gn_exec sw ip link set p1 up
moved_on() { move 2 3; ended; }
gn_check "n2 moves it on" gn_wait 10 moved_on
share_agent 1
gn_check "n1 has n3's page" had 13
whole "n3 serves"
gn_check "n3 is the owner" owned "n3 3"

fresh "to is killed when the directory has it, and it does not know"
to_commit
gn_must kill -STOP "${AGENT[2]}"
dir_give
gn_must gn_wait 15 owned "n2 2"
kill_agent 2
share_agent 2
gn_check "n1 has n3's page" had 13
whole "n2 serves"
gn_check "n2 is the owner" owned "n2 3"

# What becomes of it depends on whether n1 still gets an answer in time.
fresh "to is killed when nobody knows what the directory will have"
to_commit
gn_must kill -STOP "${AGENT[1]}"
dir_give
kill_agent 2
share_agent 2
tell 2 load 8192
gn_check "n2 is not the owner" owned "n1 1"
gn_must kill -CONT "${AGENT[1]}"
gn_check "n1 has n3's page" had 13
late() { [ "$(hear 2)" = 12 ]; }
gn_check "n2 has its own" late
whole "all go on"

# Nothing changes a page that n2 has to read, so that it needs no copy of it; but it gives the
# page up, for a store that will not be done.
fresh "to has a page to read while all is copied, and then has not" 33554432
away() # n3, for n1
{
	gn_exec n1 "$GN_BIN/ghostmem" stat -j -a "$GN_TMP/n1.sock" | jq -e '.home[].importers |
		map(select(.node == "n3"))[0].connected | not'
}
expect "n1 stores beside it" ok 1 store 32776 21
expect "n2 reads it" 21 2 load 32776
gn_must gn_exec sw tc qdisc add dev p2 root tbf rate 50mbit burst 64k latency 50ms
asked=$(counter 1 inv_out)
move 1 2
gn_must gn_wait 20 above 2 move_pages_in 1000
gn_must kill -STOP "${AGENT[2]}"
gn_must gn_exec sw tc qdisc del dev p2 root
gn_check "the copy is not over" gn_not gn_gone $MOVE
tell 3 store 32768 22
gn_must gn_wait 20 above 1 inv_out "$asked"
kill_agent 3
gn_must gn_wait 20 away
gn_must kill -CONT "${AGENT[2]}"
gn_check "it moves" ended
expect "n2 has the page" 21 2 load 32776
share_agent 3
if [ "$(hear 3)" = ok ]; then gn_ok "the store is done"; else gn_fail "the store" "is not done"; fi
expect "n2 sees it" 22 2 load 32768
expect "and what is beside it" 21 2 load 32776
whole "n2 serves"

exit $GN_FAILED
