#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# The test of three nodes, whose agents find that they are on one host: all goes by UNIX
# sockets, across network namespaces. They poll before they sleep.
SHARE_SHORTCUT=1 exec bash "$(dirname "$0")/nodes.sh"
