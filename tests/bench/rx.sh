#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Measure the receive path beside its peers; docs/benchmarks.md says what and why.
#
#	GN_BIN=build tests/bench/rx.sh [--curve]
#
# Everything runs in namespaces that end with this script (netns/lib.sh). What is not
# in a namespace, the reserved huge pages, is restored by an outer process.
#
# Environment: BENCH_ROUNDS (7; 1 with --curve), BENCH_SECONDS of each measurement (2; 1),
# BENCH_SUBJECTS (all), BENCH_FLOWS (16), BENCH_BURST (16), BENCH_SIZE (1514), BENCH_BATCH (60),
# BENCH_LOAD_PPS (a tenth of what raw reached first), BENCH_GEN_CPU (0), BENCH_RX_CPU (1).

# shellcheck disable=SC2317,SC2329 # functions called through a name
HUGE_PAGES=64		# 128 MiB; DPDK takes most of it
# shellcheck source=tests/bench/lib.sh
. "$(dirname "$0")/lib.sh"

CURVE=
[ "${1:-}" != --curve ] || CURVE=1
ROUNDS=${BENCH_ROUNDS:-${CURVE:-7}}
SECONDS_EACH=${BENCH_SECONDS:-${CURVE:-2}}
FLOWS=${BENCH_FLOWS:-16}
BURST=${BENCH_BURST:-16}
SIZE=${BENCH_SIZE:-1514}
# Frames the generator sends at once. No multiple of the burst, so that bursts straddle
# what one poll delivers, as they do on a wire.
BATCH=${BENCH_BATCH:-60}
LOAD=${BENCH_LOAD_PPS:-}
BENCH_NAME=rx${CURVE:+-curve}
BUSY=			# option of the receivers at 10 % load
FAILED=

# ---- a measurement ----------------------------------------------------------------

# receiver CMD... - start it in namespace rx; on return it is ready
receiver()
{
	: >"$GN_TMP/receiver.log"
	gn_exec rx taskset -c "$RX_CPU" "$@" --seconds "$SECONDS_EACH" ${BUSY:+--busy "$BUSY"} >"$GN_TMP/result.json" \
		2>"$GN_TMP/receiver.log" </dev/null &
	RECEIVER=$!
	GN_PIDS+=("$RECEIVER")
	gn_wait 15 receiver_settled
}

receiver_settled() { gn_gone "$RECEIVER" || grep -qs '^ready' "$GN_TMP/receiver.log"; }

# traffic ARGS... - run the generator until the receiver has measured; the result is
# in result.json
traffic()
{
	gn_spawn GEN gn_exec tx taskset -c "$GEN_CPU" "$BENCH/gen" --if gntx --dst $MAC \
		--flows "$FLOWS" --burst "$BURST" --size "$SIZE" \
		--batch "$BATCH" "$@"
	wait "$RECEIVER"
	local rc=$?
	gn_stop "$GEN"
	[ $rc = 0 ] && jq -e '.packets > 0' "$GN_TMP/result.json" >/dev/null && return
	gn_note "$SUBJECT: no result; receiver and generator said:"
	tail -n 5 "$GN_TMP/receiver.log" "$GN_TMP/GEN.log" | sed 's/^/#   /'
	FAILED="$FAILED $SUBJECT"
	return 1
}

emit_full()
{
	emit_field pps 1/s
	# The dropping program counts no bytes: none are received.
	[ "$SUBJECT" = drop ] || emit_field gbps Gbit/s
	emit_field packets_per_super packets
	emit_field user_ns_per_packet ns
	printf '   %-16s %s\n' "$SUBJECT" "$(jq -r '"\(.pps / 1e4 | round / 100) Mpps, \(.packets_per_super // 1) in one, \(.user_ns_per_packet // "-") ns"' "$GN_TMP/result.json")"
}

# CPU time is that of the receive path, kernel and user space, without the generator.
emit_load()
{
	emit cpu_s_per_gb "$(jq -r ".busy_s / (.packets * $SIZE / 1e9)" "$GN_TMP/result.json")" s/GB
	emit_latency
	emit load_pps "$(jq .pps "$GN_TMP/result.json")" 1/s
}

# ---- subjects: SUBJECT_start starts the receiver, SUBJECT_end cleans up -----------------

xdp_start() { receiver "$BENCH/raw" --if gnrx "$@"; }

dpdk_start()
{
	local huge=
	huge_free 48 || huge=--no-huge
	# Busy polling, the driver's default, costs it a tenth on veth.
	receiver "$BENCH/dpdk_gro" --if gnrx --cpu "$RX_CPU" --busy-budget 0 ${huge:+"$huge"} "$@"
}

gnstat() { receiver "$BENCH/gnstat" --ctl "$GHOSTNIC_CTL" --size "$SIZE" --subject "$SUBJECT"; }

# Resident memory of the daemon: small pages and huge ones.
emit_memory()
{
	emit rss_mib "$(awk '/^VmRSS|^HugetlbPages/ { kb += $2 } END { print kb / 1024 }' \
		"/proc/$GN_DAEMON/status")" MiB
}

tap_up()
{
	gn_wait 5 gn_exec rx ip link show dev gntap || gn_die "no TAP"
	gn_must gn_exec rx ip link set dev gntap netns /run/netns/vm
	gn_must gn_exec vm ip link set dev gntap address $MAC up
}
tap_reader()
{
	receiver nsenter --net=/run/netns/vm "$BENCH/tap_reader" --packet gntap --subject "$SUBJECT"
}

bridge_up()
{
	gn_must gn_exec rx ip link add br0 type bridge stp_state 0 mcast_snooping 0 \
		nf_call_iptables 0
	# Where the kernel has it, this switch of the namespace overrides the bridge's own.
	# shellcheck disable=SC2016 # for the inner shell
	gn_exec rx sh -c 'f=/proc/sys/net/bridge/bridge-nf-call-iptables
		[ ! -e $f ] || echo 0 >$f'
	gn_must gn_exec rx ip link set br0 up
	gn_must gn_exec rx ip link set gnrx master br0
}
bridge_start()
{
	receiver "$BENCH/tap_reader" --tap gntap --subject "$SUBJECT"
	gn_must gn_exec rx ip link set gntap master br0
	gn_must gn_exec rx bridge fdb add $MAC dev gntap master static
}
bridge_down() { gn_must gn_exec rx ip link del br0; }

# both START [STAMPS-OPTION] - at full speed, then at 10 % load
both()
{
	local start=$1 stamps=${2:-}

	$start && traffic && emit_full
	[ -z "$CURVE" ] || return 0
	BUSY=$GEN_CPU
	$start ${stamps:+"$stamps"} && traffic --rate "$LOAD" --stamp && emit_load
	BUSY=
}

# 10 % load is the same for every subject of the run: a tenth of what raw AF_XDP takes.
find_load()
{
	SUBJECT=raw
	link_up
	{ xdp_start && traffic; } || gn_die "the generator's frames do not arrive"
	LOAD=$(jq '.pps / 100000 | round * 10000' "$GN_TMP/result.json")
	link_down
}

subject()
{
	SUBJECT=$1
	emit line_ns "$("$BENCH/pingpong" "$GEN_CPU" "$RX_CPU" || echo null)" ns
	link_up
	case $SUBJECT in
	drop) xdp_drop() { xdp_start --drop; }; both xdp_drop ;;
	raw) both xdp_start --stamps ;;
	dpdk-gro) both dpdk_start --stamps ;;
	ghostnic-carry)
		ghostnic_start null --checksum carry
		both gnstat
		ghostnic_end ;;
	ghostnic-verify)
		ghostnic_start null
		both gnstat
		emit_memory
		ghostnic_end ;;
	ghostnic-copy)
		ghostnic_start null,copy
		both gnstat
		ghostnic_end ;;
	ghostnic-tap)
		ghostnic_start tap:gntap
		tap_up
		both tap_reader
		ghostnic_end ;;
	kernel-gro-tap)
		bridge_up
		both bridge_start
		bridge_down ;;
	tap-tcp)
		# A wire carries whole checksums and no super-packets.
		gn_must gn_exec tx ethtool -K gntx tx off >/dev/null
		ghostnic_start tap:gntap
		tap_up
		tcp vm gntap
		ghostnic_end ;;
	veth-tcp) tcp rx gnrx ;;
	*) gn_die "no subject $SUBJECT" ;;
	esac
	link_down
}

# tcp NS IF - iperf3 from tx to NS, one stream; the scheduler places the two ends
tcp()
{
	local gbps="" whole=${SECONDS_EACH%.*}	# iperf3 takes no fractions, and 0 for "forever"
	gn_must gn_exec tx ip addr add 10.0.0.1/24 dev gntx
	gn_must gn_exec "$1" ip addr add 10.0.0.11/24 dev "$2"
	taskset -pc "$GEN_CPU,$RX_CPU" $$ >/dev/null
	gn_wait 10 gn_ping tx 10.0.0.11 &&
		gn_iperf tx "$1" 10.0.0.11 -t $((${whole:-0} > 0 ? whole : 1)) >/dev/null &&
		gbps=$(jq '.end.sum_received.bits_per_second / 1e9' "$GN_TMP/iperf.json")
	taskset -pc "$GEN_CPU" $$ >/dev/null
	if [ -z "$gbps" ]; then
		gn_note "$SUBJECT: iperf3 failed"
		FAILED="$FAILED $SUBJECT"
		return
	fi
	emit gbps "$gbps" Gbit/s
	printf '   %-16s %.2f Gbit/s\n' "$SUBJECT" "$gbps"
}

# ---- main ------------------------------------------------------------------------------

bench_begin
gn_ns vm
bench_no_ipv6 vm

SUBJECTS=${BENCH_SUBJECTS:-drop raw dpdk-gro ghostnic-carry ghostnic-verify ghostnic-copy \
	ghostnic-tap kernel-gro-tap tap-tcp veth-tcp}
[ -z "$CURVE" ] || SUBJECTS=${BENCH_SUBJECTS:-raw dpdk-gro ghostnic-carry ghostnic-verify}
if [ ! -x "$BENCH/dpdk_gro" ]; then
	gn_note "dpdk-gro is left out: DPDK was not there when this was built (make deps-bench)"
	SUBJECTS=${SUBJECTS/dpdk-gro/}
fi
[ -n "$LOAD$CURVE" ] || find_load

round()
{
	local s
	for s in $SUBJECTS; do
		subject "$s"
	done
}

for ROUND in $(seq "$ROUNDS"); do
	if [ -z "$CURVE" ]; then
		echo "round $ROUND of $ROUNDS: $FLOWS flows, bursts of $BURST, $SIZE bytes; load $LOAD/s"
		round
		continue
	fi
	for FLOWS in 1 16 256 4096; do
		for BURST in 1 4 16; do
			for SIZE in 64 512 1514; do
				echo "round $ROUND of $ROUNDS: $FLOWS flows, bursts of $BURST, $SIZE bytes"
				EXTRA=",\"flows\":$FLOWS,\"burst\":$BURST,\"size\":$SIZE"
				round
			done
		done
	done
done

bench_table "table${CURVE:+-curve}.jq" "$JSONL"
[ -z "$FAILED" ] || gn_die "without result:$FAILED"
