// SPDX-License-Identifier: BSD-2-Clause
/*
 * huge_taken: window, when others take the huge page that was just punched out, before it is
 * reserved again. It takes every free one for a moment: by itself, on a pool of its own.
 *
 * The moment is between two system calls of window_drop(); fallocate() here, which it calls, lies
 * in wait there.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/memfd.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../../user/share/agent/window_int.h"
#include "check.h"

#define PAGE  ((size_t)GM_HUGE_SIZE)
#define PAGES 4
#define MOST  4096

static void *taken[MOST];
static unsigned int ntaken;
static int lurking; /* times that it strikes, still */

static void take_all(void)
{
	while (ntaken < MOST) {
		void *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MFD_HUGE_2MB,
			       -1, 0);

		if (p == MAP_FAILED)
			return;
		taken[ntaken++] = p;
	}
	CHECK(!"more huge pages than this test can take");
}

static void give_back(void)
{
	while (ntaken)
		munmap(taken[--ntaken], PAGE);
}

int fallocate(int fd, int mode, off_t off, off_t len)
{
	int r = (int)syscall(SYS_fallocate, fd, mode, off, len);

	if (mode & FALLOC_FL_PUNCH_HOLE && lurking) {
		lurking--;
		take_all();
	}
	return r;
}

/* Both ways to put bytes there, none by the kernel's grace: SIGBUS would end us. */
static void usable(struct window *w, const uint8_t *bytes)
{
	for (uint64_t i = 0; i < PAGES; i++) {
		CHECK(!window_room(w, i, 1));
		CHECK(!window_fill(w, i, 1, bytes, true));
		CHECK(!memcmp(window_page(w, i), bytes, PAGE));
	}
}

static struct window *window(void)
{
	int fd = window_memfd_create("taken", PAGES * PAGE, GM_HUGE_SHIFT);
	struct window *w;

	CHECK(fd >= 0 && !window_create(fd, PAGES * PAGE, GM_HUGE_SHIFT, &w));
	CHECK(!window_back(w));
	return w;
}

static uint64_t renewed; /* bytes */

static void on_renew(void *arg, uint64_t addr, uint64_t len)
{
	CHECK(addr == GM_BUS_MIN);
	renewed += len;
}

int main(void)
{
	struct window_app app = { .base = GM_BUS_MIN, .renew = on_renew };
	static uint8_t bytes[GM_HUGE_SIZE], zeros[GM_HUGE_SIZE];
	struct window *w = window(), *other;

	memset(bytes, 7, sizeof(bytes));
	usable(w, bytes);

	/* Once: nobody notices. */
	lurking = 1;
	CHECK(!window_drop(w, 1, 1) && !lurking && ntaken && !w->short_of);
	usable(w, bytes);
	give_back();
	CHECK(!window_drop(w, 2, 1)); /* and there is another one to spare */
	usable(w, bytes);

	/* Of several, too, while there is only one to spare: the last one is missing. */
	lurking = 2;
	CHECK(!window_drop(w, 0, 2) && !lurking && w->short_of);
	CHECK(!window_room(w, 0, 1) && window_room(w, 1, 1) == -ENOBUFS);
	CHECK(!window_room(w, 2, 2));
	CHECK(window_fill(w, 1, 1, bytes, true) == -ENOBUFS);
	CHECK(!memcmp(window_bytes(w, 1), zeros, PAGE));
	CHECK(!memcmp(window_bytes(w, 2), bytes, PAGE));
	/* As long as they are away. */
	CHECK(!window_drop(w, 3, 1) && w->short_of && !window_room(w, 3, 1));
	give_back();
	CHECK(!window_room(w, 1, 1));
	/* Then whoever got none may ask again. */
	app.uffd = dup(w->memfd);
	CHECK(app.uffd >= 0 && !window_attach(w, 0, &app) && !renewed);
	CHECK(!window_drop(w, 3, 1) && !w->short_of && renewed == PAGES * PAGE);
	window_detach(w, 0);
	usable(w, bytes);
	lurking = 1;
	CHECK(!window_drop(w, 1, 1) && !w->short_of);
	usable(w, bytes);
	give_back();

	/* One is spared for all windows, and goes with the last of them. */
	other = window();
	CHECK(!window_drop(w, 0, 1));
	window_destroy(w);
	take_all();
	CHECK(!window_drop(other, 0, 1));
	lurking = 1;
	CHECK(!window_drop(other, 0, 1) && !other->short_of);
	usable(other, bytes);
	window_destroy(other);
	give_back();
	take_all();
	lurking = (int)ntaken;
	give_back();
	w = window();
	window_destroy(w);
	take_all();
	CHECK((int)ntaken == lurking);
	puts("done");
	return 0;
}
