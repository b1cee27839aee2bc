#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Inside the virtual machine of tests/bench/dirty.sh.

/dirty_kvm
