#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# The commands of docs/vm.md, as they stand there: daemon, QEMU, the guest's address; and
# libvirt's own schema for its XML.

# shellcheck source=tests/vhost/qemu-lib.sh
. "$(dirname "$0")/qemu-lib.sh"

GUIDE=$GN_TOP/docs/vm.md
PATH=$GN_BIN:$PATH

# commands HEADING N - the N-th block of commands under it
commands()
{
	awk -v head="$1" -v want="$2" '
		/^## / { on = index($0, head) > 0; n = 0; inside = 0 }
		/^    / { if (on && !inside) n++; inside = 1; if (on && n == want) print substr($0, 5); next }
		{ inside = 0 }' "$GUIDE"
}

# libvirt's fragments make a domain that virt-xml-validate accepts; CMD... changes it first.
libvirt_takes()
{
	{
		echo "<domain type='kvm'><name>vm1</name><memory unit='GiB'>1</memory>"
		echo "<os><type>hvm</type></os>"
		commands libvirt 1
		commands libvirt 2
		echo "</domain>"
	} | "$@" >"$GN_TMP/domain.xml"
	virt-xml-validate "$GN_TMP/domain.xml" domain
}
gn_check "libvirt's XML is valid" libvirt_takes cat
gn_check "a mistake in it would be seen" gn_not libvirt_takes sed s/vhostuser/vhost-user/

qemu_initrd
gn_bpffs
gn_ns peer host
gn_veth peer p0 host eth0
gn_addr peer p0 1
export GHOSTNIC_CTL=$GN_TMP/ctl.sock

gn_check "the daemon's commands" gn_exec host "$BASH" -e -c "$(commands "The daemon" 1)"
gn_check "the socket is there" test -S /run/ghostnic/vm1.vu

# Two serial ports for guest(), instead of the terminal.
gn_must mkdir "$GN_TMP/vm1"
gn_must mkfifo "$GN_TMP/vm1/tty.in" "$GN_TMP/vm1/tty.out"
exec {fd}<>"$GN_TMP/vm1/tty.in"
QEMU_FD[vm1]=$fd
: >"$GN_TMP/vm1/out"
gn_spawn CAT sh -c "exec cat <>$GN_TMP/vm1/tty.out >>$GN_TMP/vm1/out"
line=$(commands QEMU 1)
# A /dev/kvm without the CPU's help boots no kernel; see vm/lib.sh.
[ "$VM_ACCEL" != tcg ] || line=${line/-accel kvm /}
line=${line/VMLINUZ/$VMLINUX}
line=${line/INITRD/$QEMU_INITRD}
gn_spawn QEMU_vm1 sh -c "exec $line -serial file:$GN_TMP/vm1/console -serial pipe:$GN_TMP/vm1/tty"
# shellcheck disable=SC2154 # set by gn_spawn
QEMU_PID[vm1]=$QEMU_vm1
QEMU_BOOT_S=150 gn_check "QEMU's command line boots" qemu_ready vm1 1 || exit 1

while read -r line; do
	gn_check "in the guest: $line" guest vm1 "$line"
done < <(commands "Look at it" 1)
gn_check "the guest answers" gn_wait 20 answers 10.0.0.11
gn_check "on the host: ghostnic stats" gn_exec host "$BASH" -e -c "$(commands "Look at it" 2)"

qemu_end vm1
