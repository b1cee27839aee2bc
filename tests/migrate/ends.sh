#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# vm-migrate where the line or the keys are bad: X.509 in the layout that QEMU uses, of
# another authority, expired, of another name; a line that is cut and says nothing any more,
# a destination that is stopped; a hand-over without an answer. The guest runs on each time,
# and says why, within the time that is promised.

# shellcheck source=tests/netns/lib.sh
. "$(dirname "$0")/../netns/lib.sh"
# shellcheck source=tests/migrate/cli-lib.sh
. "$(dirname "$0")/cli-lib.sh"

# gn_spawn sets these, and cli-lib.sh reads some of them.
# shellcheck disable=SC2034
RUN_a='' RUN_c='' RUN_s=''
# shellcheck disable=SC2034
RECV_b='' RECV_d='' RECV_t='' PLAY='' SEND=''
ENDS=$GN_BIN/tests/migrate/test_ends
DEAD_S=10	# CHAN_DEAD_MS, as vm-migrate(8) promises
[ -x "$ENDS" ] || gn_die "no $ENDS: run make migrate-tests"

# ---- X.509 -----------------------------------------------------------------------------------
gn_must mkdir tls
gn_must "$ENDS" creds "$PWD/tls"
gn_must start a
gn_must receiver b tcp:127.0.0.1:0 --tls x509 --tls-dir tls/good

# refused DIR TEXT [ARG...]
refused()
{
	local dir=$1 text=$2
	shift 2
	gives 1 "$text" "$VMM" send -c a -t "$(uri b)" --tls x509 --tls-dir "tls/$dir" "$@" &&
		state a running && gn_wait 10 grows a "$(writes a)" && state b incoming
}
gn_check "an authority that is not known: refused" refused other 'certificate is refused.*issuer'
gn_check "our certificate has expired: refused" refused expired 'check the credentials'
gn_check "another name is expected: refused" refused good 'name.*does not match' --tls-name elsewhere
gn_check "no credentials there: said so" refused none 'ca-cert.pem'
plain() { gives 1 'runs on' "$VMM" send -c a -t "$(uri b)" && state a running && state b incoming; }
gn_check "without TLS: refused" plain
gn_check "the right one: it moves, three streams" moved a b "$(uri b)" --tls x509 --tls-dir tls/good --streams 3
gn_check "nothing was lost" sound b

stale()
{
	receiver d tcp:127.0.0.1:0 --tls x509 --tls-dir tls/expired &&
		gives 1 'certificate is refused.*expired' "$VMM" send -c b -t "$(uri d)" --tls x509 \
			--tls-dir tls/good && state b running && quit d "$RECV_d"
}
gn_check "the destination's certificate has expired: refused" stale
gn_must quit b "$RECV_b"

# ---- no answer to the hand-over ----------------------------------------------------------------
doubt()
{
	local before
	rm -f RUN_a.log
	start a || return 1
	gn_spawn PLAY "$ENDS" play tcp:127.0.0.1:0 "$TEAR" "$PWD/tls/psk" psk
	gn_wait 10 grep -q tcp: PLAY.log || return 1
	gives 5 'look at the destination' "$VMM" send -c a -t "$(cat PLAY.log)" --tls psk --tls-dir tls/psk \
		--streams 1 && state a paused || return 1
	before=$(writes a)
	"$VMM" resume -c a && gn_wait 10 grows a "$before" && sound a && quit a "$RUN_a"
}
TEAR=6	# PLAY_TEAR
gn_check "torn between hand-over and answer: exit code 5, paused, resumed by hand" doubt

# A cancel and an interrupt of send come too late; then the destination dies, and nothing has moved.
late()
{
	rm -f RUN_a.log PLAY.log SEND.log
	start a || return 1
	gn_spawn PLAY "$ENDS" play tcp:127.0.0.1:0 "$SILENT"
	gn_wait 10 grep -q tcp: PLAY.log || return 1
	gn_spawn SEND "$VMM" send -c a -t "$(cat PLAY.log)" --streams 1
	gn_wait 10 says a '"phase":"handover"' && gives 1 'too late' "$VMM" cancel -c a && kill -INT "$SEND" &&
		gn_wait 10 grep -q 'too late' SEND.log && gn_not gn_gone "$SEND" && gn_stop "$PLAY" KILL
	status_of "$SEND"
	[ $? = 1 ] && grep 'runs on where it was' SEND.log && state a running && quit a "$RUN_a"
}
SILENT=4	# PLAY_SILENT
gn_check "cancelled after the hand-over: refused" late

# ---- silence -------------------------------------------------------------------------------------
gn_ns near far
gn_veth near n0 far f0
gn_addr near n0 1
gn_addr far f0 2

busy() { status "$1" '.migration.sent_bytes > 1000000 and .migration.phase == "rounds"'; }

# From a to b over the link, which is cut; from c to d on one host, where d is stopped.
gn_spawn RUN_s gn_exec near "$VMM" run --json -a process -m 64M -n 2 -w "$LOAD" -c s
gn_spawn RECV_t gn_exec far "$VMM" recv --json -l tcp:10.0.0.2:7000 -c t
gn_must gn_wait 10 state s running
gn_must gn_wait 10 state t incoming
gn_must start c
rm -f RECV_d.log
gn_must receiver d tcp:127.0.0.1:0
gn_spawn SEND_s "$VMM" send -j -c s -t tcp:10.0.0.2:7000 --bandwidth 4M
gn_spawn SEND_c "$VMM" send -j -c c -t "$(uri d)" --bandwidth 4M
gn_must gn_wait 20 busy s
gn_must gn_wait 20 busy c
CUT=$SECONDS
gn_must gn_exec far ip link set f0 down
kill -STOP "$RECV_d"

# silent NAME - the source has noticed, in time
silent()
{
	local send=SEND_$1
	gn_wait $((DEAD_S + 20)) gn_gone "${!send}" || { echo "it waits on"; cat "$send.log"; return 1; }
	echo "after $((SECONDS - CUT)) s"
	wait "${!send}"
	[ $? = 1 ] && tail -n 1 "$send.log" | tee /dev/stderr |
		jq -e '.result == "failed" and (.error | test("does not answer"))' &&
		[ $((SECONDS - CUT)) -le $((DEAD_S + 5 + SLACK)) ] &&
		state "$1" running && gn_wait 10 grows "$1" "$(writes "$1")" && sound "$1"
}
SLACK=10	# on a machine with other things to do
gn_check "the line is cut: the source says so and runs on" silent s
waits() { gn_wait $((DEAD_S + 20)) status t '.state == "incoming" and .incoming.failures == 1'; }
gn_check "and the destination waits for another" waits
gn_check "the destination stands still: the source says so and runs on" silent c
awake()
{
	kill -CONT "$RECV_d"
	gn_wait 20 status d '.state == "incoming" and .incoming.failures == 1' &&
		moved c d "$(uri d)" && sound d && quit d "$RECV_d"
}
gn_check "it wakes up, and takes the next one" awake
mended()
{
	gn_exec far ip link set f0 up && gn_wait 20 gn_exec near ping -q -c 1 -W 1 10.0.0.2 &&
		moved s t tcp:10.0.0.2:7000 && sound t && quit t "$RECV_t"
}
gn_check "the line is mended: it moves" mended

left()
{
	ls
	[ -z "$(find "$GN_TMP" -maxdepth 1 -type s)" ] && [ -z "$(pgrep -f "$VMM")" ]
}
gn_check "no sockets, no processes are left" left
