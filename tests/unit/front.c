// SPDX-License-Identifier: BSD-2-Clause
/* front: see front.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/vhost_types.h>
#include <linux/virtio_config.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../user/lib/fds.h"
#include "front.h"

#define BIT(n) (1ULL << (n))

static void on_tick(void *arg, uint32_t events)
{
	loop_stop(arg);
}

void front_pump(struct front *f)
{
	assert_int_equal(loop_run(f->loop), 0);
}

static int event(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	assert_true(fd >= 0);
	return fd;
}

uint64_t front_count(int fd)
{
	uint64_t n;

	return read(fd, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

static struct vring_conf ring_conf(uint64_t features)
{
	return (struct vring_conf){
		.size = FRONT_RING_SIZE,
		.packed = features & BIT(VIRTIO_F_RING_PACKED),
		.event_idx = features & BIT(VIRTIO_RING_F_EVENT_IDX),
		.indirect = features & BIT(VIRTIO_RING_F_INDIRECT_DESC),
		.in_order = features & BIT(VIRTIO_F_IN_ORDER),
	};
}

void front_rings(struct front *f, uint64_t features)
{
	const struct vring_conf c = ring_conf(features);

	driver_fini(&f->rx);
	driver_fini(&f->tx);
	driver_init(&f->rx, &f->guest, &c);
	driver_init(&f->tx, &f->tx_guest, &c);
}

void front_init(struct front *f, struct loop *loop, uint64_t features)
{
	const struct vring_conf c = ring_conf(features);

	memset(f, 0, sizeof(*f));
	f->sock = -1;
	f->loop = loop;
	f->tick = eventfd(1, EFD_CLOEXEC);
	assert_true(f->tick >= 0);
	assert_int_equal(
		loop_watch(loop, f->tick, EPOLLIN, on_tick, loop, &f->tick_watch), 0);
	guest_init(&f->guest, false);
	guest_init(&f->tx_guest, false);
	driver_init(&f->rx, &f->guest, &c);
	driver_init(&f->tx, &f->tx_guest, &c);
	for (int i = 0; i < 2; i++) {
		f->kick[i] = event();
		f->call[i] = event();
	}
}

void front_fini(struct front *f)
{
	front_disconnect(f);
	loop_unwatch(f->loop, f->tick_watch);
	close(f->tick);
	driver_fini(&f->rx);
	driver_fini(&f->tx);
	guest_fini(&f->guest);
	guest_fini(&f->tx_guest);
	for (int i = 0; i < 2; i++) {
		close(f->kick[i]);
		close(f->call[i]);
	}
}

int front_connect(struct front *f, const char *path)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int err;

	strncpy(sun.sun_path, path, sizeof(sun.sun_path) - 1);
	f->sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(f->sock >= 0);
	if (connect(f->sock, (struct sockaddr *)&sun, sizeof(sun))) {
		err = -errno;
		front_disconnect(f);
		return err;
	}
	front_pump(f);
	return 0;
}

void front_disconnect(struct front *f)
{
	if (f->sock >= 0)
		close(f->sock);
	f->sock = -1;
}

void front_send(struct front *f, uint32_t request, const void *payload, uint32_t size,
		const int *fd, unsigned int nfds)
{
	uint32_t hdr[3] = { request, VU_VERSION, size };
	const struct iovec iov[2] = { { hdr, sizeof(hdr) }, { (void *)payload, size } };

	assert_int_equal(fds_send(f->sock, iov, 2, fd, nfds, MSG_NOSIGNAL),
			 sizeof(hdr) + size);
	front_pump(f);
}

int front_reply(struct front *f, void *buf, size_t size)
{
	ssize_t n = recv(f->sock, buf, size, MSG_DONTWAIT);

	if (n < 0)
		return errno == ECONNRESET ? 0 : -errno;
	return (int)n;
}

void front_state(struct front *f, uint32_t request, uint32_t index, uint32_t num)
{
	const struct vhost_vring_state s = { index, num };

	front_send(f, request, &s, sizeof(s), NULL, 0);
}

static struct vhost_vring_addr ring_addr(const struct front *f, unsigned int index)
{
	const struct vring_conf c = driver_conf(index ? &f->tx : &f->rx);
	const uint64_t shift = index ? FRONT_TX_SHIFT : 0;

	return (struct vhost_vring_addr){
		.index = index,
		.desc_user_addr = c.desc_uva + shift,
		.used_user_addr = c.used_uva + shift,
		.avail_user_addr = c.avail_uva + shift,
	};
}

static void start_ring(struct front *f, unsigned int index)
{
	const struct vring_conf c = driver_conf(index ? &f->tx : &f->rx);
	const struct vhost_vring_addr a = ring_addr(f, index);
	const uint64_t number = index;

	front_state(f, VU_SET_VRING_NUM, index, c.size);
	front_state(f, VU_SET_VRING_BASE, index, c.packed ? 0x80008000 : 0);
	front_send(f, VU_SET_VRING_ADDR, &a, sizeof(a), NULL, 0);
	front_send(f, VU_SET_VRING_CALL, &number, sizeof(number), &f->call[index], 1);
	front_send(f, VU_SET_VRING_KICK, &number, sizeof(number), &f->kick[index], 1);
}

void front_log_rings(struct front *f)
{
	for (unsigned int index = 0; index < 2; index++) {
		const struct driver *d = index ? &f->tx : &f->rx;
		struct vhost_vring_addr a = ring_addr(f, index);

		a.flags = 1U << VHOST_VRING_F_LOG;
		a.log_guest_addr = d->used + (index ? FRONT_TX_SHIFT : 0);
		front_send(f, VU_SET_VRING_ADDR, &a, sizeof(a), NULL, 0);
	}
}

struct table {
	uint32_t n, pad;
	struct vu_mem_region region[VU_MAX_FDS];
};

static void add_region(struct table *tab, int *fd, const struct guest_region *r,
		       uint64_t shift, uint64_t from, uint64_t to, uint64_t uva)
{
	fd[tab->n] = dup(r->fd);
	assert_true(fd[tab->n] >= 0);
	tab->region[tab->n++] =
		(struct vu_mem_region){ r->gpa + shift + from, to - from, uva, from };
}

/* Rings are named by the front end's addresses, which stay. */
static void add_rings(const struct front *f, struct table *tab, int *fd)
{
	const struct guest_region *rx = &f->guest.region[GUEST_REGIONS - 1];
	const struct guest_region *tx = &f->tx_guest.region[GUEST_REGIONS - 1];

	add_region(tab, fd, rx, 0, 0, rx->size, GUEST_UVA + rx->gpa);
	add_region(tab, fd, tx, FRONT_TX_SHIFT, 0, tx->size,
		   GUEST_UVA + tx->gpa + FRONT_TX_SHIFT);
}

void front_table(struct front *f, bool other)
{
	uint64_t uva = GUEST_UVA + (other ? 0x5000000000ULL : 0);
	struct table tab = { 0 };
	int fd[VU_MAX_FDS];

	/* First, so that the device is not likely to map them where they were. */
	if (other)
		add_rings(f, &tab, fd);
	for (unsigned int i = 0; i < GUEST_REGIONS - 1; i++) {
		const struct guest_region *r = &f->guest.region[i];
		uint64_t cut = 0;

		/* The first one in two, with a border where a buffer may lie. */
		if (other && !i) {
			cut = 0x10000;
			add_region(&tab, fd, r, 0, 0, cut, uva + r->gpa);
			uva += 0x1000000000ULL;
		}
		add_region(&tab, fd, r, 0, cut, r->size, uva + r->gpa + cut);
	}
	if (!other)
		add_rings(f, &tab, fd);
	front_send(f, VU_SET_MEM_TABLE, &tab, 8 + tab.n * sizeof(tab.region[0]), fd,
		   tab.n);
	for (unsigned int i = 0; i < tab.n; i++)
		close(fd[i]);
}

void front_up(struct front *f, uint64_t features)
{
	const uint64_t want = features | BIT(30), protocol = 0x1801f;
	uint8_t reply[VU_HDR_SIZE];

	front_count(f->call[0]);
	front_count(f->call[1]);
	front_send(f, VU_SET_OWNER, NULL, 0, NULL, 0);
	front_send(f, VU_SET_PROTOCOL_FEATURES, &protocol, 8, NULL, 0);
	front_send(f, VU_SET_FEATURES, &want, 8, NULL, 0);
	front_table(f, false);
	for (unsigned int i = 0; i < 2; i++) {
		start_ring(f, i);
		front_state(f, VU_SET_VRING_ENABLE, i, 1);
	}
	assert_int_equal(front_reply(f, reply, sizeof(reply)), -EAGAIN);
	/* Each is told once that there may be something. */
	assert_int_equal(front_count(f->call[0]), 1);
	assert_int_equal(front_count(f->call[1]), 1);
}
