#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# What dirty logs cost: JSON lines in $B/bench/dirty.jsonl, and KVM's as a table. KVM's are
# measured in an emulated machine that has KVM, whose figures compare with one another
# only. Where there is KVM in hardware, run $B/tests/bench/dirty_kvm by itself.

# shellcheck source=tests/vm/lib.sh
. "$(dirname "$0")/../vm/lib.sh"

OUT=$VM_BIN/bench/dirty.jsonl
mkdir -p "$VM_BIN/bench"
"$VM_BIN/tests/bench/harvest" "$@" | tee "$OUT" || exit 1

vm_kernel
vm_initrd "$VM_DIR/dirty-bench.img" "$VM_TOP/tests/bench/guest/dirty.sh:/test" \
	"$VM_BIN/tests/bench/dirty_kvm:/dirty_kvm" @kvm-amd
VM_ACCEL=tcg VM_CPU=max vm_run "$VM_DIR/dirty-bench.img" 900 >"$OUT.guest" || { cat "$OUT.guest"; exit 1; }
grep '^{' "$OUT.guest" >>"$OUT"
rm -f "$OUT.guest"

echo "ns per dirty page: slower write + harvest + clear = total"
grep '"dirty-kvm"' "$OUT" | jq -r '[.dirty_percent, .subject, .guest_ns, .harvest_ns, .clear_ns,
	.total_ns, .start_us] | @tsv' |
	awk -F '\t' 'BEGIN { printf "%8s %-11s %8s %8s %8s %8s %9s\n", "dirty", "log", "write",
		"harvest", "clear", "total", "start/us" }
	{ printf "%7s%% %-11s %8d %8d %8d %8d %9d\n", $1, $2, $3, $4, $5, $6, $7 }'

echo "ms per GiB to take and merge a log"
grep '"harvest_ms_per_gib"' "$OUT" | jq -r '[.source, .variant, .gib, .dirty_pages, .value, .best] | @tsv' |
	awk -F '\t' 'BEGIN { printf "%-14s %-8s %8s %8s %10s %10s\n", "log", "variant", "GiB", "pages", "median", "best" }
	{ printf "%-14s %-8s %8.3f %8d %10.4f %10.4f\n", $1, $2, $3, $4, $5, $6 }'
