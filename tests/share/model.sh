#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Check the models of the coherence protocol (model/coherence.pml), of a region that moves
# (move.pml), of pages that come ahead of their faults (ahead.pml) and of agents that go on where
# others died (keep.pml) over all of their states; then with each of their planted mistakes,
# which have to be found.
set -u

model=$(cd "$(dirname "$0")/model" && pwd)/coherence.pml
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1
failed=0

# check BUG WANTED-ERRORS CASE
check()
{
	local got optimize=-O0
	# Most have so few states that compiling takes longer than the search.
	[[ $model$1 = *coherence.pml0 ]] && optimize=-O1
	spin -DBUG="$1" -a "$model" >spin.log 2>&1 &&
		cc -w $optimize -DSAFETY -DVECTORSZ=2048 -o pan pan.c >>spin.log 2>&1 &&
		timeout 100 ./pan -m200000 >pan.log 2>&1
	got=$(sed -n 's/.*errors: \([0-9]*\)$/\1/p' pan.log)
	if [ "$got" = "$2" ] && ! grep -q 'max search depth too small' pan.log &&
		{ [ "$2" != 0 ] || ! grep -q 'Search not completed' pan.log; }; then
		echo "ok $3"
		sed -n 's/^ *\([0-9]* states, stored\).*/# \1/p' pan.log
	else
		echo "not ok $3: ${got:-no} errors"
		tail -n 20 spin.log pan.log
		failed=1
	fi
	rm -f pan.log
}

check 0 0 "one writer or many readers of the latest bytes, no deadlock, nothing lost"
check 1 1 "a grant before the answers is found"
check 2 1 "a late answer that is believed is found"
check 3 1 "an owner's page left writable is found"
check 4 1 "an answer by one who keeps the page is found"
model=${model%/*}/move.pml
check 0 0 "a move: never two owners, whose bytes are the latest"
check 1 1 "an old owner that goes on in doubt is found"
check 2 1 "a new owner that does not ask the directory is found"
check 3 1 "a store after the table was sent is found"
check 4 1 "a page that is not sent again is found"
check 5 1 "a new owner that forgets, once started again, that it has all is found"
check 6 1 "an old owner started again that keeps its epoch is found"
check 7 1 "a refusal that takes the copy with it is found"
model=${model%/*}/ahead.pml
check 0 0 "pages ahead: nobody reads old bytes, whatever overtakes them"
check 1 1 "what is in flight when its page is taken back is found"
check 2 1 "what replaces a page that is held is found"
check 3 1 "what is in flight when its page is given back is found"
check 4 1 "a grant of what is being taken back is found"
model=${model%/*}/keep.pml
check 0 0 "lost connections and agents started anew: no written byte is lost"
check 1 1 "an owner that keeps no copy is found"
check 2 1 "an importer that keeps no copy is found"
check 3 1 "an old answer that is believed is found"
check 4 1 "a new agent that gives away what it holds is found"
check 5 1 "a grant that was lost and not taken back is found"
check 6 1 "versions that begin anew with another owner are found"
check 7 1 "what waits while the region stands still and passes for done is found"
check 8 1 "a page given back to an owner that cannot take it, and forgotten, is found"
check 9 1 "an end before what was asked for has come is found"
exit $failed
