/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pages on their way between an owner and an importer whose connection is lost, or whose agents
 * are killed and started anew, as meta.h, peer.c (peer_repeat()) and home_pages.c (home_recall(),
 * page_back()) have it. Applications, and with them windows, tables and kept copies, stay. So
 * nothing may get lost, ever.
 *
 *	the owner keeps a copy of what it grants to write until the importer has said that it has it;
 *	the importer keeps what it gives back until the owner has said so.
 *
 *	spin -a keep.pml && cc -O2 -DSAFETY -o pan pan.c && ./pan
 *
 * The region may also move to another owner, with the table: there is no copy of a grant then, and
 * versions, whose high half is the owner's, go on to rise. Before that it stands still (home_hold()):
 * what is said again waits, and is not done; what an importer gives back because it ends
 * (peer_leave.c, once) is refused. It holds that again, and what was not answered when it hears of
 * the next owner. Its connection is not lost while it waits for that answer. Then it ends: what it
 * has not got by then the owner has still, or loses, if it has not heard of the end and waits in vain
 * for the importer to come back.
 *
 * Every write makes the page's bytes the next number. With -DBUG=1..9 given to spin it has a
 * mistake that pan has to find:
 *	1	the owner keeps no copy
 *	2	the importer keeps no copy
 *	3	an answer said again is believed, although it had come: the page was granted since
 *	4	an importer's new agent says again what the former had not yet given away
 *	5	grants that were not confirmed do not come back on a new connection
 *	6	the next owner's versions begin anew
 *	7	an answer said again is done when it waits
 *	8	what an importer that ends gave back is gone, whatever the answer
 *	9	it ends while what it has asked for may be granted still
 */
#ifndef BUG
#define BUG 0
#endif
#define WRITES 3
#define ASKS   2
#define TAKEN  2
#define LOSSES 2
#define GONE   255

mtype = { WRITE, ACK, FLUSH, CONFIRM, HOME, BYE };	/* to the owner */
mtype = { GRANT, INV, DONE, HAS, REFUSED };	/* to the importer */

chan up = [5] of { mtype, byte, byte, bool };	/* op, bytes, version, are there any */
chan down = [5] of { mtype, byte, byte };	/* op, bytes, version */
bool conn = true;

/* The owner's side: table, memory and copy outlive its agent; the rest does not. */
bool excl, kept, home_write = true;
byte memory, version, kept_bytes, kept_version;
bool busy, wanted, done, recall;
byte ostep;
bool still, waits; /* waits: a FLUSH */
byte waits_bytes, waits_version;

/* The importer's side, the same. */
bool writer, own_kept;
byte bytes, own_bytes, own_version;
bool asked, confirm;
byte istep;
bool leaving, left, ended, buried;
byte leaving_bytes;

byte latest;

inline check()
{
	assert(!writer || bytes == latest);
	assert(!home_write || (!writer && !excl));
	assert(!home_write || memory == latest)
}

/* page_back() */
inline back(value, there)
{
	if
	:: excl && there -> memory = value
	:: excl && !there && kept -> memory = kept_bytes
	:: excl && !there && !kept -> assert(false)	/* lost */
	:: else
	fi;
	excl = false;
	kept = false;
	busy = false;
	home_write = true
}

/* FLUSH; a grant that came after that answer, and was not confirmed, says that it had come */
inline again(value, v)
{
	done = true;
	if
	:: excl && (BUG == 3 || !(kept && v <= kept_version)) -> back(value, true)
	:: else
	fi
}

active proctype owner()
{
	byte value, v, taken;
	mtype op = WRITE;
	bool there;

end:	do
	:: atomic { nempty(up) && nfull(down) && ostep == 0 -> up?op, value, v, there;
		if
		:: op == WRITE -> wanted = true
		:: op == CONFIRM -> kept = kept && v != kept_version
		:: op == ACK && busy && v == version -> done = there; back(value, there)
		:: op == FLUSH && !still -> again(value, v)
		:: op == FLUSH && still ->
			waits = true; waits_bytes = value; waits_version = v;
			done = done || BUG == 7
		:: op == HOME && !still -> back(value, true); down!HAS(0, 0)
		:: op == HOME && still -> down!REFUSED(0, 0)
		:: op == BYE && !still ->
			kept = kept && v != kept_version;
			wanted = false;
			if
			:: excl -> back(0, false)
			:: else
			fi
		:: else
		fi;
		op = WRITE; value = 0; v = 0; there = false;
		check() }
	/* A grant, in the steps between which the agent may be killed. */
	:: atomic { !busy && wanted && !excl && !still && ostep == 0 ->
		wanted = false;
		home_write = false;
		version++;
#if BUG != 1
		kept = true;
#endif
		kept_bytes = memory;
		kept_version = version;
		ostep = 1 }
	:: atomic { ostep == 1 -> excl = true; ostep = 2 }
	:: atomic { ostep == 2 ->
		memory = GONE;
		if
		:: conn -> down!GRANT(kept_bytes, version); done = false
		:: else
		fi;
		ostep = 0;
		check() }
	/* Who asks for what it has: its bytes are lost. */
	:: atomic { !busy && wanted && excl && !recall && !still && ostep == 0 ->
		assert(false) }
	:: atomic { !busy && excl && !still && ostep == 0 && (recall || taken < TAKEN) ->
		if
		:: recall -> recall = false
		:: else -> taken++
		fi;
		busy = true;
		version++;
		if
		:: conn -> down!INV(0, version)
		:: else
		fi }
	:: atomic { !excl && recall && ostep == 0 -> recall = false }
	:: atomic { done && conn && nfull(down) && ostep == 0 -> down!DONE(0, 0); done = false }
	:: atomic { home_write && !still && ostep == 0 && latest < WRITES ->
		latest++; memory = latest; check() }
	/* About to move; and it does not. */
	:: atomic { !still && !busy && !kept && !recall && ostep == 0 -> still = true }
	:: atomic { still -> still = false;
		if
		:: waits -> again(waits_bytes, waits_version)
		:: else
		fi;
		waits = false; waits_bytes = 0; waits_version = 0;
		check() }
	od
}

inline hold_again()
{
	if
	:: leaving && BUG != 8 -> writer = true; bytes = leaving_bytes
	:: else
	fi;
	leaving = false;
	leaving_bytes = 0
}

active proctype importer()
{
	byte value, v, asks, granted;
	mtype op = DONE;

end:	do
	:: atomic { conn && !ended && !writer && !asked && !leaving && istep == 0 && asks < ASKS && nfull(up) ->
		asks++; asked = true; up!WRITE(0, 0, false) }
	:: atomic { nempty(down) && !ended && istep == 0 && nfull(up) -> down?op, value, v;
		if
		:: op == GRANT -> /* it also says that what came before is done */
			writer = true; bytes = value; asked = false; own_kept = false;
			confirm = true; granted = v
		:: op == DONE -> own_kept = false
		:: op == HAS -> leaving = false; leaving_bytes = 0
		:: op == REFUSED -> hold_again()
		:: op == INV && writer ->
#if BUG != 2
			own_kept = true;
#endif
			own_bytes = bytes;
			own_version = v;
			istep = 1
		:: op == INV && !writer -> up!ACK(0, v, false)
		fi;
		op = DONE; value = 0; v = 0;
		check() }
	:: atomic { istep == 1 -> writer = false; istep = 2 }
	:: atomic { istep == 2 ->
		if
		:: conn && nfull(up) -> up!ACK(own_bytes, own_version, true); istep = 0
		:: !conn -> istep = 0
		fi }
	:: atomic { confirm && conn && !ended && istep == 0 && nfull(up) ->
		up!CONFIRM(0, granted, false); confirm = false }
	:: atomic { writer && istep == 0 && latest < WRITES ->
		latest++; bytes = latest; check() }
	:: atomic { writer && conn && !left && istep == 0 && nfull(up) ->
		left = true; leaving = true; leaving_bytes = bytes; writer = false;
		up!HOME(bytes, 0, true) }
	:: atomic { conn && !ended && !writer && !own_kept && !leaving && istep == 0 && nfull(up) &&
		(BUG == 9 || !asked) -> ended = true; asked = false; confirm = false;
		up!BYE(0, granted, false) }
	:: atomic { ended && nempty(down) -> down?op, value, v; op = DONE; value = 0; v = 0 }
	od
}

inline lose()
{
	losses++;
	conn = false;
	do
	:: nempty(up) -> up?_, _, _, _
	:: empty(up) -> break
	od;
	do
	:: nempty(down) -> down?_, _, _
	:: empty(down) -> break
	od;
	wanted = false;
	done = false;
	confirm = false;
	waits = false;
	waits_bytes = 0;
	waits_version = 0
}

active proctype network()
{
	byte losses;

end:	do
	:: atomic { conn && !leaving && losses < LOSSES && ostep == 0 && istep == 0 -> lose() }
	/* The owner's agent is killed; another one finds the table. */
	:: atomic { conn && !leaving && losses < LOSSES && istep == 0 ->
		lose();
		still = false;
		if
		:: !excl -> kept = false; home_write = true
		:: excl -> memory = GONE
		fi;
		busy = false;
		recall = false;
		ostep = 0;
		check() }
	/* The importer's agent. */
	:: atomic { conn && !leaving && losses < LOSSES && ostep == 0 ->
		lose();
#if BUG != 4
		if
		:: writer -> own_kept = false
		:: else
		fi;
#endif
		istep = 0 }
	/* Another owner: what comes on a connection to this one is not done any more; what
	 * was answered has come before the importer hears of it. */
	:: atomic { losses < LOSSES && still && (!leaving || empty(down)) && istep == 0 ->
		lose();
		still = false;
		hold_again();
#if BUG == 6
		version = 0;
#endif
		check() }
	/* Its lease ends: what it was granted and never confirmed may have been written to. */
	:: atomic { !conn && ended && !buried && !still && ostep == 0 && istep == 0 ->
		assert(!excl);
		buried = true;
		busy = false }
	:: atomic { !conn && !ended && !still && ostep == 0 && istep == 0 ->
		conn = true;
#if BUG != 5
		recall = recall || kept;
#endif
		if
		:: busy -> down!INV(0, version)
		:: else
		fi;
		if
		:: own_kept -> up!FLUSH(own_bytes, own_version, true)
		:: else
		fi;
		if
		:: asked -> up!WRITE(0, 0, false)
		:: else
		fi }
	od
}

active proctype progress()
{
end:	atomic { timeout -> assert((conn || buried) && !busy && !asked && !wanted && !leaving) }
}
