#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Options of the command line that the guide (guide.sh) does without: a region that begins with a
# file, a key for readers, windows that are held, and to read only, watches, a get to a file.

# shellcheck disable=SC2317,SC2329 # functions called through a name
# shellcheck source=tests/share/lib.sh
. "$(dirname "$0")/lib.sh"

share_net 3
for i in 1 2 3; do share_agent $i; done
printf 'secret\n' >"$GN_TMP/key"
printf 'reader' >"$GN_TMP/reader"
KEY=(-k "$GN_TMP/key")
READER=(-k "$GN_TMP/reader")
# mem NODE CMD... - the command there
mem() { gn_exec "n$1" timeout 30 "$GN_BIN/ghostmem" "$2" -a "$GN_TMP/n$1.sock" "${@:3}"; }
# hold VAR NODE CMD... - in the background; $VAR is its process, $GN_TMP/VAR.log what it says
hold() { gn_spawn "$1" gn_exec "n$2" "$GN_BIN/ghostmem" "$3" -a "$GN_TMP/n$2.sock" "${@:4}"; }
says() { grep -qE "$2" "$GN_TMP/$1.log"; }
# gives CODE CMD... - exit code
gives()
{
	local want=$1 rc
	shift
	"$@"
	rc=$?
	[ "$rc" = "$want" ] || { echo "exit code $rc"; return 1; }
}
ended() { gn_wait 10 gn_gone "${!1}" && gives "$2" wait "${!1}"; }

# Each counter is in the manual.
described()
{
	local name
	mem 1 stat -j >"$GN_TMP/stat" || return 1
	for name in $(jq -r '.counters | keys[]' "$GN_TMP/stat"); do
		grep -qE "^\.It Va (.* , )?$name( , .*)?\$" "$GN_TOP/man/ghostmem.1" || { echo "$name"; return 1; }
	done
}
gn_check "counters are in the manual" described

# export -f, -K
head -c 300001 /dev/urandom >"$GN_TMP/file"
{ cat "$GN_TMP/file" && head -c $((1048576 - 300001)) /dev/zero; } >"$GN_TMP/whole"
hold out 1 export "${KEY[@]}" -K "$GN_TMP/reader" -f "$GN_TMP/file" begun 1M
gn_must gn_wait 10 says out '^begun: bus 0x[0-9a-f]*, 1048576 bytes'
gn_check "get -f: a region begins with the file it was exported with" \
	gives 0 mem 2 get "${KEY[@]}" -f "$GN_TMP/got" begun 0 1M
gn_check "and has zeros behind it" cmp "$GN_TMP/got" "$GN_TMP/whole"
gn_check "with the key for readers, too" gives 0 mem 2 get "${READER[@]}" -f "$GN_TMP/got" begun 4K 8K
gn_check "these bytes" cmp "$GN_TMP/got" <(tail -c +4097 "$GN_TMP/file" | head -c 8192)
gn_check "who has it cannot put" gives 4 mem 2 put "${READER[@]}" -t begun 0 x
gn_check "nor move" gn_not mem 1 move "${READER[@]}" -T n2 begun
echo wrong >"$GN_TMP/wrong"
gn_check "a wrong key" gives 4 mem 2 get -k "$GN_TMP/wrong" begun 0 8
gn_check "get -f to where nothing can be" gives 1 mem 2 get "${KEY[@]}" -f "$GN_TMP/no/file" begun 0 8
gn_check "the bytes are as they were" gives 0 mem 1 get "${KEY[@]}" -f "$GN_TMP/got" begun 0 1M
gn_check "all of them" cmp "$GN_TMP/got" "$GN_TMP/whole"
head -c 3000 /dev/urandom >"$GN_TMP/piece"
gn_check "put -f" gives 0 mem 2 put "${KEY[@]}" -f "$GN_TMP/piece" begun 100
gn_check "put is got" gives 0 mem 1 get "${KEY[@]}" -f "$GN_TMP/got" begun 100 3000
gn_check "as it was" cmp "$GN_TMP/got" "$GN_TMP/piece"
gn_check "the file is not written to" \
	cmp "$GN_TMP/file" <(head -c 300001 "$GN_TMP/whole")
gn_check "export -f: a file that is too long" gives 1 mem 1 export "${KEY[@]}" -f "$GN_TMP/file" long 4K
gn_check "export -f: no such file" gives 1 mem 1 export "${KEY[@]}" -f "$GN_TMP/none" long 4K

# Windows that are held
hold in 2 import "${KEY[@]}" begun
hold reader 2 import "${READER[@]}" -r -j begun
gn_check "import holds a window" gn_wait 10 says in '^begun: bus 0x[0-9a-f]*, 1048576 bytes'
gn_check "import -r holds one to read" gn_wait 10 says reader '"import":"begun"'
mapped() { grep -q "^[0-9a-f-]* $2 .*memfd:begun" "/proc/${!1}/maps"; }
gn_check "one can be written to" mapped in rw-s
gn_check "the other can be read" mapped reader r--s
gn_check "and not written to" gn_not mapped reader rw-s
gn_check "nor with the key to write" gives 0 mem 2 import "${KEY[@]}" -r -x "true" begun
gn_check "import -x: its exit code" gives 9 mem 2 import "${READER[@]}" -r -x "exit 9" begun

# watch: values, of a digit where all else is zero, then events
word() { mem 1 put "${KEY[@]}" -t begun 512K "$1"; }
gn_must word 5
hold watch 2 watch "${READER[@]}" -n 3 -i 10 begun 512K
for v in 5 6 7; do
	[ $v = 5 ] || gn_must word $v
	gn_check "watch says $v" gn_wait 10 says watch "^$((48 + v)) \(0x3$v\)"
done
gn_check "three values, and it ends" ended watch 0
hold events 2 watch "${READER[@]}" -j begun
# In poll(), so its window is served.
polls() { grep -q poll "/proc/$1/wchan"; }
# shellcheck disable=SC2154 # set by hold
gn_must gn_wait 10 polls "$events"
gn_check "moved to n3" mem 1 move "${KEY[@]}" -T n3 begun
gn_check "and back" mem 3 move "${KEY[@]}" -T n1 begun
gn_check "watch says that it moved" gn_wait 10 says events '"event":"moved"'
gn_check "import, too" gn_wait 10 says in '^moved 0x'
gn_must mem 1 revoke begun
gn_check "revoked: watch ends" ended events 5
gn_check "and says so" says events '"event":"revoked"'
gn_check "import ends" ended in 5
gn_check "import -r ends" ended reader 5
gn_check "the exporter ends" ended out 5
hold out 1 export "${KEY[@]}" again 4K
gn_must gn_wait 10 says out '^again: '
hold in 2 import "${KEY[@]}" again
gn_must gn_wait 10 says in '^again: '
gn_must kill -TERM "$in" "$out"
gn_check "import ends on a signal" ended in 0
gn_check "export, too" ended out 0

# A command takes the signals, as it would without us.
hold out 1 export "${KEY[@]}" -x "echo \$\$ >'$GN_TMP/command.new'; mv '$GN_TMP/command.new' '$GN_TMP/command'; exec sleep 100" run 4K
gn_check "export -x: the command runs" gn_wait 10 test -e "$GN_TMP/command"
command=$(cat "$GN_TMP/command")
# None blocked; SIGPIPE, which ghostmem ignores, not ignored.
signals()
{
	grep -E '^Sig(Blk|Ign)' "/proc/$1/status"
	grep -qE '^SigBlk:\s0+$' "/proc/$1/status" &&
		grep -qE '^SigIgn:\s[0-9a-f]{12}[02468ace][0-9a-f]{3}$' "/proc/$1/status"
}
gn_check "with the signals that we had" signals "$command"
gn_must kill -TERM "$out"
gn_check "a signal ends it" gn_wait 10 gn_gone "$command"
gn_check "and export" ended out 1

# What is exported ends with the exporter, and its name is free.
gn_check "what it exported is gone" gives 5 mem 2 get "${KEY[@]}" again 0 8
gn_check "export -x: a region for a command" \
	gives 0 mem 1 export "${KEY[@]}" -x "GHOSTMEM_KEY=secret $GN_BIN/ghostmem get -a $GN_TMP/n1.sock again 0 8" again 4K
gn_check "it is gone, too" gives 5 mem 2 get "${KEY[@]}" again 0 8
hold out 1 export "${KEY[@]}" away 4K
gn_must gn_wait 10 says out '^away: '
gn_check "moved to n2" mem 1 move "${KEY[@]}" -T n2 away
gn_check "revoke at a node that does not serve it" gives 5 mem 1 revoke away
gn_must kill -TERM "$out"
gn_check "its exporter ends" ended out 0
gn_check "what has moved stays" gives 0 mem 3 get "${KEY[@]}" away 0 8
# One that is killed cannot say so: its agent goes on, and the next agent knows nothing.
hold out 1 export "${KEY[@]}" kept 4K
gn_must gn_wait 10 says out '^kept: '
gn_stop "$out" KILL
gn_check "exporter killed: its agent serves it" gives 0 mem 2 get "${KEY[@]}" kept 0 8
gn_check "exporter killed: the name is taken" gives 1 mem 1 export "${KEY[@]}" kept 4K
gn_stop "${AGENT[1]}" KILL
share_agent 1
known() { mem 3 ls | grep -q "^$1 "; }
gn_check "and its agent: the directory has the region" known kept
gn_check "nobody else ends it" gives 5 mem 3 revoke kept
gn_check "until it is revoked" gives 0 mem 1 revoke kept
gn_check "then not" gn_not known kept
gn_check "nor again" gives 5 mem 1 revoke kept
gn_check "memory of a program's own, windows to read" gn_exec n2 "$GN_BIN/tests/share/given" \
	"$GN_TMP/n1.sock" "$GN_TMP/n2.sock"
exit $GN_FAILED
