#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Measure ghostmem beside a bare TCP connection and UCX, over the loopback of a namespace;
# docs/benchmarks.md says what and why.
#
#	GN_BIN=build tests/bench/share.sh
#
# Whoever serves is on BENCH_RX_CPU (1), whoever asks on BENCH_GEN_CPU (0), with the agent of
# its node. All subjects are measured in turn in each round.
#
# UCX is left out, with a word, where ucx_perftest (Debian: ucx-utils) is missing.
#
# Environment: BENCH_ROUNDS (5), BENCH_SUBJECTS (all), BENCH_SHARERS of the
# sharers' curve ("1 2 4 8 16 32 64", empty: no curve).

# shellcheck disable=SC2317,SC2329,SC2086 # functions called through a name; numbers
SUBJECTS=${BENCH_SUBJECTS:-raw ucx ghostmem ghostmem-2m ghostmem-unix ghostmem-tls ghostmem-busy}
HUGE_PAGES=0
[[ " $SUBJECTS " != *" ghostmem-2m "* ]] || HUGE_PAGES=132 # of two nodes
# shellcheck source=tests/bench/lib.sh
. "$(dirname "$0")/lib.sh"

ROUNDS=${BENCH_ROUNDS:-5}
SHARERS=${BENCH_SHARERS-1 2 4 8 16 32 64}
BENCH_NAME=share
PORT=7500
BUSY=200	# microseconds

mkdir -p "$OUT"
JSONL=$OUT/$BENCH_NAME.jsonl
: >"$JSONL"
gn_ns rx

serving() { gn_exec rx ss -Hltn "sport = :$1" | grep -q .; }

# numbers FILE - METRIC VALUE UNIT lines become results
numbers()
{
	local metric value unit
	while read -r metric value unit; do
		emit "$metric" "$value" "$unit"
	done <"$1"
}

measure_raw()
{
	local pid
	PORT=$((PORT + 1))
	gn_spawn pid gn_exec rx taskset -c "$RX_CPU" "$BENCH/share_raw" serve $PORT
	gn_must gn_wait 5 serving $PORT
	gn_must gn_exec rx taskset -c "$GEN_CPU" "$BENCH/share_raw" run 127.0.0.1 $PORT \
		>"$GN_TMP/out"
	numbers "$GN_TMP/out"
	gn_stop "$pid"
}

# ucx TEST SIZE ITERATIONS - sets P50 (us) and MBS
ucx()
{
	local pid
	PORT=$((PORT + 1))
	gn_spawn pid gn_exec rx env UCX_TLS=tcp UCX_NET_DEVICES=lo \
		taskset -c "$RX_CPU" ucx_perftest -p $PORT
	gn_must gn_wait 5 serving $PORT
	gn_exec rx env UCX_TLS=tcp UCX_NET_DEVICES=lo taskset -c "$GEN_CPU" \
		ucx_perftest 127.0.0.1 -p $PORT -t "$1" -s "$2" -n "$3" -w 50 \
		>"$GN_TMP/out" 2>&1
	read -r P50 MBS < <(awk '/^Final:/ { print $3, $7 }' "$GN_TMP/out")
	gn_stop "$pid"
	[ -n "${MBS:-}" ] || { gn_note "ucx_perftest: $(tail -n 3 "$GN_TMP/out")"; return 1; }
}

# A get is a round trip. ucp_put_lat is half of one, a put each way: doubled, as ghostmem's puts
# end when the owner has answered.
measure_ucx()
{
	local P50 MBS
	ucx ucp_get 8 1000 && emit get8_us_p50 "$P50" us
	ucx ucp_get 4096 1000 && emit get4k_us_p50 "$P50" us
	ucx ucp_get 1048576 200 && emit get1m_gbps "$(mbs_gbps "$MBS")" Gbit/s
	ucx ucp_put_lat 8 1000 && emit put8_us_p50 "$(jq -n "2 * $P50")" us
	ucx ucp_put_lat 4096 1000 && emit put4k_us_p50 "$(jq -n "2 * $P50")" us
	ucx ucp_put_bw 1048576 200 && emit put1m_gbps "$(mbs_gbps "$MBS")" Gbit/s
}
mbs_gbps() { jq -n "$1 * 8 * 1.048576 / 1000"; }

# agent NAME CPU PORT [ARGS...]
agent()
{
	local pid
	gn_spawn pid gn_exec rx taskset -c "$2" "$GN_BIN/ghostmemd" --node "$1" \
		--listen "tcp:127.0.0.1:$3" --directory "file:$GN_TMP/dir.json" \
		--local "$GN_TMP/$1.sock" "${@:4}"
	gn_must gn_wait 5 "$GN_BIN/ghostmem" ls -a "$GN_TMP/$1.sock"
}

known() { "$GN_BIN/ghostmem" ls -a "$GN_TMP/owner.sock" | grep -q "^$1 "; }

# pair SUFFIX PORT [ARGS...] - agents of an owner and a user
pair()
{
	agent "owner$1" "$RX_CPU" "$2" "${@:3}"
	agent "user$1" "$GEN_CPU" $(($2 + 1)) "${@:3}"
}

measure_ghostmem() { measure_pair ""; }
measure_ghostmem-2m() { measure_pair "" --page-size 2M; }
measure_ghostmem-unix() { measure_pair -unix; }
measure_ghostmem-tls() { measure_pair -tls; }
measure_ghostmem-busy() { GHOSTMEM_SPIN_US=$BUSY measure_pair -busy; }

# measure_pair SUFFIX [ARGS...] - of export
measure_pair()
{
	local pid name=r$ROUND-$SUBJECT owner=$GN_TMP/owner$1.sock
	GHOSTMEM_KEY=k gn_spawn pid gn_exec rx taskset -c "$RX_CPU" "$GN_BIN/ghostmem" \
		export -a "$owner" "${@:2}" "$name" 128M
	gn_must gn_wait 5 known "$name"
	gn_must gn_exec rx taskset -c "$GEN_CPU" "$BENCH/share_mem" run \
		"$GN_TMP/user$1.sock" "$name" k >"$GN_TMP/out"
	numbers "$GN_TMP/out"
	gn_must "$GN_BIN/ghostmem" revoke -a "$owner" "$name"
	gn_stop "$pid"
}

if [[ " $SUBJECTS " == *" ucx "* ]] && ! command -v ucx_perftest >/dev/null; then
	gn_note "no ucx_perftest (Debian: ucx-utils): UCX is not measured"
	SUBJECTS=${SUBJECTS/ucx/}
fi
pair "" 7400 --shortcut off
mkdir "$GN_TMP/keys"
echo "ghostmem:$(head -c 32 /dev/urandom | od -An -vtx1 | tr -d ' \n')" >"$GN_TMP/keys/keys.psk"
for SUBJECT in $SUBJECTS; do
	case $SUBJECT in
	*-unix) pair -unix 7410 ;;
	*-tls) pair -tls 7420 --shortcut off --tls psk --tls-dir "$GN_TMP/keys" ;;
	*-busy) pair -busy 7430 --shortcut off --busy-poll "$BUSY" ;;
	esac
done
for ROUND in $(seq "$ROUNDS"); do
	for SUBJECT in $SUBJECTS; do
		measure_"$SUBJECT"
	done
done

SUBJECT=ghostmem
ROUND=1
max=0
for n in $SHARERS; do [ "$n" -le "$max" ] || max=$n; done
socks=()
for i in $(seq "$max"); do
	agent "s$i" "$GEN_CPU" $((7600 + i)) --shortcut off
	socks+=("$GN_TMP/s$i.sock")
done
for n in $SHARERS; do
	EXTRA=",\"sharers\":$n"
	gn_must gn_exec rx taskset -c "$GEN_CPU" "$BENCH/share_mem" sharers "$n" \
		"$GN_TMP/owner.sock" "${socks[@]}" >"$GN_TMP/out"
	numbers "$GN_TMP/out"
done
bench_table table-share.jq "$JSONL"
exit $GN_FAILED
