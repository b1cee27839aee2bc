// SPDX-License-Identifier: BSD-2-Clause
/*
 * vhost-user port: the connection to the front end: who is there, what it sends, and how
 * it ends. Contract in port_vhost.h; control thread.
 *
 * One front end at a time; others wait in the socket's backlog. When it leaves, its
 * rings, memory and descriptors go, and the port waits for the next one or, as a client,
 * connects again. A guest or front end that breaks a rule is closed the same way, with
 * one message; workers find out about rings and report through trouble_fd.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "port_vhost.h"
#include "../stat.h"
#include "../../lib/fds.h"
#include "../../lib/log.h"
#include "../../lib/unix_path.h"

#define RETRY_MIN_MS  50
#define RETRY_MAX_MS  2000
#define BACKLOG	      8	 /* front ends that wait for the one before */
#define MSG_BUDGET    64 /* messages handled before others get their turn */
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static void wait_for_front_end(struct vhost_port *vp);

/* ---- messages --------------------------------------------------------------------- */

/* The end of the connection tells the front end that nobody writes to its memory. */
static void hang_up(struct vhost_port *vp)
{
	loop_unwatch(vp->env->loop, vp->conn_watch);
	vp->conn_watch = NULL;
	vhost_quiet(vp);
	vu_dev_reset(&vp->dev);
	if (vp->conn_fd >= 0)
		close(vp->conn_fd);
	vp->conn_fd = -1;
	vu_msg_close(&vp->msg);
	vp->got = 0;
	vhost_go(vp);
}

/* Front ends of one port do not silence those of another. */
static void say(struct vhost_port *vp, enum log_level level, const char *what,
		const char *why)
{
	uint32_t held;

	if (!log_limit_ok(&vp->limit, &held))
		return;
	if (held)
		log_msg(level, "vhost-user %s: %s %s (%u messages more)", vp->conf.arg,
			what, why, held);
	else
		log_msg(level, "vhost-user %s: %s %s", vp->conf.arg, what, why);
}

/* The front end left. */
static void left(struct vhost_port *vp)
{
	say(vp, LOG_LVL_INFO, "front end", "disconnected");
	vp->retry_ms = RETRY_MIN_MS;
	hang_up(vp);
	wait_for_front_end(vp);
}

/* It, or its guest, broke a rule. */
static void fault(struct vhost_port *vp, const char *why)
{
	say(vp, LOG_LVL_ERROR, "closed its front end:", why);
	/* One that comes back at once with the same fault is not asked at once again. */
	vp->retry_ms *= 2;
	for (unsigned int i = 0; i < VU_MAX_RINGS; i++) {
		const struct vu_ring *r = &vp->dev.ring[i];

		if (r->vring && vring_broken(r->vring))
			vhost_signal(r->err);
	}
	hang_up(vp);
	/* The control thread is this counter's writer. */
	stat_add(&vp->p.queue[0]->stats.faults, 1);
	wait_for_front_end(vp);
}

static void on_trouble(void *arg, uint32_t events)
{
	struct vhost_port *vp = arg;
	const char *why;
	uint64_t n;

	if (read(vp->trouble_fd, &n, sizeof(n)) < 0 || vp->conn_fd < 0)
		return;
	vhost_quiet(vp);
	why = vu_dev_broken(&vp->dev);
	for (unsigned int i = 0; !why && i < vp->p.nqueues; i++)
		why = vhost_queue_of(vp, i)->trouble;
	/* The front end that had it may have left since, and another one come. */
	if (why)
		fault(vp, why);
	else
		vhost_go(vp);
}

/*
 * Read what there is of the message, and no byte of the next one: its descriptors
 * would come along. Return: 1: complete, 0: not yet, -errno; -ENODATA: the end
 */
static int read_message(struct vhost_port *vp)
{
	for (;;) {
		bool in_hdr = vp->got < VU_HDR_SIZE;
		uint32_t want = in_hdr ? VU_HDR_SIZE : VU_HDR_SIZE + vp->msg.size;
		uint8_t *to = in_hdr ? vp->hdr + vp->got
				     : vp->msg.payload + (vp->got - VU_HDR_SIZE);
		struct fds l = { vp->msg.fd, vp->msg.nfds, VU_MAX_FDS, false };
		ssize_t n;

		if (vp->got == want)
			return 1;
		n = fds_recv(vp->conn_fd, to, want - vp->got, &l, MSG_DONTWAIT);
		vp->msg.nfds = l.n;
		if (n < 0)
			return n == -EAGAIN || n == -EINTR ? 0 : (int)n;
		if (l.lost) {
			strcpy(vp->dev.why,
			       "more descriptors than a message can have, or "
			       "than this process may open");
			return -EPROTO;
		}
		if (!n)
			return -ENODATA;
		vp->got += (uint32_t)n;
		if (in_hdr && vp->got == VU_HDR_SIZE) {
			int err = vu_msg_header(&vp->dev, &vp->msg, vp->hdr);

			if (err)
				return err;
		}
	}
}

static int send_reply(struct vhost_port *vp, const struct vu_reply *r)
{
	const struct iovec iov = { (void *)r->buf, r->len };
	ssize_t n;

	if (!r->len)
		return 0;
	n = fds_send(vp->conn_fd, &iov, 1, &r->fd, r->fd >= 0,
		     MSG_DONTWAIT | MSG_NOSIGNAL);
	if (r->fd >= 0)
		close(r->fd);
	if (n == (ssize_t)r->len)
		return 0;
	strcpy(vp->dev.why, "it does not read replies");
	return -EIO;
}

void vhost_link(struct port *p, bool up)
{
	struct vhost_port *vp = (struct vhost_port *)p;
	struct vu_reply r;

	vu_dev_link(&vp->dev, up, &r);
	/* A front end that does not read them asks for the state when it wants it. */
	if (r.len && send(vp->dev.backend_fd, r.buf, r.len,
			  MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)r.len)
		say(vp, LOG_LVL_WARN,
		    "was not told of the link:", "its channel takes no message");
}

static void on_message(void *arg, uint32_t events)
{
	struct vhost_port *vp = arg;
	int err = 1;

	for (unsigned int i = 0; i < MSG_BUDGET; i++) {
		struct vu_reply r;

		vp->dev.why[0] = '\0';
		err = read_message(vp);
		if (err <= 0)
			break;
		vp->got = 0;
		err = vu_handle(&vp->dev, &vp->msg, &r);
		if (!err && vp->dev.why[0])
			say(vp, LOG_LVL_WARN, "refused", vp->dev.why);
		if (!err)
			err = send_reply(vp, &r);
		if (err)
			break;
	}
	if (err == -ENODATA || err == -ECONNRESET)
		left(vp);
	else if (err < 0)
		fault(vp, vp->dev.why[0] ? vp->dev.why : strerror(-err));
}

/* ---- who is there --------------------------------------------------------------- */

static void connected(struct vhost_port *vp, int fd)
{
	int err;

	vp->conn_fd = fd;
	vp->got = 0;
	err = loop_watch(vp->env->loop, fd, EPOLLIN, on_message, vp, &vp->conn_watch);
	if (err) {
		fault(vp, strerror(-err));
		return;
	}
	say(vp, LOG_LVL_INFO, "front end", "connected");
}

static void on_listen(void *arg, uint32_t events)
{
	struct vhost_port *vp = arg;
	int fd = loop_accept(vp->env->loop, vp->listen_watch, vp->conf.arg);

	if (fd < 0)
		return;
	loop_unwatch(vp->env->loop, vp->listen_watch);
	vp->listen_watch = NULL;
	connected(vp, fd);
}

static void arm(struct vhost_port *vp, unsigned int ms)
{
	const struct itimerspec t = { .it_value = { .tv_sec = ms / 1000,
						    .tv_nsec = ms % 1000 * 1000000L } };

	timerfd_settime(vp->timer_fd, 0, &t, NULL);
}

/* Once for each reason. That nobody listens yet is none. */
static void say_not_there(struct vhost_port *vp, int err)
{
	if (err == vp->retry_err || err == -ENOENT || err == -ECONNREFUSED)
		return;
	vp->retry_err = err;
	log_warn("vhost-user %s: %s; %s", vp->conf.arg, strerror(-err),
		 err == -EACCES ? "root without CAP_DAC_OVERRIDE has to be able to write "
				  "to the front end's socket, see ghostnicd.conf(5)"
				: "tried again until the front end is there");
}

static void on_timer(void *arg, uint32_t events)
{
	struct vhost_port *vp = arg;
	uint64_t n;
	int fd;

	if (read(vp->timer_fd, &n, sizeof(n)) < 0 || vp->conn_fd >= 0)
		return;
	fd = unix_connect(vp->conf.arg, SOCK_STREAM | SOCK_NONBLOCK);
	if (fd >= 0) {
		vp->retry_err = 0;
		connected(vp, fd);
		return;
	}
	say_not_there(vp, fd);
	vp->retry_ms = vp->retry_ms * 2 < RETRY_MAX_MS ? vp->retry_ms * 2 : RETRY_MAX_MS;
	arm(vp, vp->retry_ms);
}

/* Nobody is connected. */
static void wait_for_front_end(struct vhost_port *vp)
{
	int err;

	if (vp->conf.client) {
		if (vp->retry_ms > RETRY_MAX_MS)
			vp->retry_ms = RETRY_MAX_MS;
		arm(vp, vp->retry_ms);
		return;
	}
	err = loop_watch(vp->env->loop, vp->listen_fd, EPOLLIN, on_listen, vp,
			 &vp->listen_watch);
	if (err)
		log_err("vhost-user %s: takes no front end any more: %s", vp->conf.arg,
			strerror(-err));
}

int vhost_conn_open(struct vhost_port *vp)
{
	struct loop *l = vp->env->loop;
	int err;

	vp->trouble_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (vp->trouble_fd < 0)
		return -errno;
	err = loop_watch(l, vp->trouble_fd, EPOLLIN, on_trouble, vp, &vp->trouble_watch);
	if (err)
		return err;
	if (!vp->conf.client) {
		vp->listen_fd = unix_listen(vp->conf.arg, SOCK_STREAM | SOCK_NONBLOCK,
					    UNIX_MODE_DIR, BACKLOG);
		if (vp->listen_fd < 0)
			return vp->listen_fd;
		wait_for_front_end(vp);
		return 0;
	}
	vp->retry_ms = RETRY_MIN_MS;
	vp->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (vp->timer_fd < 0)
		return -errno;
	err = loop_watch(l, vp->timer_fd, EPOLLIN, on_timer, vp, &vp->timer_watch);
	if (!err)
		wait_for_front_end(vp);
	return err;
}

void vhost_conn_close(struct vhost_port *vp)
{
	struct loop *l = vp->env->loop;
	const int fds[] = { vp->listen_fd, vp->timer_fd, vp->trouble_fd };

	if (vp->p.queue)
		hang_up(vp);
	loop_unwatch(l, vp->listen_watch);
	loop_unwatch(l, vp->timer_watch);
	loop_unwatch(l, vp->trouble_watch);
	if (vp->listen_fd >= 0)
		unlink(vp->conf.arg);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
}
