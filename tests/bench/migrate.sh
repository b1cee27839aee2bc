#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Measure live migrations beside QEMU's own and a raw TCP copy; docs/benchmarks.md says what
# and why.
#
#	GN_BIN=build tests/bench/migrate.sh
#
# In each round every subject migrates a machine BENCH_MIGRATIONS times, from each destination
# on to a new one; in every other round the subjects come in the opposite order.
#
# Environment: BENCH_ROUNDS (10), BENCH_MIGRATIONS (2), BENCH_SUBJECTS (all), BENCH_MIB of
# memory (1024), BENCH_PERCENT of it that is written a second (1), BENCH_DOWNTIME_MS, the
# budget of all (10), BENCH_SPARSE_MIB, the memory of vm-migrate-sparse (65536), and BENCH_PIECE
# (256K), the pieces that its data lies in, all over it; vm-migrate-sparse-1 has one piece.
# BENCH_STREAMS, connections of vm-migrate (1); vm-migrate-2 has two. vm-migrate-nodigest hashes a
# word of each page, and does not read the memory again afterwards: it does not know what it lost.
# What the digest takes is too little for such rounds to show: BENCH_PAIRS (40) pairs of migrations of
# machines with BENCH_PAIR_MIB (256), with it and without.

# shellcheck disable=SC2034,SC2317,SC2329 # lib.sh's; functions called through a name
HUGE_PAGES=0
# shellcheck source=tests/bench/lib.sh
. "$(dirname "$0")/lib.sh"

ROUNDS=${BENCH_ROUNDS:-10}
MIGRATIONS=${BENCH_MIGRATIONS:-2}
MIB=${BENCH_MIB:-1024}
SPARSE_MIB=${BENCH_SPARSE_MIB:-65536}
PIECE=${BENCH_PIECE:-256K}
DOWNTIME=${BENCH_DOWNTIME_MS:-10}
STREAMS=${BENCH_STREAMS:-1}
PAIRS=${BENCH_PAIRS:-40}
PAIR_MIB=${BENCH_PAIR_MIB:-256}
SUBJECTS=${BENCH_SUBJECTS:-raw-copy raw-copy-io qemu qemu-multifd vm-migrate vm-migrate-nodigest vm-migrate-2 vm-migrate-tls vm-migrate-sparse vm-migrate-sparse-1}
BENCH_NAME=migrate
TOOL=$GN_BIN/vm-migrate/vm-migrate
FIRST_MIB=16		# below it is the program of QEMU's guest
COUNT_AT=0x200000	# where it counts its writes
RATE=$(awk "BEGIN { print int($MIB * 256 * ${BENCH_PERCENT:-1} / 100) }")	# pages a second
FAILED=
PORT=7000
SEQ=0			# of machines
UNCHECKED=false
SEND=()

fail()
{
	gn_note "$SUBJECT: $1"
	FAILED="$FAILED $SUBJECT"
	return 1
}

# warm MIB - so much memory for a destination, at hand. In a virtual machine the first use of memory
# goes to its host and takes several times as long, and so does that of memory which was
# freed some seconds ago, if the host takes it back.
warm()
{
	head -c $(($1 << 20)) /dev/zero >"$GN_TMP/warm"
	rm -f "$GN_TMP/warm"
}

# migrate SRC-PID DST-PID CMD... - CMD, and what it and both sides take of the CPUs in $GN_TMP/cpu
migrate()
{
	warm $((MIB * 5 / 4))
	"$BENCH/migrate" cpu "$GN_TMP/cpu" "$@"
}

# result CPU_S - numbers of result.json
result()
{
	local r=$GN_TMP/result.json k v
	emit total_s "$(jq .total_s "$r")" s
	emit bytes "$(jq .bytes "$r")" bytes
	emit cpu_s_per_gb "$(jq "$1 / (.bytes / 1e9)" "$r")" s/GB
	jq -e .downtime_ms "$r" >/dev/null && emit downtime_ms "$(jq .downtime_ms "$r")" ms
	jq -e .rounds "$r" >/dev/null && emit rounds "$(jq .rounds "$r")" 1
	jq -e .audit_s "$r" >/dev/null && emit audit_s "$(jq .audit_s "$r")" s
	jq -e .last_pages "$r" >/dev/null && emit last_pages "$(jq .last_pages "$r")" pages
	while read -r k v; do
		emit "downtime_${k}_ms" "$v" ms
	done < <(jq -r '.steps // {} | to_entries[] | "\(.key) \(.value)"' "$r")
	printf '   %-18s %s\n' "$SUBJECT" "$(jq -r '"\(.total_s * 1000 | round / 1000) s, \(.bytes / 1e6 | round) MB" + (if .downtime_ms then ", downtime \(.downtime_ms * 10 | round / 10) ms" else "" end)
		+ if .steps then " (\(.steps | to_entries | map("\(.key) \(.value * 10 | round / 10)") | join(", "))), \(.last_pages) pages" else "" end' "$r")"
}

# ---- raw copy --------------------------------------------------------------------------

# raw COMMAND
raw()
{
	local i
	for ((i = 0; i < MIGRATIONS; i++)); do
		warm $((MIB * 9 / 4))
		"$BENCH/migrate" "$1" $((MIB << 20)) >"$GN_TMP/result.json" || { fail "no copy"; return; }
		result "$(jq .cpu_s "$GN_TMP/result.json")"
	done
}

# ---- QEMU --------------------------------------------------------------------------------

# qemu_new ARGS... - one more, NAME is its name
qemu_new()
{
	NAME=q$((++SEQ))
	gn_spawn "QEMU_$NAME" qemu-system-x86_64 -display none -nodefaults -no-user-config \
		-accel tcg -m "$MIB" -machine memory-backend=m \
		-object "memory-backend-file,id=m,size=${MIB}M,share=on,mem-path=$GN_TMP/$NAME.ram" \
		-kernel "$BENCH/guest/writer.elf" \
		-append "$RATE $((FIRST_MIB * 256)) $(((MIB - FIRST_MIB) * 256))" \
		-qmp "unix:$GN_TMP/$NAME.qmp,server=on,wait=off" "$@"
	local pid=QEMU_$NAME
	PID[$NAME]=${!pid}
	gn_wait 20 test -S "$GN_TMP/$NAME.qmp"
}
declare -A PID

qemu_stop()
{
	gn_stop "${PID[$1]}" KILL
	rm -f "$GN_TMP/$1.ram" "$GN_TMP/$1.qmp"
}
count() { "$BENCH/migrate" peek "$GN_TMP/$1.ram" $COUNT_AT; }
counts_on() { [ "$(count "$1")" -gt "$2" ]; }

# qemu CHANNELS
qemu()
{
	local i from
	qemu_new
	from=$NAME
	gn_wait 20 counts_on "$from" 0 || { fail "its guest does not run"; qemu_stop "$from"; return; }
	"$BENCH/migrate" fill "$GN_TMP/$from.ram" $((FIRST_MIB << 20)) $((MIB << 20))
	for ((i = 0; i < MIGRATIONS; i++)); do
		qemu_new -incoming defer
		if ! migrate "${PID[$from]}" "${PID[$NAME]}" "$BENCH/migrate" qemu "$GN_TMP/$from.qmp" "$GN_TMP/$NAME.qmp" \
			"tcp:127.0.0.1:$((++PORT))" "$DOWNTIME" "$1" >"$GN_TMP/result.json"; then
			fail "no migration"
			break
		fi
		result "$(cat "$GN_TMP/cpu")"
		gn_wait 20 counts_on "$NAME" "$(count "$from")" || { fail "its guest stands still"; break; }
		qemu_stop "$from"
		from=$NAME
	done
	qemu_stop "$from"
	[ "$from" = "$NAME" ] || qemu_stop "$NAME"
}

# ---- vm-migrate ------------------------------------------------------------------------------

says() { jq -e -n "[inputs] | any(.[]; $2)" <"$GN_TMP/$1.log"; }
status() { "$TOOL" status -c "$GN_TMP/$1.sock" -j | jq -e "$2"; }

# ours_run MIB WORKLOAD - one more machine, VM is its name
ours_run()
{
	VM=v$((++SEQ))
	gn_spawn "$VM" "$TOOL" run --json -a process -m "${1}M" -w "$2" -c "$GN_TMP/$VM.sock" --console none
	gn_wait 60 status "$VM" '.state == "running" and .guest[0].writes > 0' ||
		{ fail "does not run"; gn_stop "${!VM}"; return 1; }
}

# ours_move ARGS... - VM to a new destination, which is VM then; ARGS of recv and send: TLS. UNCHECKED:
# no look at the guest's errors; SEND: more arguments of send
ours_move()
{
	local to=v$((++SEQ)) uri
	gn_spawn "$to" "$TOOL" recv --json -l "tcp:127.0.0.1:0" -c "$GN_TMP/$to.sock" --console none "$@"
	gn_wait 20 says "$to" '.event == "listening"' || { fail "no destination"; gn_stop "${!to}"; return 1; }
	uri=$(jq -r 'select(.event == "listening").uri' "$GN_TMP/$to.log")
	if ! migrate "${!VM}" "${!to}" "$TOOL" send --json -c "$GN_TMP/$VM.sock" -t "$uri" --downtime-ms "$DOWNTIME" \
		--streams "$STREAMS" "${SEND[@]}" "$@" >"$GN_TMP/send.log"; then
		fail "no migration: $(tail -n 1 "$GN_TMP/send.log")"
		gn_stop "${!to}"
		return 1
	fi
	tail -n 1 "$GN_TMP/send.log" | jq '{total_s: (.total_us / 1e6),
		downtime_ms: (.downtime_us / 1000), bytes: .sent_bytes, rounds: .round,
		audit_s: (.elapsed_ms / 1e3 - .total_us / 1e6), last_pages,
		steps: (.downtime_steps_us | map_values(. / 1000))}' \
		>"$GN_TMP/result.json"
	result "$(cat "$GN_TMP/cpu")"
	gn_wait 20 gn_gone "${!VM}"
	VM=$to
	gn_wait 20 status "$to" ".state == \"running\" and (.guest[0].errors == 0 or $UNCHECKED)" ||
		fail "does not run at the destination"
}

# ours MIB WORKLOAD ARGS... - MIGRATIONS of one machine
ours()
{
	local i
	ours_run "$1" "$2" || return
	shift 2
	for ((i = 0; i < MIGRATIONS; i++)); do
		ours_move "$@" || break
	done
	gn_stop "${!VM}"
}

# ours_pair SUBJECT VM TOOL UNCHECKED - the next of its migrations
ours_pair()
{
	SUBJECT=$1 VM=$2 TOOL=$3 UNCHECKED=$4
	ours_move
}

# pairs - two small machines side by side, one with the digest and one without, which migrate in turn,
# and none is read again afterwards. In every other pair the latter goes first.
pairs()
{
	local with=$GN_BIN/vm-migrate/vm-migrate without=$GN_BIN/nodigest/vm-migrate/vm-migrate
	local load=rate=$((RATE * PAIR_MIB / MIB)),pattern=random,fill=100% a b first
	local MIB=$PAIR_MIB SEND=(--verify none) UNCHECKED TOOL VM
	((PAIRS)) || return
	echo "$PAIRS pairs of $MIB MiB, with and without the digest"
	SUBJECT=pair-digest TOOL=$with
	ours_run "$MIB" "$load" || return
	a=$VM
	SUBJECT=pair-nodigest TOOL=$without
	ours_run "$MIB" "$load" || { gn_stop "${!a}"; return; }
	b=$VM
	for ROUND in $(seq "$PAIRS"); do
		for first in 1 0; do
			if ((ROUND % 2 == first)); then
				ours_pair pair-digest "$a" "$with" false || break 2
				a=$VM
			else
				ours_pair pair-nodigest "$b" "$without" true || break 2
				b=$VM
			fi
		done
	done
	gn_stop "${!a}"
	gn_stop "${!b}"
}

keys()
{
	[ -d "$GN_TMP/tls" ] && return
	gn_must mkdir "$GN_TMP/tls"
	echo "qemu:$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')" >"$GN_TMP/tls/keys.psk"
}

subject()
{
	local load=rate=$RATE,pattern=random
	SUBJECT=$1
	case $SUBJECT in
	raw-copy) raw raw ;;
	raw-copy-io) raw raw-io ;;
	qemu) qemu 1 ;;
	qemu-multifd) qemu 2 ;;
	vm-migrate) ours "$MIB" "$load,fill=100%" ;;
	vm-migrate-nodigest)
		TOOL=$GN_BIN/nodigest/vm-migrate/vm-migrate UNCHECKED=true
		SEND=(--verify none)
		ours "$MIB" "$load,fill=100%"
		TOOL=$GN_BIN/vm-migrate/vm-migrate UNCHECKED=false
		SEND=() ;;
	vm-migrate-2) STREAMS=2 ours "$MIB" "$load,fill=100%" ;;
	vm-migrate-tls)
		keys
		ours "$MIB" "$load,fill=100%" --tls psk --tls-dir "$GN_TMP/tls" ;;
	vm-migrate-sparse) ours "$SPARSE_MIB" "$load,fill=${MIB}M,set=${MIB}M,piece=$PIECE" ;;
	vm-migrate-sparse-1) ours "$SPARSE_MIB" "$load,fill=${MIB}M,set=${MIB}M" ;;
	*) gn_die "no subject $SUBJECT" ;;
	esac
}

# percentiles - of all downtimes; the round is 0
percentiles()
{
	local s p
	ROUND=0
	for s in $SUBJECTS; do
		SUBJECT=$s
		for p in 50 99; do
			jq -es --arg s "$s" "[.[] | select(.subject == \$s and .metric == \"downtime_ms\").value] | sort
				| select(length > 0) | .[(length * $p / 100 | ceil) - 1]" "$JSONL" >"$GN_TMP/p" &&
				emit "downtime_ms_p$p" "$(cat "$GN_TMP/p")" ms
		done
	done
}

# harvest - of dirty logs alone; of the variants of the code the one that is used, the last
harvest()
{
	ROUND=0
	"$BENCH/harvest" >"$GN_TMP/harvest.json" || { SUBJECT=harvest; fail "no harvest"; return; }
	while IFS=$'\t' read -r SUBJECT v; do
		emit harvest_ms_per_gib "$v" ms/GiB
	done < <(jq -rs 'map(select(.metric == "harvest_ms_per_gib")) | group_by(.source)[] | last
		| ["harvest-" + .source, .value] | @tsv' "$GN_TMP/harvest.json")
}

# turn - the subjects, in every other round the last one first: who comes after whom matters
turn()
{
	local s order=
	for s in $SUBJECTS; do
		if ((ROUND % 2)); then order="$order $s"; else order="$s $order"; fi
	done
	echo "$order"
}

mkdir -p "$OUT"
JSONL=$OUT/$BENCH_NAME.jsonl
: >"$JSONL"
for ROUND in $(seq "$ROUNDS"); do
	echo "round $ROUND of $ROUNDS: $MIB MiB, $RATE pages/s are written, budget $DOWNTIME ms"
	for s in $(turn); do
		subject "$s"
	done
done
percentiles
pairs
harvest
bench_table table-migrate.jq "$JSONL"
[ -z "$FAILED" ] || gn_die "without result:$FAILED"
