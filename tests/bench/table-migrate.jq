# SPDX-License-Identifier: BSD-2-Clause
# migrate.jsonl -> tables: medians of all migrations, then ratios of the medians within a round.

def median: sort | if length == 0 then null
	elif length % 2 == 1 then .[(length - 1) / 2]
	else (.[length / 2 - 1] + .[length / 2]) / 2 end;
# Three significant digits, or so.
def short: if . == null then "-"
	elif . >= 1000000 then "\(. / 10000 | round / 100)M"
	elif . >= 1000 then "\(. / 10 | round / 100)k"
	elif . >= 100 then "\(round)"
	elif . >= 1 then "\(. * 100 | round / 100)"
	else "\(. * 10000 | round / 10000)" end;
def quartiles: sort | [.[length / 4 | floor], .[length * 3 / 4 | floor]];
# Each value, or of many the middle half
def spread: if length <= 12 then map(short) | join(" ")
	else "\(length): quartiles \(quartiles | map(short) | join(" "))" end;
def left(n): . + (" " * n) | .[:n];
def right(n): (" " * n) + . | .[-n:];

(reduce .[] as $r ({}; .[$r.subject][$r.metric] += [$r.value])) as $by
| (reduce (.[] | select(.round > 0)) as $r ({};
	.[$r.round | tostring][$r.subject][$r.metric] += [$r.value])
   | map_values(map_values(map_values(median)
	| .mb_per_s = (if .total_s then .bytes / 1e6 / .total_s else null end)))) as $rounds
| [["total_s", "total s"], ["downtime_ms_p50", "p50 ms"], ["downtime_ms_p99", "p99 ms"],
   ["bytes", "bytes"], ["cpu_s_per_gb", "CPU s/GB"], ["rounds", "rounds"],
   ["harvest_ms_per_gib", "ms/GiB"]] as $cols
| [["mb_per_s", "vm-migrate", "raw-copy"],
   ["mb_per_s", "vm-migrate", "raw-copy-io"],
   ["mb_per_s", "qemu", "raw-copy"],
   ["total_s", "vm-migrate", "qemu"],
   ["total_s", "vm-migrate", "qemu-multifd"],
   ["mb_per_s", "vm-migrate-2", "raw-copy"],
   ["mb_per_s", "vm-migrate-2", "raw-copy-io"],
   ["total_s", "vm-migrate-2", "qemu"],
   ["total_s", "vm-migrate-2", "qemu-multifd"],
   ["total_s", "pair-digest", "pair-nodigest"],
   ["cpu_s_per_gb", "pair-digest", "pair-nodigest"],
   ["total_s", "vm-migrate", "vm-migrate-nodigest"],
   ["cpu_s_per_gb", "vm-migrate", "vm-migrate-nodigest"],
   ["total_s", "vm-migrate-tls", "vm-migrate"],
   ["total_s", "vm-migrate-sparse", "vm-migrate"],
   ["total_s", "vm-migrate-sparse-1", "vm-migrate"],
   ["cpu_s_per_gb", "vm-migrate", "qemu"],
   ["cpu_s_per_gb", "vm-migrate", "raw-copy"],
   ["cpu_s_per_gb", "vm-migrate", "raw-copy-io"],
   ["downtime_ms", "vm-migrate", "qemu"]] as $ratios
| "",
  "medians",
  (("subject" | left(20)) + ([$cols[] | .[1] | right(10)] | add)),
  ($by | keys_unsorted[] as $s | ($s | left(20))
   + ([$cols[] as $c | $by[$s][$c[0]] // [] | median | short | right(10)] | add)),
  "",
  "ratios within a round: median (each round)",
  ($ratios[] as [$m, $a, $b]
   | [$rounds[] | select(.[$a][$m] != null and (.[$b][$m] // 0) != 0) | .[$a][$m] / .[$b][$m]]
   | select(length > 0)
   | ($m | left(16)) + ("\($a) / \($b)" | left(34)) + (median | short | right(8))
     + "  (" + spread + ")"),
  ""
