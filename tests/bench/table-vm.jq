# SPDX-License-Identifier: BSD-2-Clause
# vm.jsonl -> tables: medians over the rounds, ratios within a round and their median, and
# the curve over the number of instances.

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
| ([$all[] | select(.subject == "tracker") | .value] | sort) as $tracker
| [$all[] | select(.instances == null and .offered_pps == null and .subject != "tracker")] as $main
| [$all[] | select(.instances != null and .offered_pps == null)] as $curve
| (reduce ($main[] | select(.value != null)) as $r ({}; .[$r.subject][$r.metric] += [$r.value])) as $by
| (reduce $main[] as $r ({}; .[$r.round | tostring][$r.subject][$r.metric] = $r.value)) as $rounds
| (reduce $curve[] as $r ({};
	.["\($r.instances)"][$r.subject][$r.metric] += [$r.value])) as $sizes
| [["gbps_zero_loss", "Gbit/s"], ["pps_zero_loss", "Mpps"], ["pps", "peak"],
   ["packets_per_super", "merged"], ["cpu_s_per_gb_zero_loss", "s/GB"],
   ["cpu_s_per_gb", "s/GB low"], ["latency_us_p50", "p50 us"],
   ["latency_us_p99", "p99 us"], ["generator_limits", "gen. end"]] as $cols
| [["gbps_zero_loss", "ghostnic-vhost", "dpdk-vhost"],
   ["gbps_zero_loss", "ghostnic-vhost", "dpdk-vhost-verify"],
   ["gbps_zero_loss", "ghostnic-vhost-carry", "dpdk-vhost"],
   ["cpu_s_per_gb_zero_loss", "ghostnic-vhost", "dpdk-vhost"],
   ["cpu_s_per_gb_zero_loss", "ghostnic-vhost", "dpdk-vhost-verify"],
   ["cpu_s_per_gb_zero_loss", "ghostnic-vhost-carry", "dpdk-vhost"],
   ["cpu_s_per_gb", "ghostnic-vhost", "dpdk-vhost"],
   ["latency_us_p50", "ghostnic-vhost", "dpdk-vhost"],
   ["latency_us_p99", "ghostnic-vhost", "dpdk-vhost"],
   ["pps", "ghostnic-vhost-logged", "ghostnic-vhost"],
   ["pps_zero_loss", "ghostnic-vhost-logged", "ghostnic-vhost"],
   ["cpu_s_per_gb_zero_loss", "ghostnic-vhost-logged", "ghostnic-vhost"],
   ["pps", "ghostnic-shm", "ghostnic-null"],
   ["gbps_zero_loss", "ghostnic-shm", "ghostnic-null"]] as $ratios
| "",
  "medians of \($rounds | length) rounds; Gbit/s, Mpps, merged, s/GB: at the highest rate without loss",
  (("subject" | left(22)) + ([$cols[] | .[1] | right(10)] | add)),
  ($by | keys_unsorted[] as $s | ($s | left(22))
   + ([$cols[] as $c | $by[$s][$c[0]] // [] | median | short | right(10)] | add)),
  "",
  "ratios within a round: median (each round)",
  ($ratios[] as [$m, $a, $b]
   | [$rounds[] | select(.[$a][$m] != null and (.[$b][$m] // 0) != 0) | .[$a][$m] / .[$b][$m]]
   | select(length > 0)
   | ($m | left(24)) + ("\($a) / \($b)" | left(44)) + (median | short | right(8))
     + "  (" + (map(short) | join(" ")) + ")"),
  (if $tracker == [] then empty else
   ($tracker | length) as $n
   # Where the median is, by 95 %: ranks of a binomial distribution
   | (($n | sqrt) * 0.98 + 1 | floor) as $off
   | "",
     "tracker: packets/s with the DMA log over those without, median of \($n) pairs of turns: "
     + "\($tracker | median), by 95 % between \($tracker[[$n / 2 - $off, 0] | max | floor]) and "
     + "\($tracker[[$n / 2 + $off, $n - 1] | min | floor])" end),
  (if $sizes == {} then empty else
   "",
   "Gbit/s without loss (CPU s/GB there) over the number of instances",
   ([$sizes[] | keys_unsorted[]] | unique) as $names
   | (("instances" | left(12)) + ([$names[] | right(26)] | add)),
     ($sizes | to_entries[] | . as $e | (.key | left(12))
      + ([$names[] as $s
	  | ($e.value[$s].gbps_zero_loss // [] | median | short)
	    + " (" + ($e.value[$s].cpu_s_per_gb_zero_loss // [] | median | short) + ")"
	  | right(26)] | add)) end),
  ""
