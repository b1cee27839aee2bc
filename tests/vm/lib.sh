# shellcheck shell=bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Virtual machines for tests: Debian 12's own kernel (6.1) under QEMU, with KVM where
# there is one and without it elsewhere. Needs no root. A script sources this:
#
#	. "$(dirname "$0")/lib.sh"
#	vm_kernel			# sets VM_KERNEL, VM_MODULES
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
# Environment: B, the build tree (default build/ here).

set -u
PATH=$PATH:/usr/sbin:/sbin
VM_TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
VM_LIB=$VM_TOP/tests/vm
VM_BIN=$(cd "${B:-$VM_TOP/build}" && pwd) || exit 1	# the programs under test
VM_DIR=$VM_BIN/vm
mkdir -p "$VM_DIR" || exit 1

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
	depmod -b "$dir" "$(ls "$dir/lib/modules")" || return 1
	(cd "$dir" && find . -type f -print0 | xargs -0 sha256sum >../sums &&
		mv ../sums SHA256SUMS)
}

# vm_kernel - fetch the kernel if it is not here; sets VM_KERNEL, the image, VM_MODULES,
# the directory of its modules, and VM_RELEASE, its version
vm_kernel()
{
	local dir=$VM_DIR/kernel

	exec {lock}>"$VM_DIR/kernel.lock"
	flock "$lock"
	if ! (cd "$dir" && sha256sum --status -c SHA256SUMS) 2>/dev/null; then
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
	VM_RELEASE=$(ls "$dir/lib/modules")
	VM_MODULES=$dir/lib/modules/$VM_RELEASE
	export VM_KERNEL VM_RELEASE VM_MODULES
}

# vm_initrd OUT ITEM... - an initramfs; see mkinitrd.sh. After vm_kernel.
vm_initrd()
{
	bash "$VM_LIB/mkinitrd.sh" "$@" || vm_die "no initramfs"
}

# vm_run INITRD SECONDS [QEMU-ARG...] - boot, relay what /test prints, power off
#
# The kernel's console is in INITRD.console. Return: exit status of /test; 1 when the
# guest did not get that far, which is then a failed case
vm_run()
{
	local initrd=$1 seconds=$2 rc
	shift 2

	rm -f "$initrd.out" "$initrd.console"
	# One of two serial ports is the test's alone: the kernel's messages, some of which
	# no log level stops, would cut its lines. Signals: a killed script kills both.
	setpriv --pdeathsig KILL timeout -k 5 "$seconds" setpriv --pdeathsig KILL \
		qemu-system-x86_64 -machine accel=kvm:tcg -cpu max -smp 2 -m 1G \
		-display none -nodefaults -no-user-config -no-reboot \
		-serial "file:$initrd.console" -serial "file:$initrd.out" \
		-kernel "$VM_KERNEL" -initrd "$initrd" \
		-append "console=ttyS0 panic=-1 quiet" "$@" \
		</dev/null >"$initrd.qemu" 2>&1
	rc=$?
	tr -d '\r' <"$initrd.out" | grep -v '^# exit '
	if [ $rc != 0 ]; then
		vm_fail guest "QEMU gave $rc (124, 137: stopped after $seconds s)"
	elif ! rc=$(tr -d '\r' <"$initrd.out" | sed -n 's/^# exit //p' | grep .); then
		vm_fail guest "ended before its test did"
		rc=1
	else
		return "$rc"
	fi
	tail -n 15 "$initrd.qemu" "$initrd.console" | tr -d '\r' | sed 's/^/#   /'
	return 1
}
