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
#include <jansson.h>
#include <linux/vhost_types.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "../../user/daemon/ctl.h"
#include "../../user/daemon/port_vhost.h"
#include "../../user/lib/ghostnic.h"
#include "../../user/lib/log.h"
#include "driver.h"
#include "still.h"

#define PAGE	  4096U
#define RING_SIZE 64U
#define SLOT_LEN  0x1800U /* guest memory of a receive buffer */
#define SLOTS	  48U
#define BUF_LEN	  1900U
#define TX_AT	  (GUEST_DATA + SLOTS * SLOT_LEN) /* a frame to send */
#define TX_RING	  0x40000ULL			  /* of the transmit ring in its region */
#define FAR	  0x20000000000ULL		  /* gpa beyond any headroom */
#define FAR_LEN	  0x10000ULL
#define HEADROOM  (64ULL << (30 - 12)) /* pages, at least */
#define DEADLINE  30		       /* seconds, then the test dies */
#define BIT(n)	  (1ULL << (n))

#define CMD(c, rest) "{\"cmd\":\"dma-log-" c "\",\"instance\":\"vm1\"" rest "}"

/* A daemon, an instance with a vhost-user port, its front end and its guest. */
struct rig {
	struct still s;
	struct loop *loop;
	struct instance *in;
	char dir[32], path[64];
	unsigned int calls[STILL_QUEUES]; /* port_env.call() */
	int fe;				  /* front end's socket, -1 */
	int far_fd;
	uint8_t *far_mem;
	struct guest g;
	struct driver rx, tx;
	uint8_t *copy[GUEST_REGIONS + 1]; /* memory as it was */
};

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

/* ---- requests ------------------------------------------------------------------- */

static json_t *ask(struct rig *r, const char *line, struct ctl_fds *fds)
{
	char *text = ctl_handle(&r->s.d, line, strlen(line), fds);
	json_t *o;

	assert_non_null(text);
	o = json_loads(text, 0, NULL);
	assert_non_null(o);
	free(text);
	return o;
}

static json_t *ask_ok(struct rig *r, const char *line, struct ctl_fds *fds)
{
	json_t *o = ask(r, line, fds);

	if (!json_is_true(json_object_get(o, "ok")))
		fail_msg("%s: %s", line, json_string_value(json_object_get(o, "error")));
	return o;
}

static void refused(struct rig *r, const char *line, const char *why)
{
	struct ctl_fds fds;
	json_t *o = ask(r, line, &fds);
	const char *error = json_string_value(json_object_get(o, "error"));

	if (!json_is_false(json_object_get(o, "ok")) || !error || !strstr(error, why))
		fail_msg("%s: \"%s\" does not say \"%s\"", line, error, why);
	assert_int_equal(fds.n, 0);
	json_decref(o);
}

static uint64_t number(const json_t *o, const char *key)
{
	const json_t *v = json_object_get(o, key);

	if (!json_is_integer(v))
		fail_msg("no \"%s\"", key);
	return (uint64_t)json_integer_value(v);
}

/* ---- the front end -------------------------------------------------------------- */

static void on_reply(void *arg, uint32_t events)
{
	loop_stop(arg);
}

static void send_msg(struct rig *r, uint32_t request, const void *payload, uint32_t size,
		     const int *fd, unsigned int nfds)
{
	uint32_t hdr[3] = { request, VU_VERSION, size };
	struct iovec iov[2] = { { hdr, sizeof(hdr) }, { (void *)payload, size } };
	union {
		char buf[CMSG_SPACE(VU_MAX_FDS * sizeof(int))];
		struct cmsghdr align;
	} control = { { 0 } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };

	if (nfds) {
		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(&control.align), fd, nfds * sizeof(int));
	}
	assert_int_equal(sendmsg(r->fe, &msg, MSG_NOSIGNAL), sizeof(hdr) + size);
}

/* Let the port handle all that was sent: the answer to a question comes last. */
static void sync_port(struct rig *r)
{
	struct loop_watch *w;
	char buf[VU_HDR_SIZE + 8];

	send_msg(r, VU_GET_FEATURES, NULL, 0, NULL, 0);
	assert_int_equal(loop_watch(r->loop, r->fe, EPOLLIN, on_reply, r->loop, &w), 0);
	assert_int_equal(loop_run(r->loop), 0);
	loop_unwatch(r->loop, w);
	if (recv(r->fe, buf, sizeof(buf), 0) != sizeof(buf))
		fail_msg("the port closed its front end");
}

static void send_memory(struct rig *r, bool far_too)
{
	uint64_t payload[1 + 4 * (GUEST_REGIONS + 1)] = { 0 };
	unsigned int n = far_too ? GUEST_REGIONS + 1 : GUEST_REGIONS;
	int fd[GUEST_REGIONS + 1];

	payload[0] = n;
	for (unsigned int i = 0; i < n; i++) {
		bool is_far = i == GUEST_REGIONS;
		uint64_t gpa = is_far ? FAR : r->g.region[i].gpa;

		payload[1 + 4 * i] = gpa;
		payload[2 + 4 * i] = is_far ? FAR_LEN : r->g.region[i].size;
		payload[3 + 4 * i] = GUEST_UVA + gpa;
		fd[i] = is_far ? r->far_fd : r->g.region[i].fd;
	}
	send_msg(r, VU_SET_MEM_TABLE, payload, (1 + 4 * n) * 8, fd, n);
}

static void start_ring(struct rig *r, const struct driver *d, uint32_t index)
{
	const struct vring_conf c = driver_conf(d);
	const uint32_t num[2] = { index, c.size };
	const uint32_t base[2] = { index, c.packed ? 0x80008000 : 0 };
	const struct vhost_vring_addr addr = {
		.index = index,
		.desc_user_addr = c.desc_uva,
		.avail_user_addr = c.avail_uva,
		.used_user_addr = c.used_uva,
	};
	const uint64_t ring = index;
	int fd = eventfd(0, EFD_CLOEXEC);

	assert_return_code(fd, errno);
	send_msg(r, VU_SET_VRING_NUM, num, sizeof(num), NULL, 0);
	send_msg(r, VU_SET_VRING_BASE, base, sizeof(base), NULL, 0);
	send_msg(r, VU_SET_VRING_ADDR, &addr, sizeof(addr), NULL, 0);
	send_msg(r, VU_SET_VRING_CALL, &ring, sizeof(ring), &fd, 1);
	send_msg(r, VU_SET_VRING_KICK, &ring, sizeof(ring), &fd, 1);
	close(fd);
}

static int dial(const char *path)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_return_code(fd, errno);
	strcpy(sun.sun_path, path);
	assert_return_code(connect(fd, (struct sockaddr *)&sun, sizeof(sun)), errno);
	return fd;
}

static void connect_guest(struct rig *r, bool packed)
{
	const struct vring_conf conf = { .packed = packed, .size = RING_SIZE };
	uint64_t features = BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_NET_F_MRG_RXBUF) |
			    BIT(VIRTIO_NET_F_GUEST_CSUM);

	if (packed)
		features |= BIT(VIRTIO_F_RING_PACKED);
	driver_init(&r->rx, &r->g, &conf);
	driver_init(&r->tx, &r->g, &conf);
	r->tx.desc += TX_RING;
	r->tx.avail += TX_RING;
	r->tx.used += TX_RING;
	r->fe = dial(r->path);
	send_msg(r, VU_SET_OWNER, NULL, 0, NULL, 0);
	send_msg(r, VU_SET_FEATURES, &features, sizeof(features), NULL, 0);
	send_memory(r, false);
	start_ring(r, &r->rx, 0);
	start_ring(r, &r->tx, 1);
	sync_port(r);
}

/* ---- set up --------------------------------------------------------------------- */

struct call {
	void (*fn)(void *arg);
	void *arg;
};

static void do_call(struct worker *w, void *arg)
{
	const struct call *c = arg;

	c->fn(c->arg);
}

static void env_call(void *owner, unsigned int queue, void (*fn)(void *arg), void *arg)
{
	struct rig *r = owner;
	struct call c = { fn, arg };

	r->calls[queue]++;
	worker_call(r->s.workers[queue], do_call, &c);
}

static void env_changed(void *owner)
{
}

static void add_vhost(struct rig *r)
{
	struct instance *in = calloc(1, sizeof(*in));
	char spec[160], err[256] = "";

	assert_non_null(in);
	snprintf(spec, sizeof(spec), "vm1,mac=52:54:00:12:34:56,port=vhost-user:%s",
		 r->path);
	if (conf_parse_instance(spec, &in->conf, err, sizeof(err)))
		fail_msg("%s", err);
	in->iface = &r->s.iface;
	in->conf.port.mtu = 1500;
	in->env = (struct port_env){ r->loop, r, env_call, env_changed, NULL };
	assert_int_equal(
		port_vhost_ops.open(&in->conf.port, &in->env, STILL_QUEUES, &in->port),
		0);
	r->s.iface.instance[0] = in;
	r->in = in;
}

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));

	assert_non_null(r);
	r->fe = -1;
	still_init(&r->s, "veth0");
	assert_int_equal(loop_create(&r->loop), 0);
	strcpy(r->dir, "/tmp/test_ctl_dma.XXXXXX");
	assert_non_null(mkdtemp(r->dir));
	snprintf(r->path, sizeof(r->path), "%s/vu", r->dir);
	guest_init(&r->g, false);
	r->far_fd = memfd_create("far", MFD_CLOEXEC);
	assert_return_code(ftruncate(r->far_fd, FAR_LEN), errno);
	r->far_mem =
		mmap(NULL, FAR_LEN, PROT_READ | PROT_WRITE, MAP_SHARED, r->far_fd, 0);
	assert_ptr_not_equal(r->far_mem, MAP_FAILED);
	for (unsigned int i = 0; i < GUEST_REGIONS; i++) {
		r->copy[i] = malloc(r->g.region[i].size);
		assert_non_null(r->copy[i]);
	}
	add_vhost(r);
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	still_fini(&r->s);
	loop_destroy(r->loop);
	if (r->fe >= 0) {
		close(r->fe);
		driver_fini(&r->rx);
		driver_fini(&r->tx);
	}
	munmap(r->far_mem, FAR_LEN);
	close(r->far_fd);
	for (unsigned int i = 0; i < GUEST_REGIONS; i++)
		free(r->copy[i]);
	guest_fini(&r->g);
	assert_int_equal(rmdir(r->dir), 0);
	free(r);
	return 0;
}

/* ---- the guest ------------------------------------------------------------------ */

/* Buffers for the device, full of what no frame has, and memory as it is then. */
static void refill(struct rig *r, unsigned int round)
{
	static const uint8_t stale = 0xee;
	uint64_t cookie;
	uint32_t len;

	while (driver_get(&r->rx, &cookie, &len))
		;
	while (driver_get(&r->tx, &cookie, &len))
		;
	for (unsigned int i = 0; i < GUEST_REGIONS - 1; i++)
		memset(r->g.region[i].base, stale, r->g.region[i].size);
	for (unsigned int i = 0; i < SLOTS; i++) {
		const struct driver_buf b = {
			GUEST_DATA + ((i * 7 + round) % SLOTS) * SLOT_LEN +
				(round * 131) % 3000,
			BUF_LEN,
		};

		if (r->rx.outstanding >= SLOTS || driver_add(&r->rx, &b, 0, 1, 0, i))
			break;
	}
}

static void snapshot(struct rig *r)
{
	for (unsigned int i = 0; i < GUEST_REGIONS; i++)
		memcpy(r->copy[i], r->g.region[i].base, r->g.region[i].size);
}

/* ---- the device ------------------------------------------------------------------ */

/* A packet of the wire in two chunks, by the queue of worker @q. */
static void deliver(struct rig *r, unsigned int q, uint32_t len, uint8_t fill)
{
	struct mbuf_pool *p = &r->s.worker[q].pool;
	struct mbuf *a = mbuf_alloc(p), *b = mbuf_alloc(p);

	assert_true(a && b && len > 100);
	memset(a, 0, sizeof(*a));
	memset(b, 0, sizeof(*b));
	a->addr = (uint64_t)mbuf_index(p, a) << p->chunk_shift;
	b->addr = (uint64_t)mbuf_index(p, b) << p->chunk_shift;
	a->len = 100;
	b->len = len - 100;
	a->total = len;
	a->next = a->tail = mbuf_index(p, b);
	b->next = MBUF_NONE;
	a->nsegs = 1;
	a->nbufs = 2;
	memset(mbuf_data(p, a), fill, a->len);
	memset(mbuf_data(p, b), fill, b->len);
	r->in->port->ops->deliver(r->in->port->queue[q], p, &a, 1);
}

static void inject(struct rig *r, unsigned int q, uint32_t len, uint8_t fill)
{
	static uint8_t bytes[8192];
	struct iovec iov = { bytes, len };
	const struct gso_frame f = { .iov = &iov, .niov = 1, .len = len };

	assert_true(len <= sizeof(bytes));
	memset(bytes, fill, len);
	r->in->port->ops->inject(r->in->port->queue[q], &f);
}

/* The guest sends @n frames, of which the worker has the last one still in its hands. */
static void transmit(struct rig *r, unsigned int n)
{
	const struct driver_buf b = { TX_AT, 12 + 64 };
	struct gso_frame f;
	unsigned int got = 0;

	for (unsigned int i = 0; i < n; i++)
		assert_int_equal(driver_add(&r->tx, &b, 1, 0, 0, i), 0);
	snapshot(r);
	while (got < n && r->in->port->ops->fetch(r->in->port->queue[0], &f) == 1)
		got++;
	assert_int_equal(got, n);
}

/* ---- what was written, and what was marked ---------------------------------------- */

static bool bit(const uint8_t *map, uint64_t page)
{
	return map[page / 8] & 1U << page % 8;
}

static bool changed(const struct rig *r, uint64_t page)
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
	uint64_t to = d->conf.packed ? d->used + 4 : d->used + 6 + 8 * RING_SIZE;

	return page >= from / PAGE && page <= (to - 1) / PAGE;
}

/* Compare, count and clear. Return: data pages that were written */
static uint64_t check(struct rig *r, const json_t *o, struct ctl_fds *fds)
{
	const uint64_t ring = GUEST_RING / PAGE;
	uint64_t pages = number(o, "pages"), n = 0, data = 0;
	size_t len = (pages / 8 + PAGE - 1) & ~(PAGE - 1UL);
	struct stat st;
	uint8_t *map;

	assert_int_equal(fds->n, 1);
	assert_return_code(fstat(fds->fd[0], &st), errno);
	assert_int_equal(st.st_size, len);
	map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fds->fd[0], 0);
	assert_ptr_not_equal(map, MAP_FAILED);
	for (uint64_t p = 0; p < pages; p++) {
		if (!map[p / 8] && p % 8 == 0 && p / 8 > (GUEST_RING >> 15) + 64) {
			/* far above the guest: by bytes */
			p += 7;
			continue;
		}
		n += bit(map, p);
		if (p >= ring && p < ring + GUEST_RING_LEN / PAGE) {
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
	assert_int_equal(number(o, "dirty"), n);
	assert_int_equal(number(o, "beyond"), 0);
	memset(map, 0, len);
	munmap(map, len);
	ctl_fds_close(fds);
	return data;
}

static void follow(struct rig *r, bool packed)
{
	const uint64_t guest_pages = (GUEST_RING + GUEST_RING_LEN) / PAGE;
	unsigned int before, calls;
	struct ctl_fds fds;
	uint64_t data = 0;
	json_t *o;

	connect_guest(r, packed);
	before = open_fds();
	o = ask_ok(r, CMD("start", ""), &fds);
	assert_int_equal(fds.n, 2);
	assert_int_equal(number(o, "guest_pages"), guest_pages);
	assert_int_equal(number(o, "pages"), guest_pages + HEADROOM);
	assert_int_equal(number(o, "active"), 0);
	json_decref(o);
	ctl_fds_close(&fds);

	for (unsigned int round = 0; round < 100; round++) {
		refill(r, round);
		calls = r->calls[1];
		if (round % 10 == 9) {
			transmit(r, 1 + round % 7);
		} else {
			snapshot(r);
			for (unsigned int i = 0; i < round % 8; i++) {
				uint32_t len = 101 + (round * 977 + i * 311) % 1900;

				if (i % 2)
					deliver(r, i / 2 % 2, len, (uint8_t)(1 + i));
				else
					inject(r, i / 2 % 2, len * 3, (uint8_t)(1 + i));
			}
		}
		if (round == 99)
			break;
		o = ask_ok(r, CMD("swap", ""), &fds);
		assert_int_equal(r->calls[1], calls + 2);
		assert_int_equal(number(o, "harvest"), round % 2);
		data += check(r, o, &fds);
		json_decref(o);
	}
	assert_true(data > 100);
	/* The end is a swap too. */
	o = ask_ok(r, CMD("stop", ""), &fds);
	assert_int_equal(number(o, "harvest"), 1);
	assert_true(number(o, "dirty") > 0);
	check(r, o, &fds);
	json_decref(o);
	assert_int_equal(open_fds(), before);

	/* Off: nothing is kept. */
	refill(r, 100);
	deliver(r, 0, 1000, 9);
	o = ask_ok(r, CMD("show", ""), &fds);
	assert_true(json_is_false(json_object_get(o, "on")));
	assert_null(json_object_get(o, "dirty"));
	json_decref(o);
	refused(r, CMD("swap", ""), "is off");
	/* And on again: from nothing. */
	json_decref(ask_ok(r, CMD("start", ""), &fds));
	ctl_fds_close(&fds);
	o = ask_ok(r, CMD("show", ""), &fds);
	assert_true(json_is_true(json_object_get(o, "on")));
	assert_true(json_is_false(json_object_get(o, "front_end")));
	assert_int_equal(number(o, "dirty"), 0);
	json_decref(o);
	deliver(r, 0, 1000, 9);
	o = ask_ok(r, CMD("show", ""), &fds);
	assert_in_range(number(o, "dirty"), 1, 4);
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

/* Memory that comes later: within the headroom it is tracked, above it is counted. */
static void counts_beyond(void **state)
{
	struct rig *r = *state;
	const struct driver_buf b = { FAR + 100, BUF_LEN };
	struct ctl_fds fds;
	json_t *o;

	connect_guest(r, false);
	json_decref(ask_ok(r, CMD("start", ""), &fds));
	ctl_fds_close(&fds);
	send_memory(r, true);
	sync_port(r);
	/* The driver knows of no such memory: its descriptor is enough for the device. */
	assert_int_equal(driver_add(&r->rx, &b, 0, 1, 0, 1), 0);
	inject(r, 0, 1000, 7);
	assert_int_equal(r->far_mem[100 + 12], 7);
	o = ask_ok(r, CMD("swap", ""), &fds);
	assert_int_equal(number(o, "beyond"), 1);
	assert_int_equal(number(o, "guest_pages"), (FAR + FAR_LEN) / PAGE);
	assert_true(number(o, "guest_pages") > number(o, "pages"));
	json_decref(o);
	ctl_fds_close(&fds);
	/* Started anew, it is covered. */
	json_decref(ask_ok(r, CMD("stop", ""), &fds));
	ctl_fds_close(&fds);
	o = ask_ok(r, CMD("start", ""), &fds);
	assert_int_equal(number(o, "beyond"), 0);
	assert_int_equal(number(o, "pages"), (FAR + FAR_LEN) / PAGE * 2);
	json_decref(o);
	ctl_fds_close(&fds);
	assert_int_equal(driver_add(&r->rx, &b, 0, 1, 0, 2), 0);
	inject(r, 0, 1000, 8);
	o = ask_ok(r, CMD("swap", ""), &fds);
	assert_int_equal(number(o, "beyond"), 0);
	assert_int_equal(number(o, "dirty"), 2); /* its page, the used ring's */
	json_decref(o);
	ctl_fds_close(&fds);
}

/* The guest leaves while it is tracked, and another front end takes its place. */
static void survives_reconnect(void **state)
{
	struct rig *r = *state;
	struct ctl_fds fds;
	json_t *o;

	connect_guest(r, false);
	json_decref(ask_ok(r, CMD("start", ""), &fds));
	ctl_fds_close(&fds);
	refill(r, 0);
	snapshot(r);
	inject(r, 0, 3000, 3);
	close(r->fe);
	driver_fini(&r->rx);
	driver_fini(&r->tx);
	memset(guest_ptr(&r->g, GUEST_RING, GUEST_RING_LEN), 0, GUEST_RING_LEN);
	connect_guest(r, false);
	o = ask_ok(r, CMD("swap", ""), &fds);
	assert_true(check(r, o, &fds) >= 2);
	json_decref(o);
}

static void checks_requests(void **state)
{
	struct rig *r = *state;
	struct ctl_fds fds;
	struct instance *in =
		still_add(&r->s, "plain,mac=52:54:00:12:34:57,port=null", 1);
	json_t *o;
	char line[256];

	in->iface = &r->s.iface;
	refused(r, "{\"cmd\":\"dma-log-start\"}", "no \"instance\"");
	refused(r, "{\"cmd\":\"dma-log-show\"}", "no \"instance\"");
	refused(r, "{\"cmd\":\"dma-log-swap\",\"instance\":\"vm9\"}", "no instance vm9");
	refused(r, CMD("stop", ",\"iface\":\"eth9\""), "no interface eth9");
	refused(r, CMD("show", ",\"owner\":\"x\""), "does not take \"owner\"");
	refused(r, CMD("start", ",\"size\":\"x\""), "does not take \"size\"");
	refused(r, "{\"cmd\":\"dma-log-start\",\"instance\":\"plain\"}",
		"writes no guest's memory");
	refused(r, "{\"cmd\":\"dma-log-show\",\"instance\":\"plain\"}", "vhost-user");
	refused(r, CMD("start", ""), "no guest is connected");
	o = ask_ok(r, CMD("show", ""), &fds);
	assert_int_equal(number(o, "guest_pages"), 0);
	assert_int_equal(number(o, "pages"), 0);
	json_decref(o);

	connect_guest(r, false);
	refused(r, CMD("swap", ""), "is off; start it first");
	refused(r, CMD("stop", ""), "is off; start it first");
	snprintf(line, sizeof(line), CMD("start", ",\"owner\":\"%064d\""), 0);
	refused(r, line, "longer than 63");
	json_decref(
		ask_ok(r, CMD("start", ",\"iface\":\"veth0\",\"owner\":\"me\""), &fds));
	ctl_fds_close(&fds);
	refused(r, CMD("start", ""), "on already, for me");
	refused(r, CMD("swap", ""), "belongs to me");
	refused(r, CMD("swap", ",\"owner\":\"m\""), "belongs to me");
	refused(r, CMD("stop", ",\"owner\":\"you\""), "belongs to me");
	o = ask_ok(r, CMD("show", ""), &fds);
	assert_string_equal(json_string_value(json_object_get(o, "owner")), "me");
	assert_int_equal(number(o, "active"), 0);
	json_decref(o);
	json_decref(ask_ok(r, CMD("swap", ",\"owner\":\"me\""), &fds));
	ctl_fds_close(&fds);
	json_decref(ask_ok(r, CMD("stop", ",\"owner\":\"me\""), &fds));
	ctl_fds_close(&fds);
	/* An owner goes with its log. */
	json_decref(ask_ok(r, CMD("start", ""), &fds));
	ctl_fds_close(&fds);
	json_decref(ask_ok(r, CMD("stop", ",\"owner\":\"anyone\""), &fds));
	ctl_fds_close(&fds);
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
	struct rig *r = *state;
	struct client c = { .request = CMD("start", "") };
	uint8_t *map[2];
	struct stat st;
	struct ctl *ctl;
	char path[80];
	static const char swap[] = CMD("swap", "") "\n";
	unsigned int before;
	int fd;

	connect_guest(r, false);
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
	refill(r, 0);
	inject(r, 0, 1000, 1);
	assert_true(bit(map[0], (GUEST_DATA + 100) / PAGE));

	/* One that does not want the descriptor has none, nor has the daemon. */
	c.request = CMD("swap", "");
	c.plain = true;
	talk(ctl, &c);
	assert_int_equal(open_fds(), before + 2);
	inject(r, 0, 1000, 1);
	assert_true(bit(map[1], (GUEST_DATA + 7 * SLOT_LEN) / PAGE) ||
		    bit(map[1], (GUEST_DATA + SLOT_LEN) / PAGE));
	/* Nor has it for one that asks, does not read, and goes. */
	fd = dial(path);
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
		cmocka_unit_test_setup_teardown(checks_requests, setup, teardown),
		cmocka_unit_test_setup_teardown(follows_split, setup, teardown),
		cmocka_unit_test_setup_teardown(follows_packed, setup, teardown),
		cmocka_unit_test_setup_teardown(counts_beyond, setup, teardown),
		cmocka_unit_test_setup_teardown(survives_reconnect, setup, teardown),
		cmocka_unit_test_setup_teardown(passes_bitmaps, setup, teardown),
	};

	log_set_level(LOG_LVL_ERROR);
	alarm(4 * DEADLINE);
	return cmocka_run_group_tests_name("ctl_dma", tests, NULL, NULL);
}
