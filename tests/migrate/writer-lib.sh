# shellcheck shell=bash
# SPDX-License-Identifier: BSD-2-Clause
#
# QEMUs without a device, and a guest for them that writes all the time (writer.S). To be
# sourced after tests/vhost/qemu-lib.sh:
#
#	. "$(dirname "$0")/writer-lib.sh"
#	writer_image FILE [PAGES=112 ...]
#	plain NAME QEMU-ARG...
#	ask NAME COMMAND [ARGUMENTS-JSON]
#
# Their monitor for vm-migrate is $GN_TMP/NAME/qmp. They have another, which is ours alone: a
# pair of pipes, so that asking takes neither a process nor a connection.

WRITER_RAM=$GN_BIN/tests/migrate/guest/writer_ram
[ -x "$WRITER_RAM" ] || gn_die "no $WRITER_RAM: run make migrate-tests"
# Where its counters are, in all guests.
WRITER_HOT=0x120000
declare -A RAM RAM_FDS MON_IN MON_OUT

# writer_image FILE [PAGES=N] [FILL=ADDR] [END=ADDR] [STRIDE=N] [SEED=N] - a disk that boots it, as
# writer.S says; without: 112 pages of counters and nothing else
writer_image()
{
	local file=$1 a args=()
	local -A is=([PAGES]=112 [FILL]=0 [END]=0 [STRIDE]=1 [SEED]=1 [FORGET]=1)
	shift
	for a; do
		is[${a%%=*}]=${a#*=}
	done
	for a in "${!is[@]}"; do
		args+=(--defsym "$a=${is[$a]}")
	done
	gn_must as --32 -o "$file.o" "${args[@]}" --defsym "HOT=$WRITER_HOT" \
		"$GN_TOP/tests/migrate/writer.S"
	gn_must ld -m elf_i386 -Ttext 0x7c00 --oformat binary -o "$file" "$file.o"
	gn_must truncate -s 1M "$file"
	rm -f "$file.o"
}

# without_ours CMD... - run it, without what we have open of other QEMUs
without_ours()
{
	local fd
	# shellcheck disable=SC2048 # each may be several, or none
	for fd in ${RAM_FDS[*]} ${MON_IN[*]} ${MON_OUT[*]}; do
		exec {fd}<&-
	done
	exec "$@"
}

# plain NAME ARGS... - a QEMU that answers; ARGS tell what its guest is, the BIOS if nothing does
plain()
{
	local name=$1 dir=$GN_TMP/$1 fd pid=PLAIN_$1 end=$((SECONDS + 20 * GN_PATIENCE))
	shift
	plain_close "$name"
	rm -rf "$dir"
	gn_must mkdir "$dir"
	gn_must mkfifo "$dir/mon.in" "$dir/mon.out"
	gn_spawn "PLAIN_$name" without_ours qemu-system-x86_64 -display none -nodefaults -no-user-config \
		-qmp "unix:$dir/qmp,server=on,wait=off" \
		-chardev "pipe,id=mon,path=$dir/mon" -mon chardev=mon,mode=control "$@"
	# shellcheck disable=SC2004 # not an arithmetic index
	QEMU_PID[$name]=${!pid}
	exec {fd}<>"$dir/mon.in"
	MON_IN[$name]=$fd
	exec {fd}<>"$dir/mon.out"
	MON_OUT[$name]=$fd
	while [ $SECONDS -lt $end ] && ! gn_gone "${!pid}"; do
		if read -r -t 0.5 -u "$fd"; then	# its greeting
			ask "$name" qmp_capabilities >/dev/null || echo "QEMU $name: ${ANSWER:-silent}"
			[ "$ANSWER" ]
			return
		fi
	done
	echo "QEMU $name does not greet"
	return 1
}

# plain_close NAME - what we have open of it
plain_close()
{
	local fd
	ram_close "$1"
	for fd in ${MON_IN[$1]-} ${MON_OUT[$1]-}; do
		exec {fd}<&-
	done
	MON_IN[$1]='' MON_OUT[$1]=''
}

# ask NAME COMMAND [ARGUMENTS-JSON] - by our monitor; a line of JSON, also in ANSWER
ask()
{
	local part='' line end=$((SECONDS + 20 * GN_PATIENCE))
	ANSWER=
	printf '{"execute":"%s"%s}\n' "$2" "${3:+,\"arguments\":$3}" >&"${MON_IN[$1]}"
	while [ $SECONDS -lt $end ]; do
		if ! read -r -t 0.5 -u "${MON_OUT[$1]}" line; then
			part+=$line
			! gn_gone "${QEMU_PID[$1]}" || break
			continue
		fi
		line=$part$line
		part=
		if [[ $line == '{"return"'* || $line == '{"error"'* ]]; then	# no event
			ANSWER=$line
			break
		fi
	done
	echo "${ANSWER:-no answer to $2}"
	[[ $ANSWER == '{"return"'* ]]
}

# ram_open NAME - its memory for writer_ram, in RAM[NAME], for as long as it is not closed
ram_open()
{
	local f fd
	ram_close "$1"
	while read -r f; do
		exec {fd}<"$f" || return 1
		RAM_FDS[$1]+=" $fd"
		RAM[$1]+=${RAM[$1]:+,}/proc/$BASHPID/fd/$fd
	done < <(find "/proc/${QEMU_PID[$1]}/fd" -lname '*memory-backend-memfd*' | sort -V)
	[ "${RAM[$1]}" ]
}

ram_close()
{
	local fd
	for fd in ${RAM_FDS[$1]-}; do
		exec {fd}<&-
	done
	RAM[$1]='' RAM_FDS[$1]=''
}

# counts NAME - what its first counter says
counts() { "$WRITER_RAM" "$WRITER_HOT" 0 "${RAM[$1]}"; }
# beyond NAME N - has it passed that?
beyond() { [ "$(counts "$1")" -gt "$2" ]; }
