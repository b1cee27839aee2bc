# SPDX-License-Identifier: BSD-2-Clause
# rx-curve.jsonl -> one line for each shape of traffic, medians over the rounds.

def median: sort | if length == 0 then null
	elif length % 2 == 1 then .[(length - 1) / 2]
	else (.[length / 2 - 1] + .[length / 2]) / 2 end;
def fixed: if . == null then "-" else "\(. * 100 | round / 100)" end;
def right(n): (" " * n) + . | .[-n:];

(map(.subject) | unique) as $subjects
| ["flows", "burst", "size"] as $shape
| "",
  "Mpps / packets in one / user ns a packet",
  (([$shape[] | right(6)] | add) + ("line ns" | right(9)) + ([$subjects[] | right(24)] | add)),
  (group_by([.flows, .burst, .size])[] as $g
   | ([$shape[] as $k | $g[0][$k] | tostring | right(6)] | add)
     + ([$g[] | select(.metric == "line_ns") | .value] | median | fixed | right(9))
     + ([$subjects[] as $s
	| def of(m): [$g[] | select(.subject == $s and .metric == m) | .value] | median;
	  "\(of("pps") | if . then . / 1e6 else . end | fixed) / \(of("packets_per_super") | fixed) / \(of("user_ns_per_packet") | fixed)"
	| right(24)] | add)),
  ""
