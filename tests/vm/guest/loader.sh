#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# /test of tests/vm/loader.sh: the parts that differ where there is a dispatcher. An
# emulated CPU is slow: not every step unless asked for.
GN_STRIDE=${GN_STRIDE:-4} exec bash /tests/netns/loader.sh swapped gone others killed
