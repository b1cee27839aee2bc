// SPDX-License-Identifier: BSD-2-Clause
/*
 * lib: what a process has open at its agent: regions, windows, events. Theory in lib.h,
 * contract in ghostmem.h; any thread.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib.h"
#include "../agent/window.h"
#include "../../lib/clock.h"

#define AGAIN_NS 2000000000ull

static uint64_t next_id;

int ghostmem_open(const char *agent_path, struct ghostmem **out)
{
	struct ghostmem *g = calloc(1, sizeof(*g));
	pthread_condattr_t attr;
	sigset_t all, old;
	int err = -ENOMEM;

	if (!g)
		return -ENOMEM;
	lib_conns_init();
	g->wake = g->event_fd = g->sock = -1;
	g->generation = lib_generation;
	pthread_mutex_init(&g->call, NULL);
	pthread_mutex_init(&g->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&g->cond, &attr);
	pthread_condattr_destroy(&attr);
	if (agent_path) {
		g->path = strdup(agent_path);
		if (!g->path)
			goto out;
	}
	g->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	g->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE);
	if (g->wake < 0 || g->event_fd < 0) {
		err = -errno;
		goto out;
	}
	err = g->sock = local_connect(g->path);
	if (err < 0)
		goto out;
	/* The application's signals are for its own threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = -pthread_create(&g->keeper, NULL, lib_keeper, g);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (err)
		goto out;
	*out = g;
	return 0;
out:
	if (g->sock >= 0)
		close(g->sock);
	if (g->wake >= 0)
		close(g->wake);
	if (g->event_fd >= 0)
		close(g->event_fd);
	free(g->path);
	free(g);
	return err;
}

void ghostmem_close(struct ghostmem *g)
{
	if (!g)
		return;
	for (struct ghostmem_region *r = g->regions, *next; r; r = next) {
		next = r->next;
		ghostmem_release(r);
	}
	if (g->generation == lib_generation) {
		pthread_mutex_lock(&g->lock);
		g->closing = true;
		pthread_mutex_unlock(&g->lock);
		pthread_cond_broadcast(&g->cond);
		lib_wake(g);
		pthread_join(g->keeper, NULL);
		/* Waits for whoever waits for it: in a child, for threads of its parent. */
		pthread_cond_destroy(&g->cond);
	}
	if (g->sock >= 0)
		close(g->sock);
	close(g->wake);
	close(g->event_fd);
	pthread_mutex_destroy(&g->lock);
	pthread_mutex_destroy(&g->call);
	net_tls_destroy(g->tls);
	free(g->path);
	free(g);
}

/* ---- regions ---------------------------------------------------------------------- */

static void close_fds(int *fds, int n)
{
	while (n)
		close(fds[--n]);
}

static int attach(struct ghostmem_region *r)
{
	struct local_msg m = { .op = LOCAL_ATTACH,
			       .bus = r->bus,
			       .base = (uint64_t)(uintptr_t)r->base,
			       .lacks = (uint8_t)r->lacks,
			       .key = r->key };
	int err = lib_call(r->g, &m, &r->uffd, 1, NULL, NULL, lib_limit_ms(r));

	gm_key_wipe(&m.key);
	if (!err)
		r->window = m.window;
	return err;
}

static void region_free(struct ghostmem_region *r)
{
	/* The window goes first: without a userfaultfd it would show zero pages. */
	lib_unmap(r);
	if (r->gone >= 0)
		close(r->gone);
	if (r->state)
		munmap((void *)r->state, GM_PAGE_SIZE);
	if (r->uffd >= 0)
		close(r->uffd);
	if (r->memfd >= 0)
		close(r->memfd);
	if (r->meta >= 0)
		close(r->meta);
	pthread_mutex_destroy(&r->lock);
	gm_key_wipe(&r->key);
	free(r);
}

/* The reply of EXPORT or IMPORT becomes a region. */
static int region_create(struct ghostmem *g, const struct local_msg *m,
			 const struct gm_key *key, bool map, bool read_only, void *addr,
			 int *fds, int nfds, struct ghostmem_region **out)
{
	struct ghostmem_region *r = nfds ? calloc(1, sizeof(*r)) : NULL;
	int err;

	if (!r) {
		close_fds(fds, nfds);
		return nfds ? -ENOMEM : -EPROTO;
	}
	lib_tls_learn(g, m);
	r->g = g;
	r->id = __atomic_add_fetch(&next_id, 1, __ATOMIC_RELAXED);
	r->bus = m->bus;
	r->size = m->size;
	r->page_shift = m->page_shift;
	r->epoch = m->epoch;
	r->lease_ms = m->lease_ms;
	r->owner = m->flags & LOCAL_OWNER;
	r->read_only = read_only || m->read_only;
	r->key = *key;
	memcpy(r->name, m->name, sizeof(r->name));
	memcpy(r->node, m->node, sizeof(r->node));
	memcpy(r->addr, m->addr, sizeof(r->addr));
	r->uffd = r->gone = -1;
	r->window = META_WINDOWS;
	r->memfd = fds[0];
	r->meta = nfds > 1 ? fds[1] : -1;
	if (nfds > 2)
		close(fds[2]);
	pthread_mutex_init(&r->lock, NULL);
	if (map) {
		void *state = r->meta < 0 ? MAP_FAILED
					  : mmap(NULL, GM_PAGE_SIZE, PROT_READ,
						 MAP_SHARED, r->meta, 0);

		if (state == MAP_FAILED) {
			region_free(r);
			return -EPROTO;
		}
		r->state = state;
		err = window_open(r->memfd, r->size, addr, &r->base, &r->uffd, &r->lacks);
		if (!err && r->read_only && mprotect(r->base, r->size, PROT_READ))
			err = -errno;
		if (!err)
			err = attach(r);
		if (err) {
			region_free(r);
			return err;
		}
	}
	pthread_mutex_lock(&g->lock);
	r->next = g->regions;
	g->regions = r;
	pthread_mutex_unlock(&g->lock);
	if (map)
		lib_wake(g); /* it has a time limit */
	*out = r;
	return 0;
}

static int set_key(struct gm_key *k, const void *bytes, size_t len)
{
	if (!bytes || !len || len > GM_KEY_MAX)
		return -EINVAL;
	k->len = (uint8_t)len;
	memcpy(k->bytes, bytes, len);
	return 0;
}

int ghostmem_export(struct ghostmem *g, const struct ghostmem_export *e,
		    struct ghostmem_region **out)
{
	struct local_msg m = { .op = LOCAL_EXPORT, .size = e->size };
	uint64_t page = e->page_size ? e->page_size : GM_PAGE_SIZE;
	int fds[LOCAL_FDS], nfds = 0;
	struct gm_key key = { 0 };
	int err = set_key(&key, e->key, e->key_len);

	if (err || !e->name || !gm_name_ok(e->name) || !e->size || e->size % page ||
	    e->size > GM_REGION_MAX || !gm_page_shift(page) ||
	    (e->read_key && (!e->read_key_len || e->read_key_len > GM_KEY_MAX)))
		return -EINVAL;
	m.page_shift = e->page_size ? (uint8_t)gm_page_shift(page) : 0;
	strcpy(m.name, e->name);
	m.key = key;
	if (e->read_key) {
		m.text_len = (uint32_t)e->read_key_len;
		memcpy(m.text, e->read_key, e->read_key_len);
	}
	err = lib_call(g, &m, &e->memfd, e->memfd >= 0, fds, &nfds, LIB_CALL_MS);
	if (!err)
		err = region_create(g, &m, &key, true, false, e->addr, fds, nfds, out);
	gm_key_wipe(&m.key);
	gm_key_wipe(&key);
	return err;
}

int ghostmem_import(struct ghostmem *g, const struct ghostmem_import *i,
		    struct ghostmem_region **out)
{
	bool read_only = i->flags & GHOSTMEM_READ_ONLY;
	uint64_t end = clock_ns() + AGAIN_NS;
	struct local_msg m;
	int fds[LOCAL_FDS], nfds = 0;
	struct gm_key key = { 0 };
	int err = set_key(&key, i->key, i->key_len);

	if (err || (i->name && !gm_name_ok(i->name)) ||
	    i->flags & ~(GHOSTMEM_READ_ONLY | GHOSTMEM_NO_MAP))
		return -EINVAL;
	/* An owner that was just started may not have all its regions yet. */
	do {
		m = (struct local_msg){ .op = LOCAL_IMPORT,
					.bus = i->name ? 0 : i->bus,
					.read_only = read_only,
					.key = key };
		if (i->name)
			strcpy(m.name, i->name);
		err = lib_call(g, &m, NULL, 0, fds, &nfds, LIB_CALL_MS);
	} while (err == -EAGAIN && clock_ns() < end && !poll(NULL, 0, 20));
	/* What the agent says of its way to the owner. */
	if (err == -ECONNREFUSED || err == -EHOSTUNREACH || err == -ENETUNREACH ||
	    err == -EAGAIN)
		err = -EIO;
	if (!err)
		err = region_create(g, &m, &key, !(i->flags & GHOSTMEM_NO_MAP), read_only,
				    i->addr, fds, nfds, out);
	gm_key_wipe(&m.key);
	gm_key_wipe(&key);
	return err;
}

int lib_refresh(struct ghostmem_region *r, int timeout_ms)
{
	struct local_msg m = { .op = LOCAL_IMPORT, .key = r->key };
	int fds[LOCAL_FDS], nfds = 0, err;

	memcpy(m.name, r->name, sizeof(m.name));
	err = lib_call(r->g, &m, NULL, 0, fds, &nfds, timeout_ms);
	close_fds(fds, nfds);
	gm_key_wipe(&m.key);
	if (err)
		return err;
	if (m.bus != r->bus || m.size != r->size || m.page_shift != r->page_shift)
		return -ENOENT; /* another region of that name */
	pthread_mutex_lock(&r->lock);
	memcpy(r->addr, m.addr, sizeof(r->addr));
	r->epoch = m.epoch;
	r->owner = m.flags & LOCAL_OWNER;
	pthread_mutex_unlock(&r->lock);
	return 0;
}

/* No agent has heard that the window is gone. The next one waits for all that it finds in
 * the meta. */
static void forget_window(const struct ghostmem_region *r)
{
	const int32_t none = 0;
	size_t at = offsetof(struct meta_hdr, windows) +
		    r->window * sizeof(struct meta_window) +
		    offsetof(struct meta_window, pid);

	if (r->window < META_WINDOWS &&
	    pwrite(r->meta, &none, sizeof(none), (off_t)at) != sizeof(none))
		return; /* then it waits for us to end, or for a lease */
}

void ghostmem_release(struct ghostmem_region *r)
{
	struct ghostmem_region **p;
	struct local_msg m = { .op = LOCAL_DETACH };
	int err = -ECHILD;

	if (!r)
		return;
	m.bus = r->bus;
	m.base = (uint64_t)(uintptr_t)r->base;
	pthread_mutex_lock(&r->g->lock);
	for (p = &r->g->regions; *p != r; p = &(*p)->next)
		;
	*p = r->next;
	pthread_mutex_unlock(&r->g->lock);
	lib_conns_close(r);
	if (r->base) {
		lib_unmap(r);
		if (r->g->generation == lib_generation)
			err = lib_call(r->g, &m, NULL, 0, NULL, NULL, lib_limit_ms(r));
		if (err == -ECONNRESET || err == -ETIMEDOUT)
			forget_window(r);
	}
	region_free(r);
}

void *ghostmem_addr(const struct ghostmem_region *r)
{
	return r->base;
}

uint64_t ghostmem_size(const struct ghostmem_region *r)
{
	return r->size;
}

uint64_t ghostmem_page_size(const struct ghostmem_region *r)
{
	return 1ull << r->page_shift;
}

uint64_t ghostmem_bus(const struct ghostmem_region *r)
{
	return r->bus;
}

/* ---- events ----------------------------------------------------------------------- */

int ghostmem_event_fd(struct ghostmem *g)
{
	return g->event_fd;
}

int ghostmem_next_event(struct ghostmem *g, struct ghostmem_event *out)
{
	uint64_t one;
	int got = 0;

	pthread_mutex_lock(&g->lock);
	if (g->event_count) {
		*out = g->events[g->event_head];
		g->event_head = (g->event_head + 1) % LIB_EVENTS;
		g->event_count--;
		got = read(g->event_fd, &one, sizeof(one)) == sizeof(one) ? 1 : -errno;
	}
	pthread_mutex_unlock(&g->lock);
	return got;
}
