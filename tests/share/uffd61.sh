#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# As on Linux 6.1, whatever runs here (window.h): the tests of three nodes, of nodes that
# end, of agents that die in a move, and of memory order, the last with UFFD61_RUNS (20000)
# runs each.

# shellcheck source=tests/netns/lib.sh
. "$(dirname "$0")/../netns/lib.sh"

export GHOSTMEM_UFFD=6.1 LITMUS_RUNS=${UFFD61_RUNS:-20000} HISTORY_OPS=${HISTORY_OPS:-5000}
for t in nodes cut move_restart order; do
	bash "$GN_TOP/tests/share/$t.sh" | sed "s/^\(not ok\|ok\) /&$t: /"
	[ "${PIPESTATUS[0]}" = 0 ] || GN_FAILED=1
done
exit $GN_FAILED
