#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# Fuzz one target for FUZZ_SECONDS under libFuzzer, from its seeds.
#
#	B=build FUZZ_SECONDS=20 tests/fuzz/run.sh fuzz_rx
#
# New inputs go to $B/fuzz/corpus/NAME, a crash to $B/fuzz/crash-NAME-*: make it a seed. Until it
# is removed there, each run begins with it.
set -eu

target=$1
name=${target#fuzz_}
seeds=$(dirname "$0")/seeds/$name
corpus=$B/fuzz/corpus/$name
mkdir -p "$corpus"
echo "  FUZZ    $target (${FUZZ_SECONDS:-20} s)"
norandom=
if setarch -R true 2>/dev/null; then
	norandom='setarch -R'
fi
log=$B/fuzz/$target.log
# run ARG... - the target
run()
{
	# shellcheck disable=SC2086 # setarch with its option
	$norandom "$B/asan/tests/fuzz/$target" -timeout=10 -rss_limit_mb=2048 "$@" >"$log" 2>&1 &&
		return
	tail -n 60 "$log"
	exit 1
}
for crash in "$B/fuzz/crash-$name-"*; do
	[ ! -e "$crash" ] || run "$crash"
done
run -max_total_time="${FUZZ_SECONDS:-20}" -print_final_stats=1 \
	-artifact_prefix="$B/fuzz/crash-$name-" "$corpus" "$seeds"
grep number_of_executed_units "$log"
