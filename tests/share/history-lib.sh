# shellcheck shell=bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Load whose outcome can be judged: on n1 to n3 a program each that writes down what it loads and
# stores, and one that adds. Needs lib.sh and agents 1 to 3; HISTORY_SEED repeats what is drawn.

# shellcheck disable=SC2317,SC2329 # functions called through a name
HISTORY=()	# processes
history_known() { gn_exec n1 "$GN_BIN/ghostmem" ls -a "$GN_TMP/n1.sock" | grep -q "^history "; }
history_begun() { [ "$(cat "$GN_TMP/$1".?.log | grep -c "^begun")" = 3 ]; }

# history_begin - n1 exports region history; on return all six work in it
history_begin()
{
	local i pid
	GHOSTMEM_KEY=secret gn_spawn pid gn_exec n1 "$GN_BIN/ghostmem" export \
		-a "$GN_TMP/n1.sock" history 1M
	gn_must gn_wait 5 history_known
	for i in 1 2 3; do
		HISTORY_STOP=$GN_TMP/end gn_exec "n$i" nice "$GN_BIN/tests/share/history" run \
			"$GN_TMP/n$i.sock" history secret "$i" 4000000 "$GN_TMP/history.$i" \
			>"$GN_TMP/history.$i.log" 2>&1 &
		HISTORY+=($!)
		gn_exec "n$i" nice "$GN_BIN/tests/share/adds" run "$GN_TMP/n$i.sock" history secret \
			65536 "$GN_TMP/end" >"$GN_TMP/adds.$i.log" 2>&1 &
		HISTORY+=($!)
	done
	gn_must gn_wait 10 history_begun history
	gn_must gn_wait 10 history_begun adds
}

history_sequential()
{
	"$GN_BIN/tests/share/history" check "$GN_TMP"/history.[123]
}

# history_end CASE - they end (file $GN_TMP/end says so), and what they saw is judged
history_end()
{
	local pid rc=0
	: >"$GN_TMP/end"
	for pid in "${HISTORY[@]}"; do wait "$pid" || rc=1; done
	sed 's/^/# /' "$GN_TMP"/{history,adds}.?.log
	gn_check "$1: no program has an error" [ $rc = 0 ]
	gn_check "the history is what a sequential memory does" history_sequential
	sed 's/^/# /' "$GN_TMP/verdict"
	gn_check "no increment is lost or done twice" gn_exec n3 "$GN_BIN/tests/share/adds" check \
		"$GN_TMP/n3.sock" history secret 65536 \
		"$(cat "$GN_TMP"/adds.?.log | awk '/^[0-9]/ { n += $1 } END { print n }')"
}
