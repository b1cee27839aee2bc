#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# In the guest that is migrated: hash what comes by TCP, with some load beside it. /test of
# an initramfs of tests/vm, with the first serial port for what it says.

exec >/dev/ttyS0 2>&1

# wait_for CONDITION... - until it holds, 60 s at most by this guest's clock
wait_for()
{
	end=$(($(date +%s) + 60))
	until "$@"; do
		if [ "$(date +%s)" -gt $end ]; then
			echo "=complaints: waited for $* in vain"
			return 1
		fi
		usleep 50000
	done
}
listens() { netstat -ltn | grep -q :9000; }

ip link set eth0 up
ip addr add 10.0.0.11/24 dev eth0
(while :; do dd if=/dev/zero of=/tmp/load bs=64k count=32 conv=notrunc; usleep 100000; done) \
	>/dev/null 2>&1 &
echo "=cpus $(grep -c ^processor /proc/cpuinfo)"
socat -u TCP4-LISTEN:9000,reuseaddr SYSTEM:'sha256sum >/tmp/sum' &
pid=$!
wait_for listens
dmesg -c >/dev/null
echo "=ready"
wait $pid
wait_for [ -s /tmp/sum ]
echo "=sum $(cut -c 1-64 /tmp/sum)"
# The kernel's own complaints, such as a CPU that stood still for too long.
dmesg | grep -E 'WARNING|BUG|soft lockup|rcu.*stall|Call Trace' && echo "=complaints"
echo "=end"
