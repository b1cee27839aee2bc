#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Are mistakes in the order of a migration noticed? See faults/planted.c.
exec "${B:-build}/faults/tests/migrate/faults/planted"
