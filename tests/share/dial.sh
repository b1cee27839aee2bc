#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Owners that cannot be reached, or accept and never speak: while an agent tries to connect to
# them, the faults of others on its node are served. Loads are asked for once the attempt is
# seen to be under way, and answered before it has ended.

# shellcheck disable=SC2317,SC2329 # functions called through a name
# shellcheck source=tests/share/lib.sh
. "$(dirname "$0")/lib.sh"

SHARE_LEASE=4000
share_ca "$GN_TMP/keys" 10.7.0.{1,2,3}
share_net 3

# sockets N ARGS... - of node N to or from port 7400, as ss shows them
sockets() { gn_exec "n$1" ss -Htn "${@:2}" '( dport = :7400 or sport = :7400 )'; }
# under_way STATE - node 2 has a socket to node 3 in STATE
under_way() { sockets 2 state "$1" dst 10.7.0.3 | grep -q .; }
# It waits in the queue of node 3's UNIX socket.
near_way() { gn_exec n3 ss -Hxln | awk '/peer-.*-n3/ && $3 > 0 { n++ } END { exit !n }'; }

page=1048576 # downwards: pages that nobody foresees
# served CASE SEEN... - node 2's second application asks for a region of node 3, which will not
# answer. SEEN is true while the agent waits for node 3. Loads of the first one go on meanwhile.
# A machine that is very busy may let the attempt end before the answers are here: again, then.
served()
{
	local try got i
	for try in 1 2 3 4 5; do
		tell far import far secret
		if gn_wait 5 "${@:2}"; then
			for i in 1 2 3 4; do
				page=$((page - 12288))
				got=$(ask near load $page)
				[ "$got" = 7 ] || break 2
			done
			if ! IFS= read -r -t 0 -u "${APP_OUT[far]}"; then
				got=$(hear far)
				[[ $got = error* ]] || break
				gn_ok "$1"
				return
			fi
		fi
		got=$(hear far)
		gn_note "$1: attempt $try ended too early: $got"
	done
	gn_fail "$1" "a load: '$got'"
}

# up NAME [ARGS...] - nodes 1 and 3 own regions, node 2's applications import the one of node 1
up()
{
	local i how=$1
	shift
	for i in 1 2 3; do share_agent $i "$@"; done
	for i in 1 3; do share_app $i; done
	share_app 2 near
	share_app 2 far
	expect "$how: n1 exports" "ok *" 1 export near 1048576 secret
	expect "$how: n1 fills" ok 1 fill 0 1048576 7
	expect "$how: n3 exports" "ok *" 3 export far 1048576 secret
	expect "$how: n2 imports from n1" "ok *" near import near secret
	page=1048576
}

down()
{
	local i
	kill -CONT "${AGENT[3]}" 2>/dev/null
	for i in 1 2 3; do gn_stop "${AGENT[$i]}" KILL; done
	for i in 1 3 near far; do
		gn_stop "${APP[$i]}" KILL
		rm -f "$GN_TMP/$i.in" "$GN_TMP/$i.out"
	done
	rm -f "$GN_TMP/dir.json" "$GN_TMP/dir.json.nodes"
}

up tcp
gn_must kill -STOP "${AGENT[3]}"
served "tcp: an owner that accepts and never speaks" under_way established
gn_must gn_exec n2 ip neigh replace 10.7.0.3 lladdr 02:00:00:00:00:99 nud permanent dev eth0
served "tcp: an owner that cannot be reached" under_way syn-sent
gn_must gn_exec n2 ip neigh del 10.7.0.3 dev eth0
gn_must kill -CONT "${AGENT[3]}"
expect "tcp: n2 imports from it when it speaks again" "ok *" far import far secret

# Its agent dies; something else listens there and is silent: the import is lost in the end, and
# is in nobody's way until then.
gn_stop "${AGENT[3]}" KILL
gn_spawn silent gn_exec n3 socat -u TCP-LISTEN:7400,fork,reuseaddr /dev/null
gn_check "tcp: n2 tries to come back to it" gn_wait 5 under_way established
tell far load 8192
for page in 253952 135168 16384; do expect "tcp: meanwhile loads go on" 7 near load $page; done
gn_check "tcp: what waits for it ends with its lease" [ "$(hear far)" = sigbus ]
# shellcheck disable=SC2154 # set by gn_spawn
gn_stop "$silent"
down

up tls --tls x509 --tls-dir "$GN_TMP/keys"
gn_must kill -STOP "${AGENT[3]}"
served "tls: an owner that accepts and never shakes hands" under_way established
down

SHARE_ARGS=()
up unix
gn_must kill -STOP "${AGENT[3]}"
served "unix: an owner that accepts and never speaks" near_way
gn_must kill -CONT "${AGENT[3]}"
expect "unix: n2 imports from it when it speaks again" "ok *" far import far secret
down
exit $GN_FAILED
