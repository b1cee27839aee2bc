#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# The first commands of docs/share.md, word for word (guide_hosts.sh has the others); the
# command line's errors and exit codes; fork and munmap of a window; the key-value cache.

# shellcheck disable=SC2317,SC2329 # functions called through a name
# shellcheck source=tests/share/lib.sh
. "$(dirname "$0")/lib.sh"

gn_ns host
PATH=$GN_BIN:$PATH
mkdir -p /run/ghostmem
gn_must mount -t tmpfs guide /run/ghostmem

awk '/^<!-- test: file/ { on = 1; next } on && /^```sh/ { copy = 1; next }
	/^```/ { copy = on = 0 } copy' "$GN_TOP/docs/share.md" >"$GN_TMP/guide"
grep -q 'ghostmem put' "$GN_TMP/guide" || gn_die "no commands in the guide"
gn_must gn_exec host timeout 60 bash -e "$GN_TMP/guide" >"$GN_TMP/guide.out" 2>"$GN_TMP/guide.err"
gn_check "the guide's value arrives" grep -q "hello from node 2" "$GN_TMP/guide.out"
gn_check "the guide's counters" grep -qE 'counters.gets|imports' "$GN_TMP/guide.out"

export GHOSTMEM_KEY="a secret of your choice" GHOSTMEM_AGENT=/run/ghostmem/n2.sock
on() { gn_exec host "$@"; }
# gives CODE CMD... - exit code, and for errors a remedy
gives()
{
	local want=$1 rc
	shift
	on "$@"
	rc=$?
	[ "$rc" = "$want" ] || { echo "exit code $rc"; return 1; }
}
bus=$(on ghostmem ls -j | jq '.[0].bus')
gn_check "get by bus address" gives 0 ghostmem get "$(printf '0x%x' "$bus")" 4096 17
gn_check "no agent: 3" gives 3 ghostmem ls -a /run/ghostmem/none
gn_check "wrong key: 4" gives 4 env GHOSTMEM_KEY=x ghostmem get cache 0 8
gn_check "no such region: 5" gives 5 ghostmem get nothing 0 8
gn_check "beyond the end: 5" gives 5 ghostmem get cache 16M 1
gn_check "usage: 2" gives 2 ghostmem get cache
gn_check "no size: 2" gives 2 ghostmem export other 5000
gn_check "name taken" gives 1 ghostmem export -a /run/ghostmem/n1.sock cache 16M
gn_check "error as JSON" bash -c "nsenter --net=/run/netns/host ghostmem get -j cache 16M 1 |
	jq -e '.exit == 5 and .remedy != null'"
for command in export import ls stat get put watch bench move revoke; do
	on ghostmem $command --help | grep -q "^usage: ghostmem $command" ||
		gn_fail "help of $command" "none"
done
gn_ok "each command has its help"
gn_check "bench runs" gives 0 ghostmem bench -n 200 cache

head -c 3000000 /dev/urandom >"$GN_TMP/file"
copy()
{
	on ghostmem put cache 1M "$GN_TMP/file" &&
		on ghostmem get -a /run/ghostmem/n1.sock cache 1M 3000000 | cmp - "$GN_TMP/file"
}
gn_check "3 MB put on one node, got on the other" copy
gn_spawn KV on ghostmem export -a /run/ghostmem/n1.sock words 1M
kv_known() { on ghostmem ls | grep -q '^words '; }
gn_must gn_wait 5 kv_known
kv()
{
	on ghostmem-kv words set one 1 && on ghostmem-kv words set two 2 &&
		on ghostmem-kv words set one 11 &&
		[ "$(GHOSTMEM_AGENT=/run/ghostmem/n1.sock on ghostmem-kv words get one)" = 11 ] &&
		[ "$(on ghostmem-kv words list | wc -l)" = 2 ]
}
gn_check "key-value cache" kv
gn_check "sparse region of 8 GiB" gives 0 ghostmem export -x \
	"ghostmem put -t big 8589934000 end && ghostmem get big 8589934000 3 | grep end" big 8G
gn_check "region of one page" gives 0 ghostmem export -x "ghostmem get small 4088 8" small 4K
gn_check "threads, fork, munmap, lock, vectors" on "$GN_BIN/tests/share/calls" \
	/run/ghostmem/n1.sock /run/ghostmem/n2.sock
exit $GN_FAILED
