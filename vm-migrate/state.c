// SPDX-License-Identifier: BSD-2-Clause
/*
 * state: sections of a machine's state; see state.h.
 *
 * On the wire: struct section_head, little-endian, then its bytes; the next follows
 * without padding.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "state.h"

struct section_head {
	char name[STATE_NAME_MAX]; /* NUL to the end */
	uint32_t instance, version, len, reserved;
};
_Static_assert(sizeof(struct section_head) == STATE_NAME_MAX + 16, "wire format");

#define NONE SIZE_MAX

/* ---- writer ------------------------------------------------------------------------ */

void state_init(struct state_writer *w)
{
	*w = (struct state_writer){ .section = NONE };
}

void state_fini(struct state_writer *w)
{
	free(w->buf);
	state_init(w);
}

static void fail(struct state_writer *w, int err)
{
	if (!w->err)
		w->err = err;
}

/* @len more bytes; NULL after an error. */
static uint8_t *grow(struct state_writer *w, size_t len)
{
	size_t cap = w->cap ? w->cap : 4096;
	uint8_t *p;

	if (w->err)
		return NULL;
	if (len > STATE_MAX_BYTES || w->len > STATE_MAX_BYTES - len) {
		fail(w, -E2BIG);
		return NULL;
	}
	while (cap < w->len + len)
		cap *= 2;
	if (cap != w->cap) {
		p = realloc(w->buf, cap);
		if (!p) {
			fail(w, -ENOMEM);
			return NULL;
		}
		w->buf = p;
		w->cap = cap;
	}
	p = w->buf + w->len;
	w->len += len;
	return p;
}

void state_begin(struct state_writer *w, const char *name, uint32_t instance,
		 uint32_t version)
{
	struct section_head h = { .instance = instance, .version = version };
	size_t len = strlen(name);
	size_t at = w->len;
	uint8_t *p;

	if (w->section != NONE || !len || len >= STATE_NAME_MAX ||
	    w->sections == STATE_MAX_SECTIONS) {
		fail(w, w->sections == STATE_MAX_SECTIONS ? -E2BIG : -EINVAL);
		return;
	}
	memcpy(h.name, name, len);
	p = grow(w, sizeof(h));
	if (!p)
		return;
	memcpy(p, &h, sizeof(h));
	w->section = at;
	w->sections++;
}

void state_put(struct state_writer *w, const void *data, size_t len)
{
	uint8_t *p;

	if (w->section == NONE) {
		fail(w, -EINVAL);
		return;
	}
	p = grow(w, len);
	if (p && len)
		memcpy(p, data, len);
}

void state_put_u32(struct state_writer *w, uint32_t v)
{
	state_put(w, &v, sizeof(v));
}

void state_put_u64(struct state_writer *w, uint64_t v)
{
	state_put(w, &v, sizeof(v));
}

void state_end(struct state_writer *w)
{
	uint32_t len;

	if (w->err)
		return;
	if (w->section == NONE) {
		fail(w, -EINVAL);
		return;
	}
	len = (uint32_t)(w->len - w->section - sizeof(struct section_head));
	memcpy(w->buf + w->section + offsetof(struct section_head, len), &len,
	       sizeof(len));
	w->section = NONE;
}

int state_finish(struct state_writer *w)
{
	if (w->section != NONE)
		fail(w, -EINVAL);
	return w->err;
}

/* ---- reader ------------------------------------------------------------------------ */

static bool name_ok(const char *name)
{
	size_t n = strnlen(name, STATE_NAME_MAX);

	if (!n || n == STATE_NAME_MAX)
		return false;
	for (size_t i = 0; i < STATE_NAME_MAX; i++)
		if (i < n ? name[i] < '!' || name[i] > '~' : name[i])
			return false;
	return true;
}

int state_next(const uint8_t **buf, size_t *len, struct state_section *s)
{
	struct section_head h;

	if (!*len)
		return 0;
	if (*len < sizeof(h))
		return -EBADMSG;
	memcpy(&h, *buf, sizeof(h));
	if (!name_ok(h.name) || h.reserved || h.len > *len - sizeof(h))
		return -EBADMSG;
	*s = (struct state_section){
		.instance = h.instance,
		.version = h.version,
		.data = *buf + sizeof(h),
		.len = h.len,
	};
	memcpy(s->name, h.name, sizeof(s->name));
	*buf += sizeof(h) + h.len;
	*len -= sizeof(h) + h.len;
	return 1;
}

void state_get(struct state_section *s, void *data, size_t len)
{
	if (!s->err && len > s->len - s->pos)
		s->err = -EBADMSG;
	if (s->err) {
		memset(data, 0, len);
		return;
	}
	memcpy(data, s->data + s->pos, len);
	s->pos += (uint32_t)len;
}

uint32_t state_get_u32(struct state_section *s)
{
	uint32_t v;

	state_get(s, &v, sizeof(v));
	return v;
}

uint64_t state_get_u64(struct state_section *s)
{
	uint64_t v;

	state_get(s, &v, sizeof(v));
	return v;
}

int state_done(const struct state_section *s)
{
	return s->err ? s->err : s->pos == s->len ? 0 : -EBADMSG;
}
