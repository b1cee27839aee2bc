// SPDX-License-Identifier: BSD-2-Clause
/*
 * kind_daemon: a running ghostnicd writes, and its DMA log tells where.
 *
 * Two guests without a CPU are connected to it: one sends frames to the other, whose
 * receive buffers lie all over the RAM under test, as does its used ring. What this
 * process writes (descriptors, the available ring) lies outside. Halting is what a
 * migration does: the ring is stopped by GET_VRING_BASE.
 *
 * Source: QEMU, docs/interop/vhost-user.rst; virtio 1.3, 2.7 Split Virtqueues.
 */
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../user/lib/fds.h"
#include "kinds.h"

#define RING	 256U
#define BUF	 2048U
#define OWN_GPA	 0x80000000ULL /* of a guest's own memory, not under test */
#define OWN_SIZE (1UL << 20)
#define TX_AT	 0x20000UL /* in it: frames to send */
#define HDR	 sizeof(struct virtio_net_hdr_v1)
#define FEATURES (1ULL << VIRTIO_F_VERSION_1 | 1ULL << VIRTIO_NET_F_MRG_RXBUF)
#define WINDOW	 32U

/* vhost-user requests; a reply has the number of its request */
enum {
	GET_FEATURES = 1,
	SET_FEATURES = 2,
	SET_OWNER = 3,
	SET_MEM_TABLE = 5,
	SET_VRING_NUM = 8,
	SET_VRING_ADDR = 9,
	SET_VRING_BASE = 10,
	GET_VRING_BASE = 11,
	SET_VRING_KICK = 12,
	SET_VRING_CALL = 13,
};

struct msg {
	uint32_t request, flags, size;
	union {
		uint64_t u64;
		struct {
			uint32_t index, num;
		} state;
		struct {
			uint32_t index, flags;
			uint64_t desc, used, avail, log;
		} addr;
		struct {
			uint32_t n, padding;
			struct {
				uint64_t gpa, size, uva, offset;
			} region[8];
		} mem;
	};
} __attribute__((packed));

#define MSG_HDR 12U

/* A guest with one ring in use: 0 receives, 1 transmits */
struct peer {
	struct conform *c;
	int sock, kick, call, own_fd;
	unsigned int ring;
	uint8_t *own; /* [OWN_SIZE] */
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	uint64_t used_gpa;
	uint16_t seen; /* of the used ring */
	uint16_t next; /* of the available ring */
	uint64_t seed, done, window;
	uint64_t *page; /* [npages] */
	unsigned int npages;
	pthread_t thread;
	uint32_t pause, parked, quit;
};

struct daemon_kind {
	struct peer rx, tx;
};

const char *kind_daemon_ctl, *kind_daemon_socket[2];

static const uint8_t mac[2][6] = { { 2, 0, 0, 0, 0, 0x11 }, { 2, 0, 0, 0, 0, 0x12 } };

static struct daemon_kind *of(const struct conform *c)
{
	return c->priv;
}

static void nap(long ns)
{
	struct timespec ts = { 0, ns };

	nanosleep(&ts, NULL);
}

/* ---- messages ------------------------------------------------------------------------
 */

static void tell(struct peer *p, struct msg *m, uint32_t request, uint32_t size,
		 const int *fd, unsigned int nfds)
{
	const struct iovec iov = { m, MSG_HDR + size };

	m->request = request;
	m->flags = 1;
	m->size = size;
	assert_int_equal(fds_send(p->sock, &iov, 1, fd, nfds, MSG_NOSIGNAL),
			 MSG_HDR + size);
}

static void hear(struct peer *p, struct msg *m, uint32_t request)
{
	assert_int_equal(recv(p->sock, m, MSG_HDR, MSG_WAITALL), MSG_HDR);
	assert_int_equal(m->request, request);
	assert_int_equal(recv(p->sock, &m->u64, m->size, MSG_WAITALL), m->size);
}

static void tell_state(struct peer *p, uint32_t request, uint32_t num)
{
	struct msg m;

	m.state.index = p->ring;
	m.state.num = num;
	tell(p, &m, request, sizeof(m.state), NULL, 0);
}

static void tell_fd(struct peer *p, uint32_t request, int fd)
{
	struct msg m;

	m.u64 = p->ring;
	tell(p, &m, request, sizeof(m.u64), &fd, 1);
}

/* Start the ring, from entry @base on. */
static void start_ring(struct peer *p, uint32_t base)
{
	struct msg m;

	tell_state(p, SET_VRING_NUM, RING);
	tell_state(p, SET_VRING_BASE, base);
	memset(&m, 0, sizeof(m));
	m.addr.index = p->ring;
	m.addr.desc = (uintptr_t)p->desc;
	m.addr.avail = (uintptr_t)p->avail;
	m.addr.used = (uintptr_t)p->used;
	m.addr.log = p->used_gpa;
	tell(p, &m, SET_VRING_ADDR, sizeof(m.addr), NULL, 0);
	tell_fd(p, SET_VRING_CALL, p->call);
	tell_fd(p, SET_VRING_KICK, p->kick);
}

/* On return the device writes nothing any more. Return: where it stopped */
static uint32_t stop_ring(struct peer *p)
{
	struct msg m;

	tell_state(p, GET_VRING_BASE, 0);
	hear(p, &m, GET_VRING_BASE);
	return m.state.num;
}

/* ---- guests --------------------------------------------------------------------------
 */

static void tell_memory(struct peer *p, const struct ram *ram)
{
	int fd[8];
	unsigned int n = 0;
	struct msg m;

	memset(&m, 0, sizeof(m));
	for (unsigned int i = 0; ram && i < ram->nblocks; i++) {
		const struct ram_block *b = &ram->block[i];

		m.mem.region[n].gpa = b->gpa;
		m.mem.region[n].size = b->size;
		m.mem.region[n].uva = (uintptr_t)b->hva;
		fd[n++] = b->fd;
	}
	m.mem.region[n].gpa = OWN_GPA;
	m.mem.region[n].size = OWN_SIZE;
	m.mem.region[n].uva = (uintptr_t)p->own;
	fd[n++] = p->own_fd;
	m.mem.n = n;
	tell(p, &m, SET_MEM_TABLE, 8 + n * sizeof(m.mem.region[0]), fd, n);
}

/* The daemon may still be letting go of the connection of before. */
static int dial(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct timeval limit = { .tv_sec = 10 };

	assert_true(fd >= 0 && strlen(path) < sizeof(a.sun_path));
	strcpy(a.sun_path, path);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return fd;
}

static void peer_open(struct peer *p, const char *path, unsigned int ring,
		      struct conform *c)
{
	p->c = c;
	p->ring = ring;
	p->seed = conform_random(&c->seed);
	p->pause = 1;
	p->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	p->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	p->own_fd = memfd_create("guest", MFD_CLOEXEC);
	assert_true(p->kick >= 0 && p->call >= 0 && p->own_fd >= 0);
	assert_int_equal(ftruncate(p->own_fd, OWN_SIZE), 0);
	p->own = mmap(NULL, OWN_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, p->own_fd, 0);
	assert_true(p->own != MAP_FAILED);
	p->desc = (struct vring_desc *)p->own;
	p->avail = (struct vring_avail *)(p->own + 0x4000);
	p->used = (struct vring_used *)(p->own + 0x8000);
	p->used_gpa = OWN_GPA + 0x8000;
	p->sock = dial(path);
}

static void peer_up(struct peer *p, const struct ram *ram)
{
	struct msg m;

	tell(p, &m, SET_OWNER, 0, NULL, 0);
	tell(p, &m, GET_FEATURES, 0, NULL, 0);
	hear(p, &m, GET_FEATURES);
	assert_int_equal(m.u64 & FEATURES, FEATURES);
	m.u64 = FEATURES;
	tell(p, &m, SET_FEATURES, sizeof(m.u64), NULL, 0);
	tell_memory(p, ram);
}

static void peer_close(struct peer *p)
{
	close(p->sock);
	close(p->kick);
	close(p->call);
	close(p->own_fd);
	munmap(p->own, OWN_SIZE);
	free(p->page);
}

/* Give the device descriptor @id. */
static void offer(struct peer *p, uint16_t id)
{
	p->avail->ring[p->next % RING] = id;
	__atomic_store_n(&p->avail->idx, ++p->next, __ATOMIC_RELEASE);
}

static void kick(const struct peer *p)
{
	uint64_t one = 1;

	if (write(p->kick, &one, sizeof(one)) != sizeof(one))
		assert_int_equal(errno, EAGAIN);
}

/* What the device is done with. Return: descriptor, -1: nothing */
static int fetch(struct peer *p)
{
	uint32_t id;

	if (__atomic_load_n(&p->used->idx, __ATOMIC_ACQUIRE) == p->seen)
		return -1;
	id = p->used->ring[p->seen++ % RING].id;
	assert_true(id < RING);
	p->done++;
	return (int)id;
}

/* A receive buffer somewhere in the window, over two pages where that may be */
static void aim(struct peer *p, uint16_t id)
{
	const struct ram *ram = &p->c->ram;
	uint64_t r = conform_random(&p->seed), page, room = RAM_PAGE_SIZE - BUF;

	if (p->done % 200 == 0)
		p->window = r >> 32;
	page = p->page[(p->window + r % WINDOW) % p->npages];
	if (conform_written(p->c, page + 1) && ram_gpa(ram, page + 1) != p->used_gpa &&
	    ram_gpa(ram, page + 1) == ram_gpa(ram, page) + RAM_PAGE_SIZE)
		room = RAM_PAGE_SIZE;
	p->desc[id] = (struct vring_desc){ .addr = ram_gpa(ram, page) + (r >> 16) % room,
					   .len = BUF,
					   .flags = VRING_DESC_F_WRITE };
}

static void build(struct peer *p, uint16_t id)
{
	uint64_t at = TX_AT + id * (uint64_t)BUF;
	uint32_t len = 60 + (uint32_t)(conform_random(&p->seed) % 1400);
	uint8_t *f = p->own + at + HDR;

	memset(p->own + at, 0, HDR);
	memcpy(f, mac[0], 6);
	memcpy(f + 6, mac[1], 6);
	f[12] = 0x88; /* local experimental Ethertype 1 */
	f[13] = 0xb5;
	for (uint32_t i = 14; i + 8 <= len; i += 8) {
		uint64_t r = conform_random(&p->seed);

		memcpy(f + i, &r, 8);
	}
	p->desc[id] =
		(struct vring_desc){ .addr = OWN_GPA + at, .len = (uint32_t)HDR + len };
}

/* The guest's driver. Of a paused ring nothing comes. */
static void *peer_main(void *arg)
{
	struct peer *p = arg;

	for (uint16_t id = 0; id < RING; id++) {
		if (p->ring)
			build(p, id);
		else
			aim(p, id);
		offer(p, id);
	}
	while (!__atomic_load_n(&p->quit, __ATOMIC_ACQUIRE)) {
		unsigned int n = 0;
		int id;

		if (__atomic_load_n(&p->pause, __ATOMIC_ACQUIRE)) {
			__atomic_store_n(&p->parked, 1, __ATOMIC_RELEASE);
			nap(50000);
			continue;
		}
		__atomic_store_n(&p->parked, 0, __ATOMIC_RELEASE);
		kick(p);
		while (n++ < 100 && (id = fetch(p)) >= 0) {
			if (p->ring)
				build(p, (uint16_t)id);
			else
				aim(p, (uint16_t)id);
			offer(p, (uint16_t)id);
		}
		nap(p->ring ? (long)(conform_random(&p->seed) % 400000) : 20000);
	}
	return NULL;
}

/* ---- the kind ------------------------------------------------------------------------
 */

static int daemon_open(struct conform *c)
{
	struct daemon_kind *k = calloc(1, sizeof(*k));
	struct dirty_source *src;
	uint64_t used;

	assert_non_null(k);
	conform_layout(c);
	c->priv = k;
	peer_open(&k->rx, kind_daemon_socket[0], 0, c);
	peer_open(&k->tx, kind_daemon_socket[1], 1, c);
	/* The used ring lies in the RAM under test, alone in its page. */
	k->rx.npages = conform_pages(c, &k->rx.page);
	used = k->rx.page[k->rx.npages / 2];
	memmove(&k->rx.page[k->rx.npages / 2], &k->rx.page[k->rx.npages / 2 + 1],
		(k->rx.npages - k->rx.npages / 2 - 1) * sizeof(used));
	k->rx.npages--;
	k->rx.used = (struct vring_used *)ram_at(&c->ram, used);
	k->rx.used_gpa = ram_gpa(&c->ram, used);

	peer_up(&k->rx, &c->ram);
	peer_up(&k->tx, NULL);
	start_ring(&k->rx, 0);
	start_ring(&k->tx, 0);
	/* Its answer says that all before it was done. */
	stop_ring(&k->rx);
	assert_int_equal(dirty_set_create(&c->ram, &c->set), 0);
	assert_int_equal(dirty_daemon_create(&c->ram, kind_daemon_ctl, NULL, "vm1", &src),
			 0);
	assert_int_equal(dirty_set_add(c->set, src), 0);
	assert_int_equal(pthread_create(&k->rx.thread, NULL, peer_main, &k->rx), 0);
	assert_int_equal(pthread_create(&k->tx.thread, NULL, peer_main, &k->tx), 0);
	conform_wait(&k->rx.parked, 1);
	conform_wait(&k->tx.parked, 1);
	return 0;
}

static void daemon_go(struct conform *c)
{
	struct daemon_kind *k = of(c);

	start_ring(&k->rx, k->rx.used->idx);
	__atomic_store_n(&k->rx.pause, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&k->tx.pause, 0, __ATOMIC_RELEASE);
	conform_wait(&k->rx.parked, 0);
	conform_wait(&k->tx.parked, 0);
}

static void daemon_halt(struct conform *c)
{
	struct daemon_kind *k = of(c);
	uint32_t base = stop_ring(&k->rx);

	assert_int_equal(base, k->rx.used->idx);
	__atomic_store_n(&k->rx.pause, 1, __ATOMIC_RELEASE);
	__atomic_store_n(&k->tx.pause, 1, __ATOMIC_RELEASE);
	conform_wait(&k->rx.parked, 1);
	conform_wait(&k->tx.parked, 1);
}

static void daemon_close(struct conform *c)
{
	struct daemon_kind *k = of(c);

	__atomic_store_n(&k->rx.quit, 1, __ATOMIC_RELEASE);
	__atomic_store_n(&k->tx.quit, 1, __ATOMIC_RELEASE);
	pthread_join(k->rx.thread, NULL);
	pthread_join(k->tx.thread, NULL);
	c->writes = k->rx.done;
	dirty_set_destroy(c->set);
	peer_close(&k->rx);
	peer_close(&k->tx);
	free(k);
}

const struct conform_kind kind_daemon = {
	.name = "daemon",
	.open = daemon_open,
	.go = daemon_go,
	.halt = daemon_halt,
	.close = daemon_close,
};
