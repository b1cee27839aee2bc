/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * stream: records of struct gn_stream, read in order. One worker, or a test.
 *
 * Most records say only what differs from the one before, so a reader keeps that one
 * whole, and goes to a number by way of the last one that is whole whatever precedes it.
 */
#ifndef GN_STREAM_H
#define GN_STREAM_H

#include "../../bpf/offload_shared.h"

struct stream_reader {
	const struct gn_stream *s; /* NULL: there is none */
	uint32_t next;		   /* number of the first record not read */
	uint32_t whole;		   /* entry of rec[] behind the last one read */
	uint32_t wholes;	   /* of them in the last burst; the user's */
	struct gn_meta meta;	   /* of record next - 1 */
};

/** stream_next() - read one more record. Return: its metadata, until the next call */
static inline const struct gn_meta *stream_next(struct stream_reader *r)
{
	const struct gn_next *n = &r->s->next[r->next++ % GN_STREAM_SIZE];
	struct gn_meta *m = &r->meta;

	if (n->class == GN_NEXT_WHOLE) {
		*m = r->s->rec[n->payload_len % GN_STREAM_SIZE];
		r->whole = n->payload_len + 1U;
		return m;
	}
	m->seq += m->payload_len;
	m->ip_id += n->id_step;
	m->payload_len = n->payload_len;
	m->payload_sum = n->payload_sum;
	m->flags = n->flags;
	m->class = n->class;
	return m;
}

/** stream_seek() - go to record @seq, not before next - GN_STREAM_EVERY; it is the next
 * one read */
static inline void stream_seek(struct stream_reader *r, uint32_t seq)
{
	r->next = seq - seq % GN_STREAM_EVERY;
	while (r->next != seq)
		stream_next(r);
}

#endif
