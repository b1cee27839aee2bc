#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# An importer gives a page back, and does not hear that it has come: so it says it again, on
# every new connection. What it says must not pass for an answer to what a later owner has
# granted, which it did not hear either: old bytes would replace newer ones.

# shellcheck disable=SC2317,SC2329,SC2086 # functions called through a name; numbers
export SHARE_LEASE=40000
FILL_AT=32768
FILL_BYTES=131072
# shellcheck source=tests/share/move-lib.sh
. "$(dirname "$0")/move-lib.sh"

# hush, loud - from hush on n3 hears nothing of owners but what lets it in and asks for pages
hush()
{
	gn_must gn_exec sw tc qdisc add dev p3 clsact
	gn_must gn_exec sw tc filter add dev p3 egress bpf da \
		obj "$GN_BIN/tests/netns/hush.bpf.o" sec hush
}
loud() { gn_must gn_exec sw tc qdisc del dev p3 clsact; }

heard() # NAME WORD CASE
{
	local got
	got=$(hear $1)
	if [ "$got" = "$2" ]; then gn_ok "$3"; else gn_fail "$3" "'$got', not '$2'"; fi
}

# replay CASE NODES... - n3 is killed, the region moves from n1 to each of them, n3 is killed once
# more
replay()
{
	local i asked granted owner=1
	fresh "$1"
	shift
	# Versions rise with each change of hands: n3's answer has a high one.
	for i in 1 2 3 4; do
		expect "n1 stores" ok 1 store 12288 4$i
		expect "n3 stores" ok 3 store 12288 5$i
	done
	# n1 has answered all that n3 has said: nothing must be lost before the INV.
	gn_must kill -STOP "${AGENT[3]}"
	asked=$(counter 1 inv_out)
	asked=$(counter 1 inv_out)
	hush
	tell 1 store 12288 61
	gn_must gn_wait 15 above 1 inv_out "$asked"
	gn_must kill -CONT "${AGENT[3]}"
	heard 1 ok "n1 has the page"
	kill_agent 3
	for i in "$@"; do
		move $owner $i
		gn_check "it moves to n$i" ended
		owner=$i
	done
	# Its new agent says it again and asks for the page, and it is granted.
	granted=$(counter $owner grants_write)
	tell 3 store 12296 62
	share_agent 3
	gn_must gn_wait 15 above $owner grants_write "$granted"
	kill_agent 3
	loud
	share_agent 3
	heard 3 ok "n3 stores"
	expect "n1 sees its own store" 61 1 load 12288
	expect "and n3's" 62 1 load 12296
	expect "n2, too" 61 2 load 12288
}

replay "the region has moved on" 2
replay "the region has moved on and come back" 2 1
exit $GN_FAILED
