#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# An interface that goes down, comes back, changes its MTU and is deleted under the
# daemon: the log says each, with the remedy, and the control socket goes on answering.

# shellcheck source=tests/netns/lib.sh
. "$(dirname "$0")/lib.sh"

says() { grep -q "$1" "$GN_TMP/GN_DAEMON.log"; }

gn_bpffs
gn_ns peer host
gn_veth peer p0 host h0
gn_must gn_exec host "$GN_BIN/ghostnic" attach h0
gn_must gn_daemon host --iface h0 --instance "vm1,mac=$GN_MAC1,port=null"

gn_exec host ip link set h0 down
gn_check down_is_said gn_wait 5 says 'h0: link is down'
gn_exec host ip link set h0 up
gn_check up_is_said gn_wait 5 says 'h0: link is up'
gn_exec host ip link set h0 mtu 1400
gn_check mtu_is_said gn_wait 5 says 'h0: MTU is 1400 now'
gn_exec host ip link del h0
gn_check deletion_is_said gn_wait 5 says 'h0: the interface is gone'
gn_check answers_afterwards gn_ghostnic instance list
