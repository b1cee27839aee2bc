#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# A driver that takes no offload: iPXE, the boot ROM of QEMU's network device, gets
# its script by DHCP and TFTP, kernel and initramfs by HTTP, and boots them. It refuses
# partial checksums and has no room for super-packets; the kernel has a checksum of its
# own, and a file of the initramfs is hashed in the end.

# shellcheck source=tests/vhost/qemu-lib.sh
. "$(dirname "$0")/qemu-lib.sh"

WWW=$GN_TMP/www

# one_frame_each - the guest was given no super-packet
one_frame_each()
{
	local p f
	p=$(gn_port_count vm1 rx_packets)
	f=$(gn_port_count vm1 rx_frames)
	gn_note "$p packets in $f frames"
	[ "$p" -gt 5000 ] && [ "$f" -ge "$p" ]
}

command -v dnsmasq >/dev/null || gn_die "dnsmasq is missing: make deps"
gn_file 4
QEMU_ITEMS=("$GN_TMP/file:/file")
qemu_initrd
qemu_host 1500
# What comes from a wire has whole checksums; a veth leaves them to nobody.
gn_must gn_exec peer ethtool -K p0 tx off >/dev/null

gn_must mkdir "$WWW"
gn_must cp "$VM_KERNEL" "$WWW/vmlinuz"
gn_must cp "$QEMU_INITRD" "$WWW/initrd"
cat >"$WWW/boot.ipxe" <<-END
	#!ipxe
	kernel http://10.0.0.1/vmlinuz initrd=initrd $QEMU_APPEND
	initrd http://10.0.0.1/initrd
	boot
END
gn_spawn DNSMASQ gn_exec peer dnsmasq --keep-in-foreground --log-facility=- \
	--conf-file=/dev/null --user=root --group=root --port=0 --leasefile-ro --pid-file= \
	--interface=p0 --dhcp-range=10.0.0.11,10.0.0.11,255.255.255.0 \
	--dhcp-boot=boot.ipxe --enable-tftp --tftp-root="$WWW"
gn_spawn HTTPD gn_exec peer busybox httpd -f -p 80 -h "$WWW"
gn_wait 5 gn_listening peer 80 || gn_die "no HTTP server"

QEMU_NETBOOT=1 QEMU_DEVICE=,bootindex=1 QEMU_BOOT_S=200 qemu_boot vm1 "$GN_TMP/vm1.vu"
gn_ok "iPXE boots the kernel that it fetched"
gn_check "TFTP was used" grep -q "sent $WWW/boot.ipxe to 10.0.0.11" "$GN_TMP/DNSMASQ.log"
same_file() { [ "$(guest vm1 "sha256sum </file")" = "$GN_SUM" ]; }
gn_check "the file is whole" same_file
gn_check "each packet in a frame of its own" one_frame_each

# Then Linux takes the device over, with offloads.
guest_up vm1 11
gn_check "Linux takes over" gn_wait 20 answers 10.0.0.11
gn_check "no fault" test "$(gn_count faults)" = 0

qemu_end vm1
gn_world_end
