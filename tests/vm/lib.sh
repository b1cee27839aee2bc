# shellcheck shell=bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Virtual machines for tests: Debian 12's own kernel (6.1) under QEMU, with KVM where
# there is one and without it elsewhere. Needs no root. A script sources this:
#
#	. "$(dirname "$0")/lib.sh"
#	vm_kernel			# sets VM_KERNEL, VMLINUX, VM_MODULES
#	vm_initrd OUT ITEM...		# see mkinitrd.sh
#	vm_run INITRD SECONDS [QEMU-ARG...]
#
# The guest runs the file /test of its initramfs, see guest/init.sh. What that prints
# is what vm_run prints: "ok NAME", "not ok NAME: WHY", "skip NAME: WHY", as a script
# of tests/netns does; other lines are for the reader.
#
# A script that ends, however it ends, takes its QEMU along; files stay in $B/vm, for
# the reader, and are overwritten by the next run.
#
# Environment: B, the build tree (default build/ here); VM_ACCEL, VM_CPU, of QEMU; VM_ENV,
# "name=value" each, for the environment of /test.

set -u
PATH=$PATH:/usr/sbin:/sbin
export LC_ALL=C
VM_TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
VM_LIB=$VM_TOP/tests/vm
VM_BIN=$(cd "${B:-$VM_TOP/build}" && pwd) || exit 1	# the programs under test
VM_DIR=$VM_BIN/vm
mkdir -p "$VM_DIR" || exit 1

# KVM without virtualization by hardware exists, and boots no kernel in a test's time.
if [ -z "${VM_ACCEL:-}" ]; then
	VM_ACCEL=tcg
	! grep -qE '^flags.* (vmx|svm)( |$)' /proc/cpuinfo || VM_ACCEL=kvm:tcg
fi

# Without what a kernel need not find out, or guard against, in a test.
VM_APPEND="console=ttyS0 panic=-1 quiet mitigations=off tsc=reliable no_timer_check \
cryptomgr.notests"

vm_fail() { echo "not ok $1: $2"; }

# vm_die WHY - the test cannot go on
vm_die()
{
	vm_fail setup "$1"
	exit 1
}

# Modules that no test can want: for hardware that QEMU is not asked to have.
VM_NO_MODULES=(sound drivers/gpu drivers/media drivers/staging drivers/infiniband
	drivers/scsi drivers/usb drivers/iio 'drivers/net/*/*')

# vm_fetch DIR - the kernel package, not installed, into DIR: vmlinuz and lib/modules
vm_fetch()
{
	local dir=$1 package ex=() x root=()

	[ "$(id -u)" != 0 ] || root=(-o APT::Sandbox::User=root)
	package=$(apt-cache pkgnames linux-image-6.1.0- |
		grep -E '^linux-image-6\.1\.0-[0-9]+-amd64$' | sort -V | tail -n 1)
	[ -n "$package" ] || { echo "no linux-image-6.1 in the package lists" >&2; return 1; }
	echo "# fetching $package"
	# apt checks the archive's signature and, by it, the package.
	(cd "$dir" && apt-get "${root[@]}" -qq download "$package") || return 1
	for x in "${VM_NO_MODULES[@]}"; do
		ex+=(--exclude="./lib/modules/*/kernel/$x")
	done
	dpkg-deb --fsys-tarfile "$dir/$package"_*.deb |
		tar -x -C "$dir" "${ex[@]}" --exclude=./usr || return 1
	rm -f "$dir/$package"_*.deb
	mv "$dir"/boot/vmlinuz-* "$dir/vmlinuz" && mv "$dir"/boot/config-* "$dir/config" &&
		rm -rf "${dir:?}/boot" || return 1
	depmod -b "$dir" "$(ls "$dir/lib/modules")" && vm_unpack "$dir"
}

# vm_unpack DIR - DIR/vmlinux, the ELF file that is in DIR/vmlinuz
#
# An emulated CPU takes longer to unpack a kernel than to boot it; QEMU starts the ELF file
# by its PVH entry.
vm_unpack()
{
	local at
	at=$(grep -aboP -m 1 "\xfd7zXZ" "$1/vmlinuz" | head -n 1 | cut -d: -f1)
	# xz complains of what follows.
	tail -c "+$((at + 1))" "$1/vmlinuz" | xz -dcq --single-stream >"$1/vmlinux"
	[ "$(head -c 4 "$1/vmlinux")" = $'\x7fELF' ]
}

# vm_kernel - fetch the kernel if it is not here; sets VM_KERNEL, the image, VMLINUX, the same
# unpacked, VM_MODULES, the directory of its modules, and VM_RELEASE, its version
vm_kernel()
{
	local dir=$VM_DIR/kernel

	exec {lock}>"$VM_DIR/kernel.lock"
	flock "$lock"
	# Renamed when it is whole.
	if [ ! -s "$dir/vmlinux" ]; then
		rm -rf "$dir" "$dir.new"
		mkdir "$dir.new" || vm_die "no directory $dir.new"
		if ! vm_fetch "$dir.new"; then
			# Lists may be older than the archive.
			[ "$(id -u)" != 0 ] || apt-get -qq update
			rm -rf "$dir.new"
			mkdir "$dir.new"
			vm_fetch "$dir.new" || vm_die "cannot get Debian 12's kernel"
		fi
		mv "$dir.new" "$dir" || exit 1
	fi
	exec {lock}>&-
	VM_KERNEL=$dir/vmlinuz
	VMLINUX=$dir/vmlinux
	VM_RELEASE=$(ls "$dir/lib/modules")
	VM_MODULES=$dir/lib/modules/$VM_RELEASE
	export VM_KERNEL VMLINUX VM_RELEASE VM_MODULES
}

# vm_initrd OUT ITEM... - an initramfs; see mkinitrd.sh. After vm_kernel.
vm_initrd()
{
	bash "$VM_LIB/mkinitrd.sh" "$@" || vm_die "no initramfs"
}

# vm_run INITRD SECONDS [QEMU-ARG...] - boot, relay what /test prints, power off
#
# The kernel's console is in INITRD.console. With VM_SILENCE=N a guest that says nothing for
# N seconds is out of time. Return: exit status of /test; 1 when the guest did not get that
# far, which is then a failed case
vm_run()
{
	local initrd=$1 seconds=$2 rc qemu
	shift 2

	rm -f "$initrd.out" "$initrd.console"
	# One of two serial ports is the test's alone: the kernel's messages, some of which
	# no log level stops, would cut its lines. Signals: a killed script kills both.
	setpriv --pdeathsig KILL timeout -k 5 "$seconds" setpriv --pdeathsig KILL \
		qemu-system-x86_64 -machine "accel=$VM_ACCEL" -cpu "${VM_CPU:-Nehalem}" -smp 2 -m 1G \
		-display none -nodefaults -no-user-config -no-reboot \
		-serial "file:$initrd.console" -serial "file:$initrd.out" \
		-kernel "$VMLINUX" -initrd "$initrd" \
		-append "$VM_APPEND${VM_ENV:+ $VM_ENV}" "$@" \
		</dev/null >"$initrd.qemu" 2>&1 &
	qemu=$!
	[ -z "${VM_SILENCE:-}" ] || vm_watch "$initrd" $qemu &
	wait $qemu
	rc=$?
	[ $rc != 143 ] || rc=124
	tr -d '\r' <"$initrd.out" | grep -v '^# exit '
	if [ $rc != 0 ]; then
		vm_fail guest "QEMU gave $rc (124, 137: stopped after $seconds s, or ${VM_SILENCE:-0} without a word)"
	elif ! rc=$(tr -d '\r' <"$initrd.out" | sed -n 's/^# exit //p' | grep .); then
		vm_fail guest "ended before its test did"
		rc=1
	else
		return "$rc"
	fi
	tail -n 15 "$initrd.qemu" "$initrd.console" | tr -d '\r' | sed 's/^/#   /'
	return 1
}

# vm_watch INITRD PID - end it once it is silent; ends with it
vm_watch()
{
	while sleep 2 && kill -0 "$2" 2>/dev/null; do
		! vm_silent "$1" || kill "$2"
	done
} 2>/dev/null

# vm_silent INITRD - for VM_SILENCE seconds?
vm_silent()
{
	local said
	# The later of the two
	said=$(stat -c %Y "$1.out" "$1.console" 2>/dev/null | sort -n | tail -n 1)
	[ -n "$said" ] && [ $((EPOCHSECONDS - said)) -ge "$VM_SILENCE" ]
}

# vm_nested INITRD SECONDS [QEMU-ARG...] - vm_run on a CPU that has KVM, emulated everywhere
#
# QEMU 7.2's emulation of SVM (helper_vmrun()) leaves the number of an interrupt that it
# has injected in the CPU's pending exception. If that CPU is asked to leave its loop and
# no interrupt is seen with the request, the guest of the guest gets the same interrupt once
# more, whether it takes interrupts then or not. A QEMU that counts it did so once in 30
# boots of Debian's kernel, and where it was stopped and continued 20 times a second, 37
# times in 4 boots, 2 of which hung; with the number reset after the injection, in none of
# 11. So a run whose guest crashes or stands still is begun anew, twice at most, and said:
# time ran out, the test says "not ok stuck", or "# stood still" once for each case that
# failed. A run in which any other case failed counts, and so does the third.
#
# With VM_RESUMES=1, /test leaves out its first $from cases: what such a run has passed counts,
# it goes on from there, and only runs that pass nothing are counted.
vm_nested()
{
	local out=$1.run try=1 from=0 n rc
	while :; do
		# Nested virtualization by hardware is rarely to be had.
		VM_ACCEL=tcg VM_CPU=max VM_ENV=from=$from vm_run "$@" >"$out" 2>&1
		rc=$?
		if [ $rc = 0 ] || [ $try = 3 ] || ! vm_stuck "$out"; then
			break
		fi
		n=$(grep -c '^ok' "$out")
		echo "# stood still after $n cases; once more"
		grep -A 5 '^not ok' "$out" | sed 's/^not ok/# &/'
		if [ "${VM_RESUMES:-}" ] && [ "$n" -gt 0 ]; then
			grep '^ok' "$out"
			from=$((from + n))
			try=1
		else
			try=$((try + 1))
		fi
	done
	cat "$out"
	return $rc
}

# vm_stuck OUT - did nothing fail but that the guest stands still?
vm_stuck()
{
	local bad other
	bad=$(grep '^not ok' "$1") || return 1
	other=$(grep -cvE '^not ok (stuck|guest: QEMU gave (124|137))' <<<"$bad")
	[ "$other" -le "$(grep -c '^# stood still' "$1")" ]
}
