#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Make an initramfs: busybox, init, and what is asked for.
#
#	mkinitrd.sh OUT ITEM...
#
# ITEM:	NAME		a command of this machine, with its libraries
#	PATH		a file, to the same place, with its libraries if it is a program
#	PATH:DEST	the same, to DEST (absolute)
#	@MODULE		a kernel module, with what it depends on; init loads them in order
#
# One item has to become /test, which init runs. Environment: VM_MODULES, VM_RELEASE (see
# vm_kernel of lib.sh). Not compressed: an emulated CPU takes seconds to unpack.
set -euo pipefail

out=$1
shift
here=$(cd "$(dirname "$0")" && pwd)
root=$out.root
PATH=$PATH:/usr/sbin:/sbin

# put FILE DEST - copy; what it needs comes at the end
files=()
put()
{
	install -D -m "$([ -x "$1" ] && echo 755 || echo 644)" "$1" "$root$2"
	files+=("$1")
}

# put_libraries - that the files load, all at once: ldd takes longer than all else
put_libraries()
{
	local libs

	# ldd fails for what is no dynamic program.
	mapfile -t libs < <(ldd "${files[@]}" 2>/dev/null |
		sed -nE 's/^\t(.* => )?(\/[^ ]*) .*/\2/p' | sort -u)
	cp -L --parents -t "$root" "${libs[@]}"
}

# put_module NAME - copy, and append to the list that init reads
put_module()
{
	modprobe -d "${VM_MODULES%/lib/modules/*}" -S "$VM_RELEASE" --show-depends "$1" |
		while read -r how ko _; do
			[ "$how" = insmod ] || continue		# else: built in
			install -D -m 644 "$ko" "$root/modules/${ko##*/}"
			grep -qsx "${ko##*/}" "$root/modules/list" ||
				echo "${ko##*/}" >>"$root/modules/list"
		done
}

rm -rf "$root"
mkdir -p "$root"/{dev,proc,sys,run,tmp,root,etc,modules,usr/{bin,sbin,lib,lib64}}
for d in bin sbin lib lib64; do
	ln -s "usr/$d" "$root/$d"
done
: >"$root/modules/list"
busybox --install -s "$root/usr/bin"
rm -f "$root/usr/bin/busybox"
put "$(command -v busybox)" /usr/bin/busybox
put "$here/guest/init.sh" /init
chmod 755 "$root/init"

for item; do
	case $item in
	@*)	put_module "${item#@}" ;;
	/*:/*)	put "${item%:*}" "${item##*:}" ;;
	/*)	put "$item" "$item" ;;
	*)	path=$(command -v "$item") || { echo "mkinitrd: no $item here" >&2; exit 1; }
		rm -f "$root/usr/bin/$item"		# the applet of that name
		put "$path" "/usr/bin/$item" ;;
	esac
done
put_libraries
[ -e "$root/test" ] || { echo "mkinitrd: no item becomes /test" >&2; exit 1; }
chmod 755 "$root/test"

(cd "$root" && find . -print0 | LC_ALL=C sort -z | cpio --quiet -0 -o -H newc -R 0:0) >"$out"
rm -rf "$root"
