// SPDX-License-Identifier: BSD-2-Clause
/*
 * "dma-log-*": the commands, and what they promise, with a vhost-user port whose front
 * end is this test: each page that the device wrote between two swaps, found by comparing
 * the guest's memory before and after, is marked in the bitmap that the swap names, and
 * of the pages that hold no ring no other is.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../user/lib/ghostnic.h"
#include "../../user/lib/log.h"
#include "dma_rig.h"

#define PAGE	 4096U
#define HEADROOM (64ULL << (30 - 12)) /* pages, at least */
#define DEADLINE 30		      /* seconds, then the test dies */

#define CMD(c, rest) "{\"cmd\":\"dma-log-" c "\",\"instance\":\"vm1\"" rest "}"

static unsigned int open_fds(void)
{
	unsigned int n = 0;
	DIR *d = opendir("/proc/self/fd");

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* ---- what was written, and what was marked ---------------------------------------- */

static bool bit(const uint8_t *map, uint64_t page)
{
	return map[page / 8] & 1U << page % 8;
}

static bool changed(const struct dma_rig *r, uint64_t page)
{
	for (unsigned int i = 0; i < GUEST_REGIONS; i++) {
		const struct guest_region *g = &r->g.region[i];
		uint64_t from = page * PAGE, to = from + PAGE;

		if (from < g->gpa)
			from = g->gpa;
		if (to > g->gpa + g->size)
			to = g->gpa + g->size;
		if (from < to && memcmp(g->base + (from - g->gpa),
					r->copy[i] + (from - g->gpa), to - from))
			return true;
	}
	return false;
}

/* The bytes of a ring that the device writes. */
static bool device_ring(const struct driver *d, uint64_t page)
{
	uint64_t from = d->conf.packed ? d->desc : d->used;
	uint64_t to = d->conf.packed ? d->used + 4 : d->used + 6 + 8 * DMA_RING_SIZE;

	return page >= from / PAGE && page <= (to - 1) / PAGE;
}

/* Compare, count and clear. Return: data pages that were written */
static uint64_t check(struct dma_rig *r, const json_t *o, struct ctl_fds *fds)
{
	const uint64_t hole = (GUEST_DATA + GUEST_DATA_LEN) / PAGE + 1;
	const uint64_t ring = GUEST_RING / PAGE, end = ring + GUEST_RING_LEN / PAGE;
	uint64_t pages = dma_number(o, "pages"), n = 0, data = 0;
	size_t len = (end / 8 + PAGE - 1) & ~(PAGE - 1UL);
	struct stat st;
	const uint64_t *words;
	uint8_t *map;

	assert_int_equal(fds->n, 1);
	assert_return_code(fstat(fds->fd[0], &st), errno);
	assert_int_equal(st.st_size, (pages / 8 + PAGE - 1) & ~(PAGE - 1UL));
	/* Above the guest nothing was ever marked: no memory. */
	assert_int_equal(lseek(fds->fd[0], (off_t)len, SEEK_DATA), -1);
	assert_int_equal(errno, ENXIO);
	map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fds->fd[0], 0);
	assert_ptr_not_equal(map, MAP_FAILED);
	words = (const uint64_t *)map;
	for (uint64_t p = 0; p < end; p++) {
		/* 4 GiB of nothing lie between the data and the rings. */
		if (p % 64 == 0 && p >= hole && p < ring && !words[p / 64]) {
			p += 63;
			continue;
		}
		n += bit(map, p);
		if (p >= ring) {
			if (changed(r, p) && !bit(map, p))
				fail_msg("page %#llx was written, not marked",
					 (unsigned long long)p);
			if (bit(map, p))
				assert_true(device_ring(&r->rx, p) ||
					    device_ring(&r->tx, p));
		} else {
			if (bit(map, p) != changed(r, p))
				fail_msg("page %#llx: marked %d, written %d",
					 (unsigned long long)p, bit(map, p),
					 changed(r, p));
			data += bit(map, p);
		}
	}
	assert_int_equal(dma_number(o, "dirty"), n);
	assert_int_equal(dma_number(o, "beyond"), 0);
	memset(map, 0, len);
	munmap(map, len);
	ctl_fds_close(fds);
	return data;
}

static void follow(struct dma_rig *r, bool packed)
{
	const uint64_t guest_pages = (GUEST_RING + GUEST_RING_LEN) / PAGE;
	unsigned int before, calls;
	struct ctl_fds fds;
	uint64_t data = 0;
	json_t *o;

	dma_connect(r, packed);
	before = open_fds();
	o = dma_ask_ok(r, CMD("start", ""), &fds);
	assert_int_equal(fds.n, 2);
	assert_int_equal(dma_number(o, "guest_pages"), guest_pages);
	assert_int_equal(dma_number(o, "pages"), guest_pages + HEADROOM);
	assert_int_equal(dma_number(o, "active"), 0);
	json_decref(o);
	ctl_fds_close(&fds);

	for (unsigned int round = 0; round < 100; round++) {
		dma_refill(r, round);
		calls = r->calls[1];
		if (round % 10 == 9) {
			dma_transmit(r, 1 + round % 7);
		} else {
			dma_snapshot(r);
			for (unsigned int i = 0; i < round % 8; i++) {
				uint32_t len = 101 + (round * 977 + i * 311) % 1900;

				if (i % 2)
					dma_deliver(r, i / 2 % 2, len, (uint8_t)(1 + i));
				else
					dma_inject(r, i / 2 % 2, len * 3,
						   (uint8_t)(1 + i));
			}
		}
		if (round == 99)
			break;
		o = dma_ask_ok(r, CMD("swap", ""), &fds);
		assert_int_equal(r->calls[1], calls + 2);
		assert_int_equal(dma_number(o, "harvest"), round % 2);
		data += check(r, o, &fds);
		json_decref(o);
	}
	assert_true(data > 100);
	/* The end is a swap too. */
	o = dma_ask_ok(r, CMD("stop", ""), &fds);
	assert_int_equal(dma_number(o, "harvest"), 1);
	assert_true(dma_number(o, "dirty") > 0);
	check(r, o, &fds);
	json_decref(o);
	assert_int_equal(open_fds(), before);

	/* Off: nothing is kept. */
	dma_refill(r, 100);
	dma_deliver(r, 0, 1000, 9);
	o = dma_ask_ok(r, CMD("show", ""), &fds);
	assert_true(json_is_false(json_object_get(o, "on")));
	assert_null(json_object_get(o, "dirty"));
	json_decref(o);
	dma_refused(r, CMD("swap", ""), "is off");
	/* And on again: from nothing. */
	json_decref(dma_ask_ok(r, CMD("start", ""), &fds));
	ctl_fds_close(&fds);
	o = dma_ask_ok(r, CMD("show", ""), &fds);
	assert_true(json_is_true(json_object_get(o, "on")));
	assert_true(json_is_false(json_object_get(o, "front_end")));
	assert_int_equal(dma_number(o, "dirty"), 0);
	json_decref(o);
	dma_deliver(r, 0, 1000, 9);
	o = dma_ask_ok(r, CMD("show", ""), &fds);
	assert_in_range(dma_number(o, "dirty"), 1, 4);
	assert_int_equal(fds.n, 0);
	json_decref(o);
}

static void follows_split(void **state)
{
	follow(*state, false);
}

static void follows_packed(void **state)
{
	follow(*state, true);
}

/* Pages that nobody took after a swap, for want of its answer, are in the last harvest. */
static void stop_has_what_a_swap_lost(void **state)
{
	struct dma_rig *r = *state;
	struct ctl_fds fds;
	uint64_t lost;
	json_t *o;

	dma_connect(r, false);
	json_decref(dma_ask_ok(r, CMD("start", ""), &fds));
	ctl_fds_close(&fds);
	dma_refill(r, 0);
	dma_snapshot(r);
	dma_inject(r, 0, 3000, 3);
	o = dma_ask_ok(r, CMD("swap", ""), &fds);
	lost = dma_number(o, "dirty");
	json_decref(o);
	ctl_fds_close(&fds);
	dma_deliver(r, 1, 1500, 5);
	o = dma_ask_ok(r, CMD("stop", ""), &fds);
	assert_int_equal(dma_number(o, "harvest"), 1);
	assert_true(dma_number(o, "dirty") > lost);
	assert_true(check(r, o, &fds) > 2);
	json_decref(o);
}

/* Memory that comes later: within the headroom it is tracked, above it is counted. */
static void counts_beyond(void **state)
{
	struct dma_rig *r = *state;
	const struct driver_buf b = { DMA_FAR + 100, DMA_BUF_LEN };
	struct ctl_fds fds;
	json_t *o;

	dma_connect(r, false);
	json_decref(dma_ask_ok(r, CMD("start", ""), &fds));
	ctl_fds_close(&fds);
	dma_send_memory(r, true);
	dma_sync(r);
	/* The driver knows of no such memory: its descriptor is enough for the device. */
	assert_int_equal(driver_add(&r->rx, &b, 0, 1, 0, 1), 0);
	dma_inject(r, 0, 1000, 7);
	assert_int_equal(r->far_mem[100 + 12], 7);
	o = dma_ask_ok(r, CMD("swap", ""), &fds);
	assert_int_equal(dma_number(o, "beyond"), 1);
	assert_int_equal(dma_number(o, "guest_pages"), (DMA_FAR + DMA_FAR_LEN) / PAGE);
	assert_true(dma_number(o, "guest_pages") > dma_number(o, "pages"));
	json_decref(o);
	ctl_fds_close(&fds);
	/* Started anew, it is covered. */
	json_decref(dma_ask_ok(r, CMD("stop", ""), &fds));
	ctl_fds_close(&fds);
	o = dma_ask_ok(r, CMD("start", ""), &fds);
	assert_int_equal(dma_number(o, "beyond"), 0);
	assert_int_equal(dma_number(o, "pages"), (DMA_FAR + DMA_FAR_LEN) / PAGE * 2);
	json_decref(o);
	ctl_fds_close(&fds);
	assert_int_equal(driver_add(&r->rx, &b, 0, 1, 0, 2), 0);
	dma_inject(r, 0, 1000, 8);
	o = dma_ask_ok(r, CMD("swap", ""), &fds);
	assert_int_equal(dma_number(o, "beyond"), 0);
	assert_int_equal(dma_number(o, "dirty"), 2); /* its page, the used ring's */
	json_decref(o);
	ctl_fds_close(&fds);
}

/* The guest leaves while it is tracked, and another front end takes its place. */
static void survives_reconnect(void **state)
{
	struct dma_rig *r = *state;
	struct ctl_fds fds;
	json_t *o;

	dma_connect(r, false);
	json_decref(dma_ask_ok(r, CMD("start", ""), &fds));
	ctl_fds_close(&fds);
	dma_refill(r, 0);
	dma_snapshot(r);
	dma_inject(r, 0, 3000, 3);
	close(r->fe);
	driver_fini(&r->rx);
	driver_fini(&r->tx);
	memset(guest_ptr(&r->g, GUEST_RING, GUEST_RING_LEN), 0, GUEST_RING_LEN);
	dma_connect(r, false);
	o = dma_ask_ok(r, CMD("swap", ""), &fds);
	assert_true(check(r, o, &fds) >= 2);
	json_decref(o);
}

static void checks_requests(void **state)
{
	struct dma_rig *r = *state;
	struct ctl_fds fds;
	struct instance *in =
		still_add(&r->s, "plain,mac=52:54:00:12:34:57,port=null", 1);
	json_t *o;
	char line[256];

	in->iface = &r->s.iface;
	dma_refused(r, "{\"cmd\":\"dma-log-start\"}", "no \"instance\"");
	dma_refused(r, "{\"cmd\":\"dma-log-show\"}", "no \"instance\"");
	dma_refused(r, "{\"cmd\":\"dma-log-swap\",\"instance\":\"vm9\"}",
		    "no instance vm9");
	dma_refused(r, CMD("stop", ",\"iface\":\"eth9\""), "no interface eth9");
	dma_refused(r, CMD("show", ",\"owner\":\"x\""), "does not take \"owner\"");
	dma_refused(r, CMD("start", ",\"size\":\"x\""), "does not take \"size\"");
	dma_refused(r, "{\"cmd\":\"dma-log-start\",\"instance\":\"plain\"}",
		    "writes no guest's memory");
	dma_refused(r, "{\"cmd\":\"dma-log-show\",\"instance\":\"plain\"}", "vhost-user");
	dma_refused(r, CMD("start", ""), "no guest is connected");
	o = dma_ask_ok(r, CMD("show", ""), &fds);
	assert_int_equal(dma_number(o, "guest_pages"), 0);
	assert_int_equal(dma_number(o, "pages"), 0);
	json_decref(o);

	dma_connect(r, false);
	dma_refused(r, CMD("swap", ""), "is off; start it first");
	dma_refused(r, CMD("stop", ""), "is off; start it first");
	snprintf(line, sizeof(line), CMD("start", ",\"owner\":\"%064d\""), 0);
	dma_refused(r, line, "longer than 63");
	json_decref(dma_ask_ok(r, CMD("start", ",\"iface\":\"veth0\",\"owner\":\"me\""),
			       &fds));
	ctl_fds_close(&fds);
	dma_refused(r, CMD("start", ""), "on already, for me");
	dma_refused(r, CMD("swap", ""), "belongs to me");
	dma_refused(r, CMD("swap", ",\"owner\":\"m\""), "belongs to me");
	dma_refused(r, CMD("stop", ",\"owner\":\"you\""), "belongs to me");
	o = dma_ask_ok(r, CMD("show", ""), &fds);
	assert_string_equal(json_string_value(json_object_get(o, "owner")), "me");
	assert_int_equal(dma_number(o, "active"), 0);
	json_decref(o);
	json_decref(dma_ask_ok(r, CMD("swap", ",\"owner\":\"me\""), &fds));
	ctl_fds_close(&fds);
	json_decref(dma_ask_ok(r, CMD("stop", ",\"owner\":\"me\""), &fds));
	ctl_fds_close(&fds);
	/* An owner goes with its log. */
	json_decref(dma_ask_ok(r, CMD("start", ""), &fds));
	ctl_fds_close(&fds);
	json_decref(dma_ask_ok(r, CMD("stop", ",\"owner\":\"anyone\""), &fds));
	ctl_fds_close(&fds);
}

/* ---- no memory --------------------------------------------------------------------- */

static unsigned int json_left; /* allocations of jansson's that succeed */

static void *scarce(size_t len)
{
	if (!json_left)
		return NULL;
	json_left--;
	return malloc(len);
}

/* Whichever allocation fails, a request that is refused is refused, or has no answer. */
static void refuses_without_memory(void **state)
{
	static const char *const refused[] = {
		"{\"cmd\":\"dma-log-start\"}",
		"{\"cmd\":\"dma-log-show\",\"instance\":\"vm9\"}",
		CMD("start", ",\"iface\":\"eth9\""),
		CMD("swap", ""),
		CMD("stop", ",\"owner\":\"you\""),
	};
	struct dma_rig *r = *state;
	struct ctl_fds fds;

	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		const char *line = refused[i];
		char *text = NULL;

		for (unsigned int n = 0; !text; n++) {
			json_left = n;
			json_set_alloc_funcs(scarce, free);
			text = ctl_handle(&r->s.d, line, strlen(line), &fds);
			json_set_alloc_funcs(malloc, free);
			assert_int_equal(fds.n, 0);
			/* so few that it could not be read: an answer of another kind */
			if (text && json_left == 0 && strstr(text, "not JSON")) {
				free(text);
				text = NULL;
			}
		}
		if (!strstr(text, "\"ok\":false"))
			fail_msg("%s: %s", line, text);
		free(text);
	}
}

/* ---- the control socket ------------------------------------------------------------ */

struct client {
	const char *path, *request;
	char *answer;
	int fd[GHOSTNIC_MAX_FDS], err;
	unsigned int nfds;
	bool plain; /* does not want descriptors */
	int done;   /* eventfd */
	pthread_t thread;
};

static void *run_client(void *arg)
{
	struct client *c = arg;
	const uint64_t one = 1;

	if (c->plain)
		c->err = ghostnic_request(c->path, c->request, DEADLINE * 1000,
					  &c->answer);
	else
		c->err = ghostnic_request_fds(c->path, c->request, DEADLINE * 1000,
					      &c->answer, c->fd, GHOSTNIC_MAX_FDS,
					      &c->nfds);
	if (write(c->done, &one, sizeof(one)) != sizeof(one))
		c->err = -EIO;
	return NULL;
}

static void pump(struct ctl *ctl)
{
	struct pollfd p = { .fd = ctl_fd(ctl), .events = POLLIN };

	while (poll(&p, 1, 0) > 0)
		ctl_serve(ctl);
}

/* The client on a thread of its own, the daemon on this one. */
static void talk(struct ctl *ctl, struct client *c)
{
	struct pollfd p[2] = { { .fd = ctl_fd(ctl), .events = POLLIN },
			       { .events = POLLIN } };

	p[1].fd = c->done = eventfd(0, EFD_CLOEXEC);
	assert_int_equal(pthread_create(&c->thread, NULL, run_client, c), 0);
	do {
		assert_return_code(poll(p, 2, DEADLINE * 1000), errno);
		ctl_serve(ctl);
	} while (!p[1].revents);
	pthread_join(c->thread, NULL);
	close(c->done);
	assert_int_equal(c->err, 0);
	assert_non_null(strstr(c->answer, "\"ok\":true"));
	free(c->answer);
	pump(ctl);
}

static void passes_bitmaps(void **state)
{
	struct dma_rig *r = *state;
	struct client c = { .request = CMD("start", "") };
	uint8_t *map[2];
	struct stat st;
	struct ctl *ctl;
	char path[80];
	static const char swap[] = CMD("swap", "") "\n";
	unsigned int before;
	int fd;

	dma_connect(r, false);
	snprintf(path, sizeof(path), "%s/ctl", r->dir);
	c.path = path;
	assert_int_equal(ctl_open(&ctl, path, &r->s.d), 0);
	before = open_fds();
	talk(ctl, &c);
	assert_int_equal(c.nfds, 2);
	for (unsigned int i = 0; i < 2; i++) {
		assert_true(fcntl(c.fd[i], F_GETFD) & FD_CLOEXEC);
		assert_return_code(fstat(c.fd[i], &st), errno);
		/* What we hold cannot be cut short under the daemon. */
		assert_int_equal(ftruncate(c.fd[i], 0), -1);
		map[i] = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE,
			      MAP_SHARED, c.fd[i], 0);
		assert_ptr_not_equal(map[i], MAP_FAILED);
		close(c.fd[i]);
	}
	/* Two bitmaps of the daemon's, no copy left anywhere. */
	assert_int_equal(open_fds(), before + 2);
	dma_refill(r, 0);
	dma_inject(r, 0, 1000, 1);
	assert_true(bit(map[0], (GUEST_DATA + 100) / PAGE));

	/* One that does not want the descriptor has none, nor has the daemon. */
	c.request = CMD("swap", "");
	c.plain = true;
	talk(ctl, &c);
	assert_int_equal(open_fds(), before + 2);
	dma_inject(r, 0, 1000, 1);
	assert_true(bit(map[1], (GUEST_DATA + 7 * DMA_SLOT_LEN) / PAGE) ||
		    bit(map[1], (GUEST_DATA + DMA_SLOT_LEN) / PAGE));
	/* Nor has it for one that asks, does not read, and goes. */
	fd = dma_dial(path);
	while (send(fd, swap, strlen(swap), MSG_DONTWAIT | MSG_NOSIGNAL) ==
	       (ssize_t)strlen(swap))
		pump(ctl);
	assert_int_equal(errno, EAGAIN);
	/* our socket, the daemon's, and the one descriptor that waits to be sent */
	assert_int_equal(open_fds(), before + 2 + 3);
	close(fd);
	pump(ctl);
	assert_int_equal(open_fds(), before + 2);
	c.request = CMD("stop", "");
	c.plain = false;
	talk(ctl, &c);
	assert_int_equal(c.nfds, 1);
	close(c.fd[0]);
	assert_int_equal(open_fds(), before);
	for (unsigned int i = 0; i < 2; i++)
		munmap(map[i], (size_t)st.st_size);
	ctl_close(ctl);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(checks_requests, dma_setup, dma_teardown),
		cmocka_unit_test_setup_teardown(refuses_without_memory, dma_setup,
						dma_teardown),
		cmocka_unit_test_setup_teardown(follows_split, dma_setup, dma_teardown),
		cmocka_unit_test_setup_teardown(follows_packed, dma_setup, dma_teardown),
		cmocka_unit_test_setup_teardown(stop_has_what_a_swap_lost, dma_setup,
						dma_teardown),
		cmocka_unit_test_setup_teardown(counts_beyond, dma_setup, dma_teardown),
		cmocka_unit_test_setup_teardown(survives_reconnect, dma_setup,
						dma_teardown),
		cmocka_unit_test_setup_teardown(passes_bitmaps, dma_setup, dma_teardown),
	};

	log_set_level(LOG_LVL_ERROR);
	alarm(4 * DEADLINE);
	return cmocka_run_group_tests_name("ctl_dma", tests, NULL, NULL);
}
