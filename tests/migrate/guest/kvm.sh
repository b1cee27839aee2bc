#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Inside the virtual machine of tests/migrate/kvm.sh.

CMOCKA_MESSAGE_OUTPUT=TAP CONFORM_MS=${CONFORM_MS:-2000} /test_dirty kvm "${from:-0}"
