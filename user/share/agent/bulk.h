/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bulk: an importer's second connection to an owner (GM_ROLE_BULK), on which pages come
 * that nobody has to wait for yet. Bytes are received where they belong, through the
 * alias of the window, without a copy.
 *
 * What comes on it may be overtaken by what comes on the first connection. Three rules
 * keep that harmless, in this order for each page that is in flight:
 *
 *	the owner asked for it back	void: its bytes are thrown away when they come.
 *	(bulk_void())			The INV was answered as for a page that is not
 *					here, so the owner counts on nothing.
 *	it is held by now		what is here is as new, or newer
 *	neither				nobody has been able to write to it since it was
 *					granted: it is held to read from now on
 *
 * A page that stops to be held without an INV (a FLUSH) has to be made void, too. The
 * connection lives no longer than the first one: what was in flight then is void with it.
 * tests/share/model/ahead.pml states the same rules.
 *
 * A page at which the agent wants to hear that the application has come so far, the
 * marker, is held, but not mapped: it takes a fault, answered at once.
 */
#ifndef GM_BULK_H
#define GM_BULK_H

#include <stdbool.h>
#include <stdint.h>

struct net_conn;
struct peer;
struct bulk;

/** bulk_open() - p->bulk is @conn, which is connected, and owned on success. Return: 0,
 * -errno */
int bulk_open(struct peer *p, const struct net_conn *conn, uint64_t session);

/** bulk_close() - faults that wait for what was in flight are asked for on the first
 * connection. One that is being made is not. Nothing if there is none */
void bulk_close(struct peer *p);

/**
 * bulk_ask() - ask for pages to read
 * @page, @n:	none of them held or in flight; @n up to dir_batch(GM_READ_PAGES)
 * @clients:	windows to map them in
 * @marker:	leave the first one unmapped
 *
 * Return: pages asked for: @n, or 0: no connection, or BULK_FLIGHTS reached
 */
uint32_t bulk_ask(struct peer *p, uint64_t page, uint32_t n, uint32_t clients,
		  bool marker);

/** bulk_has() - is @page in flight, and not void? */
bool bulk_has(const struct peer *p, uint64_t page);

/** bulk_wait() - if @page is in flight, threads of @clients wait for it. Return: it is */
bool bulk_wait(struct peer *p, uint64_t page, uint32_t clients);

/** bulk_void() - @page is the owner's again, whatever is in flight */
void bulk_void(struct peer *p, uint64_t page);

/** bulk_detach() - map nothing for @client any more */
void bulk_detach(struct peer *p, int client);

#endif
