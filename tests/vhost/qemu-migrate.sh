#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Live migration of a QEMU guest between two daemons while it receives a TCP stream
# and hashes it: cancelled half-way, then done. Every page that the daemon wrote has to be
# in QEMU's dirty log: at switchover the guest's memory is compared on both sides, page
# by page, before the guest goes on.
#
#	peer: bridge br0 = p0 --- h0 host: ghostnicd, guest vm1
#			 = p1 --- h1 host2: ghostnicd, the same guest as vm2

# shellcheck source=tests/vhost/qemu-lib.sh
. "$(dirname "$0")/qemu-lib.sh"

VM=10.0.0.11
MB=192
DAEMON_BIN=$GN_BIN	# directory of ghostnicd
export QEMU_MB=$MB

# daemon NS IF SOCKET - XDP and a daemon with the instance
daemon()
{
	gn_must gn_exec "$1" "$GN_BIN/ghostnic" attach "$2" >>"$GN_TMP/attach.log" 2>&1
	local GN_BIN=$DAEMON_BIN
	gn_must gn_daemon "$1" --iface "$2" --instance "vm1,mac=$GN_MAC1,port=vhost-user:$3"
}

world()
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
	daemon host h0 "$GN_TMP/vm1.vu"
	SOURCE=$GN_DAEMON
	daemon host2 h1 "$GN_TMP/vm2.vu"
}

# The sender makes up bytes until it is told to stop, and says what they hash to.
sender()
{
	exec python3 - "$VM" "$GN_TMP/stop" "$GN_TMP/sent" <<-'PY'
	import hashlib, os, socket, sys, time
	addr, stop, result = sys.argv[1:]
	s = socket.create_connection((addr, 9000), 60)
	s.settimeout(None)
	h = hashlib.sha256()
	n = 0
	while not os.path.exists(stop):
	    block = os.urandom(32768)
	    s.sendall(block)
	    h.update(block)
	    n += len(block)
	    time.sleep(0.005)
	s.shutdown(socket.SHUT_WR)
	s.recv(1)
	with open(result + '.new', 'w') as f:
	    f.write('%s %d\n' % (h.hexdigest(), n))
	os.rename(result + '.new', result)
	PY
}

# migrated NAME STATUS - has the migration come so far?
migrated() { [ "$(qmp "$1" query-migrate | jq -r .status)" = "$2" ]; }
transferred() { [ "$(qmp vm1 query-migrate | jq -r '.ram.transferred // 0')" -gt "$1" ]; }
delivered() { [ "$(gn_port_count vm1 rx_bytes)" -gt "$1" ]; }
runs() { [ "$(qmp "$1" query-status | jq -r .status)" = "$2" ]; }

# destination - a QEMU that waits for the guest, and stays paused when it has come
destination()
{
	rm -f "$GN_TMP/migrate"
	qemu_boot vm2 "$GN_TMP/vm2.vu" -S -incoming "unix:$GN_TMP/migrate"
	gn_wait 20 runs vm2 inmigrate || gn_die "no destination"
}

# same_memory - of the paused guest on both sides; says how many pages differ
same_memory()
{
	local n
	for n in vm1 vm2; do
		qmp $n pmemsave "{\"val\":0,\"size\":$((MB << 20)),\"filename\":\"$GN_TMP/$n/mem\"}" >/dev/null || return
		[ "$(stat -c %s "$GN_TMP/$n/mem")" = $((MB << 20)) ] || return
	done
	n=$(cmp -l "$GN_TMP/vm1/mem" "$GN_TMP/vm2/mem" | awk '{ p[int(($1 - 1) / 4096)] } END { print length(p) }')
	rm -f "$GN_TMP"/vm[12]/mem
	echo "$n pages differ"
	[ "$n" = 0 ]
}

# finished - the stream's end has come to the guest
received() { test -s "$GN_TMP/sent" && guest vm2 "test -s /tmp/sum"; }

# begin - the guest at the source, a stream to it
begin()
{
	world
	export GHOSTNIC_CTL=$GN_TMP/host.sock
	qemu_boot vm1 "$GN_TMP/vm1.vu"
	guest_up vm1 11
	rm -f "$GN_TMP/stop" "$GN_TMP/sent"
	guest vm1 "rm -f /tmp/sum; socat -u TCP4-LISTEN:9000,reuseaddr SYSTEM:'sha256sum >/tmp/s; mv /tmp/s /tmp/sum' >/tmp/socat 2>&1 &"
	gn_wait 20 guest vm1 "netstat -ltn | grep -q :9000" || gn_die "the guest does not listen"
	gn_spawn SENDER gn_exec peer "$BASH" -c "$(declare -f sender); VM=$VM GN_TMP=$GN_TMP; sender"
	gn_wait 20 delivered 1000000 || gn_die "no stream"
}

# switch_over - migrate; both sides are paused when it returns
switch_over()
{
	destination
	qmp vm1 migrate-set-parameters '{"max-bandwidth":40000000,"downtime-limit":1000}' >/dev/null
	qmp vm1 migrate "{\"uri\":\"unix:$GN_TMP/migrate\"}" >/dev/null
	gn_wait 60 migrated vm1 completed || return
	gn_wait 20 runs vm2 paused || gn_wait 5 runs vm2 prelaunch
}

# world_end - daemons, namespaces
world_end()
{
	gn_stop "$SOURCE"
	gn_stop "$GN_DAEMON"
	gn_must gn_exec host "$GN_BIN/ghostnic" detach h0 >/dev/null
	gn_must gn_exec host2 "$GN_BIN/ghostnic" detach h1 >/dev/null
	gn_ns_del peer host host2
}

# Else the guest itself writes a page before it gives it to the ring, and what the
# daemon does not log is in part transferred for that reason.
QEMU_APPEND+=" init_on_alloc=0"

qemu_initrd
begin

# ---- half-way, and back ------------------------------------------------------------------
destination
qmp vm1 migrate-set-parameters '{"max-bandwidth":3000000,"downtime-limit":500}' >/dev/null
qmp vm1 migrate "{\"uri\":\"unix:$GN_TMP/migrate\"}" >/dev/null
if gn_wait 30 transferred 6000000; then
	qmp vm1 migrate_cancel >/dev/null
	gn_check "cancelled half-way" gn_wait 20 migrated vm1 cancelled
else
	gn_fail "cancelled half-way" "nothing was transferred"
fi
qemu_end vm2
bytes=$(gn_port_count vm1 rx_bytes)
gn_check "the stream goes on" gn_wait 20 delivered $((bytes + 1000000))

# ---- all the way -------------------------------------------------------------------------
gn_check "migrated" switch_over
gn_note "$(qmp vm1 query-migrate | jq -c '{downtime, total: ."total-time", passes: .ram."dirty-sync-count"}')"
gn_check "memory is the same at switchover" same_memory
qmp vm2 cont >/dev/null
gn_check "it runs" gn_wait 20 runs vm2 running
qemu_end vm1
export GHOSTNIC_CTL=$GN_TMP/host2.sock
bytes=$(gn_port_count vm1 rx_bytes)
gn_check "the stream goes on there" gn_wait 30 delivered $((bytes + 1000000))
touch "$GN_TMP/stop"
if gn_wait 40 received; then
	sent=$(cat "$GN_TMP/sent")
	got=$(guest vm2 "cat /tmp/sum")
	gn_note "${sent#* } bytes"
	gn_check "the stream is whole" test "${sent% *}" = "${got%% *}"
else
	gn_fail "the stream is whole" "it did not come to its end"
fi
for ctl in host host2; do
	export GHOSTNIC_CTL=$GN_TMP/$ctl.sock
	gn_check "no fault on $ctl" test "$(gn_port_count vm1 faults)" = 0
done

qemu_end vm2
world_end

# ---- without a log --------------------------------------------------------------------------
DAEMON_BIN=$GN_TMP/unlogged
gn_must mkdir "$DAEMON_BIN"
gn_must ln -s "$GN_BIN/tests/vhost/ghostnicd-unlogged" "$DAEMON_BIN/ghostnicd"
gn_must ln -s "$GN_BIN/ghostnic" "$DAEMON_BIN/ghostnic"
begin
gn_check "migrated without a log" switch_over
gn_check "pages are lost then" gn_not same_memory
gn_note "$(cat "$GN_TMP/check.out")"
qemu_end vm1 vm2
gn_stop "$SENDER" KILL
world_end
