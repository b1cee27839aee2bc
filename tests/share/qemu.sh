#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# A region as the RAM of a QEMU guest, on a node that does not own it: others read what the guest
# stores, and it what they put, also after the region has moved. What cannot be shared is refused. Pages of
# QEMU_PAGE (4K).

# shellcheck disable=SC2317,SC2329 # functions called through a name
export SHARE_LEASE=3000
# shellcheck source=tests/share/lib.sh
. "$(dirname "$0")/lib.sh"
command -v qemu-system-x86_64 >/dev/null || gn_die "qemu-system-x86_64 is missing: make deps"
export GHOSTMEM_KEY=secret

gn_must "${CC:-cc}" -c -o "$GN_TMP/boot.o" "$(dirname "$0")/boot.S"
gn_must ld -Ttext 0x7c00 --oformat binary -o "$GN_TMP/boot" "$GN_TMP/boot.o"
gn_must truncate -s 1M "$GN_TMP/boot"

on() # NODE COMMAND... - of ghostmem
{
	gn_exec "n$1" env GHOSTMEM_AGENT="$GN_TMP/n$1.sock" "$GN_BIN/ghostmem" "${@:2}"
}
word() { on 1 get vm "$1" 4 | od -An -tu4 | tr -d ' '; }
is() { [ "$(word "$1")" = "$2" ]; }
preloaded()
{
	gn_exec n2 env GHOSTMEM_AGENT="$GN_TMP/n2.sock" LD_PRELOAD="$GN_BIN/libghostmem-file.so" "$@"
}
qemu() # SIZE
{
	preloaded qemu-system-x86_64 -machine pc,memory-backend=m -accel tcg -m "$1" \
		-display none -nodefaults -no-user-config \
		-object "memory-backend-file,id=m,size=$1,mem-path=/ghostmem/vm,share=on,align=${QEMU_PAGE:-4K}" \
		-drive "file=$GN_TMP/boot,format=raw,if=ide,snapshot=on"
}
share_net 2
share_agent 1
share_agent 2
gn_spawn EXPORT on 1 export --page-size "${QEMU_PAGE:-4K}" vm 16M
known() { on 2 ls | grep -q '^vm '; }
gn_must gn_wait 5 known

gn_spawn QEMU qemu 16M
gn_check "the guest's store is seen at the owner" gn_wait 60 is 0x9000 1953722216
printf '\x29\0\0\0' >"$GN_TMP/41"
printf '\x63\0\0\0' >"$GN_TMP/99"
gn_must on 1 put vm 0xa000 "$GN_TMP/41"
gn_check "the guest loads what the owner put" gn_wait 20 is 0x9008 42
gn_check "its RAM moves to its node" on 1 move vm --to n2
gn_must on 1 put vm 0xa000 "$GN_TMP/99"
gn_check "and the guest goes on" gn_wait 20 is 0x9008 100
# shellcheck disable=SC2154 # set by gn_spawn
gn_check "the guest runs" kill -0 "$QEMU"

gn_spawn HALF qemu 8M
# shellcheck disable=SC2154
gn_check "half of a region is no guest's RAM" gn_wait 20 gn_gone "$HALF"
gn_check "and that is said" grep -q "all of it" "$GN_TMP/HALF.log"
# What others are given does not pass for the region's memory.
gn_check "it can be opened" preloaded sh -c ': <>/ghostmem/vm'
written() { preloaded sh -c 'echo x 1<>/ghostmem/vm'; }
gn_check "nothing is written past a mapping" gn_not written

gn_stop "${AGENT[2]}" KILL
sigbus() { wait "$QEMU" 2>/dev/null; [ $? = 135 ]; }
gn_must gn_wait 20 gn_gone "$QEMU"
gn_check "without an owner the guest ends by SIGBUS" sigbus
exit "$GN_FAILED"
