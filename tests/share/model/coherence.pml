/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The coherence of one page, as coh.h and peer.h have it: the owner's directory with its
 * own application ("home"), and two importers, each behind one ordered connection in both
 * directions. Importers ask, write, give the page up of their own accord (FLUSH) and die;
 * the directory learns of a death at any moment after it.
 *
 * Every write makes the page's bytes the next number. So the bytes of everyone who may
 * read have to be "latest", always.
 *
 *	spin -a coherence.pml && cc -O2 -DSAFETY -o pan pan.c && ./pan
 *
 * With -DBUG=1..4 given to spin it has a mistake that pan has to find:
 *	1	the right to write is granted before the readers have answered
 *	2	a late answer to an INV that a FLUSH had answered is taken at its word
 *	3	home's page is not write-protected when another gets it
 *	4	an importer answers an INV without giving up the page
 */
#ifndef BUG
#define BUG 0
#endif
#define N      2
#define WRITES 2
#define ASKS   2

mtype = { NONE, READ, WRITE, UPGRADE, ACK, FLUSH };    /* to the owner */
mtype = { GRANT_R, GRANT_W, GRANT_U, FAILED, INV_R, INV_W }; /* to an importer */
mtype = { HOME, SHARED, EXCL, LOST };
mtype = { NOTHING, READER, WRITER };

chan up[N] = [5] of { mtype, byte, byte, bool };  /* op, bytes, version, kept */
chan down[N] = [4] of { mtype, byte, byte };	  /* op, bytes, version */

/* The directory. */
mtype state = HOME;
bool sharer[N], waiting[N], gone[N];
mtype pending[N] = NONE;
byte holder, version, who;
mtype want;
bool busy;
byte memory;
bool home_write = true;

/* The importers. */
mtype right[N] = NOTHING;
byte bytes[N], asks[N];
bool asked[N], dead[N];

byte latest;
bool writer_died;

#define may_read(i) (!dead[i] && right[i] != NOTHING)
#define no_sharer   (!sharer[0] && !sharer[1])

inline check()
{
	assert(!(may_read(0) && may_read(1) && (right[0] == WRITER || right[1] == WRITER)));
	assert(!(home_write && (may_read(0) || may_read(1))));
	assert(!may_read(0) || bytes[0] == latest);
	assert(!may_read(1) || bytes[1] == latest);
	assert(!(state == HOME || state == SHARED) || memory == latest);
	assert(state != LOST || writer_died)
}

inline ask_back(j)
{
	if
	:: state == EXCL && holder == j && who != j -> waiting[j] = true
	:: state == SHARED && sharer[j] && who != j && want != READ -> waiting[j] = true
	:: else
	fi;
	if
	:: waiting[j] && !dead[j] && want == READ -> down[j]!INV_R(0, version)
	:: waiting[j] && !dead[j] && want != READ -> down[j]!INV_W(0, version)
	:: else
	fi
}

inline start(from, op)
{
	busy = true;
	who = from;
	want = op;
	version++;
	ask_back(0);
	ask_back(1)
}

inline tell(op)
{
	if
	:: !dead[who] -> down[who]!op(memory, version)
	:: else
	fi
}

inline grant()
{
	if
	:: who < N && gone[who]		/* asked and died */
	:: who < N && !gone[who] && state == LOST -> tell(FAILED)
	:: who == N && state == LOST	/* home gets SIGBUS */
	:: who == N && state != LOST && want == READ
	:: who == N && state != LOST && want == WRITE ->
		state = HOME;
		home_write = true
	:: who < N && !gone[who] && state != LOST ->
#if BUG != 3
		home_write = false;
#endif
		if
		:: want == READ ->
			tell(GRANT_R);
			state = SHARED;
			sharer[who] = true
		:: want != READ ->
			if
			:: want == UPGRADE && state == SHARED && sharer[who] -> tell(GRANT_U)
			:: else -> tell(GRANT_W)
			fi;
			sharer[0] = false;
			sharer[1] = false;
			state = EXCL;
			holder = who
		fi
	fi;
	busy = false
}

/* coh_ack(): v 0 is of its own accord. */
inline answer(i, value, v, kept)
{
	if
#if BUG != 2
	:: v != 0 && (!waiting[i] || v != version)
#endif
	:: else ->
		if
		:: state == EXCL && holder == i ->
			memory = value;
			state = (kept -> SHARED : HOME);
			sharer[i] = kept
		:: state == SHARED && sharer[i] && !kept ->
			sharer[i] = false;
			state = (no_sharer -> HOME : SHARED)
		:: else
		fi;
		/* A FLUSH that leaves what is in the way: its answer comes. */
		if
		:: state == SHARED && sharer[i] && want != READ
		:: else -> waiting[i] = false
		fi
	fi
}

inline receive(i)
{
	up[i]?op, value, v, kept;
	if
	:: gone[i]
	:: !gone[i] && (op == ACK || op == FLUSH) -> answer(i, value, v, kept)
	:: else -> pending[i] = op
	fi;
	op = NONE; value = 0; v = 0; kept = false
}

inline bury(i)
{
	gone[i] = true;
	pending[i] = NONE;
	waiting[i] = false;
	if
	:: state == EXCL && holder == i -> state = LOST
	:: state == SHARED && sharer[i] ->
		sharer[i] = false;
		state = (no_sharer -> HOME : SHARED)
	:: else
	fi
}

active proctype owner()
{
	mtype op = NONE;
	byte value, v, tries;
	bool kept;

end:	do
	:: atomic { nempty(up[0]) -> receive(0); check() }
	:: atomic { nempty(up[1]) -> receive(1); check() }
	:: atomic { !busy && pending[0] != NONE ->
		start(0, pending[0]); pending[0] = NONE; check() }
	:: atomic { !busy && pending[1] != NONE ->
		start(1, pending[1]); pending[1] = NONE; check() }
#if BUG == 1
	:: atomic { busy -> grant(); check() }
#else
	:: atomic { busy && !waiting[0] && !waiting[1] -> grant(); check() }
#endif
	:: atomic { !busy && tries < 2 && state != HOME -> tries++; start(N, WRITE); check() }
	:: atomic { !busy && tries < 2 && state == EXCL -> tries++; start(N, READ); check() }
	:: atomic { home_write && latest < WRITES ->
		latest++; memory = latest; check() }
	:: atomic { dead[0] && !gone[0] -> bury(0); check() }
	:: atomic { dead[1] && !gone[1] -> bury(1); check() }
	od
}

inline give_up(op, keep, v)
{
	up[me]!op(bytes[me], v, keep);
	right[me] = (keep -> READER : NOTHING)
}

proctype importer(byte me)
{
	mtype op = NONE;
	byte value, v;

end:	do
	:: atomic { asks[me] < ASKS && !asked[me] && right[me] == NOTHING ->
		asked[me] = true; asks[me]++; up[me]!READ(0, 0, false) }
	:: atomic { asks[me] < ASKS && !asked[me] && right[me] == NOTHING ->
		asked[me] = true; asks[me]++; up[me]!WRITE(0, 0, false) }
	:: atomic { asks[me] < ASKS && !asked[me] && right[me] == READER ->
		asked[me] = true; asks[me]++; up[me]!UPGRADE(0, 0, false) }
	:: atomic { right[me] == WRITER && latest < WRITES ->
		latest++; bytes[me] = latest; check() }
	:: atomic { right[me] == WRITER && nfull(up[me]) -> give_up(FLUSH, false, 0) }
	:: atomic { right[me] == WRITER && nfull(up[me]) -> give_up(FLUSH, true, 0) }
	:: atomic { nempty(down[me]) && nfull(up[me]) -> down[me]?op, value, v;
		if
		:: op == GRANT_R -> right[me] = READER; bytes[me] = value; asked[me] = false
		:: op == GRANT_W -> right[me] = WRITER; bytes[me] = value; asked[me] = false
		:: op == GRANT_U -> assert(right[me] == READER);
			right[me] = WRITER; asked[me] = false
		:: op == FAILED -> right[me] = NOTHING; asked[me] = false
#if BUG == 4
		:: op == INV_W && right[me] == READER ->
			up[me]!ACK(bytes[me], v, false)
#endif
		:: op == INV_W && (BUG != 4 || right[me] != READER) -> give_up(ACK, false, v)
		:: op == INV_R && right[me] != NOTHING -> give_up(ACK, true, v)
		:: op == INV_R && right[me] == NOTHING -> give_up(ACK, false, v)
		fi;
		op = NONE; value = 0; v = 0;
		check() }
	:: atomic { me == 1 -> /* nobody outlives both: one may die */
		writer_died = true;
		dead[me] = true;
		right[me] = NOTHING;
		break }
	od
}

init
{
	atomic { run importer(0); run importer(1) }
}

/* Nothing is left undone: who asked was answered, if it lives. */
#define quiet (timeout)
active proctype progress()
{
end:	atomic { timeout -> assert(!busy && !asked[0] && (!asked[1] || dead[1])) }
}
