/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the XDP test programs share: the NIC with its instances, one frame through it
 * with everything about the outcome checked, and a table of frames.
 */
#ifndef GN_TEST_CHECK_H
#define GN_TEST_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "nic.h"
#include "../../user/daemon/stream.h"

#define ALL_OFFLOADS (GN_INSTANCE_TSO4 | GN_INSTANCE_TSO6 | GN_INSTANCE_USO)
#define MAX_FRAME    9022 /* gn_config.max_frame, bytes */

extern const uint8_t mac_plain[6]; /* of in_plain */
extern const uint8_t mac_other[6]; /* of no instance */
extern const uint64_t secret[2];

/* The default address untagged and on VLAN 100 and 7, everything offloaded; and an
 * instance that takes no offload. Generations in the upper bits of the id. */
extern const struct gn_instance in_all, in_vlan, in_plain;

extern struct nic nic;
extern struct nic_run run;    /* the last frame; inputs stay as set */
extern unsigned int fixtures; /* kinds of frame tried, for the summary */

/** check_main() - run @n tests on a fresh NIC. Return: exit status, 77 without root */
int check_main(const char *name, const struct CMUnitTest *tests, size_t n);

/** counted() - exactly these counters moved: pairs (counter, by how much), ended by -1 */
void counted(const char *what, ...);

/** check_pass() - the frame goes to the host as it came, and @counter counts it */
void check_pass(const char *what, const uint8_t *f, unsigned int len, int counter);

enum place {
	IN_FRONT,  /* metadata area */
	IN_FRAME,  /* its first bytes */
	IN_STREAM, /* the next record, which is free */
	IN_FULL,   /* in the frame, because no record is free */
};

/**
 * check_redirect() - the frame goes to AF_XDP, unchanged, with what frame_expect() says
 * @in:		instance it is for
 * @place:	where the metadata is expected
 *
 * Return: the metadata
 */
struct gn_meta check_redirect(const char *what, const uint8_t *f, unsigned int len,
			      const struct gn_instance *in, enum place place);

/** instance_of() - that a frame of this description reaches */
const struct gn_instance *instance_of(const struct frame_spec *s);

/** run_spec() - build @s and check_redirect() it */
struct gn_meta run_spec(const char *what, const struct frame_spec *s);

/* Kinds of frame, and what they are. */
struct table_row {
	const char *name;
	struct frame_spec s;
	enum gn_class class;
	int why; /* detail counter; 0: none */
};

extern const struct table_row table[];
extern const size_t table_len;

/* Extension headers; frame_build() fills in the next header byte of the last. */
extern const uint8_t ext_hop_dst[16], ext_hop64[64];

#define EXT(a, first) .v6 = true, .ext = (a), .ext_len = sizeof(a), .ext_first = (first)

#endif
