# shellcheck shell=bash
# SPDX-License-Identifier: BSD-2-Clause
#
# QEMU guests behind ghostnicd's vhost-user port, for the scripts beside this file:
#
#	. "$(dirname "$0")/qemu-lib.sh"
#	qemu_initrd
#	qemu_boot NAME SOCKET [QEMU-ARG...]
#	guest NAME COMMAND
#
# Debian's 6.1 kernel and a busybox initramfs (tests/vm) under Debian's QEMU, emulated:
# no /dev/kvm is needed. Guests are spoken to through a serial port, so that nothing but
# the tested traffic is on their network. Everything ends with the script (tests/netns).
#
# Environment: GN_BIN, the build tree.

# shellcheck source=tests/netns/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../netns/lib.sh"
export B=$GN_BIN
# shellcheck source=tests/vm/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../vm/lib.sh"

QEMU_INITRD=$GN_TMP/initrd
QEMU_APPEND=$VM_APPEND
QEMU_SEQ=0
QEMU_BOOT_S=90		# CPU time of an emulated boot: 4 s
GUEST_S=60
QEMU_ITEMS=()
declare -A QEMU_PID QEMU_FD

command -v qemu-system-x86_64 >/dev/null || gn_die "qemu-system-x86_64 is missing: make deps"

# qemu_initrd - what guests boot; QEMU_ITEMS: more for its file system, see mkinitrd.sh
qemu_initrd()
{
	vm_kernel
	vm_initrd "$QEMU_INITRD" "$GN_TOP/tests/vhost/guest/agent.sh:/test" \
		@virtio_pci @virtio_net ethtool socat iperf3 "${QEMU_ITEMS[@]}"
}

# qemu_boot NAME SOCKET [QEMU-ARG...] - a guest, ready for guest() on return unless it
# waits for a migration (-incoming)
# QEMU_CHARDEV, QEMU_NETDEV, QEMU_DEVICE: more options of these, each with its comma
# before; QEMU_MAC; QEMU_SMP, QEMU_MB
qemu_boot()
{
	local name=$1 sock=$2 dir=$GN_TMP/$1 mb=${QEMU_MB:-256} fd pid=QEMU_$1
	shift 2
	[ -n "${QEMU_NETBOOT-}" ] ||
		set -- "$@" -kernel "$VMLINUX" -initrd "$QEMU_INITRD" -append "$QEMU_APPEND"

	rm -rf "$dir"
	gn_must mkdir "$dir"
	gn_must mkfifo "$dir/tty.in" "$dir/tty.out"
	exec {fd}<>"$dir/tty.in"
	QEMU_FD[$name]=$fd
	: >"$dir/out"
	gn_spawn "CAT_$name" sh -c "exec cat <>$dir/tty.out >>$dir/out"
	# vectors=0: with MSI-X Debian 12's QEMU crashes when an emulated guest's driver
	# starts on a vhost-user device.
	gn_spawn "QEMU_$name" qemu-system-x86_64 -machine memory-backend=m \
		-accel tcg,thread=multi -cpu Nehalem -smp "${QEMU_SMP:-1}" -m "$mb" \
		-object "memory-backend-memfd,id=m,size=${mb}M,share=on" \
		-display none -nodefaults -no-user-config \
		-chardev "socket,id=c,path=$sock${QEMU_CHARDEV-,reconnect=1}" \
		-netdev "vhost-user,id=n,chardev=c${QEMU_NETDEV-}" \
		-device "virtio-net-pci,netdev=n,mac=${QEMU_MAC:-$GN_MAC1},vectors=0${QEMU_DEVICE-,romfile=}" \
		-serial "file:$dir/console" -serial "pipe:$dir/tty" \
		-qmp "unix:$dir/qmp,server=on,wait=off" \
		"$@"
	QEMU_PID[$name]=${!pid}
	case " $* " in
	*" -incoming "*) return ;;
	esac
	qemu_ready "$name" 1 || gn_die "guest $name does not boot"
}

# qemu_ready NAME TIMES - has it come up so often?
qemu_ready()
{
	gn_wait $QEMU_BOOT_S qemu_up "$1" "$2" && ! gn_gone "${QEMU_PID[$1]}" && return
	tail -n 20 "$GN_TMP/$1/console" "$GN_TMP/QEMU_$1.log" | tr -d '\r' | sed 's/^/#   /'
	return 1
}

qemu_up()
{
	local left
	gn_gone "${QEMU_PID[$1]}" && return
	guest_said "$1"
	left=${SAID//$'\n=ready'/}
	[ $((${#SAID} - ${#left})) -ge $((7 * $2)) ]
}

# qemu_end NAME...
qemu_end()
{
	local name fd
	for name; do
		gn_stop "${QEMU_PID[$name]}" KILL
		fd=${QEMU_FD[$name]}
		exec {fd}>&-
	done
}

# guest_said NAME - what came by its port, in SAID. Without a process: it is asked 20 times a second,
# while the guest has something to do
guest_said()
{
	local part
	SAID=$'\n'
	while IFS= read -rd '' part; do	# up to a NUL: one comes with a reset
		SAID+=$part
	done <"$GN_TMP/$1/out"
	SAID+=$part
}
guest_answered() { guest_said "$1" && [[ $SAID == *"=$2 "* ]]; }

# guest NAME COMMAND - one line of shell; its output and status
guest()
{
	local dir=$GN_TMP/$1 seq rc

	# Callers run in subshells too: the number has to be new in all of them.
	seq=$BASHPID.$((++QEMU_SEQ)).$EPOCHREALTIME
	echo "$seq $2" >&"${QEMU_FD[$1]}"
	gn_wait $GUEST_S guest_answered "$1" "$seq" || { echo "no answer to: $2"; return 1; }
	sed "1,/^+$seq\$/d;/^=$seq /,\$d" "$dir/out"
	rc=$(sed -n "s/^=$seq //p" "$dir/out")
	return "$rc"
}

# guest_up NAME N [MTU] - the N-th address, as gn_addr
guest_up()
{
	local out

	out=$(guest "$1" "echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad; ip link set eth0 mtu ${3:-1500} up && ip addr add 10.0.0.$2/24 dev eth0 && ip -6 addr add fd00::$2/64 dev eth0") ||
		gn_die "no address in $1: $out"
}

# qmp NAME COMMAND [ARGUMENTS-JSON] - what it returned, as JSON
qmp()
{
	local line n=0
	# The second answer ends the conversation: socat keeps its half open until then.
	while [ $n -lt 2 ] && read -r line; do
		[[ $line != '{"return"'* && $line != '{"error"'* ]] || n=$((n + 1))
	done < <(printf '%s\n' '{"execute":"qmp_capabilities"}' \
		"{\"execute\":\"$2\"${3:+,\"arguments\":$3}}" |
		socat -t 10 - "UNIX-CONNECT:$GN_TMP/$1/qmp" 2>/dev/null)
	[ $n = 2 ] || return 1
	line=${line%$'\r'}
	if [[ $line == '{"error"'* ]]; then
		echo "$line" >&2
		return 1
	fi
	line=${line#*: }
	printf '%s\n' "${line%\}}"
}

# answers ADDRESS [NS] - one ping
answers() { gn_exec "${2:-peer}" ping -q -c 1 -W 1 "$1"; }

# guest_answers NAME ADDRESS
guest_answers() { guest "$1" "ping -q -c 1 -W 1 $2"; }

# copy_in NAME ADDRESS - the file of gn_file from the peer to the guest
copy_in()
{
	local addr=$2 fam=TCP4 got
	case $addr in
	*:*) fam=TCP6; addr="[$addr]" ;;
	esac
	guest "$1" "rm -f /tmp/sum; socat -u $fam-LISTEN:9000,reuseaddr SYSTEM:'sha256sum >/tmp/s; mv /tmp/s /tmp/sum' >/tmp/socat 2>&1 &"
	gn_wait 20 guest "$1" "netstat -ltn | grep -q :9000" || return 1
	gn_exec peer timeout 80 socat -u "OPEN:$GN_TMP/file" "$fam:$addr:9000" || return 1
	gn_wait 40 guest "$1" "test -s /tmp/sum" || return 1
	got=$(guest "$1" "cat /tmp/sum")
	[ "$got" = "$GN_SUM" ] || { echo "sent $GN_SUM, got $got"; return 1; }
}

# copy_out NAME ADDRESS MIB - random bytes from the guest to the peer
copy_out()
{
	local addr=$2 fam=TCP4 got sum
	case $addr in
	*:*) fam=TCP6; addr="[$addr]" ;;
	esac
	sum=$(guest "$1" "head -c $(($3 << 20)) /dev/urandom >/tmp/file; sha256sum </tmp/file") || return 1
	gn_spawn RECV gn_exec peer timeout 80 socat -u "$fam-LISTEN:9000,reuseaddr" \
		"SYSTEM:sha256sum >$GN_TMP/sum"
	gn_wait 5 gn_listening peer 9000 || return 1
	guest "$1" "timeout 80 socat -u OPEN:/tmp/file $fam:$addr:9000" || return 1
	gn_wait 20 gn_gone "$RECV" || return 1
	gn_wait 5 test -s "$GN_TMP/sum"
	got=$(cat "$GN_TMP/sum")
	rm -f "$GN_TMP/sum"
	[ "$got" = "$sum" ] || { echo "sent $sum, got $got"; return 1; }
}

# qemu_host MTU [DAEMON-ARG...] - the usual world with the daemon, vm1 behind
# $GN_TMP/vm1.vu, vm2 behind $GN_TMP/vm2.vu
qemu_host()
{
	gn_world "$1"
	shift
	qemu_daemon "$@"
}

# QEMU_LISTENS: ",client": it is vm2's QEMU that listens
qemu_daemon()
{
	gn_must gn_daemon host --iface h0 \
		--instance "vm1,mac=$GN_MAC1,port=vhost-user:$GN_TMP/vm1.vu" \
		--instance "vm2,mac=$GN_MAC2,port=vhost-user:$GN_TMP/vm2.vu${QEMU_LISTENS-}" "$@"
}
