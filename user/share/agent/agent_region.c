// SPDX-License-Identifier: BSD-2-Clause
/* agent_region: regions that applications ask for. Contract in agent_int.h; agent's
 * thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "move.h"
#include "../../lib/clock.h"
#include "../../lib/log.h"

void agent_peer_event(void *arg, struct peer *p, int ev)
{
	struct import *i = arg;
	struct local_msg m = { .magic = LOCAL_MAGIC,
			       .op = LOCAL_EVENT,
			       .event = (uint8_t)ev,
			       .bus = peer_desc(p)->bus };

	if (ev == PEER_OPENED) {
		agent_opened(i, peer_lost(p));
		return;
	}
	if (ev == PEER_HOME) {
		agent_import_release(i);
		return;
	}
	if (ev == GM_EV_MOVING) {
		move_in_settled(i);
		return;
	}
	if (ev == GM_EV_MOVED) {
		agent_tell_moved(i->agent, NULL, i);
		return;
	}
	if (peer_opening(p)) {
		if (ev != GM_EV_PAGES_LOST)
			agent_opened(i, -ESTALE);
		return;
	}
	for (struct app *app = i->agent->apps; app; app = app->next)
		for (struct attached *w = app->windows; w; w = w->next)
			if (w->import == i)
				local_send(app->sock, &m, NULL, 0);
}

void agent_import_release(struct import *i)
{
	struct import **q = &i->agent->imports;

	if (peer_clients(i->peer) || i->mover ||
	    (peer_opening(i->peer) && !peer_dead(i->peer)))
		return;
	if (!peer_go_home(i->peer)) {
		i->used_ns = clock_boot_ns();
		return;
	}
	while (*q != i)
		q = &(*q)->next;
	*q = i->next;
	peer_destroy(i->peer);
	free(i);
}

bool agent_same_key(const struct gm_key *a, const struct gm_key *b)
{
	return a->len && a->len == b->len && !memcmp(a->bytes, b->bytes, a->len);
}

#define IDLE_NS 5000000000ull

/* Get and put alone need no import at the agent; who asks where the owner is makes one.
 */
void agent_import_tick(struct import *i, uint64_t now)
{
	bool dead = peer_dead(i->peer);

	if (!dead && (peer_clients(i->peer) || peer_resuming(i->peer) || !i->used_ns))
		i->used_ns = now;
	else if (dead || now - i->used_ns > IDLE_NS)
		agent_import_release(i);
}

struct import *agent_find_import(struct agent *a, uint64_t bus, const struct gm_key *key)
{
	for (struct import *i = a->imports; i; i = i->next)
		if (peer_desc(i->peer)->bus == bus && !peer_dead(i->peer) &&
		    !peer_opening(i->peer) && !peer_leaving(i->peer) &&
		    agent_same_key(key, peer_key(i->peer)))
			return i;
	return NULL;
}

void agent_describe(struct agent *a, struct local_msg *m, const struct dir_region *r)
{
	m->bus = r->bus;
	m->size = r->size;
	m->page_shift = (uint8_t)r->page_shift;
	m->epoch = r->epoch;
	m->lease_ms = r->lease_ms;
	strcpy(m->name, r->name);
	strcpy(m->addr, r->addr);
	transport_prefer(&a->transport, r->node, m->addr);
	strcpy(m->node, a->cfg.node);
	transport_describe(&a->cfg, m);
}

static bool sealed(int memfd, int seal)
{
	int has = fcntl(memfd, F_GET_SEALS);

	return has >= 0 && has & seal;
}

/* The region's memory: @given, or new. *@shift: of its pages; 0: those of @given, or the
 * smallest. Return: descriptor, -errno */
static int region_memfd(const struct local_msg *m, int given, unsigned int *shift)
{
	unsigned int want = m->page_shift;
	int memfd, has;

	if (want && want != GM_PAGE_SHIFT && want != GM_HUGE_SHIFT)
		return -EINVAL;
	memfd = given < 0 ? window_memfd_create(m->name, m->size, want)
			  : fcntl(given, F_DUPFD_CLOEXEC, 0);
	if (memfd < 0)
		return given < 0 ? memfd : -errno;
	has = window_memfd_shift(memfd);
	if (has < 0 || (want && (int)want != has) || m->size % (1ull << has)) {
		log_warn("region %s of %llu bytes, pages of %u wanted: its memfd has "
			 "pages of %u",
			 m->name, (unsigned long long)m->size, want ? 1u << want : 0,
			 has < 0 ? 0 : 1u << has);
		close(memfd);
		return -EINVAL;
	}
	*shift = (unsigned int)has;
	return memfd;
}

int agent_export(struct agent *a, struct local_msg *m, const int *fds, int nfds,
		 int rfds[2])
{
	struct dir_region r = { .size = m->size, .key_id = 1 };
	struct home_region *h;
	struct gm_key read_key = { 0 };
	uint64_t now;
	struct stat st;
	int memfd, err;

	if (!gm_name_ok(m->name) || !m->size || m->size % GM_PAGE_SIZE ||
	    m->size > GM_REGION_MAX || !m->key.len)
		return -EINVAL;
	if (home_find(a->home, m->name, 0))
		return -EEXIST;
	/* One that slept through its lease ends what it served, before dir_add() begins
	 * another lease. */
	agent_dir_tick(a, clock_boot_ns());
	memfd = region_memfd(m, nfds ? fds[0] : -1, &r.page_shift);
	if (memfd < 0)
		return memfd;
	/* Nobody can shrink the file under our alias. */
	if (fstat(memfd, &st)) {
		err = -errno;
		goto out;
	}
	if ((uint64_t)st.st_size < m->size ||
	    (fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK) && !sealed(memfd, F_SEAL_SHRINK))) {
		err = -EINVAL;
		goto out;
	}
	strcpy(r.name, m->name);
	strcpy(r.node, a->cfg.node);
	strcpy(r.addr, a->transport.advertise);
	if (m->text_len && m->text_len <= GM_KEY_MAX) {
		read_key.len = (uint8_t)m->text_len;
		memcpy(read_key.bytes, m->text, m->text_len);
		r.read_key_id = 2;
	}
	now = clock_boot_ns();
	err = dir_add(a->dir, &r);
	if (err)
		goto out;
	agent_dir_renewed(a, now);
	err = home_add(a->home, &r, &m->key, &read_key, memfd, &h);
	if (err) {
		dir_remove(a->dir, r.name, r.epoch);
		return err;
	}
	home_since(h, now);
	agent_describe(a, m, &r);
	m->flags = LOCAL_OWNER;
	rfds[0] = home_memfd(h);
	rfds[1] = home_meta(h);
	return 0;
out:
	close(memfd);
	return err;
}

int agent_import_open(struct agent *a, const struct dir_region *r,
		      const struct gm_key *key, struct import **out)
{
	int memfd = window_memfd_create(r->name, r->size, r->page_shift), err;
	struct import *i = calloc(1, sizeof(*i));
	struct dir_region near = *r;

	if (memfd < 0 || !i || fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW)) {
		err = -ENOMEM;
		goto out;
	}
	i->agent = a;
	transport_explain(&a->transport, near.addr);
	transport_prefer(&a->transport, near.node, near.addr);
	err = peer_create(a->loop, a->cfg.node, a->transport.tls, &near, key, memfd,
			  agent_peer_event, i, &i->peer);
	if (err) {
		free(i);
		return err;
	}
	i->next = a->imports;
	a->imports = i;
	*out = i;
	return 0;
out:
	free(i);
	if (memfd >= 0)
		close(memfd);
	return err;
}

struct import *agent_import_adopt(struct agent *a, const struct dir_region *r,
				  const struct gm_key *key, struct window *win,
				  struct meta *meta)
{
	struct import *i = calloc(1, sizeof(*i));

	if (!i)
		return NULL;
	i->agent = a;
	if (peer_adopt(a->loop, a->cfg.node, a->transport.tls, r, key, win, meta,
		       agent_peer_event, i, &i->peer)) {
		free(i);
		return NULL;
	}
	i->next = a->imports;
	a->imports = i;
	return i;
}

void agent_windows_end(struct agent *a, struct home_region *h, int ev)
{
	struct local_msg m = { .magic = LOCAL_MAGIC,
			       .op = LOCAL_EVENT,
			       .event = (uint8_t)ev,
			       .bus = home_desc(h)->bus };

	for (struct app *app = a->apps; app; app = app->next) {
		for (struct attached **q = &app->windows; *q;) {
			struct attached *w = *q;

			if (w->home != h) {
				q = &w->next;
				continue;
			}
			*q = w->next;
			local_send(app->sock, &m, NULL, 0);
			agent_window_free(w);
		}
	}
}

void agent_pages_lost(void *arg, struct home_region *h)
{
	struct agent *a = arg;
	struct local_msg m = { .magic = LOCAL_MAGIC,
			       .op = LOCAL_EVENT,
			       .event = GM_EV_PAGES_LOST,
			       .bus = home_desc(h)->bus };

	for (struct app *app = a->apps; app; app = app->next)
		for (struct attached *w = app->windows; w; w = w->next)
			if (w->home == h)
				local_send(app->sock, &m, NULL, 0);
}

void agent_end_home(struct agent *a, struct home_region *h, int ev)
{
	agent_windows_end(a, h, ev);
	home_remove(h, ev);
}

/* It is not served here. But an agent of this node may have ended while no program kept
 * the region, and left the directory's entry. */
static int revoke_entry(struct agent *a, const char *name)
{
	struct dir_region r;
	int err = dir_find(a->dir, name, 0, &r);

	if (err)
		return err;
	if (strcmp(r.node, a->cfg.node))
		return -EREMOTE;
	for (struct import *i = a->imports; i; i = i->next)
		if (i->mover && !strcmp(peer_desc(i->peer)->name, name))
			return -EBUSY; /* about to be served here */
	log_info("region %s: revoked, and nobody had it", name);
	return dir_remove(a->dir, name, r.epoch);
}

int agent_revoke(struct agent *a, const struct local_msg *m)
{
	struct home_region *h = home_find(a->home, m->name, 0);
	int err;

	if (!h)
		return gm_name_ok(m->name) ? revoke_entry(a, m->name) : -ENOENT;
	err = dir_remove(a->dir, m->name, home_desc(h)->epoch);
	if (err && err != -ENOENT)
		return err;
	agent_end_home(a, h, GM_EV_REVOKED);
	return 0;
}
