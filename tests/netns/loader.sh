#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# ghostnic attach, detach, status: on every kind of interface it may meet, beside other
# XDP programs, without rights, and after having been killed at every system call that
# leaves something behind.

#
#	loader.sh [plain] [served] [renamed] [swapped] [spaces] [gone] [others] [killed]
#
# Environment: GN_STRIDE, kill at every so-manyth step only (default 1).

# shellcheck source=tests/netns/lib.sh
. "$(dirname "$0")/lib.sh"

GN=$GN_BIN/ghostnic
FORWARD=rx-udp-gro-forwarding	# an offload every interface has, which attach wants off

IN=a	# namespace of the interface

# g ARGS... - ghostnic there
g() { gn_exec "$IN" "$GN" "$@"; }

# quiet ARGS... - a step of a test; what it said is in $GN_TMP/said
quiet() { g "$@" >"$GN_TMP/said" 2>&1; }

# gives CODE ARGS... - exit code; the output goes to $GN_TMP/said
gives()
{
	local want=$1 rc
	shift
	g "$@" >"$GN_TMP/said" 2>&1
	rc=$?
	[ $rc = "$want" ] || { echo "exit $rc, not $want:"; cat "$GN_TMP/said"; return 1; }
}

# refuses CODE PATTERN ARGS... - exit code and a message
refuses()
{
	local code=$1 pattern=$2
	shift 2
	gives "$code" "$@" || return 1
	grep -q -- "$pattern" "$GN_TMP/said" || { cat "$GN_TMP/said"; return 1; }
}

# is IF JQ-FILTER - true of the interface's entry in "status -j"?
is()
{
	local out
	out=$(g status -j "$1" 2>&1)
	jq -e ".ok and (.interfaces[0] | $2)" <<<"$out" || { echo "$out"; return 1; }
}

# pair - v0, in namespace a, and v1
pair()
{
	gn_veth a v0 b v1
	gn_must gn_exec a ethtool -K v0 $FORWARD on
	gn_addr a v0 1
	gn_addr b v1 2
}

xdp_of() { gn_exec a ip -j -d link show dev "$1" | jq -e '.[0].xdp'; }

leftovers()
{
	find "$GHOSTNIC_BPFFS/ghostnic" "$GHOSTNIC_BPFFS/xdp" -mindepth 1 2>/dev/null | grep .
}

# clean IF - no program, no pins, offloads as they were
clean()
{
	! xdp_of "$1" && ! leftovers && is_on "$1"
}

is_on()  { gn_exec a ethtool -k "$1" | grep "^$FORWARD: on"; }
is_off() { gn_exec a ethtool -k "$1" | grep "^$FORWARD: off"; }

attached() { is "$1" '.attached and .state == "attached"' && is_off "$1"; }

counted() { g stats -j v0 | jq -e ".interfaces[0].xdp | .pass_other >= $before + 3 and .rx >= .pass_other"; }
rates() { g stats v0 -j --watch=0.05 --count 2 | jq -e -s 'length == 2 and (.[1].rates.v0.xdp | has("rx"))'; }
once() { g top --interval 0.05 </dev/null | grep -q "TO HOST/S"; }

without()
{
	local pattern=$1
	shift
	gn_exec a setpriv "$@" "$GN" attach v0 >"$GN_TMP/said" 2>&1
	[ $? = 1 ] && grep -q "$pattern" "$GN_TMP/said"
}

part_plain()
{
	# ---- the plain way ---------------------------------------------------------------------
	gn_check "attach" gives 0 attach v0
	gn_check "status says so" attached v0
	gn_check "native mode on veth" is v0 '.mode == "native" and .abi == 3 and .mtu == 1500 and .max_frame == 1522'
	id=$(g status -j v0 | jq .interfaces[0].program_id)
	gn_check "attach again says so and changes nothing" refuses 0 "already attached" attach v0
	gn_check "the same program" is v0 ".program_id == $id"
	gn_check "another mode wants --force" refuses 1 "use --force" attach v0 --mode generic
	gn_check "--force replaces it" gives 0 attach v0 --mode generic --force
	gn_check "generic mode" is v0 ".attached and .mode == \"generic\" and .program_id != $id"
	gn_check "detach" gives 0 detach v0
	gn_check "nothing is left" clean v0
	gn_check "detach of nothing gives 3" refuses 3 "not attached" detach v0
	gn_check "status of nothing gives 3" gives 3 status v0
	gn_check "stats of nothing gives 3" refuses 3 "ghostnic attach v0" stats v0

	# ---- counters without a daemon -----------------------------------------------------------
	gn_must quiet attach v0
	before=$(g stats -j v0 | jq '.interfaces[0].xdp.pass_other')
	gn_check "the host's traffic passes" gn_ping b 10.0.0.1
	gn_check "and is counted" counted
	gn_check "stats --watch gives rates" g stats v0 -j --watch=0.05 --count 2
	gn_check "one line each" rates
	gn_check "top prints one frame to a pipe" once
	gn_check "flows without a daemon gives 3" refuses 3 "start ghostnicd" flows

	# ---- changes under our feet ----------------------------------------------------------------
	gn_must gn_exec b ip link set v1 mtu 3000
	gn_must gn_exec a ip link set v0 mtu 3000
	gn_check "status notices another MTU" refuses 0 "the MTU changed" status v0
	gn_check "attach takes it over" refuses 0 "MTU of 3000" attach v0
	gn_check "and keeps the program" is v0 '.max_frame == 3022 and .state == "attached"'
	gn_must rm -r "$GHOSTNIC_BPFFS/ghostnic/v0"
	gn_check "pins gone: incomplete" is v0 '.state == "incomplete"'
	gn_check "attach makes it whole" refuses 0 "without its pins" attach v0
	gn_must gn_exec a ethtool -K v0 $FORWARD on
	gn_must quiet attach v0 --force
	gn_check "it is" attached v0
	gn_must rm -r "$GHOSTNIC_BPFFS/ghostnic/v0"
	gn_must quiet detach v0
	gn_check "detach works without pins" gn_not xdp_of v0
	gn_must gn_exec a ethtool -K v0 $FORWARD on
	gn_must quiet attach v0
	gn_must gn_exec a ip link set v0 xdp off
	gn_check "program gone: stale" is v0 '.state == "stale"'
	gn_check "status gives 3" gives 3 status v0
	gn_check "attach removes stale pins" refuses 0 "stale pins" attach v0
	gn_check "and attaches" attached v0
	gn_must quiet detach v0
	gn_check "nothing is left of that" clean v0

	gn_veth a w0 b w1
	gn_must quiet attach w0
	gn_must gn_exec a ip link del w0
	gn_check "interface gone: stale" refuses 3 "gone or in another namespace" status w0
	gn_check "detach of what is gone" refuses 0 "removed its pins" detach w0
	gn_check "nothing is left of it" gn_not leftovers
	gn_veth a w0 b w1
	gn_must quiet attach w0
	gn_must gn_exec a ip link del w0
	gn_veth a w0 b w1
	gn_check "a new interface of the name is not attached" is w0 '.state == "stale"'
	gn_check "nor does a daemon take it" no_daemon w0 "another interface that had the name"
	gn_check "attach to it" refuses 0 "stale pins" attach w0
	gn_check "is whole" is w0 '.state == "attached"'
	gn_must quiet detach w0

	# ---- refusals -------------------------------------------------------------------------------
	gn_check "no such interface" refuses 1 "no such interface" attach nope
	gn_check "no such interface, JSON" refuses 1 '"ok":false,"error":"nope: no such' -j attach nope
	gn_check "no such interface to detach" refuses 3 "no such interface" detach nope
	gn_check "a path is no interface" refuses 1 "no such interface" attach ../v0
	gn_check "no bpffs" refuses 1 "mount -t bpf" attach v0 --bpffs "$GN_TMP"
	gn_check "unknown mode" refuses 2 "not one of its values" attach v0 --mode fast
	gn_check "unknown command" refuses 2 "no command" frobnicate
	gn_check "option of another command" refuses 2 "does not take" detach v0 --force
	gn_check "operand missing" refuses 2 "needs an operand" attach
	gn_check "help" gives 0 attach --help
	gn_check "without CAP_NET_ADMIN" without "needs CAP_NET_ADMIN;" --bounding-set -net_admin
	gn_check "without CAP_BPF" without "needs CAP_BPF;" --bounding-set -bpf,-sys_admin
	gn_check "without any" without "CAP_BPF and CAP_NET_ADMIN" --reuid 65534 --clear-groups
	gn_check "and nothing was changed" clean v0

	gn_must gn_exec a ip link add q0 numrxqueues 1 numtxqueues 1 type veth peer name q1 numrxqueues 4 numtxqueues 4
	gn_check "veth with too few receive queues" refuses 1 "ethtool -L q0 rx 4" attach q0 --mode native
	gn_check "a driver without native XDP" refuses 1 "no native XDP" attach lo --mode native
	gn_check "leaves no pins" gn_not leftovers
	gn_check "generic mode in its place" refuses 0 "attached in generic mode" attach lo
	gn_check "status says generic" is lo '.attached and .mode == "generic"'
	gn_must quiet detach lo
	gn_must gn_exec a ip link set v0 down
	gn_check "a link that is down" refuses 0 "v0 is down" attach v0
	gn_must quiet detach v0
	gn_must gn_exec a ip link set v0 up
}

# no_daemon IF PATTERN - a second daemon does not start there, and says so
no_daemon()
{
	gn_exec "$IN" timeout 10 "$GN_BIN/ghostnicd" --foreground --ctl "$GN_TMP/second.sock" \
		--iface "$1" --instance "vm2,mac=$GN_MAC2,port=null" >"$GN_TMP/said" 2>&1
	[ $? = 1 ] && grep -q -- "$2" "$GN_TMP/said" && return
	cat "$GN_TMP/said"
	return 1
}

serves() { is v0 '.daemon and (.queues | length) == 1 and .instances[0].name == "vm1"'; }

# With a daemon: what the commands say of it, and detach under it.
part_served()
{
	gn_must quiet attach v0
	gn_must gn_daemon a --iface v0 --instance "vm1,mac=$GN_MAC1,port=null"
	gn_check "status names queue and instance" serves
	gn_check "instance add" gives 0 instance add "vm2,mac=$GN_MAC2,port=null"
	gn_check "instance list shows it" refuses 0 "^vm2 " instance list
	gn_check "twice is refused" gives 1 instance add "vm2,mac=$GN_MAC2,port=null"
	gn_check "instance del" gives 0 instance del vm2
	gn_check "which is then gone" refuses 1 "no instance vm2" instance del vm2
	gn_check "metrics" refuses 0 "^ghostnic_info" metrics
	gn_check "flows" gives 0 flows
	gn_check "detach under the daemon" gives 0 detach v0
	gn_check "leaves nothing" clean v0
	gn_check "the daemon lives on" gives 0 instance list
	gn_check "the host's traffic goes on" gn_ping b 10.0.0.1
	gn_stop "$GN_DAEMON"
	export GHOSTNIC_CTL=$GN_TMP/no.sock
}

# received - frames that the daemon has got
received() { gn_count rx_descs; }

# goes_on - the instance is still served
goes_on()
{
	local seen
	seen=$(received)
	gn_exec b ping -q -c 1 -W 0.1 10.0.0.77
	gn_wait 5 more_than "$seen"
}
more_than() { [ "$(received)" -gt "$1" ]; }

# served_at IF - attach, and a daemon with an instance that gets what is for 10.0.0.77
served_at()
{
	gn_must quiet attach "$1"
	gn_must gn_daemon a --iface "$1" --instance "vm1,mac=$GN_MAC1,port=null"
	gn_must gn_exec b ip neigh replace 10.0.0.77 lladdr "$GN_MAC1" dev v1
	gn_check "an instance behind $1" goes_on
}

# rename FROM TO - an interface of namespace a
rename()
{
	gn_must gn_exec a ip link set "$1" down
	gn_must gn_exec a ip link set "$1" name "$2"
	gn_must gn_exec a ip link set "$2" up
}

# ---- names that change hands -------------------------------------------------------------------
part_renamed()
{
	local id
	served_at v0
	id=$(g status -j v0 | jq .interfaces[0].program_id)
	rename v0 lan0
	gn_check "renamed: detach by the old name is refused" \
		refuses 1 "those of lan0.*ghostnic attach lan0" detach v0
	gn_check "renamed: status by the old name says so" refuses 3 "those of lan0" status v0
	gn_check "renamed: a daemon for the new name is told to attach" no_daemon lan0 "ghostnic attach lan0"
	gn_check "renamed: attach finds the pins" refuses 0 "renamed its pins" attach lan0
	gn_check "renamed: and keeps the program" is lan0 ".state == \"attached\" and .program_id == $id"
	gn_check "renamed: the daemon goes on" goes_on
	rename lan0 v0
	gn_veth a lan0 b lan1
	gn_check "renamed: who has the name now is told whose the pins are" \
		refuses 1 "those of v0.*ghostnic attach v0" attach lan0
	gn_check "renamed: nor may it detach them" refuses 1 "those of v0" detach lan0
	gn_check "renamed: nor a daemon take them" no_daemon lan0 "another interface that had the name"
	gn_check "renamed: the first daemon goes on" goes_on
	gn_check "renamed: detach by the new name" gives 0 detach v0
	gn_check "renamed: leaves nothing" clean v0
	gn_stop "$GN_DAEMON"
	export GHOSTNIC_CTL=$GN_TMP/no.sock

	gn_must gn_exec a ip link del lan0
}

# ---- two interfaces have swapped names ----
part_swapped()
{
	gn_veth a lan0 b lan1
	gn_must quiet attach v0
	gn_must quiet attach lan0
	rename v0 tmp0
	rename lan0 v0
	rename tmp0 lan0
	gn_check "swapped: attach finds the first one's" refuses 0 "already attached" attach v0
	gn_check "swapped: and the second one's" refuses 0 "already attached" attach lan0
	gn_check "swapped: detach both" gives 0 detach lan0
	gn_check "swapped: the other is left alone" is v0 '.state == "attached"'
	gn_must quiet detach v0
	gn_check "swapped: nothing is left" gn_not leftovers
	rename v0 tmp0
	rename lan0 v0
	gn_must gn_exec a ip link del tmp0
}

# ---- the same name in two namespaces, one bpffs ------------------------------------------------
part_spaces()
{
	gn_ns c
	gn_veth c v0 b v2
	served_at v0
	IN=c
	gn_check "spaces: attach is refused" refuses 1 "another network namespace's" attach v0
	gn_check "spaces: by force, too" refuses 1 "another network namespace's" attach v0 --force
	gn_check "spaces: detach is refused" refuses 1 "another network namespace's" detach v0
	gn_check "spaces: a daemon is refused" no_daemon v0 "another network namespace's"
	gn_check "spaces: status says why" refuses 3 "another network namespace's" status v0
	gn_must gn_exec c ip link del v0
	gn_check "spaces: detach without the interface is refused" \
		refuses 1 "another network namespace's" detach v0
	IN=a
	gn_check "spaces: the daemon goes on" goes_on
	gn_check "spaces: the first is attached" attached v0
	gn_stop "$GN_DAEMON"

	# Moved with its program, and renamed, it is the same interface.
	gn_must gn_exec a ip link set v0 netns /run/netns/c name w0
	IN=c
	gn_check "moved: attach takes the pins along" refuses 0 "already attached" attach w0
	gn_check "moved: a daemon takes them" \
		gn_daemon c --iface w0 --instance "vm1,mac=$GN_MAC1,port=null"
	gn_stop "$GN_DAEMON"
	export GHOSTNIC_CTL=$GN_TMP/no.sock
	gn_must gn_exec c ip link set w0 name v0 netns /run/netns/a
	IN=a
	gn_check "moved: detach where it came from" gives 0 detach v0
	gn_check "moved: nothing is left" clean v0

	gn_must gn_exec a ip link del v0
	gn_ns_del c
	pair
}

# ---- a namespace is gone that had the name ----
# Its interface is, too, but libxdp's pins keep a program that hangs on a dispatcher.
part_gone()
{
	local dispatcher
	gn_ns c
	gn_veth c v0 b v2
	IN=c
	gn_must quiet attach v0
	dispatcher=$(g status -j v0 | jq .interfaces[0].dispatcher)
	gn_ns_del c
	IN=a
	if [ "$dispatcher" = true ]; then
		gn_check "namespace gone: attach says how to go on" refuses 1 "rm -r $GHOSTNIC_BPFFS/ghostnic/v0" attach v0
		gn_must rm -r "$GHOSTNIC_BPFFS"/ghostnic/v0 "$GHOSTNIC_BPFFS"/xdp/dispatch-*
		gn_check "namespace gone: attach then" gives 0 attach v0
	else
		gn_check "namespace gone: its pins are stale" refuses 0 "stale pins" attach v0
	fi
	gn_check "namespace gone: attached" attached v0
	gn_must quiet detach v0
	gn_check "namespace gone: nothing is left" clean v0
}

# ---- other XDP programs ------------------------------------------------------------------------
# xdp-filter attaches by libxdp as we do. Without the kernel's freplace each gets the
# interface alone.
filter() { gn_exec a xdp-filter "$@"; }
both() { gn_exec a xdp-loader status v0 | grep -q ghostnic && gn_exec a xdp-loader status v0 | grep -q xdpfilt; }
only() { gn_exec a xdp-loader status v0 | grep -q "$1" && ! gn_exec a xdp-loader status v0 | grep -q "$2"; }

drops()
{
	filter port 7777 -p udp -m dst || return 1
	filter status | grep 7777
}

part_others()
{
	if ! command -v xdp-filter >/dev/null; then
		gn_skip "beside xdp-filter" "package xdp-tools is missing"
	else
		gn_must quiet attach v0
		if is v0 .dispatcher >/dev/null; then
			gn_check "xdp-filter after ghostnic" filter load v0
			gn_check "both are there" both
			gn_check "status sees both" is v0 '.state == "attached" and .other_programs == 1'
			gn_check "the filter takes rules" drops
			gn_check "traffic passes both" gn_ping b 10.0.0.1
			gn_check "detach leaves the other" gives 0 detach v0
			gn_check "xdp-filter alone" only xdpfilt ghostnic
			gn_check "ghostnic after xdp-filter" gives 0 attach v0
			gn_check "both again" both
			gn_check "and whole" attached v0
			gn_check "xdp-filter unloads" filter unload v0
			gn_check "ghostnic alone" only ghostnic xdpfilt
			gn_check "still whole" is v0 '.state == "attached" and .other_programs == 0'
			gn_check "traffic still passes" gn_ping b 10.0.0.1
			gn_must quiet detach v0
		else
			gn_skip "beside xdp-filter" "this kernel refuses freplace programs, which libxdp's dispatcher needs"
			gn_check "xdp-filter finds it busy" gn_not filter load v0
			gn_check "and leaves ghostnic alone" attached v0
			gn_must quiet detach v0
			gn_must filter load v0
			gn_check "ghostnic finds it busy" refuses 1 "is busy: XDP program .xdpfilt" attach v0
			gn_check "detach does not touch it" refuses 3 "not attached" detach v0
			gn_check "xdp-filter is still there" gn_exec a xdp-loader status v0
			gn_must filter unload v0
		fi
		gn_must rm -rf "$GHOSTNIC_BPFFS/xdp-filter" "$GHOSTNIC_BPFFS/xdp"/* /run/xdp-filter
	fi
}

# ---- killed at every step ----------------------------------------------------------------------
# A process that is killed leaves what it pinned, linked and set, nothing else. So the
# states a crash can leave are those before each call that pins, unpins or sets; the
# command is killed at every one, found by a run that is not killed.
CALLS=bpf,mkdir,unlink,unlinkat,rmdir,sendto,ioctl
LASTING='bpf[(]BPF_(OBJ_PIN|LINK_CREATE|RAW_TRACEPOINT_OPEN)|^[0-9]+ +(mkdir|unlink|unlinkat|rmdir)[(]|RTM_SETLINK'

# points ARGS... - "CALL N" for every lasting call of the command; runs it
points()
{
	gn_exec a strace -f -qq -s 256 -o "$GN_TMP/calls" -e "trace=$CALLS" "$GN" "$@" >"$GN_TMP/said" 2>&1 || return 1
	awk -v "lasting=$LASTING" '{
		call = $2
		sub(/[(].*/, "", call)
		n[call]++
		# strace does not tell the ioctl that sets from those that ask; what
		# it finds is the same at the first after something else that lasts.
		if ($0 ~ lasting || (call == "ioctl" && last != "ioctl"))
			print call, n[call]
		if ($0 ~ lasting || call == "ioctl")
			last = call
	}' "$GN_TMP/calls"
}

# killed_at CALL N ARGS... - run the command, kill it before its N-th CALL
killed_at()
{
	local call=$1 n=$2
	shift 2
	gn_exec a strace -f -qq -o /dev/null -e "trace=$call" \
		-e "inject=$call:signal=KILL:when=$n" "$GN" "$@" >"$GN_TMP/said" 2>&1
	[ $? = 137 ]
}

# recovers attach|detach - after each kill, the next attach works and detach cleans; every
# second time detach comes first
recovers()
{
	local what=$1 kills=0 steps=0 call n rc
	[ "$what" = attach ] || quiet attach v0 || return 1
	points "$what" v0 >"$GN_TMP/points" || { echo "no points"; return 1; }
	quiet detach v0
	while read -r call n <&3; do
		steps=$((steps + 1))
		[ $((steps % ${GN_STRIDE:-1})) = 0 ] || continue
		[ "$what" = attach ] || quiet attach v0 || { echo "no attach"; return 1; }
		killed_at "$call" "$n" "$what" v0 || { echo "$call $n did not kill"; return 1; }
		kills=$((kills + 1))
		if [ $((kills % 2)) = 0 ]; then
			quiet attach v0 || { echo "attach after $call $n"; cat "$GN_TMP/said"; return 1; }
			attached v0 || { echo "not attached after $call $n"; return 1; }
		fi
		quiet detach v0
		rc=$?
		# 3: nothing had been done yet.
		[ $rc = 0 ] || [ $rc = 3 ] || { echo "detach after $call $n: $rc"; cat "$GN_TMP/said"; return 1; }
		clean v0 || { echo "not clean after $call $n"; return 1; }
	done 3<"$GN_TMP/points"
	gn_note "$kills kills of $what, which has $steps steps that last" >&4
	[ $steps -gt 5 ] && [ $kills -gt 0 ]
}

part_killed()
{
	if command -v strace >/dev/null; then
		exec 4>&1
		gn_check "attach killed at every step" recovers attach
		gn_check "detach killed at every step" recovers detach
	else
		gn_skip "killed at every step" "package strace is missing"
	fi
}

gn_bpffs
export GHOSTNIC_CTL=$GN_TMP/no.sock
gn_ns a b
pair
[ $# -gt 0 ] || set -- plain served renamed swapped spaces gone others killed
for part; do
	"part_$part"
done
