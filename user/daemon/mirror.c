// SPDX-License-Identifier: BSD-2-Clause
/*
 * mirror: frames of an instance, copied for someone else. Contract in mirror.h.
 *
 * A client takes one of the instances; a second one is refused. One that breaks a rule of
 * the rings is disconnected like the client of a port; it has no chunk of anyone's.
 */
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "mirror.h"
#include "shm_conn.h"
#include "../lib/log.h"

#define SLOTS	   4096 /* of SHM_SLOT_SIZE: 8 MiB a queue, while a capture runs */
#define MAX_ASKING 8	/* connections that have not said yet what they want */

struct mirror_queue {
	struct shm_chan *chan;
	uint32_t snaplen;
	bool segments;
	uint8_t *scratch; /* [PORT_MAX_FRAME] a segment before it is copied */
};

/* A capture that runs. */
struct mirror {
	struct instance *in;
	struct shm_client *client;
	struct mirror_queue *queue; /* [in->port->nqueues] */
	unsigned int nqueues;
};

/* A connection whose request is not here yet. */
struct asking {
	struct mirror_server *s;
	struct loop_watch *watch;
	int conn;
	pid_t pid;
};

struct mirror_server {
	struct daemon *d;
	struct loop_watch *watch;
	int listen_fd;
	char path[128];
	struct asking asking[MAX_ASKING];
};

/* ---- worker --------------------------------------------------------------------- */

static uint64_t wall_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* What a frame is to the capture, beside its bytes. */
struct about {
	uint64_t time_ns;
	uint32_t flow;
	uint8_t packets;
	bool out;
};

static void copy(struct mirror_queue *m, const struct gso_frame *f, const struct about *a)
{
	struct shm_ring *r = &m->chan->ring;
	uint32_t len = f->len < m->snaplen ? f->len : m->snaplen;
	struct gn_shm_pkt *pkt = shm_ring_copy(r, f->iov, f->niov, len);

	if (!pkt) {
		shm_ring_lose(r, a->packets ? a->packets : 1);
		return;
	}
	pkt->time_ns = a->time_ns;
	pkt->flow = a->flow;
	pkt->wire_len = f->len;
	pkt->vh = f->vh;
	pkt->packets = a->packets;
	pkt->flags = GN_SHM_PKT_DATA | (a->out ? GN_SHM_PKT_OUT : 0);
}

/* gso_segment()'s sink: a segment is complete when the next one is asked for. */
struct cut {
	struct gso_sink sink;
	struct mirror_queue *m;
	const struct about *about;
	uint32_t len; /* of what lies in scratch, 0: nothing */
};

static void cut_put(struct cut *c)
{
	struct iovec iov = { c->m->scratch, c->len };
	const struct gso_frame f = { .iov = &iov, .niov = 1, .len = c->len };

	if (c->len)
		copy(c->m, &f, c->about);
	c->len = 0;
}

static void *cut_get(struct gso_sink *sink, uint32_t len)
{
	struct cut *c = (struct cut *)sink;

	cut_put(c);
	if (len > PORT_MAX_FRAME)
		return NULL;
	c->len = len;
	return c->m->scratch;
}

/* In segments, a lone frame whose checksum is partial is completed, too. What cannot be
 * cut, a carried checksum that is wrong for instance, is kept as it is. */
static void add(struct mirror_queue *m, const struct gso_frame *f, struct about *a)
{
	struct about one = { a->time_ns, a->flow, 1, a->out };
	struct cut c = { .sink.get = cut_get, .m = m, .about = &one };

	if (!m->segments || gso_segment(f, PORT_MAX_FRAME, 0, &c.sink) < 0) {
		copy(m, f, a);
		return;
	}
	cut_put(&c);
}

/* Take back what was given back; false: the client broke a rule */
static bool ready(struct mirror_queue *m)
{
	uint32_t none;

	if (shm_ring_reclaim(&m->chan->ring, &none, 1) >= 0)
		return true;
	shm_chan_break(m->chan, m->chan->ring.broken);
	return false;
}

static void publish(struct mirror_queue *m)
{
	if (shm_ring_publish(&m->chan->ring))
		shm_chan_ring(m->chan);
}

void mirror_chains(struct mirror_queue *m, struct mbuf_pool *pool, struct mbuf **head,
		   unsigned int n)
{
	struct iovec iov[PORT_MAX_IOV];
	struct about a = { .time_ns = wall_ns() };

	if (!ready(m))
		return;
	for (unsigned int i = 0; i < n; i++) {
		struct gso_frame f = { .iov = iov, .len = head[i]->total };

		gso_finish(pool, head[i], &f.vh);
		f.niov = mbuf_iov(pool, head[i], iov, PORT_MAX_IOV);
		a.flow = head[i]->meta.flow;
		a.packets = head[i]->nsegs;
		add(m, &f, &a);
	}
	publish(m);
}

void mirror_frame(struct mirror_queue *m, const struct gso_frame *f, bool out)
{
	struct about a = { .time_ns = wall_ns(), .out = out };

	if (!ready(m))
		return;
	add(m, f, &a);
	publish(m);
}

/* ---- captures --------------------------------------------------------------------- */

struct set {
	struct port_queue *q;
	struct mirror_queue *m;
};

static void set_mirror(void *arg)
{
	const struct set *s = arg;

	s->q->mirror = s->m;
}

static void set_all(struct mirror *m, bool on)
{
	for (unsigned int i = 0; i < m->nqueues; i++) {
		struct set s = { m->in->port->queue[i], on ? &m->queue[i] : NULL };

		m->in->env.call(m->in->env.owner, i, set_mirror, &s);
	}
}

static void mirror_free(struct mirror *m)
{
	shm_client_destroy(m->client);
	for (unsigned int i = 0; m->queue && i < m->nqueues; i++)
		free(m->queue[i].scratch);
	free(m->queue);
	free(m);
}

void mirror_stop(struct instance *in)
{
	struct mirror *m = in->mirror;

	if (!m)
		return;
	set_all(m, false);
	in->mirror = NULL;
	mirror_free(m);
}

static void on_gone(void *arg, const char *why)
{
	struct mirror *m = arg;

	/* Each of them, and each beginning: who read whose packets is not to be lost
	 * among others. Only root and the daemon's owner can. */
	log_msg(why ? LOG_LVL_WARN : LOG_LVL_INFO, "capture of %s by pid %d ends%s%s",
		m->in->conf.name, (int)m->client->pid, why ? ": " : "", why ? why : "");
	mirror_stop(m->in);
}

static int mirror_start(struct instance *in, const struct gn_shm_open *req, int conn,
			pid_t pid)
{
	const struct shm_ring_conf conf = { .nslots = SLOTS };
	struct gn_shm_hello hello = { .mtu = in->iface->mtu, .vlan = in->conf.vlan };
	struct mirror *m = calloc(1, sizeof(*m));
	int err = -ENOMEM;

	if (!m)
		return -ENOMEM;
	m->in = in;
	m->queue = calloc(in->port->nqueues, sizeof(*m->queue));
	if (!m->queue)
		goto fail;
	m->nqueues = in->port->nqueues;
	memcpy(hello.mac, in->conf.mac, sizeof(hello.mac));
	err = shm_client_create(in->iface->loop, conn, pid, m->nqueues, &conf, on_gone, m,
				&m->client);
	if (err)
		goto fail;
	for (unsigned int i = 0; i < m->nqueues; i++) {
		m->queue[i] = (struct mirror_queue){
			.chan = &m->client->chan[i],
			.snaplen = req->snaplen,
			.segments = req->flags & GN_SHM_OPEN_SEGMENTS,
			.scratch = malloc(PORT_MAX_FRAME),
		};
		if (!m->queue[i].scratch) {
			err = -ENOMEM;
			goto keep_conn;
		}
	}
	err = shm_client_welcome(m->client, &hello, NULL);
	if (err)
		goto keep_conn;
	in->mirror = m;
	set_all(m, true);
	return 0;
keep_conn:
	m->client->conn = -1; /* still the caller's */
fail:
	mirror_free(m);
	return err;
}

/* ---- requests --------------------------------------------------------------------- */

static bool terminated(const char *s, size_t n)
{
	return memchr(s, '\0', n);
}

static void serve(struct mirror_server *s, const struct gn_shm_open *req, int conn,
		  pid_t pid)
{
	struct instance *in = NULL;
	struct iface *i;
	int err;

	if (req->magic != GN_SHM_MAGIC || req->abi != GN_SHM_ABI || !req->snaplen ||
	    req->flags & ~GN_SHM_OPEN_SEGMENTS ||
	    !terminated(req->iface, sizeof(req->iface)) ||
	    !terminated(req->instance, sizeof(req->instance))) {
		shm_refuse(conn, -EPROTO, "not a request this daemon understands");
		return;
	}
	i = daemon_find_iface(s->d, req->iface);
	if (i)
		in = iface_find_instance(i, req->instance);
	if (!in) {
		shm_refuse(conn, -ENODEV, "no such instance");
		return;
	}
	if (in->mirror) {
		shm_refuse(conn, -EBUSY, "the instance is being captured already");
		return;
	}
	err = mirror_start(in, req, conn, pid);
	if (err)
		shm_refuse(conn, err, "the daemon has no memory or descriptors left");
	else
		log_info("capture of %s by pid %d", in->conf.name, (int)pid);
}

static void forget(struct asking *a)
{
	loop_unwatch(a->s->d->loop, a->watch);
	a->watch = NULL;
	a->conn = -1;
}

static void on_request(void *arg, uint32_t events)
{
	struct asking *a = arg;
	struct gn_shm_open req;
	ssize_t n = recv(a->conn, &req, sizeof(req), MSG_DONTWAIT);
	int conn = a->conn;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	forget(a);
	if (n == (ssize_t)sizeof(req))
		serve(a->s, &req, conn, a->pid);
	else
		close(conn);
}

static void on_listen(void *arg, uint32_t events)
{
	struct mirror_server *s = arg;
	struct asking *a = NULL;
	char who[48];
	pid_t pid;
	int conn = shm_accept(s->d->loop, s->watch, s->path, &pid, who, sizeof(who));

	if (conn < 0)
		return;
	for (unsigned int i = 0; i < MAX_ASKING && !a; i++)
		if (s->asking[i].conn < 0)
			a = &s->asking[i];
	if (!a) {
		/* Who waits without a word gives way. */
		int old = s->asking[0].conn;

		a = &s->asking[0];
		forget(a);
		close(old);
	}
	*a = (struct asking){ .s = s, .conn = conn, .pid = pid };
	if (loop_watch(s->d->loop, conn, EPOLLIN, on_request, a, &a->watch)) {
		a->conn = -1;
		close(conn);
	}
}

int mirror_listen(struct daemon *d, const char *ctl, struct mirror_server **out)
{
	struct mirror_server *s = calloc(1, sizeof(*s));
	int err;

	if (!s)
		return -ENOMEM;
	s->d = d;
	for (unsigned int i = 0; i < MAX_ASKING; i++)
		s->asking[i].conn = -1;
	snprintf(s->path, sizeof(s->path), "%s%s", ctl, GN_SHM_CAPTURE);
	s->listen_fd = shm_listen(s->path);
	err = s->listen_fd < 0 ? s->listen_fd
			       : loop_watch(d->loop, s->listen_fd, EPOLLIN, on_listen, s,
					    &s->watch);
	if (err) {
		mirror_unlisten(s);
		return err;
	}
	*out = s;
	return 0;
}

void mirror_unlisten(struct mirror_server *s)
{
	if (!s)
		return;
	for (unsigned int i = 0; i < MAX_ASKING; i++) {
		int conn = s->asking[i].conn;

		if (conn < 0)
			continue;
		forget(&s->asking[i]);
		close(conn);
	}
	loop_unwatch(s->d->loop, s->watch);
	shm_unlisten(s->listen_fd, s->path);
	free(s);
}
