#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Pages sent ahead of the faults of a scan: they come, they are whole, and those that are
# taken back on their way are not seen. STREAM_ROUNDS (6) rounds.

# shellcheck disable=SC2317,SC2329 # functions called through a name
# shellcheck source=tests/share/lib.sh
. "$(dirname "$0")/lib.sh"

share_net 3
for i in 1 2 3; do
	share_agent $i
	share_app $i
done

# counter NODE NAME
counter()
{
	gn_exec "n$1" "$GN_BIN/ghostmem" stat -j -a "$GN_TMP/n$1.sock" | jq ".counters.$2"
}
above() { [ "$(counter "$1" "$2")" -gt "$3" ] || gn_die "$2 of n$1: $(counter "$1" "$2")"; }

# A scan of 32 MiB: nearly all of it is there before it is asked for.
expect "owner exports" "ok *" 1 export scan 33554432 secret
expect "owner fills" ok 1 fill 0 33554432 5
expect "n2 imports" "ok *" 2 import scan secret
before=$(counter 2 faults)
expect "n2 scans all of it" $((4194304 * 5)) 2 sum 0 33554432
faults=$(($(counter 2 faults) - before))
gn_check "most pages came on the bulk connection" above 2 streamed 8000
if [ $faults -lt 400 ]; then
	gn_ok "8192 pages took few faults"
else
	gn_fail "8192 pages took few faults" "$faults"
fi
gn_note "faults: $faults, streamed: $(counter 2 streamed), voided: $(counter 2 voided)"
expect "owner writes to pages that were sent ahead" ok 1 fill 16777216 1048576 6
expect "n2 sees that" $((131072 * 6)) 2 sum 16777216 1048576
expect "n2 writes to them" ok 2 fill 16777216 1048576 7
expect "owner sees it" $((131072 * 7)) 1 sum 16777216 1048576

# Stores in order ask for 1, 2, 4 ... 64, 64 pages. While the last ones of these are stored to, the
# next ones come.
held() { [ "$(gn_exec n2 "$GN_BIN/ghostmem" stat -j -a "$GN_TMP/n2.sock" |
	jq '.imports[] | select(.name == "next").write')" = "$1" ]; }
expect "owner exports a region to go through" "ok *" 1 export next 8388608 secret
expect "n2 imports it" "ok *" 2 import next secret
expect "n2 stores to 191 pages" ok 2 fill 0 782336 3
gn_check "the next 64 are there before their time" gn_wait 10 held 255
expect "n2 goes on" ok 2 fill 782336 4096 3
gn_check "and so are those behind them" gn_wait 10 held 319
expect "owner sees what was stored" $((98304 * 3)) 1 sum 0 1048576

# Stores in order: the right to write many pages comes at once. Others that store to the same
# pages meanwhile take them back, and all see the same in the end.
share_app 2 2b
expect "owner exports a region to store to" "ok *" 1 export stores 8388608 secret
for i in 2 2b 3; do expect "$i imports it" "ok *" $i import stores secret; done
before=$(counter 2 faults)
expect "n2 stores to all of it" ok 2 fill 0 8388608 3
faults=$(($(counter 2 faults) - before))
if [ $faults -lt 500 ]; then
	gn_ok "2048 pages to write took few faults"
else
	gn_fail "2048 pages to write took few faults" "$faults"
fi
gn_note "faults: $faults"
expect "n3 sees it" $((1048576 * 3)) 3 sum 0 8388608
for v in 4 5 6; do
	for i in 2 2b 3 1; do tell $i fill 0 8388608 $v; done
	for i in 2 2b 3 1; do [ "$(hear $i)" = ok ] || gn_fail "$i stores with the others" "it failed"; done
	for i in 2 2b 3 1; do expect "$i sees what all stored" $((1048576 * v)) $i sum 0 8388608; done
done
gn_check "no page was lost" [ "$(counter 1 pages_lost)" = 0 ]

# A slow line has more in flight for longer: the owner's stores run through it.
gn_must gn_exec n1 tc qdisc add dev eth0 root tbf rate 1gbit burst 128k latency 50ms
for i in 1 2 3; do
	gn_stop "${APP[$i]}"
	rm -f "$GN_TMP/$i.in" "$GN_TMP/$i.out"
	share_app $i
done
expect "owner exports once more" "ok *" 1 export again 33554432 secret
expect "n2 imports that" "ok *" 2 import again secret
# What was written last is seen, however often pages were taken back; that is up to the two, so
# they begin again, with nothing of it at n2, until it has happened.
for ((try = 1; try <= 30; try++)); do
	[ "$(ask 1 fill 0 33554432 0)" = ok ] || gn_fail "owner fills anew" "it failed"
	tell 2 sum 0 33554432
	for v in $(seq 200); do tell 1 fill 8388608 4194304 "$v"; done
	[[ $(hear 2) = [0-9]* ]] || gn_fail "n2 scans while the owner writes" "it failed"
	for v in $(seq 200); do
		[ "$(hear 1)" = ok ] || gn_fail "owner writes while n2 scans" "it failed"
	done
	[ "$(counter 2 voided)" = 0 ] || break
done
expect "n2 sees what was written last" $((524288 * 200)) 2 sum 8388608 4194304
gn_note "n2: streamed $(counter 2 streamed), voided $(counter 2 voided)"
gn_check "pages were taken back on their way" above 2 voided 0

# The owner's programs use userfaultfd as on 6.1: their kernel maps by itself what is in the memfd,
# so nothing may come there by the sending of pages that another node has been given meanwhile. Little
# of that is in the socket at a time.
gn_must gn_exec n1 tc qdisc change dev eth0 root tbf rate 100mbit burst 128k latency 50ms
gn_must gn_exec n1 sysctl -q -w net.ipv4.tcp_wmem="4096 16384 65536"
streams() { [ "$(counter 2 streamed)" -gt $((before + 200)) ]; }
GHOSTMEM_UFFD=6.1 share_app 1 old
expect "as on 6.1: owner exports" "ok *" old export old 8388608 secret
for i in 2 3; do expect "as on 6.1: n$i imports" "ok *" $i import old secret; done
for v in 6 7; do
	expect "as on 6.1: owner fills" ok old fill 0 8388608 5
	before=$(counter 2 streamed)
	tell 2 sum 0 3145728
	gn_check "as on 6.1: pages come ahead" gn_wait 10 streams
	for at in {17..13}; do tell 3 store $((at << 18)) $v; done
	[[ $(hear 2) = [0-9]* ]] || gn_fail "as on 6.1: n2 scans while n3 stores" "it failed"
	for at in {17..13}; do
		[ "$(hear 3)" = ok ] || gn_fail "as on 6.1: n3 stores while n2 scans" "it failed"
	done
	for at in {17..13}; do
		[ "$(ask old load $((at << 18)))" = $v ] || gn_fail "as on 6.1: owner loads what n3 stored" "at $at"
	done
done
gn_note "n2: streamed $(counter 2 streamed), voided $(counter 2 voided)"

expect "owner exports another" "ok *" 1 export stream 4198400 secret
race()
{
	local i pids=() pid rc=0
	for i in 1 2 3; do
		gn_exec "n$i" "$GN_BIN/tests/share/stream" "$GN_TMP/n$i.sock" stream secret \
			"$i" "${STREAM_ROUNDS:-6}" >"$GN_TMP/stream.$i" 2>&1 &
		pids+=($!)
	done
	for pid in "${pids[@]}"; do wait "$pid" || rc=1; done
	sed 's/^/# /' "$GN_TMP"/stream.?
	return "$rc"
}
gn_check "scans beside a writer see each page go forward, and all of it in the end" race
for i in 2 3; do
	gn_note "n$i: streamed $(counter $i streamed), voided $(counter $i voided)"
done
exit $GN_FAILED
