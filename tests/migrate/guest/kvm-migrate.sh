#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# /test of tests/migrate/kvm-migrate.sh, in a guest that has KVM.
#
#	peer: bridge br0 = p0 --- h0 host: ghostnicd, the VM
#			 = p1 --- h1 host2: ghostnicd, the VM when it has moved

export GN_BIN=/build
# shellcheck source=tests/netns/lib.sh
. /tests/netns/lib.sh

VM=10.0.0.11
VMM=$GN_BIN/vm-migrate
MB=144
VM_host='' VM_host2='' SEND=''	# set by gn_spawn

stage() { gn_note "$(cut -d' ' -f1 /proc/uptime) s: $1"; }

# daemon NS IF - XDP and a daemon with instance vm1 behind $GN_TMP/NS.vu
daemon()
{
	gn_must gn_exec "$1" "$GN_BIN/ghostnic" attach "$2" >>"$GN_TMP/attach.log" 2>&1
	gn_must gn_daemon "$1" --iface "$2" \
		--instance "vm1,mac=$GN_MAC1,port=vhost-user:$GN_TMP/$1.vu"
}

world()
{
	gn_two_hosts
	daemon host h0
	daemon host2 h1
}

# said TEXT - on the VM's console, wherever it runs
said() { grep -qs "^=$1" "$GN_TMP/console"; }

# net NS LOG - options of the network device, with NS's daemon; LOG: dma or vhost
net()
{
	local net=socket=$GN_TMP/$1.vu,mac=$GN_MAC1
	[ "$2" = vhost ] || net+=,instance=vm1
	echo "--net $net --ctl $GN_TMP/$1.sock"
}

# The bytes are made until the file "stop" is there; their hash goes to "sent".
sender()
{
	mkfifo "$GN_TMP/pace"
	exec {pace}<>"$GN_TMP/pace"
	while [ ! -e "$GN_TMP/stop" ]; do
		head -c 16384 /dev/urandom
		read -rt 0.05 -u "$pace"
	done | tee >(sha256sum | cut -c 1-64 >"$GN_TMP/sent") |
		gn_exec peer socat -u - "TCP4:$VM:9000"
}

delivered() { [ "$(gn_port_count vm1 rx_bytes)" -gt "$1" ]; }
state() { "$VMM" status -c "$GN_TMP/$1.ctl" -j | grep -q "\"state\":\"$2\""; }

# receiver NAME DIRTY LOG
receiver()
{
	# shellcheck disable=SC2046 # options
	gn_spawn "VM_$1" "$VMM" recv --json --listen "unix:$GN_TMP/$1.migrate" \
		-c "$GN_TMP/$1.ctl" --dirty "$2" --console "file:$GN_TMP/console" \
		$(net "$1" "$3")
	gn_wait 20 state "$1" incoming
}

# paused - and resumed
paused()
{
	"$VMM" pause -c "$GN_TMP/host.ctl" && state host paused && "$VMM" resume -c "$GN_TMP/host.ctl" &&
		state host running
}

amid() { "$VMM" status -c "$GN_TMP/host.ctl" -j | grep -q '"phase":"rounds"'; }

# cancelled - amid the rounds
cancelled()
{
	receiver host2 ring vhost || return 1
	gn_spawn SEND "$VMM" send -c "$GN_TMP/host.ctl" -t "unix:$GN_TMP/host2.migrate" --bandwidth 1M --json
	gn_wait 20 amid && "$VMM" cancel -c "$GN_TMP/host.ctl" && gn_wait 20 gn_gone "$SEND" || return 1
	wait "$SEND"
	[ $? = 4 ] && state host running || return 1
	gn_stop "$VM_host2" KILL
}

# refused - a destination that takes all, with CPUs and rings stopped, and says no then
refused()
{
	gn_spawn PLAY "$GN_BIN/tests/migrate/test_ends" play "unix:$GN_TMP/play" 2 # PLAY_WRONG_DIGEST
	gn_wait 10 test -S "$GN_TMP/play" || return 1
	"$VMM" send -c "$GN_TMP/host.ctl" -t "unix:$GN_TMP/play" --streams 1 --downtime-ms 500 \
		--on-stall raise --max-downtime-ms 10000 --json >"$GN_TMP/send.json"
	[ $? = 1 ] && tail -n 1 "$GN_TMP/send.json" | tee /dev/stderr |
		jq -e '(.error | test("digest")) and .downtime_steps_us.save > 0' && state host running
}

# migrate FROM TO DIRTY LOG - with the names of control sockets; the VM is then TO's
migrate()
{
	receiver "$2" "$3" "$4" || return 1
	timeout 120 "$VMM" send -c "$GN_TMP/$1.ctl" -t "unix:$GN_TMP/$2.migrate" \
		--downtime-ms 500 --on-stall raise --max-downtime-ms 10000 --json \
		>"$GN_TMP/send.json" || { tail -n 2 "$GN_TMP/send.json"; return 1; }
	gn_wait 20 state "$2" running || return 1
	tail -n 1 "$GN_TMP/send.json" >"$GN_TMP/result"
}

# figures NAME - what it took
figures()
{
	gn_note "$1: $(jq -r '"\(.round) rounds, \(.elapsed_ms) ms, downtime \(.downtime_us / 1000 | floor) ms, \(.sent_pages) pages, dirty by CPU \(.dirty_pages_cpu), by device \(.dirty_pages_device), digest \(.digest)"' "$GN_TMP/result")"
}

# same_ram - the RAM at the source, read again, was what had been sent and verified
same_ram() { cat "$GN_TMP/result"; jq -e '.result == "done" and .audit_bad_pages == 0' "$GN_TMP/result"; }
by_device() { jq -e '.dirty_pages_device > 0 and .dirty_pages_cpu > 0' "$GN_TMP/result"; }

# Where bash looks for the other end of a process substitution.
ln -sf /proc/self/fd /dev/fd
content()
{
	tail -n 30 "$GN_TMP/console"
	said end && ! said complaints
}

# still WHAT SECONDS CMD... - one case: CMD succeeds in that time, for the guest goes on
still()
{
	local what=$1 seconds=$2
	shift 2
	if gn_wait "$seconds" "$@"; then
		gn_ok "$what"
	else
		lost "$what: not within $((GN_PATIENCE * seconds)) s"
	fi
}

# lost WHY - the guest crashed or stands still: the run ends, see vm_nested of tests/vm/lib.sh
lost()
{
	gn_fail stuck "$1"
	tail -n 5 "$GN_TMP/console"
	exit 1
}

crashed() { grep -q 'the guest crashed (triple fault)' "$GN_TMP"/VM_*.log; }

# moved NAME ARGS... - cases of one migration; the first that fails ends the run
moved()
{
	local name=$1
	shift
	if ! gn_check "migrate with the $name" migrate "$@"; then
		! crashed || lost "the guest crashed"
		exit 1
	fi
	figures "$name"
	gn_check "$name: the RAM is the same" same_ram || exit 1
	gn_check "$name: writes of CPUs and device were found" by_device || exit 1
}

world
stage "boot"
# shellcheck disable=SC2046 # options
gn_spawn VM_host "$VMM" run --json --accel kvm -m ${MB}M -n 2 -k /guest/vmlinuz \
	-i /guest/initrd --append "console=ttyS0 panic=-1 quiet mitigations=off" \
	-c "$GN_TMP/host.ctl" --console "file:$GN_TMP/console" $(net host dma)
still "boot" 30 said ready
gn_check "two CPUs are up" said "cpus 2"
stage "stream"
export GHOSTNIC_CTL=$GN_TMP/host.sock
gn_spawn SENDER sender
still "a stream arrives" 10 delivered 500000

# stays NAME CMD... - two cases: CMD succeeds, and the stream goes on here
stays()
{
	local name=$1
	shift
	if ! gn_check "$name" "$@"; then
		! crashed || lost "the guest crashed"
		exit 1
	fi
	still "$name: the stream goes on" 10 delivered $(($(gn_port_count vm1 rx_bytes) + 200000))
}
stage "stays"
stays "paused and resumed" paused
stays "a migration is cancelled" cancelled
stays "a migration fails when CPUs and rings have stopped" refused

stage "there"
moved "bitmap" host host2 ring vhost
export GHOSTNIC_CTL=$GN_TMP/host2.sock
still "the stream goes on" 10 delivered 300000
gn_check "the source has ended" gn_wait 10 gn_gone "$VM_host"

stage "back"
# A second log of the same rings, one after the other: the migration's finds where they go on.
gn_check "ring: a dirty rate first" "$VMM" dirty-rate -c "$GN_TMP/host2.ctl" --seconds 0.4 --interval 0.2
moved "ring" host2 host bitmap dma
export GHOSTNIC_CTL=$GN_TMP/host.sock
B=$(gn_port_count vm1 rx_bytes)
still "the stream goes on again" 10 delivered $((B + 200000))

stage "end"
touch "$GN_TMP/stop"
still "the stream ends" 20 said sum
gn_check "its SHA-256 is right" grep -q "^=sum $(cat "$GN_TMP/sent")" "$GN_TMP/console"
still "the guest powers off, the VM ends" 10 gn_gone "$VM_host"
gn_check "the guest has nothing to complain of" content
stage "done"
