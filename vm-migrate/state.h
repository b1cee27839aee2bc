/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * state: the machine's state beside its RAM, as named, versioned sections.
 *
 * A section: name, instance (vCPU 3), version, bytes. Values in it are little-endian.
 * A reader that meets a section it does not know, a newer version, or a wrong length
 * refuses the whole state with a message that names the section: half a machine is worse
 * than none.
 *
 * A writer is built by one thread and then read; a reader works on foreign bytes, does
 * not copy them and never reads outside them.
 */
#ifndef VMM_STATE_H
#define VMM_STATE_H

#include <stddef.h>
#include <stdint.h>

#define STATE_NAME_MAX	   24	       /* bytes with the NUL */
#define STATE_MAX_BYTES	   (64u << 20) /* of a whole state */
#define STATE_MAX_SECTIONS 1024

struct state_writer {
	uint8_t *buf;
	size_t len, cap;
	size_t section; /* offset of the open section's header, SIZE_MAX: none */
	unsigned int sections;
	int err; /* first error; sticky, so that only state_finish() is checked */
};

struct state_section {
	char name[STATE_NAME_MAX];
	uint32_t instance, version;
	const uint8_t *data; /* in the reader's buffer */
	uint32_t len, pos;
	int err; /* sticky: -EBADMSG after reading past the end */
};

void state_init(struct state_writer *w);
void state_fini(struct state_writer *w);
void state_begin(struct state_writer *w, const char *name, uint32_t instance,
		 uint32_t version);
void state_put(struct state_writer *w, const void *data, size_t len);
void state_put_u32(struct state_writer *w, uint32_t v);
void state_put_u64(struct state_writer *w, uint64_t v);
void state_end(struct state_writer *w);
/** state_finish() - Return: 0, or the first error: -ENOMEM, -E2BIG, -EINVAL: misused */
int state_finish(struct state_writer *w);

/**
 * state_next() - take the next section off a buffer
 * @buf, @len:	advanced past it
 *
 * Return: 1: @s is filled; 0: the end; -EBADMSG: not a state
 */
int state_next(const uint8_t **buf, size_t *len, struct state_section *s);
void state_get(struct state_section *s, void *data, size_t len); /* zeros on error */
uint32_t state_get_u32(struct state_section *s);
uint64_t state_get_u64(struct state_section *s);
/** state_done() - Return: 0: all of it was read, without error; -EBADMSG */
int state_done(const struct state_section *s);

#endif
