#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# A region goes to another node and keeps its addresses: values, pages held to write and to
# read, the exporter's own window, calls, events, who may and whereto. Then under load.

# shellcheck disable=SC2317,SC2329,SC2086 # functions called through a name; numbers
# shellcheck source=tests/share/lib.sh
. "$(dirname "$0")/lib.sh"
T=$GN_BIN/tests/share

# move FROM TO NAME [KEY] - at FROM's agent; its exit code
move()
{
	GHOSTMEM_KEY=${4:-secret} gn_exec "n$1" "$GN_BIN/ghostmem" move -j -a "$GN_TMP/n$1.sock" \
		"$3" --to "n$2" >"$GN_TMP/move.out"
	local rc=$?
	[ $rc = 0 ] || sed 's/^/# /' "$GN_TMP/move.out"
	return $rc
}
# refused CASE CODE FROM TO NAME [KEY]
refused()
{
	move "${@:3}" >/dev/null
	local rc=$?
	if [ $rc = "$2" ]; then gn_ok "$1"; else gn_fail "$1" "exit code $rc"; fi
}
counter() { gn_exec "n$1" "$GN_BIN/ghostmem" stat -j -a "$GN_TMP/n$1.sock" | jq ".counters.$2"; }
owner() { gn_exec "n$1" "$GN_BIN/ghostmem" ls -j -a "$GN_TMP/n$1.sock" |
	jq -r ".[] | select(.name == \"$2\") | \"\(.node) \(.epoch)\""; }

share_net 3
for i in 1 2 3; do
	share_agent $i
	share_app $i
done
expect "n1 exports" "ok 4294967296" 1 export mem 16777216 secret
expect "n1 fills 1 MiB" ok 1 fill 1048576 1048576 3
expect "n2 imports" "ok 4294967296" 2 import mem secret
expect "n3 imports" "ok 4294967296" 3 import mem secret
expect "n1 has a page to write" ok 1 store 0 11
expect "n2 has one" ok 2 store 4096 12
expect "n3 has one" ok 3 store 8192 13
expect "n3 reads one of n1" 11 3 load 0
expect "n2 reads one of n1" 3 2 load 1048576

refused "wrong key: 4" 4 1 2 mem wrong
refused "no such region: 5" 5 1 2 nothing
refused "another node's region: 5" 5 2 3 mem
refused "no such node: 1" 1 1 9 mem
refused "to itself: 1" 1 1 1 mem
if [ "$(owner 3 mem)" = "n1 1" ]; then gn_ok "n1 has it still"; else gn_fail "n1 has it still" "$(owner 3 mem)"; fi

gn_check "n1 to n2" move 1 2 mem
sed 's/^/# /' "$GN_TMP/move.out"
if [ "$(owner 3 mem)" = "n2 2" ]; then gn_ok "n2 has it now"; else gn_fail "n2 has it now" "$(owner 3 mem)"; fi
for i in 1 2 3; do expect "event at n$i: moved" 2 $i event; done
expect "n1 loads what it stored" 11 1 load 0
expect "n2 loads what it stored" 12 2 load 4096
expect "n3 loads what it stored" 13 3 load 8192
expect "n1 loads what n2 stored" 12 1 load 4096
expect "n1 loads what n3 stored" 13 1 load 8192
expect "n2 loads what n3 stored" 13 2 load 8192
expect "n2 reads what was copied" $((131072 * 3)) 2 sum 1048576 1048576
expect "n3 reads it from n2" $((131072 * 3)) 3 sum 1048576 1048576
expect "n1 stores at its own address" ok 1 store 0 21
expect "n3 sees it" 21 3 load 0
expect "n2 sees it" 21 2 load 0
expect "n2 stores" ok 2 store 1048576 4
expect "n1 sees it" 4 1 load 1048576
expect "n1 puts" 0 1 put 12288 5
expect "n3 gets it" 5 3 get 12288
expect "n3 adds" 5 3 add 12288 10
expect "n1 loads the sum" 15 1 load 12288
expect "a page nobody wrote is zero" 0 3 load 8388608

# Round and round, while three nodes load, store, get and swap in it all the time. What was
# done is checked against a sequential memory (history.c): nothing lost, nothing twice,
# nothing old. Bytes beside it are as they were.
region()
{
	local pid
	GHOSTMEM_KEY=secret gn_spawn pid gn_exec n1 "$GN_BIN/ghostmem" export \
		-a "$GN_TMP/n1.sock" "$1" "$2"
	gn_must gn_wait 5 known "$1"
}
known() { gn_exec n1 "$GN_BIN/ghostmem" ls -a "$GN_TMP/n1.sock" | grep -q "^$1 "; }
mem() { GHOSTMEM_KEY=secret gn_exec "n$1" "$GN_BIN/ghostmem" "$2" -a "$GN_TMP/n$1.sock" "${@:3}"; }
region load 64M
head -c 6000000 /dev/urandom >"$GN_TMP/bytes"
gn_must mem 1 put load 1M "$GN_TMP/bytes"
# running PID... - is any of them?
running()
{
	local p
	for p; do gn_gone "$p" || return 0; done
	return 1
}
circle()
{
	local at=1 to n=0 busy=0 i pid pids=()
	for i in 1 2 3; do
		gn_exec n$i "$T/history" run "$GN_TMP/n$i.sock" load secret $i \
			"${MOVE_OPS:-30000}" "$GN_TMP/history.$i" &
		pids+=($!)
	done
	while [ $n -lt 21 ] || running "${pids[@]}"; do
		to=$((at % 3 + 1))
		running "${pids[@]}" && busy=$((busy + 1))
		move $at $to load || { echo "move $n, from n$at to n$to failed"; return 1; }
		jq -r 'select(.moved) | "stood still \(.switch_ms) ms"' "$GN_TMP/move.out" \
			>>"$GN_TMP/still"
		at=$to
		n=$((n + 1))
		[ $n -lt 300 ] || break
	done
	for pid in "${pids[@]}"; do wait "$pid" || return 1; done
	echo "$n moves, $busy of them under load; $(sort -k3 -n "$GN_TMP/still" | tail -1)" \
		>"$GN_TMP/circle"
	# How many fit in is the machine's affair.
	[ $busy -ge 3 ] || { echo "too few moves under load"; return 1; }
	"$T/history" check "$GN_TMP"/history.[123] && [ "$(owner 2 load)" = "n$at $((n + 1))" ]
}
gn_check "moves in a circle under load" circle
gn_note "$(cat "$GN_TMP/circle")"
gn_check "the bytes beside it" cmp <(mem 2 get load 1M 6000000) "$GN_TMP/bytes"
for i in 1 2 3; do
	[ "$(counter $i pages_lost)" = 0 ] || gn_fail "no page lost on n$i" "$(counter $i pages_lost)"
	[ "$(counter $i moves_failed)" = 0 ] ||
		gn_note "n$i: refused or failed: $(counter $i moves_failed)"
done
note=$(for i in 1 2 3; do counter $i requests_held; done | paste -sd' ')
gn_note "requests held: $note"

# The exporter ends: the region does not, it is another node's.
expect "n1 leaves" "error ENOENT" 1 import nothing secret
expect "n3 reads what n1 had stored" 21 3 load 0
expect "n1 comes back" "ok 4294967296" 1 import mem secret
expect "and reads it" 21 1 load 0

# A sparse region costs its data alone.
region big 8G
gn_must mem 1 put -t big 0 begin
gn_must mem 1 put -t big 8589934000 "the end"
gn_check "8 GiB, sparse" move 1 3 big
pages=$(jq 'select(.moved) | .pages' "$GN_TMP/move.out")
if [ "$pages" -le 4 ]; then gn_ok "two pages were sent"; else gn_fail "two pages were sent" "$pages"; fi
gn_check "its end is there" grep -q "the end" <(mem 2 get big 8589934000 7)
gn_check "revoked at its new owner" mem 3 revoke big
exit $GN_FAILED
