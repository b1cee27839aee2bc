#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# vm-migrate as a user calls it, with a process as the guest: run, send, recv, status,
# cancel, pause, resume, quit; bad input, exit codes, JSON, the bar on a terminal; a killed
# destination, a killed source, a cancel, each with a retry; what starts paused, huge pages, the
# console of a terminal; nothing is left behind.

# shellcheck source=tests/netns/lib.sh
. "$(dirname "$0")/../netns/lib.sh"

# gn_spawn sets these.
RUN_a=''
RECV_b='' RECV_c='' RECV_d='' RECV_e='' RECV_f='' RECV_g='' RECV_h='' RECV_i='' RECV_k=''
RECV_l='' RECV_m='' RECV_n='' RECV_o='' RECV_p='' RECV_q=''
# shellcheck source=tests/migrate/cli-lib.sh
. "$(dirname "$0")/cli-lib.sh"

# ---- words and codes ---------------------------------------------------------------------
usage()
{
	gives 2 'commands:' "$VMM" && gives 0 'exit codes' "$VMM" --help &&
		gives 0 'vm-migrate [0-9]' "$VMM" --version &&
		gives 2 'no command' "$VMM" fly &&
		gives 2 'nothing to run' "$VMM" run &&
		gives 2 'unrecognized' "$VMM" run --nonsense &&
		gives 2 'no parameter "speed"' "$VMM" run -w speed=3 &&
		gives 2 'is no size' "$VMM" run -w rate=1 -m 12Q &&
		gives 2 'multiple of 2M' "$VMM" run -w rate=1 -m 3M &&
		gives 2 'out of range' "$VMM" run -w rate=1 -n 9 &&
		gives 2 'needs --accel kvm' "$VMM" run -a process -k /dev/null &&
		gives 2 'pagemap or self' "$VMM" run -a process -w rate=1 --dirty ring &&
		gives 2 'needs --control' "$VMM" send --to tcp:127.0.0.1:1 &&
		gives 2 'needs --listen' "$VMM" recv &&
		gives 2 'needs --tls-dir' "$VMM" recv -l unix:x --tls psk &&
		gives 2 'is none of' "$VMM" send -c x -t unix:y --on-stall pray &&
		gives 0 'of --watch' "$VMM" status --help
}
gn_check "options that cannot be are refused, with the reason" usage

absent()
{
	local c
	for c in status cancel pause resume quit; do
		gives 3 'no VM answers' "$VMM" $c -c nowhere || return 1
	done
	gives 3 'no VM answers' "$VMM" send -c nowhere -t unix:x &&
		gives 3 '"ok":false' "$VMM" status -j -c nowhere
}
gn_check "nobody there: exit code 3" absent

ends()
{
	gives 0 '"how":"ended"' "$VMM" run --json -a process -m 16M -w stop=1000 &&
		gives 0 'has ended' "$VMM" run -a process -m 16M -n 4 -w stop=1000,write=page
}
gn_check "a guest that ends by itself ends the VM" ends

# ---- a VM that runs ----------------------------------------------------------------------
gn_check "run" start a
vm_jailed()
{
	local guest
	guest=$(cat "/proc/$RUN_a/task"/*/children | tr -d ' ')
	# CAP_NET_BIND_SERVICE, for streams from and to ports below 1024
	gn_jailed "$RUN_a" 0x400 && gn_jailed "${guest:?}" 0x400
}
gn_check "it and its guest have given up their rights" vm_jailed
gn_check "its socket is taken: said so" gives 1 'another VM listens' "$VMM" run -a process -w rate=1 -c a

orders()
{
	local n
	gives 0 paused "$VMM" pause -c a && state a paused || return 1
	n=$(writes a)
	gives 0 '"bad":0' sh -c 'echo "{\"cmd\":\"check\"}" | socat -t 5 - UNIX:a' || return 1
	[ "$(writes a)" = "$n" ] || { echo "it was paused, and wrote"; return 1; }
	gives 0 running "$VMM" resume -c a && gn_wait 10 grows a "$n" &&
		gives 1 'pause the VM first' sh -c 'echo "{\"cmd\":\"check\"}" | socat -t 5 - UNIX:a | tee /dev/stderr | jq -e .ok' &&
		gives 1 'no migration runs' "$VMM" cancel -c a &&
		gives 0 'rate=20000' "$VMM" status -c a
}
gn_check "status, pause, check, resume" orders

nonsense()
{
	local text
	for text in x '{}' '{"cmd":1}' '{"cmd":"fly"}' '{"cmd":"status","x":1}' '[]' \
		'{"cmd":"migrate"}' '{"cmd":"migrate","to":"fd:0"}' \
		'{"cmd":"migrate","to":"unix:/x","streams":99}'; do
		echo "$text" | socat -t 5 - UNIX:a | tee answer | jq -e '.ok == false and (.error | length) > 5' ||
			{ cat answer; return 1; }
	done
	head -c 9000 /dev/zero | tr '\0' x | socat -t 5 - UNIX:a | jq -e '.ok == false' &&
		printf '{"cmd":"status"}\n{"cmd":"status"}\n' | socat -t 5 - UNIX:a | jq -se 'length == 2' &&
		state a running
}
gn_check "nonsense at the control socket" nonsense

nowhere()
{
	gives 1 'runs on' "$VMM" send -c a -t "unix:$GN_TMP/nothing" &&
		gives 1 'runs on' "$VMM" send -c a -t tcp:127.0.0.1:9 &&
		gives 1 '"result":"failed"' "$VMM" send -j -c a -t mail:nobody &&
		state a running
}
gn_check "nobody at the destination: it runs on" nowhere

# ---- there, and there, and there ----------------------------------------------------------
gn_check "recv on a port of its choice" receiver b tcp:127.0.0.1:0
gn_check "migrate by TCP, four streams" moved a b "$(uri b)" --streams 4
gn_check "nothing was lost" sound b
gn_check "the source ended with success" status_of "$RUN_a"

gn_check "recv on a UNIX socket, with a log of the guest's own" receiver c "unix:$GN_TMP/c.in" --dirty self
gn_check "migrate on, compressed" moved b c "unix:c.in" --zstd 1
random_bytes() { tail -n 1 send.json | jq -e '.sent_bytes > .sent_pages * 4000'; }
gn_check "what the guest is filled with is random, and does not get shorter" random_bytes
gn_check "nothing was lost this time either" sound c
gn_check "the second source ended with success" status_of "$RECV_b"
receiver d "unix:$GN_TMP/d.in"
gn_check "migrate by the guest's own log, verified in full" moved c d unix:d.in --verify full
gn_check "still nothing lost" sound d
status_of "$RECV_c"

paused()
{
	receiver e "unix:$GN_TMP/e.in" && "$VMM" pause -c d &&
		gives 0 'done:' "$VMM" send -c d -t unix:e.in && gn_wait 10 state e paused &&
		"$VMM" resume -c e && gn_wait 10 grows e "$(writes e)"
}
gn_check "a paused VM arrives paused" paused
status_of "$RECV_d"
gn_check "quit" quit e "$RECV_e"

# ---- what goes wrong ---------------------------------------------------------------------
# busy NAME - a migration is under way there
busy() { status "$1" '.migration.sent_bytes > 1000000 and .migration.phase == "rounds"'; }

# slow NAME URI - a migration that takes longer than the test; sets SEND
slow()
{
	rm -f SEND.log
	gn_spawn SEND "$VMM" send -j -c "$1" -t "$2" --bandwidth 4M
	gn_wait 20 busy "$1"
}

sent() { status_of "$SEND"; [ $? = "$1" ] || { cat SEND.log; return 1; }; }

cancelled()
{
	slow a unix:b.in || return 1
	gives 1 'a migration runs' "$VMM" pause -c a || return 1
	gives 1 'a migration runs' "$VMM" send -c a -t unix:b.in || return 1
	gives 0 cancelled "$VMM" cancel -c a && sent 4 &&
		tail -n 1 SEND.log | jq -e '.result == "cancelled"' &&
		state a running && gn_wait 10 grows a "$(writes a)" &&
		gn_wait 10 status b '.state == "incoming" and .incoming.failures == 1'
}
interrupted()
{
	slow a unix:b.in || return 1
	kill -INT "$SEND"
	sent 4 && state a running
}
dead_destination()
{
	slow a unix:b.in || return 1
	kill -KILL "$RECV_b"
	sent 1 && tail -n 1 SEND.log | jq -e '.result == "failed" and (.error | length) > 10' &&
		state a running && gn_wait 10 grows a "$(writes a)"
}
dead_source()
{
	slow a unix:b.in || return 1
	kill -KILL "$RUN_a"
	sent 1 && gn_wait 20 status b '.state == "incoming" and .incoming.failures == 1'
}
dead_guest()
{
	local pid
	pid=$(pgrep -P "$RUN_a")
	kill -KILL "$pid"
	status_of "$RUN_a"
	[ $? = 1 ] && tail -n 1 RUN_a.log | grep -q 'killed by signal 9'
}

rm -f RUN_a.log RECV_b.log
gn_must start a
gn_must receiver b "unix:$GN_TMP/b.in"
gn_check "cancel: exit code 4, it runs on, the destination waits again" cancelled
gn_check "an interrupt of send cancels" interrupted
gn_check "destination killed: exit code 1, it runs on" dead_destination
receiver b "unix:$GN_TMP/b.in"
gn_check "source killed: the destination waits again" dead_source
rm -f RUN_a.log
start a
gn_check "a retry succeeds" moved a b unix:b.in
gn_check "and nothing was lost" sound b
status_of "$RUN_a"
gn_check "quit after all that" quit b "$RECV_b"

gave_up()
{
	receiver f "unix:$GN_TMP/f.in" --max-failures 2 || return 1
	echo nonsense | socat - "UNIX:$GN_TMP/f.in"
	gn_wait 10 status f '.incoming.failures == 1' || return 1
	head -c 100000 /dev/urandom | socat - "UNIX:$GN_TMP/f.in"
	status_of "$RECV_f"
	[ $? = 1 ] && grep -q '"ok":false' RECV_f.log
}
gn_check "a stream of nonsense is a failure, of which recv takes so many" gave_up

too_much()
{
	rm -f RUN_a.log
	start a && receiver g "unix:$GN_TMP/g.in" --max-memory 32M &&
		gives 1 'more than recv was allowed' "$VMM" send -c a -t unix:g.in && state a running &&
		quit g "$RECV_g"
}
gn_check "a VM with more memory than allowed is refused, and told so" too_much

terminated()
{
	rm -f RUN_a.log
	start a || return 1
	kill -TERM "$RUN_a"
	status_of "$RUN_a"
}

# With the right key the stream is encrypted; with another one nobody gets in.
encrypted()
{
	mkdir keys other
	printf 'qemu:%s\n' "$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')" >keys/keys.psk
	printf 'qemu:%s\n' "$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')" >other/keys.psk
	receiver i tcp:127.0.0.1:0 --tls psk --tls-dir keys || return 1
	gives 1 'runs on' "$VMM" send -c a -t "$(uri i)" && state a running &&
		gives 1 'runs on' "$VMM" send -c a -t "$(uri i)" --tls psk --tls-dir other &&
		state a running && moved a i "$(uri i)" --tls psk --tls-dir keys --streams 2 &&
		sound i && status_of "$RUN_a" && quit i "$RECV_i"
}
gn_check "TLS with a shared key; without it, or with another, nothing moves" encrypted

# A guest that writes faster than the line takes, and every answer to that.
stalled()
{
	rm -f RUN_a.log
	start a -w rate=50000,fill=50% && receiver j "unix:$GN_TMP/j.in" || return 1
	gives 1 'runs on' "$VMM" send -c a -t unix:j.in -b 60M --downtime-ms 10 --on-stall abort &&
		state a running &&
		gives 0 'done:' "$VMM" send -c a -t unix:j.in -b 60M --downtime-ms 10 --on-stall raise \
			--max-downtime-ms 5000 && gn_wait 10 state j running && status_of "$RUN_a" || return 1
	rm -f RUN_a.log
	receiver k "unix:$GN_TMP/k.in" && moved j k unix:k.in -b 30M --downtime-ms 300 &&
		tail -n 1 send.json | jq -e '.throttle_percent > 0' && sound k && quit k "$RECV_k"
}
gn_check "no convergence: abort, raise, throttle" stalled

# The bar is for terminals.
bar()
{
	rm -f RUN_a.log
	start a && receiver h "unix:$GN_TMP/h.in" || return 1
	script -qec "$VMM send -c a -t unix:h.in --bandwidth 32M --interval 0.05" typescript >/dev/null </dev/null
	tr '\r' '\n' <typescript | tee typed | grep -q '^\[#.*left' &&
		grep -q 'done: .* s, downtime .* ms, .* rounds, digest [0-9a-f]\{16\}' typed
}
gn_check "a bar on a terminal, and the figures" bar
status_of "$RUN_a"
quit h "$RECV_h"

rm -f RUN_a.log
start a
gn_check "a guest that is killed is a VM that failed" dead_guest

gn_check "a signal ends a VM in order" terminated

# ---- options that change how it goes -------------------------------------------------------
# audited WANT - the last word of the last migration: audit_bad_pages is that
audited() { tail -n 1 send.json | jq -e ".result == \"done\" and .audit_bad_pages == $1 and (.digest | length) == 16"; }

# hold NAME - it has the state paused, and writes nothing
hold()
{
	state "$1" paused && [ "$(writes "$1")" = 0 ]
}

# unseen - write to a page that was sent, behind the back of a's log; its guest never does
unseen()
{
	local fd
	for fd in /proc/"$RUN_a"/fd/*; do
		[[ $(readlink "$fd") != *memfd:guest-ram* ]] || break
	done
	dd if=/dev/urandom of="$fd" bs=4096 count=1 seek=2560 conv=notrunc status=none
}
past() { status a '.migration.phase == "rounds" and .migration.sent_bytes > 14000000'; }

# lost HOW TEXT - a migration that is verified like that finds that this write is missing, and says so
lost()
{
	rm -f SEND.log
	gn_spawn SEND "$VMM" send -c a -t unix:q.in -s 1 -b 16M --on-stall raise \
		--max-downtime-ms 10000 --verify "$1"
	gn_wait 20 past && unseen && sent 6 && grep -e "$2" SEND.log
}
lost_before()
{
	rm -f RUN_a.log
	start a && receiver q "unix:$GN_TMP/q.in" && lost full 'not handed over' && state a running &&
		gn_wait 10 grows a "$(writes a)" && state q incoming &&
		status a '.migration.phase == "failed" and .migration.audit_bad_pages == 1'
}
lost_after()
{
	lost digest 'was handed over' || return 1
	status_of "$RUN_a"
	[ $? = 6 ] && gn_wait 10 state q running && quit q "$RECV_q"
}
gn_check "a write is lost, --verify full: exit code 6, it runs on" lost_before
gn_check "a write is lost, --verify digest: exit code 6, handed over" lost_after

not_started()
{
	rm -f RUN_a.log RECV_l.log RECV_m.log
	gn_spawn RUN_a "$VMM" run --json -a process -m 64M -n 2 -w "$LOAD" -c a --paused
	gn_wait 10 hold a && receiver l "unix:$GN_TMP/l.in" --paused || return 1
	gives 0 '"bad":0' sh -c 'echo "{\"cmd\":\"check\"}" | socat -t 5 - UNIX:a' &&
		gives 0 running "$VMM" resume -c a && gn_wait 10 grows a 0 &&
		timeout 60 "$VMM" send -c a -t unix:l.in -j >send.json && audited 0 &&
		gn_wait 10 state l paused && status_of "$RUN_a" || return 1
	# What was not started here is not started there.
	receiver m "unix:$GN_TMP/m.in" &&
		timeout 60 "$VMM" send -c l -t unix:m.in -j --verify none >send.json && audited null &&
		gn_wait 10 state m paused && status_of "$RECV_l" && "$VMM" resume -c m &&
		gn_wait 10 grows m "$(writes m)" && sound m
}
gn_check "--paused: not started until it is resumed, here and there; --verify none" not_started

rates()
{
	gives 0 '"ok":true' "$VMM" dirty-rate -c m --seconds 1 --interval 0.25 --json &&
		tail -n 1 out | jq -e '.bytes_per_s > 1000000 and .ram_bytes > 60000000 and (.forecast | length) == 4' &&
		gives 0 'written so far' "$VMM" dirty-rate -c m -s 0.5 -b 1G && grep -q 'dirty: .*/s' out &&
		gives 2 'at most 5 s' "$VMM" dirty-rate -c m -s 20 --interval 10 &&
		gives 3 '' "$VMM" dirty-rate -c nowhere && state m running && sound m
}
gn_check "dirty-rate of one that runs" rates

# Nobody answers what is sent, for the process stands still.
mute()
{
	local then=$SECONDS
	receiver n "unix:$GN_TMP/n.in" --tls psk --tls-dir keys || return 1
	kill -STOP "$RECV_n"
	gives 1 'silent' "$VMM" send -c m -t unix:n.in --tls psk --tls-dir keys --connect-timeout-ms 300 ||
		{ kill -CONT "$RECV_n"; return 1; }
	kill -CONT "$RECV_n"
	echo "after $((SECONDS - then)) s"
	[ $((SECONDS - then)) -lt 9 ] && state m running && quit n "$RECV_n"
}
gn_check "--connect-timeout-ms, of a destination that stands still" mute
gn_check "quit" quit m "$RECV_m"

# The console of a terminal: control-] ends the VM, the terminal is as before.
console()
{
	cat >console.sh <<-END
	stty -g >before
	"$VMM" run -a process -w rate=100 -c a --console stdio
	echo \$? >code
	stty -g >after
	END
	mkfifo keys.in
	exec {keys}<>keys.in
	script -qec "$BASH console.sh" typescript <keys.in >/dev/null 2>&1 &
	GN_PIDS+=($!)
	gn_wait 10 state a running || return 1
	printf 'not for us\003' >&"$keys"	# control-C is the guest's
	state a running || return 1
	printf '\035' >&"$keys"
	gn_wait 10 test -s after
	exec {keys}>&-
	cat typescript
	[ "$(cat code)" = 0 ] && cmp before after
}
gn_check "a console on a terminal" console

# Huge pages are set aside for the test, if none are there.
POOL=/proc/sys/vm/nr_overcommit_hugepages
pool() { HAD=$(cat $POOL) && echo $((HAD + 100)) >$POOL; }
huge()
{
	rm -f RUN_a.log RECV_o.log RECV_p.log
	start a --huge && receiver o "unix:$GN_TMP/o.in" --huge && moved a o unix:o.in && sound o &&
		receiver p "unix:$GN_TMP/p.in" && moved o p unix:p.in --streams 2 && sound p &&
		status_of "$RUN_a" && status_of "$RECV_o" && quit p "$RECV_p"
}
few()
{
	echo 0 >$POOL
	gives 1 'of huge pages are not there' "$VMM" run -a process -w rate=1 -m 64G --huge
}
if pool 2>pool.err; then
	gn_check "huge pages there, and from there small ones" huge
	gn_check "not enough huge pages: said so" few
	echo "$HAD" >$POOL
else
	gn_skip "huge pages" "$(cat pool.err)"
fi

left()
{
	ls
	[ -z "$(find "$GN_TMP" -type s)" ] && [ -z "$(pgrep -f "$VMM")" ]
}
gn_check "no sockets, no processes are left" left
