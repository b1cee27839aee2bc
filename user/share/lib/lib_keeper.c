// SPDX-License-Identifier: BSD-2-Clause
/*
 * lib_keeper: the thread that reads what the agent sends, and keeps windows honest when
 * the agent is away. Theory in lib.h.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib.h"
#include "../agent/window.h"
#include "../../lib/clock.h"
#include "../../lib/sanitizer.h"

#define RECONNECT_MS 20

/* ---- calls: any thread ---------------------------------------------------------------
 */

static struct timespec after(int ms)
{
	uint64_t ns = clock_ns() + (uint64_t)ms * 1000000;

	return (struct timespec){ .tv_sec = (time_t)(ns / 1000000000),
				  .tv_nsec = (long)(ns % 1000000000) };
}

static uint64_t ns(const struct timespec *ts)
{
	return (uint64_t)ts->tv_sec * 1000000000 + (uint64_t)ts->tv_nsec;
}

void lib_wake(struct ghostmem *g)
{
	uint64_t one = 1;

	/* Full or not: it is readable. */
	if (write(g->wake, &one, sizeof(one)) < 0)
		return;
}

/* Once, with the agent that is there; g->lock is held. -ECONNRESET: it went away */
static int call(struct ghostmem *g, struct local_msg *m, const int *fds, int nfds,
		const struct timespec *end)
{
	int err;

	m->magic = LOCAL_MAGIC;
	g->want = m->serial = ++g->serial;
	g->reply = m;
	g->reply_nfds = 0;
	err = local_send(g->sock, m, fds, nfds);
	while (!err && g->want && g->sock >= 0)
		err = -pthread_cond_timedwait(&g->cond, &g->lock, end);
	if (!err && g->want)
		err = -ECONNRESET;
	g->want = 0;
	g->reply = NULL;
	return err == -EPIPE ? -ECONNRESET : err;
}

int lib_call(struct ghostmem *g, struct local_msg *m, const int *fds, int nfds, int *rfds,
	     int *nrfds, int timeout_ms)
{
	struct timespec end = after(timeout_ms);
	/* An agent that comes back does not know a window that we are leaving. */
	bool once = m->op == LOCAL_DETACH;
	int err;

	assert(!rfds == !nrfds);
	if (nrfds)
		*nrfds = 0;
	if (g->generation != lib_generation)
		return -ECHILD;
	err = -pthread_mutex_clocklock(&g->call, CLOCK_MONOTONIC, &end);
	if (err)
		return err;
	gn_locked(&g->call);
	pthread_mutex_lock(&g->lock);
	do {
		err = 0;
		while (!err && g->sock < 0 && !g->closing && !once)
			err = -pthread_cond_timedwait(&g->cond, &g->lock, &end);
		if (err || g->closing || g->sock < 0)
			err = -ECONNRESET;
		else
			err = call(g, m, fds, nfds, &end);
		/* It closed, and the keeper has not seen it yet. */
		if (err == -ECONNRESET && g->sock >= 0 && !g->closing && !once)
			pthread_cond_timedwait(&g->cond, &g->lock, &end);
	} while (err == -ECONNRESET && !g->closing && !once && clock_ns() < ns(&end));
	if (!err)
		err = m->status;
	for (int i = 0; i < g->reply_nfds; i++) {
		if (rfds && !err)
			rfds[(*nrfds)++] = g->reply_fds[i];
		else
			close(g->reply_fds[i]);
	}
	g->reply_nfds = 0;
	pthread_mutex_unlock(&g->lock);
	pthread_mutex_unlock(&g->call);
	return err;
}

/*
 * What is left of the window within the range: the application may have unmapped or moved
 * parts, and something else may lie there. Each piece is given to @each. Return: false:
 * nobody knows which there are
 */
static bool pieces(struct ghostmem_region *r, uint64_t addr, uint64_t size,
		   void (*each)(struct ghostmem_region *r, uint64_t at, uint64_t len))
{
	struct stat ours, gone = { 0 };
	FILE *f = fopen("/proc/self/maps", "re");
	char line[512];

	if (fstat(r->memfd, &ours) || (r->gone >= 0 && fstat(r->gone, &gone)) || !f) {
		if (f)
			fclose(f);
		return false;
	}
	while (fgets(line, sizeof(line), f)) {
		uint64_t from, to, inode;

		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %*s %*s %*s %" SCNu64, &from,
			   &to, &inode) != 3 ||
		    !strstr(line, "/memfd:") ||
		    (inode != ours.st_ino && inode != gone.st_ino))
			continue;
		from = from > addr ? from : addr;
		to = to < addr + size ? to : addr + size;
		if (from < to)
			each(r, from, to - from);
	}
	fclose(f);
	return true;
}

static void unmap(struct ghostmem_region *r, uint64_t at, uint64_t len)
{
	munmap((void *)(uintptr_t)at, len);
}

void lib_unmap(struct ghostmem_region *r)
{
	uint64_t base = (uint64_t)(uintptr_t)r->base;

	if (base && !pieces(r, base, r->size, unmap))
		unmap(r, base, r->size);
	r->base = NULL;
}

/*
 * Over the end of an empty file every access is SIGBUS. Those who wait for the old
 * mapping's faults are woken, try again, and see the new one.
 */
static void cover(struct ghostmem_region *r, uint64_t at, uint64_t len)
{
	struct uffdio_range range = { at, len };
	void *p = (void *)(uintptr_t)at;

	if (r->gone < 0)
		r->gone = memfd_create("ghostmem-gone", MFD_CLOEXEC);
	if (r->gone < 0 ||
	    mmap(p, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE,
		 r->gone, 0) == MAP_FAILED)
		mprotect(p, len, PROT_NONE);
	ioctl(r->uffd, UFFDIO_WAKE, &range);
}

static void map_nothing(struct ghostmem_region *r, uint64_t addr, uint64_t size)
{
	if (!pieces(r, addr, size, cover))
		cover(r, addr, size);
}

/* Takes UFFDIO_POISON out of the page table. What else is there comes back with a fault,
 * and the marks of write protection stay. */
static void ask_anew(struct ghostmem_region *r, uint64_t at, uint64_t len)
{
	madvise((void *)(uintptr_t)at, len, MADV_DONTNEED_LOCKED);
}

void lib_renew(struct ghostmem_region *r, uint64_t off, uint64_t size)
{
	if (r->base)
		pieces(r, (uint64_t)(uintptr_t)r->base + off, size, ask_anew);
}

void lib_fence(struct ghostmem_region *r, int err)
{
	pthread_mutex_lock(&r->lock);
	if (!r->dead)
		__atomic_store_n(&r->dead, err, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&r->lock);
	if (r->base)
		map_nothing(r, (uint64_t)(uintptr_t)r->base, r->size);
}

/* ---- events -------------------------------------------------------------------------
 */

/* g->lock is held. */
static void push_event(struct ghostmem *g, int type, uint64_t bus)
{
	uint64_t one = 1;

	if (g->event_count == LIB_EVENTS)
		return; /* nobody reads them */
	g->events[(g->event_head + g->event_count) % LIB_EVENTS] =
		(struct ghostmem_event){ (enum ghostmem_event_type)type, bus };
	if (write(g->event_fd, &one, sizeof(one)) == sizeof(one))
		g->event_count++;
}

/* The agent asks us: without UFFDIO_POISON, and for places that the application moved a
 * window to. g->lock is held. */
static void poison(struct ghostmem *g, const struct local_msg *m)
{
	for (struct ghostmem_region *r = g->regions; r; r = r->next)
		if (r->bus == m->bus && r->base)
			map_nothing(r, m->base, m->size);
}

static void renew(struct ghostmem *g, const struct local_msg *m)
{
	for (struct ghostmem_region *r = g->regions; r; r = r->next)
		if (r->bus == m->bus && r->base)
			pieces(r, m->base, m->size, ask_anew);
}

/* The application hears once that a region is over. g->lock is held. */
static void push_end(struct ghostmem *g, struct ghostmem_region *r, int type)
{
	if (!r->told)
		push_event(g, type, r->bus);
	r->told = true;
}

/*
 * Fence what nobody vouches for any more. g->lock is held. Return: ms until the next one
 * may be due, -1: none
 */
static int fence_overdue(struct ghostmem *g)
{
	uint64_t now = clock_boot_ns(), next = UINT64_MAX;

	for (struct ghostmem_region *r = g->regions; r; r = r->next) {
		uint64_t until;

		if (r->dead || !r->state)
			continue;
		until = __atomic_load_n(&r->state->valid_ns, __ATOMIC_ACQUIRE);
		if (now >= until) {
			lib_fence(r, -EIO);
			push_end(g, r, GM_EV_OWNER_GONE);
		} else if (until < next) {
			next = until;
		}
	}
	return next == UINT64_MAX ? -1 : (int)((next - now) / 1000000) + 1;
}

/* g->lock is held. */
static void on_event(struct ghostmem *g, const struct local_msg *m)
{
	bool end = m->event == GM_EV_OWNER_GONE || m->event == GM_EV_REVOKED;

	if (m->event == GM_EV_POISON) {
		poison(g, m);
		return;
	}
	if (m->event == GM_EV_RENEW) {
		renew(g, m);
		return;
	}
	for (struct ghostmem_region *r = g->regions; r; r = r->next) {
		if (!gm_in_range(m->bus, 1, r->bus, r->size))
			continue;
		if (m->event == GM_EV_MOVED && m->addr[0]) {
			pthread_mutex_lock(&r->lock);
			memcpy(r->addr, m->addr, sizeof(r->addr));
			r->epoch = m->epoch;
			r->lease_ms = m->lease_ms;
			r->owner = m->flags & LOCAL_OWNER;
			pthread_mutex_unlock(&r->lock);
		}
		if (end && r->base) {
			lib_fence(r, m->event == GM_EV_REVOKED ? -ESTALE : -EIO);
			push_end(g, r, m->event);
		}
	}
	if (!end)
		push_event(g, m->event, m->bus);
}

/* Return: false: the connection is over */
static bool readable(struct ghostmem *g)
{
	struct local_msg m;
	int fds[LOCAL_FDS], n, err;

	err = local_recv(g->sock, &m, fds, &n);
	if (err == -EAGAIN || err == -EINTR)
		return true;
	if (err <= 0)
		return false;
	pthread_mutex_lock(&g->lock);
	if (m.op == LOCAL_EVENT) {
		on_event(g, &m);
	} else if (m.serial == g->want && m.op == g->reply->op) {
		*g->reply = m;
		memcpy(g->reply_fds, fds, sizeof(fds));
		g->reply_nfds = n;
		n = 0;
		g->want = 0;
		pthread_cond_broadcast(&g->cond);
	}
	pthread_mutex_unlock(&g->lock);
	gm_key_wipe(&m.key);
	while (n)
		close(fds[--n]);
	return true;
}

/* ---- an agent that went away
 * ----------------------------------------------------------- */

struct resuming {
	struct ghostmem *g;
};

static void resume_event(void *arg, const struct local_msg *m)
{
	struct resuming *s = arg;

	on_event(s->g, m);
}

/* As long as somebody vouches for a region: an agent that is slow goes on with what it
 * was asked, and who asks it anew on another connection has gone, for it. g->lock is
 * held. */
static int resume(struct ghostmem *g, struct ghostmem_region *r, int sock, int ms)
{
	struct local_msg m = { .op = LOCAL_RESUME,
			       .read_only = r->read_only,
			       .epoch = r->epoch,
			       .bus = r->bus,
			       .size = r->size,
			       .base = (uint64_t)(uintptr_t)r->base,
			       .lacks = (uint8_t)r->lacks,
			       .key = r->key };
	int fds[LOCAL_FDS] = { r->uffd, r->memfd, r->meta };
	struct resuming s = { g };
	int err;

	memcpy(m.name, r->name, sizeof(m.name));
	err = local_call(sock, &m, fds, 3, NULL, NULL, ms, resume_event, &s);
	gm_key_wipe(&m.key);
	if (err)
		return err;
	pthread_mutex_lock(&r->lock);
	memcpy(r->addr, m.addr, sizeof(r->addr));
	r->epoch = m.epoch;
	r->lease_ms = m.lease_ms;
	r->owner = m.flags & LOCAL_OWNER;
	pthread_mutex_unlock(&r->lock);
	r->window = m.window;
	r->resumed = true;
	return 0;
}

/*
 * Every region that is not yet with the agent at @sock. Return: 0: all are, or are over;
 * -EAGAIN: some not yet; -ECONNRESET: it went away
 */
static int resume_all(struct ghostmem *g, int sock)
{
	int again = 0;

	for (struct ghostmem_region *r = g->regions; r; r = r->next) {
		int ms = fence_overdue(g), err;

		if (r->dead || !r->base || r->resumed)
			continue;
		err = resume(g, r, sock, ms);
		switch (err) {
		case 0: break;
		case -EAGAIN: again = -EAGAIN; break;
		case -ECONNRESET:
		case -EPIPE:
		case -ETIMEDOUT: return -ECONNRESET;
		default: lib_fence(r, -EIO); push_end(g, r, GM_EV_OWNER_GONE);
		}
	}
	return again;
}

/* Connect anew, resume, fence what has run out. Return: false: closing */
static bool away(struct ghostmem *g)
{
	bool closing = false;
	int sock = -1;

	pthread_mutex_lock(&g->lock);
	close(g->sock);
	g->sock = -1;
	pthread_cond_broadcast(&g->cond);
	while (!g->closing) {
		struct pollfd p = { .fd = g->wake, .events = POLLIN };
		uint64_t n;
		int err;

		fence_overdue(g);
		if (sock < 0) {
			sock = local_connect(g->path);
			for (struct ghostmem_region *r = g->regions; r; r = r->next)
				r->resumed = false;
		}
		err = sock < 0 ? -EAGAIN : resume_all(g, sock);
		if (!err)
			break;
		if (err == -ECONNRESET) {
			close(sock);
			sock = -1;
		}
		pthread_mutex_unlock(&g->lock);
		if (poll(&p, 1, RECONNECT_MS) > 0 && read(g->wake, &n, sizeof(n)) < 0)
			n = 0;
		pthread_mutex_lock(&g->lock);
	}
	closing = g->closing;
	g->sock = sock;
	pthread_cond_broadcast(&g->cond);
	pthread_mutex_unlock(&g->lock);
	return !closing;
}

void *lib_keeper(void *arg)
{
	struct ghostmem *g = arg;

	for (;;) {
		struct pollfd p[2] = { { .fd = g->sock, .events = POLLIN },
				       { .fd = g->wake, .events = POLLIN } };
		bool closing;
		uint64_t n;
		int ms;

		pthread_mutex_lock(&g->lock);
		closing = g->closing;
		ms = fence_overdue(g);
		pthread_mutex_unlock(&g->lock);
		if (closing)
			return NULL;
		if (poll(p, 2, ms) <= 0)
			continue;
		if (p[1].revents && read(g->wake, &n, sizeof(n)) < 0)
			n = 0;
		if (p[0].revents && !readable(g) && !away(g))
			return NULL;
	}
}
