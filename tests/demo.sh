#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Show the receive path working: two hosts joined by a veth pair, and a VM's namespace
# behind a TAP of the second one. A file and iperf3 go both ways through XDP and
# ghostnicd; then a QEMU guest takes its place behind the same daemon (demo-vm.sh), and one
# moves from host to host while it receives (demo-migrate.sh); three nodes share one address
# (demo-share.sh).
# Everything happens in namespaces that end with this script (netns/lib.sh). The numbers
# also go to $GN_BIN/demo/result.json.

# shellcheck source=tests/vhost/migrate-lib.sh
. "$(dirname "$0")/vhost/migrate-lib.sh"
# shellcheck source=tests/demo-vm.sh
. "$(dirname "$0")/demo-vm.sh"
# shellcheck source=tests/demo-migrate.sh
. "$(dirname "$0")/demo-migrate.sh"
# shellcheck source=tests/demo-share.sh
. "$(dirname "$0")/demo-share.sh"

MIB=64
SECONDS_EACH=3
OUT=$GN_BIN/demo
mkdir -p "$OUT"
rm -f "$OUT/result.json"

bold=
plain=
if [ -t 1 ]; then
	bold=$(printf '\033[1m')
	plain=$(printf '\033[0m')
fi
say() { printf '%s%s%s\n' "$bold" "$*" "$plain"; }

give_up()
{
	echo "demo: $*" >&2
	exit 1
}

# gbps FROM TO ADDRESS ARGS... - iperf3, Gbit/s received
gbps()
{
	gn_iperf "$@" -t $SECONDS_EACH >/dev/null || give_up "iperf3 failed: $*"
	jq '.end.sum_received.bits_per_second / 1e9 * 100 | round / 100' "$GN_TMP/iperf.json"
}

# copy LABEL FROM TO ADDRESS
copy()
{
	gn_copy "$2" "$3" "$4" >"$GN_TMP/copy.out" ||
		give_up "$1: $(cat "$GN_TMP/copy.out") (SHA-256 differs, or it did not arrive)"
	printf '   %-22s %d MiB, SHA-256 equal: %.16s...\n' "$1" $MIB "$GN_SUM"
}

# drops - what the daemon has lost or refused so far
drops()
{
	local counter n=0
	for counter in rx_dropped tx_dropped tx_bad; do
		n=$((n + $(gn_port_count vm1 $counter)))
	done
	for counter in rx_bad_meta rx_bad_bounds rx_no_instance rx_truncated bad_csum \
		drop_meta; do
		n=$((n + $(gn_count $counter)))
	done
	echo $n
}

cat <<END

  host "peer"              host "host"                             "the VM"
 +-----------+  veth  +---------------------------------------+  +-----------+
 |        p0 |========| h0: XDP writes identifiers            |  |           |
 | 10.0.0.1  |        |  |                                    |  | 10.0.0.11 |
 |           |        |  +-> AF_XDP -> ghostnicd aggregates --|->| vm1 (TAP) |
 |           |        |  +-> not ours: the host, 10.0.0.2     |  |           |
 +-----------+        +---------------------------------------+  +-----------+

END

say "1. two hosts, XDP on h0, ghostnicd with one instance on a TAP"
gn_world 1500
gn_exec peer ethtool -K p0 tx off >/dev/null	# full checksums, as from a wire
# What all senders together may have in flight fits the socket's ring (2048 frames), so
# nothing is lost even when this machine gives the daemon no CPU for a while.
for ns in peer host vm1; do
	gn_exec $ns sh -c 'echo 4096 131072 524288 >/proc/sys/net/ipv4/tcp_rmem'
done
gn_daemon host --iface h0 --instance "vm1,mac=$GN_MAC1,port=tap:vm1" ||
	give_up "ghostnicd did not start"
gn_vm 1 1500
gn_exec host "$GN_BIN/ghostnic" status h0 | sed 's/^/   /'
gn_wait 10 gn_ping peer 10.0.0.11 || give_up "the VM does not answer"
before=$(drops)	# a multicast that came while the TAP was not up yet is no loss

say "2. a file by TCP, both ways"
gn_file $MIB
copy "peer -> VM, IPv4" peer vm1 10.0.0.11
copy "VM -> peer, IPv4" vm1 peer 10.0.0.1
if [ "$GN_IPV6" ]; then
	copy "peer -> VM, IPv6" peer vm1 fd00::11
	copy "VM -> peer, IPv6" vm1 peer fd00::1
fi

say "3. iperf3, both ways, four streams"
in_gbps=$(gbps peer vm1 10.0.0.11 -P 4) || exit 1
out_gbps=$(gbps peer vm1 10.0.0.11 -P 4 -R) || exit 1
host_gbps=$(gbps peer host 10.0.0.2 -P 4) || exit 1
printf '   %-22s %6.2f Gbit/s\n' "peer -> VM" "$in_gbps" "VM -> peer" "$out_gbps" \
	"peer -> host itself" "$host_gbps"

say "4. what the daemon counted"
packets=$(gn_port_count vm1 rx_packets)
frames=$(gn_port_count vm1 rx_frames)
drops=$(($(drops) - before))
# The kernel's: frames it could not put into the socket.
lost=$(gn_ghostnic stats -j | jq '[.. | objects | .kernel? // empty |
	.rx_dropped + .rx_ring_full + .rx_invalid + .tx_invalid] | add // 0')
[ "$frames" -gt 0 ] || give_up "no frame was delivered"
ratio=$(jq -n "$packets / $frames * 100 | round / 100")
printf '   %-22s %12s\n' "packets in" "$packets" "super-packets out" "$frames" \
	"packets in one" "$ratio" "drops" $((drops + lost))
gn_ghostnic stats -j >"$OUT/stats.json"

demo_vm

say "6. the end of these: daemon stopped, XDP detached"
gn_stop "$GN_DAEMON"
gn_exec host "$GN_BIN/ghostnic" detach h0 | sed 's/^/   /'
gn_ns_del peer host vm1

demo_migrate
demo_share

jq -n --arg sha "${GN_SUM%% *}" '{
	file_mib: $mib, sha256: $sha, sha256_equal: true,
	iperf3_gbps: { in: $in, out: $out, host: $host },
	packets_in: $packets, super_packets_out: $frames, packets_per_super: $ratio,
	drops: { daemon: $drops, kernel: $lost } }' \
	--argjson mib $MIB --argjson in "$in_gbps" --argjson out "$out_gbps" \
	--argjson host "$host_gbps" --argjson packets "$packets" --argjson frames "$frames" \
	--argjson ratio "$ratio" --argjson drops "$drops" --argjson lost "$lost" \
	>"$GN_TMP/part.json"
jq -s add "$GN_TMP"/part*.json >"$OUT/result.json"
echo
echo "the numbers: ${OUT#"$PWD"/}/result.json"
[ $((drops + lost)) = 0 ] || give_up "packets were dropped"
