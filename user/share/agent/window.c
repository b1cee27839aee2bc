// SPDX-License-Identifier: BSD-2-Clause
/* window: memfd, alias, registered mappings. Theory and contract in window.h; one thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "reserve.h"
#include "uffd.h"
#include "window_int.h"

#define ONE_BY_ONE 4096 /* pages; longer runs are of regions that end */

int window_create(int memfd, uint64_t size, unsigned int shift, struct window **out)
{
	struct window *w = calloc(1, sizeof(*w));
	struct stat st;
	void *p;
	int err;

	if (!w)
		return -ENOMEM;
	err = window_memfd_shift(memfd);
	if (err != (int)shift || fstat(memfd, &st)) {
		free(w);
		return err < 0 ? err : -EINVAL;
	}
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memfd,
		 0);
	if (p == MAP_FAILED) {
		err = -errno;
		free(w);
		return err;
	}
	w->memfd = memfd;
	w->size = size;
	w->shift = shift;
	w->inherited = st.st_blocks != 0;
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
	window_unback(w);
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
	return w->size >> w->shift;
}

unsigned int window_shift(const struct window *w)
{
	return w->shift;
}

uint8_t *window_page(const struct window *w, uint64_t page)
{
	return w->alias + (page << w->shift);
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
	err = window_back(w);
	/* What was here before goes on with the pages that it has. */
	if (err && !w->inherited)
		return err;
	err = 0;
	*c = *app;
	c->shift = w->shift;
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

static struct uffdio_range range_of(const struct window_app *c, uint64_t page, uint64_t n)
{
	return (struct uffdio_range){ .start = c->base + (page << c->shift),
				      .len = n << c->shift };
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
	struct uffd_msg m = { 0 };

	for (;;) {
		int err = uffd_read(c->uffd, &m);

		if (err <= 0)
			return err;
		/* Nobody asked for it; it comes with a descriptor. */
		if (m.event == UFFD_EVENT_FORK)
			close((int)m.arg.fork.ufd);
		if (m.event == UFFD_EVENT_REMAP)
			moved(c, m.arg.remap.to, m.arg.remap.len);
		if (m.event != UFFD_EVENT_PAGEFAULT)
			continue;
		*addr = m.arg.pagefault.address >> c->shift << c->shift;
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
			struct uffdio_range r = { addr, 1ull << c->shift };

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
		*page = (addr - c->base) >> w->shift;
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
		done = k.mapped > 0 ? (uint64_t)k.mapped >> c->shift : 0;
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
			.dst = c->base + (page << c->shift),
			.src = (uint64_t)(uintptr_t)bytes,
			.len = n << c->shift,
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
				break;
			if (errno != EAGAIN)
				break;
			catch_up(c);
		}
		if (k.copy <= 0)
			continue;
		n = (uint64_t)k.copy >> c->shift;
		/* For window_data(): the alias has them, too. */
		for (uint64_t p = page; w->shift != GM_PAGE_SHIFT && p < page + n; p++)
			(void)*(volatile uint8_t *)window_page(w, p);
		return n;
	}
	return 0;
}

int window_fill(struct window *w, uint64_t page, uint64_t n, const uint8_t *bytes,
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
			if (window_room(w, page, done))
				return -ENOBUFS;
			memcpy(window_page(w, page), bytes, done << w->shift);
		}
		page += done;
		bytes += done << w->shift;
		n -= done;
	}
	return 0;
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

void window_renew(struct window *w, uint64_t page, uint64_t n)
{
	for (int i = 0; i < WINDOW_CLIENTS; i++) {
		struct window_app *c = &w->clients[i];
		struct uffdio_range r = range_of(c, page, n);

		if (c->uffd >= 0 && !(c->lacks & WINDOW_NO_POISON))
			c->renew(c->arg, r.start, r.len);
	}
}

void window_rewake(struct window *w, int client)
{
	wake(&w->clients[client], 0, window_pages(w));
}
