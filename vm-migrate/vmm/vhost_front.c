// SPDX-License-Identifier: BSD-2-Clause
/*
 * vhost_front: see vhost_front.h.
 */
#include <errno.h>
#include <linux/vhost_types.h>
#include <linux/virtio_ring.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "vhost_front.h"
#include "../../user/lib/clock.h"
#include "../../user/lib/fds.h"

#define F_LOG_ALL   (1ULL << VHOST_F_LOG_ALL)
#define F_PROTOCOL  (1ULL << 30)
#define P_LOG_SHMFD (1ULL << 1)
#define P_RARP	    (1ULL << 2)
#define P_REPLY_ACK (1ULL << 3)
#define VERSION	    1u
#define REPLY	    (1u << 2)
#define NEED_REPLY  (1u << 3)
#define NO_FD	    (1u << 8)
#define RING_LOGGED (1u << 0)
#define MAX_REGIONS 8
#define MAX_PAYLOAD (8 + MAX_REGIONS * 32)

enum request {
	GET_FEATURES = 1,
	SET_FEATURES = 2,
	SET_OWNER = 3,
	SET_MEM_TABLE = 5,
	SET_LOG_BASE = 6,
	SET_VRING_NUM = 8,
	SET_VRING_ADDR = 9,
	SET_VRING_BASE = 10,
	GET_VRING_BASE = 11,
	SET_VRING_KICK = 12,
	SET_VRING_CALL = 13,
	GET_PROTOCOL_FEATURES = 15,
	SET_PROTOCOL_FEATURES = 16,
	SET_VRING_ENABLE = 18,
	SEND_RARP = 19,
};

struct message {
	uint32_t request, flags, size;
	uint8_t payload[MAX_PAYLOAD];
} __attribute__((packed));

#define HEAD 12

struct vring_state {
	uint32_t index, num;
};

static int fail(struct vhost_front *f, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static int fail(struct vhost_front *f, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(f->why, sizeof(f->why), fmt, ap);
	va_end(ap);
	return err;
}

void vhost_front_init(struct vhost_front *f, const struct ram *ram)
{
	*f = (struct vhost_front){ .sock = -1, .leaving = -1, .ram = ram, .log_fd = -1 };
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* The back end has hung up, or has no ring. */
static void disconnect(struct vhost_front *f)
{
	close_fd(&f->sock);
	f->running = false;
}

/* Of no more use. Its end is what tells that a back end with rings has let go of them. */
static void give_up(struct vhost_front *f, int err)
{
	if (f->given && f->sock >= 0 && !vhost_front_gone(err)) {
		shutdown(f->sock, SHUT_WR);
		f->leaving = f->sock;
		f->sock = -1;
	}
	disconnect(f);
}

/* Of a connection that was given up. Return: 0, -ETIMEDOUT */
static int await_end(struct vhost_front *f)
{
	const uint64_t deadline = clock_ns() + VHOST_FRONT_MS * 1000000ULL;
	uint8_t late[64]; /* answers */
	ssize_t n = 0;

	if (f->leaving < 0)
		return 0;
	do {
		n = recv(f->leaving, late, sizeof(late), 0);
	} while ((n > 0 || (n < 0 && errno == EINTR)) && clock_ns() < deadline);
	if (n > 0 || (n < 0 && errno != ECONNRESET))
		return fail(f, -ETIMEDOUT, "the back end does not let go of its rings");
	close_fd(&f->leaving);
	return 0;
}

void vhost_front_fini(struct vhost_front *f)
{
	disconnect(f);
	close_fd(&f->leaving);
	if (f->log)
		munmap(f->log, f->log_bytes);
	if (f->log_fd >= 0)
		close(f->log_fd);
}

/* ---- messages ---------------------------------------------------------------------- */

static int send_message(struct vhost_front *f, const struct message *m, const int *fd,
			unsigned int nfds)
{
	const struct iovec iov = { (void *)m, HEAD + m->size };
	ssize_t n;

	do {
		n = fds_send(f->sock, &iov, 1, fd, nfds, MSG_NOSIGNAL);
	} while (n == -EINTR);
	if (n < 0)
		return (int)n;
	return (size_t)n == iov.iov_len ? 0 : -EPIPE;
}

static int read_all(struct vhost_front *f, void *buf, size_t len)
{
	while (len) {
		ssize_t n = recv(f->sock, buf, len, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		if (!n)
			return -EPIPE;
		buf = (uint8_t *)buf + n;
		len -= (size_t)n;
	}
	return 0;
}

static int read_reply(struct vhost_front *f, uint32_t request, struct message *r)
{
	int err = read_all(f, r, HEAD);

	if (!err && (r->request != request || !(r->flags & REPLY) ||
		     r->size > sizeof(r->payload)))
		err = -EPROTO;
	return err ? err : read_all(f, r->payload, r->size);
}

/* Send, wait for the reply. A connection that fails half-way is of no more use. */
static int exchange(struct vhost_front *f, struct message *m, const int *fd,
		    unsigned int nfds, struct message *r)
{
	int err = f->sock < 0 ? -ENOTCONN : send_message(f, m, fd, nfds);

	if (!err)
		err = read_reply(f, m->request, r);
	if (err) {
		fail(f, err, "request %u: %s", m->request,
		     err == -EPIPE ? "the back end hung up" : strerror(-err));
		give_up(f, err);
	}
	return err;
}

/* A request whose answer is an acknowledgement: 0, or nothing. */
static int order(struct vhost_front *f, uint32_t request, const void *payload,
		 uint32_t size, const int *fd, unsigned int nfds)
{
	struct message m = { .request = request, .size = size }, r;
	uint64_t v = 0;
	int err;

	m.flags = VERSION | (f->protocol & P_REPLY_ACK ? NEED_REPLY : 0);
	if (size)
		memcpy(m.payload, payload, size);
	if (!(m.flags & NEED_REPLY)) {
		err = send_message(f, &m, fd, nfds);
		return err ? fail(f, err, "request %u: %s", request, strerror(-err)) : 0;
	}
	err = exchange(f, &m, fd, nfds, &r);
	if (err)
		return err;
	if (r.size >= sizeof(v))
		memcpy(&v, r.payload, sizeof(v));
	return v ? fail(f, -EPROTO, "the back end refused request %u", request) : 0;
}

static int order_u64(struct vhost_front *f, uint32_t request, uint64_t v)
{
	return order(f, request, &v, sizeof(v), NULL, 0);
}

static int order_state(struct vhost_front *f, uint32_t request, uint32_t index,
		       uint32_t num)
{
	const struct vring_state s = { index, num };

	return order(f, request, &s, sizeof(s), NULL, 0);
}

static int ask_u64(struct vhost_front *f, uint32_t request, uint64_t *v)
{
	struct message m = { .request = request, .flags = VERSION }, r;
	int err = exchange(f, &m, NULL, 0, &r);

	if (!err && r.size != sizeof(*v))
		err = fail(f, -EPROTO, "request %u: an answer of %u bytes", request,
			   r.size);
	if (!err)
		memcpy(v, r.payload, sizeof(*v));
	return err;
}

/* ---- connection -------------------------------------------------------------------- */

static int negotiate(struct vhost_front *f)
{
	const uint64_t need = P_REPLY_ACK | P_LOG_SHMFD;
	uint64_t offered;
	int err;

	f->protocol = 0; /* until it is negotiated nothing is acknowledged */
	err = ask_u64(f, GET_FEATURES, &f->features);
	if (err)
		return err;
	if (!(f->features & F_PROTOCOL))
		return fail(f, -EPROTO, "the back end has no protocol features");
	err = ask_u64(f, GET_PROTOCOL_FEATURES, &offered);
	if (err)
		return err;
	if ((offered & need) != need)
		return fail(f, -EPROTO,
			    "the back end lacks acknowledgements or a shared log");
	err = order_u64(f, SET_PROTOCOL_FEATURES, offered & (need | P_RARP));
	if (err)
		return err;
	f->protocol = offered & (need | P_RARP);
	return order(f, SET_OWNER, NULL, 0, NULL, 0);
}

int vhost_front_connect(struct vhost_front *f, const char *path)
{
	const struct timeval tv = { .tv_sec = VHOST_FRONT_MS / 1000 };
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int err;

	disconnect(f);
	err = await_end(f);
	if (err)
		return err;
	if (strlen(path) >= sizeof(sun.sun_path))
		return fail(f, -ENAMETOOLONG, "%.60s...: too long", path);
	strcpy(sun.sun_path, path);
	f->sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (f->sock < 0)
		return fail(f, -errno, "socket: %s", strerror(errno));
	setsockopt(f->sock, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	setsockopt(f->sock, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	err = connect(f->sock, (struct sockaddr *)&sun, sizeof(sun))
		      ? fail(f, -errno, "%s", strerror(errno))
		      : negotiate(f);
	if (err)
		disconnect(f);
	return err;
}

/* ---- rings ------------------------------------------------------------------------- */

static uint64_t user_address(const struct vhost_front *f, uint64_t gpa)
{
	const uint64_t page = ram_page_of(f->ram, gpa);

	return page == RAM_NO_PAGE
		       ? 0
		       : (uintptr_t)ram_at(f->ram, page) + gpa % RAM_PAGE_SIZE;
}

static int send_memory(struct vhost_front *f)
{
	struct {
		uint32_t n, pad;
		struct {
			uint64_t gpa, size, user, offset;
		} region[MAX_REGIONS];
	} t = { .n = f->ram->nblocks };
	int fd[MAX_REGIONS];

	if (t.n > MAX_REGIONS)
		return fail(f, -E2BIG, "memory of more than %d pieces", MAX_REGIONS);
	for (unsigned int i = 0; i < t.n; i++) {
		const struct ram_block *b = &f->ram->block[i];

		t.region[i].gpa = b->gpa;
		t.region[i].size = b->size;
		t.region[i].user = (uintptr_t)b->hva;
		t.region[i].offset = b->fd_offset;
		fd[i] = b->fd;
	}
	return order(f, SET_MEM_TABLE, &t, 8 + t.n * 32, fd, t.n);
}

static int send_address(struct vhost_front *f, uint32_t i)
{
	const struct vhost_front_ring *r = &f->ring[i];
	const struct {
		uint32_t index, flags;
		uint64_t desc, used, avail, log;
	} a = {
		.index = i,
		.flags = f->logging ? RING_LOGGED : 0,
		.desc = user_address(f, r->desc),
		.used = user_address(f, r->used),
		.avail = user_address(f, r->avail),
		.log = r->used,
	};

	if (!a.desc || !a.used || !a.avail)
		return fail(f, -EFAULT, "ring %u is not in memory", i);
	return order(f, SET_VRING_ADDR, &a, sizeof(a), NULL, 0);
}

static int start_ring(struct vhost_front *f, uint32_t i)
{
	const struct vhost_front_ring *r = &f->ring[i];
	const uint64_t index = i;
	int err = order_state(f, SET_VRING_NUM, i, r->num);

	if (!err)
		err = order_state(f, SET_VRING_BASE, i, r->base);
	if (!err)
		err = send_address(f, i);
	if (!err)
		err = order(f, SET_VRING_CALL, &index, sizeof(index), &r->call, 1);
	if (!err)
		err = order(f, SET_VRING_KICK, &index, sizeof(index), &r->kick, 1);
	if (!err)
		err = order_state(f, SET_VRING_ENABLE, i, 1);
	return err;
}

static int send_features(struct vhost_front *f)
{
	return order_u64(f, SET_FEATURES,
			 (f->acked & f->features) | F_PROTOCOL |
				 (f->logging ? F_LOG_ALL : 0));
}

static int send_log(struct vhost_front *f)
{
	const uint64_t payload[2] = { f->log_bytes, 0 };

	return order(f, SET_LOG_BASE, payload, sizeof(payload), &f->log_fd, 1);
}

int vhost_front_start(struct vhost_front *f, uint64_t acked,
		      const struct vhost_front_ring ring[VHOST_FRONT_RINGS])
{
	int err;

	if (f->sock < 0)
		return fail(f, -ENOTCONN, "there is no back end");
	f->acked = acked;
	memcpy(f->ring, ring, sizeof(f->ring));
	err = send_features(f);
	if (!err)
		err = send_memory(f);
	if (!err && f->logging)
		err = send_log(f);
	for (uint32_t i = 0; i < VHOST_FRONT_RINGS && !err; i++) {
		f->given = true;
		err = start_ring(f, i);
	}
	f->running = !err;
	/* One ring without the other is of no use. */
	if (err && f->given)
		give_up(f, err);
	return err;
}

/* How far a back end that is gone had come. */
static uint32_t used_index(const struct vhost_front *f, const struct vhost_front_ring *r)
{
	const uint64_t at = user_address(f, r->used);
	const volatile struct vring_used *u = (const void *)(uintptr_t)at;

	return at ? u->idx : 0;
}

/* The back end stops ring @i, and says where it was. */
static int take_ring(struct vhost_front *f, uint32_t i, uint32_t *base)
{
	struct vring_state got = { i, 0 };
	struct message m = { .request = GET_VRING_BASE,
			     .flags = VERSION,
			     .size = sizeof(got) },
		       r;
	int err;

	memcpy(m.payload, &got, sizeof(got));
	err = exchange(f, &m, NULL, 0, &r);
	if (err)
		return err;
	memcpy(&got, r.payload, sizeof(got));
	if (r.size != sizeof(got) || got.index != i) {
		err = fail(f, -EPROTO, "a wrong answer about ring %u", i);
		give_up(f, err);
		return err;
	}
	*base = got.num;
	return 0;
}

int vhost_front_stop(struct vhost_front *f, uint32_t base[VHOST_FRONT_RINGS])
{
	int err = await_end(f);

	for (uint32_t i = 0; i < VHOST_FRONT_RINGS && f->given && !err; i++) {
		err = take_ring(f, i, &base[i]);
		if (!vhost_front_gone(err))
			continue;
		/* Its process closes the connection after its workers have left the rings. */
		base[i] = used_index(f, &f->ring[i]);
		err = 0;
	}
	if (err)
		return err;
	f->running = f->given = false;
	return 0;
}

/* ---- log --------------------------------------------------------------------------- */

static int make_log(struct vhost_front *f)
{
	const struct ram_block *last = &f->ram->block[f->ram->nblocks - 1];
	const uint64_t pages = (last->gpa + last->size) >> RAM_PAGE_SHIFT;
	const size_t bytes = (pages / 8 + RAM_PAGE_SIZE) & ~(RAM_PAGE_SIZE - 1);
	void *p;
	int fd = memfd_create("vhost-log", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return fail(f, -errno, "memfd: %s", strerror(errno));
	p = ftruncate(fd, (off_t)bytes)
		    ? MAP_FAILED
		    : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED) {
		close(fd);
		return fail(f, -ENOMEM, "no memory for the log");
	}
	f->log_fd = fd;
	f->log = p;
	f->log_bytes = bytes;
	return 0;
}

static int send_logging(struct vhost_front *f)
{
	/* The log is there before anything is written to it. */
	int err = f->logging ? send_log(f) : 0;

	if (!err)
		err = send_features(f);
	for (uint32_t i = 0; i < VHOST_FRONT_RINGS && !err; i++)
		err = send_address(f, i);
	return err;
}

int vhost_front_log(struct vhost_front *f, bool on)
{
	int err = f->log ? 0 : make_log(f);

	if (err || f->logging == on)
		return err;
	f->logging = on;
	err = f->running ? send_logging(f) : on ? await_end(f) : 0;
	/* Without a back end nobody writes; it starts again with the log on. */
	if (vhost_front_gone(err))
		err = 0;
	if (err)
		f->logging = false;
	return err;
}

int vhost_front_announce(struct vhost_front *f, const uint8_t mac[6])
{
	uint64_t v = 0;

	if (!(f->protocol & P_RARP) || f->sock < 0)
		return 0;
	memcpy(&v, mac, 6);
	return order_u64(f, SEND_RARP, v);
}
