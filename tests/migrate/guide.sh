#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# The commands and the program of docs/migrate.md, as they stand there.

# shellcheck source=tests/vhost/qemu-lib.sh
. "$(dirname "$0")/../vhost/qemu-lib.sh"

GUIDE=$GN_TOP/docs/migrate.md
ROOT=$GN_TMP/root
PATH=$GN_BIN:$GN_BIN/vm-migrate:$PATH

# commands HEADING N - the N-th block of commands under it
commands()
{
	awk -v head="$1" -v want="$2" '
		/^##? / { on = index($0, head) > 0; n = 0; inside = 0 }
		/^    / { if (on && !inside) n++; inside = 1; if (on && n == want) print substr($0, 5); next }
		{ inside = 0 }' "$GUIDE"
}

# ---- embed the library -----------------------------------------------------------------------
awk '/^```c$/ { on = 1; next } /^```$/ { on = 0 } on' "$GUIDE" >"$GN_TMP/tiny.c"
installed() { flock "$GN_BIN/install.lock" make -s -C "$GN_TOP" B="$GN_BIN" DESTDIR="$ROOT" PREFIX=/usr install; }
build_and_run()
{
	cd "$GN_TMP" && PKG_CONFIG_SYSROOT_DIR=$ROOT PKG_CONFIG_PATH=$ROOT/usr/lib/pkgconfig \
		"$BASH" -e -c "$(commands "Embed the library" 1)" >tiny.out 2>&1
	cat tiny.out
	[ "$(grep -cE '^(moved at [0-9]+, downtime [0-9]+ us|arrived at [0-9]+, 0 wrong|it counts on here)$' tiny.out)" = 3 ]
}
gn_check "the library is installed" installed
gn_check "the program is built and migrates" build_and_run
moved=$(sed -n 's/^moved at \([0-9]*\),.*/\1/p' "$GN_TMP/tiny.out")
gn_check "it arrives where it left" grep -q "^arrived at $moved, 0 wrong" "$GN_TMP/tiny.out"
rm -rf "$ROOT"

# ---- migrate a QEMU VM -------------------------------------------------------------------------
qemu_initrd
gn_bpffs
gn_ns peer host
gn_must gn_exec peer ip link add br0 type bridge
gn_must gn_exec peer ip link set br0 up
for n in 0 1; do
	gn_veth peer p$n host eth$n
	gn_must gn_exec peer ip link set p$n master br0
done
gn_addr peer br0 1
export GHOSTNIC_CTL=$GN_TMP/ctl.sock

gn_check "the daemon's commands" gn_exec host "$BASH" -e -c "$(commands "The daemon" 1)"

# qemu NAME HEADING ARGS... - the guide's command line, two serial ports for guest() added
qemu()
{
	local name=$1 head=$2 line fd pid=QEMU_$1
	shift 2
	gn_must mkdir "$GN_TMP/$name"
	gn_must mkfifo "$GN_TMP/$name/tty.in" "$GN_TMP/$name/tty.out"
	exec {fd}<>"$GN_TMP/$name/tty.in"
	QEMU_FD[$name]=$fd
	: >"$GN_TMP/$name/out"
	gn_spawn "CAT_$name" sh -c "exec cat <>$GN_TMP/$name/tty.out >>$GN_TMP/$name/out"
	line=$(commands "$head" 1)
	# A /dev/kvm without the CPU's help boots no kernel; see vm/lib.sh.
	[ "$VM_ACCEL" != tcg ] || line=${line/-accel kvm /}
	line=${line/VMLINUZ/$VMLINUX}
	line=${line/INITRD/$QEMU_INITRD}
	gn_spawn "QEMU_$name" sh -c "exec $line -serial file:$GN_TMP/$name/console -serial pipe:$GN_TMP/$name/tty"
	QEMU_PID[$name]=${!pid}
}
monitor() { test -S "/run/ghostnic/$1.qmp"; }

qemu vm1 "The VM"
QEMU_BOOT_S=150 gn_check "the VM boots" qemu_ready vm1 1 || exit 1
guest_up vm1 11
gn_check "it answers" gn_wait 20 answers 10.0.0.11
gn_check "its dirty rate" gn_exec host "$BASH" -e -c "$(commands "The VM" 2)"
qemu vm1b "The destination"
gn_check "the destination waits" gn_wait 20 monitor vm1b
gn_check "nothing is missing" gn_exec host "$BASH" -e -c "$(commands Move 1)"
gn_check "moved" gn_exec host "$BASH" -e -c "$(commands Move 2)"
gn_note "$(tr -d '\000' <"$GN_TMP/check.out" | tr '\n' ';')"
gn_check "the source has ended" gn_wait 10 gn_gone "${QEMU_PID[vm1]}"
gn_check "the guest lives" guest vm1b true
gn_check "and answers through the other interface" gn_wait 20 answers 10.0.0.11
qemu_end vm1b vm1
