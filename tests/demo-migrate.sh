# shellcheck shell=bash
# SPDX-License-Identifier: BSD-2-Clause
#
# A part of demo.sh, which sources it: a QEMU guest moves from one host to another while it
# receives a TCP stream and hashes it. Uses demo.sh's say(), give_up(), gn_* and, of
# vhost/migrate-lib.sh, the two hosts, the guest and the stream.

# demo_migrate - its numbers go to $GN_TMP/part.migrate.json
demo_migrate()
{
	local out=$GN_TMP/migrate.json bytes sent got

	say "7. live migration: two hosts, a daemon each; a QEMU guest receives a stream"
	begin
	destination
	"$GN_BIN/vm-migrate/vm-migrate" qemu --json --instance vm1 --bandwidth 40M \
		--downtime-ms 1000 --qmp "$GN_TMP/vm1/qmp" --dest-qmp "$GN_TMP/vm2/qmp" \
		--to "unix:$GN_TMP/migrate" >"$GN_TMP/lines" ||
		give_up "not migrated: $(tail -n 1 "$GN_TMP/lines")"
	tail -n 1 "$GN_TMP/lines" >"$out"
	jq -e '.compared and .pages_differ == 0' "$out" >/dev/null ||
		give_up "memory differs: $(cat "$out")"

	export GHOSTNIC_CTL=$GN_TMP/host2.sock
	bytes=$(gn_port_count vm1 rx_bytes)
	gn_wait 30 delivered $((bytes + 1000000)) || give_up "the stream does not go on"
	touch "$GN_TMP/stop"
	gn_wait 40 received || give_up "the stream did not come to its end"
	sent=$(cat "$GN_TMP/sent")
	got=$(guest vm2 "cat /tmp/sum")
	[ "${sent% *}" = "${got%% *}" ] || give_up "the stream: sent $sent, got $got"
	jq -r '"   pages compared         \(.pages_compared), \(.pages_differ) differ",
		"   written by the device  \(.device_pages) pages, meanwhile"' "$out"
	printf '   %-22s %d MiB, SHA-256 equal: %.16s...\n' "the stream" \
		$((${sent#* } >> 20)) "$sent"
	jq --argjson bytes "${sent#* }" '{ migration: { pages_compared, pages_differ,
		device_pages, stream_bytes: $bytes, sha256_equal: true } }' "$out" \
		>"$GN_TMP/part.migrate.json"
	qemu_end vm1 vm2
	world_end
}
