#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Measure delivery to virtual machines beside DPDK's; docs/benchmarks.md says what and why.
#
#	GN_BIN=build tests/bench/vm.sh
#
# A subject is a back end and who reads behind it, started anew in each round. It climbs a
# ladder of offered rates, the same for all, until packets are lost: LADDER_STEP rungs at
# once, then by halves. A rung where TRIES tries in a row lose packets, or find the generator late,
# is lost: a back end that polls, with real-time priority, has to leave its CPU to the rest of the
# machine 50 ms of a second (the kernel's fair server), and loses packets then.
#
# Environment: BENCH_ROUNDS (3), BENCH_SECONDS of each rung (0.4), BENCH_SUBJECTS (all),
# BENCH_INSTANCES of the curve ("1 4 16 64", empty: no curve), BENCH_CURVE_ROUNDS (1),
# BENCH_TRACKER_SECONDS of the log's turns (30, 0: none),
# BENCH_FLOWS (16), BENCH_BURST (16), BENCH_SIZE (1514), BENCH_BATCH (60), BENCH_LOAD_PPS
# where CPU time and latency are taken (200000), BENCH_FROM_PPS, the lowest rung (250000),
# BENCH_VM_CPU of the readers (1), BENCH_GEN_CPU (0), BENCH_RX_CPU (1).

# shellcheck disable=SC2317,SC2329 # functions called through a name
HUGE_PAGES=128		# 256 MiB: DPDK's back end and 64 guests
# shellcheck source=tests/bench/lib.sh
. "$(dirname "$0")/lib.sh"

ROUNDS=${BENCH_ROUNDS:-3}
SECONDS_EACH=${BENCH_SECONDS:-0.4}
INSTANCES=${BENCH_INSTANCES-1 4 16 64}
CURVE_ROUNDS=${BENCH_CURVE_ROUNDS:-1}
TRACKER_SECONDS=${BENCH_TRACKER_SECONDS:-30}
FLOWS=${BENCH_FLOWS:-16}
BURST=${BENCH_BURST:-16}
SIZE=${BENCH_SIZE:-1514}
BATCH=${BENCH_BATCH:-60}
LOAD=${BENCH_LOAD_PPS:-200000}
FROM=${BENCH_FROM_PPS:-250000}
VM_CPU=${BENCH_VM_CPU:-1}
BENCH_NAME=vm

RUNGS_OCTAVE=16		# rungs until the rate has doubled
LADDER_STEP=4		# a power of two
LADDER_TOP=96		# rungs: 6 octaves
TRIES=5
CLIENT_DEVS=32		# guests in one process: vm_client's limit
RING=1024		# descriptors of a guest's ring
CURVE_RING=256		# with more guests: they share a cache

FAILED=
NDSTS=1
READERS=()		# processes
BACKEND=0

# ---- back ends and readers ----------------------------------------------------------

socket() { echo "$GN_TMP/vu$1"; }
mac() { printf '02:00:00:00:00:%02x' $((0x11 + $1)); }
ready() { gn_gone "$2" || grep -qs '^ready' "$GN_TMP/$1.log"; }

# real_time PID PRIORITY - nothing else of this machine takes its CPU. A reader goes before its
# back end: it runs as soon as it is called, as on a CPU of its own.
real_time() { chrt -a -f -p "$2" "$1" 2>/dev/null || gn_note "no real-time priority"; }

# reader CMD... - start one more; on return it is ready
reader()
{
	local n=${#READERS[@]}
	: >"$GN_TMP/out$n"
	: >"$GN_TMP/reader$n.log"
	(GN_REPLACE=1; gn_exec rx taskset -c "$VM_CPU" "$@" --subject "$SUBJECT") \
		>"$GN_TMP/out$n" 2>"$GN_TMP/reader$n.log" </dev/null &
	READERS+=($!)
	GN_PIDS+=($!)
	gn_wait 20 ready "reader$n" "${READERS[$n]}"
	if ! gn_gone "${READERS[$n]}"; then
		real_time "${READERS[$n]}" 10
		return 0
	fi
	gn_note "$SUBJECT: a reader ended:"
	tail -n 5 "$GN_TMP/reader$n.log" | sed 's/^/#   /'
	return 1
}

# guests - a virtio-user device for each socket
guests()
{
	local i=0 k args huge ring=$RING
	[ "$NDSTS" = 1 ] || ring=$CURVE_RING
	while [ $i -lt "$NDSTS" ]; do
		args=()
		for ((k = i; k < NDSTS && k < i + CLIENT_DEVS; k++)); do
			args+=(--vhost "$(socket $k)")
		done
		huge=
		huge_free 32 || huge=--no-huge
		reader "$BENCH/vm_client" --cpu "$VM_CPU" --mac "$(mac $i)" --ring $ring \
			${huge:+"$huge"} "${args[@]}" || return
		i=$k
	done
}

dpdk_start()
{
	local i huge='' args=()
	huge_free 48 || huge=--no-huge
	for ((i = 0; i < NDSTS; i++)); do
		args+=(--vhost "$(socket $i)")
	done
	: >"$GN_TMP/BACK.log"
	# Busy polling, the driver's default, costs it a tenth on veth.
	gn_spawn BACK gn_exec rx taskset -c "$RX_CPU" "$BENCH/dpdk_gro" --if gnrx --cpu "$RX_CPU" \
		--busy-budget 0 ${huge:+"$huge"} --first 11 "${args[@]}" "$@"
	gn_wait 20 ready BACK "$BACK"
	BACKEND=$BACK
	gn_gone "$BACK" || { guests; return; }
	tail -n 5 "$GN_TMP/BACK.log" | sed 's/^/#   /'
	return 1
}

vhost_start()
{
	local i args=()
	for ((i = 1; i < NDSTS; i++)); do
		args+=(--instance "vm$((i + 1)),mac=$(mac $i),port=vhost-user:$(socket $i)")
	done
	ghostnic_start "vhost-user:$(socket 0)" "${args[@]}" "$@"
	guests
}

stop()
{
	local p
	for p in "${READERS[@]}"; do
		gn_stop "$p"
	done
	READERS=()
	case $SUBJECT in
	dpdk-*) gn_stop "$BACK" ;;
	*) ghostnic_end ;;
	esac
}

start()
{
	case $SUBJECT in
	dpdk-vhost) dpdk_start ;;
	dpdk-vhost-verify) dpdk_start --verify ;;
	ghostnic-vhost) vhost_start ;;
	ghostnic-vhost-carry) vhost_start --checksum carry ;;
	ghostnic-vhost-logged)
		vhost_start && gn_ghostnic dma-log start --instance vm1 >/dev/null ;;
	ghostnic-shm)
		ghostnic_start "shm:$(socket 0)" &&
			reader "$BENCH/shm_client" --shm "$(socket 0)" ;;
	ghostnic-null)
		ghostnic_start null &&
			reader "$BENCH/gnstat" --meter --ctl "$GHOSTNIC_CTL" --size "$SIZE" ;;
	*) gn_die "no subject $SUBJECT" ;;
	esac || return
	[ "${SUBJECT#dpdk}" != "$SUBJECT" ] || BACKEND=$GN_DAEMON
	real_time "$BACKEND" 5
}

# ---- one rung ------------------------------------------------------------------------

# lines N - has every reader printed so many?
lines()
{
	local i
	for i in "${!READERS[@]}"; do
		[ "$(wc -l <"$GN_TMP/out$i")" -ge "$1" ] || return
	done
}

# offer PPS SECONDS ARGS... - send so many, then ask the readers what came; result.json has
# sent, lost, seconds, busy_s, gbps and pps delivered, late: the generator did not keep up
offer()
{
	local pps=$1 seconds=$2 i n
	shift 2
	gn_exec tx taskset -c "$GEN_CPU" chrt -f 5 "$BENCH/gen" --if gntx --dst $MAC --dsts "$NDSTS" \
		--flows "$FLOWS" --burst "$BURST" --size "$SIZE" --batch "$BATCH" \
		--rate "$pps" --seconds "$seconds" --backend "$BACKEND" "$@" \
		>"$GN_TMP/gen.json" 2>"$GN_TMP/gen.log" || return
	n=$(($(wc -l <"$GN_TMP/out0") + 1))
	for i in "${!READERS[@]}"; do
		kill -USR1 "${READERS[$i]}" || return
	done
	gn_wait 5 lines $n || return
	for i in "${!READERS[@]}"; do
		tail -n 1 "$GN_TMP/out$i"
	done >"$GN_TMP/lines.json"
	jq -s --slurpfile g "$GN_TMP/gen.json" --argjson size "$SIZE" --argjson rate "$pps" '
		$g[0] as $g | ([.[].packets] | add) as $got | .[0] + {
			packets: $got, sent: $g.sent, lost: ($g.sent - $got),
			pps: ($got / $g.seconds), gbps: ($got * $size * 8 / $g.seconds / 1e9),
			busy_s: $g.busy_s, late: ($g.pps < 0.97 * $rate) }' \
		"$GN_TMP/lines.json" >"$GN_TMP/result.json"
}

field() { jq -r ".$1" "$GN_TMP/result.json"; }
cpu_s_per_gb() { jq "if .packets > 0 then .busy_s / (.packets * $SIZE / 1e9) else null end" "$GN_TMP/result.json"; }

# rung N - offered rate, packets a second
rung() { jq -n "$FROM * pow(2; $1 / $RUNGS_OCTAVE) | round"; }

# clean - was all delivered, and all offered in time?
clean() { [ "$(field lost)" = 0 ] && [ "$LATE" = false ]; }

# climb N - does rung N pass without loss? best.json: the highest one that did. peak: the
# most that was ever delivered. LATE: the generator is at its end.
climb()
{
	local pps extra=$EXTRA
	pps=$(rung "$1")
	for _ in $(seq $TRIES); do
		offer "$pps" "$SECONDS_EACH" || return
		EXTRA="$extra,\"offered_pps\":$pps"
		emit loss "$(jq 'if .sent > 0 then .lost / .sent else 1 end' "$GN_TMP/result.json")" 1
		EXTRA=$extra
		PEAK=$(jq "[.pps, $PEAK] | max" "$GN_TMP/result.json")
		LATE=$(field late)
		! clean || break
	done
	clean || return
	jq ". + { cpu_s_per_gb: $(cpu_s_per_gb) }" "$GN_TMP/result.json" >"$GN_TMP/best.json"
}

# ladder - emit what it reaches without loss
ladder()
{
	local at=0 step=$LADDER_STEP
	PEAK=0
	LATE=false
	rm -f "$GN_TMP/best.json"
	while [ $at -lt $LADDER_TOP ] && climb $at; do
		at=$((at + step))
	done
	while [ $step -gt 1 ] && [ $at -gt 0 ]; do
		step=$((step / 2))
		# The rung that failed is at; the one that passed is further down than step.
		if climb $((at - step)); then
			continue
		fi
		at=$((at - step))
	done
	if [ ! -s "$GN_TMP/best.json" ]; then
		emit gbps_zero_loss 0 Gbit/s
	else
		emit gbps_zero_loss "$(jq .gbps "$GN_TMP/best.json")" Gbit/s
		emit pps_zero_loss "$(jq .pps "$GN_TMP/best.json")" 1/s
		emit cpu_s_per_gb_zero_loss "$(jq .cpu_s_per_gb "$GN_TMP/best.json")" s/GB
		emit packets_per_super "$(jq '.packets_per_super // 1' "$GN_TMP/best.json")" packets
	fi
	emit pps "$PEAK" 1/s
	emit generator_limits "$([ "$LATE" = true ] && echo 1 || echo 0)" 1
	printf '   %-22s %s\n' "$SUBJECT" "$(jq -r '"\(.gbps * 100 | round / 100) Gbit/s without loss, \(.pps / 1e4 | round / 100) Mpps, \(.cpu_s_per_gb * 1000 | round / 1000) s/GB there"' \
		"$GN_TMP/best.json" 2>/dev/null || echo "every rung lost packets")"
}

# CPU time of the back end, kernel and user space, and latency, where all have time.
at_load()
{
	offer "$LOAD" "$(jq -n "$SECONDS_EACH * 2.5")" --stamp || return
	emit cpu_s_per_gb "$(cpu_s_per_gb)" s/GB
	emit_latency
}

# The DMA log on and off by turns, under more than can be delivered; a round is a pair of turns.
tracker()
{
	local gen
	# Its thread that takes orders goes before its worker, which never sleeps now.
	chrt -f -p 8 "$BACKEND"
	gn_spawn gen gn_exec tx taskset -c "$GEN_CPU" chrt -f 5 "$BENCH/gen" --if gntx --dst $MAC \
		--flows "$FLOWS" --burst "$BURST" --size "$SIZE" --batch "$BATCH"
	# Not on the CPU where the generator has real-time priority.
	gn_exec rx taskset -c "$RX_CPU" chrt -f 8 "$BENCH/gnstat" --ctl "$GHOSTNIC_CTL" --tracker vm1 \
		--seconds "$TRACKER_SECONDS" >"$GN_TMP/tracker.json" 2>"$GN_TMP/gen.log" ||
		FAILED="$FAILED tracker"
	gn_stop "$gen"
	jq -c '{bench: "vm", round: .pair, subject: "tracker", metric: "pps_ratio", value: .ratio, unit: "1"}' \
		"$GN_TMP/tracker.json" >>"$JSONL"
}

# The first packets find cold caches, and rings whose guests are just waking up.
warm_up()
{
	gn_wait 20 arrives
}
arrives() { offer 50000 0.1 && [ "$(field lost)" = 0 ]; }

# subject NAME MEASURE...
subject()
{
	SUBJECT=$1
	shift
	link_up
	if start && warm_up; then
		"$@"
	else
		gn_note "$SUBJECT: no result; generator, back end and readers said:"
		tail -qn 5 "$GN_TMP"/{gen,BACK,GN_DAEMON,reader*}.log "$GN_TMP/result.json" \
			2>/dev/null | sed 's/^/#   /'
		FAILED="$FAILED $SUBJECT"
	fi
	stop
	link_down
}

whole() { ladder; at_load || FAILED="$FAILED $SUBJECT"; }

# ---- main ------------------------------------------------------------------------------

bench_begin
SUBJECTS=${BENCH_SUBJECTS:-dpdk-vhost dpdk-vhost-verify ghostnic-vhost ghostnic-vhost-logged \
	ghostnic-vhost-carry ghostnic-shm ghostnic-null}
CURVE_SUBJECTS=${BENCH_SUBJECTS:-dpdk-vhost ghostnic-vhost}
[ -x "$BENCH/vm_client" ] || gn_die "DPDK was not there when this was built: make deps-bench"

for ROUND in $(seq "$ROUNDS"); do
	echo "round $ROUND of $ROUNDS: $FLOWS flows, bursts of $BURST, $SIZE bytes"
	# The one that is measured first differs.
	for s in $SUBJECTS; do
		subject "$s" whole
	done
	# shellcheck disable=SC2086 # a list
	SUBJECTS=$(set -- $SUBJECTS; f=$1; shift; echo "$@" "$f")
done
ROUND=0
[ "$TRACKER_SECONDS" = 0 ] || subject ghostnic-vhost tracker
[ "$FLOWS" -ge 64 ] || FLOWS=64
[ -z "$INSTANCES" ] || for ROUND in $(seq "$CURVE_ROUNDS"); do
	for NDSTS in $INSTANCES; do
		echo "$NDSTS instances: $FLOWS flows among them"
		EXTRA=",\"instances\":$NDSTS"
		for s in $CURVE_SUBJECTS; do
			case $s in
			*-vhost*) [ "$s" = ghostnic-vhost-logged ] || subject "$s" ladder ;;
			esac
		done
	done
done

bench_table table-vm.jq "$JSONL"
[ -z "$FAILED" ] || gn_die "without result:$FAILED"
