#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# TLS between nodes: those of one authority, or one key, share memory; others are refused on
# both sides, counted, told why, and hold nobody up. Then the tests of three nodes, and of moves
# under kills, by TLS.

# shellcheck disable=SC2317,SC2329 # functions called through a name
# shellcheck source=tests/share/lib.sh
. "$(dirname "$0")/lib.sh"
SHARE_LEASE=1000	# applications of one mode lose their region before the next begins

share_ca "$GN_TMP/good" 10.7.0.{1,2}
share_ca "$GN_TMP/other" 10.7.0.3
# The right authority, but another host's, or another node's
SHARE_CA=$GN_TMP/good share_ca "$GN_TMP/elsewhere" 10.7.0.99 n1
SHARE_CA=$GN_TMP/good share_ca "$GN_TMP/misnamed" =10.7.0.3 n1 n2
share_net 4

stat_of() { gn_exec "n$1" env GHOSTMEM_AGENT="$GN_TMP/n$1.sock" "$GN_BIN/ghostmem" stat -j; }
counter() { stat_of "$1" | jq ".counters.$2"; }

# agent I ARG... - share_agent, and where its log begins: what is refused again and again is not
# said each time
agent()
{
	from=$(wc -l <"$GN_TMP/pid.log")
	share_agent "$@"
}

# refused CASE AT COUNTER-OF MESSAGE [REGION] - importing from node 1 fails, is counted, has a reason
refused()
{
	local before after got
	before=$(counter "$3" bad_tls)
	got=$(ask "$2" import "${5:-mem}" secret)
	after=$(counter "$3" bad_tls)
	if [ "$got" = "error EPROTO" ] && [ "$after" -gt "$before" ] &&
		tail -n "+$((from + 1))" "$GN_TMP/pid.log" | grep -qE "$4"; then
		gn_ok "$1"
	else
		gn_fail "$1" "'$got', bad_tls of n$3 from $before to $after; log:"
		tail -n "+$((from + 1))" "$GN_TMP/pid.log" | sed 's/^/#   /'
	fi
}

for mode in x509 psk; do
	share_agent 1 --tls $mode --tls-dir "$GN_TMP/good"
	share_app 1 $mode.1
	agent 2 --tls $mode --tls-dir "$GN_TMP/good"
	share_app 2 $mode.2
	expect "$mode: owner exports" "ok *" $mode.1 export mem 1048576 secret
	expect "$mode: owner stores" ok $mode.1 store 8 42
	expect "$mode: n2 imports" "ok *" $mode.2 import mem secret
	expect "$mode: n2 loads" 42 $mode.2 load 8
	expect "$mode: n2 gets" 42 $mode.2 get 8
	gn_check "$mode: address says so" grep -q '"tls:10.7.0.1:7400"' "$GN_TMP/dir.json"

	agent 3 --tls $mode --tls-dir "$GN_TMP/other"
	share_app 3 $mode.3
	refused "$mode: credentials of another authority: refused, here too" $mode.3 3 \
		"certificate is refused|keys do not match|refuses us"
	gn_stop "${AGENT[3]}"
	agent 3 --tls "$([ $mode = psk ] && echo x509 || echo psk)" --tls-dir "$GN_TMP/good"
	share_app 3 $mode.3b
	refused "$mode: the other kind of credentials" $mode.3b 3 "keys do not match|refuses us"
	gn_stop "${AGENT[3]}"

	if [ $mode = x509 ]; then
		agent 3 --tls x509 --tls-dir "$GN_TMP/misnamed"
		share_app 3 $mode.3c
		refused "a node whose certificate names others cannot import" $mode.3c 1 \
			"its certificate does not name node n3"
		expect "a node whose certificate names others exports" "ok *" $mode.3c export mine 1048576 secret
		before=$(counter 2 bad_tls)
		expect "it is not imported from" "error EPROTO" $mode.2 import mine secret
		gn_check "that is counted" [ "$(counter 2 bad_tls)" -gt "$before" ]
		gn_check "and told why" grep -q "10.7.0.3:7400: its certificate does not name node n3" \
			"$GN_TMP/pid.log"
		gn_stop "${AGENT[3]}"
	fi
	share_agent 4
	share_app 4 $mode.4
	refused "$mode: a node without credentials cannot import" $mode.4 4 "10.7.0.1:7400: it wants TLS"
	before=$(counter 1 bad_tls)
	got=$(gn_exec n4 timeout 20 "$GN_BIN/tests/share/hostile" tcp:10.7.0.1:7400 4294967296 secret none)
	if [[ $got != ok* ]] && [ "$(counter 1 bad_tls)" = $((before + 1)) ]; then
		gn_ok "$mode: who speaks plainly to it is refused and counted"
	else
		gn_fail "$mode: who speaks plainly to it is refused and counted" "$got"
	fi
	expect "$mode: owner without credentials exports" "ok *" $mode.4 export plain 1048576 secret
	before=$(counter 2 bad_tls)
	expect "$mode: it is not imported from" "error EPROTO" $mode.2 import plain secret
	gn_check "$mode: that is counted" [ "$(counter 2 bad_tls)" = $((before + 1)) ]
	gn_check "$mode: and told why" grep -q "10.7.0.4:7400: it speaks plain TCP" "$GN_TMP/pid.log"

	# Whoever connects and is silent is in nobody's way, and sent away.
	[ $mode = psk ] ||
		gn_spawn silent gn_exec n4 socat -u TCP:10.7.0.1:7400 /dev/null
	expect "$mode: others go on" "ok *" $mode.2 import mem secret
	expect "$mode: n2 stores" ok $mode.2 store 16 5
	expect "$mode: owner loads" 5 $mode.1 load 16
	# shellcheck disable=SC2154 # set by gn_spawn
	[ $mode = psk ] || gn_check "$mode: a silent peer is sent away" gn_wait 10 gn_gone "$silent"
	for i in 1 2 4; do gn_stop "${AGENT[$i]}"; done
	rm -f "$GN_TMP/dir.json" "$GN_TMP/dir.json.nodes"
done

# An address with a name, which the certificate has to be for; nobody but its own node looks it up.
share_agent 1 --tls x509 --tls-dir "$GN_TMP/good" --advertise tcp:other@10.7.0.1:7400
share_app 1 name.1
expect "owner with another name exports" "ok *" name.1 export named 1048576 secret
agent 2 --tls x509 --tls-dir "$GN_TMP/good"
share_app 2 name.2
refused "its certificate is for another name" name.2 2 "does not match" named
gn_stop "${AGENT[1]}"
rm -f "$GN_TMP/dir.json"
cp /etc/hosts "$GN_TMP/hosts" && echo "10.7.0.1 n1" >>"$GN_TMP/hosts"
gn_must mount --bind "$GN_TMP/hosts" /etc/hosts
share_agent 1 --tls x509 --tls-dir "$GN_TMP/good" --listen tcp:n1:7400
gn_must umount /etc/hosts
share_app 1 name.1b
expect "owner at a name exports" "ok *" name.1b export named 1048576 secret
gn_check "the directory has number and name" grep -q '"tls:n1@10.7.0.1:7400"' "$GN_TMP/dir.json"
expect "who cannot look it up imports" "ok *" name.2 import named secret
expect "and loads" 0 name.2 load 8
expect "and gets" 0 name.2 get 8
for i in 1 2; do gn_stop "${AGENT[$i]}"; done
rm -f "$GN_TMP/dir.json" "$GN_TMP/dir.json.nodes"

# A certificate for another host; an application that may not read the credentials.
share_agent 1 --tls x509 --tls-dir "$GN_TMP/elsewhere"
share_app 1 host.1
expect "owner with another host's certificate exports" "ok *" host.1 export mem 1048576 secret
agent 2 --tls x509 --tls-dir "$GN_TMP/good"
share_app 2 host.2
refused "its certificate is for another host" host.2 2 "does not match"
gn_stop "${AGENT[2]}"
agent 2 --tls x509 --tls-dir "$GN_TMP/good" --tls-name 10.7.0.99
share_app 2 host.2b
expect "unless that host is asked for" "ok *" host.2b import mem secret
expect "get" 0 host.2b get 8
GHOSTMEM_TLS_DIR=$GN_TMP/nowhere share_app 2 host.2c
expect "no credentials of its own: imports" "ok *" host.2c import mem secret
expect "no credentials of its own: loads" 0 host.2c load 8
expect "no credentials of its own: get is an error" "error ENOKEY" host.2c get 8
gn_check "no such directory is an error at start" gn_not gn_exec n3 timeout 5 "$GN_BIN/ghostmemd" \
	--node n3 --listen tcp:10.7.0.3:7400 --directory "file:$GN_TMP/dir.json" \
	--local "$GN_TMP/n3.sock" --tls psk --tls-dir "$GN_TMP/nowhere"

# other TEST MODE
other()
{
	SHARE_TLS=$2 bash "$GN_TOP/tests/share/$1.sh" |
		sed "s/^\\(not ok\\|ok\\) /&by $2: /"
	[ "${PIPESTATUS[0]}" = 0 ] || GN_FAILED=1
}
other nodes x509
other nodes psk
exit $GN_FAILED
