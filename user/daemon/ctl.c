// SPDX-License-Identifier: BSD-2-Clause
/*
 * ctl: the bytes around ctl_handle(): listening, clients, buffers.
 *
 * A client's memory is bounded: one line of input and one answer, with at most
 * CTL_MAX_FDS descriptors. As long as an answer is not read, no further request is; a
 * client that stalls like that for STALL_MS loses its place as soon as another wants
 * it. Control thread.
 *
 * UNIX sockets: unix(7). Replacing the socket of a dead daemon is a check and
 * then an act; a lock on the directory keeps two starting daemons apart.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "ctl.h"
#include "../lib/fds.h"
#include "../lib/unix_path.h"
#include "../lib/log.h"

#define STALL_MS    2000
#define LOCK_MS	    2000 /* another daemon's start holds the lock for less */
#define SOCKET_MODE 0600
#define DIR_MODE    0755

struct client {
	int fd;	   /* -1: free */
	pid_t pid; /* for messages; SO_PEERCRED */
	size_t in_len;
	char *out; /* answer, or NULL; owned */
	size_t out_len, out_done;
	struct ctl_fds fds;   /* go with its first byte */
	uint64_t progress_ms; /* CLOCK_MONOTONIC, last byte read or written */
	bool eof;	      /* nothing more will come */
	bool doomed;	      /* close when the answer has gone */
	uint32_t events;      /* as registered */
	char in[CTL_MAX_LINE];
};

struct ctl {
	struct daemon *d;
	int epfd, listen_fd;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	dev_t dev; /* of the socket we made, so that we */
	ino_t ino; /* never unlink another's */
	struct client client[CTL_MAX_CLIENTS];
};

static uint64_t clock_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* ---- clients ------------------------------------------------------------------ */

static void client_close(struct client *cl)
{
	close(cl->fd); /* leaves the epoll set with it */
	ctl_fds_close(&cl->fds);
	free(cl->out);
	cl->fd = -1;
	cl->out = NULL;
}

/* What is left of the answer, with its descriptors if they have not gone. */
static ssize_t client_send(struct client *cl)
{
	const struct iovec iov = { cl->out + cl->out_done, cl->out_len - cl->out_done };

	return fds_send(cl->fd, &iov, 1, cl->fds.fd, cl->fds.n,
			MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Sends what it can. Return: false: the client is gone */
static bool client_flush(struct client *cl)
{
	while (cl->out && cl->out_done < cl->out_len) {
		ssize_t n = client_send(cl);

		if (n == -EINTR)
			continue;
		if (n < 0)
			return n == -EAGAIN;
		ctl_fds_close(&cl->fds);
		cl->out_done += (size_t)n;
		cl->progress_ms = clock_ms();
	}
	free(cl->out);
	cl->out = NULL;
	return true;
}

/* Return: false: out of memory */
static bool client_answer(struct ctl *c, struct client *cl, const char *line, size_t len)
{
	cl->out = ctl_handle(c->d, line, len, &cl->fds);
	cl->out_len = cl->out ? strlen(cl->out) : 0;
	cl->out_done = 0;
	return cl->out;
}

/* Return: false: the client is gone */
static bool client_read(struct client *cl)
{
	ssize_t n;

	do {
		n = recv(cl->fd, cl->in + cl->in_len, sizeof(cl->in) - cl->in_len,
			 MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN;
	if (!n)
		cl->eof = true;
	cl->in_len += (size_t)n;
	cl->progress_ms = clock_ms();
	return true;
}

/*
 * Answer the lines that are there, one after the other, each sent before the next
 * is looked at. Return: false: close the client
 */
static bool client_lines(struct ctl *c, struct client *cl)
{
	while (!cl->out && !cl->doomed) {
		char *end = memchr(cl->in, '\n', cl->in_len);
		size_t len;

		if (!end && cl->in_len < sizeof(cl->in))
			break;
		if (!end) {
			log_limited(LOG_LVL_WARN,
				    "control client pid %d closed: request longer than "
				    "%d bytes",
				    (int)cl->pid, CTL_MAX_LINE);
			cl->doomed = true;
			/* One byte too many: the protocol words the refusal. */
			if (!client_answer(c, cl, NULL, CTL_MAX_LINE + 1))
				return false;
			cl->in_len = 0;
		} else {
			len = (size_t)(end - cl->in);
			if (!client_answer(c, cl, cl->in, len))
				return false;
			cl->in_len -= len + 1;
			memmove(cl->in, end + 1, cl->in_len);
		}
		if (!client_flush(cl))
			return false;
	}
	return cl->out || !(cl->eof || cl->doomed);
}

/* Wait for what can go on: input while there is room, output while some is left. */
static bool client_watch(struct ctl *c, struct client *cl)
{
	struct epoll_event ev = { .data.ptr = cl };

	ev.events = cl->out ? EPOLLOUT : EPOLLIN;
	if (ev.events == cl->events)
		return true;
	cl->events = ev.events;
	return !epoll_ctl(c->epfd, EPOLL_CTL_MOD, cl->fd, &ev);
}

static void client_event(struct ctl *c, struct client *cl, uint32_t events)
{
	bool ok = true;

	if (cl->out)
		ok = client_flush(cl);
	if (ok && !cl->out && !cl->doomed && events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		ok = client_read(cl);
	if (ok)
		ok = client_lines(c, cl);
	if (!ok || !client_watch(c, cl))
		client_close(cl);
}

/* A free place; a stalled client makes one. NULL: all are in use */
static struct client *client_place(struct ctl *c)
{
	struct client *stalled = NULL;
	uint64_t now = clock_ms();

	for (unsigned int i = 0; i < CTL_MAX_CLIENTS; i++) {
		struct client *cl = &c->client[i];

		if (cl->fd < 0)
			return cl;
		if (cl->out && now - cl->progress_ms >= STALL_MS &&
		    (!stalled || cl->progress_ms < stalled->progress_ms))
			stalled = cl;
	}
	if (stalled) {
		log_limited(LOG_LVL_WARN,
			    "control client pid %d closed: it does not read its answer",
			    (int)stalled->pid);
		client_close(stalled);
	}
	return stalled;
}

/* Return: false: whoever it is has to wait */
static bool accept_client(struct ctl *c)
{
	static const char busy[] =
		"{\"ok\":false,\"error\":\"too many control clients; close one\"}\n";
	struct ucred cred = { .pid = 0 };
	socklen_t len = sizeof(cred);
	int fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct epoll_event ev = { .events = EPOLLIN };
	struct client *cl;

	if (fd < 0) {
		if (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR)
			return true;
		log_limited(LOG_LVL_WARN, "%s: who connects has to wait: %s", c->path,
			    strerror(errno));
		return false;
	}
	getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len);
	cl = client_place(c);
	if (!cl) {
		log_limited(LOG_LVL_WARN,
			    "control client pid %d refused: %d are connected",
			    (int)cred.pid, CTL_MAX_CLIENTS);
		send(fd, busy, sizeof(busy) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
		close(fd);
		return true;
	}
	*cl = (struct client){
		.fd = fd,
		.pid = cred.pid,
		.events = ev.events,
		.progress_ms = clock_ms(),
	};
	ev.data.ptr = cl;
	if (epoll_ctl(c->epfd, EPOLL_CTL_ADD, fd, &ev))
		client_close(cl);
	return true;
}

bool ctl_serve(struct ctl *c)
{
	struct epoll_event ev[CTL_MAX_CLIENTS + 1];
	int n = epoll_wait(c->epfd, ev, CTL_MAX_CLIENTS + 1, 0);
	bool accepting = false;

	for (int i = 0; i < n; i++) {
		if (ev[i].data.ptr)
			client_event(c, ev[i].data.ptr, ev[i].events);
		else
			accepting = true;
	}
	/* Last: a place that is given away must not see its predecessor's event. */
	return !accepting || accept_client(c);
}

int ctl_fd(const struct ctl *c)
{
	return c->epfd;
}

/* ---- the socket --------------------------------------------------------------- */

/* Whoever may open the directory may lock it, so the wait has an end. */
static int lock_dir(int fd)
{
	const struct timespec pause = { .tv_nsec = 5000000 };
	uint64_t end = clock_ms() + LOCK_MS;

	while (flock(fd, LOCK_EX | LOCK_NB)) {
		if (errno != EWOULDBLOCK || clock_ms() >= end)
			return -errno;
		nanosleep(&pause, NULL);
	}
	return 0;
}

/* Directory of @path, made if it is missing. Return: fd, locked; -errno */
static int open_dir(const char *path)
{
	char copy[sizeof(((struct sockaddr_un *)0)->sun_path)];
	const char *dir;
	mode_t old;
	int fd, err;

	strcpy(copy, path);
	dir = dirname(copy);
	old = umask(0777 & ~DIR_MODE);
	err = mkdir(dir, DIR_MODE) ? errno : 0;
	umask(old);
	if (err && err != EEXIST) {
		log_err("%s: %s; create the directory or use --ctl", dir, strerror(err));
		return -err;
	}
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	err = fd < 0 ? -errno : lock_dir(fd);
	if (!err)
		return fd;
	log_err("%s: %s%s", dir, strerror(-err),
		err == -EWOULDBLOCK ? "; another process holds its lock" : "");
	if (fd >= 0)
		close(fd);
	return err;
}

static int open_socket(struct ctl *c)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = NULL };
	struct stat st;
	int dir, err;

	dir = open_dir(c->path);
	if (dir < 0)
		return dir;
	c->listen_fd = unix_listen(c->path, SOCK_STREAM | SOCK_NONBLOCK, SOCKET_MODE,
				   CTL_MAX_CLIENTS);
	err = c->listen_fd < 0 ? c->listen_fd : 0;
	if (!err && stat(c->path, &st))
		err = -errno;
	if (!err) {
		c->dev = st.st_dev;
		c->ino = st.st_ino;
		err = epoll_ctl(c->epfd, EPOLL_CTL_ADD, c->listen_fd, &ev) ? -errno : 0;
	}
	close(dir);
	if (err == -EADDRINUSE)
		log_err("%s: another ghostnicd listens there; stop it or use --ctl",
			c->path);
	else if (err == -EEXIST)
		log_err("%s: exists and is no socket; remove it or use --ctl", c->path);
	else if (err)
		log_err("%s: %s", c->path, strerror(-err));
	return err;
}

int ctl_open(struct ctl **out, const char *path, struct daemon *d)
{
	struct ctl *c;
	int err;

	if (!*path || strlen(path) >= sizeof(c->path))
		return -ENAMETOOLONG;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->d = d;
	strcpy(c->path, path);
	for (unsigned int i = 0; i < CTL_MAX_CLIENTS; i++)
		c->client[i].fd = -1;
	c->listen_fd = -1;
	c->epfd = epoll_create1(EPOLL_CLOEXEC);
	err = c->epfd < 0 ? -errno : open_socket(c);
	if (err) {
		ctl_close(c);
		return err;
	}
	*out = c;
	return 0;
}

void ctl_close(struct ctl *c)
{
	struct stat st;

	if (!c)
		return;
	for (unsigned int i = 0; i < CTL_MAX_CLIENTS; i++)
		if (c->client[i].fd >= 0)
			client_close(&c->client[i]);
	if (c->ino && !lstat(c->path, &st) && st.st_dev == c->dev && st.st_ino == c->ino)
		unlink(c->path);
	if (c->listen_fd >= 0)
		close(c->listen_fd);
	if (c->epfd >= 0)
		close(c->epfd);
	free(c);
}
