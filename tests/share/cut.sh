#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Nodes that die, freeze or are cut off: who waits gets an answer or an error within a lease and a
# second, never zero or stale bytes; what nobody died with stays. (Slow ones: slow.sh.)

# shellcheck source=tests/share/lib.sh
. "$(dirname "$0")/lib.sh"
SHARE_LEASE=2000
LIMIT_MS=$((SHARE_LEASE + 1000))

now_ms() { echo $(($(date +%s%N) / 1000000)); }

# within CASE WANTED NAME COMMAND... - as expect, and in time
within()
{
	local start took
	start=$(now_ms)
	expect "${@:1}"
	took=$(($(now_ms) - start))
	[ $took -le $((LIMIT_MS + 300)) ] || gn_fail "$1: in time" "$took ms"
}

share_net 3
for i in 1 2 3; do
	share_agent $i
	share_app $i
done
expect "owner exports" "ok 4294967296" 1 export mem 1048576 secret
expect "owner stores" ok 1 store 8192 7
for i in 2 3; do expect "n$i imports" "ok 4294967296" $i import mem secret; done

# An importer dies with a page of which it had the only copy, and one it only read.
expect "n2 has a page to write" ok 2 store 0 11
expect "n2 has another to read" 7 2 load 8192
# (The agent first: when an application alone dies its pages go home.)
gn_stop "${AGENT[2]}" KILL
gn_stop "${APP[2]}" KILL
within "n3 gets no old bytes of the lost page" sigbus 3 load 0
within "nor does the owner" sigbus 1 load 0
within "nor a get" "error EIO" 3 get 0
expect "a page the dead one only read is whole" 7 3 load 8192
expect "and can be written" ok 3 store 8192 8
expect "owner loads it" 8 1 load 8192

# Cut off: both sides give up; healed, nothing old is read.
expect "n3 has a page to write" ok 3 store 20480 21
gn_must gn_exec sw ip link set p3 down
within "cut off: a load of n3 ends" sigbus 3 load 65536
within "cut off: it does not read its own copy either" sigbus 3 load 20480
within "cut off: the owner does not read before n3's bytes" sigbus 1 load 20480
within "cut off: get fails" "error EIO" 3 get 8192
expect "cut off: the owner has the rest" 8 1 load 8192
gn_must gn_exec sw ip link set p3 up
imported() { [[ $(ask 3 import mem secret) == "ok 4294967296" ]]; }
gn_check "healed: n3 imports again" gn_wait 10 imported
expect "healed: n3 loads what is there" 8 3 load 8192
expect "healed: lost is lost" sigbus 3 load 20480

# The owner is killed.
gn_stop "${AGENT[1]}" KILL
within "owner killed: a load ends" sigbus 3 load 131072
within "owner killed: get fails" "error EIO" 3 get 8192
