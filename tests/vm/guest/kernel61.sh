#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Inside a guest with Debian 12's kernel: does its verifier take the XDP program, do the
# packet fixtures give what they give elsewhere, does traffic flow? /test of kernel61.sh.

export GN_BIN=/build
# shellcheck source=tests/netns/lib.sh
. /tests/netns/lib.sh

# attached MODE - as the kernel has it, and as ghostnic says
attached()
{
	local flag=xdp
	[ "$1" = native ] || flag=xdpgeneric
	gn_exec host ip link show dev h0 | grep -w "$flag" &&
		status ".mode == \"$1\" and .attached and .dispatcher"
}

# status FILTER - does "ghostnic status" say so of h0?
status()
{
	gn_exec host "$GN_BIN/ghostnic" status h0 -j | tee "$GN_TMP/status" |
		jq -e ".interfaces[0] | $1" || { cat "$GN_TMP/status"; return 1; }
}

not_attached()
{
	! gn_exec host ip link show dev h0 | grep -w 'xdp\|xdpgeneric'
}

# fixtures PROGRAM - all cases of a cmocka program, as one. Metadata is limited to 32 bytes
# before 6.3: no test can use up the headroom with it.
fixtures()
{
	local log=$GN_TMP/${1##*/}.log plan good
	CMOCKA_MESSAGE_OUTPUT=TAP timeout 60 "$1" >"$log" 2>&1 &&
		plan=$(sed -nE 's/^1\.\.([0-9]+).*/\1/p' "$log") &&
		good=$(grep -cE '^ok |# SKIP test_foreign_meta' "$log") &&
		[ "$good" -gt 0 ] && [ "$good" = "$plan" ] && return
	grep -E -A 3 '^not ok' "$log" || tail -n 15 "$log"
	return 1
}

merged()
{
	local packets frames
	packets=$(gn_count rx_packets)
	frames=$(gn_count rx_frames)
	echo "$packets packets in $frames frames"
	[ "$frames" -gt 0 ] && [ "$packets" -gt "$frames" ]
}

nothing_bad()
{
	local c n rc=0
	for c in bad_csum rx_bad_meta rx_bad_bounds tx_bad drop_meta; do
		n=$(gn_count $c)
		[ "$n" = 0 ] || { echo "$c is $n"; rc=1; }
	done
	return $rc
}

# AF_XDP takes frames of several buffers since 6.6; here the daemon has to do without.
no_multi_buffer()
{
	gn_ghostnic stats -j | jq -e '[.. | objects | .multi_buffer? // empty] == []' &&
		gn_ghostnic stats -j | jq -e '[.. | objects | select(has("multi_buffer"))] != []'
}

# jumbo_refused - and where frames would need it, say so instead of losing them
jumbo_refused()
{
	gn_exec host timeout 20 "$GN_BIN/ghostnicd" --foreground --ctl "$GN_TMP/jumbo.sock" \
		--iface h0 --instance "vm1,mac=$GN_MAC1,port=null" >"$GN_TMP/jumbo" 2>&1 &&
		return 1
	cat "$GN_TMP/jumbo"
	grep -q 'multi-buffer' "$GN_TMP/jumbo"
}

huge_free() { grep -E "^HugePages_Free: +$1$" /proc/meminfo; }

# pages KIB - 8192 chunks of 2 KiB are on pages of this size
pages()
{
	local free=0
	[ "$1" = 4 ] || free=8
	grep "8192 chunks on $1 KiB pages" "$GN_TMP/GN_DAEMON.log" && huge_free $free
}

beside_filter()
{
	gn_exec host xdp-filter load -m native h0 &&
		gn_exec host "$GN_BIN/ghostnic" attach h0 --mode native &&
		status '.other_programs == 1'
}

detach_one()
{
	gn_exec host "$GN_BIN/ghostnic" detach h0 && gn_exec host xdp-filter status
}

unload_filter()
{
	gn_exec host xdp-filter unload h0 && not_attached
}

# stage WHAT - how long did it take to get here? An emulated CPU is slow in odd places.
stage()
{
	gn_note "$(cut -d' ' -f1 /proc/uptime) s: $1"
}

# deaf - what the filter drops does not arrive
deaf()
{
	! gn_ping peer 10.0.0.11 -c 1
}

stage "fixtures, on $(uname -srv)"
for t in /tests/xdp/test_*; do
	gn_check "${t##*/}" fixtures "$t"
done

for mode in native generic; do
	stage "$mode mode"
	gn_file "$([ $mode = native ] && echo 4 || echo 2)"
	gn_world 1500 --mode $mode
	# In generic mode XDP sees what the peer hands over: frames as on a wire, please.
	gn_must gn_exec peer ethtool -K p0 tso off gso off >/dev/null
	gn_check "$mode: the verifier takes the program" attached $mode
	# Once on each kind of page; this kernel is nobody else's.
	[ $mode = native ] || echo 16 >/proc/sys/vm/nr_hugepages
	gn_instances 1500
	gn_check "$mode: the kind of its pages" pages "$([ $mode = native ] && echo 4 || echo 2048)"
	gn_check "$mode: ping" gn_ping peer 10.0.0.11
	gn_check "$mode: TCP in by IPv4" gn_copy peer vm1 10.0.0.11
	gn_check "$mode: TCP out by IPv6" gn_copy vm1 peer fd00::1
	gn_check "$mode: packets arrive merged" merged
	gn_check "$mode: no counter of damage" nothing_bad
	[ $mode = generic ] || gn_check "no multi-buffer AF_XDP is noticed" no_multi_buffer
	gn_world_end
	gn_check "$mode: all huge pages are free again" huge_free "$([ $mode = native ] && echo 0 || echo 16)"
done
echo 0 >/proc/sys/vm/nr_hugepages

# The dispatcher needs what not every kernel has; this one runs two programs in a row.
stage "beside another program"
gn_bpffs
gn_ns peer host vm1 vm2
gn_veth peer p0 host h0
gn_addr peer p0 1
gn_check "attach beside xdp-filter" beside_filter
gn_instances 1500
gn_check "both run: ping" gn_ping peer 10.0.0.11
gn_must gn_exec host xdp-filter ether "$(gn_mac peer p0)" -m src
gn_check "both run: the filter drops" deaf
gn_must gn_exec host xdp-filter ether "$(gn_mac peer p0)" -m src -r
gn_check "both run: ping again" gn_ping peer 10.0.0.11
gn_stop "$GN_DAEMON"
GN_DAEMON=0
gn_check "detach leaves the filter" detach_one
gn_check "nothing attached any more" unload_filter
gn_ns_del peer host vm1 vm2

# A dispatcher for frames of several buffers, or a veth of this MTU would refuse it.
stage "jumbo frames"
gn_world 9000 --mode native
gn_check "mtu 9000: the verifier takes the program" attached native
gn_check "mtu 9000: the daemon refuses, with the reason" jumbo_refused
gn_world_end

stage "end"
# What the kernel thinks of all this.
if dmesg | grep -E 'WARNING:|BUG:|Oops|RCU.*stall|audit.*SECCOMP|type=1326'; then
	gn_fail "kernel log" "has the lines above"
else
	gn_ok "kernel log is clean"
fi
