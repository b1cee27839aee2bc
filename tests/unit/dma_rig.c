// SPDX-License-Identifier: BSD-2-Clause
/* dma_rig: see dma_rig.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <linux/vhost_types.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../../user/daemon/vhost/port_vhost.h"
#include "../../user/lib/fds.h"
#include "dma_rig.h"

#define TX_AT	(GUEST_DATA + DMA_SLOTS * DMA_SLOT_LEN) /* a frame to send */
#define TX_RING 0x40000ULL /* of the transmit ring in its region */
#define BIT(n)	(1ULL << (n))

/* ---- requests ------------------------------------------------------------------- */

json_t *dma_ask(struct dma_rig *r, const char *line, struct ctl_fds *fds)
{
	char *text = ctl_handle(&r->s.d, line, strlen(line), fds);
	json_t *o;

	assert_non_null(text);
	o = json_loads(text, 0, NULL);
	assert_non_null(o);
	free(text);
	return o;
}

json_t *dma_ask_ok(struct dma_rig *r, const char *line, struct ctl_fds *fds)
{
	json_t *o = dma_ask(r, line, fds);

	if (!json_is_true(json_object_get(o, "ok")))
		fail_msg("%s: %s", line, json_string_value(json_object_get(o, "error")));
	return o;
}

void dma_refused(struct dma_rig *r, const char *line, const char *why)
{
	struct ctl_fds fds;
	json_t *o = dma_ask(r, line, &fds);
	const char *error = json_string_value(json_object_get(o, "error"));

	if (!json_is_false(json_object_get(o, "ok")) || !error || !strstr(error, why))
		fail_msg("%s: \"%s\" does not say \"%s\"", line, error, why);
	assert_int_equal(fds.n, 0);
	json_decref(o);
}

uint64_t dma_number(const json_t *o, const char *key)
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

void dma_send(struct dma_rig *r, uint32_t request, const void *payload, uint32_t size,
	      const int *fd, unsigned int nfds)
{
	uint32_t hdr[3] = { request, VU_VERSION, size };
	const struct iovec iov[2] = { { hdr, sizeof(hdr) }, { (void *)payload, size } };

	assert_int_equal(fds_send(r->fe, iov, 2, fd, nfds, MSG_NOSIGNAL),
			 sizeof(hdr) + size);
}

void dma_answer(struct dma_rig *r, void *buf, size_t size)
{
	struct loop_watch *w;

	assert_int_equal(loop_watch(r->loop, r->fe, EPOLLIN, on_reply, r->loop, &w), 0);
	assert_int_equal(loop_run(r->loop), 0);
	loop_unwatch(r->loop, w);
	if (recv(r->fe, buf, size, 0) != (ssize_t)size)
		fail_msg("the port closed its front end");
}

/* The answer to a question comes last. */
void dma_sync(struct dma_rig *r)
{
	char buf[VU_HDR_SIZE + 8];

	dma_send(r, VU_GET_FEATURES, NULL, 0, NULL, 0);
	dma_answer(r, buf, sizeof(buf));
}

void dma_hang_up(struct dma_rig *r)
{
	struct loop_watch *w;

	/* The port's end of the connection closes when it has seen it all. */
	assert_return_code(shutdown(r->fe, SHUT_WR), errno);
	assert_int_equal(loop_watch(r->loop, r->fe, EPOLLIN, on_reply, r->loop, &w), 0);
	assert_int_equal(loop_run(r->loop), 0);
	loop_unwatch(r->loop, w);
}

static void send_table(struct dma_rig *r, bool far_too)
{
	uint64_t payload[1 + 4 * (GUEST_REGIONS + 1)] = { 0 };
	int fd[GUEST_REGIONS + 1];
	unsigned int n = 0;

	for (unsigned int i = 0; i < GUEST_REGIONS + (unsigned int)far_too; i++) {
		bool is_far = i == GUEST_REGIONS;
		uint64_t gpa = is_far ? DMA_FAR : i ? r->g.region[i].gpa : r->first_gpa;

		if (gpa == DMA_NOWHERE)
			continue;
		payload[1 + 4 * n] = gpa;
		payload[2 + 4 * n] = is_far ? DMA_FAR_LEN : r->g.region[i].size;
		payload[3 + 4 * n] = GUEST_UVA + gpa;
		fd[n++] = is_far ? r->far_fd : r->g.region[i].fd;
	}
	payload[0] = n;
	dma_send(r, VU_SET_MEM_TABLE, payload, (1 + 4 * n) * 8, fd, n);
}

void dma_send_memory(struct dma_rig *r, bool far_too)
{
	r->first_gpa = r->g.region[0].gpa;
	send_table(r, far_too);
}

static void send_slot(struct dma_rig *r, uint32_t request)
{
	const struct guest_region *g = &r->g.region[0];
	const uint64_t payload[] = { 0, r->first_gpa, g->size, GUEST_UVA + r->first_gpa,
				     0 };

	dma_send(r, request, payload, sizeof(payload), &g->fd, request == VU_ADD_MEM_REG);
}

void dma_move_first(struct dma_rig *r, uint64_t gpa)
{
	if (r->slots && r->first_gpa != DMA_NOWHERE)
		send_slot(r, VU_REM_MEM_REG);
	r->first_gpa = gpa;
	if (!r->slots)
		send_table(r, false);
	else if (gpa != DMA_NOWHERE)
		send_slot(r, VU_ADD_MEM_REG);
	dma_sync(r);
}

static void start_ring(struct dma_rig *r, const struct driver *d, uint32_t index)
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
	const uint32_t enable[2] = { index, 1 };
	const uint64_t ring = index;
	int fd = eventfd(0, EFD_CLOEXEC);

	assert_return_code(fd, errno);
	dma_send(r, VU_SET_VRING_NUM, num, sizeof(num), NULL, 0);
	dma_send(r, VU_SET_VRING_BASE, base, sizeof(base), NULL, 0);
	dma_send(r, VU_SET_VRING_ADDR, &addr, sizeof(addr), NULL, 0);
	dma_send(r, VU_SET_VRING_CALL, &ring, sizeof(ring), &fd, 1);
	dma_send(r, VU_SET_VRING_KICK, &ring, sizeof(ring), &fd, 1);
	close(fd);
	if (r->slots)
		dma_send(r, VU_SET_VRING_ENABLE, enable, sizeof(enable), NULL, 0);
}

int dma_dial(const char *path)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_return_code(fd, errno);
	strcpy(sun.sun_path, path);
	assert_return_code(connect(fd, (struct sockaddr *)&sun, sizeof(sun)), errno);
	return fd;
}

void dma_connect(struct dma_rig *r, bool packed)
{
	const struct vring_conf conf = { .packed = packed, .size = DMA_RING_SIZE };
	uint64_t features = BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_NET_F_MRG_RXBUF) |
			    BIT(VIRTIO_NET_F_GUEST_CSUM);
	const uint64_t protocol = BIT(15); /* CONFIGURE_MEM_SLOTS */

	if (packed)
		features |= BIT(VIRTIO_F_RING_PACKED);
	if (r->slots)
		features |= BIT(30); /* VHOST_USER_F_PROTOCOL_FEATURES */
	driver_init(&r->rx, &r->g, &conf);
	driver_init(&r->tx, &r->g, &conf);
	r->tx.desc += TX_RING;
	r->tx.avail += TX_RING;
	r->tx.used += TX_RING;
	r->fe = dma_dial(r->path);
	dma_send(r, VU_SET_OWNER, NULL, 0, NULL, 0);
	dma_send(r, VU_SET_FEATURES, &features, sizeof(features), NULL, 0);
	if (r->slots)
		dma_send(r, VU_SET_PROTOCOL_FEATURES, &protocol, sizeof(protocol), NULL,
			 0);
	dma_send_memory(r, false);
	start_ring(r, &r->rx, 0);
	start_ring(r, &r->tx, 1);
	dma_sync(r);
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
	struct dma_rig *r = owner;
	struct call c = { fn, arg };

	r->calls[queue]++;
	worker_call(r->s.workers[queue], do_call, &c);
}

static void env_changed(void *owner)
{
	struct dma_rig *r = owner;
	uint64_t pages;

	r->changes++;
	r->said_logged = r->in->port->logged;
	r->was_on = dma_log_on(r->in->port->ops->dma_log(r->in->port, &pages));
}

static void add_vhost(struct dma_rig *r)
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

int dma_setup(void **state)
{
	struct dma_rig *r = calloc(1, sizeof(*r));

	assert_non_null(r);
	r->fe = -1;
	still_init(&r->s, "veth0");
	assert_int_equal(loop_create(&r->loop), 0);
	strcpy(r->dir, "/tmp/test_ctl_dma.XXXXXX");
	assert_non_null(mkdtemp(r->dir));
	snprintf(r->path, sizeof(r->path), "%s/vu", r->dir);
	guest_init(&r->g, false);
	r->far_fd = memfd_create("far", MFD_CLOEXEC);
	assert_return_code(ftruncate(r->far_fd, DMA_FAR_LEN), errno);
	r->far_mem =
		mmap(NULL, DMA_FAR_LEN, PROT_READ | PROT_WRITE, MAP_SHARED, r->far_fd, 0);
	assert_ptr_not_equal(r->far_mem, MAP_FAILED);
	for (unsigned int i = 0; i < GUEST_REGIONS; i++) {
		r->copy[i] = malloc(r->g.region[i].size);
		assert_non_null(r->copy[i]);
	}
	add_vhost(r);
	*state = r;
	return 0;
}

int dma_teardown(void **state)
{
	struct dma_rig *r = *state;

	still_fini(&r->s);
	loop_destroy(r->loop);
	if (r->fe >= 0) {
		close(r->fe);
		driver_fini(&r->rx);
		driver_fini(&r->tx);
	}
	munmap(r->far_mem, DMA_FAR_LEN);
	close(r->far_fd);
	for (unsigned int i = 0; i < GUEST_REGIONS; i++)
		free(r->copy[i]);
	guest_fini(&r->g);
	assert_int_equal(rmdir(r->dir), 0);
	free(r);
	return 0;
}

/* ---- the guest ------------------------------------------------------------------ */

void dma_refill(struct dma_rig *r, unsigned int round)
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
	for (unsigned int i = 0; i < DMA_SLOTS; i++) {
		const struct driver_buf b = {
			GUEST_DATA + ((i * 7 + round) % DMA_SLOTS) * DMA_SLOT_LEN +
				(round * 131) % 3000,
			DMA_BUF_LEN,
		};

		if (r->rx.outstanding >= DMA_SLOTS || driver_add(&r->rx, &b, 0, 1, 0, i))
			break;
	}
}

void dma_snapshot(struct dma_rig *r)
{
	for (unsigned int i = 0; i < GUEST_REGIONS; i++)
		memcpy(r->copy[i], r->g.region[i].base, r->g.region[i].size);
}

/* ---- the device ------------------------------------------------------------------ */

void dma_deliver(struct dma_rig *r, unsigned int q, uint32_t len, uint8_t fill)
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
	a->meta.flags = r->frame_flags;
	memset(mbuf_data(p, a), fill, a->len);
	memset(mbuf_data(p, b), fill, b->len);
	r->in->port->ops->deliver(r->in->port->queue[q], p, &a, 1);
}

void dma_inject(struct dma_rig *r, unsigned int q, uint32_t len, uint8_t fill)
{
	static uint8_t bytes[8192];
	struct iovec iov = { bytes, len };
	const struct gso_frame f = { .iov = &iov, .niov = 1, .len = len };

	assert_true(len <= sizeof(bytes));
	memset(bytes, fill, len);
	r->in->port->ops->inject(r->in->port->queue[q], &f);
}

void dma_transmit(struct dma_rig *r, unsigned int n)
{
	const struct driver_buf b = { TX_AT, 12 + 64 };
	struct gso_frame f;
	unsigned int got = 0;

	for (unsigned int i = 0; i < n; i++)
		assert_int_equal(driver_add(&r->tx, &b, 1, 0, 0, i), 0);
	dma_snapshot(r);
	while (got < n && r->in->port->ops->fetch(r->in->port->queue[0], &f) == 1)
		got++;
	assert_int_equal(got, n);
}
