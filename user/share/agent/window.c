// SPDX-License-Identifier: BSD-2-Clause
/* window: memfd, alias, registered mappings. Theory and contract in window.h; one thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "reserve.h"
#include "uffd.h"
#include "window.h"
#include "../../lib/log.h"

#define ONE_BY_ONE 4096 /* pages; longer runs are of regions that end */

struct window {
	int memfd;
	uint64_t size;
	uint8_t *alias;
	bool staged;				   /* window_stage() was true */
	uint64_t reserved;			   /* bytes of reserve_first() */
	uint64_t ready_from, ready_to;		   /* pages that need not be made ready */
	struct window_app clients[WINDOW_CLIENTS]; /* uffd -1: free */
};

int window_create(int memfd, uint64_t size, struct window **out)
{
	struct window *w = calloc(1, sizeof(*w));
	void *p;
	int err;

	if (!w)
		return -ENOMEM;
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memfd,
		 0);
	if (p == MAP_FAILED) {
		err = -errno;
		free(w);
		return err;
	}
	w->memfd = memfd;
	w->size = size;
	w->alias = p;
	for (int i = 0; i < WINDOW_CLIENTS; i++)
		w->clients[i].uffd = -1;
	*out = w;
	return 0;
}

void window_destroy(struct window *w)
{
	if (!w)
		return;
	for (int i = 0; i < WINDOW_CLIENTS; i++)
		window_detach(w, i);
	reserve_end(w->alias, w->reserved);
	munmap(w->alias, w->size);
	close(w->memfd);
	free(w);
}

int window_memfd(const struct window *w)
{
	return w->memfd;
}

uint8_t *window_alias(const struct window *w)
{
	return w->alias;
}

uint64_t window_pages(const struct window *w)
{
	return w->size >> GM_PAGE_SHIFT;
}

bool window_stage(struct window *w)
{
	bool any = false;

	for (int i = 0; i < WINDOW_CLIENTS; i++) {
		if (w->clients[i].uffd < 0)
			continue;
		if (w->clients[i].lacks & WINDOW_NO_MINOR)
			return false;
		any = true;
	}
	if (any && !w->staged) {
		w->staged = true;
		w->reserved = reserve_first(w->alias, w->size);
		w->ready_from = 0;
		w->ready_to = w->reserved >> GM_PAGE_SHIFT;
	}
	return any;
}

void window_unstage(struct window *w)
{
	reserve_end(w->alias, w->reserved);
	w->reserved = w->ready_to = 0;
	w->staged = false;
}

void window_reserve(struct window *w, uint64_t page, uint64_t n)
{
	uint64_t pages = w->size >> GM_PAGE_SHIFT;

	if (page >= pages || !window_stage(w))
		return;
	if (n > pages - page)
		n = pages - page;
	/* To look at pages that are ready costs a seventh of what it takes to fill them. */
	if (page >= w->ready_from && page < w->ready_to) {
		if (w->ready_to - page >= n)
			return;
		n -= w->ready_to - page;
		page = w->ready_to;
	} else {
		w->ready_from = page;
	}
	w->ready_to = page + n;
	reserve_ahead(w->alias, w->alias + (page << GM_PAGE_SHIFT), n << GM_PAGE_SHIFT);
}

static int write_protect(struct window_app *c, uint64_t page, uint64_t n, bool on);

int window_attach(struct window *w, int client, const struct window_app *app)
{
	struct window_app *c = &w->clients[client];
	int err = 0;

	if (c->uffd >= 0)
		return -EBUSY;
	if (app->lacks & WINDOW_NO_MINOR && w->staged)
		return -EOPNOTSUPP; /* of another kernel than the others? */
	*c = *app;
	c->nmoved = c->nqueued = 0;
	c->queue = NULL;
	if (c->lacks & WINDOW_NO_MINOR)
		err = write_protect(c, 0, window_pages(w), true);
	if (err)
		c->uffd = -1;
	return err;
}

void window_detach(struct window *w, int client)
{
	if (w->clients[client].uffd < 0)
		return;
	close(w->clients[client].uffd);
	w->clients[client].uffd = -1;
	free(w->clients[client].queue);
	w->clients[client].queue = NULL;
}

uint32_t window_clients(const struct window *w)
{
	uint32_t mask = 0;

	for (int i = 0; i < WINDOW_CLIENTS; i++)
		mask |= w->clients[i].uffd >= 0 ? 1u << i : 0;
	return mask;
}

unsigned int window_lacks(const struct window *w)
{
	unsigned int lacks = 0;

	for (int i = 0; i < WINDOW_CLIENTS; i++)
		if (w->clients[i].uffd >= 0)
			lacks |= w->clients[i].lacks;
	return lacks;
}

bool window_data(const struct window *w, uint64_t *page, uint64_t *n)
{
	off_t from, to;

	if (*page >= window_pages(w))
		return false;
	from = lseek(w->memfd, (off_t)(*page << GM_PAGE_SHIFT), SEEK_DATA);
	if (from < 0 || (uint64_t)from >= w->size)
		return false;
	to = lseek(w->memfd, from, SEEK_HOLE);
	if (to < 0 || (uint64_t)to > w->size)
		to = (off_t)w->size;
	*page = (uint64_t)from >> GM_PAGE_SHIFT;
	*n = (((uint64_t)to + GM_PAGE_SIZE - 1) >> GM_PAGE_SHIFT) - *page;
	return *n > 0;
}

static struct uffdio_range range_of(const struct window_app *c, uint64_t page, uint64_t n)
{
	return (struct uffdio_range){ .start = c->base + (page << GM_PAGE_SHIFT),
				      .len = n << GM_PAGE_SHIFT };
}

/* The application is gone, or has unmapped this part: nothing there to change. */
static bool harmless(int err)
{
	return err == ESRCH || err == ENOENT;
}

static void catch_up(struct window_app *c);

/*
 * mremap(): the new place stays with our userfaultfd, and what was mapped is mapped
 * there. No store must happen there any more; the application's library maps a file that
 * ends before it. Until then whoever touches the place waits.
 */
static void moved(struct window_app *c, uint64_t to, uint64_t len)
{
	struct uffdio_writeprotect wp = { .range = { to, len },
					  .mode = UFFDIO_WRITEPROTECT_MODE_WP };

	if (c->nmoved < WINDOW_MOVES) {
		c->moved[c->nmoved].at = to;
		c->moved[c->nmoved++].len = len;
	} else {
		/* From here on one range for all. */
		uint64_t end = c->moved[0].at + c->moved[0].len;

		end = end > to + len ? end : to + len;
		c->moved[0].at = c->moved[0].at < to ? c->moved[0].at : to;
		c->moved[0].len = end - c->moved[0].at;
	}
	while (ioctl(c->uffd, UFFDIO_WRITEPROTECT, &wp) && errno == EAGAIN)
		catch_up(c);
	c->poison(c->arg, to, len);
}

/* Return: 1, 0: none, -errno */
static int next_fault(struct window_app *c, uint64_t *addr, bool *write)
{
	struct uffd_msg m;

	for (;;) {
		ssize_t n = read(c->uffd, &m, sizeof(m));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		if (n != sizeof(m))
			return -EIO;
		if (m.event == UFFD_EVENT_REMAP)
			moved(c, m.arg.remap.to, m.arg.remap.len);
		if (m.event != UFFD_EVENT_PAGEFAULT)
			continue;
		*addr = m.arg.pagefault.address & ~(uint64_t)(GM_PAGE_SIZE - 1);
		*write = m.arg.pagefault.flags &
			 (UFFD_PAGEFAULT_FLAG_WRITE | UFFD_PAGEFAULT_FLAG_WP);
		return 1;
	}
}

/* The kernel refuses changes until we have read what the application changes: faults that
 * come with it are for later: window_fault() is called at every tick, too. */
static void catch_up(struct window_app *c)
{
	uint64_t addr;
	bool write;

	while (next_fault(c, &addr, &write) > 0) {
		uint64_t *q = reallocarray(c->queue, c->nqueued + 1, sizeof(*q));

		if (!q) {
			/* It will be reported again. */
			struct uffdio_range r = { addr, GM_PAGE_SIZE };

			ioctl(c->uffd, UFFDIO_WAKE, &r);
			return;
		}
		c->queue = q;
		c->queue[c->nqueued++] = addr | write;
	}
}

static bool is_moved(const struct window_app *c, uint64_t addr)
{
	for (unsigned int i = 0; i < c->nmoved; i++)
		if (addr - c->moved[i].at < c->moved[i].len)
			return true;
	return false;
}

int window_fault(struct window *w, int client, uint64_t *page, bool *write)
{
	struct window_app *c = &w->clients[client];

	for (;;) {
		uint64_t addr;
		int err = 1;

		if (c->nqueued) {
			addr = c->queue[--c->nqueued];
			*write = addr & 1;
			addr &= ~1ull;
		} else {
			err = next_fault(c, &addr, write);
		}
		if (err <= 0)
			return err;
		if (is_moved(c, addr))
			continue; /* it was told, and ends this wait */
		if (addr - c->base >= w->size)
			continue;
		*page = (addr - c->base) >> GM_PAGE_SHIFT;
		return 1;
	}
}

static int write_protect(struct window_app *c, uint64_t page, uint64_t n, bool on)
{
	struct uffdio_writeprotect wp = {
		.range = range_of(c, page, n),
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	while (ioctl(c->uffd, UFFDIO_WRITEPROTECT, &wp)) {
		if (errno == EAGAIN) {
			catch_up(c);
			continue;
		}
		/* A part is unmapped, or was poisoned by the application: the others one
		 * by one. */
		if (errno == ENOENT && n > 1 && n <= ONE_BY_ONE) {
			uint64_t half = n / 2;
			int err = write_protect(c, page, half, on);

			return err ? err : write_protect(c, page + half, n - half, on);
		}
		return harmless(errno) ? 0 : -errno;
	}
	return 0;
}

int window_protect(struct window *w, uint64_t page, uint64_t n)
{
	int err = 0;

	for (int i = 0; i < WINDOW_CLIENTS && !err; i++)
		if (w->clients[i].uffd >= 0)
			err = write_protect(&w->clients[i], page, n, true);
	return err;
}

/* The larger part of what was ready stays. */
static void unready(struct window *w, uint64_t page, uint64_t n)
{
	if (page >= w->ready_to || page + n <= w->ready_from)
		return;
	if (page <= w->ready_from || page - w->ready_from < w->ready_to - page)
		w->ready_from = page + n < w->ready_to ? page + n : w->ready_to;
	else
		w->ready_to = page;
}

int window_drop(struct window *w, uint64_t page, uint64_t n)
{
	unready(w, page, n);
	if (fallocate(w->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		      (off_t)(page << GM_PAGE_SHIFT), (off_t)(n << GM_PAGE_SHIFT)))
		return -errno;
	return 0;
}

static int wake(struct window_app *c, uint64_t page, uint64_t n)
{
	struct uffdio_range r = range_of(c, page, n);

	return ioctl(c->uffd, UFFDIO_WAKE, &r) && !harmless(errno) ? -errno : 0;
}

static int map_one(struct window_app *c, uint64_t page, uint64_t n, bool writable)
{
	while (n) {
		struct uffdio_continue k = {
			.range = range_of(c, page, n),
			.mode = writable ? 0 : UFFDIO_CONTINUE_MODE_WP,
		};
		uint64_t done;
		int err;

		if (!ioctl(c->uffd, UFFDIO_CONTINUE, &k))
			return 0;
		err = errno;
		done = k.mapped > 0 ? (uint64_t)k.mapped >> GM_PAGE_SHIFT : 0;
		if (err == EEXIST && !done) {
			/* Mapped already: by an earlier grant to read, or a fault
			 * reported twice. */
			int e = writable ? write_protect(c, page, 1, false) : 0;

			if (!e)
				e = wake(c, page, 1);
			if (e)
				return e;
			done = 1;
		} else if (err == EAGAIN) {
			/* Or only a part was done. */
			if (!done)
				catch_up(c);
		} else if (err != EEXIST) {
			return harmless(err) ? 0 : -err;
		}
		page += done;
		n -= done;
	}
	return 0;
}

/* By COPY, into the first window that has this part: then all of it is there at once.
 * Return: pages done */
static uint64_t copy_in(struct window *w, uint64_t page, uint64_t n, const uint8_t *bytes,
			bool writable)
{
	const struct window_app *to = NULL;

	for (int i = 0; i < WINDOW_CLIENTS; i++) {
		struct window_app *c = &w->clients[i];
		struct uffdio_copy k = {
			.dst = c->base + (page << GM_PAGE_SHIFT),
			.src = (uint64_t)(uintptr_t)bytes,
			.len = n << GM_PAGE_SHIFT,
			.mode = UFFDIO_COPY_MODE_DONTWAKE |
				(writable ? 0 : UFFDIO_COPY_MODE_WP),
		};

		if (c->uffd < 0)
			continue;
		/* Marks that were lost, if any, before there is something to map. */
		for (int j = i + 1; !to && j < WINDOW_CLIENTS; j++)
			if (w->clients[j].uffd >= 0)
				write_protect(&w->clients[j], page, n, true);
		to = c;
		while (ioctl(c->uffd, UFFDIO_COPY, &k)) {
			if (k.copy > 0)
				return (uint64_t)k.copy >> GM_PAGE_SHIFT;
			if (errno != EAGAIN)
				break;
			catch_up(c);
		}
		if (k.copy > 0)
			return (uint64_t)k.copy >> GM_PAGE_SHIFT;
	}
	return 0;
}

void window_fill(struct window *w, uint64_t page, uint64_t n, const uint8_t *bytes,
		 bool writable)
{
	bool copy = false;

	for (int i = 0; i < WINDOW_CLIENTS; i++)
		copy |= w->clients[i].uffd >= 0 && w->clients[i].lacks & WINDOW_NO_MINOR;
	while (n) {
		uint64_t done = copy ? copy_in(w, page, n, bytes, writable) : 0;

		if (!done) {
			/* No window shows this page, or faults on it come to us. */
			done = copy ? 1 : n;
			memcpy(w->alias + (page << GM_PAGE_SHIFT), bytes,
			       done << GM_PAGE_SHIFT);
		}
		page += done;
		bytes += done << GM_PAGE_SHIFT;
		n -= done;
	}
}

/* The kernel maps by itself, and read-only where there are marks. */
static int show(struct window_app *c, uint64_t page, uint64_t n, bool writable)
{
	int err = writable ? write_protect(c, page, n, false) : 0;

	return err ? err : wake(c, page, n);
}

int window_map(struct window *w, uint64_t page, uint64_t n, uint32_t clients,
	       bool writable)
{
	int err = 0;

	for (; clients; clients &= clients - 1) {
		struct window_app *c = &w->clients[__builtin_ctz(clients)];
		int e = 0;

		if (c->uffd >= 0)
			e = c->lacks & WINDOW_NO_MINOR ? show(c, page, n, writable)
						       : map_one(c, page, n, writable);

		err = e ? e : err;
	}
	return err;
}

static int poison_one(struct window_app *c, uint64_t page, uint64_t n)
{
	struct uffdio_poison p = { .range = range_of(c, page, n) };
	/* What write protection leaves behind in an empty place keeps poison out. */
	struct uffdio_writeprotect off = { .range = p.range,
					   .mode = UFFDIO_WRITEPROTECT_MODE_DONTWAKE };

	if (c->lacks & WINDOW_NO_POISON) {
		c->poison(c->arg, p.range.start, p.range.len);
		return 0;
	}
	ioctl(c->uffd, UFFDIO_WRITEPROTECT, &off);
	while (ioctl(c->uffd, UFFDIO_POISON, &p)) {
		if (errno == EAGAIN) {
			catch_up(c);
			continue;
		}
		if (errno == EEXIST) /* poisoned before */
			return wake(c, page, n);
		return harmless(errno) ? 0 : -errno;
	}
	return 0;
}

int window_poison(struct window *w, uint64_t page, uint64_t n, uint32_t clients)
{
	int err = 0;

	for (; clients; clients &= clients - 1) {
		struct window_app *c = &w->clients[__builtin_ctz(clients)];
		int e = c->uffd >= 0 ? poison_one(c, page, n) : 0;

		err = e ? e : err;
	}
	return err;
}

void window_rewake(struct window *w, int client)
{
	wake(&w->clients[client], 0, w->size >> GM_PAGE_SHIFT);
}
