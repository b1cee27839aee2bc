# shellcheck shell=bash
# SPDX-License-Identifier: BSD-2-Clause
#
# What tests of the command vm-migrate share. To be sourced after lib.sh; the working
# directory is $GN_TMP then.

VMM=$GN_BIN/vm-migrate/vm-migrate
[ -x "$VMM" ] || gn_die "no $VMM: run make"
LOAD=rate=20000,fill=50%,set=10%

cd "$GN_TMP" || exit 1

# gives CODE TEXT CMD... - does CMD exit so, and say that on standard error or output?
gives()
{
	local want=$1 text=$2 rc
	shift 2
	timeout 60 "$@" >out 2>err </dev/null
	rc=$?
	cat out err
	[ $rc = "$want" ] || { echo "exit code $rc, not $want"; return 1; }
	cat out err | grep -q -e "$text"
}

# status NAME JQ-FILTER
status() { "$VMM" status -c "$1" -j | tee status.json | jq -e "$2"; }

# Without jq, which takes longer than all else, for what is asked again and again:
# says NAME GLOB - is that in its status, which is in STATUS?
says()
{
	STATUS=$("$VMM" status -c "$1" -j 2>/dev/null)
	echo "$STATUS"
	# shellcheck disable=SC2053 # a pattern
	[[ $STATUS == *$2* ]]
}
state() { says "$1" "\"state\":\"$2\""; }

# number KEY TEXT - the first of that name, in N
number()
{
	N=
	# shellcheck disable=SC2034 # callers read it
	[[ $2 =~ \"$1\":(-?[0-9]+) ]] && N=${BASH_REMATCH[1]}
}

# writes NAME - of all its CPUs
writes()
{
	local sum=0 rest
	says "$1" '"guest":' >/dev/null || return 1
	rest=${STATUS#*\"guest\":}
	while [[ $rest =~ \"writes\":([0-9]+) ]]; do
		sum=$((sum + BASH_REMATCH[1]))
		rest=${rest#*\"writes\":}
	done
	echo $sum
}
grows() { [ "$(writes "$1")" -gt "$2" ]; }

# For randomised tests:
# below N - a random number in R; "$(...)" would draw from a sequence of its own
below() { R=$(((RANDOM << 15 | RANDOM) % $1)); }
# one_in N
one_in() { below "$1"; [ "$R" = 0 ]; }
# any WORD... - one of them, in R
any() { below $#; shift "$R"; R=$1; }

# bad WORD... - why this one fails
bad() { echo "bad: $*"; return 1; }

# start NAME ARG... - a source whose control socket is NAME; it runs on return
start()
{
	local name=$1
	shift
	gn_spawn "RUN_$name" "$VMM" run --json -a process -m 64M -n 2 -w "$LOAD" -c "$name" "$@"
	gn_wait 10 state "$name" running
}

# receiver NAME URI ARG...
receiver()
{
	local name=$1 uri=$2
	shift 2
	gn_spawn "RECV_$name" "$VMM" recv --json -l "$uri" -c "$name" "$@"
	gn_wait 10 state "$name" incoming
}

# uri NAME - where a receiver of tcp:...:0 listens
uri()
{
	local log=RECV_$1.log
	jq -r 'select(.event == "listening").uri' "$log"
}

# status_of PID - exit status of a spawned process
status_of()
{
	gn_wait 10 gn_gone "$1" || return 1
	wait "$1"
}

# sound NAME - the guest has found no lost write, and nor does a look at all its pages
sound()
{
	"$VMM" pause -c "$1" || return 1
	status "$1" '[.guest[].errors] | add == 0' || return 1
	echo '{"cmd":"check"}' | socat -t 5 - "UNIX:$1" | tee check.json |
		jq -e '.ok and .bad == 0 and .pages > 10000' || return 1
	"$VMM" resume -c "$1"
}

# moved FROM TO URI ARG... - migrate; TO's guest goes on where FROM's stopped
moved()
{
	local from=$1 to=$2 uri=$3 before
	shift 3
	before=$(writes "$from")
	timeout 60 "$VMM" send -c "$from" -t "$uri" -j "$@" >send.json || { cat send.json; return 1; }
	tail -n 1 send.json | jq -e '.event == "end" and .result == "done" and
		.audit_bad_pages == 0 and .downtime_us > 0 and .sent_pages > 8000' || return 1
	gn_wait 10 state "$to" running && gn_wait 10 grows "$to" "$before"
}

quit() { "$VMM" quit -c "$1" && status_of "$2"; }
