# SPDX-License-Identifier: BSD-2-Clause
# rx.jsonl -> tables: medians over the rounds, then ratios within a round and their median.

def median: sort | if length == 0 then null
	elif length % 2 == 1 then .[(length - 1) / 2]
	else (.[length / 2 - 1] + .[length / 2]) / 2 end;
# Three significant digits, or so.
def short: if . == null then "-"
	elif . >= 1000000 then "\(. / 10000 | round / 100)M"
	elif . >= 1000 then "\(. / 10 | round / 100)k"
	elif . >= 100 then "\(round)"
	elif . >= 1 then "\(. * 100 | round / 100)"
	else "\(. * 1000 | round / 1000)" end;
def left(n): . + (" " * n) | .[:n];
def right(n): (" " * n) + . | .[-n:];

. as $all
| (reduce ($all[] | select(.value != null)) as $r ({}; .[$r.subject][$r.metric] += [$r.value])) as $by
| (reduce $all[] as $r ({}; .[$r.round | tostring][$r.subject][$r.metric] = $r.value)) as $rounds
| [["pps", "Mpps"], ["gbps", "Gbit/s"], ["packets_per_super", "merged"],
   ["user_ns_per_packet", "user ns"], ["cpu_s_per_gb", "CPU s/GB"],
   ["latency_us_p50", "p50 us"],
   ["latency_us_p99", "p99 us"], ["rss_mib", "MiB"],
   ["line_ns", "line ns"]] as $cols
| [["user_ns_per_packet", "ghostnic-carry", "dpdk-gro"],
   ["user_ns_per_packet", "ghostnic-verify", "dpdk-gro"],
   ["pps", "dpdk-gro", "raw"],
   ["pps", "ghostnic-carry", "raw"],
   ["pps", "ghostnic-carry", "dpdk-gro"],
   ["pps", "ghostnic-verify", "raw"],
   ["pps", "ghostnic-verify", "dpdk-gro"],
   ["cpu_s_per_gb", "ghostnic-carry", "dpdk-gro"],
   ["cpu_s_per_gb", "ghostnic-verify", "dpdk-gro"],
   ["gbps", "ghostnic-copy", "kernel-gro-tap"],
   ["gbps", "ghostnic-tap", "kernel-gro-tap"],
   ["cpu_s_per_gb", "ghostnic-tap", "kernel-gro-tap"],
   ["latency_us_p50", "ghostnic-tap", "kernel-gro-tap"],
   ["latency_us_p99", "ghostnic-tap", "kernel-gro-tap"],
   ["gbps", "tap-tcp", "veth-tcp"]] as $ratios
| "",
  "medians of \($rounds | length) rounds",
  ("line ns, the time of one cache line from CPU to CPU, in each round: "
   + ([$rounds[] | [.[].line_ns | select(. != null)] | median | short] | join(" "))),
  (("subject" | left(18)) + ([$cols[] | .[1] | right(10)] | add)),
  ($by | keys_unsorted[] as $s | ($s | left(18))
   + ([$cols[] as $c | $by[$s][$c[0]] // [] | median | short | right(10)] | add)),
  "",
  "ratios within a round: median (each round)",
  ($ratios[] as [$m, $a, $b]
   | [$rounds[] | select(.[$a][$m] != null and (.[$b][$m] // 0) != 0) | .[$a][$m] / .[$b][$m]]
   | select(length > 0)
   | ($m | left(20)) + ("\($a) / \($b)" | left(34)) + (median | short | right(8))
     + "  (" + (map(short) | join(" ")) + ")"),
  ""
