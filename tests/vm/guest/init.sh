#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# Process 1 of a guest of tests/vm: load the modules, run /test with its output on the
# second serial port, say how it ended, power off.

PATH=/usr/bin:/usr/sbin:/bin:/sbin
HOME=/root
export PATH HOME

mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs trace /sys/kernel/tracing

exec </dev/null >/dev/ttyS1 2>&1
while read -r ko; do
	insmod "/modules/$ko" || echo "# cannot load $ko"
done </modules/list
ip link set lo up
echo "# Linux $(uname -r), up after $(cut -d' ' -f1 /proc/uptime) s"
/test
echo "# exit $?"
sync
poweroff -f
