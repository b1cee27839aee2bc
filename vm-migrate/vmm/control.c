// SPDX-License-Identifier: BSD-2-Clause
/*
 * control: see control.h.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "../../user/lib/clock.h"
#include "../../user/lib/log.h"
#include "../../user/lib/unix_path.h"
#include "control.h"

#define PROGRESS_MAX (64u << 10) /* who has more unread than this gets no progress */

struct client {
	struct control *c;
	int fd; /* -1: free */
	struct loop_watch *watch;
	uint32_t events; /* that watch waits for */
	bool wants_events, doomed;
	size_t in_len, out_len;
	char *out; /* [out_len] not sent yet */
	char in[CONTROL_MAX_LINE];
};

struct control {
	struct loop *loop;
	json_t *(*handle)(void *arg, const struct control_request *req, bool *watch);
	void *arg;
	int fd;
	struct loop_watch *watch;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	dev_t dev; /* of the socket that was made here: */
	ino_t ino; /* another's is not removed */
	struct client client[CONTROL_MAX_CLIENTS];
};

static void client_ready(void *arg, uint32_t events);

static void client_close(struct client *cl)
{
	loop_unwatch(cl->c->loop, cl->watch);
	close(cl->fd);
	free(cl->out);
	*cl = (struct client){ .c = cl->c, .fd = -1 };
}

/* Return: false: it is gone */
static bool client_flush(struct client *cl)
{
	while (cl->out_len) {
		ssize_t n =
			send(cl->fd, cl->out, cl->out_len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN;
		cl->out_len -= (size_t)n;
		memmove(cl->out, cl->out + n, cl->out_len);
	}
	return !cl->doomed;
}

/* Return: false: no room or memory */
static bool client_put(struct client *cl, json_t *o)
{
	char *text = o ? json_dumps(o, JSON_COMPACT) : NULL, *out;
	size_t len = text ? strlen(text) + 1 : 0;

	json_decref(o);
	out = text && cl->out_len + len <= CONTROL_MAX_OUT
		      ? realloc(cl->out, cl->out_len + len)
		      : NULL;
	if (out) {
		cl->out = out;
		memcpy(out + cl->out_len, text, len - 1);
		out[cl->out_len + len - 1] = '\n';
		cl->out_len += len;
	}
	free(text);
	return out;
}

/* Wait for input, and for room as long as something is left to send. */
static bool client_wait(struct client *cl)
{
	const uint32_t want = (cl->doomed ? 0 : EPOLLIN) | (cl->out_len ? EPOLLOUT : 0);

	if (want == cl->events && cl->watch)
		return true;
	loop_unwatch(cl->c->loop, cl->watch);
	cl->watch = NULL;
	cl->events = want;
	return !loop_watch(cl->c->loop, cl->fd, want, client_ready, cl, &cl->watch);
}

static bool client_line(struct client *cl, const char *line, size_t len)
{
	struct control_request req;
	bool watch = false;
	char why[200];
	json_t *answer;

	if (control_parse(line, len, &req, why, sizeof(why)))
		answer = json_pack("{s:b, s:s%}", "ok", 0, "error", why, strlen(why));
	else
		answer = cl->c->handle(cl->c->arg, &req, &watch);
	cl->wants_events |= watch;
	return client_put(
		cl, answer ? answer
			   : json_pack("{s:b, s:s}", "ok", 0, "error", "out of memory"));
}

static bool client_lines(struct client *cl)
{
	char *end;

	while (!cl->doomed && (end = memchr(cl->in, '\n', cl->in_len))) {
		size_t len = (size_t)(end - cl->in);

		if (!client_line(cl, cl->in, len))
			return false;
		cl->in_len -= len + 1;
		memmove(cl->in, end + 1, cl->in_len);
	}
	if (!cl->doomed && cl->in_len == sizeof(cl->in)) {
		cl->doomed = true;
		return client_put(cl, json_pack("{s:b, s:s}", "ok", 0, "error",
						"a request is at most 8191 bytes long"));
	}
	return true;
}

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
		return false;
	cl->in_len += (size_t)n;
	return client_lines(cl);
}

static void client_ready(void *arg, uint32_t events)
{
	struct client *cl = arg;
	bool ok = true;

	if (!cl->doomed && events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		ok = client_read(cl);
	if (!ok || !client_flush(cl) || !client_wait(cl))
		client_close(cl);
}

static void accept_ready(void *arg, uint32_t events)
{
	static const char busy[] =
		"{\"ok\":false,\"error\":\"too many control clients; close one\"}\n";
	struct control *c = arg;
	int fd = accept4(c->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	for (unsigned int i = 0; i < CONTROL_MAX_CLIENTS; i++) {
		struct client *cl = &c->client[i];

		if (cl->fd >= 0)
			continue;
		*cl = (struct client){ .c = c, .fd = fd };
		if (!client_wait(cl))
			client_close(cl);
		return;
	}
	log_limited(LOG_LVL_WARN, "control client refused: %d are connected",
		    CONTROL_MAX_CLIENTS);
	send(fd, busy, sizeof(busy) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
	close(fd);
}

void control_event(struct control *c, json_t *event, bool last)
{
	for (unsigned int i = 0; c && i < CONTROL_MAX_CLIENTS; i++) {
		struct client *cl = &c->client[i];

		if (cl->fd < 0 || !cl->wants_events)
			continue;
		cl->wants_events = !last;
		if (!last && cl->out_len > PROGRESS_MAX)
			continue;
		if (!client_put(cl, json_incref(event)) || !client_flush(cl) ||
		    !client_wait(cl))
			client_close(cl);
	}
	json_decref(event);
}

bool control_watched(const struct control *c)
{
	for (unsigned int i = 0; c && i < CONTROL_MAX_CLIENTS; i++)
		if (c->client[i].fd >= 0 && c->client[i].wants_events)
			return true;
	return false;
}

/* ---- the socket -------------------------------------------------------------------- */

static int listen_at(struct control *c, const char *path)
{
	struct stat st;

	c->fd = unix_listen(path, SOCK_STREAM | SOCK_NONBLOCK, 0600, CONTROL_MAX_CLIENTS);
	if (c->fd < 0)
		return c->fd;
	if (stat(path, &st))
		return -errno;
	c->dev = st.st_dev;
	c->ino = st.st_ino;
	return 0;
}

static void explain(int err, const char *path, char *why, size_t len)
{
	switch (err) {
	case -EADDRINUSE: snprintf(why, len, "%s: another VM listens there", path); break;
	case -EEXIST:
		snprintf(why, len,
			 "%s: exists and is no socket; remove it or name another", path);
		break;
	default: snprintf(why, len, "control socket %s: %s", path, strerror(-err));
	}
}

int control_open(struct loop *l, const char *path,
		 json_t *(*handle)(void *arg, const struct control_request *req,
				   bool *watch),
		 void *arg, struct control **out, char *why, size_t len)
{
	struct control *c = calloc(1, sizeof(*c));
	int err;

	if (!c)
		return -ENOMEM;
	*c = (struct control){ .loop = l, .handle = handle, .arg = arg, .fd = -1 };
	for (unsigned int i = 0; i < CONTROL_MAX_CLIENTS; i++)
		c->client[i] = (struct client){ .c = c, .fd = -1 };
	snprintf(c->path, sizeof(c->path), "%s", path);
	err = listen_at(c, path);
	if (!err)
		err = loop_watch(l, c->fd, EPOLLIN, accept_ready, c, &c->watch);
	if (err)
		goto fail;
	*out = c;
	return 0;
fail:
	explain(err, path, why, len);
	control_close(c, 0);
	return err;
}

/* Clients that are still told something: poll them, not the loop, which has ended. */
static void linger(struct control *c, int ms)
{
	const uint64_t end = clock_ns() + (uint64_t)ms * 1000000;

	for (;;) {
		struct pollfd pfd[CONTROL_MAX_CLIENTS];
		struct client *who[CONTROL_MAX_CLIENTS];
		uint64_t now = clock_ns();
		nfds_t n = 0;

		for (unsigned int i = 0; i < CONTROL_MAX_CLIENTS; i++)
			if (c->client[i].fd >= 0 && c->client[i].out_len) {
				who[n] = &c->client[i];
				pfd[n++] = (struct pollfd){ .fd = c->client[i].fd,
							    .events = POLLOUT };
			}
		if (!n || now >= end ||
		    poll(pfd, n, (int)((end - now) / 1000000) + 1) < 0)
			return;
		for (nfds_t i = 0; i < n; i++)
			if (pfd[i].revents && !client_flush(who[i]))
				client_close(who[i]);
	}
}

void control_close(struct control *c, int linger_ms)
{
	struct stat st;

	if (!c)
		return;
	if (linger_ms)
		linger(c, linger_ms);
	for (unsigned int i = 0; i < CONTROL_MAX_CLIENTS; i++)
		if (c->client[i].fd >= 0)
			client_close(&c->client[i]);
	if (c->ino && !stat(c->path, &st) && st.st_dev == c->dev && st.st_ino == c->ino)
		unlink(c->path);
	loop_unwatch(c->loop, c->watch);
	if (c->fd >= 0)
		close(c->fd);
	free(c);
}
