#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# UDP segmentation offload at a TAP: streams of datagrams arrive merged, and each one as it
# was sent; what an instance sends in super-datagrams leaves in packets for the wire, and goes
# to its neighbour whole. Kernels before 6.2 have no such offload for TAPs: there the
# same datagrams arrive, and nothing merges.

# shellcheck source=tests/netns/lib.sh
. "$(dirname "$0")/lib.sh"

MESSAGES=20	# each a super-datagram of 41
DATAGRAMS=$((MESSAGES * 41))

# uso - has the kernel (6.2) TUN_F_USO4?
uso()
{
	local major minor
	IFS=.- read -r major minor _ < <(uname -r)
	[ "$major" -gt 6 ] || { [ "$major" = 6 ] && [ "$minor" -ge 2 ]; }
}

cat >"$GN_TMP/udp.py" <<'PY'
"""udp.py recv|send ADDRESS MESSAGES: super-datagrams, one after the other, each answered"""
import hashlib, socket, sys

UDP_SEGMENT, SIZE, FULL, LAST = 103, 1200, 40, 300
mode, addr, messages = sys.argv[1], sys.argv[2], int(sys.argv[3])
family = socket.AF_INET6 if ':' in addr else socket.AF_INET
s = socket.socket(family, socket.SOCK_DGRAM)
s.settimeout(60)

def datagram(n, i):
    size = SIZE if i < FULL else LAST
    return hashlib.shake_128(b'%d %d' % (n, i)).digest(size)

if mode == 'send':
    s.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, SIZE)
    s.connect((addr, 7000))
    for n in range(messages):
        s.send(b''.join(datagram(n, i) for i in range(FULL + 1)))
        if s.recv(100) != b'%d' % n:
            sys.exit('another answer to message %d' % n)
else:
    s.bind((addr, 7000))
    print('ready', flush=True)
    for n in range(messages):
        for i in range(FULL + 1):
            data, sender = s.recvfrom(65536)
            if data != datagram(n, i):
                sys.exit('message %d: datagram %d is another, of %d bytes' % (n, i, len(data)))
        s.sendto(b'%d' % n, sender)
PY

# stream FROM TO ADDRESS - all of it, answered
stream()
{
	local rc
	: >"$GN_TMP/RECV.log"
	gn_spawn RECV gn_exec "$2" python3 "$GN_TMP/udp.py" recv "$3" $MESSAGES
	gn_wait 20 grep -q ready "$GN_TMP/RECV.log" || return 1
	gn_exec "$1" timeout 120 python3 "$GN_TMP/udp.py" send "$3" $MESSAGES
	rc=$?
	gn_wait 5 gn_gone "$RECV"
	gn_stop "$RECV"
	cat "$GN_TMP/RECV.log"
	return $rc
}

# counted NAME COUNTER - of a port, since $SINCE
counted() { echo $(($(gn_port_count "$1" "$2") - ${SINCE[$1.$2]-0})); }

# since NAME.COUNTER... - from now
declare -A SINCE
since()
{
	local c
	for c; do
		SINCE[$c]=$(gn_port_count "${c%.*}" "${c#*.}")
	done
}

# arrives FROM-NS ADDRESS - at vm1, from the wire, merged
arrives()
{
	local packets frames
	since vm1.rx_packets vm1.rx_frames
	stream "$1" vm1 "$2" || return 1
	packets=$(counted vm1 rx_packets) frames=$(counted vm1 rx_frames)
	echo "$packets packets in $frames frames"
	[ "$packets" -ge $DATAGRAMS ] || return 1
	if uso; then
		[ $((2 * frames)) -lt "$packets" ]
	else
		[ "$frames" = "$packets" ]
	fi
}

# leaves ADDRESS - from vm1 to the wire, where it is as many packets as datagrams
leaves()
{
	local packets frames
	since vm1.tx_wire vm1.tx_frames
	stream vm1 peer "$1" || return 1
	packets=$(counted vm1 tx_wire) frames=$(counted vm1 tx_frames)
	echo "$frames frames became $packets packets"
	[ "$packets" -ge $DATAGRAMS ] || return 1
	! uso || [ $((2 * frames)) -lt "$packets" ]
}

# passes ADDRESS - from vm1 to vm2, whole
passes()
{
	local frames
	since vm1.tx_local
	stream vm1 vm2 "$1" || return 1
	frames=$(counted vm1 tx_local)
	echo "$frames frames"
	! uso || [ $((2 * frames)) -lt $DATAGRAMS ]
}

nothing_bad()
{
	local c n rc=0
	for c in bad_csum rx_bad_csum rx_bad_meta rx_bad_bounds tx_bad drop_meta; do
		n=$(gn_count $c)
		[ "$n" = 0 ] || { echo "$c is $n"; rc=1; }
	done
	return $rc
}

offered()
{
	gn_ghostnic instance list -j | jq -e '.instances[0].gso | index("uso") != null'
}

# A chain waits longer than it takes the sender to hand over a super-datagram.
for sums in partial full; do
	gn_world 1500
	[ $sums = partial ] || gn_must gn_exec peer ethtool -K p0 tx off
	gn_instances 1500 --flush-us 10000
	gn_check "ping" gn_wait 10 gn_ping peer 10.0.0.11
	gn_check "ping of the other" gn_wait 10 gn_ping peer 10.0.0.12
	if uso; then
		gn_check "the port takes super-datagrams" offered
	else
		gn_check "the kernel has no such offload" gn_not offered
	fi
	gn_check "IPv4 to the instance, $sums checksums" arrives peer 10.0.0.11
	gn_check "IPv6 to the instance, $sums checksums" arrives peer fd00::11
	if [ $sums = partial ]; then
		gn_check "IPv4 from the instance" leaves 10.0.0.1
		gn_check "IPv6 from the instance" leaves fd00::1
		gn_check "IPv4 to another instance" passes 10.0.0.12
		gn_check "IPv6 to another instance" passes fd00::12
	fi
	gn_check "nothing was found bad" nothing_bad
	gn_world_end
done
