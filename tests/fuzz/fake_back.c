// SPDX-License-Identifier: BSD-2-Clause
/* fake_back: see fake_back.h. Source: QEMU, docs/interop/vhost-user.rst. */
#include <errno.h>
#include <linux/vhost_types.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fake_back.h"
#include "input.h"

#define CONNS	 64 /* of an input; then it listens no more */
#define MAX_OUT	 512
#define RINGS	 2
#define HEAD	 12
#define VERSION	 1U
#define REPLY	 4U
#define NEED	 8U
#define LOG_ALL	 (1ULL << VHOST_F_LOG_ALL)
#define PROTOCOL (1ULL << 30)

enum request {
	GET_FEATURES = 1,
	SET_FEATURES = 2,
	SET_MEM_TABLE = 5,
	SET_LOG_BASE = 6,
	SET_VRING_NUM = 8,
	SET_VRING_ADDR = 9,
	GET_VRING_BASE = 11,
	SET_VRING_KICK = 12,
	GET_PROTOCOL_FEATURES = 15,
};

struct conn {
	int fd;
	bool ended, reset, deaf, stubborn;
	bool has[RINGS]; /* rings, to write them */
	bool logs, has_log;
	uint64_t features; /* as it said */
	uint32_t num[RINGS];
	uint8_t out[MAX_OUT];
	size_t nout;
};

static struct {
	const struct ram *ram;
	uint64_t features, allowed;
	struct conn conn[CONNS];
	unsigned int n;
	enum fake_back_spoil how;
	unsigned int after;
	const uint8_t *raw;
	size_t len;
	bool must_log;
	int log_fd;
} back = { .log_fd = -1 };

void fake_back_begin(const struct ram *ram, uint64_t features)
{
	memset(&back, 0, sizeof(back));
	back.ram = ram;
	back.features = features;
	back.allowed = UINT64_MAX;
	back.log_fd = -1;
}

void fake_back_spoil(enum fake_back_spoil how, unsigned int after, const uint8_t *raw,
		     size_t len)
{
	back.how = how;
	back.after = after;
	back.raw = raw;
	back.len = len;
}

static void end(struct conn *c)
{
	c->ended = true;
	c->has[0] = c->has[1] = false;
}

void fake_back_let_go(void)
{
	for (unsigned int i = 0; i < back.n; i++)
		if (back.conn[i].stubborn)
			end(&back.conn[i]);
}

void fake_back_forget(void)
{
	back.n = 0;
	back.log_fd = -1;
	back.must_log = false;
}

uint64_t fake_back_features(void)
{
	return back.features;
}

void fake_back_allow(uint64_t features)
{
	back.allowed = features;
}

void fake_back_must_log(bool must)
{
	back.must_log = must;
}

bool fake_back_writes(bool log)
{
	for (unsigned int i = 0; i < back.n; i++) {
		const struct conn *c = &back.conn[i];

		if ((c->has[0] || c->has[1]) && (log || !c->logs || !c->has_log))
			return true;
	}
	return false;
}

void fake_back_marks(uint64_t at, const uint8_t *p, size_t len)
{
	if (back.log_fd >= 0)
		CHECK(pwrite(back.log_fd, p, len, (off_t)at) == (ssize_t)len);
}

/* ---- requests ---------------------------------------------------------------------- */

struct message {
	uint32_t request, flags, size;
	uint64_t v[40];
} __attribute__((packed));

static bool in_memory(uint64_t user, uint64_t len)
{
	for (unsigned int i = 0; i < back.ram->nblocks; i++) {
		const struct ram_block *b = &back.ram->block[i];

		if (user - (uintptr_t)b->hva < b->size &&
		    len <= b->size - (user - (uintptr_t)b->hva))
			return true;
	}
	return false;
}

static void take_address(struct conn *c, const struct message *m)
{
	const uint32_t i = (uint32_t)m->v[0], num = c->num[i & 1];

	CHECK(m->size == 40 && i < RINGS && num);
	CHECK(in_memory(m->v[1], num * 16ULL) && !(m->v[1] % 16));
	CHECK(in_memory(m->v[2], 6 + num * 8ULL) && !(m->v[2] % 4));
	CHECK(in_memory(m->v[3], 6 + num * 2ULL) && !(m->v[3] % 2));
	/* Its log is told by guest-physical addresses. */
	CHECK(ram_page_of(back.ram, m->v[4]) != RAM_NO_PAGE);
}

static void take(struct conn *c, const struct message *m, int fd)
{
	const uint32_t i = (uint32_t)m->v[0], num = (uint32_t)(m->v[0] >> 32);

	switch (m->request) {
	case SET_FEATURES:
		CHECK(!(m->v[0] & ~(c->features | PROTOCOL | LOG_ALL)));
		CHECK(!(m->v[0] & ~(back.allowed | PROTOCOL | LOG_ALL)));
		CHECK(back.must_log || !(m->v[0] & LOG_ALL));
		c->logs = m->v[0] & LOG_ALL;
		break;
	case SET_LOG_BASE:
		c->has_log = true;
		back.log_fd = fd;
		break;
	case SET_VRING_NUM:
		CHECK(i < RINGS && num && !(num & (num - 1)));
		c->num[i] = num;
		break;
	case SET_VRING_ADDR: take_address(c, m); break;
	case SET_VRING_KICK:
		CHECK(i < RINGS && fd >= 0);
		CHECK(!back.must_log || (c->logs && c->has_log));
		c->has[i] = true;
		break;
	case SET_MEM_TABLE: CHECK((uint32_t)m->v[0] == back.ram->nblocks); break;
	default: break;
	}
}

static uint64_t answer(const struct message *m)
{
	switch (m->request) {
	case GET_FEATURES: return back.features;
	case GET_PROTOCOL_FEATURES: return 0xe; /* shared log, RARP, acknowledgements */
	case GET_VRING_BASE: return (uint32_t)m->v[0] | 5ULL << 32;
	default: return 0;
	}
}

/* To an answer that says so, a ring is taken back. */
static void let_ring_go(struct conn *c, const struct message *m, const uint8_t *said,
			size_t n)
{
	const uint32_t i = (uint32_t)m->v[0];
	uint32_t head[4];

	CHECK(i < RINGS);
	/* Who has more to say than it was asked is believed, too. */
	if (n >= sizeof(head)) {
		memcpy(head, said, sizeof(head));
		if (head[0] != m->request || !(head[1] & REPLY) || head[2] != 8 ||
		    head[3] != i || n < HEAD + 8)
			return;
		c->has[i] = false;
	}
}

static void say(struct conn *c, const struct message *m, bool spoil)
{
	struct {
		uint32_t request, flags, size;
		uint64_t v;
	} __attribute__((packed)) r = { m->request, VERSION | REPLY, 8, answer(m) };
	const uint8_t *p = (const uint8_t *)&r;
	size_t n = m->flags & NEED || m->request == GET_FEATURES ||
				   m->request == GET_PROTOCOL_FEATURES ||
				   m->request == GET_VRING_BASE
			   ? sizeof(r)
			   : 0;
	bool over = false;

	if (spoil && back.how == BACK_RAW) {
		p = back.raw;
		n = back.len;
		c->stubborn = true;
	} else if (spoil && back.how == BACK_VALUE) {
		memcpy(&r.v, back.raw, back.len < 8 ? back.len : 8);
	} else if (spoil && back.how == BACK_CUT) {
		n = back.len < n ? back.len : n;
		over = true;
	} else if (spoil && back.how == BACK_SILENT) {
		n = 0;
		c->stubborn = true;
	}
	n = n < MAX_OUT - c->nout ? n : MAX_OUT - c->nout;
	memcpy(c->out + c->nout, p, n);
	c->nout += n;
	if (m->request == GET_VRING_BASE)
		let_ring_go(c, m, c->out, c->nout);
	if (m->request == GET_FEATURES && c->nout >= HEAD + 8)
		memcpy(&c->features, c->out + HEAD, 8);
	if (over)
		end(c);
}

/* ---- sockets ----------------------------------------------------------------------- */

static struct conn *find(int fd)
{
	for (unsigned int i = back.n; i--;)
		if (back.conn[i].fd == fd)
			return &back.conn[i];
	return NULL;
}

int connect(int fd, const struct sockaddr *to, socklen_t len)
{
	if (back.n == CONNS) {
		errno = ECONNREFUSED;
		return -1;
	}
	back.conn[back.n++] = (struct conn){ .fd = fd };
	return 0;
}

static int fd_of(const struct msghdr *h)
{
	const struct cmsghdr *c = h->msg_controllen ? CMSG_FIRSTHDR(h) : NULL;
	int fd = -1;

	if (c)
		memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	return fd;
}

ssize_t sendmsg(int fd, const struct msghdr *h, int flags)
{
	struct conn *c = find(fd);
	struct message m = { 0 };
	bool spoil;

	if (!c)
		return syscall(SYS_sendmsg, fd, h, flags);
	spoil = back.how && !back.after--;
	CHECK(h->msg_iovlen == 1 && h->msg_iov->iov_len <= sizeof(m));
	memcpy(&m, h->msg_iov->iov_base, h->msg_iov->iov_len);
	CHECK(h->msg_iov->iov_len == HEAD + m.size);
	if (spoil && (back.how == BACK_END || back.how == BACK_RESET)) {
		end(c);
		c->reset = back.how == BACK_RESET;
	}
	if (spoil && back.how == BACK_FULL)
		c->deaf = c->stubborn = true;
	if (!c->ended && !c->deaf) {
		take(c, &m, fd_of(h));
		say(c, &m, spoil);
	}
	if (spoil)
		back.how = BACK_FINE;
	if (!c->ended && !c->deaf)
		return (ssize_t)h->msg_iov->iov_len;
	if (c->ended && c->nout)
		return (ssize_t)h->msg_iov->iov_len;
	errno = c->ended ? EPIPE : EAGAIN;
	return -1;
}

ssize_t recv(int fd, void *buf, size_t len, int flags)
{
	struct conn *c = find(fd);
	size_t n;

	if (!c)
		return syscall(SYS_recvfrom, fd, buf, len, flags, NULL, NULL);
	n = len < c->nout ? len : c->nout;
	if (n) {
		memcpy(buf, c->out, n);
		c->nout -= n;
		memmove(c->out, c->out + n, c->nout);
		return (ssize_t)n;
	}
	if (c->ended && !c->reset)
		return 0;
	errno = c->ended ? ECONNRESET : EAGAIN;
	return -1;
}

int shutdown(int fd, int how)
{
	struct conn *c = find(fd);

	if (!c)
		return (int)syscall(SYS_shutdown, fd, how);
	if (!c->stubborn)
		end(c);
	return 0;
}
