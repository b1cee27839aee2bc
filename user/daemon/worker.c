// SPDX-License-Identifier: BSD-2-Clause
/*
 * worker: the thread of one queue. Contract in worker.h.
 *
 * One round: receive a burst; now and then, or when there was none, look at
 * everything else through epoll (ports with frames to send, the flood socket,
 * calls from the control thread). When nothing happens the epoll_wait() is where
 * the thread sleeps, so whatever has work must be readable there. What an instance has to
 * send while it must not, by its rate, is not asked for until it may.
 */
#include <errno.h>
#include <sched.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "../lib/clock.h"
#include "flood.h"
#include "nap.h"
#include "rx.h"
#include "stat.h"
#include "tx.h"
#include "worker.h"
#include "../lib/log.h"

#define IO_MIN_NS 20000 /* between looks at the other descriptors under load */
#define IO_MAX_NS 160000
#define LULL_NS	  2000000 /* silence until a worker that never sleeps watches its socket */
/* Bursts without a sleep, after which nothing waits on the socket: a wait queue that is
 * not empty costs the driver's CPU a locked walk to this thread's epoll each burst. */
#define AWAKE_BURSTS 64
#define STALL_NS     10000000 /* try a link that is down again */
#define MAX_EVENTS   64
#define ETH_OVERHEAD 22 /* bytes: Ethernet header and two VLAN tags */

struct worker_call {
	void (*fn)(struct worker *w, void *arg);
	void *arg;
	sem_t done;
};

/* epoll data: which descriptor. Instances are told by their slot. */
enum { EV_XSK = GN_MAX_INSTANCES, EV_WAKE, EV_FLOOD };

static int watch(struct worker *w, int fd, uint64_t what)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = what };

	return epoll_ctl(w->epfd, EPOLL_CTL_ADD, fd, &ev) ? -errno : 0;
}

static void unwatch(struct worker *w, int fd)
{
	epoll_ctl(w->epfd, EPOLL_CTL_DEL, fd, NULL);
}

/* A burst came without a sleep before it. */
static void stay_awake(struct worker *w)
{
	if (w->awake < AWAKE_BURSTS && ++w->awake == AWAKE_BURSTS && !w->gone)
		unwatch(w, w->xsk.fd);
}

/* Before a sleep, which frames have to end, and in a lull. Return: false: they cannot */
static bool watch_socket(struct worker *w)
{
	if (w->awake == AWAKE_BURSTS && !w->gone && watch(w, w->xsk.fd, EV_XSK))
		return false;
	w->awake = 0;
	return true;
}

/* Shall the thread see that @in has something to send? */
static void listen_to(struct worker *w, const struct instance *in, bool on)
{
	uint16_t slot = GN_INSTANCE_INDEX(in->id);
	struct epoll_event ev = { .events = on ? EPOLLIN : 0, .data.u64 = slot };

	epoll_ctl(w->epfd, EPOLL_CTL_MOD, worker_queue(w, in)->fd, &ev);
}

void worker_pause(struct worker *w, const struct instance *in, uint64_t until_ns)
{
	struct port_queue *q = worker_queue(w, in);

	if (q->paused_until)
		return;
	q->paused_until = until_ns;
	w->paused[w->npaused++] = GN_INSTANCE_INDEX(in->id);
	if (until_ns < w->pause_due)
		w->pause_due = until_ns;
	listen_to(w, in, false);
}

/* End the pauses that are over by @now_ns, and that of @del, which goes. */
static void resume(struct worker *w, uint64_t now_ns, const struct instance *del)
{
	uint32_t n = 0;

	w->pause_due = UINT64_MAX;
	for (uint32_t i = 0; i < w->npaused; i++) {
		const struct instance *in = w->view.slot[w->paused[i]];
		struct port_queue *q = worker_queue(w, in);

		if (in != del && q->paused_until > now_ns) {
			w->paused[n++] = w->paused[i];
			if (q->paused_until < w->pause_due)
				w->pause_due = q->paused_until;
			continue;
		}
		q->paused_until = 0;
		listen_to(w, in, true);
	}
	w->npaused = n;
}

int worker_create(const struct worker_conf *conf, struct worker **out)
{
	struct worker *w = calloc(1, sizeof(*w));
	/* A driver without a metadata area has it in front of the frame. */
	const uint32_t around = ETH_OVERHEAD + GN_META_SIZE;
	int err;

	if (!w)
		return -ENOMEM;
	w->conf = *conf;
	w->pause_due = UINT64_MAX;
	w->umem.fd = w->epfd = w->wakefd = -1;
	pthread_mutex_init(&w->call_lock, NULL);
	err = umem_init(&w->umem, conf->chunks, umem_chunk_size(conf->mtu + around));
	if (err) {
		log_err("%s: no memory for %u chunks: %s; lower --chunks", conf->ifname,
			conf->chunks, strerror(-err));
		goto fail;
	}
	err = mbuf_pool_init(&w->pool, w->umem.base, w->umem.nchunks, w->umem.chunk_size);
	if (!err)
		err = agg_init(&w->agg, &w->pool, &conf->agg);
	if (!err)
		err = inst_view_init(&w->view);
	if (!err)
		err = flow_init(&w->flows);
	if (err)
		goto fail;
	w->epfd = epoll_create1(EPOLL_CLOEXEC);
	w->wakefd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (w->epfd < 0 || w->wakefd < 0) {
		err = -errno;
		goto fail;
	}
	err = xsk_open(&w->xsk, conf->ifname, conf->queue, &w->umem, &w->pool);
	if (err)
		goto fail;
	if (conf->mtu + around > UMEM_FRAME_ROOM(w->umem.chunk_size)) {
		if (!w->xsk.multi_buffer) {
			log_err("%s: MTU %u needs multi-buffer AF_XDP (kernel 6.6): "
				"lower it to %u",
				conf->ifname, conf->mtu,
				UMEM_FRAME_ROOM(w->umem.chunk_size) - around);
			err = -EOPNOTSUPP;
			goto fail;
		}
		w->jumbo = malloc(PORT_MAX_FRAME);
		if (!w->jumbo) {
			err = -ENOMEM;
			goto fail;
		}
	}
	err = watch(w, w->xsk.fd, EV_XSK);
	if (!err)
		err = watch(w, w->wakefd, EV_WAKE);
	if (!err && conf->flood_fd >= 0)
		err = watch(w, conf->flood_fd, EV_FLOOD);
	if (err)
		goto fail;
	*out = w;
	return 0;
fail:
	worker_destroy(w);
	return err;
}

void worker_destroy(struct worker *w)
{
	if (!w)
		return;
	worker_stop(w);
	xsk_close(&w->xsk);
	if (w->wakefd >= 0)
		close(w->wakefd);
	if (w->epfd >= 0)
		close(w->epfd);
	flow_fini(&w->flows);
	inst_view_fini(&w->view);
	agg_fini(&w->agg);
	mbuf_pool_fini(&w->pool);
	umem_fini(&w->umem);
	pthread_mutex_destroy(&w->call_lock);
	free(w->jumbo);
	free(w);
}

static void instance_event(struct worker *w, uint32_t slot)
{
	struct instance *in = w->view.slot[slot];
	int r = in ? tx_instance(w, in) : 0;

	if (r < 0) {
		log_err("%s: port of instance %s failed: %s; remove the instance and add "
			"it again",
			w->conf.ifname, in->conf.name, strerror(-r));
		unwatch(w, worker_queue(w, in)->fd);
	}
}

/* The interface was deleted, or its driver gave the queue up. */
static void socket_event(struct worker *w, uint32_t events)
{
	int err = 0;
	socklen_t len = sizeof(err);

	if (!(events & (EPOLLERR | EPOLLHUP)))
		return; /* readable: the round's rx_burst() is for that */
	getsockopt(w->xsk.fd, SOL_SOCKET, SO_ERROR, &err, &len);
	log_err("%s: queue %u is gone: %s; attach and start again when the interface is "
		"back",
		w->conf.ifname, w->conf.queue, strerror(err ? err : ENETDOWN));
	unwatch(w, w->xsk.fd);
	w->gone = true;
}

/* Wait at most @wait_ns (0: look only) and serve what is ready. Return: events but for
 * received frames */
static unsigned int serve(struct worker *w, uint64_t wait_ns)
{
	struct epoll_event ev[MAX_EVENTS];
	struct timespec ts = { .tv_sec = (time_t)(wait_ns / 1000000000),
			       .tv_nsec = (long)(wait_ns % 1000000000) };
	unsigned int served = 0;
	uint64_t wakes;
	int n;

	if (w->npaused)
		resume(w, clock_ns(), NULL);
	n = epoll_pwait2(w->epfd, ev, MAX_EVENTS, wait_ns == UINT64_MAX ? NULL : &ts,
			 NULL);
	for (int i = 0; i < n; i++) {
		served += ev[i].data.u64 != EV_XSK;
		switch (ev[i].data.u64) {
		case EV_XSK: socket_event(w, ev[i].events); break;
		case EV_WAKE:
			if (read(w->wakefd, &wakes, sizeof(wakes)) < 0)
				log_debug("wake-up without a count");
			break;
		case EV_FLOOD: flood_receive(w); break;
		default: instance_event(w, (uint32_t)ev[i].data.u64);
		}
	}
	if (w->xsk.need_kick || w->xsk.tx_out)
		xsk_tx_kick(&w->xsk);
	return served;
}

/* Is the next burst worth waiting for awake? */
static bool stays_awake(const struct worker *w, const struct nap *nap, uint64_t idle_ns)
{
	return w->conf.poll == POLL_BUSY ||
	       (w->conf.poll == POLL_ADAPTIVE && nap_stays_awake(nap, idle_ns));
}

/* How long this worker may sleep now, ns. */
static uint64_t sleep_ns(const struct worker *w, uint64_t now_ns)
{
	uint64_t deadline = agg_deadline(&w->agg), kick;

	if (w->pause_due < deadline)
		deadline = w->pause_due;
	/* Descriptors that the kernel has just refused: come back soon. */
	kick = now_ns + (w->xsk.stalled ? STALL_NS : IO_MIN_NS);
	if (w->xsk.need_kick && kick < deadline)
		deadline = kick;
	if (deadline == UINT64_MAX)
		return UINT64_MAX;
	return deadline > now_ns ? deadline - now_ns : 0;
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	uint64_t now = clock_ns(), last_rx = now, next_io = 0;
	uint64_t io_interval = IO_MIN_NS, wait;
	unsigned int received = 0;
	struct nap nap;

	nap_init(&nap);

	while (!w->stopping) {
		/* Acquire pairs with worker_call()'s release: fn and arg are there. */
		struct worker_call *c =
			atomic_load_explicit(&w->call, memory_order_acquire);

		if (c) {
			atomic_store_explicit(&w->call, NULL, memory_order_relaxed);
			c->fn(w, c->arg);
			sem_post(&c->done);
			continue;
		}
		now = clock_ns();
		if (received)
			nap_work(&nap, now - last_rx);
		received = rx_burst(w, now);
		wait = 0;
		if (received) {
			nap_burst(&nap, now, now - last_rx, received);
			last_rx = now;
			stay_awake(w);
		} else {
			if (agg_deadline(&w->agg) <= now)
				rx_flush(w, now);
			if (!stays_awake(w, &nap, now - last_rx))
				wait = sleep_ns(w, now);
			if (wait) {
				stat_add(&w->stats.sleeps, 1);
				xsk_rx_deep(&w->xsk);
				xsk_refill(&w->xsk);
			}
			if ((wait || now - last_rx >= LULL_NS) && !watch_socket(w))
				wait = IO_MIN_NS;
		}
		if (!wait && now < next_io)
			continue;
		/* Awake, a look that finds nothing is put off for longer. */
		if (serve(w, wait) || wait)
			io_interval = IO_MIN_NS;
		else if (io_interval < IO_MAX_NS)
			io_interval *= 2;
		next_io = (wait ? clock_ns() : now) + io_interval;
	}
	return NULL;
}

/* What is in the stream before the first frame may come is nobody's. */
static void seek_stream(struct worker *w)
{
	uint32_t prod;

	if (!w->conf.stream)
		return;
	prod = __atomic_load_n(&w->conf.stream->prod, __ATOMIC_ACQUIRE);
	w->records.s = w->conf.stream;
	stream_seek(&w->records, prod);
	__atomic_store_n(&w->conf.stream->cons, prod, __ATOMIC_RELEASE);
}

int worker_start(struct worker *w)
{
	char name[16];
	int err;

	seek_stream(w);
	err = pthread_create(&w->thread, NULL, worker_main, w);
	if (err)
		return -err;
	w->started = true;
	snprintf(name, sizeof(name), "rx-%u-%.8s", w->conf.queue, w->conf.ifname);
	pthread_setname_np(w->thread, name);
	if (w->conf.cpu >= 0) {
		cpu_set_t set;

		CPU_ZERO(&set);
		CPU_SET((unsigned int)w->conf.cpu, &set);
		if (pthread_setaffinity_np(w->thread, sizeof(set), &set))
			log_warn("%s: queue %u: cannot pin to CPU %d", w->conf.ifname,
				 w->conf.queue, w->conf.cpu);
	}
	return 0;
}

void worker_call(struct worker *w, void (*fn)(struct worker *w, void *arg), void *arg)
{
	struct worker_call c = { .fn = fn, .arg = arg };
	const uint64_t one = 1;

	if (!w->started) {
		fn(w, arg);
		return;
	}
	sem_init(&c.done, 0, 0);
	pthread_mutex_lock(&w->call_lock);
	atomic_store_explicit(&w->call, &c, memory_order_release);
	if (write(w->wakefd, &one, sizeof(one)) < 0)
		log_debug("wake-up pending already");
	while (sem_wait(&c.done) && errno == EINTR)
		;
	pthread_mutex_unlock(&w->call_lock);
	sem_destroy(&c.done);
}

/* What has arrived is delivered: as many bursts as the RX ring can hold, no more, though
 * frames may come on. */
static void do_stop(struct worker *w, void *arg)
{
	for (unsigned int n = XSK_RX_SIZE / WORKER_BURST; n && rx_burst(w, clock_ns());
	     n--)
		;
	rx_flush(w, UINT64_MAX);
	w->stopping = true;
}

void worker_stop(struct worker *w)
{
	if (!w->started)
		return;
	worker_call(w, do_stop, NULL);
	pthread_join(w->thread, NULL);
	w->started = false;
}

static void do_add(struct worker *w, void *arg)
{
	struct instance *in = arg;
	int fd = worker_queue(w, in)->fd, err;

	inst_view_add(&w->view, in);
	if (in->port->rx_depth > w->xsk.least)
		w->xsk.least = in->port->rx_depth;
	/* A jumbo frame is several mbufs with one claim. */
	agg_later(&w->agg, in->id, in->port->reads && !w->jumbo);
	err = fd >= 0 ? watch(w, fd, GN_INSTANCE_INDEX(in->id)) : 0;
	if (err)
		log_err("%s: instance %s cannot send: %s", w->conf.ifname, in->conf.name,
			strerror(-err));
}

static void do_del(struct worker *w, void *arg)
{
	struct instance *in = arg;
	int fd = worker_queue(w, in)->fd;

	rx_flush(w, UINT64_MAX);
	agg_later(&w->agg, in->id, false);
	resume(w, 0, in);
	if (fd >= 0)
		unwatch(w, fd);
	inst_view_del(&w->view, in);
}

void worker_add_instance(struct worker *w, struct instance *in)
{
	worker_call(w, do_add, in);
}

void worker_del_instance(struct worker *w, struct instance *in)
{
	worker_call(w, do_del, in);
}
