// SPDX-License-Identifier: BSD-2-Clause
/*
 * The shared-memory port with its real client: sockets, umem and rings are real, what a
 * client maps is what another process would. A thread runs the control loop, the test is
 * the worker; a lock stands for "between two bursts".
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../user/daemon/port.h"
#include "../../user/daemon/umem.h"
#include "../../user/lib/ghostnic.h"
#include "../../user/lib/log.h"

#define CHUNKS	1024
#define WAIT_MS 30000

struct fix {
	struct umem umem;
	struct mbuf_pool pool;
	struct loop *loop;
	struct loop_watch *end_watch;
	struct port_env env;
	struct port *port;
	struct port_queue *q;
	struct ghostnic_port *client;
	pthread_t control;
	pthread_mutex_t burst; /* held by who is on the worker */
	int endfd;
	char path[64];
};

static void env_call(void *owner, unsigned int queue, void (*fn)(void *arg), void *arg)
{
	struct fix *f = owner;

	pthread_mutex_lock(&f->burst);
	fn(arg);
	pthread_mutex_unlock(&f->burst);
}

static void env_changed(void *owner)
{
}

static void env_mem(void *owner, unsigned int queue, struct mbuf_pool **pool,
		    const struct umem **umem)
{
	struct fix *f = owner;

	*pool = &f->pool;
	*umem = &f->umem;
}

static void on_end(void *arg, uint32_t events)
{
	loop_stop(arg);
}

static void *control_main(void *arg)
{
	return (void *)(intptr_t)loop_run(arg);
}

static int open_port(struct fix *f, uint32_t hold, struct port **out)
{
	struct port_conf conf = {
		.hold = hold, .mtu = 1500, .vlan = 9, .mac = { 2, 0, 0, 0, 0, 7 }
	};

	snprintf(conf.arg, sizeof(conf.arg), "%s", f->path);
	return port_find("shm")->open(&conf, &f->env, 1, out);
}

static int setup(void **state)
{
	struct fix *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	log_set_level(LOG_LVL_ERROR);
	snprintf(f->path, sizeof(f->path), "/tmp/test_port_shm.%d", (int)getpid());
	assert_int_equal(umem_init(&f->umem, CHUNKS, 2048), 0);
	assert_int_equal(mbuf_pool_init(&f->pool, f->umem.base, CHUNKS, 2048), 0);
	assert_int_equal(loop_create(&f->loop), 0);
	pthread_mutex_init(&f->burst, NULL);
	f->env = (struct port_env){ .loop = f->loop,
				    .owner = f,
				    .call = env_call,
				    .changed = env_changed,
				    .mem = env_mem };
	f->endfd = eventfd(0, EFD_NONBLOCK);
	assert_int_equal(
		loop_watch(f->loop, f->endfd, EPOLLIN, on_end, f->loop, &f->end_watch),
		0);
	assert_int_equal(open_port(f, 0, &f->port), 0);
	f->q = f->port->queue[0];
	assert_int_equal(pthread_create(&f->control, NULL, control_main, f->loop), 0);
	assert_int_equal(ghostnic_port_connect(f->path, WAIT_MS, &f->client), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fix *f = *state;
	const uint64_t one = 1;

	ghostnic_port_close(f->client);
	assert_int_equal(write(f->endfd, &one, sizeof(one)), sizeof(one));
	pthread_join(f->control, NULL);
	f->port->ops->close(f->port);
	assert_int_equal(access(f->path, F_OK), -1);
	/* Whatever happened, every chunk is back, and no promise is left. */
	assert_int_equal(f->pool.nfree, CHUNKS);
	assert_int_equal(f->pool.promised, 0);
	loop_destroy(f->loop);
	mbuf_pool_fini(&f->pool);
	umem_fini(&f->umem);
	close(f->endfd);
	free(f);
	return 0;
}

/* A lone frame of @n buffers, with @fill in each byte. */
static void deliver(struct fix *f, unsigned int n, uint8_t fill)
{
	struct mbuf *head = NULL, *last = NULL;

	pthread_mutex_lock(&f->burst);
	for (unsigned int i = 0; i < n; i++) {
		struct mbuf *m = mbuf_alloc(&f->pool);
		uint32_t idx;

		assert_non_null(m);
		idx = mbuf_index(&f->pool, m);
		memset(m, 0, sizeof(*m));
		m->addr = ((uint64_t)idx << f->pool.chunk_shift) + 256;
		m->len = 1000;
		m->next = MBUF_NONE;
		memset(mbuf_data(&f->pool, m), fill, m->len);
		if (last)
			last->next = idx;
		else
			head = m;
		last = m;
		head->tail = idx;
	}
	head->nbufs = (uint8_t)n;
	head->nsegs = 1;
	head->total = n * 1000;
	head->meta.flow = 77;
	f->port->ops->deliver(f->q, &f->pool, &head, 1);
	pthread_mutex_unlock(&f->burst);
}

static bool fetch(struct fix *f, struct gso_frame *fr)
{
	int n;

	pthread_mutex_lock(&f->burst);
	n = f->port->ops->fetch(f->q, fr);
	pthread_mutex_unlock(&f->burst);
	assert_true(n >= 0);
	return n;
}

static uint32_t nfree(struct fix *f)
{
	uint32_t n;

	pthread_mutex_lock(&f->burst);
	n = f->pool.nfree;
	pthread_mutex_unlock(&f->burst);
	return n;
}

/* Poll the worker until all chunks are free. */
static void all_back(struct fix *f)
{
	struct gso_frame fr;

	for (int i = 0; nfree(f) != CHUNKS && i < WAIT_MS; i++) {
		fetch(f, &fr);
		poll(NULL, 0, 1);
	}
	assert_int_equal(nfree(f), CHUNKS);
}

static int receive(struct fix *f, struct ghostnic_packet *pkt, struct iovec *iov)
{
	assert_int_equal(ghostnic_port_wait(f->client, 0, WAIT_MS), 1);
	return ghostnic_port_receive(f->client, 0, pkt, 1, iov, GHOSTNIC_PORT_MAX_IOV);
}

static void lends_packets_in_place(void **state)
{
	struct iovec iov[GHOSTNIC_PORT_MAX_IOV];
	struct ghostnic_packet pkt;
	struct fix *f = *state;

	assert_int_equal(ghostnic_port_get_info(f->client)->queues, 1);
	assert_int_equal(ghostnic_port_get_info(f->client)->mtu, 1500);
	assert_int_equal(ghostnic_port_get_info(f->client)->vlan, 9);
	assert_int_equal(ghostnic_port_get_info(f->client)->mac[5], 7);
	deliver(f, 3, 0x5a);
	assert_int_equal(nfree(f), CHUNKS - 3);
	assert_int_equal(receive(f, &pkt, iov), 1);
	assert_int_equal(pkt.niov, 3);
	assert_int_equal(pkt.len, 3000);
	assert_int_equal(pkt.packets, 1);
	assert_int_equal(pkt.flow, 77);
	/* The same bytes, not a copy: the daemon's write is seen. */
	assert_int_equal(((uint8_t *)iov[1].iov_base)[999], 0x5a);
	memset((uint8_t *)f->umem.base, 0xa5, f->umem.size);
	assert_int_equal(((uint8_t *)iov[1].iov_base)[999], 0xa5);
	/* And nobody else's. */
	assert_int_equal(mprotect((void *)((uintptr_t)iov[0].iov_base & ~4095UL), 4096,
				  PROT_READ | PROT_WRITE),
			 -1);
	assert_ptr_equal(
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, f->umem.fd, 0),
		MAP_FAILED);
	assert_int_equal(pwrite(f->umem.fd, "x", 1, 0), -1);
	ghostnic_port_release(f->client, 0, &pkt, 1);
	all_back(f);
	assert_int_equal(f->q->stats.rx_frames, 1);
}

static void wakes_a_sleeper(void **state)
{
	struct fix *f = *state;
	struct pollfd p = { ghostnic_port_fd(f->client, 0), POLLIN, 0 };

	assert_int_equal(ghostnic_port_arm(f->client, 0), 0);
	assert_int_equal(poll(&p, 1, 0), 0);
	deliver(f, 1, 1);
	assert_int_equal(poll(&p, 1, WAIT_MS), 1);
	assert_int_equal(ghostnic_port_arm(f->client, 0), 1);
	/* Awake: no ring. */
	deliver(f, 1, 1);
	assert_int_equal(poll(&p, 1, 0), 0);
}

static void copies_local_frames(void **state)
{
	struct iovec iov[GHOSTNIC_PORT_MAX_IOV];
	struct ghostnic_packet pkt;
	struct fix *f = *state;
	static uint8_t frame[PORT_MAX_FRAME];
	const struct iovec v = { frame, sizeof(frame) };
	const struct gso_frame g = {
		.vh = { .gso_size = 1448 }, .iov = &v, .niov = 1, .len = sizeof(frame)
	};

	frame[sizeof(frame) - 1] = 9;
	pthread_mutex_lock(&f->burst);
	f->port->ops->inject(f->q, &g);
	pthread_mutex_unlock(&f->burst);
	frame[sizeof(frame) - 1] = 0;
	assert_int_equal(receive(f, &pkt, iov), 1);
	assert_int_equal(pkt.len, sizeof(frame));
	assert_int_equal(pkt.packets, 0);
	assert_int_equal(pkt.vh.gso_size, 1448);
	assert_int_equal(
		((uint8_t *)iov[pkt.niov - 1].iov_base)[iov[pkt.niov - 1].iov_len - 1],
		9);
	assert_int_equal(nfree(f), CHUNKS);
}

static void takes_frames(void **state)
{
	struct fix *f = *state;
	struct pollfd p = { f->q->fd, POLLIN, 0 };
	uint8_t frame[100] = { 1, 2, 3 };
	const struct iovec v[2] = { { frame, 60 }, { frame + 60, 40 } };
	struct gso_frame g;

	assert_int_equal(poll(&p, 1, 0), 0);
	assert_int_equal(ghostnic_port_send(f->client, 0, NULL, v, 0), -EMSGSIZE);
	for (int i = 0; i < 3; i++)
		assert_int_equal(ghostnic_port_send(f->client, 0, NULL, v, 2), 0);
	assert_false(fetch(f, &g)); /* not flushed */
	ghostnic_port_flush(f->client, 0);
	assert_int_equal(poll(&p, 1, WAIT_MS), 1);
	for (int i = 0; i < 3; i++) {
		assert_true(fetch(f, &g));
		assert_int_equal(g.len, 100);
		assert_memory_equal(g.iov[0].iov_base, frame, 100);
	}
	assert_int_equal(poll(&p, 1, 0), 1); /* until it was found empty */
	assert_false(fetch(f, &g));
	assert_int_equal(poll(&p, 1, 0), 0);
	for (int i = 0; !ghostnic_port_send(f->client, 0, NULL, v, 2); i++)
		assert_true(i < 10000);
	assert_int_equal(ghostnic_port_send(f->client, 0, NULL, v, 2), -EAGAIN);
}

static void has_one_client(void **state)
{
	struct ghostnic_port *second = NULL;
	struct fix *f = *state;

	assert_int_equal(ghostnic_port_connect(f->path, WAIT_MS, &second), -EBUSY);
	assert_null(second);
	deliver(f, 2, 1); /* for teardown: held by a client that leaves */
	assert_int_equal(nfree(f), CHUNKS - 2);
	ghostnic_port_close(f->client);
	f->client = NULL;
	all_back(f);
	deliver(f, 2, 1); /* nobody there */
	assert_int_equal(nfree(f), CHUNKS);
	assert_int_equal(f->q->stats.rx_dropped, 1);
	/* Its end reaches the control thread, then the next one is welcome. */
	for (int i = 0; i < WAIT_MS; i++) {
		int err = ghostnic_port_connect(f->path, WAIT_MS, &f->client);

		if (!err)
			break;
		assert_int_equal(err, -EBUSY);
		poll(NULL, 0, 1);
	}
	assert_non_null(f->client);
	deliver(f, 1, 1);
	assert_int_equal(ghostnic_port_wait(f->client, 0, WAIT_MS), 1);
}

static void drops_what_is_too_much(void **state)
{
	struct iovec iov[GHOSTNIC_PORT_MAX_IOV];
	struct ghostnic_packet pkt;
	struct fix *f = *state;

	for (unsigned int i = 0; i < CHUNKS / 4; i++)
		deliver(f, 1, 1);
	assert_int_equal(f->q->stats.rx_dropped, 0);
	deliver(f, 1, 1);
	assert_int_equal(f->q->stats.rx_dropped, 1);
	assert_int_equal(ghostnic_port_lost(f->client), 1);
	assert_int_equal(nfree(f), CHUNKS - CHUNKS / 4);
	assert_int_equal(receive(f, &pkt, iov), 1);
	ghostnic_port_release(f->client, 0, &pkt, 1);
	deliver(f, 1, 1);
	assert_int_equal(f->q->stats.rx_dropped, 1);
}

static void throws_out_who_hoards(void **state)
{
	struct fix *f = *state;
	int r = 0;

	for (unsigned int i = 0; i < CHUNKS / 4; i++)
		deliver(f, 1, 1);
	log_set_level(LOG_LVL_ERROR);
	for (int i = 0; i < WAIT_MS && nfree(f) != CHUNKS; i++) {
		deliver(f, 1, 1);
		poll(NULL, 0, 1);
	}
	assert_int_equal(nfree(f), CHUNKS);
	for (int i = 0; r >= 0 && i < WAIT_MS; i++) {
		struct iovec iov[GHOSTNIC_PORT_MAX_IOV];
		struct ghostnic_packet pkt;

		while (ghostnic_port_receive(f->client, 0, &pkt, 1, iov,
					     GHOSTNIC_PORT_MAX_IOV) == 1)
			;
		r = ghostnic_port_wait(f->client, 0, 100);
	}
	assert_int_equal(r, -EPIPE);
}

static void promises_no_more_than_there_is(void **state)
{
	struct fix *f = *state;
	struct port *other = NULL;

	strcat(f->path, ".2");
	log_set_level(LOG_LVL_ERROR);
	assert_int_equal(open_port(f, CHUNKS / 4, &other), -ENOSPC);
	assert_int_equal(f->pool.promised, CHUNKS / 4);
	f->path[strlen(f->path) - 2] = '\0';
	/* The same socket, with what is left. */
	assert_int_equal(open_port(f, CHUNKS / 8, &other), -EADDRINUSE);
	assert_int_equal(f->pool.promised, CHUNKS / 4);
	assert_null(other);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(lends_packets_in_place), TEST(wakes_a_sleeper),
		TEST(copies_local_frames),    TEST(takes_frames),
		TEST(has_one_client),	      TEST(drops_what_is_too_much),
		TEST(throws_out_who_hoards),  TEST(promises_no_more_than_there_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
