# SPDX-License-Identifier: BSD-2-Clause
# share.jsonl -> tables: medians over the rounds, ratios within a round, the sharers' curve.

def median: sort | if length == 0 then null
	elif length % 2 == 1 then .[(length - 1) / 2]
	else (.[length / 2 - 1] + .[length / 2]) / 2 end;
def short: if . == null then "-" elif . >= 100 then "\(round)"
	elif . >= 1 then "\(. * 100 | round / 100)" else "\(. * 10000 | round / 10000)" end;
def left(n): . + (" " * n) | .[:n];
def right(n): (" " * n) + . | .[-n:];

[.[] | select(.sharers == null)] as $all
| (reduce $all[] as $r ({}; .[$r.metric][$r.subject] += [$r.value])) as $by
| (reduce $all[] as $r ({}; .[$r.round | tostring][$r.subject][$r.metric] = $r.value)) as $rounds
| [["read_fault_us_p50", "ghostmem", "get4k_us_p50", "raw"],
   ["read_fault_us_p99", "ghostmem", "get4k_us_p50", "raw"],
   ["get8_us_p50", "ghostmem", "echo8_us_p50", "raw"],
   ["get4k_us_p50", "ghostmem", "get4k_us_p50", "raw"],
   ["fetch_add_us_p50", "ghostmem", "echo8_us_p50", "raw"],
   ["scan_gbps", "ghostmem", "bulk_gbps", "raw"],
   ["store_gbps", "ghostmem", "bulk_gbps", "raw"],
   ["scan_gbps", "ghostmem-2m", "scan_gbps", "ghostmem"],
   ["store_gbps", "ghostmem-2m", "store_gbps", "ghostmem"],
   ["get1m_gbps", "ghostmem", "bulk_gbps", "raw"],
   ["get8_us_p50", "ghostmem", "get8_us_p50", "ucx"],
   ["put4k_us_p50", "ghostmem", "get4k_us_p50", "raw"],
   ["put1m_gbps", "ghostmem", "bulk_gbps", "raw"],
   ["get1m_gbps", "ghostmem", "get1m_gbps", "ucx"],
   ["put4k_us_p50", "ghostmem", "put4k_us_p50", "ucx"],
   ["put1m_gbps", "ghostmem", "put1m_gbps", "ucx"]] as $ratios
| "",
  "medians of \($rounds | length) rounds",
  (("metric" | left(20)) + (["raw", "ucx", "ghostmem", "-2m", "-unix", "-tls", "-busy"] | map(right(12)) | add)),
  ($by | keys_unsorted[] as $m | ($m | left(20))
   + (["raw", "ucx", "ghostmem", "ghostmem-2m", "ghostmem-unix", "ghostmem-tls", "ghostmem-busy"] | map($by[$m][.] // [] | median | short | right(12)) | add)),
  "",
  "ratios within a round: median (each round)",
  ($ratios[] as [$m, $a, $n, $b]
   | [$rounds[] | select(.[$a][$m] != null and (.[$b][$n] // 0) != 0) | .[$a][$m] / .[$b][$n]]
   | select(length > 0)
   | ("\($a) \($m)" | left(30)) + (" / \($b) \($n)" | left(22)) + (median | short | right(8))
     + "  (" + (map(short) | join(" ")) + ")"),
  "",
  "N sharers, us (p50): the owner writes a page that all hold to read; one reads a page that the others hold",
  ([.[] | select(.sharers != null)] | group_by(.sharers)[]
   | (reduce .[] as $r ({}; .[$r.metric] = $r.value)) as $m
   | "  \(.[0].sharers | tostring | right(3)) sharers \($m.invalidate_us_p50 | short | right(8))\($m.shared_read_fault_us_p50 | short | right(10))"),
  ""
