#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# docs/share.md from "Over hosts" to "A program", word for word: etcd, two hosts, a key made
# by psktool, the program built against the installed library. Only addresses and names are
# the other host's on the other host.

# shellcheck disable=SC2317,SC2329 # functions called through a name
# shellcheck source=tests/share/lib.sh
. "$(dirname "$0")/lib.sh"

ROOT=$GN_TMP/root
PATH=$GN_BIN:$PATH

# block NAME - what the guide has after "<!-- test: NAME -->"
block()
{
	awk -v mark="<!-- test: $1 -->" '$0 == mark { on = 1; next } on && /^```[a-z]/ { copy = 1; next }
		/^```/ { copy = on = 0 } copy' "$GN_TOP/docs/share.md" >"$GN_TMP/block.$1"
	[ -s "$GN_TMP/block.$1" ] || gn_die "no block $1 in the guide"
}
# In place of systemd, which is not here: what Debian's unit runs.
mkdir "$GN_TMP/bin"
cat >"$GN_TMP/bin/systemctl" <<'END'
#!/bin/sh
[ "$*" = "restart etcd" ] || exit 1
grep -qx 'EnvironmentFile=-/etc/default/%p' /lib/systemd/system/etcd.service || exit 1
set -a
. /etc/default/etcd
ETCD_NAME=n1 ETCD_DATA_DIR=/run/ghostmem/etcd exec /usr/bin/etcd
END
chmod +x "$GN_TMP/bin/systemctl"
PATH=$GN_TMP/bin:$PATH
for name in etcd agent export use psk tls program build kv; do block $name; done

# Two hosts: what they do not share is a network and /run/ghostmem. Nothing of the real /etc
# changes.
share_net 2
gn_must mkdir -p /run/ghostmem
gn_must cp -a /etc "$GN_TMP/etc"
gn_must mount --bind "$GN_TMP/etc" /etc
declare -A HOST
for i in 1 2; do
	gn_spawn pid unshare --mount nsenter --net="/run/netns/n$i" -- \
		sh -c 'mount -t tmpfs host /run/ghostmem && touch /run/ghostmem/up && exec sleep infinity'
	HOST[$i]=$pid
done
# host I CMD... - there, in its /run/ghostmem
host()
{
	local pid=${HOST[$1]}
	shift
	# shellcheck disable=SC2031 # see gn_spawn
	${GN_REPLACE:+exec} nsenter -t "$pid" --mount --net -- env --chdir=/run/ghostmem "$@"
}
# says I NAME - the commands of a block, as host I says them
says()
{
	sed "s/--node n1 --listen tcp:10.7.0.1/--node n$1 --listen tcp:10.7.0.$1/" "$GN_TMP/block.$2" >"$GN_TMP/$2.$1"
	host "$1" "$BASH" -e "$GN_TMP/$2.$1"
}
ready() { host "$1" test -e up; }
for i in 1 2; do gn_must gn_wait 10 ready $i; done

answers() { host "$1" ghostmem ls; }
knows() { host 2 ghostmem ls | grep -q "^$1 "; }
etcd_up() { host 2 env ETCDCTL_API=3 etcdctl --endpoints http://10.7.0.1:2379 endpoint health; }
used() { [ "$(says 2 use)" = "hello from another host" ]; }
# up BLOCK - agents of both hosts, and a region of the first
up()
{
	local i
	for i in 1 2; do
		gn_spawn "AGENT$i" says $i "$1"
		gn_wait 20 answers $i || { gn_fail "agents as $1 says" "n$i does not answer"; return 1; }
	done
	gn_spawn EXPORT says 1 export
	gn_wait 20 knows cache || { gn_fail "region of $1" "n2 does not find it"; return 1; }
	gn_ok "agents as $1 says, and a region"
}
down()
{
	local p
	for p in $(pidof -x ghostmem) $(pidof ghostmemd); do
		kill -TERM "$p"
		gn_wait 10 gn_gone "$p"
	done
}

gn_spawn ETCD says 1 etcd
gn_check "etcd runs" gn_wait 30 etcd_up || exit 1
up agent || exit 1
gn_check "put and got on another host" gn_wait 20 used

# ---- a program ---------------------------------------------------------------------------------
installed() { flock "$GN_BIN/install.lock" make -s -C "$GN_TOP" B="$GN_BIN" DESTDIR="$ROOT" PREFIX=/usr install; }
cp "$GN_TMP/block.program" "$GN_TMP/program.c"
# run I - compile there and run; what it prints
run()
{
	host "$1" env --chdir="$GN_TMP" PKG_CONFIG_SYSROOT_DIR="$ROOT" PKG_CONFIG_PATH="$ROOT/usr/lib/pkgconfig" \
		"$BASH" -e "$GN_TMP/block.build"
}
counts() { [ "$(run 1)" = "stored 1, added to 0" ] && [ "$(run 2)" = "stored 2, added to 1" ]; }
gn_check "the library is installed" installed
gn_check "the program is built, and counts on both hosts" counts
# Not through a pipe: the exporter stays.
cached() { GHOSTMEM_KEY=k says 2 kv >"$GN_TMP/kv.out" && [ "$(tail -n 1 "$GN_TMP/kv.out")" = green ]; }
gn_check "key-value cache" cached

# ---- encrypted -----------------------------------------------------------------------------------
down
gn_check "a key" says 1 psk
up tls || exit 1
gn_check "put and got by TLS" gn_wait 20 used
stranger()
{
	host 2 env GHOSTMEM_KEY="a secret of your choice" GHOSTMEM_TLS_DIR="$GN_TMP/none" \
		ghostmem get cache 0 8
}
mkdir "$GN_TMP/none"
psktool -u ghostmem -p "$GN_TMP/none/keys.psk" >"$GN_TMP/psktool.out" 2>&1
gn_check "not with another key" gn_not stranger
exit $GN_FAILED
