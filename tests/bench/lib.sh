# shellcheck shell=bash
# SPDX-License-Identifier: BSD-2-Clause
#
# What the benchmarks share; a script sets HUGE_PAGES and sources this first:
#
#	HUGE_PAGES=64		# 2 MiB pages to reserve
#	. "$(dirname "$0")/lib.sh"
#
# The script then runs again, in namespaces that end with it (netns/lib.sh). What is not in
# a namespace, the reserved huge pages, is restored by the outer process.
#
# Environment: BENCH_GEN_CPU (0), BENCH_RX_CPU (1).

# shellcheck disable=SC2034,SC2317,SC2329 # used by the scripts, called through a trap
HUGE=/proc/sys/vm/nr_hugepages

if [ -z "${BENCH_INNER:-}" ]; then
	before=$(cat $HUGE) || exit 1
	restore() { echo "$before" >"$HUGE"; }
	# unshare(1) blocks SIGTERM while it waits, and takes its child along when killed.
	trap 'kill -KILL $inner 2>/dev/null; wait $inner; exit 143' TERM INT HUP
	trap restore EXIT
	[ "$(id -u)" != 0 ] || echo $((before + HUGE_PAGES)) >"$HUGE"
	BENCH_INNER=1 bash "$0" "$@" &
	inner=$!
	wait $inner
	exit
fi

# shellcheck source=tests/netns/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../netns/lib.sh"

GEN_CPU=${BENCH_GEN_CPU:-0}
RX_CPU=${BENCH_RX_CPU:-1}
BENCH=$GN_BIN/tests/bench
OUT=$GN_BIN/bench
MAC=02:00:00:00:00:11	# of the first instance, and of what is behind the bridge
BENCH_NAME=		# "bench" of every number; the script sets it
ROUND=0
SUBJECT=
EXTRA=			# more JSON for every number, ",..."

# bench_begin - the place for results, JSONL; namespaces tx and rx; this shell moves to GEN_CPU,
# not where the receiver spins
bench_begin()
{
	mkdir -p "$OUT"
	JSONL=$OUT/$BENCH_NAME.jsonl
	: >"$JSONL"
	taskset -pc "$GEN_CPU" $$ >/dev/null
	gn_bpffs
	gn_ns tx rx
	bench_no_ipv6 tx rx
}

# bench_no_ipv6 NS... - no packets but the generator's
bench_no_ipv6()
{
	local ns
	for ns; do
		gn_exec "$ns" sh -c 'echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6
			echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6'
	done
}

# bench_table FILTER JSONL - the readable result
bench_table()
{
	jq -rs -f "$(dirname "${BASH_SOURCE[0]}")/$1" "$2"
	echo "every number: $2"
}

# huge_free N - are N huge pages free?
huge_free() { [ "$(awk '/^HugePages_Free/ { print $2 }' /proc/meminfo)" -ge "$1" ]; }

# emit METRIC VALUE UNIT
emit()
{
	printf '{"bench":"%s","round":%d,"subject":"%s","metric":"%s","value":%s,"unit":"%s"%s}\n' \
		"$BENCH_NAME" "$ROUND" "$SUBJECT" "$1" "$2" "$3" "$EXTRA" >>"$JSONL"
}

# emit_field METRIC UNIT - from result.json, if it is there
emit_field()
{
	local v
	v=$(jq -r ".$1 // empty" "$GN_TMP/result.json")
	[ -z "$v" ] || emit "$1" "$v" "$2"
}

# emit_latency - null where nobody reads what arrives, so that nobody can tell when it did
emit_latency()
{
	local p
	for p in latency_us_p50 latency_us_p99; do
		emit $p "$(jq ".$p" "$GN_TMP/result.json")" us
	done
}

# link_up, link_down - the wire: gntx in tx, gnrx in rx
link_up()
{
	gn_veth tx gntx rx gnrx
	gn_must gn_exec rx ethtool -K gnrx gro on
}
link_down() { gn_must gn_exec tx ip link del gntx; }

# ghostnic_start PORT DAEMON-ARGS... - attach, start the daemon on RX_CPU
ghostnic_start()
{
	local port=$1
	shift
	gn_must gn_exec rx "$GN_BIN/ghostnic" attach gnrx >>"$GN_TMP/attach.log" 2>&1
	taskset -pc "$RX_CPU" $$ >/dev/null	# it inherits that
	gn_must gn_daemon rx --iface gnrx --instance "vm1,mac=$MAC,port=$port" "$@"
	taskset -pc "$GEN_CPU" $$ >/dev/null
}

ghostnic_end()
{
	gn_stop "$GN_DAEMON"
	gn_must gn_exec rx "$GN_BIN/ghostnic" detach gnrx >/dev/null
}
