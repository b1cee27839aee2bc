#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# The directory in etcd: the contract of dir.h (test_dir), then nodes that share a region
# by it, while etcd goes away and comes back, and when the owner's lease is lost.

# Longer than etcd takes to come back: an owner that cannot renew for so long stops.
export SHARE_LEASE=6000
# shellcheck source=tests/share/lib.sh
. "$(dirname "$0")/lib.sh"

share_net 3
gn_must gn_exec sw ip addr add 10.7.0.9/24 dev br0
URL=http://10.7.0.9:2379

etcd_start
GM_TEST_DIRECTORY=etcd:$URL/contract gn_exec n1 "$GN_BIN/tests/share/test_dir" ||
	gn_fail "contract of the directory" "status $?"

for i in 1 2 3; do
	share_agent $i --directory "etcd:$URL/run"
	share_app $i
done
gn_check "the agent has given up its rights, with etcd too" gn_jailed "${AGENT[1]}"
expect "owner exports" "ok 4294967296" 1 export mem 1048576 secret
expect "owner stores" ok 1 store 8 42
expect "n2 finds the region in etcd" "ok 4294967296" 2 import mem secret
expect "n2 loads what the owner stored" 42 2 load 8
expect "a name that lives is not given away" "error EEXIST" 2 export mem 4096 other
expect "n2 imports again" "ok 4294967296" 2 import mem secret

# move FROM TO - 0: moved
move()
{
	GHOSTMEM_KEY=secret gn_exec "n$1" "$GN_BIN/ghostmem" move -a "$GN_TMP/n$1.sock" mem --to "n$2"
}
gn_check "moved to n2" move 1 2
expect "n1 loads it there" 42 1 load 8
gn_check "and back" move 2 1
expect "n2 loads it again" 42 2 load 8
gn_stop "$ETCD" KILL
expect "etcd is down: n2 stores" ok 2 store 8 43
gn_check "etcd is down: no move" gn_not move 1 2
expect "etcd is down: owner loads it" 43 1 load 8
expect "etcd is down: nothing new is found" "error *" 2 import other secret
etcd_start
found() { [[ $(ask 2 import mem secret) == "ok 4294967296" ]]; }
gn_check "etcd is back: n2 finds the region" gn_wait 10 found
expect "its bytes are there" 43 2 load 8

# The owner's agent hangs beyond its lease: n3 may take the name, at another address.
gn_must kill -STOP "${AGENT[1]}"
taken() { got=$(ask 3 export mem 1048576 other) && [[ $got == ok* ]]; }
if gn_wait 15 taken && [ "$got" != "ok 4294967296" ]; then
	gn_ok "lease lost: n3 takes the name"
else
	gn_fail "lease lost: n3 takes the name" "$got"
fi
share_app 2 late
expect "n2 imports from the new owner" "$got" late import mem other
expect "new owner stores" ok 3 store 8 11
expect "n2 loads it" 11 late load 8
gn_must kill -CONT "${AGENT[1]}"
gn_check "the old owner finds out, and serves it no longer" \
	gn_wait 10 grep -q "mem: the lease has ended" "$GN_TMP/pid.log"
