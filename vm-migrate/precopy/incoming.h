/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * incoming: the destination of a live migration.
 *
 * Accepts the streams of one migration at a time, lets the VMM make a machine of the
 * shape that CONFIG and HELLO describe, receives RAM, has the state loaded, compares
 * digests, and starts the machine after HANDOVER. If anything fails before that,
 * everything that was made is undone and it listens again: the source runs on and may
 * retry.
 *
 * incoming_run() is called on a thread of its own; cancel and status from any.
 */
#ifndef VMM_INCOMING_H
#define VMM_INCOMING_H

#include <stdint.h>

#include "../stream/chan.h"
#include "../ram.h"
#include "../stream/receiver.h"
#include "../state.h"

struct incoming_vm_ops {
	/* Make the machine; *ram gets its memory, all zeros, blocks exactly as in @want
	 * (checked by the caller). @why: buffer for a message to the source's user. */
	int (*prepare)(void *vm, const char *config_json, const struct ram *want,
		       const struct ram **ram, char *why, size_t why_len);
	int (*load)(void *vm, const uint8_t *state, size_t len, char *why,
		    size_t why_len);
	void (*abandon)(void *vm); /* undo prepare and load */
	void (*start)(void *vm);   /* the machine is ours: run */
};

struct incoming_conf {
	const char *uri;
	struct chan_tls tls;
	unsigned int max_failures; /* give up after so many, 0: never */
};

struct incoming_status {
	enum {
		INCOMING_LISTEN,
		INCOMING_RECEIVE,
		INCOMING_VERIFY,
		INCOMING_RUNNING,
		INCOMING_GAVE_UP
	} phase;
	struct receiver_stats received;
	unsigned int failures;
	char message[200]; /* of the last failure */
};

struct incoming;

int incoming_create(const struct incoming_conf *conf, const struct incoming_vm_ops *ops,
		    void *vm, struct incoming **out);
const char *incoming_uri(const struct incoming *in);
/** incoming_run() - Return: 0: the machine runs here; -ECANCELED; -errno: gave up */
int incoming_run(struct incoming *in);
void incoming_cancel(struct incoming *in);
void incoming_status(struct incoming *in, struct incoming_status *st);
void incoming_destroy(struct incoming *in);

#endif
