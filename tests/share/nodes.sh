#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Three nodes share one region over TCP: loads, stores, get, put and atomics see one another
# on every node; a wrong key is refused; the end of the owner is an error, no zero byte.
# SHARE_TLS: psk or x509, between the nodes. SHARE_SHORTCUT: by UNIX sockets

# shellcheck disable=SC2317,SC2329 # functions called through a name
# shellcheck source=tests/share/lib.sh
. "$(dirname "$0")/lib.sh"
SHARE_LEASE=3000

share_secure
[ -z "${SHARE_SHORTCUT:-}" ] || SHARE_ARGS=(--busy-poll 100)
share_net 3
for i in 1 2 3; do
	share_agent $i
	share_app $i
done

gn_check "the agent has given up its rights" gn_jailed "${AGENT[1]}"
expect "owner exports" "ok 4294967296" 1 export mem 16777216 secret
expect "owner stores" ok 1 store 8 42
expect "n2 imports" "ok 4294967296" 2 import mem secret
expect "n3 imports" "ok 4294967296" 3 import mem secret
if [ -n "${SHARE_SHORTCUT:-}" ]; then
	by_tcp() { gn_exec n2 ss -Htn state established "dport = :7400" | grep .; }
	gn_check "no connection leaves n2" gn_not by_tcp
fi
expect "wrong key is refused" "error EACCES" 3 import mem wrong
expect "n3 imports again" "ok 4294967296" 3 import mem secret
expect "n2 loads what the owner stored" 42 2 load 8
expect "n3 loads it" 42 3 load 8
expect "n2 stores" ok 2 store 8 43
expect "n3 loads what n2 stored" 43 3 load 8
expect "owner loads it" 43 1 load 8
expect "n3 gets it" 43 3 get 8
expect "n3 puts" 0 3 put 8 44
expect "n2 loads what was put" 44 2 load 8
expect "owner loads it too" 44 1 load 8
expect "n2 stores on the next word" ok 2 store 16 5
expect "fetch_add at n3 of a word n2 wrote" 5 3 add 16 10
expect "n2 loads the sum" 15 2 load 16
expect "a page nobody wrote is zero" 0 2 load 40960
expect "owner stores all of 1 MiB" ok 1 fill 1048576 1048576 3
expect "n2 reads all of it" $((131072 * 3)) 2 sum 1048576 1048576
expect "n3 writes all of it" ok 3 fill 1048576 1048576 7
expect "n2 reads what n3 wrote" $((131072 * 7)) 2 sum 1048576 1048576
expect "owner reads it" $((131072 * 7)) 1 sum 1048576 1048576

# Increments by plain atomic instructions on all three nodes at once: none is lost.
for i in 1 2 3; do tell $i count 65536 20000; done
for i in 1 2 3; do
	[ "$(hear $i)" = ok ] || gn_fail "increments on n$i" "no answer"
done
expect "60000 increments from three nodes" 60000 1 load 65536
gn_note "fault: $(ask 2 fault 8388608 1000), get: $(ask 2 getlat 2000)"

# The owner dies while n2 holds pages and n3 waits for one.
expect "n2 holds a page to write" ok 2 store 131072 9
gn_must kill -STOP "${AGENT[1]}"
tell 3 load 2097152
start=$SECONDS
got=$(hear 3)
if [ "$got" = sigbus ] && [ $((SECONDS - start)) -le $((SHARE_LEASE / 1000 + 2)) ]; then
	gn_ok "a blocked load ends with SIGBUS"
else
	gn_fail "a blocked load ends with SIGBUS" "$got after $((SECONDS - start)) s"
fi
expect "event at n3: owner gone" 1 3 event
expect "event at n2: owner gone" 1 2 event
expect "n2 reads no stale page" sigbus 2 load 131072
expect "get fails" "error EIO" 2 get 8
expect "fetch_add fails" "error EIO" 3 add 8 1
gn_must kill -CONT "${AGENT[1]}"
