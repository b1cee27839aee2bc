#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# What the daemon does with its time and its queues: it costs no CPU when idle, in every way
# of polling that sleeps; traffic passes in all of them; SIGTERM ends it soon, and the log has
# the final counters; what arrives while it cannot run is lost, counted, and all that is lost;
# two queues serve several flows, both ways; a hundred flows are listed; who connects when no
# descriptor is left waits.

# daemon.sh [PART...] runs some of its parts, which the last lines name.

# shellcheck source=tests/netns/lib.sh
. "$(dirname "$0")/lib.sh"

PEER=$GN_BIN/tests/netns/shm_peer

# above N COMMAND... - does it print a number above N?
above() { [ "$("${@:2}")" -gt "$1" ]; }

# Nothing speaks unless it is asked.
silence()
{
	local ns
	[ "$GN_IPV6" ] || return 0
	for ns in peer host vm1 vm2; do
		gn_must gn_exec "$ns" sh -c 'echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6'
	done
}

# cpu_us - CPU time that all threads of the daemon have had, as the scheduler counts it
cpu_us() { cat "/proc/$GN_DAEMON"/task/*/schedstat | awk '{ n += $1 } END { printf "%d\n", n / 1000 }'; }

# still - is there a second in which it does nothing? CPU time of the process, not of the
# clock: it does not matter what else the machine does. One that spins has none.
still()
{
	local sleeps cpu
	sleeps=$(gn_count sleeps)
	cpu=$(cpu_us)
	sleep 1
	cpu=$(($(cpu_us) - cpu))
	sleeps=$(($(gn_count sleeps) - sleeps))
	echo "$cpu us of CPU and $sleeps sleeps in a second"
	[ $cpu -lt 5000 ] && [ $sleeps -le 2 ]
}

spins() { above $(($1 + 300000)) cpu_us; }

# polling MODE - traffic with each, then idle
polling()
{
	gn_world 1500
	gn_instances 1500 --poll "$1"
	gn_check "poll $1: ping" gn_wait 10 gn_ping peer 10.0.0.11
	gn_check "poll $1: a file in" gn_copy peer vm1 10.0.0.11
	gn_check "poll $1: a file out" gn_copy vm1 peer fd00::1
	gn_check "poll $1: between instances" gn_copy vm1 vm2 10.0.0.12
	silence
	if [ "$1" = busy ]; then
		gn_check "poll busy: it spins" gn_wait 10 spins "$(cpu_us)"
		gn_check "poll busy: and never sleeps" test "$(gn_count sleeps)" = 0
	else
		gn_check "poll $1: it sleeps" above 0 gn_count sleeps
		gn_check "poll $1: idle costs no CPU" gn_wait 10 still
		gn_check "poll $1: it wakes up" gn_ping peer 10.0.0.11
	fi
	gn_world_end
}
poll_busy() { polling busy; }
poll_adaptive() { polling adaptive; }
poll_wait() { polling wait; }

# final WHO NAME - a counter in the last daemon's final lines of the log
final()
{
	sed -nE "s/.*final counters of h0 $1:.* $2=([0-9]+).*/\1/p" "$GN_TMP/GN_DAEMON.log" | tail -n 1
}

# ---- SIGTERM under load ----
# Within a second on a machine that has time for it; GN_PATIENCE times that on any.
end()
{
	local seen rc begun flooded
	gn_world 1500
	gn_instances 1500
	gn_must gn_wait 10 gn_copy peer vm1 10.0.0.11
	gn_must gn_copy vm1 peer 10.0.0.1
	gn_server vm1
	gn_spawn LOAD gn_exec peer iperf3 -c 10.0.0.11 -t 60
	seen=$(($(gn_port_count vm1 rx_packets) + 5000))
	gn_check "end: load reaches the instance" gn_wait 10 above $seen gn_port_count vm1 rx_packets
	begun=${EPOCHREALTIME/.}
	kill -TERM "$GN_DAEMON"
	gn_wait 1 gn_gone "$GN_DAEMON"
	rc=$?
	gn_note "it took $(((${EPOCHREALTIME/.} - begun) / 1000)) ms"
	gn_check "end: within a second" test $rc = 0
	wait "$GN_DAEMON"
	gn_check "end: status 0" test $? = 0
	gn_stop "$LOAD"
	gn_check "end: the log has the instance's packets" above $((seen - 1)) final "instance vm1" rx_packets
	gn_check "end: and frames, fewer" test "$(final "instance vm1" rx_frames)" -lt \
		"$(final "instance vm1" rx_packets)"
	gn_check "end: and what it sent" above 1000 final "instance vm1" tx_wire
	gn_check "end: the log has the queue's bursts" above 100 final "queue 0" bursts
	# Broadcasts come by another way.
	flooded=$(final "queue 0" flood_frames)
	gn_check "end: and its aggregation, all instances together" \
		above $(($(final "instance vm1" rx_packets) - ${flooded:-0} - 1)) \
		final "queue 0" agg_packets
	gn_check "end: and what was sent" above 1000 final "queue 0" xsk_tx_descs
	GN_DAEMON=0
	gn_world_end
}

# ---- a daemon that does not run ----
sent() { gn_exec peer ip -s -j link show p0 | jq '.[0].stats64.tx.packets'; }

# lost - frames that the kernel dropped: it had no buffer for them, or no room to tell of them
lost() { echo $(($(gn_count rx_dropped .interfaces[].queues) + $(gn_count rx_ring_full))); }

all_there()
{
	local got lost want
	got=$(gn_count packets)
	lost=$(lost)
	want=$(gn_ghostnic stats -j | jq '[.interfaces[].xdp.redirect] | add')
	echo "$got and $lost of $want"
	[ $((got + lost)) = "$want" ]
}

full()
{
	gn_world 1500
	gn_instances 1500
	gn_must gn_wait 10 gn_ping peer 10.0.0.11
	gn_must gn_exec peer ip neigh replace 10.0.0.11 lladdr "$GN_MAC1" dev p0 nud permanent
	kill -STOP "$GN_DAEMON"
	gn_spawn FLOOD gn_exec peer "$PEER" 10.0.0.11 flood
	# Twice what the rings hold.
	gn_check "full: many packets for a daemon that is stopped" \
		gn_wait 20 above $(($(sent) + 9000)) sent
	gn_check "full: the host is reached all the same" gn_ping peer 10.0.0.2
	gn_stop "$FLOOD" KILL
	kill -CONT "$GN_DAEMON"
	gn_check "full: what was lost is counted" gn_wait 10 above 4000 lost
	gn_check "full: all that was lost" gn_wait 10 all_there
	gn_check "full: and shown by metrics" \
		sh -c "'$GN_BIN/ghostnic' metrics | grep -E '^ghostnic_kernel_rx_(dropped|ring_full|fill_ring_empty)_total.* [1-9][0-9]{3}'"
	gn_check "full: traffic goes on" gn_wait 10 gn_ping peer 10.0.0.11
	gn_check "full: a file in afterwards" gn_copy peer vm1 10.0.0.11
	gn_check "full: a file out afterwards" gn_copy vm1 peer 10.0.0.1
	gn_world_end
}

# ---- two queues ----
# queue N GROUP NAME - a counter of one queue
queue()
{
	gn_ghostnic stats -j | jq ".interfaces[0].queues[] | select(.queue == $1) | .$2.$3"
}

# both GROUP NAME CMD... - run it until both queues have counted a thousand: which one a flow is
# on, its hash says
both()
{
	"${@:3}" && above 1000 queue 0 "$1" "$2" && above 1000 queue 1 "$1" "$2"
}

queues()
{
	local c
	GN_QUEUES=2 gn_world 1500
	gn_instances 1500 --queues 2
	gn_check "two queues: the TAP has two" sh -c \
		"nsenter --net=/run/netns/vm1 ip -d link show vm1 | grep -w multi_queue"
	gn_check "two queues: ping" gn_wait 10 gn_ping peer 10.0.0.11
	gn_check "two queues: a file in" gn_copy peer vm1 10.0.0.11
	gn_check "two queues: a file out" gn_copy vm1 peer fd00::1
	gn_check "two queues: several flows in, by both" gn_wait 20 \
		both agg packets gn_iperf peer vm1 10.0.0.11 -n 32M -P 8
	gn_check "two queues: several flows out, by both" gn_wait 20 \
		both xsk tx_descs gn_iperf peer vm1 10.0.0.11 -n 32M -P 8 -R
	gn_check "two queues: between instances" gn_copy vm1 vm2 10.0.0.12
	gn_check "two queues: an instance is removed under it" gn_ghostnic instance del vm2
	gn_check "two queues: and added" gn_ghostnic instance add "vm2,mac=$GN_MAC2,port=tap:vm2"
	gn_vm 2 1500
	gn_check "two queues: it is reached" gn_wait 10 gn_ping peer 10.0.0.12
	gn_check "two queues: a file to it" gn_copy peer vm2 10.0.0.12
	for c in bad_csum rx_bad_meta rx_bad_bounds tx_bad drop_meta; do
		gn_check "two queues: no $c" test "$(gn_count $c)" = 0
	done
	gn_stop "$GN_DAEMON"
	# One of two is served: the other one's packets are the host's, which has none of the
	# instances' addresses, and its own traffic passes.
	gn_must gn_daemon host --iface h0 --queues 1 --instance "vm1,mac=$GN_MAC1,port=tap:vm1"
	# CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF
	gn_check "the daemon has given up its other rights" gn_jailed "$GN_DAEMON" 0x8000003000
	gn_check "one of two queues: that is said" \
		grep -q '1 of 2 receive queues are served' "$GN_TMP/GN_DAEMON.log"
	gn_check "one of two queues: the rest is counted" gn_wait 10 unserved
	gn_check "one of two queues: the host is reached" gn_copy peer host 10.0.0.2
	gn_world_end
}

# unserved - flows to an instance, until one comes by the queue that nobody serves
unserved()
{
	gn_must gn_exec peer ip neigh replace 10.0.0.11 lladdr "$GN_MAC1" dev p0 nud permanent
	for _ in 1 2 3 4 5 6 7 8; do
		echo x | gn_exec peer socat -u - UDP4-DATAGRAM:10.0.0.11:9
	done
	above 0 gn_count pass_no_socket
}

# ---- many flows, whose list the daemon makes under its system call filter ----
# ports ADDRESS N - a datagram to each of so many ports
ports()
{
	gn_exec peer python3 -c 'import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for port in range(int(sys.argv[2])):
    s.sendto(b"x", (sys.argv[1], 2000 + port))' "$@"
}

listed() { gn_ghostnic flows -j | jq '.flows | length'; }

flows()
{
	gn_world 1500
	gn_instances 1500
	gn_must gn_wait 10 gn_ping peer 10.0.0.11
	gn_must ports 10.0.0.11 100
	gn_check "flows: all of a hundred are listed" gn_wait 5 above 99 listed
	gn_check "flows: the last one first" sh -c \
		"'$GN_BIN/ghostnic' flows -j | jq -e '[.flows[].idle_ms] | . == sort'"
	gn_world_end
}

# ---- descriptors ----
# open_files soft|hard - the daemon's limit
open_files()
{
	local field=4
	[ "$1" = soft ] || field=5
	awk "/^Max open files/ { print \$$field }" "/proc/$GN_DAEMON/limits"
}

log_says() { grep -q -- "$1" "$GN_TMP/GN_DAEMON.log"; }

# calm - does it leave most of a while's CPU time to others?
calm()
{
	local cpu
	cpu=$(cpu_us)
	sleep 0.5
	cpu=$(($(cpu_us) - cpu))
	echo "$cpu us of CPU in half a second"
	[ $cpu -lt 100000 ]
}

# waits SOCKET TEXT CMD... - of no descriptor left, CMD, which connects to SOCKET, has to wait; with
# one, it is served, which TEXT in the log shows
waits()
{
	gn_must prlimit --pid "$GN_DAEMON" --nofile=3:
	gn_spawn WAITS "${@:3}"
	gn_check "files: ${1##*.}: who connects has to wait" \
		gn_wait 5 log_says "$1: who connects has to wait: Too many open files"
	gn_check "files: ${1##*.}: nobody spins meanwhile" gn_wait 5 calm
	gn_must prlimit --pid "$GN_DAEMON" --nofile=1000:
	gn_check "files: ${1##*.}: it is served then" gn_wait 5 log_says "$2"
}

files()
{
	local vu=$GN_TMP/vm1.vu shm=$GN_TMP/vm2.shm soft
	soft=$(ulimit -Sn)
	gn_world 1500
	: >"$GN_TMP/GN_DAEMON.log"
	ulimit -Sn 64
	gn_must gn_daemon host --iface h0 --instance "vm1,mac=$GN_MAC1,port=vhost-user:$vu" \
		--instance "vm2,mac=$GN_MAC2,port=shm:$shm"
	ulimit -Sn "$soft"
	gn_check "files: as many as it may have" test "$(open_files soft)" = "$(open_files hard)"
	gn_check "files: which are enough" gn_not log_says 'open files'
	waits "$vu" "vhost-user $vu: front end connected" socat -u "UNIX-CONNECT:$vu" -
	gn_stop "$WAITS"
	waits "$shm" "shm $shm: client pid" socat -u "UNIX-CONNECT:$shm" -
	gn_stop "$WAITS"
	waits "$GHOSTNIC_CTL" . gn_ghostnic instance list
	gn_wait 10 gn_gone "$WAITS"
	gn_check "files: the control client has its answer" wait "$WAITS"
	gn_stop "$GN_DAEMON"
	GN_DAEMON=0
	gn_spawn LOW gn_exec host prlimit --nofile=100 "$GN_BIN/ghostnicd" --foreground \
		--ctl "$GHOSTNIC_CTL" --iface h0 --instance "vm1,mac=$GN_MAC1,port=vhost-user:$vu"
	gn_check "files: too few for a VM: that is said" \
		gn_wait 10 grep -q 'a limit of 100 open files' "$GN_TMP/LOW.log"
	gn_stop "$LOW"
	gn_world_end
}

gn_file 16
[ $# -gt 0 ] || set -- poll_busy poll_adaptive poll_wait end full queues flows files
for part; do
	"$part"
done
