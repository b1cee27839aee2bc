#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# `vm-migrate qemu`: the guest of one QEMU goes to another while its device writes into
# it. What is missing is said and nothing touched; a cancelled one goes on; all RAM is
# compared; and when the device's writes are not logged, the difference is found and the
# guest goes on at the source.

# shellcheck source=tests/vhost/migrate-lib.sh
. "$(dirname "$0")/../vhost/migrate-lib.sh"
# shellcheck source=tests/migrate/writer-lib.sh
. "$(dirname "$0")/writer-lib.sh"

TOOL=$GN_BIN/vm-migrate/vm-migrate
OUT=$GN_TMP/migrate.json

# between SRC DST ARGS... - the last line of its output is in $OUT. Returns its status
between()
{
	local rc src=$1 dst=$2
	shift 2
	"$TOOL" qemu --json --qmp "$GN_TMP/$src/qmp" --dest-qmp "$GN_TMP/$dst/qmp" \
		--to "unix:$GN_TMP/migrate" "$@" >"$GN_TMP/lines"
	rc=$?
	tail -n 1 "$GN_TMP/lines" >"$OUT"
	return $rc
}

migrate() { between vm1 vm2 "$@"; }

# gives STATUS CMD... - does it end with that status?
gives()
{
	local want=$1 rc
	shift
	"$@"
	rc=$?
	[ $rc = "$want" ] || { echo "status $rc"; cat "$GN_TMP/lines"; return 1; }
}

result() { jq -e "$1" "$OUT" >/dev/null || { cat "$OUT"; return 1; }; }
# said PATTERN - is it one of the problems?
said() { jq -r 'select(.event == "problem") | .text' "$GN_TMP/lines" | grep -q -e "$1" || { cat "$GN_TMP/lines"; return 1; }; }
gone() { gn_gone "${QEMU_PID[$1]}"; }

qemu_initrd
begin

# ---- what is missing -----------------------------------------------------------------------
gn_check "nobody listens" gives 3 "$TOOL" qemu --qmp /nowhere --dest-qmp /nowhere --to tcp:a:1
gn_check "usage" gives 2 "$TOOL" qemu --qmp /nowhere
plain vm2 -machine q35 -accel tcg -cpu max -smp 2 -m 64
gn_check "a guest that cannot go there" gives 7 migrate --check
for what in "machine types differ" "CPUs differ: 1 in the source, 2" "CPU models differ" \
	"-incoming defer" "PCI device" "not a shared memfd"; do
	gn_check "it says: $what" said "$what"
done
gn_check "the guest runs on" runs vm1 running
gn_stop "${QEMU_PID[vm2]}" KILL

# ---- memory in pieces: two backends, one of them on both sides of the hole below 4 GiB -------
# shellcheck disable=SC2054 # QEMU's commas
NUMA=(-machine q35,max-ram-below-4g=256M -accel tcg -cpu max -m 512 -vga std
	-object memory-backend-memfd,id=one,size=384M,share=on -numa node,memdev=one
	-object memory-backend-memfd,id=two,size=128M,share=on -numa node,memdev=two)
plain a "${NUMA[@]}"
plain b "${NUMA[@]}" -S -incoming defer
gn_check "both are ready" gives 0 between a b --check
gn_check "migrated with multifd and zstd" gives 0 between a b --streams 3 --zstd 1 --quit-source
gn_check "all of both backends" result '.compared and .pages_differ == 0 and .pages_compared > 100'
gn_check "it runs there" runs b running
gn_check "the source has ended" gn_wait 10 gone a
gn_stop "${QEMU_PID[b]}" KILL

# ---- interrupted between transfer and decision: the next run decides -------------------------
migrated() { [ "$(qmp "$1" query-migrate | jq -r .status)" = "$2" ]; }
plain a "${NUMA[@]}"
plain b "${NUMA[@]}" -S -incoming "unix:$GN_TMP/left"
qmp a migrate "{\"uri\":\"unix:$GN_TMP/left\"}" >/dev/null
gn_check "transferred, both are paused" gn_wait 20 migrated a completed
gn_check "nothing is decided without a comparison" gives 7 between a b --verify none
both_stay() { runs a postmigrate && runs b paused; }
# The handler is there when the first phase is said; the destination answers after the signal.
interrupt_early()
{
	local pid
	: >"$GN_TMP/lines"
	kill -STOP "${QEMU_PID[b]}"
	"$TOOL" qemu --json --qmp "$GN_TMP/a/qmp" --dest-qmp "$GN_TMP/b/qmp" --to "unix:$GN_TMP/left" >"$GN_TMP/lines" &
	pid=$!
	gn_wait 20 grep -q '"check"' "$GN_TMP/lines"
	kill -INT $pid
	kill -CONT "${QEMU_PID[b]}"
	wait $pid
}
gn_check "the next run is interrupted" gives 4 interrupt_early
gn_check "both stay paused" both_stay
gn_check "the next run compares and decides" gives 0 between a b
gn_check "it runs there" runs b running
gn_stop "${QEMU_PID[a]}" KILL
gn_stop "${QEMU_PID[b]}" KILL

# slowly SRC DST - begin a migration that takes its time; sped_up SRC - until here. Its status
slowly()
{
	rm -f "$GN_TMP/SLOW.log"
	gn_spawn SLOW "$TOOL" qemu --json --qmp "$GN_TMP/$1/qmp" --dest-qmp "$GN_TMP/$2/qmp" \
		--to "unix:$GN_TMP/migrate" --bandwidth 64K
}
slow_sent() { [ "$(jq -r 'select(.event == "progress").bytes' "$GN_TMP/SLOW.log" | tail -n 1)" -gt 20000 ]; }
sped_up()
{
	local rc
	ask "$1" migrate-set-parameters '{"max-bandwidth":1000000000}'
	gn_wait 20 gn_gone "$SLOW"
	wait "$SLOW"
	rc=$?
	cp "$GN_TMP/SLOW.log" "$GN_TMP/lines"
	tail -n 1 "$GN_TMP/lines" >"$OUT"
	return $rc
}

# ---- the destination dies ------------------------------------------------------------------------
plain a "${NUMA[@]}"
plain b "${NUMA[@]}" -S -incoming defer
slowly a b
gn_check "a slow migration" gn_wait 20 slow_sent
gn_stop "${QEMU_PID[b]}" KILL
gn_wait 20 gn_gone "$SLOW"
wait "$SLOW"
gn_check "it fails" test $? = 1
gn_check "the source runs on" runs a running
gn_check "no capability is left on" test "$(qmp a query-migrate-capabilities | jq '[.[] | select(.state)] | length')" = 0
gn_stop "${QEMU_PID[a]}" KILL

# ---- no daemon; and somebody else listens where the destination should ----------------------------
plain a "${NUMA[@]}"
plain b "${NUMA[@]}" -S -incoming defer
gn_check "a daemon that is not there" gives 1 between a b --instance vm1 --ctl /nowhere
gn_check "it is named, and where" result '.error | test("no ghostnicd answers at /nowhere")'
gn_spawn THIRD socat -u "UNIX-LISTEN:$GN_TMP/other" "CREATE:$GN_TMP/received"
gn_must gn_wait 10 test -S "$GN_TMP/other"
gn_must mount --bind "$GN_TMP/other" "$GN_TMP/other"	# else QEMU takes its place
gn_check "the destination cannot listen" gives 1 between a b --to "unix:$GN_TMP/other" --timeout 5
gn_check "it says so" result '.error | test("migrate-incoming: .*other")'
gn_check "who listens gets nothing" gn_not test -s "$GN_TMP/received"
gn_check "the source runs on" runs a running
gn_check "migrated to another address" gives 0 between a b
gn_must umount "$GN_TMP/other"
gn_stop "$THIRD"
gn_stop "${QEMU_PID[a]}" KILL
gn_stop "${QEMU_PID[b]}" KILL

# ---- a guest that its user has paused ------------------------------------------------------------
# first_page A [B] - has the BIOS written to it? Is B's the same?
first_page() { gn_not cmp -s -n 4096 "${RAM[$1]%%,*}" /dev/zero && { [ $# = 1 ] || cmp -s -n 4096 "${RAM[$1]%%,*}" "${RAM[$2]%%,*}"; }; }
plain a "${NUMA[@]}"
plain b "${NUMA[@]}" -S -incoming defer
gn_must ram_open a
gn_must ram_open b
gn_must gn_wait 20 first_page a
qmp a stop >/dev/null
slowly a b
gn_check "its first page has come" gn_wait 20 first_page a b
printf 'not what was sent' | dd of="${RAM[b]%%,*}" conv=notrunc status=none
gn_check "a difference is found" gives 6 sped_up a
gn_check "the guest is left stopped, and how to go on is said" result \
	'.pages_differ == 1 and (.rolled_back | not) and (.error | test("stays stopped.*QMP: cont"))'
gn_check "as QEMU leaves it" runs a postmigrate
plain b "${NUMA[@]}" -S -incoming defer
gn_check "another attempt" gives 7 between a b
gn_check "it says what QEMU wants first" said "only after QMP cont"
qmp a cont >/dev/null
qmp a stop >/dev/null
gn_check "migrated" gives 0 between a b
gn_check "it stays paused there" runs b paused
qmp b cont >/dev/null
gn_check "and runs when it is told to" runs b running
gn_stop "${QEMU_PID[a]}" KILL
plain a "${NUMA[@]}" -S -incoming defer
slowly b a
gn_check "a slow migration of a guest that runs" gn_wait 20 slow_sent
ask b stop >/dev/null
gn_check "its user pauses it meanwhile" gives 0 sped_up b
gn_check "it stays paused there, too" runs a paused
gn_stop "${QEMU_PID[a]}" KILL
gn_stop "${QEMU_PID[b]}" KILL

# ---- what can be set ---------------------------------------------------------------------------
writer_image "$GN_TMP/boot"
gn_must mkdir "$GN_TMP/tls" "$GN_TMP/pa" "$GN_TMP/pb"
gn_must "$GN_BIN/tests/migrate/test_ends" creds "$GN_TMP/tls"

# writer NAME client|server ARGS... - a QEMU whose guest is that
writer()
{
	local name=$1 side=$2
	shift 2
	plain "$name" -machine q35,memory-backend=m -accel tcg -m 32 \
		-object memory-backend-memfd,id=m,size=32M,share=on \
		-object "tls-creds-x509,id=creds,dir=$GN_TMP/tls/good,endpoint=$side" \
		-drive "file=$GN_TMP/boot,format=raw,file.locking=off" "$@"
}
# undone ERROR ARGS... - a's migration to a new b fails so; a runs, with the settings of before
undone()
{
	local error=$1 before rc=0
	shift
	writer b server -S -incoming defer
	before=$(qmp a query-migrate-parameters)
	gives 1 between a b "$@" && result ".error | test(\"$error\")" && runs a running &&
		gn_wait 10 gone b && test "$before" = "$(qmp a query-migrate-parameters)" || rc=1
	gn_stop "${QEMU_PID[b]}" KILL
	return $rc
}
writer a client
gn_must ram_open a >/dev/null
gn_must gn_wait 20 beyond a 0
# QEMU sends in portions, ten a second: 13 of the guest's 112 pages. So a round takes nine of them, and its
# dirty rate is near enough to the bandwidth; of larger ones the last may be almost empty.
NEVER='it would never end'
gn_check "a guest that writes faster than is sent: --on-stall abort" undone "$NEVER" --on-stall abort --bandwidth 512K
gn_check "--on-stall raise, up to --max-downtime-ms" undone "$NEVER" --on-stall raise --max-downtime-ms 350 --bandwidth 512K
gn_check "--timeout" undone "not done after 1 s" --timeout 1 --bandwidth 64K
gn_check "--tls-hostname, of another" undone . --tls-creds creds --tls-hostname elsewhere

# Monitors behind a process that is not QEMU.
for n in a b; do
	gn_spawn "PROXY_$n" socat "UNIX-LISTEN:$GN_TMP/p$n/qmp,fork" "UNIX-CONNECT:$GN_TMP/$n/qmp"
	gn_wait 10 test -S "$GN_TMP/p$n/qmp"
done
writer b server -S -incoming defer
gn_check "a monitor that is not QEMU's own" gives 7 between pa pb
gn_check "--pid, --dest-pid, --tls-creds, --on-stall raise: migrated" gives 0 between pa pb \
	--pid "${QEMU_PID[a]}" --dest-pid "${QEMU_PID[b]}" --tls-creds creds --tls-hostname localhost \
	--bandwidth 512K --on-stall raise --max-downtime-ms 10000
gn_check "all of it was compared" result '.compared and .pages_differ == 0 and .pages_compared > 100'
gn_check "it runs there" runs b running

# ---- the same again, when it has run there ---------------------------------------------------
gn_must ram_open b
gn_check "it has written there" gn_wait 20 beyond b "$(counts a)"
qmp b stop >/dev/null
gn_check "its user has paused it there; the same again says that nobody knows" gives 5 between a b
gn_check "what differs, and why that may be" result \
	'.pages_differ > 0 and (.rolled_back | not) and (.error | test("has run there since"))'
gn_check "both stay paused" both_stay
qmp b cont >/dev/null
gn_check "a destination that runs is no reason to let the source run" gives 7 between a b
gn_check "it says: nowhere else" said "only if it runs nowhere else"
gn_check "it runs there" runs b running

proxied() { "$TOOL" dirty-rate --json --qmp "$GN_TMP/pb/qmp" --seconds 1 "$@" >"$GN_TMP/lines"; }
gn_check "dirty-rate there" gives 7 proxied
gn_check "and with --qemu-pid" gives 0 proxied --qemu-pid "${QEMU_PID[b]}"
gn_check "it writes" jq -es 'last | .ok and .bytes_per_s > 100000' "$GN_TMP/lines"
gn_stop "${QEMU_PID[a]}" KILL
gn_stop "${QEMU_PID[b]}" KILL

# ---- its dirty rate --------------------------------------------------------------------------
# rate ARGS...
rate() { "$TOOL" dirty-rate --json "$@" >"$GN_TMP/lines"; tail -n 1 "$GN_TMP/lines" >"$OUT"; result .ok; }
gn_check "dirty rate by QEMU and the device's log" rate --qmp "$GN_TMP/vm1/qmp" --instance vm1 --seconds 2
gn_note "$(jq -c '{method, bytes_per_s, device_bytes_per_s}' "$OUT")"
gn_check "the device's share" result '.device_bytes_per_s > 100000 and .bytes_per_s > .device_bytes_per_s / 2'
gn_check "dirty rate of the process" rate --pid "${QEMU_PID[vm1]}" --seconds 1
gn_note "$(jq -c '{method, bytes_per_s, margin_bytes_per_s, ram_bytes}' "$OUT")"
gn_check "with its margin" result '.bytes_per_s > 100000 and (.samples == 0) == (.margin_bytes_per_s == 0)'
gn_check "nobody at that monitor" gives 3 "$TOOL" dirty-rate --qmp /nowhere
gn_check "no such process" gives 3 "$TOOL" dirty-rate --pid 4000000

# ---- half-way, and back --------------------------------------------------------------------
# sent_bytes N - has the running one sent more?
sent_bytes() { [ "$(jq -r 'select(.event == "progress").bytes' "$GN_TMP/lines" | tail -n 1)" -gt "$1" ]; }

# interrupt - SIGINT once something was transferred
interrupt()
{
	local rc pid
	"$TOOL" qemu --json --qmp "$GN_TMP/vm1/qmp" --dest-qmp "$GN_TMP/vm2/qmp" \
		--to "unix:$GN_TMP/migrate" --bandwidth 3M --instance vm1 >"$GN_TMP/lines" &
	pid=$!
	gn_wait 30 sent_bytes 3000000 || return 99
	kill -INT $pid
	wait $pid
	rc=$?
	tail -n 1 "$GN_TMP/lines" >"$OUT"
	return $rc
}

destination
before=$(qmp vm1 query-migrate-parameters)
gn_check "cancelled by a signal" gives 4 interrupt
gn_check "the guest runs on" runs vm1 running
gn_check "parameters are as before" test "$before" = "$(qmp vm1 query-migrate-parameters)"
gn_check "no capability is left on" test "$(qmp vm1 query-migrate-capabilities | jq '[.[] | select(.state)] | length')" = 0
gn_check "the destination has ended" gn_wait 10 gone vm2
gn_check "the device log is off" test "$(gn_ghostnic dma-log show --instance vm1 -j | jq .on)" = false
bytes=$(gn_port_count vm1 rx_bytes)
gn_check "the stream goes on" gn_wait 20 delivered $((bytes + 1000000))
qemu_end vm2

# ---- all the way ---------------------------------------------------------------------------
destination
gn_check "migrated" gives 0 migrate --instance vm1 --bandwidth 40M --downtime-ms 1000
gn_note "$(cat "$OUT")"
gn_check "all RAM was compared" result '.compared and .pages_differ == 0 and .pages_compared > 1000'
gn_check "the device's writes were seen" result '.device_pages > 10'
# in_manual WORD... - is each explained in the manual?
in_manual()
{
	local word missing=0
	for word; do
		grep -qwE "(Ql |dq)$word" "$GN_TOP/man/vm-migrate-qemu.8" || { echo "$word"; missing=1; }
	done
	return $missing
}
mapfile -t KEYS < <(jq -r 'paths(type != "object") | join(".")' "$GN_TMP/lines" | sort -u)
gn_check "the manual has all of its output" in_manual "${KEYS[@]}" text error
gn_check "progress by source" jq -es 'any(.[]; .event == "progress" and .by.device_pages > 0)' "$GN_TMP/lines"
gn_check "it runs there" runs vm2 running
gn_check "and not here" runs vm1 postmigrate
export GHOSTNIC_CTL=$GN_TMP/host2.sock
bytes=$(gn_port_count vm1 rx_bytes)
gn_check "the stream goes on there" gn_wait 30 delivered $((bytes + 1000000))

# ---- and back, comparing only what the device wrote --------------------------------------------
qemu_end vm1
destination_at vm1
gn_check "back, --verify device" gives 0 between vm2 vm1 --instance vm1 --bandwidth 40M --downtime-ms 1000 --verify device
gn_note "$(cat "$OUT")"
gn_check "what the device wrote was compared, and no more" result \
	'.compared and .pages_differ == 0 and .pages_compared > 10 and .pages_compared == .device_pages'
gn_check "it runs here again" runs vm1 running
export GHOSTNIC_CTL=$GN_TMP/host.sock
bytes=$(gn_port_count vm1 rx_bytes)
gn_check "the stream goes on here" gn_wait 30 delivered $((bytes + 1000000))
touch "$GN_TMP/stop"
if gn_wait 40 received_by vm1; then
	sent=$(cat "$GN_TMP/sent")
	got=$(guest vm1 "cat /tmp/sum")
	gn_check "the stream is whole" test "${sent% *}" = "${got%% *}"
else
	gn_fail "the stream is whole" "it did not come to its end"
fi
qemu_end vm1 vm2
world_end

# ---- without a log -------------------------------------------------------------------------
# The daemon forgets QEMU's log, and only that: its own still tells who wrote the pages.
DAEMON_BIN=$GN_TMP/unlogged
gn_must mkdir "$DAEMON_BIN"
gn_must ln -s "$GN_BIN/tests/vhost/ghostnicd-unlogged" "$DAEMON_BIN/ghostnicd"
gn_must ln -s "$GN_BIN/ghostnic" "$DAEMON_BIN/ghostnic"
begin
export GHOSTNIC_CTL=$GN_TMP/host.sock
destination
gn_check "lost writes are found by --verify device" gives 6 migrate --instance vm1 --bandwidth 40M --downtime-ms 1000 --verify device
gn_check "all of them the device's" result '.pages_differ > 0 and .device_differ == .pages_differ and .rolled_back'
qemu_end vm2
destination
gn_check "lost writes are found" gives 6 migrate --instance vm1 --bandwidth 40M --downtime-ms 1000
gn_note "$(cat "$OUT")"
gn_check "and whose they are" result '.pages_differ > 0 and .device_differ > 0 and .rolled_back'
gn_check "the destination has ended" gn_wait 10 gone vm2
gn_check "the guest runs at the source" runs vm1 running
bytes=$(gn_port_count vm1 rx_bytes)
gn_check "the stream goes on at the source" gn_wait 20 delivered $((bytes + 1000000))
qemu_end vm1 vm2
gn_stop "$SENDER" KILL
world_end
