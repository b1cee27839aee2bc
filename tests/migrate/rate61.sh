#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Dirty rates on Debian 12's kernel 6.1, in a virtual machine: it tracks soft-dirty pages
# and has no PAGEMAP_SCAN.

# shellcheck source=tests/vm/lib.sh
. "$(dirname "$0")/../vm/lib.sh"

[ -x "$VM_BIN/tests/migrate/test_rate" ] || vm_die "no tests/migrate/test_rate: run make migrate-tests"
vm_kernel
cat >"$VM_DIR/rate61.test" <<'END'
#!/bin/sh
export CMOCKA_MESSAGE_OUTPUT=TAP RATE_MUST_SOFT_DIRTY=1
/test_rate >/tmp/out 2>&1
rc=$?
# One case a line, as vm_run relays them.
sed -nE 's/^ok [0-9]+ - (.*)/ok \1/p; s/^not ok [0-9]+ - (.*)/not ok \1: see below/p' /tmp/out
[ $rc = 0 ] || sed 's/^/# /' /tmp/out
exit $rc
END
chmod 755 "$VM_DIR/rate61.test"
vm_initrd "$VM_DIR/rate61.img" "$VM_DIR/rate61.test:/test" "$VM_BIN/tests/migrate/test_rate:/test_rate"
vm_run "$VM_DIR/rate61.img" 100
