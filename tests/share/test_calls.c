// SPDX-License-Identifier: BSD-2-Clause
/*
 * calls: what the library makes of owners that move, fall silent, hang up. A thread plays
 * this node's agent, and both nodes that own the region by turns: each epoch the other
 * one. A test's rule says what becomes of each request.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <endian.h>
#include <cmocka.h>

#include "../../user/share/lib/lib.h"

#define MIB	 (1u << 20)
#define SIZE	 (20u * MIB)
#define LEASE_MS 500
#define CONNS	 16
#define WAIT_MS	 10000

enum { DO, SILENT = 1, HANG_UP, DO_AND_HANG_UP }; /* or -errno: refused */

/* A test sets it up before it imports the region, and looks at it after look(). */
static struct {
	pthread_mutex_t lock;
	int (*rule)(const struct gm_hdr *h);
	uint32_t epoch, lease_ms;
	struct net_tls *tls; /* NULL: none */
	unsigned int connections, requests, done;
	uint8_t *memory;
	uint64_t client, atomics, old; /* one client is enough */
} w = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* What the thread has done so far is to be seen. */
static void look(void)
{
	pthread_mutex_lock(&w.lock);
	pthread_mutex_unlock(&w.lock);
}

static char dir[] = "/tmp/test_calls.XXXXXX", agent_path[64], addr[2][64];
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
		h.epoch = w.epoch;
		h.flags |= c->client == w.client ? GM_F_SHARED : 0;
	}
	gm_hdr_encode(&h, raw);
	return net_send_all(&c->nc, iov, len ? 2 : 1, WAIT_MS);
}

static int attach(struct conn *c, const struct gm_hdr *h)
{
	struct gm_attached was;

	if (c->owner != w.epoch % 2)
		return reply(c, h, -EREMCHG, w.epoch, NULL, 0);
	if (!w.client)
		w.client = c->client;
	was.done = htole64(w.atomics);
	was.old = htole64(w.old);
	return reply(c, h, 0, SIZE, &was, sizeof(was));
}

static uint64_t atomic(const struct gm_hdr *h, uint64_t *word)
{
	w.old = *word;
	w.atomics++;
	if (h->op == GM_OP_FADD)
		*word += h->arg;
	else if (h->op == GM_OP_SWAP || *word == h->arg2)
		*word = h->arg;
	return w.old;
}

static int access_memory(struct conn *c, const struct gm_hdr *h)
{
	uint8_t *p = w.memory + (h->bus - GM_BUS_MIN);
	int what = c->owner == w.epoch % 2 ? w.rule ? w.rule(h) : DO : -EREMCHG;

	w.requests++;
	if (what == SILENT)
		return 0;
	if (what == HANG_UP)
		return -ECONNRESET;
	if (what < 0)
		return reply(c, h, what, w.epoch, NULL, 0);
	w.done++;
	if (h->op == GM_OP_PUT)
		memcpy(p, payload, h->size);
	else if (h->op != GM_OP_GET)
		atomic(h, (uint64_t *)p);
	if (what == DO_AND_HANG_UP)
		return -ECONNRESET;
	if (h->op == GM_OP_GET)
		return reply(c, h, 0, 0, p, h->size);
	return reply(c, h, 0, h->op == GM_OP_PUT ? 0 : w.old, NULL, 0);
}

static int message(struct conn *c)
{
	uint8_t raw[GM_HDR_SIZE];
	struct gm_hello hello;
	struct gm_hdr h;
	int err = net_recv_all(&c->nc, raw, sizeof(raw), WAIT_MS);

	if (!err)
		err = gm_hdr_decode(raw, &h);
	if (!err && h.len)
		err = net_recv_all(&c->nc, payload, h.len, WAIT_MS);
	if (err)
		return err;
	switch (h.op) {
	case GM_OP_HELLO:
		memcpy(&hello, payload, sizeof(hello));
		c->client = hello.incarnation;
		return reply(c, &h, 0, w.lease_ms, payload, GM_NONCE_SIZE);
	case GM_OP_ATTACH: return attach(c, &h);
	case GM_OP_FENCE: return reply(c, &h, 0, 0, NULL, 0);
	default: return access_memory(c, &h);
	}
}

static void messages(struct conn *c)
{
	pthread_mutex_lock(&w.lock);
	do {
		if (message(c))
			net_close(&c->nc);
	} while (c->nc.fd >= 0 && c->nc.ops->pending && c->nc.ops->pending(&c->nc));
	pthread_mutex_unlock(&w.lock);
}

/* IMPORT, the one thing that an agent is asked here. Return: 1, or it is closed */
static int local(int sock)
{
	int fds[LOCAL_FDS], n, got, memfd;
	struct local_msg m;

	got = local_recv(sock, &m, fds, &n);
	if (got != 1)
		return got;
	memfd = memfd_create("test_calls", MFD_CLOEXEC);
	m.bus = GM_BUS_MIN;
	m.size = SIZE;
	m.page_shift = GM_PAGE_SHIFT;
	m.epoch = w.epoch;
	m.lease_ms = w.lease_ms;
	strcpy(m.node, "n1");
	strcpy(m.addr, addr[w.epoch % 2]);
	m.tls_mode = w.tls ? TLS_PSK : TLS_OFF;
	strcpy(m.tls_dir, dir);
	m.tls_hostname[0] = 0;
	local_send(sock, &m, &memfd, 1);
	close(memfd);
	return 1;
}

static int local_listen(void)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	strcpy(sun.sun_path, agent_path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&sun, sizeof(sun)) || listen(fd, 8))
		abort();
	return fd;
}

static struct {
	int agent, app, owner[2], end[2];
	struct conn conns[CONNS];
	pthread_t thread;
} net;

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
			if (net_accept(net.owner[o], addr[o], w.tls, &c->nc))
				c->nc.fd = -1;
			c->owner = o;
			w.connections++;
		}
	}
}

/* A region of the world that the test has set up. */
static struct ghostmem_region *begin(struct ghostmem **g)
{
	struct ghostmem_import in = {
		.name = "r", .key = "k", .key_len = 1, .flags = GHOSTMEM_NO_MAP
	};
	struct ghostmem_region *r;
	sigset_t every, old;

	w.epoch = w.epoch ? w.epoch : 1;
	w.lease_ms = w.lease_ms ? w.lease_ms : LEASE_MS;
	w.memory = calloc(1, SIZE);
	assert_non_null(w.memory);
	assert_int_equal(pipe(net.end), 0);
	net.agent = local_listen();
	net.app = -1;
	for (int i = 0; i < 2; i++)
		net.owner[i] = net_listen(addr[i]);
	for (int i = 0; i < CONNS; i++)
		net.conns[i].nc.fd = -1;
	sigfillset(&every);
	pthread_sigmask(SIG_SETMASK, &every, &old);
	assert_int_equal(pthread_create(&net.thread, NULL, serve, NULL), 0);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	assert_int_equal(ghostmem_open(agent_path, g), 0);
	assert_int_equal(ghostmem_import(*g, &in, &r), 0);
	return r;
}

static void end(struct ghostmem *g)
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
		unlink(addr[i] + strlen("unix:"));
	}
	unlink(agent_path);
	free(w.memory);
	memset((uint8_t *)&w + sizeof(w.lock), 0, sizeof(w) - sizeof(w.lock));
}

/* ---- the region moves under a call ------------------------------------------------ */

#define MOVE_EVERY 40

static int move_often(const struct gm_hdr *h)
{
	if (!w.done || w.done % MOVE_EVERY)
		return DO;
	w.done++;
	w.epoch++;
	return -EREMCHG;
}

/* More is refused, in all, than can be under way; some of it more than once. */
static void test_moves(void **state)
{
	static uint8_t small[200][32];
	struct ghostmem_vec v[200];
	uint8_t *a = malloc(SIZE), *b = calloc(1, SIZE);
	struct ghostmem_region *r;
	struct ghostmem *g;

	assert_true(a && b);
	for (size_t i = 0; i < SIZE; i++)
		a[i] = (uint8_t)(i * 2654435761u >> 22);
	w.rule = move_often;
	r = begin(&g);
	assert_int_equal(ghostmem_put(r, 0, a, SIZE), 0);
	look();
	assert_memory_equal(w.memory, a, SIZE);
	assert_int_equal(ghostmem_get(r, 0, b, SIZE), 0);
	assert_memory_equal(a, b, SIZE);
	for (unsigned int i = 0; i < 200; i++) {
		memset(small[i], (int)i + 1, sizeof(small[i]));
		v[i] = (struct ghostmem_vec){ 8192 + i * 5000, small[i], 32 };
	}
	assert_int_equal(ghostmem_putv(r, v, 200), 0);
	look();
	for (unsigned int i = 0; i < 200; i++)
		assert_memory_equal(w.memory + v[i].off, small[i], 32);
	memset(small, 0, sizeof(small));
	assert_int_equal(ghostmem_getv(r, v, 200), 0);
	look();
	for (unsigned int i = 0; i < 200; i++)
		assert_memory_equal(w.memory + v[i].off, small[i], 32);
	assert_true(w.epoch > 10);
	end(g);
	free(a);
	free(b);
}

/* ---- a child ---------------------------------------------------------------------- */

static int free_port(void)
{
	struct sockaddr_in sin = { .sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(sin);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&sin, len), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sin, &len), 0);
	close(fd);
	return ntohs(sin.sin_port);
}

/* What a forked child closes is its own: its parent's connection stays, though both know
 * the session's keys. */
static void test_child(void **state)
{
	struct tls_conf conf = { .mode = TLS_PSK, .dir = dir };
	char file[64], unix_addr[64];
	struct ghostmem_region *r;
	struct net_tls *tls;
	struct ghostmem *g;
	uint64_t v = 7;
	pid_t pid;
	FILE *f;
	int st;

	snprintf(file, sizeof(file), "%s/keys.psk", dir);
	f = fopen(file, "w");
	assert_non_null(f);
	fputs(NET_TLS_USER ":0123456789abcdef0123456789abcdef\n", f);
	fclose(f);
	assert_int_equal(net_tls_create(&conf, true, NULL, &tls), 0);
	strcpy(unix_addr, addr[1]);
	snprintf(addr[1], sizeof(addr[1]), "tls:127.0.0.1:%d", free_port());
	w.tls = tls;
	r = begin(&g);
	assert_int_equal(ghostmem_put(r, 8, &v, sizeof(v)), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		alarm(20);
		ghostmem_close(g);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &st, 0), pid);
	assert_int_equal(st, 0);
	v = 0;
	assert_int_equal(ghostmem_get(r, 8, &v, sizeof(v)), 0);
	assert_int_equal(v, 7);
	look();
	assert_int_equal(w.connections, 1);
	strcpy(addr[1], unix_addr);
	end(g);
	net_tls_destroy(tls);
	unlink(file);
}

/* ---- a barrier -------------------------------------------------------------------- */

#define ROUND (1ull << 32)

/* A waits for one other, and leaves. Just before, that one comes. */
static int last_comes(const struct gm_hdr *h)
{
	uint64_t *word = (uint64_t *)w.memory;

	if (h->op == GM_OP_CAS && *word == 1)
		*word = 2;
	return DO;
}

static void test_barrier_left(void **state)
{
	struct ghostmem_region *r;
	struct ghostmem *g;

	w.rule = last_comes;
	r = begin(&g);
	assert_int_equal(ghostmem_barrier(r, 0, 2, 1), 0);
	look();
	assert_true(*(uint64_t *)w.memory == ROUND);
	end(g);
}

/* A comes last, and before it can end the round one that waits has seen that all are there,
 * and come again for the next one. */
static int others_go_on(const struct gm_hdr *h)
{
	uint64_t *word = (uint64_t *)w.memory;

	if (h->op != GM_OP_GET && *word == 2)
		*word = ROUND + 1;
	return DO;
}

static void test_barrier_ended(void **state)
{
	struct ghostmem_region *r;
	struct ghostmem *g;
	uint64_t old;

	w.rule = others_go_on;
	r = begin(&g);
	assert_int_equal(ghostmem_fetch_add(r, 0, 1, &old), 0);
	assert_int_equal(ghostmem_barrier(r, 0, 2, WAIT_MS), 0);
	look();
	assert_true(*(uint64_t *)w.memory == ROUND + 1);
	end(g);
}

/* ---- signals ---------------------------------------------------------------------- */

static int silent(const struct gm_hdr *h)
{
	return SILENT;
}

static volatile sig_atomic_t ticks;

static void tick(int sig)
{
	static const struct itimerval off;

	if (++ticks == 500) /* for ever, were it not for this */
		setitimer(ITIMER_REAL, &off, NULL);
}

/* A signal, and another one, put off the end of no call. */
static void test_signals(void **state)
{
	static const struct itimerval often = { { 0, 20000 }, { 0, 20000 } }, off;
	struct sigaction sa = { .sa_handler = tick }, old;
	struct ghostmem_region *r;
	struct ghostmem *g;
	uint64_t v;

	w.rule = silent;
	r = begin(&g);
	assert_int_equal(sigaction(SIGALRM, &sa, &old), 0);
	assert_int_equal(setitimer(ITIMER_REAL, &often, NULL), 0);
	assert_int_equal(ghostmem_get(r, 0, &v, sizeof(v)), -EIO);
	assert_int_equal(setitimer(ITIMER_REAL, &off, NULL), 0);
	assert_int_equal(sigaction(SIGALRM, &old, NULL), 0);
	assert_in_range(ticks, 1, 499);
	end(g);
}

/* ---- pages ------------------------------------------------------------------------ */

static unsigned int split;

/* Part of a page in one request, part of it in the next one */
static int count_split(const struct gm_hdr *h)
{
	uint64_t end = h->bus + h->size;

	split += end % GM_PAGE_SIZE && end != GM_BUS_MIN + 100 + 3 * MIB;
	return DO;
}

/* A page that was lost is whole again by one put of all of it, and so are those within a
 * large one, wherever that begins. */
static void test_whole_pages(void **state)
{
	uint8_t *a = malloc(3 * MIB);
	struct ghostmem_region *r;
	struct ghostmem *g;

	assert_non_null(a);
	memset(a, 9, 3 * MIB);
	w.rule = count_split;
	r = begin(&g);
	assert_int_equal(ghostmem_put(r, 100, a, 3 * MIB), 0);
	look();
	assert_int_equal(split, 0);
	assert_memory_equal(w.memory + 100, a, 3 * MIB);
	assert_int_equal(w.memory[99] || w.memory[100 + 3 * MIB], 0);
	end(g);
	free(a);
}

/* ---- time ------------------------------------------------------------------------- */

/* Not before the owner has given up who is silent, and as soon as the guide says. */
static void test_limit(void **state)
{
	for (uint32_t lease = 100; lease <= 60000; lease += 100) {
		struct ghostmem_region r = { .lease_ms = lease };

		assert_true(lib_limit_ms(&r) >= (int)lease * 9 / 8 + 500);
		assert_true(lib_limit_ms(&r) <= (int)lease + 1000 || lease > 2000);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_moves),	     cmocka_unit_test(test_child),
		cmocka_unit_test(test_barrier_left), cmocka_unit_test(test_barrier_ended),
		cmocka_unit_test(test_signals),	     cmocka_unit_test(test_whole_pages),
		cmocka_unit_test(test_limit),
	};
	int rc;

	if (!mkdtemp(dir))
		return 1;
	snprintf(agent_path, sizeof(agent_path), "%s/agent", dir);
	for (int i = 0; i < 2; i++)
		snprintf(addr[i], sizeof(addr[i]), "unix:%s/owner%d", dir, i);
	rc = cmocka_run_group_tests(tests, NULL, NULL);
	return rmdir(dir) ? 1 : rc;
}
