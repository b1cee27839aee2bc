#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# What an owner refuses: a node that breaks one rule gets the right status, is counted, and
# loses its connection where the contract says so; what it wanted to change is as before.

# shellcheck source=tests/share/lib.sh
. "$(dirname "$0")/lib.sh"

share_net 2
share_agent 1
share_app 1
expect "owner exports" "ok 4294967296" 1 export mem 1048576 secret
expect "owner stores" ok 1 store 0 42

counter()
{
	gn_exec n1 env GHOSTMEM_AGENT="$GN_TMP/n1.sock" "$GN_BIN/ghostmem" stat -j |
		jq "[.. | objects | .$1? // empty | numbers] | add // 0"
}

# refused RULE WANTED COUNTER [KEY [BUS]]
refused()
{
	local before got after
	before=$(counter "$3")
	got=$(gn_exec n2 timeout 20 "$GN_BIN/tests/share/hostile" tcp:10.7.0.1:7400 \
		"${5:-4294967296}" "${4:-secret}" "$1")
	after=$(counter "$3")
	if [ "$got" = "$2" ] && [ "$after" = $((before + 1)) ]; then
		gn_ok "$1: $2, $3"
	else
		gn_fail "$1: $2, $3" "'$got', $3 went from $before to $after"
	fi
}

got=$(gn_exec n2 "$GN_BIN/tests/share/hostile" tcp:10.7.0.1:7400 4294967296 secret none)
if [ "$got" = "ok open" ]; then
	gn_ok "one who breaks no rule is served"
else
	gn_fail "one who breaks no rule is served" "$got"
fi
refused stranger "EPROTO closed" bad_proto
refused key "EACCES closed" bad_key wrong
refused bounds "ERANGE closed" bad_range
refused elsewhere "ERANGE closed" bad_range
refused replay "EPROTO closed" bad_replay
refused session "EPROTO closed" bad_replay
refused keyid "EACCES closed" bad_key
refused epoch "ESTALE open" bad_epoch
refused pages "EPROTO closed" bad_proto
refused length "none closed" bad_proto
refused magic "none closed" bad_proto
refused version "none closed" bad_version
expect "the bytes are as they were" 42 1 load 0

gn_check "a program's descriptors that would block" timeout 30 "$GN_BIN/tests/share/handed" "$GN_TMP/n1.sock"
share_agent 2
gn_check "a program that writes into what its agents know" gn_exec n2 timeout 30 "$GN_BIN/tests/share/scribble" \
	"$GN_TMP/n1.sock" "$GN_TMP/n2.sock"
expect "the bytes are as they were" 42 1 load 0

# Who has only the key for readers, and a library that does not stop it.
mem() { GHOSTMEM_AGENT=$GN_TMP/n1.sock GHOSTMEM_KEY=secret gn_exec n1 "$GN_BIN/ghostmem" "$@"; }
# shellcheck disable=SC2317,SC2329 # called through a name
shared() { mem get read 0 12288; }
# shellcheck disable=SC2317,SC2329
intact() { shared | cmp "$GN_TMP/page" -; }
echo reader >"$GN_TMP/reader"
GHOSTMEM_AGENT=$GN_TMP/n1.sock GHOSTMEM_KEY=secret gn_spawn pid gn_exec n1 "$GN_BIN/ghostmem" \
	export -K "$GN_TMP/reader" read 1M
gn_wait 5 shared || gn_die "no region for readers"
bus=$(mem ls -j | jq 'if type == "array" then .[] else . end | select(.name == "read").bus')
# A compare_swap would find what it expects.
{ head -c 8 /dev/zero && head -c 12280 /dev/urandom; } >"$GN_TMP/page"
gn_must mem put read 0 "$GN_TMP/page"
for rule in put fadd swap cas write upgrade flush; do
	refused $rule "EPERM open" bad_access reader "$bus"
	gn_check "$rule: the bytes are as they were" intact
done
# A page it does not hold.
refused ack "none closed" bad_proto reader "$bus"
gn_check "ack: the bytes are as they were" intact
refused key "EACCES closed" bad_key nobody "$bus"

# waits SOCKET ANSWER CMD... - of no descriptor left, CMD, which connects to SOCKET of node 2's agent, has
# to wait; with one, it gets its answer
# shellcheck disable=SC2317,SC2329 # for gn_wait
log_says() { grep -q "$1" "$GN_TMP/pid.log"; }
waits()
{
	local soft
	soft=$(prlimit --pid "${AGENT[2]}" --nofile --raw --noheadings --output SOFT)
	gn_must prlimit --pid "${AGENT[2]}" --nofile=3:
	gn_spawn WAITS "${@:3}"
	gn_check "$1: who connects has to wait" \
		gn_wait 5 log_says "$1: who connects has to wait: Too many open files"
	gn_must prlimit --pid "${AGENT[2]}" --nofile="$soft:"
	gn_check "$1: and is served then" gn_wait 5 grep -q "$2" "$GN_TMP/WAITS.log"
}
waits "$GN_TMP/n2.sock" read gn_exec n2 "$GN_BIN/ghostmem" ls -a "$GN_TMP/n2.sock"
waits tcp:10.7.0.2:7400 "EPROTO closed" \
	gn_exec n1 "$GN_BIN/tests/share/hostile" tcp:10.7.0.2:7400 4294967296 secret stranger
exit $GN_FAILED
