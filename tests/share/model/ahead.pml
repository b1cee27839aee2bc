/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A page that comes ahead of its fault, as bulk.h has it: one importer with two connections to
 * the owner, each ordered, in no order to one another. What is granted on the bulk connection is
 * sent later, from the owner's memory as it is then.
 *
 *	spin -a ahead.pml && cc -O2 -DSAFETY -o pan pan.c && ./pan
 *
 * Every write makes the page's bytes the next number. With -DBUG=1..4 given to spin it has a
 * mistake that pan has to find:
 *	1	what is in flight is not void when the owner takes the page back
 *	2	what comes replaces what is held by then
 *	3	what is in flight is not void when the page was given back unasked
 *	4	the owner grants on the bulk connection what it has asked back
 */
#ifndef BUG
#define BUG 0
#endif
#define WRITES	3
#define ASKS	3
#define FLIGHTS 2
#define TAKEN	2
#define REFUSED 255

mtype = { NOTHING, READER, WRITER };	/* what the importer holds */
mtype = { HOME, SHARED, EXCL };
mtype = { READ, WRITE, ACK, FLUSH };	/* to the owner */
mtype = { GRANT_R, GRANT_W, INV };	/* to the importer */

chan up = [4] of { mtype, byte, bool };	/* op, bytes, are there any */
chan down = [4] of { mtype, byte };
chan ask = [2] of { bool };
chan bulk = [2] of { byte };

mtype state = HOME, want = READ, right = NOTHING;
bool home_write = true, busy, wanted, sending;
byte memory, latest, bytes;
bool asked, flight, gone;

inline check()
{
	assert(right == NOTHING || bytes == latest);
	assert(!home_write || right == NOTHING);
	assert(state == EXCL || memory == latest)
}

active proctype owner()
{
	byte value, taken;
	mtype op = READ;
	bool there;

end:	do
	:: atomic { nempty(up) -> up?op, value, there;
		if
		:: op == READ || op == WRITE -> wanted = true; want = op
		:: op == ACK || op == FLUSH ->
			if
			:: state == EXCL && there -> memory = value; state = HOME
			:: state == SHARED && op == ACK -> state = HOME
			:: else
			fi;
			if
			:: op == ACK -> busy = false; home_write = true
			:: else
			fi
		fi;
		value = 0; op = READ; there = false;
		check() }
	:: atomic { !busy && wanted ->
		wanted = false;
		home_write = false;
		if
		:: want == READ -> state = SHARED; down!GRANT_R(memory)
		:: want == WRITE -> state = EXCL; down!GRANT_W(memory)
		fi;
		check() }
	/* What can be granted at once, or nothing. */
	:: atomic { nempty(ask) && !sending -> ask?_;
		if
#if BUG == 4
		:: state != EXCL ->
#else
		:: state != EXCL && !busy ->
#endif
			state = SHARED; home_write = false; sending = true
		:: else -> bulk!REFUSED
		fi;
		check() }
	:: atomic { sending -> bulk!memory; sending = false }
	:: atomic { !busy && state != HOME && taken < TAKEN ->
		taken++; busy = true; down!INV(0) }
	:: atomic { home_write && latest < WRITES -> latest++; memory = latest; check() }
	od
}

active proctype importer()
{
	byte value, asks, flights;
	mtype op = INV;

end:	do
	:: atomic { !asked && right == NOTHING && asks < ASKS ->
		asks++; asked = true; up!READ(0, false) }
	:: atomic { !asked && right != WRITER && asks < ASKS ->
		asks++; asked = true; up!WRITE(0, false) }
	:: atomic { !flight && right == NOTHING && flights < FLIGHTS ->
		flights++; flight = true; gone = false; ask!true }
	:: atomic { nempty(bulk) -> bulk?value;
		if
#if BUG == 2
		:: value != REFUSED && !gone -> right = READER; bytes = value
#else
		:: value != REFUSED && !gone && right == NOTHING -> right = READER; bytes = value
#endif
		:: else
		fi;
		flight = false; gone = false; value = 0;
		check() }
	:: atomic { nempty(down) && nfull(up) -> down?op, value;
		if
		:: op == GRANT_R && right == NOTHING -> right = READER; bytes = value
		:: op == GRANT_W -> right = WRITER; bytes = value
		:: op == INV ->
#if BUG != 1
			gone = flight;
#endif
			up!ACK(bytes, right == WRITER);
			right = NOTHING
		:: else
		fi;
		if
		:: op == INV
		:: else -> asked = false
		fi;
		op = INV; value = 0;
		check() }
	:: atomic { right == WRITER && latest < WRITES -> latest++; bytes = latest; check() }
	:: atomic { right == WRITER && nfull(up) ->
#if BUG != 3
		gone = flight;
#endif
		up!FLUSH(bytes, true);
		right = NOTHING;
		check() }
	od
}

active proctype progress()
{
end:	atomic { timeout -> assert(!busy && !asked && !flight) }
}
