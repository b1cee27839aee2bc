/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * share_wire: what nodes say to one another. Format and checks, no I/O; the fuzzer links
 * the same object.
 *
 * A connection carries messages: a header of GM_HDR_SIZE bytes, little endian, then
 * hdr.len bytes of payload. Requests go from an importer (its agent, or a thread of its
 * application) to the owner's agent; each has one reply of the same op with GM_F_REPLY
 * and the same seq, status 0 or -errno, and in any order (a request that waits for pages
 * of others does not hold up the next). INV alone goes the other way, answered by ACK.
 *
 * A connection starts with HELLO, whose reply names a session and a nonce; ATTACH then
 * proves knowledge of a region's key (gm_key_proof(): HMAC over nonce, session, bus
 * address and node) and binds the region to the session. From there on a request is
 * looked at in this order, before memory is touched:
 *
 *	magic, version, op, length	gm_hdr_decode()		  else: connection closed
 *	session, seq above the last one	replay			  else: -EPROTO, closed
 *	bus range is a region attached	gm_in_range()		  else: -ERANGE, closed
 *	whole pages of that region	its page size		  else: -EPROTO, closed
 *	key id is the region's		revoked key		  else: -EACCES, closed
 *	epoch is the region's		stale owner or importer   else: -ESTALE
 *	right to write			read-only key		  else: -EPERM
 *
 * Of a message that is longer than GM_PAYLOAD_MAX the bus range is looked at before there
 * is memory for it (chan.h): a huge page comes of a region that has such alone.
 *
 * Each refusal has a counter (GM_CNT_*, counters.h). Roles of a connection:
 *
 *	GM_ROLE_PAGES	importer's agent: READ, WRITE, FLUSH, PING; INV comes on it.
 *			Grants and invalidations of a page share this one ordered stream,
 *			so an INV never overtakes the grant it takes back.
 *	GM_ROLE_OPS	application threads: GET, PUT, atomics, FENCE. Bulk transfer lives
 *			here, so that urgent page requests never wait behind it.
 *	GM_ROLE_BULK	importer's agent: READ ahead of faults, so that what waits for a
 *			fault never waits behind it. Replies are in the order of the
 *			requests and grant what can be granted at once: -EAGAIN if
 *			nothing. They may be overtaken by an INV on GM_ROLE_PAGES: an
 *			importer gives the page up then, and throws away the bytes when
 *			they come. The owner may therefore send them from memory that is
 *			others' to write by then, or from none.
 *	GM_ROLE_MOVE	owner's agent to the agent that shall be the owner: MOVE (move.h).
 *
 * A region that has moved answers every request with -EREMCHG, and its epoch now in arg
 * (0: ask for that, too): ask the directory, or wait for the EVENT, who the owner is.
 */
#ifndef GM_SHARE_WIRE_H
#define GM_SHARE_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include "bus.h"

#define GM_MAGIC       0x31574d47u /* "GMW1" */
#define GM_VERSION     6
#define GM_HDR_SIZE    72
#define GM_PAYLOAD_MAX (1u << 20) /* but of one huge page: GM_HUGE_SIZE */
/* Pages of GM_PAGE_SIZE in one WRITE, INV, ACK or FLUSH; of larger ones as many bytes, or
 * one: gm_pages() */
#define GM_BATCH_PAGES 64
#define GM_READ_PAGES  256 /* the same of one READ */
#define GM_NONCE_SIZE  16
#define GM_PROOF_SIZE  32
#define GM_ADDR_MAX    128 /* as NET_ADDR_MAX */
#define GM_PUBLIC_SIZE 32
#define GM_SEALED_SIZE 160
#define GM_CLIENT_MAX  4096 /* clients of a region whose atomics are counted */

enum gm_role { GM_ROLE_PAGES = 1, GM_ROLE_OPS, GM_ROLE_MOVE, GM_ROLE_BULK, GM_ROLE_MAX };

enum gm_op {
	GM_OP_HELLO = 1, /* payload gm_hello; reply: session, payload nonce */
	GM_OP_ATTACH,	 /* bus; payload gm_attach; reply: region's size in arg, of its
			  * pages in size, epoch;
			  * GM_F_SHARED: goes on with what it held; on GM_ROLE_OPS:
			  * with its atomics, payload gm_attached (once.h) */
	GM_OP_DETACH,	 /* bus: holds nothing any more */
	GM_OP_GET,	 /* bus, size; reply carries the bytes */
	GM_OP_PUT,	 /* bus, size == len: GM_PAYLOAD_MAX, or one huge page; reply: arg
			  * 1: some of it had been lost, and is there again */
	GM_OP_FADD,	 /* bus, size 4 or 8; arg added; reply: old value in arg */
	GM_OP_SWAP,	 /* bus, size 4 or 8; arg; reply: old value in arg */
	GM_OP_CAS, /* bus, size 4 or 8; arg: wanted, arg2: expected; reply: old in arg */
	GM_OP_FENCE, /* reply once all earlier requests of the session are done */
	GM_OP_READ,  /* bus, size pages to read; the first is owed, others if at once */
	GM_OP_WRITE, /* bus, size pages to write; the first is owed, others if nobody
		      * has them; GM_F_UPGRADE: it is one, and here to read */
	GM_OP_INV,   /* owner: bus, size; GM_F_SHARED: keep it to read; GM_F_EXCL: you
		      * hold it to write, send its bytes; arg: version */
	GM_OP_ACK,   /* bus, size, arg as in INV; GM_F_SHARED: kept to read; payload: the
		      * bytes of a page that was held to write. No reply. */
	GM_OP_FLUSH, /* bus, size == len: written page comes home; GM_F_SHARED: read on;
		      * arg: version, if it is an ACK said again on a new connection, else
		      * 0. Reply: -EAGAIN, -EREMCHG: it is not home, and its sender's as
		      * before */
	GM_OP_PING,  /* renews the importer's lease; reply renews the owner's for it */
	GM_OP_EVENT, /* owner: arg is GM_EV_*, bus names the region; GM_EV_MOVED: payload
		      * gm_moved; GM_EV_MOVING: seq is the id of the move */
	GM_OP_MOVE,  /* arg2: enum gm_move; each has a reply with the same arg2 */
	GM_OP_MAX,
};

enum { /* what happened to a region; also in local.h and ghostmem.h */
       GM_EV_OWNER_GONE = 1,
       GM_EV_MOVED,
       GM_EV_REVOKED,
       GM_EV_PAGES_LOST,
       GM_EV_MOVING, /* to the agent that shall be the owner: nothing of the old one will
		      * come any more on this connection */
       GM_EV_HEALED, /* to agents: of pages at bus, size some had been lost, and are there
		      * again */
};

enum gm_move {
	GM_MOVE_BEGIN = 1, /* arg: region's size, size: of its pages; payload
			    * gm_move_begin. Reply: lease in
			    * arg, payload gm_move_begun; -EAGAIN: its importer is not the
			    * one that is named, or not ready */
	GM_MOVE_KEYS,	   /* payload gm_move_keys */
	GM_MOVE_PAGES,	   /* bus, size == len */
	GM_MOVE_SLOTS,	   /* payload: gm_move_slot each */
	GM_MOVE_TABLE,	   /* payload: gm_move_run each */
	GM_MOVE_READY,	   /* arg: runs sent. Reply: nothing is missing */
	GM_MOVE_COMMIT,	   /* the directory has it; reply: served from now on */
	GM_MOVE_ABORT,	   /* forget it */
	GM_MOVE_CLIENTS,   /* after SLOTS; payload: gm_move_client each */
	GM_MOVE_MAX,
};

enum {
	GM_F_REPLY = 1,
	GM_F_SHARED = 2,  /* grant, INV, FLUSH: to read only */
	GM_F_EXCL = 4,	  /* grant: to write */
	GM_F_UPGRADE = 8, /* WRITE: page is here to read, bytes not needed */
	GM_F_ALL = 15,
};

struct gm_hdr {
	uint8_t op;
	uint16_t flags;
	uint32_t len;	/* bytes of payload */
	int32_t status; /* replies */
	uint64_t seq;	/* rises with each request of a session */
	uint64_t session;
	uint64_t bus;
	uint32_t size; /* bytes */
	uint32_t key_id;
	uint32_t epoch; /* of the region, see dir.h */
	uint64_t arg;
	uint64_t arg2; /* CAS: expected. MOVE: enum gm_move. On a connection for pages:
			* how far the sender has come with what was sent to it: the owner
			* names the last seq that is done (none behind a FLUSH that is
			* not), the importer counts the grants to write that it applied
			*/
};

struct gm_hello { /* payload of HELLO, as it is on the wire */
	char node[GM_NAME_MAX];
	uint8_t role; /* enum gm_role */
	uint8_t pad[7];
	uint64_t incarnation; /* little endian; of the agent: a restart has another one.
			       * GM_ROLE_OPS: number of the client for its atomics, the
			       * same on its next connection; 0: it has none */
};
_Static_assert(sizeof(struct gm_hello) == GM_NAME_MAX + 16, "on the wire");

struct gm_attach { /* payload of ATTACH, as it is on the wire */
	uint8_t proof[GM_PROOF_SIZE];
};

struct gm_attached {   /* in the reply to ATTACH, as it is on the wire; little endian */
	uint64_t done; /* atomics of this client so far */
	uint64_t old;  /* result of the last one */
};

/* Payloads of EVENT and MOVE, as they are on the wire; numbers are little endian. */
struct gm_moved {
	char node[GM_NAME_MAX]; /* the owner now */
	char addr[GM_ADDR_MAX];
	uint32_t epoch;
	uint32_t lease_ms;
};
_Static_assert(sizeof(struct gm_moved) == GM_NAME_MAX + GM_ADDR_MAX + 8, "on the wire");

struct gm_move_begin {
	char name[GM_NAME_MAX];
	uint64_t id; /* of this move, unlike 0: a lost connection goes on with it */
	uint64_t incarnation; /* of the importer there, as its HELLO had it; 0: none */
	uint32_t key_id, read_key_id;
	uint8_t public[GM_PUBLIC_SIZE]; /* move_key.h */
};
_Static_assert(sizeof(struct gm_move_begin) == GM_NAME_MAX + 56, "on the wire");

struct gm_move_begun {
	char addr[GM_ADDR_MAX]; /* as others reach it */
	uint8_t public[GM_PUBLIC_SIZE];
	uint64_t pages; /* received of this id before */
};
_Static_assert(sizeof(struct gm_move_begun) == GM_ADDR_MAX + 40, "on the wire");

struct gm_move_keys {
	uint8_t sealed[GM_SEALED_SIZE];
};

struct gm_move_slot {
	char node[GM_NAME_MAX];
	uint64_t incarnation;
	uint8_t slot;
	uint8_t pad[7];
};
_Static_assert(sizeof(struct gm_move_slot) == GM_NAME_MAX + 16, "on the wire");

struct gm_move_client { /* whose atomics are counted (once.h) */
	uint64_t id;	/* as its HELLO had it */
	uint64_t done;
	uint64_t old;
};
_Static_assert(sizeof(struct gm_move_client) == 24, "on the wire");

struct gm_move_run { /* pages in one state; what is in no run is HOME (coh.h) */
	uint64_t page;
	uint64_t sharers;
	uint32_t pages;
	uint8_t state;
	uint8_t holder;
	uint16_t pad;
};
_Static_assert(sizeof(struct gm_move_run) == 24, "on the wire");

/**
 * gm_hdr_encode() - write a header
 * @h:		header; caller vouches for it
 * @out:	GM_HDR_SIZE bytes
 */
void gm_hdr_encode(const struct gm_hdr *h, uint8_t *out);

/**
 * gm_hdr_decode() - read and check a header from a peer
 * @in:		GM_HDR_SIZE bytes
 * @out:	header; untouched on failure
 *
 * Checks everything that needs no state: magic, version, op, flags, payload length for
 * that op and direction, size against alignment and limits, addresses against overflow.
 *
 * Return: 0; -EPROTONOSUPPORT: another version; -EBADMSG: anything else. Close the
 * connection on either: message borders are lost.
 */
int gm_hdr_decode(const uint8_t *in, struct gm_hdr *out);

/** gm_op_name() - "get", for logs and counters; "?" for unknown ones */
const char *gm_op_name(unsigned int op);

#endif
