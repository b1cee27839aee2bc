// SPDX-License-Identifier: BSD-2-Clause
/* loop: epoll and callbacks. Contract in loop.h; one thread. */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "log.h"
#include "loop.h"

#define MAX_EVENTS 16

struct loop_watch {
	void (*ready)(void *arg, uint32_t events); /* NULL: removed */
	void *arg;
	int fd;
	uint32_t events;
	uint64_t paused_until; /* ns; 0: it is not */
	struct loop_watch *next;
};

struct loop {
	int epfd;
	bool stopping;
	uint64_t spin_ns;
	unsigned int npaused;
	struct loop_watch *watches;
	/* Removed in this round: events already fetched may still name them. */
	struct loop_watch *removed;
};

int loop_create(struct loop **out)
{
	struct loop *l = calloc(1, sizeof(*l));
	int err;

	if (!l)
		return -ENOMEM;
	l->epfd = epoll_create1(EPOLL_CLOEXEC);
	if (l->epfd < 0) {
		err = -errno;
		free(l);
		return err;
	}
	*out = l;
	return 0;
}

static void free_list(struct loop_watch **list)
{
	while (*list) {
		struct loop_watch *w = *list;

		*list = w->next;
		free(w);
	}
}

void loop_destroy(struct loop *l)
{
	if (!l)
		return;
	free_list(&l->watches);
	free_list(&l->removed);
	close(l->epfd);
	free(l);
}

int loop_watch(struct loop *l, int fd, uint32_t events,
	       void (*ready)(void *arg, uint32_t events), void *arg,
	       struct loop_watch **out)
{
	struct loop_watch *w = calloc(1, sizeof(*w));
	struct epoll_event ev = { .events = events, .data.ptr = w };
	int err;

	if (!w)
		return -ENOMEM;
	*w = (struct loop_watch){
		.ready = ready, .arg = arg, .fd = fd, .events = events, .next = l->watches
	};
	if (epoll_ctl(l->epfd, EPOLL_CTL_ADD, fd, &ev)) {
		err = -errno;
		free(w);
		return err;
	}
	l->watches = w;
	*out = w;
	return 0;
}

void loop_unwatch(struct loop *l, struct loop_watch *w)
{
	struct loop_watch **p = &l->watches;

	if (!w)
		return;
	epoll_ctl(l->epfd, EPOLL_CTL_DEL, w->fd, NULL);
	while (*p != w)
		p = &(*p)->next;
	*p = w->next;
	l->npaused -= w->paused_until != 0;
	w->ready = NULL;
	w->next = l->removed;
	l->removed = w;
}

void loop_set_spin(struct loop *l, unsigned int us)
{
	l->spin_ns = us * 1000ull;
}

static void look_at(struct loop *l, struct loop_watch *w, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = w };

	epoll_ctl(l->epfd, EPOLL_CTL_MOD, w->fd, &ev);
}

void loop_pause(struct loop *l, struct loop_watch *w, unsigned int ms)
{
	l->npaused += !w->paused_until;
	w->paused_until = clock_ns() + ms * 1000000ull;
	look_at(l, w, 0);
}

/* End the pauses that are over. Return: ms until the next one is; -1: there is none */
static int resume(struct loop *l)
{
	uint64_t next = UINT64_MAX, now;

	if (!l->npaused)
		return -1;
	now = clock_ns();
	for (struct loop_watch *w = l->watches; w; w = w->next) {
		if (w->paused_until && w->paused_until <= now) {
			w->paused_until = 0;
			l->npaused--;
			look_at(l, w, w->events);
		} else if (w->paused_until && w->paused_until < next) {
			next = w->paused_until;
		}
	}
	return next == UINT64_MAX ? -1 : (int)((next - now) / 1000000 + 1);
}

int loop_accept(struct loop *l, struct loop_watch *w, const char *what)
{
	int fd = accept4(w->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), err;

	if (fd >= 0)
		return fd;
	err = -errno;
	if (err == -EAGAIN || err == -ECONNABORTED || err == -EINTR)
		return err;
	log_limited(LOG_LVL_WARN, "%s: who connects has to wait: %s", what,
		    strerror(-err));
	loop_pause(l, w, LOOP_ACCEPT_PAUSE_MS);
	return err;
}

static int wait_events(struct loop *l, struct epoll_event *ev)
{
	int timeout = resume(l);
	uint64_t end = l->spin_ns ? clock_ns() + l->spin_ns : 0;

	while (end && clock_ns() < end) {
		int n = epoll_wait(l->epfd, ev, MAX_EVENTS, 0);

		if (n)
			return n;
		sched_yield();
	}
	return epoll_wait(l->epfd, ev, MAX_EVENTS, timeout);
}

int loop_run(struct loop *l)
{
	struct epoll_event ev[MAX_EVENTS];

	l->stopping = false;
	while (!l->stopping) {
		int n = wait_events(l, ev);

		if (n < 0 && errno != EINTR)
			return -errno;
		for (int i = 0; i < n; i++) {
			struct loop_watch *w = ev[i].data.ptr;

			if (w->ready)
				w->ready(w->arg, ev[i].events);
		}
		free_list(&l->removed);
	}
	return 0;
}

void loop_stop(struct loop *l)
{
	l->stopping = true;
}
