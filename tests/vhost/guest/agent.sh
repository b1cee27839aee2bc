#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# /test of a guest of tests/vhost: runs what comes on the second serial port, a line a
# command, "NUMBER COMMAND", and frames the output with "+NUMBER" and "=NUMBER STATUS".
# It does not end; QEMU is ended from outside. See guest() of qemu-lib.sh.

stty -F /dev/ttyS1 raw -echo
exec </dev/ttyS1
echo "=ready"
while IFS= read -r line; do
	echo "+${line%% *}"
	(eval "${line#* }") </dev/null
	echo "=${line%% *} $?"
done
