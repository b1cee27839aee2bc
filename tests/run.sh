#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Run every test. Called by `make test`; needs root and the packages of packages.txt.
#
#	B=build tests/run.sh [GROUP...]		GROUP: build unit migrate share asan tsan xdp
#						netns vm vhost fuzz misc leftovers; default all
#
# One line per program with its cases and seconds, a log of each in $B/test/, the tail of
# it on failure. Two lanes run at the same time, much of which is waiting; each takes the
# next group when it is done with one. A test that fails there is run once more when all are
# done, alone: it fails if it fails again, and is listed as unsteady if it does not. What no lack
# of CPU explains is not forgiven: findings of sanitizers and fuzzers, memory that differs. The last
# line is "N passed, N failed, N skipped": cmocka programs and network tests count by their
# cases, everything else by program. A skip that ALLOWED_SKIPS does not name is a failure, and so
# is a group that did not come to its end. Exit status 0: nothing failed; 2: it did not begin.
# AGAIN=0 runs nothing twice.
set -u

cd "$(dirname "$0")/.." || exit 1
export LC_ALL=C		# numbers with a point
mkdir -p "${B:=build}" && B=$(cd "$B" && pwd) && export B || exit 2
export GN_BIN=$B
export FUZZ_SECONDS=${FUZZ_SECONDS:-20}
unset MAKEFLAGS MAKELEVEL MFLAGS	# of the make that called
LOGS=$B/test
JOBS=$(nproc)
# What lanes tell each other, in $LOGS: a line "OK BAD NAME" per program; groups that came to their
# end; a line per skip; what failed; calls of one() and cases() to make again, and what had failed there; guests that were begun anew
# (vm_nested() in vm/lib.sh); who prints
RESULTS=$LOGS/results
DONE=$LOGS/done
SKIPS=$LOGS/skips
FAILED=$LOGS/failed
REPEAT=$LOGS/repeat
FIRST=$LOGS/first
ANEW=$LOGS/anew
OUTPUT=$LOGS/output.lock
# More failures than this are not a busy machine's: nothing is run again then.
AGAIN=${AGAIN:-5}
in_lanes=

# What may be skipped, where, and why: a pattern of GROUP/PROGRAM/CASE each.
ALLOWED_SKIPS='
unit/test_csum/*avx*			true		the CPU lacks the instruction set
netns/loader/beside xdp-filter		true		this kernel has no freplace; vm/loader runs it on one that has
xdp/test_path/test_foreign_meta		before 6.3	metadata of 32 bytes at most
netns/traffic/mtu 9000			before 6.6	no multi-buffer AF_XDP
vhost/qemu-pair/mtu 9000		before 6.6	no multi-buffer AF_XDP
migrate/test_dirty/pagemap*		before 6.7	no PAGEMAP_SCAN
migrate/test_dirty/mixed*		before 6.7	no PAGEMAP_SCAN
migrate/test_dirty/test_sparse		before 6.7	no PAGEMAP_SCAN
migrate/test_precopy/test_counted_once	before 6.7	no PAGEMAP_SCAN
xdp/test_ident/test_cpus		one_cpu		a key tells its CPU
netns/*					no_ipv6		the kernel was told to do without
vhost/qemu/*IPv6*			no_ipv6		the kernel was told to do without
'

# before VERSION - is the kernel older?
before() { [ "$(printf '%s\n' "$1" "$(uname -r)" | sort -V | head -n 1)" != "$1" ]; }
one_cpu() { [ "$JOBS" = 1 ]; }
no_ipv6() { [ ! -e /proc/sys/net/ipv6 ]; }

allowed()
{
	local pattern where
	while IFS=$'\t' read -r pattern where _; do
		# shellcheck disable=SC2053 # a pattern, on purpose
		[[ -n $pattern && $1 == $pattern ]] && $where && return
	done <<<"$ALLOWED_SKIPS"
	return 1
}

# result OK BAD NAME - a run that cannot say what it found does not go on
result() { echo "$*" >>"$RESULTS" || exit 1; }

# skip CASE WHY
skip()
{
	if allowed "$1"; then
		echo "$1: ${2:-no reason given}" >>"$SKIPS"
	else
		result 0 1 "$1"
		echo "$1: not an allowed skip: ${2:-no reason given}" | tee -a "$FAILED"
	fi
}

# report NAME LOG OK BAD START CALL - a program's line, and its log's end if it failed; counted
# unless CALL, which is to be made again then
report()
{
	local s=$((SECONDS - $5)) list=$FAILED
	if [ "$4" != 0 ] && repeatable "$1" "$2"; then
		list=$FIRST
		echo "$1 $3 $4 $6" >>"$REPEAT" || exit 1
		cp "$2" "$2.first"
	else
		result "$3" "$4" "$1"
	fi
	exec {output}>"$OUTPUT"
	flock "$output"
	if [ "$4" = 0 ]; then
		printf '  ok    %-34s %4d %6d s\n' "$1" "$3" $s
	else
		{
			echo "$1: $4 of $(($3 + $4)), in $s s"
			grep -E '^(not ok|\[  (ERROR|FAILED))' "$2" | head -n 5 | cut -c 1-160 | sed 's/^/  /'
		} >>"$list"
		printf '  FAIL  %-34s %4d of %d %d s\n' "$1" "$4" $(($3 + $4)) $s
		grep -E '^(not ok|\[  (ERROR|FAILED))' "$2" | head -n 20 | sed 's/^/        /'
		tail -n 40 "$2" | sed 's/^/      | /'
	fi
	exec {output}>&-
}

# What a log says if a busy machine was not the reason
WRONG='(ERROR|WARNING): [A-Za-z]*Sanitizer|runtime error:|[1-9][0-9]* pages differ'
WRONG+='|pages_differ": ?[1-9]|a page differs|RAM differs|missed a write|forbidden [1-9]'
WRONG+='|[1-9][0-9]* words in error'

# repeatable NAME LOG - is it run again if it fails?
repeatable()
{
	[ -n "$in_lanes" ] || return
	case $1 in
	*/build | asan/* | tsan/* | fuzz/*) return 1 ;;
	esac
	! grep -qE "$WRONG" "$2"
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
	local name=$1 log=$LOGS/$1.log seconds=$2 start=$SECONDS call
	printf -v call '%q ' one "$@"
	shift 2
	if limited "$seconds" "$log" "$@"; then
		report "$name" "$log" 1 0 "$start"
	else
		report "$name" "$log" 0 1 "$start" "$call"
		return 1
	fi
}

# cases NAME SECONDS CMD... - a test that prints its cases: TAP of cmocka, or lib.sh's lines
cases()
{
	local name=$1 log=$LOGS/$1.log seconds=$2 start=$SECONDS
	local ok bad rc line plan nskip call skips
	printf -v call '%q ' cases "$@"
	shift 2
	limited "$seconds" "$log" env CMOCKA_MESSAGE_OUTPUT=TAP "$@"
	rc=$?

	mapfile -t skips < <(sed -nE -e 's/^skip (.*)/\1/p' \
		-e 's/^ok [0-9]+ - ([^ ]*) # SKIP ?(.*)/\1: \2/p' \
		-e 's/^not ok [0-9]+ # SKIP ([^ ]*)/\1: /p' "$log")
	nskip=${#skips[@]}
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
	report "$name" "$log" "$ok" "$bad" "$start" "$call"
	sed -n "s|^# stood still after|$name: after|p" "$log" >>"$ANEW"
	[ "$bad" = 0 ] || ! repeatable "$name" "$log" || return 0
	for line in "${skips[@]}"; do
		skip "$name/${line%%:*}" "${line#*:}"
	done
}

MAKE_TREE=(make -s -j "$JOBS")
bins() { find "$1" -maxdepth 1 -name 'test_*' -type f -perm -u+x ! -name '*.log' 2>/dev/null | sort; }

group_build()
{
	one build/gcc 900 "${MAKE_TREE[@]}" B="$B" CC=gcc WERROR=1 all all-tests
}

# programs GROUP SECONDS - the test programs of tests/GROUP
programs()
{
	local t
	for t in $(bins "$B/tests/$1"); do
		cases "$1/${t##*/}" "$2" "$t"
	done
}

# scripts GROUP SECONDS - its scripts, but for what they share
scripts()
{
	local t name
	for t in tests/"$1"/*.sh; do
		name=$(basename "$t" .sh)
		case $name in
		lib | *-lib | mkinitrd) ;;
		*) cases "$1/$name" "$2" bash "$t" ;;
		esac
	done
}

group_unit() { programs unit 300; }
group_migrate() { programs migrate 300; scripts migrate 520; }
group_share() { programs share 200; scripts share 400; }
group_xdp() { programs xdp 300; }
group_netns() { scripts netns 400; }
group_vm() { scripts vm 500; }
group_vhost() { scripts vhost 400; }

# Sanitized code is ten times slower; the counts of the long tests, there.
SANITIZED=(env GN_MIGRATIONS=100 GN_CRASHES=30 GN_STREAMS=10000 GN_CHAINS=800)

# The sanitizers of Debian 12 need the address layout of older kernels; see tests.mk.
NORANDOM=()
setarch -R true 2>/dev/null && NORANDOM=(setarch -R)

# asan_tree GROUP - what both GROUPs run, whoever comes first builds it. The only tree that clang
# builds, so everything, and no warning
asan_tree()
{
	one "$1/build" 900 flock "$LOGS/asan.lock" "${MAKE_TREE[@]}" B="$B" WERROR=1 asan-tree
}

group_asan()
{
	local t
	asan_tree asan || return
	for t in $(bins "$B/asan/tests/unit") $(bins "$B/asan/tests/migrate") \
		$(bins "$B/asan/tests/share"); do
		one "asan/${t##*/}" 600 "${SANITIZED[@]}" "${NORANDOM[@]}" "$t"
	done
	# The daemon itself, leaks included: status 1 or a signal at the first finding.
	cases asan/ghostnicd 300 env GN_BIN="$B/asan" "${NORANDOM[@]}" \
		bash tests/netns/faults.sh removed chunks deleted end
}

# Not under the thread sanitizer: live migrations, whose engine reads the guest's pages while
# the guest writes them, on purpose; and the sampling of a whole process, which is 128 TiB
# of shadow memory there.
group_tsan()
{
	local t
	one tsan/build 900 "${MAKE_TREE[@]}" B="$B" tsan-tree || return
	for t in $(bins "$B/tsan/tests/unit") $(bins "$B/tsan/tests/migrate") \
		$(bins "$B/tsan/tests/share"); do
		case ${t#"$B/tsan/tests/"} in
		migrate/test_crash | migrate/test_ends | migrate/test_precopy | migrate/test_random | migrate/test_stall | \
			migrate/test_stream | migrate/test_rate) continue ;;
		esac
		one "tsan/${t##*/}" 600 "${SANITIZED[@]}" "${NORANDOM[@]}" "$t"
	done
	# The daemon itself: instances come and go under traffic; a race gives status 66.
	cases tsan/ghostnicd 300 env GN_BIN="$B/tsan" "${NORANDOM[@]}" \
		bash tests/netns/faults.sh removed end
}

# By both lanes, a target at a time: it comes last, and neither is to wait for the other. What
# takes bytes while packets flow, of the wire and of guests, has twice the time of the rest.
group_fuzz()
{
	local t name seconds lock
	exec {lock}>"$LOGS/fuzz.lock"
	flock "$lock"
	! mkdir "$LOGS/fuzz.tried" 2>/dev/null || ! asan_tree fuzz || mkdir "$LOGS/fuzz.built"
	exec {lock}>&-
	[ -d "$LOGS/fuzz.built" ] || return
	for t in tests/fuzz/fuzz_*.c; do
		name=$(basename "$t" .c)
		mkdir "$LOGS/lane.$name" 2>/dev/null || continue
		case ${name#fuzz_} in
		rx | segment | ctl | vu | vring | shm) seconds=$FUZZ_SECONDS ;;
		*) seconds=$((FUZZ_SECONDS / 2)) ;;
		esac
		one "fuzz/${name#fuzz_}" $((seconds + 60)) \
			env FUZZ_SECONDS="$seconds" sh tests/fuzz/run.sh "$name"
	done
}

# Installed and uninstalled files; programs built against the installed libraries: those of the
# manual pages, by the command that the pages give.
packaging()
{
	local root=$B/test/root flags page n=0

	set -e
	rm -rf "$root"
	# One at a time: what is missing is made.
	flock "$B/install.lock" make -s B="$B" DESTDIR="$root" PREFIX=/usr install
	find "$root" -type f
	"$root/usr/bin/ghostnic" --version
	"$root/usr/sbin/ghostnicd" --version
	cat >"$B/test/client.c" <<-'END'
		#include <errno.h>
		#include <ghostmem.h>
		#include <ghostnic/ghostnic.h>
		#include <ghostnic/migrate/dirty/dirty.h>
		/* The libraries have functions of these names, too, which are no part of them. */
		int fds_recv, fds_send, fds_close, sock_send, sock_wait, log_msg, tls_error;
		int main(void)
		{
			char *answer;
			struct ghostmem *g;
			struct dirty_source *s;
			struct ram ram;
			ram_init(&ram);
			return ghostnic_request("/nonexistent", "{}", 0, &answer) != -ENOENT ||
			       ghostmem_open("/nonexistent", &g) >= 0 ||
			       dirty_daemon_create(&ram, NULL, NULL, "vm1", &s);
		}
	END
	flags=$(PKG_CONFIG_SYSROOT_DIR=$root PKG_CONFIG_PATH=$root/usr/lib/pkgconfig \
		pkg-config --cflags --libs libghostnic libghostmem libvm-migrate)
	# shellcheck disable=SC2086 # a list of flags
	cc -Wall -Werror -o "$B/test/client" "$B/test/client.c" $flags
	"$B/test/client"
	for page in "$root"/usr/share/man/man3/*.3; do
		grep -q '^#include' "$page" || continue
		sed -n '/^#include/,/^\.Ed$/{/^\.Ed$/d;s/\\e/\\/g;p}' "$page" >"$B/test/example.c"
		flags=$(sed -nE 's/^\.Ql cc example\.c (.*) \.$/\1/p' "$page")
		( cd "$B/test" && export PKG_CONFIG_SYSROOT_DIR=$root \
			PKG_CONFIG_PATH=$root/usr/lib/pkgconfig &&
			eval "cc -Wall -Wextra -Werror -o example example.c ${flags:?no command: $page}" )
		n=$((n + 1))
	done
	[ $n = 2 ]
	# What the synopses include is there, and every guide that is named.
	sed -nE 's/^\.In (ghost.*)/\1/p' "$root"/usr/share/man/man3/*.3 |
		while read -r page; do [ -f "$root/usr/include/$page" ]; done
	grep -oE 'docs/[a-z-]+\.md' README.md |
		while read -r page; do [ -f "$root/usr/share/doc/ghostnic/${page#docs/}" ]; done
	make -s B="$B" DESTDIR="$root" PREFIX=/usr uninstall
	[ -z "$(find "$root" ! -type d)" ]
	# Elsewhere, of the same tree: no file names the first place.
	flock "$B/install.lock" make -s B="$B" DESTDIR="$root" PREFIX=/opt/gn install
	[ "$(cat "$root"/opt/gn/lib/pkgconfig/*.pc "$root"/opt/gn/lib/systemd/system/*.service |
		grep -c /opt/gn/)" -ge 9 ]
	if grep -r /usr/lib "$root"/opt/gn/lib/pkgconfig; then return 1; fi
	make -s B="$B" DESTDIR="$root" PREFIX=/opt/gn uninstall
	[ -z "$(find "$root" ! -type d)" ]
	[ -z "$(find "$root" -name '*ghostnic*')" ]
	rm -rf "$root" "$B"/test/client "$B"/test/client.c "$B"/test/example "$B"/test/example.c
}

# Service units, where systemd can judge them: no complaint, and an interface's name comes to the
# command as it is.
units()
{
	local dir=$B/test/units u

	set -e
	command -v systemd-analyze || return 0
	mkdir -p "$dir"
	for u in user/*/*.service user/*/*/*.service; do
		sed -E 's|@[A-Z]+@/[a-z]+|/bin/true|' "$u" >"$dir/${u##*/}"
	done
	ln -sf ghostnic-attach@.service "$dir/ghostnic-attach@br\\x2dlan0.service"
	cd "$dir"
	for u in *[!@].service; do
		echo "$u"
		systemd-analyze --man=no verify "./$u" >verify.log 2>&1 || true
		if grep ghost verify.log; then return 1; fi
	done
	SYSTEMD_LOG_LEVEL=debug systemd-analyze --man=no verify ./ghostnic-attach@br* >verify.log 2>&1 || true
	for u in 'Description: .* br-lan0' 'Command Line: /bin/true attach br-lan0' \
		'Command Line: /bin/true detach br-lan0' \
		'BindsTo: sys-subsystem-net-devices-br\\x2dlan0.device .*'; do
		grep -x "[[:space:]]*$u" verify.log
	done
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
	one misc/manuals 60 bash -c "$(declare -f manuals); manuals"
	one misc/units 60 bash -c "$(declare -f units); units"
	one misc/packaging 300 bash -c "$(declare -f packaging); packaging"
	cases misc/runner 120 bash tests/runner.sh
}
group_leftovers() { one leftovers 60 bash -c "$(declare -f present leftovers); leftovers"; }

[ "$(id -u)" = 0 ] || { echo "run.sh: needs root: sudo make test" >&2; exit 2; }

# What all others need; the rest, those first that take long, last what lanes share; what is left.
most=(share migrate asan vhost netns tsan vm misc unit xdp fuzz)
wanted=("$@")
[ $# != 0 ] || wanted=(build "${most[@]}" leftovers)
for group in "${wanted[@]}"; do
	if ! declare -F "group_$group" >/dev/null; then
		echo "run.sh: no group '$group', only: build ${most[*]} leftovers" >&2
		exit 2
	fi
done

# From here on as process 1 of namespaces: what it started ends when it does, whatever ends it.
if [ -z "${GN_RUN:-}" ]; then
	exec {lock}>>"$B/test.lock"
	if ! flock -n "$lock"; then
		echo "run.sh: another test run uses $B: process $(cat "$B/test.lock")" >&2
		exit 2
	fi
	echo $$ >"$B/test.lock"
	trap 'kill -KILL $!' INT TERM HUP
	GN_RUN=1 setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child --mount-proc \
		"$BASH" tests/run.sh "$@" {lock}>&- &
	wait $!
	exit $?
fi
unset GN_RUN

rm -rf "$LOGS"
mkdir -p "$LOGS"
for file in "$RESULTS" "$DONE" "$SKIPS" "$FAILED" "$REPEAT" "$FIRST" "$ANEW"; do
	: >"$file" || exit 2
done
export LOGS
present | sort >"$LOGS/present.before"

# lane GROUP... - those of them that are wanted, and that the other lane has not begun
lane()
{
	local group
	for group; do
		[[ " ${wanted[*]} " == *" $group "* ]] || continue
		[ "$group" = fuzz ] || mkdir "$LOGS/lane.$group" 2>/dev/null || continue
		"group_$group"
		echo "$group" >>"$DONE"
	done
}
lane build
in_lanes=y
lane "${most[@]}" &
other=$!
lane "${most[@]}"
if ! wait $other; then
	result 0 1 lane
	echo "one of two lanes ended early" >>"$FAILED"
fi
in_lanes=

# What failed there was short of the CPU that another test had, or is broken: alone, once more.
repeats=$(wc -l <"$REPEAT")
[ "$repeats" -le "$AGAIN" ] || { cat "$FIRST" >>"$FAILED" && : >"$FIRST"; }
while read -r name ok bad call <&3; do
	if [ "$repeats" -le "$AGAIN" ]; then
		eval "$call"
	else
		result "$ok" "$bad" "$name"
	fi
done 3<"$REPEAT"
lane leftovers

for group in "${wanted[@]}"; do
	if ! grep -qx "$group" "$DONE" || ! grep -qE "^[0-9 ]+ $group(/|\$)" "$RESULTS"; then
		result 0 1 "$group"
		echo "$group: did not come to its end, or had nothing to run" >>"$FAILED"
	fi
done
for list in "$SKIPS:skipped" "$FIRST:failed beside other tests, so run again alone" \
	"$ANEW:guests that stood still, so begun anew" "$FAILED:failed"; do
	[ -s "${list%%:*}" ] || continue
	echo "${list#*:}:"
	sed 's/^/  /' "${list%%:*}"
done
awk -v skipped="$(wc -l <"$SKIPS")" '{ ok += $1; bad += $2 }
	END { print ok + 0 " passed, " bad + 0 " failed, " skipped " skipped"; exit bad > 0 }' "$RESULTS"
