#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Run every test. Called by `make test`; needs root and the packages of packages.txt.
#
#	B=build tests/run.sh [GROUP...]		GROUP: build unit asan tsan xdp netns vm
#						vhost fuzz misc; default all
#
# One line per program, a log of each in $B/test/, the tail of it on failure. The last
# line is "N passed, N failed, N skipped": cmocka programs and network tests count by
# their cases, everything else by program. A skip that ALLOWED_SKIPS does not name is
# a failure. Exit status 0: nothing failed.
set -u

cd "$(dirname "$0")/.." || exit 1
export B=${B:-$PWD/build}
export GN_BIN=$B
export FUZZ_SECONDS=${FUZZ_SECONDS:-20}
unset MAKEFLAGS MAKELEVEL MFLAGS	# of the make that called
LOGS=$B/test
JOBS=$(nproc)
passed=0
failed=0
skips=()

# What may be skipped, and why: a pattern of GROUP/PROGRAM/CASE each.
ALLOWED_SKIPS='
unit/test_csum/*avx*		the CPU lacks the instruction set
netns/loader/beside xdp-filter	this kernel has no freplace; vm/loader runs it on one that has
'

allowed()
{
	local pattern
	while IFS=$'\t' read -r pattern _; do
		# shellcheck disable=SC2254 # a pattern, on purpose
		case $1 in
		$pattern) [ -n "$pattern" ] && return 0 ;;
		esac
	done <<<"$ALLOWED_SKIPS"
	return 1
}

# skip CASE WHY
skip()
{
	if allowed "$1"; then
		skips+=("$1: ${2:-no reason given}")
	else
		failed=$((failed + 1))
		echo "  not an allowed skip: $1: ${2:-no reason given}"
	fi
}

# report NAME LOG OK BAD - a program's line, and its log's end if it failed
report()
{
	passed=$((passed + $3))
	failed=$((failed + $4))
	if [ "$4" = 0 ]; then
		printf '  ok    %-34s %4d\n' "$1" "$3"
	else
		printf '  FAIL  %-34s %4d of %d\n' "$1" "$4" $(($3 + $4))
		grep -E '^(not ok|\[  (ERROR|FAILED))' "$2" | head -n 20 | sed 's/^/        /'
		tail -n 40 "$2" | sed 's/^/      | /'
	fi
}

# limited SECONDS LOG CMD... - run with a deadline, no input, all output in LOG
limited()
{
	local seconds=$1 log=$2 rc
	shift 2
	mkdir -p "$(dirname "$log")"
	timeout -k 10 "$seconds" "$@" >"$log" 2>&1 </dev/null
	rc=$?
	[ $rc != 124 ] && [ $rc != 137 ] || echo "not ok: stopped after $seconds s" >>"$log"
	return $rc
}

# one NAME SECONDS CMD... - a test that is one case
one()
{
	local name=$1 log=$LOGS/$1.log seconds=$2
	shift 2
	if limited "$seconds" "$log" "$@"; then
		report "$name" "$log" 1 0
	else
		report "$name" "$log" 0 1
		return 1
	fi
}

# cases NAME SECONDS CMD... - a test that prints its cases: TAP of cmocka, or lib.sh's lines
cases()
{
	local name=$1 log=$LOGS/$1.log seconds=$2 ok bad rc line plan nskip
	shift 2
	limited "$seconds" "$log" env CMOCKA_MESSAGE_OUTPUT=TAP "$@"
	rc=$?

	nskip=0
	while read -r line; do
		nskip=$((nskip + 1))
		line=${line#skip }
		skip "$name/${line%%:*}" "${line#*:}"
	done < <(sed -nE -e 's/^skip (.*)/\1/p' \
		-e 's/^ok [0-9]+ - ([^ ]*) # SKIP ?(.*)/\1: \2/p' \
		-e 's/^not ok [0-9]+ # SKIP ([^ ]*)/\1: /p' "$log")
	ok=$(grep -E '^ok ' "$log" | grep -vc '# SKIP')
	bad=$(grep -E '^not ok' "$log" | grep -vc '# SKIP')
	plan=$(sed -nE 's/^1\.\.([0-9]+).*/\1/p' "$log" | awk '{ n += $1 } END { print n + 0 }')
	# Died early, or all said ok and yet failed: the program itself is one failure.
	if [ "$plan" != 0 ] && [ $((ok + bad + nskip)) -lt "$plan" ]; then
		bad=$((plan - ok - nskip))
		echo "not ok: $((ok + bad + nskip)) cases of $plan planned ran to their end" >>"$log"
	elif [ $rc != 0 ] && [ "$bad" = 0 ]; then
		echo "not ok: exit status $rc" >>"$log"
		bad=1
	elif [ $((ok + bad + nskip)) = 0 ]; then
		echo "not ok: no case was run" >>"$log"
		bad=1
	fi
	report "$name" "$log" "$ok" "$bad"
}

MAKE_TREE=(make -s -j "$JOBS")
bins() { find "$1" -maxdepth 1 -name 'test_*' -type f -perm -u+x ! -name '*.log' 2>/dev/null | sort; }

group_build()
{
	one build/gcc 600 "${MAKE_TREE[@]}" B="$B" CC=gcc WERROR=1 all all-tests
	one build/clang 600 "${MAKE_TREE[@]}" B="$B/clang" CC=clang WERROR=1 all all-tests
}

group_unit()
{
	local t
	for t in $(bins "$B/tests/unit"); do
		cases "unit/${t##*/}" 300 "$t"
	done
}

group_xdp()
{
	local t
	for t in $(bins "$B/tests/xdp"); do
		cases "xdp/${t##*/}" 120 "$t"
	done
}

group_netns()
{
	local t name
	for t in tests/netns/*.sh; do
		name=${t##*/}
		[ "$name" = lib.sh ] || cases "netns/${name%.sh}" 300 bash "$t"
	done
}

group_vm()
{
	local t name
	for t in tests/vm/*.sh; do
		name=${t##*/}
		case $name in
		lib.sh | mkinitrd.sh) ;;
		*) cases "vm/${name%.sh}" 400 bash "$t" ;;
		esac
	done
}

group_vhost()
{
	local t name
	for t in tests/vhost/*.sh; do
		name=${t##*/}
		[ "$name" = qemu-lib.sh ] || cases "vhost/${name%.sh}" 400 bash "$t"
	done
}

# The sanitizers of Debian 12 need the address layout of older kernels; see tests.mk.
NORANDOM=()
setarch -R true 2>/dev/null && NORANDOM=(setarch -R)

group_asan()
{
	local t
	one asan/build 600 "${MAKE_TREE[@]}" B="$B/asan" SAN=address,undefined all unit-tests fuzz-bins || return
	for t in $(bins "$B/asan/tests/unit"); do
		one "asan/${t##*/}" 600 "${NORANDOM[@]}" "$t"
	done
	# The daemon itself, leaks included: status 1 or a signal at the first finding.
	cases asan/ghostnicd 300 env GN_BIN="$B/asan" "${NORANDOM[@]}" \
		bash tests/netns/faults.sh removed chunks deleted end
}

group_tsan()
{
	local t
	one tsan/build 600 "${MAKE_TREE[@]}" B="$B/tsan" SAN=thread tsan-tests || return
	for t in $(bins "$B/tsan/tests/unit"); do
		one "tsan/${t##*/}" 600 "${NORANDOM[@]}" "$t"
	done
	# The daemon itself: instances come and go under traffic; a race gives status 66.
	cases tsan/ghostnicd 300 env GN_BIN="$B/tsan" "${NORANDOM[@]}" \
		bash tests/netns/faults.sh removed end
}

group_fuzz()
{
	local t name
	one fuzz/build 600 "${MAKE_TREE[@]}" B="$B" fuzz-build || return
	for t in tests/fuzz/fuzz_*.c; do
		name=$(basename "$t" .c)
		[ ! -x "$B/asan/tests/fuzz/$name" ] ||
			one "fuzz/seeds/${name#fuzz_}" 120 "${NORANDOM[@]}" \
				"$B/asan/tests/fuzz/$name" "tests/fuzz/seeds/${name#fuzz_}"
		one "fuzz/${name#fuzz_}" $((FUZZ_SECONDS + 60)) sh tests/fuzz/run.sh "$name"
	done
}

# Installed and uninstalled files, and a program built against the installed library.
packaging()
{
	local root=$B/test/root flags

	set -e
	rm -rf "$root"
	make -s B="$B" DESTDIR="$root" PREFIX=/usr install
	find "$root" -type f
	"$root/usr/bin/ghostnic" --version
	"$root/usr/sbin/ghostnicd" --version
	cat >"$B/test/client.c" <<-'END'
		#include <ghostnic/csum.h>
		#include <ghostnic/log.h>
		int main(void)
		{
			log_info("linked");
			return csum("\1\2\3\4", 4) == csum_add(0x0201, 0x0403) ? 0 : 1;
		}
	END
	flags=$(PKG_CONFIG_SYSROOT_DIR=$root PKG_CONFIG_PATH=$root/usr/lib/pkgconfig \
		pkg-config --static --cflags --libs libghostnic)
	# shellcheck disable=SC2086 # a list of flags
	cc -Wall -Werror -o "$B/test/client" "$B/test/client.c" $flags
	"$B/test/client"
	make -s B="$B" DESTDIR="$root" PREFIX=/usr uninstall
	[ -z "$(find "$root" ! -type d)" ]
	[ -z "$(find "$root" -name '*ghostnic*')" ]
	rm -rf "$root" "$B/test/client" "$B/test/client.c"
}

# present - what tests could leave, a line each: processes of ours, mounts, pins, namespaces
present()
{
	local p exe
	for p in /proc/[0-9]*; do
		exe=$(readlink "$p/exe" 2>/dev/null) || continue
		case $exe in
		"$B"/*) echo "process ${p#/proc/}: $exe" ;;
		esac
	done
	grep -E " ($B|/run/ghostnic|/run/netns/)" /proc/self/mounts
	find /run/ghostnic /sys/fs/bpf -mindepth 1 2>/dev/null
	find /run/netns -mindepth 1 2>/dev/null
}

# Nothing is there now that was not there before.
leftovers()
{
	present | sort >"$LOGS/present.after"
	! comm -13 "$LOGS/present.before" "$LOGS/present.after" | grep .
}

manuals() { mandoc -T lint -W warning man/*.[1-8]; }

group_misc()
{
	one misc/shellcheck 60 make -s B="$B" lint-sh
	one misc/manuals 60 bash -c "$(declare -f manuals); manuals"
	one misc/packaging 300 bash -c "$(declare -f packaging); packaging"
	one misc/leftovers 60 bash -c "$(declare -f present leftovers); leftovers"
}

[ "$(id -u)" = 0 ] || { echo "run.sh: needs root: sudo make test" >&2; exit 1; }
rm -rf "$LOGS"
mkdir -p "$LOGS"
export LOGS
present | sort >"$LOGS/present.before"
[ $# -gt 0 ] || set -- build unit asan tsan xdp netns vm vhost fuzz misc
for group; do
	echo "$group"
	"group_$group"
done

if [ ${#skips[@]} -gt 0 ]; then
	echo "skipped:"
	printf '  %s\n' "${skips[@]}"
fi
echo "$passed passed, $failed failed, ${#skips[@]} skipped"
[ "$failed" = 0 ]
