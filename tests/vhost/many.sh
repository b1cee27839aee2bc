#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Many guests: 32 instances appear behind vhost-user ports, answer, are killed and
# disappear under traffic; and one guest that stands still. An instance behind a TAP, on the
# same worker, must not notice. The guests are ports of DPDK's testpmd, which answers pings.

# shellcheck source=tests/netns/lib.sh
. "$(dirname "$0")/../netns/lib.sh"

N=32
CMD=$GN_TMP/pmd.cmd
mkfifo "$CMD"
exec 9<>"$CMD"

sock() { echo "$GN_TMP/g$1.vu"; }
mac() { printf '02:00:00:00:01:%02x' "$1"; }
addr() { echo "10.0.0.$((100 + $1))"; }

# pmd N - testpmd with so many guests
pmd()
{
	local i dev=()
	for ((i = 0; i < $1; i++)); do
		dev+=(--vdev="net_virtio_user$i,path=$(sock $i),mac=$(mac $i),mrg_rxbuf=1,queue_size=256")
	done
	: >"$GN_TMP/PMD.log"
	# shellcheck disable=SC2016 # the inner shell's
	gn_spawn PMD sh -c 'exec stdbuf -oL dpdk-testpmd "$@" <"$0"' "$CMD" \
		--no-pci --no-huge -m 256 --no-telemetry --single-file-segments \
		--file-prefix="gnmany$$" --lcores "0@($GN_CPUS),1@($GN_CPUS)" --log-level=lib.eal:4 \
		"${dev[@]}" -- -i --no-mlockall --total-num-mbufs=24576 \
		--forward-mode=icmpecho --disable-link-check --nb-cores=1
	echo start >&9
}

answers() { gn_exec peer ping -q -c 1 -W 1 "$(addr "$1")"; }
all_answer()
{
	local i
	for ((i = 0; i < N; i++)); do
		gn_wait 20 answers "$i" || { echo "guest $i does not answer"; return 1; }
	done
}
appear()
{
	local i
	for ((i = 0; i < N; i++)); do
		gn_ghostnic instance add "g$i,mac=$(mac $i),port=vhost-user:$(sock $i)" || return
	done
}
disappear()
{
	local i
	for ((i = 0; i < N; i++)); do
		gn_ghostnic instance del "g$i" || return
	done
}
instances() { gn_ghostnic instance list -j | jq '[.. | objects | select(has("mac"))] | length'; }
above() { local n=$1; shift; [ "$("$@")" -gt "$n" ]; }

# bystander - a file each way
bystander() { gn_copy peer vm1 10.0.0.11 && gn_copy vm1 peer 10.0.0.1; }

command -v dpdk-testpmd >/dev/null || gn_die "dpdk-testpmd is missing: make deps"
gn_file 8
gn_world 1500
gn_must gn_daemon host --iface h0 --instance "vm1,mac=$GN_MAC1,port=tap:vm1"
gn_vm 1 1500
for ((i = 0; i < N; i++)); do
	gn_must gn_exec peer ip neigh replace "$(addr $i)" lladdr "$(mac $i)" dev p0 nud permanent
done
gn_must gn_wait 10 gn_ping peer 10.0.0.11

# ---- they come and go under traffic ------------------------------------------------------
for i in 0 13 31; do
	gn_spawn "FLOOD$i" gn_exec peer ping -q -f -s 1400 "$(addr $i)"
done
for round in 1 2; do
	gn_check "round $round: $N instances appear under traffic" appear
	pmd $N
	gn_check "round $round: each guest answers" all_answer
	gn_check "round $round: traffic reaches one" gn_wait 10 above 200 gn_port_count g13 rx_packets
	gn_stop "$PMD" KILL
	gn_check "round $round: guests killed: the instance beside them" bystander
	gn_check "round $round: $N instances disappear under traffic" disappear
	gn_check "round $round: one is left" test "$(instances)" = 1
	gn_check "round $round: it works" bystander
done

# ---- a monitor that is not root ------------------------------------------------------------
GROUP=$GN_TMP/group
# enter USER GROUP - connect as they
enter() { setpriv --reuid "$1" --regid "$2" --clear-groups socat -u OPEN:/dev/null "UNIX-CONNECT:$GROUP/vm"; }
not() { ! "$@"; }

install -d -m 2750 -g games "$GROUP"
chmod a+x "$GN_TMP"
gn_must gn_ghostnic instance add "gg,mac=$(mac 40),port=vhost-user:$GROUP/vm" >/dev/null
gn_check "a socket in a set-group-ID directory is its group's" \
	test "$(stat -c '%a %U %G' "$GROUP/vm")" = "660 root games"
gn_check "who is in the group connects" enter nobody games
gn_check "another does not" not enter nobody nogroup 2>/dev/null
gn_must gn_ghostnic instance del gg >/dev/null

# ---- a guest that stands still ------------------------------------------------------------
gn_must gn_ghostnic instance add "g0,mac=$(mac 0),port=vhost-user:$(sock 0)" >/dev/null
pmd 1
gn_check "one guest again" gn_wait 20 answers 0
kill -STOP "$PMD"
gn_check "it stands still: what it does not take is counted" \
	gn_wait 20 above 100 gn_port_count g0 rx_dropped
dropped=$(gn_port_count vm1 rx_dropped)
gn_check "the instance beside it" bystander
gn_check "which lost nothing" test "$(gn_port_count vm1 rx_dropped)" = "$dropped"
kill -CONT "$PMD"
gn_check "it goes on" gn_wait 20 answers 0
gn_check "no fault" test "$(gn_port_count g0 faults)" = 0
gn_stop "$PMD" KILL
for i in 0 13 31; do
	pid=FLOOD$i
	gn_stop "${!pid}"
done
gn_world_end
