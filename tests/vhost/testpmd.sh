#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# The vhost-user port with DPDK's virtio-user driver as the front end: every ring
# format, buffers that merge or not, both socket modes, several queues, offloads, and
# either side restarted while the other one runs. No huge pages are needed.
#
# testpmd answers pings (forward mode icmpecho), so each case is a round trip through
# receive and transmit rings with the payload compared; counters of both sides are
# compared where packets go one way.

# shellcheck source=tests/netns/lib.sh
. "$(dirname "$0")/../netns/lib.sh"

VM=10.0.0.11
SOCK=$GN_TMP/vm1.vu
CMD=$GN_TMP/pmd.cmd
SPEC="vm1,mac=$GN_MAC1,port=vhost-user:$SOCK"

mkfifo "$CMD"
exec 9<>"$CMD"

# pmd DEVARGS MODE ARG... - testpmd, interactive, commands through descriptor 9
pmd()
{
	local dev=$1 mode=$2
	shift 2
	: >"$GN_TMP/PMD.log"
	# shellcheck disable=SC2016 # the inner shell's
	gn_spawn PMD sh -c 'exec stdbuf -oL dpdk-testpmd "$@" <"$0"' "$CMD" \
		--no-pci --no-huge -m 256 --no-telemetry --single-file-segments \
		--file-prefix="gnvu$$" --lcores "0@($GN_CPUS),1@($GN_CPUS)" --log-level=lib.eal:4 \
		--vdev="net_virtio_user0,path=$SOCK,mac=$GN_MAC1,$dev" -- \
		-i --no-mlockall --total-num-mbufs=16384 --forward-mode="$mode" \
		--disable-link-check "$@"
	pmd_cmd start
}

pmd_cmd() { echo "$1" >&9; }

pmd_end()
{
	pmd_cmd quit
	gn_wait 10 gn_gone "$PMD" || gn_note "testpmd does not end"
	gn_stop "$PMD" KILL
}

# pmd_stat NAME - a number of "show port stats", fresh
pmd_stat()
{
	local n
	n=$(grep -c 'NIC statistics' "$GN_TMP/PMD.log")
	pmd_cmd 'show port stats 0'
	gn_wait 10 pmd_shown "$n" || return 1
	sed -nE "s/.*$1: *([0-9]+).*/\\1/p" "$GN_TMP/PMD.log" | tail -n 1
}

# The statistics' last line, once more than before.
pmd_shown()
{
	[ "$(grep -c 'Tx-pps' "$GN_TMP/PMD.log")" -gt "$1" ]
}

# ping_vm COUNT SIZE - all answered, each with its payload. ping(8) does not wait for the last
# answers longer than for those before, and a busy machine may hold testpmd up for that: once more
# then, twice at most.
ping_vm()
{
	local try
	for try in 1 2 3; do
		gn_exec peer timeout 60 ping -q -f -c "$1" -s "$2" -W 5 "$VM" \
			>"$GN_TMP/ping.log" 2>&1
		cat "$GN_TMP/ping.log"
		! grep -q 'wrong data' "$GN_TMP/ping.log" || return 1
		grep -q "$1 packets transmitted, $1 received, 0% packet loss" "$GN_TMP/ping.log" &&
			return
		gn_note "try $try: $(grep transmitted "$GN_TMP/ping.log")"
	done
	return 1
}

answers() { gn_exec peer ping -q -c 1 -W 1 "$VM"; }

# round_trips NAME - small ones, and as long as the MTU allows
round_trips()
{
	if ! gn_wait 20 answers; then
		gn_fail "$1" "no answer to a ping"
		tail -n 5 "$GN_TMP/PMD.log" "$GN_TMP/GN_DAEMON.log" | sed 's/^/#   /'
		return 1
	fi
	ping_vm 300 56 >"$GN_TMP/check.out" && ping_vm 200 1472 >"$GN_TMP/check.out" &&
		gn_ok "$1" && return
	gn_fail "$1" "pings were lost or changed"
	tail -n 5 "$GN_TMP/ping.log" | sed 's/^/#   /'
}

# vm1 NAME - a counter of the port
vm1() { gn_port_count vm1 "$1"; }

no_faults() { [ "$(vm1 faults)" = 0 ]; }

# ---- ring formats; each testpmd is another front end of the same port ----------------
server_world()
{
	gn_world 1500
	# The stream comes a packet at a time: whether two are in one burst is chance.
	gn_must gn_daemon host --iface h0 --instance "$SPEC" --flush-us 1000
	# Answers carry the address of who asked; testpmd's ARP is not the subject.
	gn_must gn_exec peer ip neigh replace "$VM" lladdr "$GN_MAC1" dev p0
}

formats()
{
	local server=$1 packed order mrg
	for packed in 0 1; do
		for order in 0 1; do
			for mrg in 0 1; do
				pmd "server=$server,packed_vq=$packed,in_order=$order,mrg_rxbuf=$mrg" icmpecho
				round_trips "packed=$packed in_order=$order mrg_rxbuf=$mrg server=$server"
				pmd_end
			done
		done
	done
}

# ---- one direction: what one side counts, the other does ----------------------------
# taken - from the rings so far. Of one that testpmd fills before the daemon has heard that it is
# enabled, the frames are taken and not sent (vhost-user, "Ring states").
taken() { echo $(($(vm1 tx_frames) + $(vm1 tx_disabled))); }

# sent_all - the daemon has taken from the ring what testpmd put there
sent_all() { [ "$(taken)" = "$1" ]; }

transmit()
{
	local before=$1 name=$2 dev=$3 sent
	shift 3
	pmd "$dev" txonly --burst=32 "$@"
	gn_wait 20 sent_more "$before" 20000 || {
		gn_fail "$name" "nothing is sent"
		pmd_end
		return
	}
	pmd_cmd stop
	sent=$(pmd_stat TX-packets)
	if gn_wait 10 sent_all $((before + sent)); then
		gn_ok "$name"
	else
		gn_fail "$name" "testpmd sent $sent, the daemon took $(($(taken) - before))"
	fi
	pmd_end
}

sent_more() { [ "$(taken)" -gt $(($1 + $2)) ]; }

one_way()
{
	local packed
	for packed in 0 1; do
		transmit "$(taken)" "transmit packed=$packed" \
			"packed_vq=$packed,mrg_rxbuf=1"
	done
	gn_check "nothing sent was bad" test "$(vm1 tx_bad)" = 0
}

# ---- super-packets -----------------------------------------------------------------
# With checksum and LRO offload testpmd takes GSO frames; without, the same stream must
# come as plain frames. Nobody there answers TCP, so the stream is made by hand.
# stream COUNT BAD - every BADth payload is not what its checksum says; 0: none
stream()
{
	gn_exec peer python3 - "$(gn_mac peer p0)" "$GN_MAC1" "$1" "$2" <<-'PY'
	import socket, struct, sys
	src, dst = (bytes.fromhex(a.replace(':', '')) for a in sys.argv[1:3])
	def fold(b):
	    s = sum(struct.unpack('!%dH' % (len(b) // 2), b))
	    while s >> 16:
	        s = (s & 0xffff) + (s >> 16)
	    return s
	s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
	s.bind(('p0', 0))
	payload = bytes(range(250)) * 4
	bad = int(sys.argv[4])
	ips = bytes([10, 0, 0, 1, 10, 0, 0, 11])
	for i in range(int(sys.argv[3])):
	    ip = struct.pack('!BBHHHBBH', 0x45, 0, 40 + len(payload), i & 0xffff, 0x4000, 64, 6, 0) + ips
	    ip = ip[:10] + struct.pack('!H', 0xffff - fold(ip)) + ip[12:]
	    tcp = struct.pack('!HHIIBBHHH', 1000, 2000, i * len(payload) & 0xffffffff, 1, 0x50, 0x10, 8000, 0, 0)
	    sum_ = 0xffff - fold(ips + struct.pack('!HH', 6, 20 + len(payload)) + tcp + payload)
	    tcp = tcp[:16] + struct.pack('!H', sum_) + tcp[18:]
	    data = payload[:500] + b'bad!' + payload[504:] if bad and i % bad == bad // 2 else payload
	    s.send(dst + src + b'\x08\x00' + ip + tcp + data)
	PY
}

# same_counts - has testpmd received what the daemon delivered since $F0 and $B0?
same_counts()
{
	[ "$(pmd_stat RX-packets)" = $(($(vm1 rx_frames) - F0)) ] &&
		[ "$(pmd_stat RX-bytes)" = $(($(vm1 rx_bytes) - B0)) ]
}

got_packets() { [ "$(vm1 rx_packets)" -ge "$1" ]; }

# super_packets NAME DEVARGS yes|no ARG... - are segments merged? Then some are bad, and
# these are alone.
super_packets()
{
	local name=$1 dev=$2 merged=$3 p0 packets frames bad=0 c0
	shift 3
	[ "$merged" = no ] || bad=50
	p0=$(vm1 rx_packets)
	c0=$(vm1 rx_bad_csum)
	F0=$(vm1 rx_frames)
	B0=$(vm1 rx_bytes)
	pmd "$dev" rxonly "$@"
	if ! gn_wait 20 grep -q 'Logical Core' "$GN_TMP/PMD.log"; then
		gn_fail "$name" "testpmd does not start"
		tail -n 5 "$GN_TMP/PMD.log" | sed 's/^/#   /'
		pmd_end
		return
	fi
	stream 2000 $bad || gn_die "the stream was not sent"
	gn_wait 10 got_packets $((p0 + 2000))
	packets=$(($(vm1 rx_packets) - p0))
	frames=$(($(vm1 rx_frames) - F0))	# and a few from the host's stack
	gn_note "$packets packets in $frames frames"
	if [ $packets -lt 2000 ]; then
		gn_fail "$name" "$packets of 2000 packets were delivered"
	elif [ "$merged" = yes ] && [ $frames -gt $((packets / 2)) ]; then
		gn_fail "$name" "$packets packets in $frames frames: hardly merged"
	elif [ "$merged" = no ] && [ $frames -lt $packets ]; then
		gn_fail "$name" "$packets packets in $frames frames without an offload for it"
	elif [ "$merged" = yes ] && [ "$(vm1 rx_bad_csum)" -le "$c0" ]; then
		gn_fail "$name" "40 of 2000 packets were bad, and none was found in a chain"
	elif [ "$(vm1 rx_bad_csum)" -gt $((c0 + 40)) ]; then
		gn_fail "$name" "$(($(vm1 rx_bad_csum) - c0)) packets were found bad, 40 were"
	elif ! gn_wait 10 same_counts; then
		gn_fail "$name" "testpmd received $(pmd_stat RX-packets) frames of $(pmd_stat RX-bytes) bytes, the daemon delivered $(($(vm1 rx_frames) - F0)) of $(($(vm1 rx_bytes) - B0))"
	else
		gn_ok "$name"
	fi
	pmd_end
}

# Bits of RTE_ETH_RX_OFFLOAD_: 0x0e checksums, 0x10 LRO, 0x2000 scatter
LRO=(--enable-lro --enable-scatter --rx-offloads=0x201c)

supers()
{
	local packed dev
	for packed in 0 1; do
		# What is captured was read before the port could verify it.
		[ $packed = 0 ] || gn_spawn CAPTURE gn_ghostnic capture --instance vm1 \
			-w "$GN_TMP/c.pcapng"
		# A ring that holds the whole stream: testpmd may be late.
		dev=packed_vq=$packed,mrg_rxbuf=1,queue_size=4096
		super_packets "plain frames packed=$packed" $dev no --rxd=4096
		super_packets "super-packets packed=$packed" $dev yes --rxd=4096 "${LRO[@]}"
	done
	kill -INT "$CAPTURE"
	gn_wait 5 gn_gone "$CAPTURE"
	gn_check "all that was captured was whole, the bad ones too" captured_all
}

# Two streams: plain frames without bad ones, super-packets with.
captured_all()
{
	grep -q ' captured, 0 lost' "$GN_TMP/CAPTURE.log" &&
		[ "$(grep -ao 'bad!' "$GN_TMP/c.pcapng" | wc -l)" = 40 ]
}

# ---- restarts ---------------------------------------------------------------------------
killed_front_end()
{
	pmd "mrg_rxbuf=1" icmpecho
	gn_wait 20 answers || gn_fail "front end killed" "no answer before"
	gn_stop "$PMD" KILL
	pmd "mrg_rxbuf=1" icmpecho
	round_trips "front end killed and started again"
	pmd_end
}

restarted_daemon()
{
	local signal
	pmd "server=1,mrg_rxbuf=1" icmpecho
	round_trips "as a client"
	for signal in TERM KILL; do
		gn_stop "$GN_DAEMON" $signal
		gn_must gn_daemon host --iface h0 --instance "$SPEC,client"
		round_trips "daemon restarted by $signal under a running front end"
	done
	pmd_end
}

# ---- added while the daemon runs, in its sandbox ---------------------------------------
added()
{
	local how
	for how in server client; do
		gn_must gn_ghostnic instance del vm1
		if [ $how = server ]; then
			gn_must gn_ghostnic instance add "$SPEC"
			pmd "mrg_rxbuf=1" icmpecho
		else
			gn_must gn_ghostnic instance add "$SPEC,client"
			pmd "server=1,mrg_rxbuf=1" icmpecho
		fi
		round_trips "instance added at run time, $how"
		pmd_end
	done
}

# ---- several queues ----------------------------------------------------------------------
# pair_world QUEUES - as gn_world, with so many queues on each side
pair_world()
{
	gn_bpffs
	gn_ns peer host vm1 vm2
	gn_veth peer p0 host h0 1500 "$1"
	gn_addr peer p0 1
	gn_addr host h0 2
	gn_must gn_exec peer ethtool -K p0 txvlan off
	gn_must gn_exec host "$GN_BIN/ghostnic" attach h0 >>"$GN_TMP/attach.log" 2>&1
	gn_must gn_daemon host --iface h0 --instance "$SPEC"
	gn_must gn_exec peer ip neigh replace "$VM" lladdr "$GN_MAC1" dev p0
}

queues()
{
	local workers=$1 pairs=$2
	pair_world "$workers"
	pmd "queues=$pairs,mrg_rxbuf=1" icmpecho --rxq="$pairs" --txq="$pairs" --nb-cores=1
	round_trips "$workers workers, $pairs queue pairs"
	pmd_end
	gn_check "$workers workers, $pairs queue pairs: no fault" no_faults
	gn_world_end
}

# datagrams COUNT - to the instance from as many ports as there may be flows
datagrams()
{
	gn_exec peer python3 - "$VM" "$1" <<-'PY'
	import socket, sys
	s = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(128)]
	for i in range(int(sys.argv[2])):
	    s[i % len(s)].sendto(b'x' * 200, (sys.argv[1], 7000))
	PY
}

# each_queue rx|tx - has every one of the eight seen packets?
each_queue()
{
	local n
	n=$(grep -c 'NIC extended statistics' "$GN_TMP/PMD.log")
	pmd_cmd 'show port xstats 0'
	pmd_cmd 'show port stats 0'
	gn_wait 10 xstats_shown "$n" || return 1
	[ "$(tac "$GN_TMP/PMD.log" | awk -v dir="$1" '
		/NIC extended statistics/ { exit }
		$1 ~ "^" dir "_q[0-7]_(good_)?packets:$" && $2 > 0 { print $1 }' |
		sort -u | wc -l)" = 8 ]
}

xstats_shown()
{
	[ "$(grep -c 'NIC extended statistics' "$GN_TMP/PMD.log")" -gt "$1" ] &&
		tac "$GN_TMP/PMD.log" | sed '/NIC extended statistics/q' | grep -q 'Tx-pps'
}

# The most that there are: all of them receive, and what all of them send is counted.
all_queues()
{
	pair_world 2
	pmd "queues=8,mrg_rxbuf=1" icmpecho --rxq=8 --txq=8 --nb-cores=1
	round_trips "2 workers, 8 queue pairs"
	datagrams 2000 || gn_die "the datagrams were not sent"
	gn_check "8 queue pairs: every receive queue is used" gn_wait 10 each_queue rx
	pmd_end
	transmit "$(taken)" "8 queue pairs: all that was sent was taken" \
		"queues=8,mrg_rxbuf=1" --rxq=8 --txq=8 --nb-cores=1
	gn_check "8 queue pairs: no fault" no_faults
	gn_check "8 queue pairs: nothing sent was bad" test "$(vm1 tx_bad)" = 0
	gn_world_end
}

command -v dpdk-testpmd >/dev/null || gn_die "dpdk-testpmd is missing: make deps"

server_world
formats 0
one_way
supers
killed_front_end
gn_check "no fault" no_faults
added
gn_world_end

gn_world 1500
gn_must gn_daemon host --iface h0 --instance "$SPEC,client"
gn_must gn_exec peer ip neigh replace "$VM" lladdr "$GN_MAC1" dev p0
formats 1
restarted_daemon
gn_check "no fault as a client" no_faults
gn_world_end

queues 1 2
queues 2 2
queues 2 1
all_queues
