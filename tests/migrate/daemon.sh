#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# ghostnicd's DMA log under the oracle of test_dirty: one guest sends frames to another,
# into whose memory the daemon writes; and who may take the log of whom.

# shellcheck source=tests/netns/lib.sh
. "$(dirname "$0")/../netns/lib.sh"

T=$GN_BIN/tests/migrate/test_dirty
[ -x "$T" ] || gn_die "no $T: run make migrate-tests"

gn_world 1500
gn_must gn_daemon host --iface h0 \
	--instance "vm1,mac=02:00:00:00:00:11,port=vhost-user:$GN_TMP/vm1.vu" \
	--instance "vm2,mac=02:00:00:00:00:12,port=vhost-user:$GN_TMP/vm2.vu"

CMOCKA_MESSAGE_OUTPUT=TAP "$T" daemon "$GHOSTNIC_CTL" "$GN_TMP/vm1.vu" "$GN_TMP/vm2.vu" ||
	gn_fail test_dirty "status $?"
gn_world_end
