// SPDX-License-Identifier: BSD-2-Clause
/* owners: an agent and two owners, in a thread. Contract in owners.h. */
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#include "owners.h"

#define LEASE_MS 500
#define CONNS	 16

struct owners owners = { .lock = PTHREAD_MUTEX_INITIALIZER };

void owners_look(void)
{
	pthread_mutex_lock(&owners.lock);
	pthread_mutex_unlock(&owners.lock);
}

static uint8_t payload[2 * MIB];

struct conn {
	struct net_conn nc; /* fd -1: none */
	unsigned int owner;
	uint64_t client;
};

static int reply(struct conn *c, const struct gm_hdr *req, int status, uint64_t arg,
		 const void *data, uint32_t len)
{
	struct gm_hdr h = *req;
	uint8_t raw[GM_HDR_SIZE];
	struct iovec iov[2] = { { raw, sizeof(raw) }, { (void *)data, len } };

	h.flags = GM_F_REPLY;
	h.status = status;
	h.session = c->owner + 1;
	h.len = len;
	h.arg = arg;
	if (h.op == GM_OP_ATTACH) {
		h.epoch = owners.epoch;
		h.flags |= c->client == owners.client ? GM_F_SHARED : 0;
	}
	gm_hdr_encode(&h, raw);
	return net_send_all(&c->nc, iov, len ? 2 : 1, OWNERS_WAIT_MS);
}

static int attach(struct conn *c, const struct gm_hdr *h)
{
	struct gm_attached was;

	if (c->owner != owners.epoch % 2)
		return reply(c, h, -EREMCHG, owners.epoch, NULL, 0);
	if (!owners.client)
		owners.client = c->client;
	was.done = htole64(owners.atomics);
	was.old = htole64(owners.old);
	if (!owners.leave)
		return reply(c, h, 0, OWNERS_SIZE, &was, sizeof(was));
	owners.leave--;
	reply(c, h, 0, OWNERS_SIZE, &was, sizeof(was));
	return -ECONNRESET;
}

static uint64_t atomic(const struct gm_hdr *h, uint64_t *word)
{
	owners.old = *word;
	owners.atomics++;
	if (h->op == GM_OP_FADD)
		*word += h->arg;
	else if (h->op == GM_OP_SWAP || *word == h->arg2)
		*word = h->arg;
	return owners.old;
}

static int access_memory(struct conn *c, const struct gm_hdr *h)
{
	uint8_t *p = owners.memory + (h->bus - GM_BUS_MIN);
	int what = c->owner == owners.epoch % 2 ? owners.rule ? owners.rule(h) : DO
						: -EREMCHG;
	int err;

	if (what == SILENT)
		return 0;
	if (what == HANG_UP)
		return -ECONNRESET;
	if (what < 0)
		return reply(c, h, what, owners.epoch, NULL, 0);
	owners.done++;
	if (h->op == GM_OP_PUT)
		memcpy(p, payload, h->size);
	else if (h->op != GM_OP_GET)
		atomic(h, (uint64_t *)p);
	if (what == DO_AND_HANG_UP)
		return -ECONNRESET;
	if (h->op == GM_OP_GET)
		err = reply(c, h, 0, 0, p, h->size);
	else
		err = reply(c, h, 0, h->op == GM_OP_PUT ? 0 : owners.old, NULL, 0);
	return what == ANSWER_AND_HANG_UP ? -ECONNRESET : err;
}

static int message(struct conn *c)
{
	uint8_t raw[GM_HDR_SIZE];
	struct gm_hello hello;
	struct gm_hdr h;
	int err = net_recv_all(&c->nc, raw, sizeof(raw), OWNERS_WAIT_MS);

	if (!err)
		err = gm_hdr_decode(raw, &h);
	if (!err && h.len)
		err = net_recv_all(&c->nc, payload, h.len, OWNERS_WAIT_MS);
	if (err)
		return err;
	switch (h.op) {
	case GM_OP_HELLO:
		memcpy(&hello, payload, sizeof(hello));
		c->client = hello.incarnation;
		return reply(c, &h, 0, owners.lease_ms, payload, GM_NONCE_SIZE);
	case GM_OP_ATTACH: return attach(c, &h);
	case GM_OP_FENCE: return reply(c, &h, 0, 0, NULL, 0);
	default: return access_memory(c, &h);
	}
}

static void messages(struct conn *c)
{
	do {
		if (message(c))
			net_close(&c->nc);
	} while (c->nc.fd >= 0 && c->nc.ops->pending && c->nc.ops->pending(&c->nc));
}

/* IMPORT, the one thing that an agent is asked here. Return: 1, or it is closed */
static int local(int sock)
{
	int fds[LOCAL_FDS], n, got, memfd;
	struct local_msg m;

	got = local_recv(sock, &m, fds, &n);
	if (got != 1)
		return got;
	memfd = memfd_create("owners", MFD_CLOEXEC);
	m.bus = GM_BUS_MIN;
	m.size = OWNERS_SIZE;
	m.page_shift = GM_PAGE_SHIFT;
	m.epoch = owners.epoch;
	m.lease_ms = owners.lease_ms;
	strcpy(m.node, "n1");
	strcpy(m.addr, owners.addr[owners.epoch % 2]);
	m.tls_mode = owners.tls ? TLS_PSK : TLS_OFF;
	strcpy(m.tls_dir, owners.dir);
	m.tls_hostname[0] = 0;
	local_send(sock, &m, &memfd, 1);
	close(memfd);
	return 1;
}

static int local_listen(void)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	strcpy(sun.sun_path, owners.agent);
	if (fd < 0 || bind(fd, (struct sockaddr *)&sun, sizeof(sun)) || listen(fd, 8))
		abort();
	return fd;
}

static struct {
	int agent, app, owner[2], end[2];
	struct conn conns[CONNS];
	pthread_t thread;
} net;

static void accept_from(struct conn *c, unsigned int owner)
{
	if (net_accept(net.owner[owner], owners.addr[owner], owners.tls, &c->nc))
		c->nc.fd = -1;
	c->owner = owner;
	owners.connections++;
}

static void turn(struct pollfd *p)
{
	if (p[1].revents)
		net.app = accept4(net.agent, NULL, NULL, SOCK_CLOEXEC);
	else if (p[2].revents && local(net.app) != 1) {
		close(net.app);
		net.app = -1;
	}
	for (int i = 0; i < CONNS; i++) {
		struct conn *c = &net.conns[i];
		unsigned int o = p[3].revents ? 0 : 1;

		if (p[5 + i].revents)
			messages(c);
		if (c->nc.fd >= 0 || !p[3 + o].revents)
			continue;
		p[3 + o].revents = 0;
		accept_from(c, o);
	}
}

static void *serve(void *arg)
{
	for (;;) {
		struct pollfd p[5 + CONNS] = { { net.end[0], POLLIN, 0 },
					       { net.agent, POLLIN, 0 },
					       { net.app, POLLIN, 0 },
					       { net.owner[0], POLLIN, 0 },
					       { net.owner[1], POLLIN, 0 } };

		for (int i = 0; i < CONNS; i++)
			p[5 + i] = (struct pollfd){ net.conns[i].nc.fd, POLLIN, 0 };
		poll(p, 5 + CONNS, -1);
		if (p[0].revents)
			return NULL;
		pthread_mutex_lock(&owners.lock);
		turn(p);
		pthread_mutex_unlock(&owners.lock);
	}
}

struct ghostmem_region *owners_begin(struct ghostmem **g)
{
	struct ghostmem_import in = {
		.name = "r", .key = "k", .key_len = 1, .flags = GHOSTMEM_NO_MAP
	};
	struct ghostmem_region *r;
	sigset_t every, old;

	owners.epoch = owners.epoch ? owners.epoch : 1;
	owners.lease_ms = owners.lease_ms ? owners.lease_ms : LEASE_MS;
	owners.memory = calloc(1, OWNERS_SIZE);
	assert_non_null(owners.memory);
	assert_int_equal(pipe(net.end), 0);
	net.agent = local_listen();
	net.app = -1;
	for (int i = 0; i < 2; i++)
		net.owner[i] = net_listen(owners.addr[i]);
	for (int i = 0; i < CONNS; i++)
		net.conns[i].nc.fd = -1;
	sigfillset(&every);
	pthread_sigmask(SIG_SETMASK, &every, &old);
	assert_int_equal(pthread_create(&net.thread, NULL, serve, NULL), 0);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	assert_int_equal(ghostmem_open(owners.agent, g), 0);
	assert_int_equal(ghostmem_import(*g, &in, &r), 0);
	return r;
}

void owners_end(struct ghostmem *g)
{
	ghostmem_close(g);
	assert_int_equal(write(net.end[1], "", 1), 1);
	pthread_join(net.thread, NULL);
	for (int i = 0; i < CONNS; i++)
		net_close(&net.conns[i].nc);
	if (net.app >= 0)
		close(net.app);
	close(net.agent);
	for (int i = 0; i < 2; i++) {
		close(net.owner[i]);
		close(net.end[i]);
		unlink(owners.addr[i] + strlen("unix:"));
	}
	unlink(owners.agent);
	free(owners.memory);
	owners.rule = NULL;
	owners.epoch = owners.lease_ms = 0;
	owners.tls = NULL;
	owners.leave = owners.connections = owners.done = 0;
	owners.memory = NULL;
	owners.client = owners.atomics = owners.old = 0;
}

int owners_init(void)
{
	strcpy(owners.dir, "/tmp/owners.XXXXXX");
	if (!mkdtemp(owners.dir))
		return -1;
	snprintf(owners.agent, sizeof(owners.agent), "%s/agent", owners.dir);
	for (int i = 0; i < 2; i++)
		snprintf(owners.addr[i], sizeof(owners.addr[i]), "unix:%s/owner%d",
			 owners.dir, i);
	return 0;
}

int owners_fini(void)
{
	return rmdir(owners.dir);
}
