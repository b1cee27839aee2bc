#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Real traffic through XDP, ghostnicd and TAPs, both ways: TCP over IPv4, IPv6 and a
# VLAN, checked by SHA-256; ping, ARP, neighbour discovery, broadcast, multicast; MTU 1500 and
# 9000; local traffic between two instances; both checksum modes; a peer that leaves
# checksums partial and one that completes them.

# shellcheck source=tests/netns/lib.sh
. "$(dirname "$0")/lib.sh"

# The product's reason to exist: TCP arrives in super-packets.
merged()
{
	local packets frames
	packets=$(gn_count rx_packets)
	frames=$(gn_count rx_frames)
	echo "$packets packets in $frames frames"
	[ "$frames" -gt 0 ] && [ "$packets" -gt $((2 * frames)) ]
}

# Neither the way in nor the way out may have damaged or refused anything.
nothing_bad()
{
	local c n rc=0
	for c in bad_csum rx_bad_meta rx_bad_bounds tx_bad drop_meta; do
		n=$(gn_count $c)
		[ "$n" = 0 ] || { echo "$c is $n"; rc=1; }
	done
	return $rc
}

# tcp LABEL - the file (of gn_file) both ways over both families, iperf3 both ways
tcp()
{
	gn_check "$1: a file in by IPv4" gn_copy peer vm1 10.0.0.11
	gn_check "$1: a file out by IPv4" gn_copy vm1 peer 10.0.0.1
	gn_check "$1: a file in by IPv6" gn_copy peer vm1 fd00::11
	gn_check "$1: a file out by IPv6" gn_copy vm1 peer fd00::1
	gn_check "$1: iperf3 in, four streams" gn_iperf peer vm1 10.0.0.11 -n 64M -P 4
	gn_check "$1: iperf3 out, four streams" gn_iperf peer vm1 10.0.0.11 -n 64M -P 4 -R
	gn_check "$1: packets arrive merged" merged
	gn_check "$1: no counter of damage" nothing_bad
}

forget_neighbours()
{
	gn_exec "$1" ip neigh flush all
}

# knows NS ADDRESS MAC
knows()
{
	gn_exec "$1" ip -j neigh show to "$2" | jq -e --arg m "$3" '.[0].lladdr == $m'
}

resolve()
{
	forget_neighbours peer
	forget_neighbours vm1
	gn_ping "$1" "$2" -c 1 && knows "$1" "$2" "$3"
}

# A client without an address asks everyone; a server answers everyone, as DHCP does.
dhcp_like()
{
	local client=$1 client_if=$2 server=$3 server_if=$4 rc
	gn_spawn OFFER gn_exec "$server" socat -u \
		"UDP4-RECV:67,broadcast,so-bindtodevice=$server_if" \
		"SYSTEM:while read -r q; do echo offer \$q; done | socat -u - UDP4-DATAGRAM\:255.255.255.255\:68\,broadcast\,so-bindtodevice=$server_if"
	gn_spawn ACK gn_exec "$client" socat -u \
		"UDP4-RECV:68,broadcast,so-bindtodevice=$client_if" "OPEN:$GN_TMP/ack,creat,trunc"
	gn_wait 10 dhcp_asked "$client" "$client_if"
	rc=$?
	gn_stop "$OFFER"
	gn_stop "$ACK"
	return $rc
}

dhcp_asked()
{
	echo "address-for-$1" | gn_exec "$1" socat -u - \
		"UDP4-DATAGRAM:255.255.255.255:67,broadcast,so-bindtodevice=$2"
	gn_wait 1 grep -q "offer address-for-$1" "$GN_TMP/ack"
}

# group_reaches FROM FROM-IF TO TO-IF - a datagram to a multicast group
group_reaches()
{
	local rc
	: >"$GN_TMP/group"
	gn_spawn GROUP gn_exec "$3" socat -u \
		"UDP4-RECV:7777,ip-add-membership=239.1.2.3:$4" "OPEN:$GN_TMP/group,append"
	gn_wait 10 group_sent "$1" "$2"
	rc=$?
	gn_stop "$GROUP"
	return $rc
}

group_sent()
{
	echo "for the group" | gn_exec "$1" socat -u - \
		"UDP4-DATAGRAM:239.1.2.3:7777,so-bindtodevice=$2"
	gn_wait 1 grep -q "for the group" "$GN_TMP/group"
}

# wire_packets - packets the peer has seen or sent
wire_packets()
{
	gn_exec peer ip -s -j link show dev p0 |
		jq '.[0].stats64 | .rx.packets + .tx.packets'
}

# Instances of one host talk without the wire.
local_only()
{
	local before after back=fd00::11
	[ "$GN_IPV6" ] || back=10.0.0.11
	before=$(wire_packets)
	gn_copy vm1 vm2 10.0.0.12 && gn_copy vm2 vm1 $back || return 1
	after=$(wire_packets)
	echo "the wire saw $((after - before)) packets, tx_local is $(gn_count tx_local)"
	# Neighbour discovery and ARP are multicast and broadcast, and do go out.
	[ $((after - before)) -lt 100 ] && [ "$(gn_count tx_local)" -gt 1000 ]
}

gn_file 256

# ---- MTU 1500, defaults; the peer's TCP leaves its checksums partial ---------------
gn_world 1500
gn_instances 1500
gn_check "ping before anything else" gn_ping peer 10.0.0.11
tcp "mtu 1500"
gn_check "ARP towards an instance" resolve peer 10.0.0.11 "$GN_MAC1"
gn_check "ARP from an instance" resolve vm1 10.0.0.1 "$(gn_mac peer p0)"
gn_check "ND towards an instance" resolve peer fd00::11 "$GN_MAC1"
gn_check "ND from an instance" resolve vm1 fd00::1 "$(gn_mac peer p0)"
gn_check "ping, largest unfragmented" gn_ping peer 10.0.0.11 -M "do" -s 1472
gn_check "ping, in fragments" gn_ping peer 10.0.0.11 -s 6000
gn_check "ping from an instance, in fragments" gn_ping vm1 fd00::1 -s 6000
gn_check "ping of the host beside the instances" gn_ping peer 10.0.0.2
gn_check "ping of the host by IPv6" gn_ping peer fd00::2
gn_check "DHCP-like broadcast from an instance" dhcp_like vm1 vm1 peer p0
gn_check "DHCP-like broadcast to an instance" dhcp_like peer p0 vm2 vm2
gn_check "DHCP-like broadcast between instances" dhcp_like vm1 vm1 vm2 vm2
gn_check "multicast to an instance" group_reaches peer p0 vm1 vm1
gn_check "multicast from an instance" group_reaches vm1 vm1 peer p0
gn_check "multicast between instances" group_reaches vm2 vm2 vm1 vm1
gn_check "traffic between instances stays here" local_only
gn_check "iperf3 to the host itself" gn_iperf peer host 10.0.0.2 -n 64M
gn_world_end

gn_file 64

# ---- the peer completes its checksums, as a wire would carry them ------------------
gn_world 1500
gn_must gn_exec peer ethtool -K p0 tx off
gn_instances 1500
tcp "full checksums"
gn_world_end

# ---- checksums carried instead of verified ------------------------------------------
gn_world 1500
gn_must gn_exec peer ethtool -K p0 tx off
gn_instances 1500 --checksum carry
tcp "carried checksums"
gn_world_end

# ---- chains held beyond the burst -----------------------------------------------------
gn_world 1500
gn_instances 1500 --flush-us 50
tcp "flush after 50 us"
gn_world_end

# ---- jumbo frames: more than one buffer a frame -------------------------------------
if gn_jumbo "mtu 9000"; then
	gn_world 9000
	gn_instances 9000
	tcp "mtu 9000"
	gn_check "ping, largest unfragmented at 9000" gn_ping peer 10.0.0.11 -M "do" -s 8972
	gn_check "ping from an instance at 9000" gn_ping vm1 10.0.0.1 -M "do" -s 8972
	gn_world_end
fi

gn_file 256

# ---- VLAN 7: tagged on the wire, untagged inside ---------------------------------------
gn_world 1500
gn_must gn_exec peer tc qdisc add dev p0 clsact
gn_must gn_exec peer tc filter add dev p0 egress bpf da \
	obj "$GN_BIN/tests/netns/vlan.bpf.o" sec push
gn_must gn_exec peer tc filter add dev p0 ingress bpf da \
	obj "$GN_BIN/tests/netns/vlan.bpf.o" sec pop
GN_VLAN=7 gn_instances 1500
tcp "VLAN"
gn_check "ARP towards an instance in a VLAN" resolve peer 10.0.0.11 "$GN_MAC1"
gn_check "ND from an instance in a VLAN" resolve vm1 fd00::1 "$(gn_mac peer p0)"
gn_check "traffic between instances of a VLAN" local_only
gn_world_end
