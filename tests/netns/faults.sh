#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# What goes wrong on a real machine: the daemon killed under load, a second one started, one
# started on a full file system, an instance removed under traffic, the link down, the interface gone, an instance that takes
# nothing, a reader that stops, no chunks left, frames that another XDP program put into our
# sockets, super-packets from below, mistakes in the configuration. The rest must not
# notice.

# faults.sh [PART...] runs some of its parts, which the last lines name.

# shellcheck source=tests/netns/lib.sh
. "$(dirname "$0")/lib.sh"

alive() { ! gn_gone "$GN_DAEMON"; }

# above N COMMAND... - does it print a number above N?
above() { [ "$("${@:2}")" -gt "$1" ]; }

# ends_well SIGNAL - the daemon exits with status 0
ends_well()
{
	local rc
	kill "-$1" "$GN_DAEMON"
	gn_wait 5 gn_gone "$GN_DAEMON" || { echo "still there after 5 s"; return 1; }
	wait "$GN_DAEMON"
	rc=$?
	[ $rc = 0 ] || { echo "status $rc"; return 1; }
}

both_answer()
{
	gn_ping peer 10.0.0.11 && gn_ping peer 10.0.1.12
}

nothing_bad()
{
	[ "$(gn_count rx_bad_bounds)" = 0 ] && [ "$(gn_count bad_csum)" = 0 ]
}

no_xdp()
{
	gn_exec host ip -j link show dev h0 | jq -e '.[0] | has("xdp") | not'
}

no_pins()
{
	! find "$GHOSTNIC_BPFFS/ghostnic" -mindepth 1 2>/dev/null | grep .
}

# ---- SIGKILL under load ----
killed()
{
	gn_world 1500
	gn_instances 1500
	gn_server vm1
	gn_server host
	# The host's own traffic on the same interface, before, during and after: a ping
	# whose loss is counted, and one TCP connection.
	gn_spawn HOST_PING gn_exec peer ping -q -i 0.01 10.0.0.2
	gn_spawn HOST_TCP gn_exec peer iperf3 -c 10.0.0.2 -t 60 -b 200M -J
	gn_spawn LOAD gn_exec peer iperf3 -c 10.0.0.11 -t 60
	gn_check "load reaches the instance" gn_wait 10 above 10000 gn_port_count vm1 rx_packets
	gn_stop "$GN_DAEMON" KILL
	gn_check "the daemon is gone after SIGKILL" gn_gone "$GN_DAEMON"
	gn_check "the host is reached without a daemon" gn_ping peer 10.0.0.2
	gn_check "the host's TCP works without a daemon" gn_copy peer host 10.0.0.2
	gn_check "the TAP went with its daemon" gn_wait 5 \
		gn_not gn_exec vm1 ip link show dev vm1
	gn_instances 1500
	gn_check "the instance is reached again" gn_wait 10 gn_ping peer 10.0.0.11
	gn_check "a file to the instance after the restart" gn_copy peer vm1 10.0.0.11
	gn_check "a file from the instance after the restart" gn_copy vm1 peer 10.0.0.1
	gn_stop "$LOAD"
	gn_check "the host's connection lived through it" kill -0 "$HOST_TCP"
	gn_stop "$HOST_TCP" INT
	kill -INT "$HOST_PING"
	gn_wait 5 gn_gone "$HOST_PING"
	gn_check "the host's ping lost nothing" grep -q ' 0% packet loss' "$GN_TMP/HOST_PING.log"
	gn_world_end
}

# ---- a second daemon on the interface ----
# It cannot start, and leaves to the first what is the first one's.
in_map() { gn_exec host bpftool -j map dump pinned "$GHOSTNIC_BPFFS/ghostnic/h0/$1"; }
refused_beside()
{
	gn_exec host timeout 20 "$GN_BIN/ghostnicd" --foreground --ctl "$GN_TMP/other.sock" \
		--iface h0 --checksum carry --instance "vm3,mac=02:00:00:00:00:13,port=null" >"$GN_TMP/said" 2>&1
	[ $? = 1 ] && grep 'another AF_XDP socket has this queue' "$GN_TMP/said"
}
untouched() { [ "$(in_map config)" = "$config" ] && [ "$(in_map instances)" = "$instances" ]; }

second()
{
	local config instances
	gn_world 1500
	gn_instances 1500
	gn_check "before a second daemon" gn_wait 10 gn_ping peer 10.0.0.11
	config=$(in_map config) instances=$(in_map instances)
	gn_must test -n "$config" -a -n "$instances"
	gn_check "a second daemon is refused" refused_beside
	gn_check "the first one's instance is still reached" gn_ping peer 10.0.0.11
	gn_check "and its maps are as they were" untouched
	gn_world_end
}

# ---- no space beside the control socket ----
nospace()
{
	local dir=$GN_TMP/small
	gn_world 1500
	gn_must mkdir "$dir"
	gn_must mount -t tmpfs -o size=16k tmpfs "$dir"
	gn_not dd if=/dev/zero of="$dir/fill" bs=4k status=none 2>/dev/null ||
		gn_die "$dir is not full"
	export GHOSTNIC_CTL=$dir/ctl.sock
	gn_spawn GN_DAEMON gn_exec host "$GN_BIN/ghostnicd" --foreground --iface h0 \
		--ctl "$GHOSTNIC_CTL" --instance "vm1,mac=$GN_MAC1,port=tap:vm1"
	gn_wait 15 gn_daemon_settled
	gn_check "no space: the daemon starts" gn_ghostnic instance list
	gn_check "no space: and ends" ends_well TERM
	GN_DAEMON=0
	gn_world_end
	gn_must umount "$dir"
}

# ---- an instance removed and added under traffic ----
removed()
{
	gn_world 1500
	gn_instances 1500
	gn_server vm1
	gn_server vm2
	gn_spawn LOAD1 gn_exec peer iperf3 -c 10.0.0.11 -t 60
	gn_spawn LOAD2 gn_exec peer iperf3 -c 10.0.0.12 -t 60
	gn_check "one instance receives" gn_wait 10 above 10000 gn_port_count vm1 rx_packets
	gn_check "the other does, too" gn_wait 10 above 10000 gn_port_count vm2 rx_packets
	gn_check "an instance is removed under traffic" gn_ghostnic instance del vm1
	gn_check "removing it again is refused" gn_not gn_ghostnic instance del vm1
	seen=$(gn_port_count vm2 rx_packets)
	gn_check "the other instance goes on" gn_wait 10 above $((seen + 10000)) \
		gn_port_count vm2 rx_packets
	gn_check "the instance is added again" gn_ghostnic instance add \
		"vm1,mac=$GN_MAC1,port=tap:vm1"
	gn_check "an address is given once only" gn_not gn_ghostnic \
		instance add "other,mac=$GN_MAC1,port=null"
	gn_vm 1 1500
	gn_check "the instance is reached after it" gn_wait 10 gn_ping peer 10.0.0.11
	gn_check "a file to the new instance" gn_copy peer vm1 10.0.0.11
	gn_stop "$LOAD1"
	gn_stop "$LOAD2"
	gn_world_end
}

# ---- link down, link up ----
link()
{
	gn_world 1500
	gn_instances 1500
	gn_must gn_exec host ip link set dev h0 down
	gn_check "nothing passes a link that is down" gn_not \
		gn_exec peer ping -q -c 1 -W 1 10.0.0.11
	gn_must gn_exec host ip link set dev h0 up
	gn_check "the instance is reached after link up" gn_wait 15 gn_ping peer 10.0.0.11
	gn_check "a file out after link up" gn_copy vm1 peer 10.0.0.1
	gn_must gn_exec peer ip link set dev p0 down
	gn_must gn_exec peer ip link set dev p0 up
	gn_check "the instance is reached after the peer's link" gn_wait 15 gn_ping peer 10.0.0.11
	gn_world_end
}

# ---- an instance that takes nothing ----
# Its interface is down, so the device refuses every frame, as a full one does.
slow()
{
	gn_world 1500
	gn_instances 1500
	gn_must gn_exec vm1 ip link set dev vm1 down
	gn_must gn_exec peer ip neigh replace 10.0.0.11 lladdr "$GN_MAC1" dev p0 nud permanent
	before=$(gn_port_count vm2 rx_dropped)
	gn_spawn FLOOD gn_exec peer ping -q -f -s 1400 10.0.0.11
	gn_check "what it does not take is counted" gn_wait 10 above 100 gn_port_count vm1 rx_dropped
	gn_check "a file to the other instance meanwhile" gn_copy peer vm2 10.0.0.12
	gn_check "a file from the other instance meanwhile" gn_copy vm2 peer 10.0.0.1
	gn_check "the other instance lost nothing" test "$(gn_port_count vm2 rx_dropped)" = "$before"
	gn_stop "$FLOOD"
	gn_must gn_exec vm1 ip link set dev vm1 up
	gn_check "it is reached when it takes again" gn_wait 10 gn_ping peer 10.0.0.11
	gn_world_end
}

# ---- a reader that stops ----
# The instance's kernel takes frames, the process that they are for does not, and TCP's
# window closes. Going on, it misses nothing.
stopped_whole() { cmp "$GN_TMP/file" "$GN_TMP/stopped.out"; }
unread() { gn_exec vm1 ss -Htn state established "sport = :$1" | awk '{ print $1; exit }'; }
stopped()
{
	gn_world 1500
	gn_instances 1500
	gn_must gn_wait 10 gn_ping peer 10.0.0.11
	gn_spawn READER gn_exec vm1 socat -u TCP4-LISTEN:9001 "OPEN:$GN_TMP/stopped.out,creat,trunc"
	gn_wait 5 gn_listening vm1 9001 || gn_die "no reader"
	kill -STOP "$READER"
	gn_spawn WRITER gn_exec peer socat -u "OPEN:$GN_TMP/file" TCP4:10.0.0.11:9001
	gn_check "reader stopped: its socket fills" gn_wait 10 above 50000 unread 9001
	gn_check "reader stopped: it has not got all" gn_not stopped_whole
	gn_spawn FLOOD gn_exec peer ping -q -f -s 1400 10.0.0.11
	before=$(gn_port_count vm2 rx_dropped)
	gn_check "reader stopped: a file to the other instance" gn_copy peer vm2 10.0.0.12
	gn_check "reader stopped: a file from the other instance" gn_copy vm2 peer 10.0.0.1
	gn_check "reader stopped: its own machine answers" gn_wait 10 gn_ping peer 10.0.0.11
	gn_check "reader stopped: the other lost nothing" test "$(gn_port_count vm2 rx_dropped)" = "$before"
	gn_stop "$FLOOD"
	kill -CONT "$READER"
	gn_check "it goes on, and misses nothing" gn_wait 30 stopped_whole
	gn_stop "$WRITER"
	gn_world_end
}

# ---- frames without metadata ----
# Another program in our place puts frames into the same sockets, where chunks still hold
# what earlier frames left. None may be taken for a frame with metadata.
nometa()
{
	gn_world 1500
	gn_instances 1500
	gn_must gn_copy peer vm1 10.0.0.11
	gn_must gn_exec host bpftool prog load "$GN_BIN/tests/netns/nometa.bpf.o" \
		"$GHOSTNIC_BPFFS/nometa" map name xsks pinned "$GHOSTNIC_BPFFS/ghostnic/h0/xsks"
	gn_must gn_exec host bpftool net attach xdpdrv pinned "$GHOSTNIC_BPFFS/nometa" \
		dev h0 overwrite
	before=$(gn_count packets)
	gn_exec peer ping -q -c 100 -i 0.01 -W 1 -s 1472 10.0.0.2 >/dev/null
	gn_exec peer ping -q -c 100 -i 0.01 -W 1 -s 1472 10.0.0.11 >/dev/null
	gn_check "frames without metadata are dropped and counted" \
		gn_wait 10 above 199 gn_count rx_bad_meta
	gn_check "none was taken for another" test "$(gn_count packets)" = "$before"
	gn_must gn_exec host bpftool net detach xdpdrv dev h0
	gn_must rm "$GHOSTNIC_BPFFS/nometa"
	gn_must gn_exec host "$GN_BIN/ghostnic" attach h0
	gn_world_end
}

# ---- metadata that an instance sends ----
# As with a driver that has no metadata area, nothing is written in front of frames. There must be
# nothing of an instance's either: all that vm1 sends is a struct gn_meta, and again, placed to be
# found there by whoever takes the start of a chunk for the start of what was sent.
forge()
{
	local unit
	printf -v unit '\\0%.0s' {1..22}
	unit+='\3\156\0\0\0\0\0\0\0\0'		# GN_META_MAGIC, instance 0: vm1
	for _ in {1..2816}; do printf '%b' "$unit"; done >"$GN_TMP/forged"
}
# others_lost - pings to vm2 that vm2 did not get; more of them than there are chunks
others_lost()
{
	local lost=0 n
	for _ in 1 2 3; do
		gn_exec vm1 socat -u -b 1408 "OPEN:$GN_TMP/forged" UDP4-DATAGRAM:10.0.0.1:9
		n=$(gn_exec peer ping -q -f -c 600 -W 1 10.0.0.12 |
			sed -nE 's/.*, ([0-9]+) received.*/\1/p')
		lost=$((lost + 600 - n))
	done
	echo $lost
}

forged()
{
	local config n
	gn_world 1500
	config=$GHOSTNIC_BPFFS/ghostnic/h0/config
	# shellcheck disable=SC2046 # bytes
	gn_must gn_exec host bpftool map update pinned "$config" key 0 0 0 0 value \
		$(bpftool -j map dump pinned "$config" | jq -r '.[0].value | .[24] = "0x03" | .[]')
	gn_instances 1500 --chunks 512
	gn_check "no metadata area: the other instance is reached" gn_wait 10 gn_ping peer 10.0.0.12
	gn_check "no metadata area: metadata is in the frame" above 0 gn_count inband
	forge
	gn_spawn SINK gn_exec peer socat -u UDP4-RECV:9 OPEN:/dev/null
	n=$(others_lost)
	gn_check "what an instance sends is nobody's metadata" test "$n" = 0
	gn_stop "$SINK"
	gn_check "a file to the other instance" gn_copy peer vm2 10.0.0.12
	gn_world_end
}

# ---- an orderly end ----
end()
{
	gn_world 1500
	gn_instances 1500
	gn_check "SIGTERM ends the daemon" ends_well TERM
	gn_check "detach" gn_exec host "$GN_BIN/ghostnic" detach h0
	gn_check "no XDP program is left" no_xdp
	gn_check "no pin is left" no_pins
	GN_DAEMON=0
	gn_must gn_exec host "$GN_BIN/ghostnic" attach h0
	gn_world_end
}

# ---- out of chunks ----
# starved - enough of the streams came at a time
starved() { gn_iperf peer vm1 10.0.0.11 -n 32M -P 16 && above 0 gn_count starved; }

chunks()
{
	gn_world 1500
	gn_instances 1500 --chunks 512 --flush-us 20000
	gn_check "512 chunks: many streams in, chains leave early" gn_wait 40 starved
	gn_check "512 chunks: a file in" gn_copy peer vm1 10.0.0.11
	gn_check "512 chunks: a file out" gn_copy vm1 peer 10.0.0.1
	gn_world_end
}

# ---- the interface deleted under the daemon ----
deleted()
{
	gn_world 1500
	gn_veth peer p1 host h1
	gn_must gn_exec host "$GN_BIN/ghostnic" attach h1
	gn_must gn_daemon host --iface h0 --instance "vm1,mac=$GN_MAC1,port=tap:vm1" \
		--iface h1 --instance "vm2,mac=$GN_MAC2,port=tap:vm2"
	gn_vm 1 1500
	gn_vm 2 1500
	gn_must gn_exec peer ip addr add 10.0.1.1/24 dev p1
	gn_must gn_exec vm2 ip addr add 10.0.1.12/24 dev vm2
	gn_check "an instance behind each of two interfaces" \
		gn_wait 10 both_answer
	gn_must gn_exec host ip link del dev h0
	gn_check "the daemon goes on without the interface" alive
	gn_check "it still answers" gn_ghostnic instance list
	gn_check "the instance behind the other interface" gn_copy peer vm2 10.0.1.12
	gn_check "an instance of the dead interface can be removed" gn_ghostnic instance del vm1 --iface h0
	gn_check "SIGTERM ends it" ends_well TERM
	gn_check "detach without the interface" gn_exec host "$GN_BIN/ghostnic" detach h0
	gn_check "detach of the other" gn_exec host "$GN_BIN/ghostnic" detach h1
	gn_check "no pin is left of either" no_pins
	GN_DAEMON=0
	gn_ns_del peer host vm1 vm2
}

# ---- super-packets from below ----
# Generic mode sees what the peer's stack did not segment. None of it may arrive broken.
generic()
{
	gn_world 1500 --mode generic
	gn_must gn_exec peer ethtool -K p0 tso on gso on tx on
	gn_instances 1500
	gn_check "generic mode: ping" gn_wait 10 gn_ping peer 10.0.0.11
	gn_exec peer timeout 5 iperf3 -c 10.0.0.11 -t 2 >/dev/null 2>&1
	gn_server vm1
	gn_spawn SUPER gn_exec peer iperf3 -c 10.0.0.11 -t 30
	gn_check "generic mode: super-packets are recognised" gn_wait 10 \
		above 0 gn_count pass_oversize
	gn_stop "$SUPER"
	gn_check "generic mode: nothing wrong reached an instance" nothing_bad
	gn_must gn_exec peer ethtool -K p0 tso off gso off
	gn_check "generic mode: a file in, segmented by the peer" gn_copy peer vm1 10.0.0.11
	gn_check "generic mode: a file out" gn_copy vm1 peer 10.0.0.1
	gn_world_end
}

# ---- mistakes in the configuration ----
# refused LINE TEXT - --check names the file and the line, and fails
refused()
{
	local want=$1 out
	printf '%b' "$2" >"$GN_TMP/bad.conf"
	if out=$("$GN_BIN/ghostnicd" --check --config "$GN_TMP/bad.conf" 2>&1); then
		echo "accepted"
		return 1
	fi
	case $out in
	*"bad.conf:$want:"*) return 0 ;;
	esac
	echo "$out"
	return 1
}

good='[daemon]\npoll=wait\n[interface h0]\nqueues=1\n'
good+="[instance vm1]\niface=h0\nmac=$GN_MAC1\nport=tap:vm1\n"
accepted()
{
	printf '%b' "$good" >"$GN_TMP/good.conf"
	"$GN_BIN/ghostnicd" --check --config "$GN_TMP/good.conf"
}
config()
{
	gn_check "configuration: a good one is accepted" accepted
	gn_check "configuration: unknown key" refused 2 '[daemon]\npol=wait\n'
	gn_check "configuration: bad value" refused 3 '# one\n[daemon]\npoll=sometimes\n'
	gn_check "configuration: bad number" refused 2 '[interface h0]\nqueues=-1\n'
	gn_check "configuration: unknown section" refused 9 "${good}[instanz x]\n"
	gn_check "configuration: bad MAC" refused 10 "${good}[instance vm2]\nmac=02:00:00:00:00\n"
	gn_check "configuration: multicast MAC" refused 10 "${good}[instance vm2]\nmac=03:00:00:00:00:01\n"
	gn_check "configuration: bad VLAN" refused 10 "${good}[instance vm2]\nvlan=4095\n"
	gn_check "configuration: unknown port" refused 10 "${good}[instance vm2]\nport=pipe:x\n"
	gn_check "configuration: no key" refused 2 '[daemon]\nwait\n'
	gn_check "configuration: a file that is not there" gn_not \
		"$GN_BIN/ghostnicd" --check --config /nonexistent
}

gn_file 64
[ $# -gt 0 ] || set -- killed second nospace removed link slow stopped nometa forged end chunks deleted generic config
for part; do
	"$part"
done
