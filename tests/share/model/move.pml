/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A region moves from one owner to another, as move.h has it: one page, the two agents, the
 * directory, an importer that may hold the page to write. Agents die at any moment, and may
 * be started again, with what they had written down (meta.h); the answer of the directory may
 * be lost, and a transaction whose answer is lost may be carried out late, or never.
 *
 * Every write makes the page's bytes the next number, so whoever serves the page, and knows
 * its bytes to be its own, has to have "latest". Never two owners serve. Whom the directory
 * names has the region, or will once it is started again.
 *
 * With -DBUG=1..7 it has a mistake that pan has to find:
 *	1	the old owner goes on when the directory does not answer
 *	2	the new owner serves when it has all, without the directory
 *	3	the old owner takes writes between the table and the directory's answer
 *	4	pages written after they were copied are not sent again
 *	5	a new owner that was started again forgets that it has all
 *	6	an old one that was started again serves without another epoch
 *	7	what the new owner's node had asked the old one for, which has left since, takes the
 *		copy with it when it is refused
 */
#ifndef BUG
#define BUG 0
#endif
#define WRITES 3

mtype = { SERVING, STILL, SENT, UNSURE, LEFT };	/* the old owner */
mtype = { NOTHING, READY, OWNER };		/* the new one */

mtype from = SERVING, to = NOTHING;
bool from_dead, to_dead;

/* The directory: who, and the epoch. A transaction on its way: 0 none, 1 the move, 2 the old
 * owner stays; both only from epoch 1. */
byte dir_epoch = 1;
bool dir_new;
byte under_way[2];

/* The page: here (old owner's memory), copied (new one's), or held to write. */
byte latest, here, copied;
bool dirty = true, held;
byte importer;
bool asked;	/* a thread of the new one's node waits for the old one */

#define from_serves (!from_dead && from == SERVING)
#define to_serves   (!to_dead && to == OWNER)

inline check()
{
	assert(!(from_serves && to_serves));
	assert(!from_serves || held || here == latest);
	assert(!to_serves || held || copied == latest);
	assert(!dir_new || to != NOTHING)
}

active proctype old_owner()
{
end:	do
	/* Started again: what the directory says. */
	:: atomic { from_dead && dir_new -> from_dead = false; from = LEFT; check() }
	:: atomic { from_dead && !dir_new ->
#if BUG != 6
		dir_epoch = 2;
#endif
		from_dead = false; from = SERVING; dirty = true; check() }
	/* Its own store, a put, an atomic. */
	:: atomic { !from_dead && (from == SERVING || (BUG == 3 && from == SENT)) && !held &&
		latest < WRITES -> latest++; here = latest; dirty = (BUG != 4 || copied == 0);
		check() }
	/* A grant to write, the page back. */
	:: atomic { from_serves && !held -> held = true; importer = here; check() }
	:: atomic { from_serves && held -> held = false; here = importer; dirty = true;
		check() }
	/* A copy while all goes on. */
	:: atomic { from_serves && !held && dirty && to == NOTHING && !to_dead ->
		copied = here; dirty = false; check() }
	:: atomic { from_serves && to == NOTHING && !to_dead && dir_epoch == 1 -> from = STILL }
	/* The rest, the table, READY. */
	:: atomic { !from_dead && from == STILL && !to_dead ->
		if
		:: dirty && !held -> copied = here; dirty = false
		:: else
		fi;
		from = SENT;
#if BUG == 2
		to = OWNER;
#else
		to = READY;
#endif
		check() }
	/* It fails. Once the other side may have all, not without another epoch. */
	:: atomic { !from_dead && from == STILL -> from = SERVING; dirty = true; check() }
	:: atomic { !from_dead && from == SENT && dir_epoch == 1 -> from = UNSURE }
	:: atomic { !from_dead && from == SENT && under_way[0] == 0 && dir_epoch == 1 ->
		under_way[0] = 1; from = UNSURE }
	/* It asks: moved, or not yet. Then it makes sure that it never will. */
	:: atomic { !from_dead && from == UNSURE && dir_epoch == 2 && dir_new -> from = LEFT }
	:: atomic { !from_dead && from == UNSURE && dir_epoch == 2 && !dir_new ->
		from = SERVING; dirty = true; check() }
	:: atomic { !from_dead && from == UNSURE && dir_epoch == 1 && under_way[1] == 0 ->
#if BUG == 1
		from = SERVING; check()
#else
		under_way[1] = 2
#endif
		}
	:: atomic { !from_dead -> from_dead = true }
	od
}

/* Transactions: in any order, perhaps never; the epoch decides. */
active proctype directory()
{
end:	do
	:: atomic { under_way[0] == 1 ->
		if
		:: dir_epoch == 1 -> dir_epoch = 2; dir_new = true; check()
		:: else
		fi;
		under_way[0] = 3 }
	:: atomic { under_way[1] == 2 ->
		if
		:: dir_epoch == 1 -> dir_epoch = 2; dir_new = false
		:: else
		fi;
		under_way[1] = 0 }
	od
}

active proctype new_owner()
{
end:	do
	/* Started again: all it had it still has, or what was copied is to come again. */
	:: atomic { to_dead -> to_dead = false;
#if BUG == 5
		to = (to == READY -> NOTHING : to);
#endif
		if
		:: to == NOTHING -> copied = 0; dirty = true
		:: else
		fi;
		check() }
	:: atomic { !to_dead && to == READY && dir_epoch == 2 && dir_new ->
		to = OWNER; check() }
	:: atomic { !to_dead && to == READY && dir_epoch == 2 && !dir_new -> to = NOTHING }
	:: atomic { !to_dead && to != OWNER && !from_dead && from != LEFT && !held && !asked ->
		asked = true }
	:: atomic { !to_dead && to != OWNER && !from_dead && from == LEFT && asked ->
#if BUG == 7
		copied = 0;
#endif
		asked = false; check() }
	:: atomic { to_serves && asked -> asked = false }
	:: atomic { to_serves && !held && latest < WRITES -> latest++; copied = latest; check() }
	:: atomic { to_serves && !held -> held = true; importer = copied; check() }
	:: atomic { to_serves && held -> held = false; copied = importer; check() }
	:: atomic { !to_dead -> to_dead = true }
	od
}

active proctype holder()
{
end:	do
	:: atomic { held && latest < WRITES -> latest++; importer = latest; check() }
	od
}
