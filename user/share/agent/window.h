/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * window: the pages of one region on one node: a memfd, the agent's alias of it, and the
 * windows of the node's applications, registered with userfaultfd.
 *
 * The application maps the memfd and registers the mapping (MISSING, MINOR and
 * write-protect); it keeps the userfaultfd open and the agent holds a duplicate: once the
 * last descriptor is closed the kernel fills faults with zero pages, silently. The agent
 * maps the memfd a second time, unregistered: through this alias it reads and writes
 * whatever the applications may do.
 *
 *	take a page back	write-protect it in every window (returns after the TLBs
 *				are clean: no store is in flight), read it through the
 *				alias, punch it out of the memfd: gone from every mapping
 *				of every process at once, no help of the application
 *				needed (a process cannot MADV_DONTNEED in another's
 *				address space)
 *	give a page		write it through the alias; CONTINUE in each window that
 *				waits for it, read-only unless exclusive. Other windows
 *				get it by a MINOR fault of their own.
 *
 * A hole read through the alias becomes a zero page and turns MISSING faults into MINOR
 * ones: the agent never touches a page it was not granted.
 * Application calls on a window: munmap() and MADV_DONTNEED are harmless; a forked child
 * has no window (MADV_DONTFORK); after mremap() the new place gives SIGBUS (the event is
 * asked for, as the kernel would else leave an ordinary mapping there, full of zeros).
 *
 * Owner and importers use windows alike. All calls: the agent's thread.
 *
 * Kernels before 6.4 cannot map a page of the memfd read-only in one step: between
 * CONTINUE and write protection a store would slip through. There a window is not
 * registered for MINOR faults (WINDOW_NO_MINOR), and the kernel maps by itself what is in
 * the memfd. So that it maps it read-only, every place of the window is write-protected
 * from the start, which leaves marks in empty places that survive the punching of holes;
 * the mark is lifted where the node may write. So that it does not map half a page,
 * bytes come into the memfd by COPY, whole (window_fill()), and never through the alias
 * where a page is absent. The price is page tables for the whole window.
 * Kernels before 6.6 have no POISON (WINDOW_NO_POISON): the application is told to map,
 * at this place, a file that ends before it.
 *
 * Huge pages (hugetlb) do all of this alike. But there are only as many as the machine has
 * set aside (vm.nr_hugepages), and who touches one that it cannot get is killed by SIGBUS.
 * So all pages of a region are reserved for its memfd before the first window shows it
 * (window_back()), and a page that is punched out is reserved again. The kernel does not
 * do both in one step: a program that reserves in between may take the page. (In a mount
 * with min_size a file keeps what it has reserved, but cannot be sealed; and nothing but
 * punching takes a page out of another process's mapping.) So the agent has one more set
 * aside: it gives that up then, and reserves the page anew. Only if this is taken in the
 * same moment, too, or if there was none more to have, is a page missing: from then on the
 * agent asks first (window_room()), until there are enough again.
 */
#ifndef GM_WINDOW_H
#define GM_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#include "../bus.h"

#define WINDOW_MOVES   16
#define WINDOW_CLIENTS 32 /* applications of a node that map one region */

/* What an application's kernel lacks */
#define WINDOW_NO_MINOR	 1
#define WINDOW_NO_POISON 2

struct window;

/* An application's mapping */
struct window_app {
	int uffd; /* duplicate of its userfaultfd */
	uint64_t base;
	unsigned int lacks; /* WINDOW_NO_* */
	/* Make the application get SIGBUS at its address @addr: with WINDOW_NO_POISON, or
	 * where it moved a part of the window to */
	void (*poison)(void *arg, uint64_t addr, uint64_t len);
	/* Make it ask again where UFFDIO_POISON is */
	void (*renew)(void *arg, uint64_t addr, uint64_t len);
	void *arg;
	/* window's own: of pages; places that parts were moved to; faults read too early
	 */
	unsigned int shift;
	struct {
		uint64_t at, len;
	} moved[WINDOW_MOVES];
	unsigned int nmoved, nqueued;
	uint64_t *queue; /* address | write */
};

/** window_memfd_create() - sealed against nothing yet. @shift: of its pages. Return:
 * descriptor, -errno */
int window_memfd_create(const char *name, uint64_t size, unsigned int shift);

/** window_memfd_shift() - of the pages of a memfd. Return: -EINVAL: no region has such;
 * -errno */
int window_memfd_shift(int memfd);

/**
 * window_create() - take a memfd
 * @memfd:	owned by the window on success
 * @size:	bytes, whole pages
 * @shift:	of its pages
 *
 * Return: 0; -EINVAL: the memfd has other pages; -errno
 */
int window_create(int memfd, uint64_t size, unsigned int shift, struct window **out);
void window_destroy(struct window *w);

/** window_back() - reserve memory for all of it, if its pages are huge. Return: 0;
 * -ENOBUFS: there is not enough (logged) */
int window_back(struct window *w);

/** window_room() - may pages be touched through the alias? Return: 0; -ENOBUFS: there is
 * no huge page for one of them */
int window_room(const struct window *w, uint64_t page, uint64_t n);

int window_memfd(const struct window *w);
uint8_t *window_alias(const struct window *w);
uint64_t window_pages(const struct window *w);
unsigned int window_shift(const struct window *w); /* of a page */
/** window_page() - its bytes, through the alias */
uint8_t *window_page(const struct window *w, uint64_t page);
/** window_bytes() - the same, to read, of a page that is here: zeros if nobody has touched
 * it and there is no room for it */
const uint8_t *window_bytes(const struct window *w, uint64_t page);

/**
 * window_stage() - may the memfd have pages that nobody was granted? Yes, if every window
 * that is attached tells of faults on them (no WINDOW_NO_MINOR). Who asks means to put
 * some there: the first time memory is made ready (reserve.h).
 */
bool window_stage(struct window *w);
/** window_unstage() - no more pages are made ready; what is in the memfd stays */
void window_unstage(struct window *w);

/** window_reserve() - memory for pages from @page on, before they come (reserve.h); may
 * be beyond the end. Only if window_stage() */
void window_reserve(struct window *w, uint64_t page, uint64_t n);

/**
 * window_attach() - an application's mapping joins
 * @client:	its number, below WINDOW_CLIENTS
 * @app:	copied; uffd is owned on success
 *
 * Return: 0; -EBUSY: number is taken; -ENOBUFS: as window_back()
 */
int window_attach(struct window *w, int client, const struct window_app *app);
void window_detach(struct window *w, int client);

/** window_clients() - bit mask of the windows */
uint32_t window_clients(const struct window *w);

/** window_lacks() - WINDOW_NO_*, of any window */
unsigned int window_lacks(const struct window *w);

/** window_data() - the next pages from *@page on that are in the memfd: *@page, *@n.
 * Moves the file offset of the memfd. Huge pages of a memfd that had some before
 * window_create() are all there after this, unless window_trim() was called. Return: false:
 * there are none */
bool window_data(const struct window *w, uint64_t *page, uint64_t *n);

/** window_trim() - of huge pages that a memfd had before window_create(), those that are all
 * zero go, and window_data() tells which there are without making any. Windows cannot
 * write to any page then */
void window_trim(struct window *w);

/** window_fault() - read one fault of @client. @page: index; @write: it wants to write;
 * @wp: page is mapped read-only. Return: 1; 0: none pending; -errno. Faults outside the
 * region were answered with SIGBUS here. */
int window_fault(struct window *w, int client, uint64_t *page, bool *write);

/** window_protect() - no window can write @n pages from @page when this returns */
int window_protect(struct window *w, uint64_t page, uint64_t n);

/** window_drop() - @n pages are in no window and not in the memfd */
int window_drop(struct window *w, uint64_t page, uint64_t n);

/**
 * window_fill() - bytes for pages that are not in the memfd, before window_map()
 * @bytes:	@n pages
 * @writable:	as window_map() will be told
 *
 * Return: 0; -ENOBUFS: there is no huge page for one of them
 */
int window_fill(struct window *w, uint64_t page, uint64_t n, const uint8_t *bytes,
		bool writable);

/**
 * window_map() - the page is in the memfd: let it be seen
 * @clients:	bit mask of the windows to map it in and wake
 * @writable:	also lifts write protection where it is mapped
 *
 * Return: 0, -errno of the last failure (an application that died is none)
 */
int window_map(struct window *w, uint64_t page, uint64_t n, uint32_t clients,
	       bool writable);

/** window_poison() - the page must not be in the memfd: accesses of @clients get SIGBUS,
 * those that wait already as well. */
int window_poison(struct window *w, uint64_t page, uint64_t n, uint32_t clients);

/**
 * window_renew() - of @n pages from @page those that were poisoned need not be any more:
 * accesses in all windows are faults again, soon after this. Poison is a mark in the
 * application's page table, which outlives the punching of holes; only the application
 * can take it out without having the page. Not with WINDOW_NO_POISON: there SIGBUS is for
 * good.
 */
void window_renew(struct window *w, uint64_t page, uint64_t n);

/** window_rewake() - faults read but never answered (by an agent that died) come again */
void window_rewake(struct window *w, int client);

/**
 * window_open() - the application's side: map @memfd, make and register a userfaultfd
 * @addr:	wanted address, NULL: any
 * @base:	mapping; MADV_DONTFORK; @uffd: keep open as long as mapped
 * @lacks:	WINDOW_NO_* of this kernel, for the agent
 *
 * Return: 0; -EPERM: no userfaultfd allowed (vm.unprivileged_userfaultfd,
 * /dev/userfaultfd); -errno
 */
int window_open(int memfd, uint64_t size, void *addr, void **base, int *uffd,
		unsigned int *lacks);

#endif
