#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Randomised migrations of QEMUs by `vm-migrate qemu`: GN_QEMU_MIGRATIONS (10) of an emulated
# guest that writes all the time (writer.S), whose size, memory backends, holes, streams,
# compression, bandwidth, address and encryption are drawn by lot. Half of them are disturbed
# at a random moment: vm-migrate gets SIGINT or SIGKILL, or the destination's QEMU SIGKILL.
# The guest is then where it has to be, runs, and the next try succeeds.
#
# What vm-migrate says of the RAM is not believed: of each guest that has come, all of it is
# compared here with what the source's was when it stopped, by other means (writer_ram).
# Of the kind "spoilt" one byte is changed at the destination before vm-migrate compares: it has
# to find that, and neither side runs until we say where. If QEMU itself loses a write, it has to be
# found too, and the guest goes on at the source; those are counted, and said.
#
# GN_SEED: the first seed (1); a migration that fails is repeated by GN_SEED=N GN_QEMU_MIGRATIONS=1.

# Addresses for themselves.
if [ "$(id -u)" = 0 ] && [ -z "${GN_INSIDE-}${GN_NETLESS-}" ]; then
	exec unshare --net env GN_NETLESS=1 "$BASH" "$0" "$@"
fi

# shellcheck source=tests/vhost/qemu-lib.sh
. "$(dirname "$0")/../vhost/qemu-lib.sh"
# shellcheck source=tests/migrate/writer-lib.sh
. "$(dirname "$0")/writer-lib.sh"
# shellcheck source=tests/migrate/cli-lib.sh
. "$(dirname "$0")/cli-lib.sh"

SEED=${GN_SEED:-1}
COUNT=${GN_QEMU_MIGRATIONS:-10}
LANES=2
KINDS=(quiet cancel spoilt kill quiet kill-destination quiet cancel quiet kill)
TOP=$GN_TMP

TOOL_RUN=''	# gn_spawn sets it

# ---- what is drawn -----------------------------------------------------------------------
draw()
{
	local low data ms
	RANDOM=$((($1 * 7919 + 17) & 32767))
	below 1000
	KIND=${KINDS[$(($1 % ${#KINDS[@]}))]}

	any pc q35
	MACHINE=$R
	below 89
	MB=$((R + 8))
	low=$MB
	MEMORY=(-m "$MB" -object "memory-backend-memfd,id=one,size=${MB}M,share=on")
	if one_in 2; then
		MACHINE+=,memory-backend=one
	else
		below $((MB - 3))
		ONE=$((R + 2))
		# shellcheck disable=SC2054 # QEMU's commas
		MEMORY=(-m "$MB" -object "memory-backend-memfd,id=one,size=${ONE}M,share=on"
			-object "memory-backend-memfd,id=two,size=$((MB - ONE))M,share=on"
			-numa node,memdev=one -numa node,memdev=two)
		if [ $MB -ge 16 ] && one_in 2; then	# the rest of it lies above 4 GiB
			low=$((MB / 2))
			MACHINE+=,max-ram-below-4g=${low}M
		fi
	fi
	any 1 1 2
	CPUS=$R

	# The guest: counters, then what was ever filled; the BIOS has the end.
	any 1 7 32 100 256
	PAGES=$R
	any 1 1 2 3 8
	STRIDE=$R
	any 0 10 30 60 100
	FILL=$((WRITER_HOT + (256 << 12)))
	END=$((FILL + ((((low << 20) - FILL - (1 << 20)) >> 12) * R / 100 << 12)))
	FILLED=$(((END - FILL + STRIDE * 4096 - 1) / (STRIDE * 4096)))

	any 1 1 2 3 4
	OPTS=(--streams "$R")
	if [ "$R" -gt 1 ]; then
		any 0 1 3
		[ "$R" = 0 ] || OPTS+=(--zstd "$R")
	fi
	any 0 1 1
	LIMITED=$R
	[ "$KIND" = quiet ] || LIMITED=1
	below 700
	ms=$((R + 100))	# for all of it, once
	data=$(((FILLED + PAGES) * 4096 + (MB << 13)))
	BANDWIDTH=$((data * 1000 / ms))
	[ $BANDWIDTH -ge 65536 ] || BANDWIDTH=65536
	[ "$LIMITED" = 0 ] || OPTS+=(--bandwidth "$BANDWIDTH")
	SLOW=()		# the first try, as if it had no end
	[ "$KIND" != cancel ] || ! one_in 2 || SLOW=(--bandwidth 64K)
	below 1000
	OPTS+=(--downtime-ms $((R + 100)))
	any raise raise throttle
	OPTS+=(--on-stall "$R" --max-downtime-ms 10000)
	any unix tcp
	WHERE=$R
	any off off x509
	TLS=$R
	[ "$TLS" = off ] || OPTS+=(--tls-creds creds --tls-hostname localhost)
	[ "$KIND" != quiet ] || ! one_in 4 || OPTS+=(--quit-source)
	below $((ms + 400))
	printf -v AFTER '%d.%03d' $((R / 1000)) $((R % 1000))
	any wait give-up
	THEN=$R
	below $((PAGES + FILLED * STRIDE))
	SPOIL=$R
	any patient impatient
	HASTE=$R
	echo "$KIND ${MEMORY[*]} $MACHINE cpus=$CPUS pages=$PAGES filled=$FILLED/$STRIDE" \
		"$WHERE $TLS ${OPTS[*]} ${SLOW[*]} after $AFTER s, $THEN, $HASTE"
}

# ---- the QEMUs -----------------------------------------------------------------------------
# machine NAME client|server ARG...
machine()
{
	local name=$1 side=$2
	shift 2
	[ "$TLS" = off ] || set -- -object "tls-creds-x509,id=creds,dir=$TOP/tls/good,endpoint=$side" "$@"
	plain "$name" -machine "$MACHINE" -accel tcg -smp "$CPUS" "${MEMORY[@]}" \
		-drive "file=$DIR/boot,format=raw,file.locking=off" "$@" || bad "$name does not start" || return 1
	ram_open "$name" || bad "no memory of $name"
}

goes_on()
{
	gn_wait 10 beyond "$1" "$(counts "$1")" || bad "$1 runs, and its CPU does not write"
}
runs() { ask "$1" query-status >/dev/null && [[ $ANSWER == *'"status": "'$2'"'* ]]; }
# settings NAME - in SETTINGS
settings()
{
	ask "$1" query-migrate-parameters >/dev/null
	SETTINGS=$ANSWER
	ask "$1" query-migrate-capabilities >/dev/null
	SETTINGS+=$ANSWER
}
# same NAME SETTINGS
same()
{
	settings "$1"
	[ "$SETTINGS" = "$2" ] || bad "settings of $1 are others: $SETTINGS; they were: $2"
}
gone() { gn_gone "${QEMU_PID[$1]}"; }

source_up()
{
	machine a client && gn_wait 15 beyond a 0 || bad "no guest that writes" || return 1
	settings a
	BEFORE=$SETTINGS
}

destination_up()
{
	machine b server -S -incoming defer || return 1
	settings b
	DST_BEFORE=$SETTINGS
	rm -f "$DIR/in"
	TO=unix:$DIR/in
	[ "$WHERE" = unix ] || TO=tcp:127.0.0.1:$((4000 + LANE))
}

# end NAME - by force if it does not otherwise
end()
{
	gone "$1" || ask "$1" quit
	gn_wait 5 gone "$1" || kill -KILL "${QEMU_PID[$1]}"
	wait "${QEMU_PID[$1]}"
	plain_close "$1"
}

# ---- vm-migrate ------------------------------------------------------------------------------
# migrating ARG... - begin
migrating()
{
	rm -f TOOL_RUN.log
	gn_spawn TOOL_RUN "$VMM" qemu --json --qmp "$DIR/a/qmp" --dest-qmp "$DIR/b/qmp" --to "$TO" "${OPTS[@]}" "$@"
}

# ended - how, in RC, and what it said last in LAST
ended()
{
	gn_wait 60 gn_gone "$TOOL_RUN" || bad "vm-migrate does not end" || return 1
	wait "$TOOL_RUN"
	RC=$?
	LAST=$(tail -n 1 TOOL_RUN.log)
	echo "vm-migrate: $RC $LAST"
}

# arrived - the guest is there, whole, and goes on where it was stopped
arrived()
{
	local at
	if [ "$1" = told ]; then
		number pages_compared "$LAST"
		[[ $LAST == *'"compared":true'*'"pages_differ":0,'* ]] && [ "$N" -ge $((PAGES + FILLED)) ] ||
			bad "not proved: $LAST" || return 1
	fi
	gone a || runs a postmigrate || bad "the source is $(ask a query-status)" || return 1
	runs b running || bad "the destination is $(ask b query-status)" || return 1
	at=$(counts a)
	gn_wait 10 beyond b "$at" || bad "it does not write there" || return 1
	[ "$1" != told ] || [ "$KIND" = kill ] || same b "$DST_BEFORE" || return 1
	ask b stop && runs b paused || bad "no pause" || return 1
	"$WRITER_RAM" "$WRITER_HOT" "$PAGES" "${RAM[a]}" "${RAM[b]}" || bad "ITS RAM IS NOT WHAT IT WAS" || return 1
	MOVED=1
}

# stayed [ANY-SETTINGS] - the guest runs at the source as if nothing had been, and nowhere else
stayed()
{
	runs a running || bad "the source is $(ask a query-status)" || return 1
	goes_on a || return 1
	[ $# != 0 ] || same a "$BEFORE" || return 1
	if gn_wait 1 runs b inmigrate; then	# not touched yet
		[ $# != 0 ] || same b "$DST_BEFORE"
	else
		gn_wait 10 gone b || bad "the destination has not ended: $(ask b query-status)"
	fi
}

# lost - a write was lost, which vm-migrate has found: the source has the guest
lost()
{
	LOST=1
	[[ $LAST == *'"rolled_back":true'* ]] || bad "not rolled back: $LAST" || return 1
	gn_wait 10 gone b || bad "the destination has not ended" || return 1
	stayed
}

# undecided - a write was lost and found when the guest was on both sides, which stay; that it has not run at the
# destination we know, and go on at the source
undecided()
{
	[ "$KIND" = spoilt ] || LOST=1
	[[ $LAST == *'"rolled_back":false'*"has run there since"* ]] || bad "why uncertain? $LAST" || return 1
	runs a postmigrate || bad "the source is $(ask a query-status)" || return 1
	runs b paused || runs b prelaunch || bad "the destination is $(ask b query-status)" || return 1
	ask b quit
	gn_wait 10 gone b || bad "the destination does not end" || return 1
	ask a cont
	stayed any
}

# outcome - of a run that nobody has disturbed, or too late
outcome()
{
	case $RC in
	0) arrived told ;;
	5)	[ "$KIND" = kill ] || bad "$RC: $LAST" || return 1
		undecided ;;
	6) lost ;;
	*) bad "$RC: $LAST" ;;
	esac
}

killed_destination()
{
	kill -KILL "${QEMU_PID[b]}"
	ended || return 1
	case $RC in
	0)	# it had the guest, which is dead
		LATE=1
		end a && source_up ;;
	5)	# it may have run there: somebody has to know better
		LATE=1
		ask a cont
		stayed ;;
	1 | 3 | 7) stayed ;;
	*) outcome ;;
	esac
}

# decided - QEMU's migration ends without vm-migrate
decided()
{
	HOW=none
	ask a query-migrate >/dev/null || return
	[[ ! $ANSWER =~ \"status\":\ \"([a-z-]*)\" ]] || HOW=${BASH_REMATCH[1]}
	[[ $HOW != @(setup|active|device|wait-unplug|pre-switchover|cancelling) ]]
}

# killed_tool - QEMU goes on; the next run decides, or does it all. Who is killed puts nothing back.
killed_tool()
{
	kill -KILL "$TOOL_RUN"
	wait "$TOOL_RUN"
	if ! decided && [ "$HASTE" = impatient ]; then
		migrating
		ended || return 1
		if [ "$RC" != 7 ]; then
			outcome
			return
		fi
	fi
	if ! decided && [ "$THEN" = wait ]; then
		ask a migrate-set-parameters '{"downtime-limit":60000}'
	elif ! decided; then
		ask a migrate_cancel
	fi
	gn_wait 30 decided || bad "QEMU's migration does not end" || return 1
	echo "QEMU's own: $HOW"
	case $HOW in
	none) stayed any ;;
	cancelled | failed)
		# As vm-migrate does: else the disks may stay inactive.
		ask a cont
		gn_wait 20 runs a running || bad "the source does not run on" || return 1
		gn_wait 10 gone b || bad "the destination has not ended" || return 1
		stayed any ;;
	completed)
		if gn_wait 1 runs b running; then	# it had decided
			LATE=1
			arrived untold
			return
		fi
		gn_wait 10 runs b paused || runs b prelaunch || bad "$(ask b query-status)" || return 1
		migrating
		ended && outcome ;;
	*) bad "it is $HOW" ;;
	esac
}

# spoilt - QEMU's own migration, one wrong byte, and vm-migrate to decide
spoilt()
{
	local at f byte
	OPTS=(--streams 1)
	ask b migrate-incoming "{\"uri\":\"$TO\"}" && ask a migrate "{\"uri\":\"$TO\"}" || return 1
	gn_wait 30 decided && [ "$HOW" = completed ] || bad "QEMU's migration is $HOW" || return 1
	gn_wait 10 runs b paused || runs b prelaunch || bad "$(ask b query-status)" || return 1
	# In its counters, or in what it has filled and between.
	below 4096
	at=$((WRITER_HOT + (SPOIL << 12) + R))
	[ "$SPOIL" -lt "$PAGES" ] || at=$((FILL + ((SPOIL - PAGES) << 12) + R))
	printf -v PAGE 0x%x $((at & ~4095))
	f=${RAM[b]%%,*}
	if [ $at -ge "$(stat -Lc %s "$f")" ]; then
		at=$((at - $(stat -Lc %s "$f")))
		f=${RAM[b]#*,}
	fi
	byte=$(od -An -tu1 -j $at -N 1 "$f")
	printf -v byte '\\x%02x' $((byte ^ 1))
	printf '%b' "$byte" | dd of="$f" bs=1 seek=$at conv=notrunc status=none || return 1
	migrating
	ended || return 1
	[ "$RC" = 5 ] && [[ $LAST == *'"pages_differ":1,'*"the first at $PAGE"* ]] ||
		bad "a byte of page $PAGE is another, and vm-migrate says $RC: $LAST" || return 1
	undecided
}

# disturb - the first try
disturb()
{
	if [ "$KIND" = spoilt ]; then
		spoilt
		return
	fi
	migrating "${SLOW[@]}"
	sleep "$AFTER"	# for nothing: any time will do
	case $KIND in
	cancel)
		kill -INT "$TOOL_RUN"
		ended || return 1
		case $RC in
		4 | 130) stayed ;;	# 130: interrupted before it had begun
		*)	LATE=1
			outcome ;;
		esac ;;
	kill) killed_tool ;;
	kill-destination) killed_destination ;;
	esac
}

# ---- one migration -------------------------------------------------------------------------
# migration SEED
migration()
{
	local try
	draw "$1"
	LOST=0 MOVED=0 LATE=0
	writer_image "$DIR/boot" "PAGES=$PAGES" FILL=$FILL END=$END "STRIDE=$STRIDE" "SEED=$1"
	destination_up && source_up || return 1	# the one that idles first
	case $KIND in
	quiet)
		migrating
		ended && outcome || return 1 ;;
	*)	disturb || return 1 ;;
	esac
	# The next; it takes another if QEMU loses a write.
	for ((try = 0; MOVED == 0 && try < 3; try++)); do
		end b
		destination_up || return 1
		migrating
		ended && outcome || return 1
	done
	[ $MOVED = 1 ] || bad "lost writes $try times" || return 1
	[[ " ${OPTS[*]} " != *" --quit-source "* ]] || [ $MOVED = 0 ] || gn_wait 10 gone a ||
		bad "the source has not quit" || return 1
	end a
	end b
	gn_not pgrep -f "$DIR/" || bad "processes are left: $(pgrep -af "$DIR/")" || return 1
	# Who is killed leaves its own.
	[ "$KIND" = kill-destination ] || [ -z "$(find . -type s)" ] || bad "sockets are left: $(find . -type s)"
}

# lane N - every $LANES-th of them; a line each in $TOP/results
lane()
{
	local i p DIR GN_TMP LANE=$1
	for ((i = SEED + LANE; i < SEED + COUNT; i += LANES)); do
		DIR=$TOP/m$i
		GN_TMP=$DIR
		mkdir "$DIR" && cd "$DIR" || exit 1
		KIND=''
		if migration $i >trace 2>&1; then
			echo "$KIND $LATE $LOST ok $i"
			cd "$TOP" && rm -rf "$DIR"
		else
			echo "$KIND $LATE $LOST bad $i"
			for p in $(pgrep -f "$DIR/"); do
				kill -KILL "$p"
			done
		fi >>"$TOP/results"
	done
}

gn_note "GN_SEED=$SEED GN_QEMU_MIGRATIONS=$COUNT"
gn_must ip link set lo up
gn_must mkdir tls
gn_must "$GN_BIN/tests/migrate/test_ends" creds "$TOP/tls"
: >results
for ((n = 0; n < LANES; n++)); do
	lane $n 2>/dev/null &	# says who was killed
	LANE_PID[n]=$!
done
wait "${LANE_PID[@]}"

while read -r kind late lost how n; do
	what="$kind, seed $n"
	[ "$late" = 0 ] || what+=", too late to matter"
	[ "$lost" = 0 ] || what+=", QEMU lost a write and vm-migrate found it"
	if [ "$how" = ok ]; then
		gn_ok "$what"
	else
		gn_fail "$what" "$(grep '^bad: ' "m$n/trace" | head -n 1)"
		tail -n 25 "m$n/trace" | sed 's/^/#   /'
		tail -n 5 "m$n"/*.log | sed 's/^/#   /'
	fi
done < <(sort -n -k 5 results)
gn_note "writes lost by QEMU, and found: in $(grep -c '^[a-z-]* . 1' results) of $COUNT"
gn_check "they were all run" test "$(wc -l <results)" = "$COUNT"
