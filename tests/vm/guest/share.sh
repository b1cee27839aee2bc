#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# /test of tests/vm/share.sh: two nodes share a region on an old kernel. Nobody loses a
# store or reads old bytes, two applications of a node included; who cannot be served
# gets SIGBUS.

# The library of tests/share finds others from where the script is.
[ "$0" != /test ] || exec bash /tests/share/guest.sh
export GN_BIN=/build
SHARE_LEASE=4000	# an emulated CPU is slow
# shellcheck source=tests/share/lib.sh
. "$(dirname "$0")/lib.sh"

stage() { gn_note "$(cut -d' ' -f1 /proc/uptime) s: $1"; }

stage "start"
share_net 2
for i in 1 2; do
	share_agent $i
	share_app $i
done
share_app 2 other
stage "agents run"
gn_check "agent has given up its rights" gn_jailed "${AGENT[1]}"
expect "owner exports" "ok 4294967296" 1 export mem 1048576 secret
expect "owner stores" ok 1 store 8 42
expect "n2 imports" "ok 4294967296" 2 import mem secret
expect "another application of n2 imports" "ok 4294967296" other import mem secret
expect "n2 loads what the owner stored" 42 2 load 8
expect "the other one, too" 42 other load 8
expect "n2 stores" ok 2 store 8 43
expect "the other one loads that" 43 other load 8
expect "owner loads that" 43 1 load 8
expect "the other one stores" ok other store 8 44
expect "n2 loads that" 44 2 load 8
expect "owner loads that, too" 44 1 load 8
expect "n2 puts" 0 2 put 8 45
expect "all see it: owner" 45 1 load 8
expect "all see it: n2" 45 2 load 8
expect "all see it: the other one" 45 other load 8
expect "a page nobody wrote is zero" 0 2 load 40960
expect "owner stores 256 KiB" ok 1 fill 262144 262144 3
expect "n2 reads them, ahead of itself" $((32768 * 3)) 2 sum 262144 262144
expect "the other one as well" $((32768 * 3)) other sum 262144 262144
expect "n2 writes them" ok 2 fill 262144 262144 7
expect "the other one reads that" $((32768 * 7)) other sum 262144 262144
expect "owner reads that" $((32768 * 7)) 1 sum 262144 262144
stage "increments"
for a in 1 2 other; do tell $a count 65536 2000; done
for a in 1 2 other; do
	[ "$(hear $a)" = ok ] || gn_fail "increments by $a" "no answer"
done
expect "6000 increments from three applications" 6000 1 load 65536
stage "ends"
expect "n2 holds a page to write" ok 2 store 131072 9
gn_must kill -STOP "${AGENT[1]}"
tell 2 load 917504
expect "owner frozen: a load of the other application" sigbus other load 921600
if [ "$(hear 2)" = sigbus ]; then
	gn_ok "owner frozen: a blocked load ends with SIGBUS"
else
	gn_fail "owner frozen: a blocked load ends with SIGBUS" "it did not"
fi
expect "owner frozen: no page that was held is read" sigbus 2 load 131072
gn_must kill -CONT "${AGENT[1]}"
stage "end"
if dmesg | grep -E 'WARNING:|BUG:|Oops|audit.*SECCOMP|type=1326'; then
	gn_fail "kernel log" "has the lines above"
else
	gn_ok "kernel log is clean"
fi
exit $GN_FAILED
