#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# A wire that spoils packets, and a real receiver: with checksums carried and with checksums
# verified, what was spoilt is refused by the receiver's TCP and sent again, so the file is
# the same.
#
# src --s0==m0-- peer: bridge, which sends by p0 --p0==h0-- host: XDP and ghostnicd. The
# packets are spoilt as they leave p0, when their checksums are complete.

# shellcheck source=tests/netns/lib.sh
. "$(dirname "$0")/lib.sh"

# tcp_stat NS NAME - of /proc/net/snmp there
tcp_stat()
{
	# shellcheck disable=SC2016 # awk's fields
	gn_exec "$1" awk -v name="$2" '/^Tcp:/ {
		if (!n++) { for (i = 2; i <= NF; i++) if ($i == name) f = i; next }
		print $f }' /proc/net/snmp
}

above() { [ "$("${@:2}")" -gt "$1" ]; }

# spoilt MODE - a file over that wire; some of it was spoilt, and what came of that
spoilt()
{
	gn_world 1500
	gn_ns src
	gn_veth src s0 peer m0
	gn_must gn_exec peer ip link add br0 type bridge
	gn_must gn_exec peer ip link set br0 up
	gn_must gn_exec peer ip addr flush dev p0
	gn_must gn_exec peer ip link set m0 master br0
	gn_must gn_exec peer ip link set p0 master br0
	gn_addr src s0 3
	gn_must gn_exec src ethtool -K s0 tx off >/dev/null
	gn_instances 1500 --checksum "$1"
	gn_check "$1: ping" gn_wait 10 gn_ping src 10.0.0.11
	gn_must gn_exec peer tc qdisc add dev p0 clsact
	gn_must gn_exec peer tc filter add dev p0 egress bpf da \
		obj "$GN_BIN/tests/netns/spoil.bpf.o" sec spoil
	gn_check "$1: a spoilt file by IPv4 arrives whole" gn_copy src vm1 10.0.0.11
	gn_check "$1: and by IPv6" gn_copy src vm1 fd00::11
	gn_check "$1: the receiver's TCP refused something" above 0 tcp_stat vm1 InCsumErrors
	gn_check "$1: the sender sent again" above 0 tcp_stat src RetransSegs
	gn_check "$1: packets arrived merged all the same" \
		test "$(gn_port_count vm1 rx_packets)" -gt $((2 * $(gn_port_count vm1 rx_frames)))
	if [ "$1" = verify ]; then
		gn_check "verify: each one is counted" above 0 gn_count bad_csum
	else
		gn_check "carry: nobody looked at the payload" test "$(gn_count bad_csum)" = 0
	fi
	gn_world_end
	gn_ns_del src
}

gn_file 16
spoilt carry
spoilt verify
