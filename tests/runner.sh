#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# What tests/run.sh itself forgives, and what it does not miss: it runs planted tests, in a tree that
# has nothing else.

# shellcheck disable=SC2016,SC2317,SC2329 # what is planted; functions called through a name
# shellcheck source=tests/netns/lib.sh
. "$(dirname "$0")/netns/lib.sh"

TOP=$GN_BIN/runner
rm -rf "$TOP"
mkdir -p "$TOP/tests/"{share,migrate,netns,fuzz/seeds} || exit 1
cp "$GN_TOP/tests/run.sh" "$TOP/tests/" || exit 1
cp "$GN_TOP/tests/fuzz/run.sh" "$TOP/tests/fuzz/" || exit 1
echo 'asan-tree:' >"$TOP/Makefile"

# plant FILE - a program that does what standard input says; $ONCE is true once
plant()
{
	mkdir -p "$(dirname "$TOP/$1")"
	{ printf '#!/bin/bash\nONCE="mkdir %s.once"\n' "$TOP/$1" && cat; } >"$TOP/$1"
	chmod +x "$TOP/$1"
}

# run STATUS GROUP... - do they end so?
run()
{
	local rc
	rm -rf "$TOP"/tests/*/*.once
	B=$TOP/build FUZZ_SECONDS=1 bash "$TOP/tests/run.sh" "${@:2}" >"$TOP/out" 2>&1 </dev/null
	rc=$?
	cat "$TOP/out"
	[ "$rc" = "$1" ]
}
said() { grep -E "$1" "$TOP/out" || { cat "$TOP/out"; return 1; }; }
last() { tail -n 1 "$TOP/out" | grep -x "$1"; }

# ---- what is run again
plant tests/share/busy.sh <<-'END'
	$ONCE 2>/dev/null && echo "not ok a: took too long" || echo "ok a"
END
plant tests/share/guest.sh <<-'END'
	printf '# stood still after 3 cases; once more\nok a\n'
END
gn_check "what fails and then passes" run 0 share
gn_check "is said" said "share/busy: 1 of 1"
gn_check "counts as passed" last "2 passed, 0 failed, 0 skipped"
gn_check "a guest begun anew is said" said "share/guest: after 3 cases"
for word in "12 pages differ" "x.c:1:2: runtime error: y" "==1==ERROR: AddressSanitizer: z" \
	"WARNING: ThreadSanitizer: data race" "9 operations, 0 in doubt, on 9 words: 1 words in error"; do
	plant tests/share/busy.sh <<-END
		\$ONCE 2>/dev/null && printf 'not ok a\\n#  %s\\n' "$word" || echo "ok a"
	END
	gn_check "not if it says: $word" run 1 share
done
rm "$TOP"/tests/share/*.sh
plant tests/netns/faults.sh <<<'echo ok a'
plant build/asan/tests/unit/test_once <<<'! $ONCE'
gn_check "not under a sanitizer" run 1 asan
gn_check "which counts" last "2 passed, 1 failed, 0 skipped"

# ---- what a fuzzer has found stays found
: >"$TOP/tests/fuzz/fuzz_one.c"
plant build/asan/tests/fuzz/fuzz_one <<-'END'
	for arg; do
		case $arg in
		-artifact_prefix=*) crash=${arg#*=} ;;
		*/crash-one-*) exit 1 ;;
		esac
	done
	echo number_of_executed_units
	$ONCE || exit 0
	: >"${crash}crash-1"
	exit 1
END
gn_check "a crash" run 1 fuzz
gn_check "the next run begins with it" run 1 fuzz
rm -f "$TOP"/build/fuzz/crash-one-*
gn_check "until it is removed" run 0 fuzz

# ---- what an older kernel lacks may be skipped on it
plant tests/netns/traffic.sh <<<'echo "skip mtu 9000: no multi-buffer AF_XDP"'
kernel()
{
	plant bin/uname <<<"echo $1"
	PATH=$TOP/bin:$PATH run "${@:2}" && last "1 passed, [01] failed, [01] skipped"
}
gn_check "a skip on 6.1" kernel 6.1.0-50-amd64 0 netns
gn_check "not on 6.6" kernel 6.6.0-1-amd64 1 netns
gn_check "nor on 6.18" kernel 6.18.1 1 netns
rm "$TOP"/tests/netns/{traffic,faults}.sh

# ---- who runs it may write numbers with a comma
plant tests/share/point.sh <<<'[ "$LC_ALL" = C ] && echo "ok a"'
gn_check "the locale" eval 'LC_ALL=de_DE.UTF-8 run 0 share'
rm "$TOP"/tests/share/*.sh

# ---- what does not come to its end, does not begin
plant tests/share/lane.sh <<-'END'
	lane=$(awk '{ print $4 }' /proc/$PPID/stat)	# of timeout
	echo "ok a"
	# One of the two runs in the lane that is process 1, which cannot be killed from here.
	[ "$lane" != 1 ] || while [ ! -e "$(dirname "$0")/../../killed" ]; do sleep 0.1; done
	[ "$lane" = 1 ] || : >"$(dirname "$0")/../../killed"
	[ "$lane" = 1 ] || kill -KILL "$lane"
END
cp "$TOP/tests/share/lane.sh" "$TOP/tests/migrate/"
gn_check "a lane that ends early" run 1 share migrate
gn_check "is a failure" said "one of two lanes"
gn_check "so is its group" said "(share|migrate): did not come to its end"
rm "$TOP"/tests/*/lane.sh
gn_check "no test at all" run 1 share
gn_check "no such group" run 2 sahre

plant tests/share/long.sh <<-'END'
	echo $PPID >"$(dirname "$0")/../../long"
	exec sleep 1234
END
long() { [ -s "$TOP/long" ] && pgrep -fx "sleep 1234"; }
for signal in TERM KILL; do
	rm -f "$TOP/long"
	gn_spawn RUN env B="$TOP/build" bash "$TOP/tests/run.sh" share
	gn_must gn_wait 10 long
	gn_check "not two at once" run 2 share
	gn_check "says who" said "another test run uses .*: process $RUN\$"
	gn_check "that one goes on" gn_not gn_gone "$RUN"
	gn_stop "$RUN" $signal
	gn_check "$signal: all that it had started ends" gn_wait 5 gn_not long
done

rm -rf "$TOP"
exit $GN_FAILED
