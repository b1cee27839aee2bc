#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# `ghostnic dma-log` while DPDK's virtio-user driver, which answers pings, is the guest:
# the commands, what they print and return, and that the daemon's sandbox lets them.
# Which pages are marked is test_ctl_dma's subject.

# shellcheck source=tests/netns/lib.sh
. "$(dirname "$0")/../netns/lib.sh"

VM=10.0.0.11
SOCK=$GN_TMP/vm1.vu
MEMORY=$((256 * 1024 * 1024 / 4096))	# pages of the guest
MAP=$GN_TMP/map
LOG=(gn_ghostnic dma-log --instance vm1)

command -v dpdk-testpmd >/dev/null || gn_die "dpdk-testpmd is missing: make deps"

# refused STATUS WORDS CMD... - it ends with STATUS and says WORDS
refused()
{
	local rc want=$1 words=$2
	shift 2
	"$@" >"$GN_TMP/refused.log" 2>&1
	rc=$?
	cat "$GN_TMP/refused.log"
	[ "$rc" = "$want" ] && grep -q "$words" "$GN_TMP/refused.log"
}

answers() { gn_exec peer ping -q -c 1 -W 1 "$VM"; }
# For the last answers ping waits twice as long as for those before, and no longer.
pings() { gn_exec peer ping -q -i 0.002 -c 100 -s 1400 "$VM" | grep -E ' (9[0-9]|100) received'; }

# field COMMAND NAME - a number of the answer in JSON
field() { "${LOG[@]}" -j "$1" | jq ".$2"; }

# plausible N - pages of the guest's buffers and rings, some of them
plausible() { [ "$1" -gt 2 ] && [ "$1" -le "$MEMORY" ]; }

# bits FILE - how many are set
bits()
{
	tr -d '\0' <"$1" | od -An -v -tu1 | awk '
		{ for (i = 1; i <= NF; i++) for (b = $i; b; b = int(b / 2)) n += b % 2 }
		END { print n + 0 }'
}

takes_pages()
{
	local dirty
	pings || return 1
	dirty=$("${LOG[@]}" -j swap -w "$MAP" | tee "$GN_TMP/swap.json" | jq .dirty)
	cat "$GN_TMP/swap.json"
	plausible "$dirty" && [ "$(bits "$MAP")" = "$dirty" ]
}

# What was harvested has been forgotten: with no traffic little can follow.
forgets_pages()
{
	"${LOG[@]}" swap >/dev/null
	"${LOG[@]}" swap >/dev/null
	[ "$(field show dirty)" -lt 16 ] && [ "$(field show beyond)" = 0 ]
}

# A file that cannot be written costs no page: the swap after the next has it, or the stop.
keeps_pages()
{
	local dirty last=$1
	pings || return 1
	refused 1 'No such file' "${LOG[@]}" swap -w "$GN_TMP/none/map" || return 1
	dirty=$(field show dirty)
	plausible "$dirty" || return 1
	refused 1 'space\|/dev/full\|argument' "${LOG[@]}" swap -w /dev/full || return 1
	[ "$last" = stop ] || "${LOG[@]}" swap >/dev/null
	[ "$(field "$last" dirty)" -ge "$dirty" ]
}

# logged NAME - whether XDP's map says that the log is on, for jq
logged() { echo ".interfaces[0].instances[] | select(.name == \"$1\").logged"; }
LOGGED="$(logged vm1)"

# mapped FILTER - does XDP's map of instances say that the log is on?
mapped() { gn_ghostnic status -j | jq -e "$1" >"$GN_TMP/mapped.log"; }

# Of a guest that is logged the packets have XDP's flag; none is on its way for ever.
flags_packets()
{
	local flagged unflagged
	flagged=$(field show flagged) unflagged=$(field show unflagged)
	pings || return 1
	[ "$(field show flagged)" -ge $((flagged + 90)) ] &&
		[ "$(field show unflagged)" = "$unflagged" ]
}

# After the log nobody counts.
counts_no_packets()
{
	local flagged
	flagged=$(field show flagged)
	pings && [ "$(field show flagged)" = "$flagged" ]
}

watches()
{
	"${LOG[@]}" swap --watch=0.05 --count 3 >"$GN_TMP/watch.log" || return 1
	cat "$GN_TMP/watch.log"
	[ "$(grep -c 'dirty pages, .*pages/s' "$GN_TMP/watch.log")" = 3 ]
}

gn_world 1500
gn_check "no daemon" refused 3 'no daemon' "${LOG[@]}" show --ctl "$GN_TMP/none"
gn_check "no instance named" refused 2 'needs --instance' gn_ghostnic dma-log show
gn_check "no such command" refused 2 'takes start' "${LOG[@]}" begin
gn_check "option out of place" refused 2 'does not take' "${LOG[@]}" start --watch
gn_must gn_daemon host --iface h0 \
	--instance "vm1,mac=$GN_MAC1,port=vhost-user:$SOCK" \
	--instance "vm2,mac=$GN_MAC2,port=null"
gn_must gn_exec peer ip neigh replace "$VM" lladdr "$GN_MAC1" dev p0
gn_check "no guest" refused 1 'no guest is connected' "${LOG[@]}" start
gn_check "not a guest's port" refused 1 "writes no guest's memory" \
	gn_ghostnic dma-log start --instance vm2
gn_check "no such instance" refused 1 'no instance vm9' \
	gn_ghostnic dma-log show --instance vm9

gn_spawn PMD dpdk-testpmd --no-pci --no-huge -m 256 --no-telemetry \
	--single-file-segments --file-prefix="gndma$$" --lcores "0@($GN_CPUS),1@($GN_CPUS)" \
	--log-level=lib.eal:4 \
	--vdev="net_virtio_user0,path=$SOCK,mac=$GN_MAC1,mrg_rxbuf=1" -- \
	--no-mlockall --total-num-mbufs=16384 --forward-mode=icmpecho \
	--disable-link-check --stats-period 3600
gn_wait 20 answers || gn_die "the guest does not answer: $(tail -n 3 "$GN_TMP/PMD.log")"

gn_check "off" refused 1 'is off; start it first' "${LOG[@]}" swap
gn_check "XDP knows of no log" mapped "$LOGGED == false"
gn_check "start" "${LOG[@]}" start
gn_check "XDP knows" mapped "$LOGGED"
gn_check "only of this instance's" mapped "$(logged vm2) == false"
gn_check "packets are flagged" flags_packets
gn_check "twice" refused 1 'on already' "${LOG[@]}" start
gn_check "show" grep -q 'DMA log on' <("${LOG[@]}" show)
gn_check "swap gives the pages that were written" takes_pages
gn_check "swap forgets them" forgets_pages
gn_check "but not if their file fails" keeps_pages swap
gn_check "stop has them too" keeps_pages stop
gn_check "start again" "${LOG[@]}" start
gn_check "watch" watches
gn_check "stop" grep -q 'dirty pages' <("${LOG[@]}" stop)
gn_check "stopped" grep -q 'DMA log off' <("${LOG[@]}" show)
gn_check "XDP knows that, too" mapped "$LOGGED == false"
gn_check "packets are not counted" counts_no_packets
gn_check "start for an owner" "${LOG[@]}" start --owner migration-7
gn_check "nobody else swaps" refused 1 'belongs to migration-7' "${LOG[@]}" swap
gn_check "nobody else stops" refused 1 'belongs to migration-7' "${LOG[@]}" stop
gn_check "the owner swaps" "${LOG[@]}" swap --owner migration-7
gn_check "unless forced" "${LOG[@]}" stop --force
gn_check "packets still pass" pings
gn_stop "$PMD"
gn_world_end
