# shellcheck shell=bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Nodes n1, n2, n3 in network namespaces on one bridge, 10.7.0.1 to .3, each with its agent
# and one application (node.c); the directory is a file. After lib.sh of tests/netns.

# shellcheck source=tests/netns/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../netns/lib.sh"
# Milliseconds; longer than a busy machine keeps an agent from its CPU. Scripts in which an owner is
# lost set a shorter one.
SHARE_LEASE=${SHARE_LEASE:-5000}
# shellcheck disable=SC2034 # for the scripts that read them
declare -A AGENT APP APP_IN APP_OUT
# Of every agent. All are on one host, but their connections should cross a network.
SHARE_ARGS=(--shortcut off)

# share_net N - namespaces n1..nN and a bridge between them
share_net()
{
	local i
	gn_ns sw
	gn_must gn_exec sw ip link add br0 type bridge
	gn_must gn_exec sw ip link set br0 up
	for i in $(seq "$1"); do
		gn_ns "n$i"
		gn_veth "n$i" eth0 sw "p$i"
		gn_must gn_exec sw ip link set "p$i" master br0
		gn_must gn_exec "n$i" ip addr add "10.7.0.$i/24" dev eth0
	done
}

# share_ca DIR HOST... - credentials of one authority, that of SHARE_CA if it is set: for X.509,
# valid for hosts 10.7.0.I as nodes nI, =10.7.0.I as none, nodes nI; and PSK
share_ca()
{
	local dir=$1 w host
	shift
	gn_must mkdir -p "$dir"
	(
		cd "$dir" || exit
		if [ "${SHARE_CA:-}" ]; then
			cp "$SHARE_CA"/ca-*.pem . || exit
		else
			certtool --generate-privkey --key-type=ecdsa --outfile ca-key.pem &&
				printf 'cn = "test"\nca\ncert_signing_key\n' >ca.info &&
				certtool --generate-self-signed --load-privkey ca-key.pem \
					--template ca.info --outfile ca-cert.pem || exit
		fi
		for w in server client; do
			printf 'cn = node\nsigning_key\ntls_www_%s\n' $w >$w.info
			for host; do
				case $host in
				n*) echo "dns_name = $host" ;;
				=*) echo "ip_address = ${host#=}" ;;
				*) printf 'ip_address = %s\ndns_name = n%s\n' "$host" "${host##*.}" ;;
				esac >>$w.info
			done
			certtool --generate-privkey --key-type=ecdsa --outfile $w-key.pem &&
				certtool --generate-certificate --load-ca-certificate ca-cert.pem \
					--load-ca-privkey ca-key.pem --load-privkey $w-key.pem \
					--template $w.info --outfile $w-cert.pem || exit
		done
		psktool -u ghostmem -p keys.psk
	) >"$dir.log" 2>&1 || gn_die "no credentials: $(tail -n 1 "$dir.log")"
}

share_up() { gn_exec "n$1" "$GN_BIN/tests/share/node" "$GN_TMP/n$1.sock" </dev/null; }

# share_secure - SHARE_TLS: agents of n1 to n3 use it, psk or x509
share_secure()
{
	[ -n "${SHARE_TLS:-}" ] || return 0
	share_ca "$GN_TMP/good" 10.7.0.{1,2,3}
	SHARE_ARGS+=(--tls "$SHARE_TLS" --tls-dir "$GN_TMP/good")
}

# share_agent_exec I [ARGS...] - the agent of node I, for gn_spawn
share_agent_exec()
{
	local i=$1
	shift
	gn_exec "n$i" "$GN_BIN/ghostmemd" --node "n$i" --listen "tcp:10.7.0.$i:7400" \
		--directory "file:$GN_TMP/dir.json" --local "$GN_TMP/n$i.sock" \
		--lease "$SHARE_LEASE" "${SHARE_ARGS[@]}" "$@"
}

# share_agent I [ARGS...] - start the agent of node I; returns when it answers
share_agent()
{
	local pid
	gn_spawn pid share_agent_exec "$@"
	# shellcheck disable=SC2154,SC2034 # set by gn_spawn; scripts read AGENT and APP
	AGENT[$1]=$pid
	gn_wait 5 share_up "$1" || gn_die "agent of n$1 does not answer"
}

# share_app I [NAME] - an application on node I, known as NAME (default I)
share_app()
{
	local i=$1 name=${2:-$1} in out
	mkfifo "$GN_TMP/$name.in" "$GN_TMP/$name.out"
	GN_REPLACE=1 gn_exec "n$i" "$GN_BIN/tests/share/node" "$GN_TMP/n$i.sock" \
		<"$GN_TMP/$name.in" >"$GN_TMP/$name.out" 2>"$GN_TMP/$name.log" &
	# shellcheck disable=SC2034
	APP[$name]=$!
	GN_PIDS+=($!)
	exec {in}>"$GN_TMP/$name.in" {out}<"$GN_TMP/$name.out"
	APP_IN[$name]=$in
	APP_OUT[$name]=$out
}

tell() { echo "${@:2}" >&"${APP_IN[$1]}"; }

# hear NAME - its next answer, within 20 s
hear()
{
	local line
	IFS= read -r -t 20 line <&"${APP_OUT[$1]}" || line="no answer"
	echo "$line"
}

# ask NAME COMMAND... - the answer
ask()
{
	tell "$@"
	hear "$1"
}

# expect CASE WANTED NAME COMMAND...
expect()
{
	local got
	got=$(ask "${@:3}")
	# shellcheck disable=SC2053 # a pattern, on purpose
	if [[ $got == $2 ]]; then
		gn_ok "$1"
	else
		gn_fail "$1" "$3: '${*:4}' gave '$got', not '$2'"
	fi
}

# etcd_start - etcd in namespace sw, at $URL; on return it answers
etcd_up() { gn_exec sw env ETCDCTL_API=3 etcdctl --endpoints "$URL" endpoint health; }
etcd_start()
{
	gn_spawn ETCD gn_exec sw etcd --name t --data-dir "$GN_TMP/etcd" --log-level error \
		--listen-client-urls "$URL" --advertise-client-urls "$URL" \
		--listen-peer-urls http://127.0.0.1:2380 \
		--initial-advertise-peer-urls http://127.0.0.1:2380 \
		--initial-cluster t=http://127.0.0.1:2380 --unsafe-no-fsync
	gn_wait 15 etcd_up || gn_die "etcd does not answer"
}
