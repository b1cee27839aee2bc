# shellcheck shell=bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Two hosts with a daemon each and a guest that receives a TCP stream and hashes it, for the
# scripts that migrate it:
#
#	. "$(dirname "$0")/migrate-lib.sh"
#	begin
#	destination
#	...
#	world_end
#
#	peer: bridge br0 = p0 --- h0 host: ghostnicd, guest vm1
#			 = p1 --- h1 host2: ghostnicd, the same guest as vm2

# shellcheck source=tests/vhost/qemu-lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/qemu-lib.sh"

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
	gn_two_hosts
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

# delivered BYTES - has the guest got more than that?
delivered() { [ "$(gn_port_count vm1 rx_bytes)" -gt "$1" ]; }
# runs NAME STATE - of the guest, as QEMU names it
runs() { [[ $(qmp "$1" query-status) == *'"status": "'"$2"'"'* ]]; }

# destination_at NAME - a QEMU that waits for the guest, and stays paused when it has come
destination_at()
{
	rm -f "$GN_TMP/migrate"
	qemu_boot "$1" "$GN_TMP/$1.vu" -S -incoming "unix:$GN_TMP/migrate"
	gn_wait 20 runs "$1" inmigrate || gn_die "no destination"
}
destination() { destination_at vm2; }

# received_by NAME - the stream's end has come to the guest, which is there
received_by() { test -s "$GN_TMP/sent" && guest "$1" "test -s /tmp/sum"; }
received() { received_by vm2; }

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
