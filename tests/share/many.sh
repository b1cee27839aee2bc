#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Sizes: 64 importers of one page, which the owner writes to while all read it; regions of
# one page, and of 8 GiB of which little is ever used.

# shellcheck disable=SC2317,SC2329 # functions called through a name
# shellcheck source=tests/share/lib.sh
. "$(dirname "$0")/lib.sh"
SHARE_LEASE=20000	# 64 agents on few CPUs

share_net 2
for i in 1 2; do
	share_agent $i --reserve 16
	share_app $i
done

expect "one page: export" "ok *" 1 export page 4096 secret
expect "one page: import" "ok *" 2 import page secret
expect "one page: store of its last word" ok 2 store 4088 5
expect "one page: the owner loads it" 5 1 load 4088
expect "one page: no more than that" "error ERANGE" 2 get 4096

last=$((8 * 1024 * 1024 * 1024 - 8))
expect "8 GiB: export" "ok *" 1 export sparse 8589934592 secret
expect "8 GiB: import" "ok *" 2 import sparse secret
expect "8 GiB: store of its last word" ok 2 store $last 6
expect "8 GiB: the owner loads it" 6 1 load $last
expect "8 GiB: store in the middle" ok 1 store 4294967296 7
expect "8 GiB: the importer loads it" 7 2 load 4294967296
expect "8 GiB: the rest is zero" 0 2 load 2147483648
# What two agents and two applications take for it, KiB
rss=0
for pid in "${AGENT[@]}" "${APP[@]}"; do
	kib=$(awk '/^VmRSS/ { print $2 }' "/proc/$pid/status")
	rss=$((rss + kib))
done
gn_note "8 GiB: resident: $((rss / 1024)) MiB"
if [ $rss -lt 524288 ]; then
	gn_ok "8 GiB: little memory is used"
else
	gn_fail "8 GiB: little memory is used" "$rss KiB"
fi

# Agents of 64 nodes, all in the namespace of n2.
many()
{
	local i pid socks=()
	for i in $(seq 64); do
		gn_spawn pid gn_exec n2 "$GN_BIN/ghostmemd" --node "m$i" \
			--listen "tcp:10.7.0.2:$((7500 + i))" --reserve 0 --log error \
			--directory "file:$GN_TMP/dir.json" --local "$GN_TMP/m$i.sock" --lease "$SHARE_LEASE"
		socks+=("$GN_TMP/m$i.sock")
	done
	for i in "${socks[@]}"; do
		gn_wait 10 gn_exec n2 "$GN_BIN/ghostmem" ls -a "$i" || return
	done
	gn_exec n1 "$GN_BIN/tests/bench/share_mem" sharers 64 "$GN_TMP/n1.sock" "${socks[@]}"
}
gn_check "64 importers read what the owner writes, 200 times" many
exit $GN_FAILED
