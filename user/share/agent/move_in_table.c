// SPDX-License-Identifier: BSD-2-Clause
/* move_in_table: who holds what. Contract in move_in_int.h; agent's thread. */
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "coh.h"
#include "meta.h"
#include "move_in_int.h"
#include "peer_int.h"
#include "../../lib/log.h"

int move_in_slots(struct move_in *m, const struct gm_hdr *h, const uint8_t *payload)
{
	uint64_t seen = 0;

	m->nslots = h->len / sizeof(struct gm_move_slot);
	memcpy(m->slots, payload, h->len);
	for (unsigned int i = 0; i < m->nslots; i++) {
		struct gm_move_slot *s = &m->slots[i];

		if (s->slot >= GM_SLOT_MAX || seen >> s->slot & 1 ||
		    !memchr(s->node, 0, sizeof(s->node)) || !gm_name_ok(s->node))
			return -EBADMSG;
		seen |= 1ull << s->slot;
	}
	return 0;
}

int move_in_clients(struct move_in *m, const struct gm_hdr *h, const uint8_t *payload)
{
	if (!m->nslots || m->clients)
		return -EPROTO; /* out of turn */
	m->clients = malloc(h->len);
	if (!m->clients)
		return -ENOMEM;
	memcpy(m->clients, payload, h->len);
	m->nclients = h->len / sizeof(*m->clients);
	return 0;
}

int move_in_table(struct move_in *m, const struct gm_hdr *h, const uint8_t *payload)
{
	uint64_t pages = m->desc.size >> m->desc.page_shift, valid = 0, own = 0;
	size_t n = h->len / sizeof(struct gm_move_run);

	for (unsigned int i = 0; i < m->nslots; i++) {
		if (strcmp(m->slots[i].node, m->agent->cfg.node))
			valid |= 1ull << m->slots[i].slot;
		else
			own |= 1ull << m->slots[i].slot;
	}
	if (m->nruns + n > pages)
		return -EBADMSG;
	if (m->nruns + n > m->room) {
		size_t room = 2 * (m->nruns + n);
		struct gm_move_run *runs = reallocarray(m->runs, room, sizeof(*runs));

		if (!runs)
			return -ENOMEM;
		m->runs = runs;
		m->room = room;
	}
	assert(m->runs || !n);
	for (size_t i = 0; i < n; i++) {
		const struct gm_move_run *last = m->nruns ? &m->runs[m->nruns - 1] : NULL;
		struct gm_move_run r;

		memcpy(&r, payload + i * sizeof(r), sizeof(r));
		r.page = le64toh(r.page);
		r.pages = le32toh(r.pages);
		r.sharers = le64toh(r.sharers);
		if (!r.pages || !gm_in_range(r.page, r.pages, 0, pages) ||
		    (last && r.page < last->page + last->pages))
			return -EBADMSG;
		switch (r.state) {
		case COH_SHARED:
			if (!r.sharers || r.sharers & ~valid)
				return -EBADMSG;
			break;
		case COH_EXCL:
			if (r.holder >= GM_SLOT_MAX || !(valid >> r.holder & 1) ||
			    r.sharers)
				return -EBADMSG;
			break;
		case COH_LOST: r.sharers = 0; break;
		default: return -EBADMSG;
		}
		m->runs[m->nruns++] = r;
	}
	return own ? 0 : -EBADMSG; /* we import it: nobody is the owner of what we hold */
}

int move_in_prepare(struct move_in *m)
{
	struct meta *meta = m->i->peer->meta;
	uint32_t epoch = m->desc.epoch + 1; /* with which this node will be the owner */
	struct coh *c;
	int err;

	meta_clear(meta, META_HOME);
	err = coh_create(m->desc.size >> m->desc.page_shift, meta->table, epoch, NULL,
			 NULL, &c);
	if (err)
		return err;
	for (size_t k = 0; k < m->nruns; k++)
		coh_load(c, m->runs[k].page, m->runs[k].pages,
			 (enum coh_state)m->runs[k].state, m->runs[k].holder,
			 m->runs[k].sharers);
	coh_destroy(c);
	for (unsigned int k = 0; k < m->nslots; k++) {
		struct meta_slot *t = &meta->slots[m->slots[k].slot];

		if (!strcmp(m->slots[k].node, m->agent->cfg.node))
			continue;
		memcpy(t->node, m->slots[k].node, sizeof(t->node));
		t->incarnation = m->slots[k].incarnation;
		t->used = 1;
	}
	for (unsigned int k = 0; k < m->nclients; k++)
		/* Without a place it is not known: its last atomic may be in doubt. */
		if (once_load(meta->once, m->clients[k].id, le64toh(m->clients[k].done),
			      le64toh(m->clients[k].old)))
			log_limited(LOG_LVL_WARN,
				    "region %s: no room for a client's atomics",
				    m->desc.name);
	meta->hdr->key_id = m->desc.key_id;
	meta->hdr->read_key_id = m->desc.read_key_id;
	meta->hdr->key = m->key;
	meta->hdr->read_key = m->read_key;
	meta->hdr->era = epoch;
	__atomic_store_n(&meta->hdr->claim, epoch, __ATOMIC_RELEASE);
	return 0;
}
