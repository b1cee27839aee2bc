# shellcheck shell=bash
# SPDX-License-Identifier: BSD-2-Clause
#
# What every network test needs; a script sources this first, before any output:
#
#	. "$(dirname "$0")/lib.sh"
#
# The script then runs again from its start as process 1 of PID and mount namespaces
# of its own, in which /run/netns and /run/ghostnic are empty. So whatever a
# test leaves (processes, network namespaces with their interfaces and XDP
# programs, pins, sockets) goes with its last process, however it ends; a killed test
# leaves nothing to clean up, and nothing of the host is seen or touched.
#
# A case prints one line: "ok NAME", "not ok NAME: WHY" or "skip NAME: WHY"; other lines
# are for the reader. The exit status is 1 when a case failed, 0 otherwise.
#
# Environment: GN_BIN, directory of ghostnic and ghostnicd (default build/ here).

if [ -z "${GN_INSIDE:-}" ]; then
	if [ "$(id -u)" != 0 ]; then
		echo "not ok setup: needs root: sudo $0" >&2
		exit 1
	fi
	exec unshare --mount --pid --fork --kill-child --mount-proc \
		env GN_INSIDE=1 "$BASH" "$0" "$@"
fi
unset GN_INSIDE		# a test that starts another one nests it
set -u

GN_TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
GN_BIN=$(cd "${GN_BIN:-$GN_TOP/build}" && pwd) || exit 1
GN_TMP=/run/ghostnic	# private tmpfs: logs, sockets, the bpffs
GN_NEVER=$GN_TMP/.never	# see gn_nap
GN_PIDS=()
GN_FAILED=0
GN_DAEMON=0		# process of the last gn_daemon
GN_IPV6=		# has the kernel got it?
[ ! -e /proc/sys/net/ipv6 ] || GN_IPV6=y
# shellcheck disable=SC2034 # for DPDK
GN_CPUS=$(sed -n 's/^Cpus_allowed_list:\t//p' /proc/self/status)
PATH=$PATH:/usr/sbin:/sbin
LC_ALL=C		# numbers with a point, also bash's own: EPOCHREALTIME
export GN_BIN GN_TMP PATH LC_ALL

gn_ok()   { echo "ok $1"; }
gn_fail() { GN_FAILED=1; echo "not ok $1: $2"; }
gn_skip() { echo "skip $1: $2"; }
gn_note() { echo "# $*"; }

# gn_die WHY - the test cannot go on
gn_die()
{
	gn_fail setup "$1"
	exit 1
}

# gn_must CMD... - a step of the setup; its failure ends the test
gn_must()
{
	"$@" || gn_die "failed ($?): $*"
}

# gn_check NAME CMD... - one case: does CMD succeed? Its output is shown if not.
gn_check()
{
	local name=$1 rc
	shift
	if [[ -z $GN_IPV6 && $* == *fd00::* ]]; then
		gn_skip "$name" "no IPv6"
		return 0
	fi
	"$@" >"$GN_TMP/check.out" 2>&1
	rc=$?
	if [ $rc = 0 ]; then
		gn_ok "$name"
	else
		gn_fail "$name" "'$*' gave $rc"
		tail -n 15 "$GN_TMP/check.out" | sed 's/^/#   /'
	fi
	return $rc
}

# gn_jumbo NAME - does the kernel take frames of more than one buffer? If not, case NAME is a skip.
gn_jumbo()
{
	local v
	IFS=.- read -ra v <<<"$(uname -r)"
	((v[0] > 6 || v[0] == 6 && v[1] >= 6)) || { gn_skip "$1" "no multi-buffer AF_XDP before 6.6"; false; }
}

# gn_not CMD... - succeeds when CMD fails
gn_not() { ! "$@"; }

GN_PATIENCE=3		# times as slow as an idle machine may this one be

# gn_wait SECONDS CMD... - poll CMD until it succeeds; 1 when GN_PATIENCE times as long has passed
gn_wait()
{
	local end=$((SECONDS + GN_PATIENCE * $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || return 1
		gn_nap 0.05
	done
}

# gn_nap SECONDS - sleep, without a process; the pipe never has anything to read
gn_nap() { ! read -rt "$1" <>"$GN_NEVER"; }

# gn_ns NAME... - network namespaces, loopback up, no IPv6 duplicate detection
gn_ns()
{
	local ns
	for ns; do
		gn_must ip netns add "$ns"
		gn_must gn_exec "$ns" ip link set lo up
		[ -z "$GN_IPV6" ] || gn_must gn_exec "$ns" sh -c \
			'echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad'
	done
}

# gn_ns_del NAME... - end what runs in the namespaces, delete them
gn_ns_del()
{
	local ns pid
	for ns; do
		for pid in $(ip netns pids "$ns"); do
			kill -KILL "$pid"
			wait "$pid"	# says "not a child" of a grandchild, "killed" of a child
		done 2>/dev/null
		gn_must ip netns del "$ns"
	done
}

# gn_exec NS CMD... - run in a namespace; unlike "ip netns exec" it leaves /sys alone
gn_exec()
{
	local ns=$1
	shift
	${GN_REPLACE:+exec} nsenter --net="/run/netns/$ns" -- "$@"
}

# gn_spawn VAR CMD... - background process; its PID goes to VAR, its output to
# $GN_TMP/VAR.log. "gn_spawn P gn_exec NS prog" yields the PID of prog itself.
gn_spawn()
{
	local var=$1
	shift
	(
		if [ "$(type -t "$1")" = function ]; then
			# shellcheck disable=SC2030 # for gn_exec, gn_ghostnic below this one
			GN_REPLACE=1
			"$@"
		else
			exec "$@"
		fi
	) >>"$GN_TMP/$var.log" 2>&1 </dev/null &
	GN_PIDS+=($!)
	printf -v "$var" %s $!
}

# gn_gone PID - has a spawned process ended? (a zombie has) Without a process: it is asked often
gn_gone()
{
	local stat
	{ read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 0
	[[ ${stat##*) } == [ZX]* ]]
}

# gn_stop PID [SIGNAL] - end a spawned process and wait for it; KILL after 5 s
gn_stop()
{
	kill "-${2:-TERM}" "$1" 2>/dev/null
	gn_gone "$1" || gn_nap 0.01
	gn_wait 5 gn_gone "$1" || kill -KILL "$1" 2>/dev/null
	wait "$1" 2>/dev/null
	return 0
}

# gn_bpffs - a bpffs of our own for pins; exports GHOSTNIC_BPFFS and LIBXDP_BPFFS
gn_bpffs()
{
	export GHOSTNIC_BPFFS=$GN_TMP/bpf LIBXDP_BPFFS=$GN_TMP/bpf
	gn_must mkdir -p "$GN_TMP/bpf"
	[ "$(stat -f -c %t "$GN_TMP/bpf")" = cafe4a11 ] || gn_must mount -t bpf bpf "$GN_TMP/bpf"
}

# gn_veth NS1 IF1 NS2 IF2 [MTU [QUEUES]] - a pair, both ends up
gn_veth()
{
	local mtu=${5:-1500} q=${6:-1}

	gn_must ip link add "$2" netns "$1" mtu "$mtu" numrxqueues "$q" numtxqueues "$q" \
		type veth peer name "$4" netns "$3" mtu "$mtu" \
		numrxqueues "$q" numtxqueues "$q"
	gn_must gn_exec "$1" ip link set "$2" up
	gn_must gn_exec "$3" ip link set "$4" up
}

# gn_mac NS IF - address of an interface
gn_mac()
{
	gn_exec "$1" ip -j link show dev "$2" | jq -r '.[0].address'
}

# gn_ghostnic ARGS... - the CLI, towards the last gn_daemon
gn_ghostnic()
{
	# shellcheck disable=SC2031 # see gn_spawn
	${GN_REPLACE:+exec} "$GN_BIN/ghostnic" "$@"
}

# gn_jailed PID [CAPS] - all its threads: no capability but those of mask CAPS, no new privileges,
# a filter of system calls
gn_jailed()
{
	local t caps
	printf -v caps %016x "$((${2:-0}))"
	for t in "/proc/$1/task"/*/status; do
		grep -E "^(Name|Cap|NoNewPrivs|Seccomp)" "$t"
		grep -qzP "CapInh:\t0+\nCapPrm:\t$caps\nCapEff:\t$caps\nCapBnd:\t0+\nCapAmb:\t0+\n" "$t" &&
			grep -qzP 'NoNewPrivs:\t1\nSeccomp:\t2\n' "$t" || return 1
	done
}

# gn_daemon NS ARGS... - ghostnicd in NS; sets GN_DAEMON, exports GHOSTNIC_CTL; on return
# it answers. Output in $GN_TMP/GN_DAEMON.log.
gn_daemon()
{
	local ns=$1
	shift
	export GHOSTNIC_CTL=$GN_TMP/$ns.sock
	gn_spawn GN_DAEMON gn_exec "$ns" "$GN_BIN/ghostnicd" --foreground \
		--ctl "$GHOSTNIC_CTL" "$@"
	gn_wait 15 gn_daemon_settled || gn_note "ghostnicd neither answers nor ends"
	if ! gn_ghostnic instance list -j >/dev/null 2>&1; then
		tail -n 20 "$GN_TMP/GN_DAEMON.log" | sed 's/^/#   /'
		return 1
	fi
}

gn_daemon_settled()
{
	gn_gone "$GN_DAEMON" || gn_ghostnic instance list -j
}

# ---- the usual world -------------------------------------------------------------
# peer --p0==veth==h0-- host: XDP and ghostnicd; instances vm1 and vm2 behind TAPs of the
# same names, each in a namespace of its own. Addresses: peer .1, host .2, vm1 .11, vm2 .12
# of 10.0.0.0/24, and the same of fd00::/64.

GN_MAC1=02:00:00:00:00:11
GN_MAC2=02:00:00:00:00:12

# gn_addr NS IF N - the N-th address of both families, if the kernel has both
gn_addr()
{
	gn_must gn_exec "$1" ip addr replace "10.0.0.$3/24" brd + dev "$2"
	[ -z "$GN_IPV6" ] || gn_must gn_exec "$1" ip -6 addr replace "fd00::$3/64" dev "$2" nodad
}

# gn_two_hosts - peer: bridge br0, 10.0.0.1, of p0 --- h0 of host and p1 --- h1 of host2
gn_two_hosts()
{
	local n
	gn_bpffs
	gn_ns peer host host2
	gn_must gn_exec peer ip link add br0 type bridge
	gn_must gn_exec peer ip link set br0 up
	gn_veth peer p0 host h0
	gn_veth peer p1 host2 h1
	for n in p0 p1; do
		gn_must gn_exec peer ip link set $n master br0
		gn_must gn_exec peer ethtool -K $n txvlan off
	done
	gn_addr peer br0 1
}

# gn_world MTU [ATTACH-ARG...] - namespaces, veth, pins; XDP attached; no daemon yet
# GN_QUEUES: of both ends of the veth, if not one
gn_world()
{
	local mtu=$1
	shift
	gn_bpffs
	gn_ns peer host vm1 vm2
	gn_veth peer p0 host h0 "$mtu" "${GN_QUEUES:-1}"
	gn_addr peer p0 1
	gn_addr host h0 2
	# As attach advises: a tag that stays beside the frame is hidden from XDP.
	gn_must gn_exec peer ethtool -K p0 txvlan off
	gn_must gn_exec host "$GN_BIN/ghostnic" attach h0 "$@" >>"$GN_TMP/attach.log" 2>&1
}

# gn_vm N MTU - bring the TAP of instance vmN into its namespace, as a VMM would take it
gn_vm()
{
	local mac=GN_MAC$1
	gn_wait 5 gn_exec host ip link show dev "vm$1" || gn_die "no TAP vm$1"
	gn_must gn_exec host ip link set dev "vm$1" netns "/run/netns/vm$1"
	gn_must gn_exec "vm$1" ip link set dev "vm$1" address "${!mac}" mtu "$2" up
	gn_addr "vm$1" "vm$1" "1$1"
}

# gn_instances MTU ARGS... - ghostnicd on h0 with vm1 and vm2, both up
# GN_VLAN: their VLAN, if any
gn_instances()
{
	local mtu=$1 vlan=${GN_VLAN:+,vlan=$GN_VLAN}
	shift
	gn_must gn_daemon host --iface h0 \
		--instance "vm1,mac=$GN_MAC1$vlan,port=tap:vm1" \
		--instance "vm2,mac=$GN_MAC2$vlan,port=tap:vm2" "$@"
	gn_vm 1 "$mtu"
	gn_vm 2 "$mtu"
}

# gn_world_end - stop the daemon, which has to end well; detach, delete the namespaces
gn_world_end()
{
	if [ "$GN_DAEMON" != 0 ]; then
		kill -TERM "$GN_DAEMON"
		gn_wait 10 gn_gone "$GN_DAEMON" || kill -KILL "$GN_DAEMON"
		wait "$GN_DAEMON" 2>/dev/null || gn_fail "the daemon's end" "status $?"
		GN_DAEMON=0
	fi
	gn_must gn_exec host "$GN_BIN/ghostnic" detach h0 >/dev/null
	gn_ns_del peer host vm1 vm2
}

# gn_count NAME [JQ-FILTER] - a counter of "ghostnic stats -j", summed over all that have it
gn_count()
{
	gn_ghostnic stats -j | jq "[${2:-.} | .. | objects | .$1? // empty | numbers] | add // 0"
}

# gn_port_count INSTANCE NAME - a counter of one instance's port
gn_port_count()
{
	gn_count "$2" ".. | objects | select(.name? == \"$1\" and has(\"mac\"))"
}

# gn_listening NS PORT - does someone accept TCP connections there?
gn_listening()
{
	gn_exec "$1" ss -Hltn "sport = :$2" | grep -q .
}

# gn_server NS - an iperf3 server in NS, which may run already
gn_server()
{
	gn_listening "$1" 5201 && return
	gn_spawn "IPERF_$1" gn_exec "$1" iperf3 -s
	gn_wait 5 gn_listening "$1" 5201 || gn_die "no iperf3 server in $1"
}

# gn_iperf FROM TO ADDRESS ARGS... - sends unless -R; fails if nothing arrived
gn_iperf()
{
	local from=$1 addr=$3
	gn_server "$2"
	shift 3
	gn_exec "$from" timeout 60 iperf3 -c "$addr" -J "$@" >"$GN_TMP/iperf.json" &&
		jq -e '.end.sum_received.bytes > 0' "$GN_TMP/iperf.json"
}

# gn_file MIB - random bytes to send; sets GN_SUM
gn_file()
{
	head -c "$1M" /dev/urandom >"$GN_TMP/file"
	GN_SUM=$(sha256sum <"$GN_TMP/file")
}

# gn_copy FROM TO ADDRESS - send the file by TCP; is what arrives the same?
gn_copy()
{
	local addr=$3 fam=TCP4 got
	case $addr in
	*:*) fam=TCP6; addr="[$addr]" ;;
	esac
	gn_spawn RECV gn_exec "$2" timeout 120 socat -u "$fam-LISTEN:9000,reuseaddr" \
		"SYSTEM:sha256sum >$GN_TMP/sum"
	gn_wait 5 gn_listening "$2" 9000 || return 1
	gn_exec "$1" timeout 120 socat -u "OPEN:$GN_TMP/file" "$fam:$addr:9000" || return 1
	gn_wait 10 gn_gone "$RECV" || return 1
	gn_wait 5 test -s "$GN_TMP/sum"
	got=$(cat "$GN_TMP/sum")
	rm -f "$GN_TMP/sum"
	[ "$got" = "$GN_SUM" ] || { echo "sent $GN_SUM, got $got"; return 1; }
}

# gn_ping FROM ADDRESS [ARGS...]
gn_ping()
{
	local from=$1 addr=$2
	shift 2
	gn_exec "$from" ping -q -c 3 -i 0.1 -W 2 "$@" "$addr"
}

gn_exit()
{
	local rc=$? p
	trap - EXIT INT TERM
	if [ $rc != 0 ] || [ $GN_FAILED != 0 ]; then
		for p in "$GN_TMP"/*.log; do
			[ -s "$p" ] || continue
			echo "# ---- ${p##*/}"
			tail -n 20 "$p" | sed 's/^/#   /'
		done
	fi
	for p in ${GN_PIDS[@]+"${GN_PIDS[@]}"}; do
		kill -TERM "$p" 2>/dev/null
	done
	for p in ${GN_PIDS[@]+"${GN_PIDS[@]}"}; do
		gn_stop "$p"
	done
	[ $rc != 0 ] || rc=$GN_FAILED
	exit $rc
}
trap gn_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

gn_must mkdir -p /run/netns "$GN_TMP"
gn_must mount -t tmpfs -o mode=0755 tmpfs /run/netns
gn_must mount -t tmpfs -o mode=0700 tmpfs "$GN_TMP"
gn_must mkfifo "$GN_NEVER"
