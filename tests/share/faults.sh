#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Agents that are replaced, importers that die with pages, owners that are killed, frozen, cut
# off. Whoever waits gets SIGBUS or -EIO within a lease and a second; nobody reads a zero
# or an old value.

SHARE_LEASE=1500
# shellcheck source=tests/share/lib.sh
. "$(dirname "$0")/lib.sh"

GRACE=250 # ms: what this script itself may take on a busy machine
ms() { echo $((${EPOCHREALTIME/./} / 1000)); }

# ends CASE FROM-MS WANTED NAME - what NAME was told ends so, a lease and 1 s after FROM
ends()
{
	local got took
	got=$(hear "$4")
	took=$(($(ms) - $2))
	if [ "$got" = "$3" ] && [ $took -le $((SHARE_LEASE + 1000 + GRACE)) ]; then
		gn_ok "$1"
	else
		gn_fail "$1" "'$got' after $took ms, not '$3' within $((SHARE_LEASE + 1000))"
	fi
	gn_note "$1: $took ms"
}

# shellcheck disable=SC2317 # for gn_wait
imported() { [[ $(ask "$1" import "$2" secret) = ok* ]]; }

# share REGION - exported by node 1 with 7 in its words, imported by 2 and 3, read by both
share()
{
	local i
	gn_wait 10 exported "$1" || gn_die "region $1 is not exported"
	expect "$1: owner fills" ok 1 fill 0 1048576 7
	for i in 2 3; do
		gn_wait 10 imported $i "$1" || gn_die "n$i does not import $1"
		expect "$1: n$i reads" $((8192 * 7)) $i sum 0 65536
	done
	expect "$1: n2 writes" ok 2 store 65536 99
}
# shellcheck disable=SC2317 # for gn_wait
exported() { [[ $(ask 1 export "$1" 1048576 secret) = ok* ]]; }

# gone CASE CMD... - CMD takes node 1 away, while the others work on a shared region
gone()
{
	local from
	"${@:2}" || gn_die "failed: ${*:2}"
	from=$(ms)
	tell 2 load 983040
	tell 3 get 8
	ends "$1: a blocked load" "$from" sigbus 2
	ends "$1: a blocked get" "$from" "error EIO" 3
	# What was here to read, too, ends with the lease.
	expect "$1: event at n2" 1 2 event
	expect "$1: event at n3" 1 3 event
	expect "$1: a page held to write" sigbus 2 load 65536
	expect "$1: a page held to read" sigbus 3 load 0
	expect "$1: a store" sigbus 3 store 0 1
	expect "$1: a put" "error EIO" 2 put 0 1
	expect "$1: fetch_add" "error EIO" 3 add 0 1
}

share_net 3
for i in 1 2 3; do
	share_agent $i
	share_app $i
done

share keys
expect "wrong key" "error EACCES" 3 import keys wrong
expect "no such region" "error ENOENT" 3 import nothing secret
expect "no region, no bytes" "error no region" 3 load 0
gn_must imported 3 keys
expect "get beyond the end" "error ERANGE" 3 get 1048576
expect "get across the end" "error ERANGE" 3 get 1048572
expect "get that wraps around" "error ERANGE" 3 get 0xfffffffffffffffc
expect "put beyond the end" "error ERANGE" 3 put 1048576 1
expect "fetch_add beyond the end" "error ERANGE" 3 add 1048576 1
expect "and it goes on" 7 3 get 8

# An agent is killed and another one takes its place: it goes on where the former was, and no
# application notices. What node 2 has written is nowhere else.
expect "n2 holds a page to write" ok 2 store 8 70
gn_stop "${AGENT[2]}" KILL
tell 2 load 983040
share_agent 2
expect_answer() { if [ "$2" = "$(hear "$3")" ]; then gn_ok "$1"; else gn_fail "$1" "not $2"; fi; }
expect_answer "importer's agent restarted: a load that waits" 7 2
expect "importer's agent restarted: get" 7 2 get 0
expect "importer's agent restarted: others read" 7 3 load 0
expect "importer's agent restarted: others read what it wrote" 99 3 load 65536
expect "importer's agent restarted: and the other page" 70 3 load 8
expect "importer's agent restarted: it writes" ok 2 store 8 71
expect "importer's agent restarted: others see it" 71 3 load 8

expect "n2 holds pages to write" ok 2 fill 131072 65536 5
gn_stop "${AGENT[1]}" KILL
for i in 1 2 3; do tell $i load $((933888 + 4096 * i)); done
share_agent 1
for i in 1 2 3; do expect_answer "owner's agent restarted: a load on n$i" 7 $i; done
expect "owner's agent restarted: get" 7 3 get 16
for i in 1 2 3; do expect "owner's agent restarted: a held page on n$i" 71 $i load 8; done
expect "owner's agent restarted: what n2 wrote" $((8192 * 5)) 1 sum 131072 65536
expect "owner's agent restarted: fetch_add" 71 2 add 8 1
expect "owner's agent restarted: seen at n3" 72 3 load 8

# A window that ends while there is no agent to hear of it: the next agent does not wait for it.
for i in 1 2; do
	share_app $i ${i}b
	gn_wait 10 imported ${i}b keys || gn_die "${i}b does not import keys"
	gn_stop "${AGENT[$i]}" KILL
	tell ${i}b import nothing secret
	# shellcheck disable=SC2317 # for gn_not
	maps() { grep -q memfd:keys "/proc/${APP[${i}b]}/maps"; }
	gn_wait 10 gn_not maps || gn_fail "n$i: a window that ends" "it is there"
	share_agent $i
	for j in 1 2 3; do expect "n$i: a window ended without an agent: n$j goes on" 72 $j load 8; done
	expect "n$i: a window ended without an agent: a page that is new" 7 $i load $((921600 + 4096 * i))
	expect_answer "n$i: a window ended without an agent: the program, too" "error ENOENT" ${i}b
	gn_stop "${APP[${i}b]}"
done

# An agent that does not come back: the pages here may be given to others.
gn_stop "${AGENT[2]}" KILL
from=$(ms)
tell 2 load 966656
ends "importer's agent stays away: a load" "$from" sigbus 2
expect "importer's agent stays away: event" 1 2 event
expect "importer's agent stays away: a store" sigbus 2 store 8 1
expect "importer's agent stays away: get" "error EIO" 2 get 8
expect "importer's agent stays away: others go on" ok 3 store 8 9
share_agent 2
gn_wait 10 imported 2 keys || gn_fail "importer's agent back: imports" "it cannot"
expect "importer's agent back: reads again" 9 2 load 8

# A frozen agent is no better than a dead one.
gn_must kill -STOP "${AGENT[2]}"
from=$(ms)
tell 2 load 974848
ends "importer's agent frozen: a load" "$from" sigbus 2
expect "importer's agent frozen: event" 1 2 event
expect "importer's agent frozen: get" "error EIO" 2 get 8
gn_must kill -CONT "${AGENT[2]}"
gn_wait 10 imported 2 keys || gn_fail "importer's agent thawed: imports" "it cannot"
expect "importer's agent thawed: reads again" 9 2 load 8

# An importer dies with the only copy of a page: it is lost, not zero; the others are not.
share lost
expect "n2 alone has some more pages" ok 2 fill 131072 12288 3
gn_stop "${AGENT[2]}" KILL
gn_stop "${APP[2]}" KILL
from=$(ms)
tell 3 load 65536
tell 1 load 65544
ends "importer died with a page: another importer" "$from" sigbus 3
ends "importer died with a page: the owner" "$from" sigbus 1
for i in 1 3; do expect "importer died with a page: event at n$i" 4 $i event; done
expect "importer died with a page: get" "error EIO" 3 get 65536
expect "importer died with a page: the next one is whole" $((512 * 7)) 3 sum 69632 4096
expect "importer died with a page: pages it read can be written" ok 3 store 0 8
expect "importer died with a page: and are seen" 8 1 load 0
# Until all of it is put anew: by one who had SIGBUS there, at once; by others, soon.
# shellcheck disable=SC2317 # for gn_wait
loads() { [ "$(ask "$1" load "$2")" = "$3" ]; }
expect "a lost page: a part of it is put" "error EIO" 3 put 65536 5
expect "a lost page: it stays lost" sigbus 3 load 65536
expect "a lost page is put" ok 3 page 65536 5
expect "a lost page: who put it loads" 5 3 load 65536
expect "a lost page: who put it stores" ok 3 store 65536 6
gn_check "a lost page: the owner loads" gn_wait 5 loads 1 65544 5
expect "a lost page: and what was stored" 6 1 load 65536
expect "another lost page" sigbus 3 load 131072
expect "another lost page: the owner" sigbus 1 load 131080
expect "another lost page is put" ok 1 page 131072 9
expect "another lost page: who put it loads" 9 1 load 131080
gn_check "another lost page: an importer loads" gn_wait 5 loads 3 131072 9
expect "a third lost page" sigbus 3 load 135168
gn_stop "${AGENT[3]}" KILL
expect "a third lost page is put while an agent is away" ok 1 page 135168 4
share_agent 3
gn_check "a third lost page: it loads" gn_wait 5 loads 3 135168 4
expect "a lost page that nobody put" sigbus 3 load 139264
share_agent 2
rm -f "$GN_TMP/2.in" "$GN_TMP/2.out"
share_app 2

# Revoked: who exported it hears of it, and who imported it.
share revoked
gn_must gn_exec n1 "$GN_BIN/ghostmem" revoke -a "$GN_TMP/n1.sock" revoked
for i in 1 2 3; do expect "revoked: event at n$i" 3 $i event; done
for i in 1 2 3; do expect "revoked: a load on n$i" sigbus $i load 8; done
for i in 1 2 3; do expect "revoked: get on n$i" "error ESTALE" $i get 8; done

share frozen
gone "owner frozen" kill -STOP "${AGENT[1]}"
gn_must kill -CONT "${AGENT[1]}"
# It ends what it served when it finds, soon, that its lease has run out.
# shellcheck disable=SC2317 # for gn_wait
ended() { ! gn_exec n1 "$GN_BIN/ghostmem" stat -j -a "$GN_TMP/n1.sock" | grep -q '"frozen"'; }
gn_wait 10 ended || gn_fail "owner frozen: notices when it goes on" "it serves the region"

share cut
gone "owner cut off" gn_exec sw ip link set p1 down
gn_must gn_exec sw ip link set p1 up

share killed
gone "owner killed" kill -KILL "${AGENT[1]}" "${APP[1]}"
exit $GN_FAILED
