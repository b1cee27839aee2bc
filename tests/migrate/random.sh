#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Randomised migrations of the program itself: GN_MIGRATIONS (24) of process guests, whose
# sizes, holes, streams, compression, encryption, addresses, logs and rates are drawn by lot;
# most are disturbed by a cancel, an interrupt or a SIGKILL at a random moment. The guest is
# then where it has to be, runs, and the next try succeeds; it has lost no write, its RAM is
# what was sent, and nothing is left behind: no memory, descriptor, process or socket.
#
# GN_SEED: the first seed (1); a migration that fails is repeated by GN_SEED=N GN_MIGRATIONS=1.

# shellcheck source=tests/netns/lib.sh
. "$(dirname "$0")/../netns/lib.sh"
# shellcheck source=tests/migrate/cli-lib.sh
. "$(dirname "$0")/cli-lib.sh"

SEED=${GN_SEED:-1}
COUNT=${GN_MIGRATIONS:-24}
LANES=4
ENDS=$GN_BIN/tests/migrate/test_ends
KINDS=(quiet cancel interrupt leave kill-destination kill-source kill-guest)
[ -x "$ENDS" ] || gn_die "no $ENDS: run make migrate-tests"

# gn_spawn sets these.
SRC='' DST='' SEND=''

# ---- what is drawn -----------------------------------------------------------------------
draw()
{
	local set fill
	RANDOM=$((($1 * 7919 + 17) & 32767))
	below 1000
	KIND=${KINDS[$(($1 % ${#KINDS[@]}))]}
	# Moments: any; amid the rounds; while the guest is stopped.
	any 0 0 1 1 1 2 2 2
	PACED=$R
	[ "$PACED" != 0 ] || [ "$KIND" != leave ] || PACED=1
	[ "$PACED" != 0 ] || [ "$KIND" != kill-guest ] || PACED=1
	[ "$KIND" != quiet ] || PACED=0

	below 20
	MB=$((16 + 2 * R))
	below 2
	CPUS=$((R + 1))
	any 0 1000 2000 5000 5000 10000 10000 20000 20000 40000
	RATE=$R
	any random random sequential hot
	WORK=rate=$RATE,pattern=$R
	! one_in 4 || WORK+=,write=page
	below 40
	set=$((R + 1))
	below 60
	fill=$((R + 30))
	WORK+=,set=$set%,fill=$fill%
	any '' '' 4K 16K 256K
	[ -z "$R" ] || WORK+=,piece=$R
	if [ "$PACED" = 2 ]; then	# what is left when it stops takes a while to compress
		MB=16
		WORK=rate=5000,write=page,set=10%,fill=5%
	fi
	any auto auto self
	SRC_DIRTY=$R
	any auto auto self
	DST_DIRTY=$R

	any off off psk x509
	TLS=$R
	any unix tcp
	WHERE=$R
	[ "$TLS" != x509 ] || WHERE=tcp	# the name in the certificate is a host's
	below 4
	OPTS=(--streams $((R + 1)) --max-downtime-ms 10000 --connect-timeout-ms 30000)
	any 0 0 1 4
	OPTS+=(--zstd "$R")
	any digest digest full
	OPTS+=(--verify "$R")
	any raise throttle
	OPTS+=(--on-stall "$R")
	below 300
	OPTS+=(--downtime-ms $((R + 50)))
	TLS_OPTS=()
	[ "$TLS" = psk ] && TLS_OPTS=(--tls psk --tls-dir "$TOP/tls/psk")
	[ "$TLS" = x509 ] && TLS_OPTS=(--tls x509 --tls-dir "$TOP/tls/good")
	below 400
	printf -v AFTER 0.%03d "$R"
	below 400000
	SENT=$((R + 1))	# bytes
	# The RAM of one that arrives paused is compared once more: it is migrated on.
	ON=
	! one_in 4 || ON=--paused
	echo "$KIND paced=$PACED ${MB}M cpus=$CPUS $WORK $SRC_DIRTY to $DST_DIRTY $WHERE $TLS" \
		"${OPTS[*]} after $AFTER s or $SENT bytes ${ON:+and on}"
}

# ---- processes -----------------------------------------------------------------------------
# source_up - a new source
source_up()
{
	rm -f SRC.log
	gn_spawn SRC "$VMM" run --json -a process -m ${MB}M -n "$CPUS" -w "$WORK" \
		--dirty "$SRC_DIRTY" -c "$DIR/src"
	gn_wait 20 state src running || bad "no source"
}

# receiver_up VAR NAME DIRTY ARG... - a new receiver; $URI is where it listens
receiver_up()
{
	local var=$1 name=$2 dirty=$3 uri=unix:$DIR/$2.in
	shift 3
	[ "$WHERE" = unix ] || uri=tcp:127.0.0.1:0
	rm -f "$var.log"
	gn_spawn "$var" "$VMM" recv --json -l "$uri" -c "$DIR/$name" --dirty "$dirty" "${TLS_OPTS[@]}" "$@"
	gn_wait 20 state "$name" incoming || bad "no receiver"
	[[ $(<"$var.log") =~ \"uri\":\"([^\"]+)\" ]] && URI=${BASH_REMATCH[1]}
}

# held PID - its descriptors, and its mappings of guests' memory
held() { echo "$(find "/proc/$1/fd" -type l | wc -l) $(grep -c guest-ram "/proc/$1/maps")"; }
holds() { [ "$(held "$1")" = "$2" ]; }
guestless() { [ -z "$(pgrep -P "$1")" ]; }

# sending ARG... - begin to migrate, in the background
sending()
{
	rm -f SEND.log
	gn_spawn SEND "$VMM" send -j -c "$DIR/src" -t "$URI" "${OPTS[@]}" "${TLS_OPTS[@]}" "$@"
}

# sent - how that ended, in RC
sent()
{
	gn_wait 120 gn_gone "$SEND" || bad "send does not end" || return 1
	wait "$SEND"
	RC=$?
	echo "send: $RC"
}

# whole NAME - not one write is lost
whole()
{
	local answer
	"$VMM" pause -c "$1" || bad "no pause" || return 1
	says "$1" '"guest":' && [[ ! $STATUS =~ \"errors\":[1-9] ]] ||
		bad "the guest missed a write: $STATUS" || return 1
	answer=$(echo '{"cmd":"check"}' | socat -t 30 - "UNIX:$1")
	number pages "$answer"
	if [[ $answer != *'"ok":true'*'"bad":0'* ]] || [ "$N" -lt 100 ]; then
		bad "a page differs: $answer"
	fi
}

# last - what send has said last, in LAST
last() { LAST=$(tail -n 1 SEND.log); }
digest() { [[ $LAST =~ \"digest\":\"([0-9a-f]{16})\" ]] && echo "${BASH_REMATCH[1]}"; }

# proved - the last word of the source on the RAM
proved()
{
	last
	number sent_pages "$LAST"
	if [[ $LAST != *'"audit_bad_pages":0,'*'"result":"done"'* ]] || [ "$N" -lt 100 ]; then
		bad "not proved: $LAST"
	fi
}

# ends VAR NAME - by quit, in order
ends()
{
	"$VMM" quit -c "$2" || bad "$2 does not quit" || return 1
	status_of "${!1}" || bad "$2 does not end well"
}

amid()
{
	says src '"phase":"rounds"' && number sent_bytes "$STATUS" && [ "$N" -ge "$SENT" ]
}
# stopped - or, on a busy machine, already past that
stopped() { says src '"phase":"stop"' || gn_gone "$SEND"; }

# moment - wait for it
moment()
{
	case $PACED in
	0) sleep "$AFTER" ;;	# for nothing: any time will do
	1) gn_wait 30 amid || bad "never amid the rounds" ;;
	2) gn_wait 30 stopped || bad "never stopped" ;;
	esac
}

# ---- one migration -------------------------------------------------------------------------
# runs_on HELD - a source that kept its guest has let go of all that the migration took
runs_on()
{
	if [ "$RC" = 5 ]; then
		state src paused && "$VMM" resume -c src || bad "uncertain, and not paused" || return 1
	fi
	gn_wait 20 state src running || bad "it does not run on" || return 1
	gn_wait 20 grows src "$(writes src)" || bad "it runs on, and does not write" || return 1
	gn_wait 10 holds "$SRC" "$1" || bad "the source held $1, holds $(held "$SRC")"
}

# waits_on HELD - and so has a receiver, which waits for the next
waits_on()
{
	gn_wait 30 state dst incoming || bad "it does not wait for the next" || return 1
	gn_wait 10 holds "$DST" "$1" || bad "the receiver held $1, holds $(held "$DST")" || return 1
	gn_wait 10 guestless "$DST" || bad "the receiver has a guest"
}

there() { says dst '"state":"running"' || [[ $STATUS == *'"state":"paused"'* ]]; }
# decided - does it run there, or was its migration given up?
decided() { there || [[ $STATUS =~ \"state\":\"incoming\".*\"failures\":[1-9] ]]; }

# stayed SRC-HELD DST-HELD - after a cancel: it did, or that came too late. Sets MOVED, LATE
stayed()
{
	case $RC in
	4 | 130) # 130: interrupted before it had asked for anything
		runs_on "$1" && waits_on "$2" ;;
	0) MOVED=1 LATE=1
	   [ "$KIND" = leave ] || proved ;;
	*) bad "$KIND: $RC" ;;
	esac
}

killed_destination()
{
	kill -KILL "$DST"
	sent || return 1
	wait "$DST"
	case $RC in
	1 | 5) runs_on "$1" ;;
	0)	# it had the guest
		LATE=1
		status_of "$SRC" || bad "the source has not ended well" || return 1
		source_up ;;
	*) bad "$KIND: $RC" ;;
	esac && receiver_up DST dst "$DST_DIRTY" $ON
}

killed_source()
{
	kill -KILL "$SRC"
	sent || return 1
	wait "$SRC"
	[ "$RC" = 1 ] || [ "$RC" = 3 ] || [ "$RC" = 0 ] || bad "$KIND: $RC" || return 1
	gn_wait 10 gn_not pgrep -f "$DIR/src" || bad "its guest is still there" || return 1
	# If it had not come to connect, there is nothing to decide.
	if [ "$PACED" != 0 ]; then
		gn_wait 30 decided || bad "the receiver does not decide" || return 1
	else
		gn_wait 1 decided
	fi
	if there; then
		MOVED=1 LATE=1
		rm -f src	# whoever is killed leaves that
	else
		source_up
	fi
}

killed_guest()
{
	local guest rc
	guest=$(pgrep -P "$SRC") && kill -KILL "$guest"
	sent || return 1
	wait "$SRC"
	rc=$?
	if [ "$RC$rc" = 00 ]; then
		MOVED=1 LATE=1
	elif [ $rc != 1 ]; then
		bad "the source does not say that its guest was killed: $rc"
	elif [ "$RC" = 0 ]; then	# a guest of which nothing was wanted any more
		MOVED=1 LATE=1
	else
		waits_on "$1" && source_up
	fi
}

# disturb - a first try; whoever is faster, the guest is in one place
disturb()
{
	local src dst
	src=$(held "$SRC")
	dst=$(held "$DST")
	case $PACED in
	0) sending ;;
	1) sending --bandwidth 1M --zstd 0 ;;
	2) sending --zstd 19 --streams 1 --downtime-ms 60000 ;;
	esac
	moment || return 1
	case $KIND in
	cancel)
		"$VMM" cancel -c src
		sent && stayed "$src" "$dst" ;;
	interrupt)
		kill -INT "$SEND"
		sent && stayed "$src" "$dst" ;;
	leave)	# who asked is killed, which ends nothing
		kill -KILL "$SEND"
		wait "$SEND"
		RC=4
		if ! "$VMM" cancel -c src; then
			status_of "$SRC" || bad "it failed with its client" || return 1
			RC=0
		elif ! gn_wait 30 says src '"phase":"cancelled"'; then
			bad "not cancelled" || return 1
		fi
		stayed "$src" "$dst" ;;
	kill-destination) killed_destination "$src" ;;
	kill-source) killed_source ;;
	kill-guest) killed_guest "$dst" ;;
	esac
}

# again - the next try, which succeeds unless the destination had the guest all along
again()
{
	sending
	sent || return 1
	if [ "$RC" != 0 ] && [ "$KIND" = kill-source ] && there; then
		LATE=1
		ends SRC src
		return
	fi
	[ "$RC" = 0 ] || bad "the next try: $RC" || return 1
	proved && { status_of "$SRC" || bad "the source has not ended well"; }
}

# onward - one that arrived paused is what was sent, and goes on from there
onward()
{
	local sum
	sum=$(digest)
	state dst paused || bad "it was to arrive paused" || return 1
	receiver_up FAR far auto || return 1
	"$VMM" send -j -c dst -t "$URI" "${TLS_OPTS[@]}" >SEND.log || bad "onward" || return 1
	proved || return 1
	# The last word of a source that was killed is not known.
	[ -z "$sum" ] || [ "$sum" = "$(digest)" ] || bad "its digest was $sum, and is $(digest)" || return 1
	status_of "$DST" && gn_wait 20 state far paused && "$VMM" resume -c far &&
		gn_wait 20 grows far "$(writes far)" && whole far && ends FAR far
}

# migration SEED
migration()
{
	local before
	draw "$1"
	source_up && receiver_up DST dst "$DST_DIRTY" $ON || return 1
	gn_wait 20 grows src 0 || bad "it does not write" || return 1
	MOVED=0 LATE=0 LAST=''
	[ "$KIND" = quiet ] || disturb || return 1
	[ $MOVED = 1 ] || again || return 1
	gn_wait 20 there || bad "it does not run there" || return 1
	if [ -n "$ON" ]; then
		onward || return 1
	else
		before=$(writes dst)
		gn_wait 20 grows dst "$before" || bad "it does not write there" || return 1
		whole dst && ends DST dst || return 1
	fi
	gn_wait 10 gn_not pgrep -f "$DIR/" || bad "processes are left: $(pgrep -af "$DIR/")" || return 1
	[ -z "$(find . -type s)" ] || bad "sockets are left: $(find . -type s)"
}

# lane N - every $LANES-th of them; a line each in $TOP/results
lane()
{
	local i DIR GN_TMP
	for ((i = SEED + $1; i < SEED + COUNT; i += LANES)); do
		DIR=$TOP/m$i
		GN_TMP=$DIR
		mkdir "$DIR" && cd "$DIR" || exit 1
		if migration $i >trace 2>&1; then
			echo "$KIND $PACED $LATE ok $i"
			cd "$TOP" && rm -rf "$DIR"
		else
			echo "$KIND $PACED $LATE bad $i"
			kill_all
		fi >>"$TOP/results"
	done
}

# kill_all - what a failed one left
kill_all()
{
	local p
	for p in $(pgrep -f "$DIR/"); do
		kill -KILL "$p"
	done
}

TOP=$GN_TMP
gn_note "GN_SEED=$SEED GN_MIGRATIONS=$COUNT"
gn_must mkdir tls
gn_must "$ENDS" creds "$TOP/tls"
: >results
for ((n = 0; n < LANES; n++)); do
	lane $n 2>/dev/null &	# says who was killed
	LANE[n]=$!
done
for n in "${LANE[@]}"; do
	wait "$n"
done

# report KIND - one case
report()
{
	local n bad
	n=$(grep -c "^$1 " results)
	[ "$n" -gt 0 ] || return 0
	bad=$(grep "^$1 .* bad " results | cut -d' ' -f5 | xargs)
	gn_note "$1: $n, $(grep -c "^$1 1" results) amid the rounds, $(grep -c "^$1 2" results) at a stopped guest, $(grep -c "^$1 . 1" results) too late to matter"
	if [ -z "$bad" ]; then
		gn_ok "$1, then the next try"
		return
	fi
	gn_fail "$1" "seeds $bad"
	for n in ${bad%% *}; do
		tail -n 25 "m$n/trace" | sed 's/^/#   /'
		tail -n 5 "m$n"/*.log | sed 's/^/#   /'
	done
}
for k in "${KINDS[@]}"; do
	report "$k"
done
# struck MOMENT - were some of those early enough?
struck() { [ $((4 * $(grep -c "^[a-z-]* $1 0" results))) -ge "$(grep -c "^[a-z-]* $1" results)" ]; }
gn_check "they were all run" test "$(wc -l <results)" = "$COUNT"
gn_check "amid the rounds means there" struck 1
gn_check "and at a stopped guest means that" struck 2
gn_check "no process is left" gn_not pgrep -f "$VMM"
