#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Regions with pages of 2 MiB: what holds for those of 4 KiB. Values, puts and atomics at any
# address, a scan, pages that go to and fro under agents that are killed and a region that moves,
# lost pages, a lost owner, a kernel as of 6.1, too few huge pages, TLS, memory order, a guest. It reserves what it needs.

# shellcheck disable=SC2317,SC2329,SC2086 # functions called through a name; numbers
POOL=/proc/sys/vm/nr_hugepages
NEED=128
if [ -z "${GN_INSIDE:-}" ] && [ "$(id -u)" = 0 ]; then
	# Outside of what ends with the test, whatever ends it.
	give_back() { echo $(($(cat $POOL) - NEED)) >$POOL; }
	trap give_back EXIT
	trap 'exit 1' TERM INT HUP
	echo $(($(cat $POOL) + NEED)) >$POOL
	unshare --mount --pid --fork --kill-child --mount-proc env GN_INSIDE=1 "$BASH" "$0" "$@" &
	wait $!
	exit $?
fi
SHARE_LEASE=2000
# shellcheck source=tests/share/lib.sh
. "$(dirname "$0")/lib.sh"
T=$GN_BIN/tests/share
PAGE=2097152

[ "$(cat /sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages)" -ge $NEED ] ||
	gn_die "no $NEED free huge pages: is memory in pieces?"

mem() { GHOSTMEM_KEY=secret gn_exec "n$1" "$GN_BIN/ghostmem" "$2" -a "$GN_TMP/n$1.sock" "${@:3}"; }
counter() { gn_exec "n$1" "$GN_BIN/ghostmem" stat -j -a "$GN_TMP/n$1.sock" | jq ".counters.$2"; }
known() { gn_exec n1 "$GN_BIN/ghostmem" ls -a "$GN_TMP/n1.sock" | grep -q "^$1 "; }
moved() { mem $1 move -j "$3" --to n$2 >"$GN_TMP/move.out" || { cat "$GN_TMP/move.out"; return 1; }; }

# region NAME SIZE [ARGS...] - n1's; its exporter is $EXPORTER
region()
{
	GHOSTMEM_KEY=secret gn_spawn EXPORTER gn_exec n1 "$GN_BIN/ghostmem" export \
		-a "$GN_TMP/n1.sock" --page-size 2M "$@"
	gn_must gn_wait 5 known "$1"
}
# remedy CODE WORD CMD... - it gives CODE, and says WORD
remedy()
{
	local rc
	"${@:3}" >"$GN_TMP/remedy" 2>&1
	rc=$?
	cat "$GN_TMP/remedy"
	[ $rc = "$1" ] && grep -q "$2" "$GN_TMP/remedy"
}

share_net 3
for i in 1 2 3; do
	share_agent $i
	share_app $i
done

# ---- too few, and no whole pages
gn_check "too few huge pages: what to do" remedy 1 vm.nr_hugepages mem 1 export -p 2M big 16G
gn_check "its name is free" gn_not known big
gn_check "no whole pages" remedy 2 "whole pages of 2097152" mem 1 export -p 2M odd 3M
gn_check "no such pages" remedy 2 "4K or 2M" mem 1 export -p 1M odd 4M

# ---- values
head -c 9000001 /dev/urandom >"$GN_TMP/bytes"
region mem 16M --file "$GN_TMP/bytes"
gn_check "ls says what pages it has" [ "$(mem 2 ls -j | jq '.[] | select(.name == "mem") | .page')" = $PAGE ]
gn_check "n2 gets what the file had" cmp "$GN_TMP/bytes" <(mem 2 get mem 0 9000001)
for i in 1 2 3; do expect "n$i imports" "ok *" $i import mem secret; done
for i in 1 2 3; do expect "n$i stores to its page" ok $i store $(((i + 4) * PAGE + 8)) 1$i; done
for i in 1 2 3; do expect "and to one for all" ok $i store $((8 * i)) 2$i; done
for i in 1 2 3; do
	for j in 1 2 3; do
		expect "n$i loads what n$j stored" 1$j $i load $(((j + 4) * PAGE + 8))
		expect "on the page of all" 2$j $i load $((8 * j))
	done
done
expect "n3 puts across two pages" ok 3 store $((2 * PAGE)) 1
gn_check "bytes across pages, at odd addresses" mem 3 put mem 3145729 "$GN_TMP/bytes"
gn_check "the owner's node has them" cmp "$GN_TMP/bytes" <(mem 1 get mem 3145729 9000001)
gn_check "another one has them" cmp "$GN_TMP/bytes" <(mem 2 get mem 3145729 9000001)
expect "n2 adds" 23 2 add 24 5
expect "n3 adds" 28 3 add 24 5
expect "n1 loads the sum" 33 1 load 24
expect "n1 fills all of it" ok 1 fill 0 16777216 3
expect "n2 scans it" $((2097152 * 3)) 2 sum 0 16777216
ahead=$(counter 2 streamed)
if [ "$ahead" -ge 4 ]; then gn_ok "pages came ahead"; else gn_fail "pages came ahead" "$ahead"; fi
expect "n3 fills it" ok 3 fill 0 16777216 4
expect "n2 sees that" $((2097152 * 4)) 2 sum 0 16777216
expect "n1, too" $((2097152 * 4)) 1 sum 0 16777216

# ---- who sends pages that the region does not have is refused, before there is memory for them
hostile() # CASE WANTED NAME RULE
{
	local got bus
	bus=$(mem 1 ls -j | jq ".[] | select(.name == \"$3\") | .bus")
	got=$(gn_exec n2 timeout 20 "$T/hostile" tcp:10.7.0.1:7400 "$bus" secret "$4")
	if [ "$got" = "$2" ]; then gn_ok "$1"; else gn_fail "$1" "$got, not $2"; fi
}
region small 16M --page-size 4K
hostile "a huge page for a region that has none" "none closed" small huge
hostile "a small one of a region of huge ones" "EPROTO closed" mem write
hostile "one that comes back" "EPROTO closed" mem flush
gn_must mem 1 revoke small
gn_check "given memory, many pages at once" gn_exec n1 "$T/huge" "$GN_TMP/n1.sock" "$GN_TMP/n2.sock"
gn_check "pages that others take while they are given back" "$T/huge_taken"

# ---- a page that was lost, until all of it is put
expect "n3 alone has a page" ok 3 store $((3 * PAGE)) 99
# Its agent first: it would send the page home.
gn_stop "${AGENT[3]}" KILL
gn_stop "${APP[3]}" KILL
expect "n2 hears of it" 4 2 event
expect "n2 loads from it" sigbus 2 load $((3 * PAGE))
expect "n1 loads from it" sigbus 1 load $((3 * PAGE))
expect "n2 gets from it" "error EIO" 2 get $((3 * PAGE + 4096))
expect "the others are there" 4 2 load $((2 * PAGE))
head -c $PAGE /dev/zero | tr '\0' '\1' >"$GN_TMP/page"
gn_check "a part of it" gn_not mem 2 put mem $((3 * PAGE)) <(head -c 1M "$GN_TMP/page")
gn_check "all of it" mem 2 put mem $((3 * PAGE)) "$GN_TMP/page"
whole() { [ "$(ask $1 load $((3 * PAGE + 8)))" = 72340172838076673 ]; }
for i in 1 2; do gn_check "n$i loads from it" gn_wait 5 whole $i; done
rm -f "$GN_TMP"/3.{in,out} "$GN_TMP/n3.sock"
share_agent 3

# ---- agents that are killed, then a region that moves, under load on nine pages
history()
{
	local i n=0 at=1 to pid pids=() rc=0
	region history 18M
	for i in 1 2 3; do
		HISTORY_STRIDE=524288 HISTORY_STOP=$GN_TMP/enough gn_exec n$i "$T/history" run \
			"$GN_TMP/n$i.sock" history secret $i 100000 "$GN_TMP/history.$i" \
			>"$GN_TMP/history.$i.log" 2>&1 &
		pids+=($!)
	done
	gn_wait 10 begun || rc=1
	for i in 2 1 3 1; do
		gn_stop "${AGENT[$i]}" KILL
		share_agent $i
		gn_wait 5 connected $i || rc=1
	done
	while [ $n -lt 7 ] && [ $rc = 0 ]; do
		to=$((at % 3 + 1))
		moved $at $to history || rc=1
		jq -r 'select(.moved) | "# stood still \(.switch_ms) ms"' "$GN_TMP/move.out"
		at=$to
		n=$((n + 1))
	done
	: >"$GN_TMP/enough"
	for pid in "${pids[@]}"; do wait "$pid" || rc=1; done
	cat "$GN_TMP"/history.?.log
	[ $rc = 0 ] && "$T/history" check "$GN_TMP"/history.[123]
}
served() { mem 2 get "$1" 0 1; }
begun() { [ "$(cat "$GN_TMP"/history.?.log | grep -c "^begun")" = 3 ]; }
connected()
{
	if [ $1 = 1 ]; then
		[ "$(mem 1 stat -j | jq '[.home[] | select(.name == "history") | .importers[] |
			select(.connected)] | length')" = 2 ]
	else
		[ "$(mem $1 stat -j | jq '[.imports[] | select(.name == "history" and .connected)] |
			length')" = 1 ]
	fi
}
gn_check "agents killed, moves: a sequential memory" history
gn_note "$(cat "$GN_TMP/verdict")"
for i in 1 2 3; do
	[ "$(counter $i pages_lost)" = 0 ] || gn_fail "no page lost on n$i" "$(counter $i pages_lost)"
	[ "$(counter $i bad_proto)" = 0 ] || gn_fail "n$i: refused" "$(counter $i bad_proto)"
done

# ---- what is sent when it moves; the kernel of 6.1
region sparse 32M
gn_must mem 1 put -t sparse 0 begin
gn_must mem 1 put -t sparse $((9 * PAGE + 5)) "the end"
# A new agent finds out which pages there are.
gn_stop "${AGENT[1]}" KILL
share_agent 1
gn_must gn_wait 5 served sparse
gn_check "a sparse region moves, after its agent" moved 1 2 sparse
gn_check "two pages were sent" [ "$(jq 'select(.moved) | .pages' "$GN_TMP/move.out")" = 2 ]
gn_check "its end is there" grep -q "the end" <(mem 3 get sparse $((9 * PAGE + 5)) 7)
gn_check "revoked at its new owner" mem 2 revoke sparse
GHOSTMEM_UFFD=6.1 share_app 3
region old 8M
expect "as on 6.1: n3 imports" "ok *" 3 import old secret
expect "n1 imports" "ok *" 1 import old secret
expect "n3 stores" ok 3 store 16 5
expect "n1 loads" 5 1 load 16
expect "n1 stores" ok 1 store 24 6
expect "n3 loads" 6 3 load 24
expect "n3 counts" ok 3 count 32 50
expect "n1 counts" ok 1 count 32 50
expect "both count" 100 3 load 32
gn_check "it moves there" moved 1 3 old
expect "n3 loads at home" 6 3 load 24
expect "n1 stores again" ok 1 store 24 7
expect "n3 sees it" 7 3 load 24

# ---- importers without huge pages; the owner ends
region rest 8M
free=$(cat /sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages)
reserved=$(cat /sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages)
region all $(((free - reserved) * 2))M
gn_check "n2 cannot map it: what to do" remedy 1 vm.nr_hugepages mem 2 import all
gn_check "but gets from it" mem 2 get all 0 8
gn_check "n2 cannot take it: it stays" gn_not mem 1 move all --to n2
gn_check "n1 serves it" mem 1 put -t all 0 here
gn_stop "$EXPORTER"
gn_check "its exporter ends, and with it the region" gn_not known all
for i in 1 2 3; do expect "n$i imports" "ok *" $i import rest secret; done
expect "n2 stores" ok 2 store 8 1
expect "n3 loads" 1 3 load 8
gn_stop "${AGENT[1]}" KILL
expect "owner killed: n2" sigbus 2 load $PAGE
expect "n3" sigbus 3 load $PAGE
expect "n1" sigbus 1 load $PAGE
expect "and calls" "error EIO" 2 get 8

# ---- encrypted
for i in 2 3; do gn_stop "${AGENT[$i]}"; done
rm -f "$GN_TMP"/dir.json*
SHARE_TLS=psk share_secure
# Of all agents.
said=$(wc -l <"$GN_TMP/pid.log")
for i in 1 2; do
	share_agent $i
	share_app $i tls$i
done
region tls 16M
for i in 1 2; do expect "by TLS: n$i imports" "ok *" tls$i import tls secret; done
expect "n1 fills it" ok tls1 fill 0 16777216 5
expect "n2 scans it" $((2097152 * 5)) tls2 sum 0 16777216
expect "n2 stores" ok tls2 store $((PAGE + 8)) 6
expect "n1 loads" 6 tls1 load $((PAGE + 8))
expect "n2 adds" 6 tls2 add $((PAGE + 8)) 1
gn_check "bytes across pages" mem 2 put tls 3145729 "$GN_TMP/bytes"
gn_check "and back" cmp "$GN_TMP/bytes" <(mem 1 get tls 3145729 9000001)
lost() { tail -n "+$((said + 1))" "$GN_TMP/pid.log" | grep "connection to .* lost"; }
gn_check "no connection was lost and made anew" gn_not lost
gn_stop "$EXPORTER"

# ---- memory order; a virtual machine's memory
other() # TEST
{
	bash "$GN_TOP/tests/share/$1.sh" | sed "s/^\(not ok\|ok\) /&$1: /"
	[ "${PIPESTATUS[0]}" = 0 ] || GN_FAILED=1
}
LITMUS_PAGE=2M LITMUS_RUNS=${HUGE_RUNS:-8192} other order
QEMU_PAGE=2M other qemu
exit $GN_FAILED
