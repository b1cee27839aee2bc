#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Live migration of a QEMU guest between two daemons while it receives a TCP stream
# and hashes it: cancelled half-way, then done. Every page that the daemon wrote has to be
# in QEMU's dirty log: at switchover the guest's memory is compared on both sides, page
# by page, before the guest goes on.

# shellcheck source=tests/vhost/migrate-lib.sh
. "$(dirname "$0")/migrate-lib.sh"

# migrated NAME STATUS - has the migration come so far?
migrated() { [ "$(qmp "$1" query-migrate | jq -r .status)" = "$2" ]; }
transferred() { [ "$(qmp vm1 query-migrate | jq -r '.ram.transferred // 0')" -gt "$1" ]; }

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

# switch_over - migrate; both sides are paused when it returns
switch_over()
{
	destination
	qmp vm1 migrate-set-parameters '{"max-bandwidth":40000000,"downtime-limit":1000}' >/dev/null
	qmp vm1 migrate "{\"uri\":\"unix:$GN_TMP/migrate\"}" >/dev/null
	gn_wait 60 migrated vm1 completed || return
	gn_wait 20 runs vm2 paused || gn_wait 5 runs vm2 prelaunch
}

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
lost() { same_memory | grep '^[1-9][0-9]* pages differ'; }
gn_check "pages are lost then" lost
gn_note "$(cat "$GN_TMP/check.out")"
qemu_end vm1 vm2
gn_stop "$SENDER" KILL
world_end
