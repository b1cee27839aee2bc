#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# The shared-memory port with real traffic: behind it a process that reads packets where
# the NIC put them and hands them to a network stack (shm_peer). Then its faults: killed
# under load, stalled, hostile, a second client, a daemon that is killed and comes back. The
# instance beside it, behind a TAP, must not notice.

# shellcheck source=tests/netns/lib.sh
. "$(dirname "$0")/lib.sh"

PEER=$GN_BIN/tests/netns/shm_peer
SOCK=$GN_TMP/vm1.port
MAC3=02:00:00:00:00:13

# above N COMMAND... - does it print a number above N?
above() { [ "$("${@:2}")" -gt "$1" ]; }

# log_says TEXT - in the daemon's log
log_says() { grep -q -- "$1" "$GN_TMP/GN_DAEMON.log"; }

start()
{
	gn_must gn_daemon host --iface h0 --instance "vm1,mac=$GN_MAC1,port=shm:$SOCK" \
		--instance "vm2,mac=$GN_MAC2,port=tap:vm2"
	gn_vm 2 1500
}

# client - a network stack behind the port, in namespace vm1
client()
{
	: >"$GN_TMP/CLIENT.log"
	gn_spawn CLIENT gn_exec vm1 "$PEER" "$SOCK" tap vm1
	gn_wait 5 grep -q ready "$GN_TMP/CLIENT.log" || gn_die "no client on $SOCK"
	gn_must gn_exec vm1 ip link set dev vm1 address "$GN_MAC1" mtu 1500 up
	gn_addr vm1 vm1 11
}

merged()
{
	local packets frames
	packets=$(gn_port_count vm1 rx_packets)
	frames=$(gn_port_count vm1 rx_frames)
	echo "$packets packets in $frames frames"
	[ "$frames" -gt 0 ] && [ "$packets" -gt $((2 * frames)) ]
}

# All the packets a client was lent are back when the rest is served on.
vm2_works()
{
	gn_ping peer 10.0.0.12 && gn_copy peer vm2 10.0.0.12
}

# misbehaves HOW TEXT - a client that loses the port; the daemon's log has TEXT
misbehaves()
{
	gn_spawn BAD "$PEER" "$SOCK" "$1"
	gn_wait 5 log_says "client pid $BAD uid" || return 1
	gn_wait 20 gn_gone "$BAD" || { echo "it still has the port"; return 1; }
	wait "$BAD" || { cat "$GN_TMP/BAD.log"; return 1; }
	gn_wait 5 log_says "client pid $BAD loses the port: $2"
}

gn_file 64
gn_world 1500
start
client
gn_check "ping" gn_ping peer 10.0.0.11
gn_check "ping by IPv6" gn_ping peer fd00::11
gn_check "a file in by IPv4" gn_copy peer vm1 10.0.0.11
gn_check "a file out by IPv4" gn_copy vm1 peer 10.0.0.1
gn_check "a file in by IPv6" gn_copy peer vm1 fd00::11
gn_check "a file out by IPv6" gn_copy vm1 peer fd00::1
gn_check "packets arrive merged" merged
gn_check "a file to another instance" gn_copy vm1 vm2 10.0.0.12
gn_check "a file from another instance" gn_copy vm2 vm1 fd00::11
gn_check "nothing refused" test "$(gn_count tx_bad)" = 0
gn_check "a second client is refused" test "$("$PEER" "$SOCK" hoard)" = \
	"$SOCK: Device or resource busy"
gn_check "the first one did not notice" gn_ping peer 10.0.0.11
gn_check "the socket is its owner's" test "$(stat -c %a "$SOCK")" = 600

# ---- the client killed under load ----
gn_server vm1
gn_spawn LOAD gn_exec peer iperf3 -c 10.0.0.11 -t 30
seen=$(gn_port_count vm1 rx_packets)
gn_check "load reaches the client" gn_wait 10 above $((seen + 10000)) \
	gn_port_count vm1 rx_packets
gn_stop "$CLIENT" KILL
gn_check "its end is noticed" gn_wait 5 log_says "client pid $CLIENT left"
gn_check "the other instance goes on" vm2_works
gn_stop "$LOAD"
client
gn_check "a new client is reached" gn_wait 10 gn_ping peer 10.0.0.11
gn_check "a file to the new client" gn_copy peer vm1 10.0.0.11
gn_stop "$CLIENT" KILL

# ---- clients that take and do not give, and liars; the wire keeps them busy ----
flood()
{
	gn_exec peer ip neigh replace 10.0.0.11 lladdr "$GN_MAC1" dev p0
	gn_spawn FLOOD gn_exec peer "$PEER" 10.0.0.11 flood
}
flood
gn_check "a client that hoards loses the port" misbehaves hoard "it holds all it may"
gn_check "one that gives back twice loses it" misbehaves twice "a packet given back that is not out\|more packets given back"
gn_check "one that jumps loses it" misbehaves jump "more packets given back than are out"
gn_check "no client can write to the packet memory" "$PEER" "$SOCK" write
gn_check "the other instance worked all along" vm2_works
gn_stop "$FLOOD" KILL

# The example of ghostnic_port(3), as the page has it.
example()
{
	sed -n '/^\.Bd -literal$/,/^\.Ed$/{//d;s/\\e/\\/g;p}' "$GN_TOP/man/ghostnic_port.3" \
		>"$GN_TMP/example.c"
	# As installed; run.sh builds it against what is.
	mkdir -p "$GN_TMP/include" && ln -sfn "$GN_TOP/user/lib" "$GN_TMP/include/ghostnic"
	cc -Wall -Wextra -Werror -I "$GN_TMP/include" -o "$GN_TMP/example" \
		"$GN_TMP/example.c" "$GN_BIN/libghostnic.a" || return 1
	gn_spawn EXAMPLE "$GN_TMP/example" "$SOCK"
	seen=$(gn_port_count vm1 rx_packets)
	gn_wait 10 above $((seen + 100)) gn_port_count vm1 rx_packets || return 1
	gn_must gn_ghostnic instance del vm1
	gn_wait 5 gn_gone "$EXAMPLE" && cat "$GN_TMP/EXAMPLE.log" &&
		grep -q '[0-9][0-9][0-9] packets, 0 lost' "$GN_TMP/EXAMPLE.log"
}
flood
gn_check "the manual's example counts packets" example
gn_must gn_ghostnic instance add "vm1,mac=$GN_MAC1,port=shm:$SOCK"
gn_stop "$FLOOD" KILL

# A client that stands still under load.
client
flood
gn_check "it is reached" gn_wait 10 gn_ping peer 10.0.0.11
kill -STOP "$CLIENT"
gn_check "a stopped client loses the port" gn_wait 10 \
	log_says "client pid $CLIENT loses the port: it holds all it may"
gn_check "the other instance works meanwhile" vm2_works
kill -CONT "$CLIENT"
gn_stop "$FLOOD" KILL
gn_check "it comes back when it runs again" gn_wait 10 gn_ping peer 10.0.0.11

# ---- the daemon killed and started again ----
gn_stop "$GN_DAEMON" KILL
start
gn_check "the client comes back to a new daemon" gn_wait 10 gn_ping peer 10.0.0.11
gn_check "a file after the restart" gn_copy peer vm1 10.0.0.11

# ---- instances at run time: the sandbox lets a port open its socket ----
gn_check "an instance with a shared-memory port is removed" gn_ghostnic instance del vm1
gn_check "its socket is gone" test ! -e "$SOCK"
gn_check "and added again" gn_ghostnic instance add "vm1,mac=$GN_MAC1,port=shm:$SOCK,hold=256,rate=20M"
gn_check "the client finds it" gn_wait 10 gn_ping peer 10.0.0.11
gn_check "a file at its rate" eval 'gn_file 1; gn_copy vm1 peer 10.0.0.1'
gn_check "what exceeds it waits" above 5 gn_port_count vm1 tx_paused
gn_check "and is not lost" test "$(gn_port_count vm1 tx_dropped)" = 0

# ---- what it may send: its own address, unless it is allowed others ----
# spoofs - broadcasts from another address
spoofs()
{
	gn_must gn_exec vm1 ip link set dev vm1 address "$MAC3"
	gn_exec vm1 ping -q -c 2 -i 0.05 -W 0.1 10.0.0.99 >"$GN_TMP/ping.log"
	gn_must gn_exec vm1 ip link set dev vm1 address "$GN_MAC1"
}
spoofs
gn_check "a foreign address is not let out" gn_wait 5 above 0 gn_port_count vm1 tx_spoofed
gn_must gn_ghostnic instance del vm1
gn_must gn_ghostnic instance add "vm1,mac=$GN_MAC1,port=shm:$SOCK,hold=256,allow-spoof"
gn_check "the client finds it, too" gn_wait 10 gn_ping peer 10.0.0.11
gn_spawn SEES gn_exec peer tcpdump -ni p0 -c 1 -Z root "ether src $MAC3"
gn_wait 5 grep -q 'listening on' "$GN_TMP/SEES.log" || gn_die "no tcpdump"
spoofs
gn_check "one that may spoof does" gn_wait 5 gn_gone "$SEES"
gn_stop "$SEES"
gn_check "that is not counted" test "$(gn_port_count vm1 tx_spoofed)" = 0
gn_check "a socket that is in use is refused" gn_not gn_ghostnic instance add \
	"vm3,mac=$MAC3,port=shm:$SOCK"
gn_check "no more is lent than there is" gn_not gn_ghostnic instance add \
	"vm3,mac=$MAC3,port=shm:$GN_TMP/vm3.port,hold=4096"
gn_check "the client is still served" gn_ping peer 10.0.0.11
gn_must gn_ghostnic instance add "vm3,mac=$MAC3,vlan=7,port=shm:$GN_TMP/vm3.port,hold=256"
gn_check "a client is told who it is" test "$("$PEER" "$GN_TMP/vm3.port" info)" = \
	"$MAC3 vlan 7 mtu 1500 queues 1"
gn_stop "$CLIENT"
gn_world_end
