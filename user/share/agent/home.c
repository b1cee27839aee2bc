// SPDX-License-Identifier: BSD-2-Clause
/* home: serves the regions of this node. Theory and contract in home.h; agent's thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "home_int.h"
#include "../../lib/clock.h"
#include "../../lib/log.h"

#define HELLO_NS 5000000000ull /* who has not said who it is by then is sent away */

struct counters counters;

int home_create(struct loop *l, const char *node, const char *addr,
		const struct net_tls *tls, uint32_t lease_ms, struct home **out)
{
	struct home *h = calloc(1, sizeof(*h));
	int err;

	if (!h)
		return -ENOMEM;
	h->loop = l;
	h->near = -1;
	h->tls = tls;
	h->lease_ms = lease_ms;
	h->started_ns = clock_boot_ns();
	strncpy(h->node, node, sizeof(h->node) - 1);
	strncpy(h->addr, addr, sizeof(h->addr) - 1);
	h->listener = net_listen(addr);
	err = h->listener < 0
		      ? h->listener
		      : loop_watch(l, h->listener, EPOLLIN, home_accept, h, &h->watch);
	if (err) {
		if (h->listener >= 0)
			close(h->listener);
		free(h);
		return err;
	}
	*out = h;
	return 0;
}

void home_leave(struct home *h)
{
	for (struct home_region *r = h ? h->regions : NULL; r; r = r->next)
		r->meta->left = true;
}

bool home_young(const struct home *h)
{
	return clock_boot_ns() - h->started_ns < (uint64_t)h->lease_ms * 1000000;
}

static void region_free(struct home_region *r)
{
	coh_destroy(r->coh);
	window_destroy(r->win);
	meta_destroy(r->meta);
	gm_key_wipe(&r->key);
	gm_key_wipe(&r->read_key);
	free(r->unkept);
	free(r);
}

void home_free(struct home_region *r)
{
	struct home_region **p = &r->home->regions;

	home_held_free(r, -ESTALE);
	if (!r->resuming && home_find(r->home, NULL, r->desc.bus) == r)
		table_del(&r->home->exports, r->desc.bus);
	while (*p && *p != r)
		p = &(*p)->next;
	if (*p)
		*p = r->next;
	region_free(r);
}

void home_destroy(struct home *h)
{
	if (!h)
		return;
	while (h->sessions) {
		struct session *s = h->sessions;

		chan_close(s->chan);
		home_session_end(s);
	}
	while (h->regions)
		home_free(h->regions);
	while (h->moved)
		home_moved_forget(h, h->moved->to.bus);
	table_fini(&h->exports);
	loop_unwatch(h->loop, h->watch);
	close(h->listener);
	loop_unwatch(h->loop, h->near_watch);
	if (h->near >= 0) {
		close(h->near);
		unlink(h->near_addr + strlen("unix:"));
	}
	free(h);
}

int home_listen_near(struct home *h, const char *addr)
{
	int err;

	h->near = net_listen(addr);
	if (h->near < 0)
		return h->near;
	strcpy(h->near_addr, addr);
	/* As the applications' socket */
	err = chmod(addr + strlen("unix:"), 0660) ? -errno : 0;
	return err ? err
		   : loop_watch(h->loop, h->near, EPOLLIN, home_accept, h,
				&h->near_watch);
}

void home_set_mover(struct home *h, const struct home_mover *m)
{
	h->mover = *m;
}

/* A region around @win and @meta. */
static int around(struct home *h, const struct dir_region *d, const struct gm_key *key,
		  const struct gm_key *read_key, struct window *win, struct meta *meta,
		  struct home_region **out)
{
	struct home_region *r = calloc(1, sizeof(*r));
	int err;

	if (!r)
		return -ENOMEM;
	r->home = h;
	r->desc = *d;
	r->key = *key;
	if (read_key)
		r->read_key = *read_key;
	r->meta = meta;
	r->win = win;
	r->clients = window_clients(win);
	r->held_tail = &r->held;
	r->unkept = malloc(dir_page_size(&r->desc));
	err = r->unkept ? coh_create(window_pages(win), meta->table, meta->hdr->era,
				     home_act, r, &r->coh)
			: -ENOMEM;
	if (err) {
		free(r->unkept);
		free(r);
		return err;
	}
	*out = r;
	return 0;
}

/* The same; @memfd and @meta are taken, also on failure. */
static int region_create(struct home *h, const struct dir_region *d,
			 const struct gm_key *key, const struct gm_key *read_key,
			 int memfd, struct meta *meta, struct home_region **out)
{
	struct window *win;
	int err = window_create(memfd, d->size, d->page_shift, &win);

	if (err) {
		close(memfd);
		meta_destroy(meta);
		return err;
	}
	err = around(h, d, key, read_key, win, meta, out);
	if (err) {
		window_destroy(win);
		meta_destroy(meta);
	}
	return err;
}

static int serve(struct home_region *r)
{
	return table_add(&r->home->exports, r->desc.bus, r->desc.size,
			 (uint64_t)(uintptr_t)window_alias(r->win), r);
}

static int new_meta(const struct dir_region *d, const struct gm_key *key,
		    const struct gm_key *read_key, struct meta **out)
{
	struct meta *m;
	int err = meta_create(META_HOME, d->size, d->page_shift, &m);

	if (err)
		return err;
	m->hdr->bus = d->bus;
	m->hdr->epoch = m->hdr->era = d->epoch;
	m->hdr->lease_ms = d->lease_ms;
	m->hdr->key_id = d->key_id;
	m->hdr->read_key_id = d->read_key_id;
	m->hdr->key = *key;
	if (read_key)
		m->hdr->read_key = *read_key;
	memcpy(m->hdr->name, d->name, sizeof(m->hdr->name));
	m->hdr->valid_ns = clock_boot_ns() + (uint64_t)d->lease_ms * 1000000;
	*out = m;
	return 0;
}

int home_add(struct home *h, const struct dir_region *d, const struct gm_key *key,
	     const struct gm_key *read_key, int memfd, struct home_region **out)
{
	struct home_region *r;
	struct meta *m;
	int err = new_meta(d, key, read_key, &m);

	if (err) {
		close(memfd);
		return err;
	}
	meta_seal(m);
	err = region_create(h, d, key, read_key, memfd, m, &r);
	if (err)
		return err;
	err = window_back(r->win);
	if (!err)
		err = serve(r);
	if (err) {
		region_free(r);
		return err;
	}
	r->next = h->regions;
	h->regions = r;
	*out = r;
	return 0;
}

/* Importers, as the table has them. Return: bit per slot */
static uint64_t load_slots(struct home_region *r)
{
	uint64_t slots = 0, now = clock_boot_ns();

	for (int i = 0; i < GM_SLOT_MAX; i++) {
		struct meta_slot *m = &r->meta->slots[i];

		if (!m->used)
			continue;
		slots |= 1ull << i;
		r->slots[i].used = true;
		r->slots[i].incarnation = m->incarnation;
		r->slots[i].heard_ns = now;
		memcpy(r->slots[i].node, m->node, sizeof(m->node) - 1);
	}
	return slots;
}

/* What was copied here comes into the memfd. */
static void unstage(struct home_region *r)
{
	const struct meta *m = r->meta;
	struct coh_page *pages = m->table;

	if (!m->hdr->staged)
		return;
	for (uint64_t i = 0; i < window_pages(r->win); i++)
		if (m->staged[i] && !m->held[i] && pages[i].state <= COH_SHARED &&
		    window_fill(r->win, i, 1, m->stage + (i << window_shift(r->win)),
				false))
			pages[i].state = COH_LOST;
	meta_unstage(r->meta);
}

int home_adopt(struct home *h, const struct dir_region *d, struct window *win,
	       struct meta *meta, struct home_region **out)
{
	struct home_region *r;
	int err = around(h, d, &meta->hdr->key, &meta->hdr->read_key, win, meta, &r);

	if (err)
		return err;
	err = serve(r);
	if (err) {
		r->win = NULL;
		r->meta = NULL;
		region_free(r);
		return err;
	}
	load_slots(r);
	meta_become(meta, META_HOME, d->epoch);
	unstage(r);
	r->next = h->regions;
	h->regions = r;
	*out = r;
	return 0;
}

/* What the table says of importers and pages, made fit for use. */
static void recover(struct home_region *r)
{
	struct keep *k = &r->meta->keep;
	struct coh_page *pages = r->meta->table;
	uint64_t n = window_pages(r->win), slots = load_slots(r), run = 0;

	window_back(r->win); /* the memfd has kept what was reserved */
	coh_recover(r->coh);
	once_recover(r->meta->once, window_alias(r->win), r->desc.size);
	for (uint64_t i = 0; i <= n; i++) {
		struct coh_page *p = &pages[i];
		bool away = i < n && p->state >= COH_EXCL;

		if (away && p->state == COH_EXCL && !(slots & 1ull << p->holder))
			p->state = COH_LOST;
		if (i < n && p->state == COH_SHARED) {
			p->sharers &= slots;
			if (!p->sharers)
				p->state = COH_HOME;
		}
		/* What lies here of pages that are away is a part of one, or old. */
		if (away) {
			run++;
		} else if (run) {
			window_drop(r->win, i - run, run);
			run = 0;
		}
	}
	for (unsigned int i = k->n; i--;) {
		struct keep_entry *e = &k->entries[k->order[i]];

		if (!keep_page(k, e, &run) || pages[run].state != COH_EXCL ||
		    pages[run].holder != e->slot)
			keep_del(k, e);
	}
}

int home_resume(struct home *h, const struct dir_region *d, int memfd, struct meta *meta,
		struct home_region **out)
{
	struct home_region *r;
	int err = region_create(h, d, &meta->hdr->key, &meta->hdr->read_key, memfd, meta,
				&r);

	if (err)
		return err;
	r->resuming = true;
	meta_become(meta, META_HOME, d->epoch);
	recover(r);
	r->next = h->regions;
	h->regions = r;
	*out = r;
	return 0;
}

/* Every window is here again: what importers hold is read-only in all of them, whatever
 * the former agent was in the middle of. */
static int settle(struct home_region *r)
{
	const struct coh_page *pages = r->meta->table;
	uint64_t n = window_pages(r->win), run = 0, now = clock_boot_ns();
	int err = 0;

	unstage(r);
	for (uint64_t i = 0; i <= n && !err; i++) {
		if (i < n && pages[i].state == COH_SHARED) {
			run++;
		} else if (run) {
			err = window_protect(r->win, i - run, run);
			run = 0;
		}
	}
	for (int i = 0; i < GM_SLOT_MAX; i++)
		r->slots[i].heard_ns = now;
	if (!err)
		err = serve(r);
	r->resuming = err;
	if (!err && r->meta->hdr->poisoned)
		window_renew(r->win, 0, n);
	return err;
}

struct home_region *home_settle(struct home *h)
{
	for (struct home_region *r = h->regions; r; r = r->next) {
		if (!r->resuming)
			continue;
		if (clock_boot_ns() >= r->meta->hdr->valid_ns)
			return r;
		if (!meta_awaited(r->meta, r->clients) && settle(r))
			return r;
	}
	return NULL;
}

void home_renewed(struct home *h, uint64_t until_ns)
{
	for (struct home_region *r = h->regions; r; r = r->next)
		/* In one that stands still they may soon be an importer's. */
		if (!r->resuming && r->frozen != HOME_STILL &&
		    until_ns > r->meta->hdr->valid_ns)
			__atomic_store_n(&r->meta->hdr->valid_ns, until_ns,
					 __ATOMIC_RELEASE);
}

void home_remove(struct home_region *r, int ev)
{
	struct home *h = r->home;

	if (r->mover)
		h->mover.gone(r);
	coh_abort(r->coh, -ESTALE);
	for (struct session *s = h->sessions; s; s = s->next) {
		for (int i = 0; i < s->nat; i++) {
			struct gm_hdr m = { .op = GM_OP_EVENT,
					    .bus = r->desc.bus,
					    .arg = (uint64_t)ev,
					    .session = s->id };

			if (s->at[i].region != r)
				continue;
			/* What still waits on a bulk connection is in the region's
			 * memory. */
			if (s->role == GM_ROLE_BULK)
				chan_fail(s->chan, -ESTALE);
			else if (s->at[i].slot >= 0)
				chan_send(s->chan, &m, NULL);
			s->at[i--] = s->at[--s->nat];
		}
	}
	home_free(r);
}

struct home_region *home_find(struct home *h, const char *name, uint64_t bus)
{
	const struct table_entry *e;

	if (!name) {
		e = table_find(&h->exports, bus, 1);
		return e ? e->object : NULL;
	}
	for (struct home_region *r = h->regions; r; r = r->next)
		if (!strcmp(r->desc.name, name))
			return r;
	return NULL;
}

void home_since(struct home_region *r, uint64_t ns)
{
	r->since_ns = ns;
}

struct home_region *home_first(struct home *h, uint64_t ns)
{
	struct home_region *r = h->regions;

	while (r && r->since_ns >= ns)
		r = r->next;
	return r;
}

const struct dir_region *home_desc(const struct home_region *r)
{
	return &r->desc;
}

const struct gm_key *home_key(const struct home_region *r, bool read_only)
{
	return read_only ? &r->read_key : &r->key;
}

int home_memfd(const struct home_region *r)
{
	return window_memfd(r->win);
}

int home_meta(const struct home_region *r)
{
	return r->meta->fd;
}

bool home_resuming(const struct home_region *r)
{
	return r->resuming;
}

int home_attach(struct home_region *r, const struct window_app *app, int32_t pid)
{
	int at = meta_window(r->meta, pid, app->base, r->clients), err;

	if (at < 0)
		return at;
	err = window_attach(r->win, at, app);
	if (err && err != -EBUSY)
		meta_window_forget(r->meta, at);
	if (err)
		return err;
	r->clients |= 1u << at;
	window_rewake(r->win, at);
	return at;
}

void home_detach(struct home_region *r, int client)
{
	window_detach(r->win, client);
	r->clients &= ~(1u << client);
	meta_window_forget(r->meta, client);
}

uint64_t home_slot_dead(struct home_region *r, uint8_t slot)
{
	struct slot *t = &r->slots[slot];
	struct keep *k = &r->meta->keep;
	uint64_t lost;

	t->session = NULL;
	t->used = false;
	lost = coh_slot_dead(r->coh, slot);
	/* It may have got and changed what was kept for it. */
	for (unsigned int i = k->n; i--;)
		if (k->entries[k->order[i]].slot == slot)
			keep_del(k, &k->entries[k->order[i]]);
	r->meta->slots[slot].used = 0;
	counters.slots_dead++;
	return lost;
}

/* Bytes went with a node that alone had them: whoever uses the region hears so. */
static void tell_lost(struct home_region *r)
{
	uint64_t lost = coh_lost(r->coh);

	if (lost == r->lost)
		return;
	counters.pages_lost += lost - r->lost;
	r->lost = lost;
	for (struct session *s = r->home->sessions; s; s = s->next) {
		for (int i = 0; i < s->nat; i++) {
			struct gm_hdr m = { .op = GM_OP_EVENT,
					    .bus = r->desc.bus,
					    .arg = GM_EV_PAGES_LOST,
					    .session = s->id };

			if (s->at[i].region == r && s->role == GM_ROLE_PAGES)
				chan_send(s->chan, &m, NULL);
		}
	}
	if (r->home->mover.lost)
		r->home->mover.lost(r->home->mover.arg, r);
}

void home_tick(struct home *h)
{
	/* The importer counts from when it sent its last ping, we from when it came, and
	 * an eighth more, for what it takes to act on it: ours ends later. */
	uint64_t lease_ns = (uint64_t)h->lease_ms * 1125000, now = clock_boot_ns();

	for (struct session *s = h->sessions; s; s = s->next)
		if (!s->role && now - s->born_ns > HELLO_NS)
			chan_fail(s->chan, -ETIMEDOUT);
	for (struct home_region *r = h->regions; r; r = r->next) {
		if (r->resuming)
			continue;
		for (int i = 0; i < GM_SLOT_MAX; i++) {
			struct slot *t = &r->slots[i];
			uint64_t lost;

			if (!t->used || now - t->heard_ns < lease_ns)
				continue;
			if (t->session)
				chan_fail(t->session->chan, -ETIMEDOUT);
			lost = home_slot_dead(r, (uint8_t)i);
			log_limited(LOG_LVL_WARN,
				    "region %s: lease of node %s ended; pages lost: %llu",
				    r->desc.name, t->node, (unsigned long long)lost);
		}
		tell_lost(r);
	}
}

json_t *home_stat(struct home *h)
{
	json_t *all = json_array();

	for (struct home_region *r = h->regions; r; r = r->next) {
		json_t *slots = json_array();

		for (int i = 0; i < GM_SLOT_MAX; i++)
			if (r->slots[i].used)
				json_array_append_new(
					slots, json_pack("{s:s,s:b}", "node",
							 r->slots[i].node, "connected",
							 r->slots[i].session != NULL));
		json_array_append_new(
			all, json_pack("{s:s,s:I,s:I,s:I,s:I,s:o}", "name", r->desc.name,
				       "bus", (json_int_t)r->desc.bus, "size",
				       (json_int_t)r->desc.size, "page",
				       (json_int_t)dir_page_size(&r->desc), "epoch",
				       (json_int_t)r->desc.epoch, "importers", slots));
	}
	return all;
}
