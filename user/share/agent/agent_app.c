// SPDX-License-Identifier: BSD-2-Clause
/* agent_app: applications of this node. Contract in agent_int.h; agent's thread. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "move.h"
#include "uffd.h"

static void window_ready(void *arg, uint32_t events)
{
	struct attached *w = arg;

	/* It was made to block; poll() would say so forever. */
	if (events & EPOLLERR && fcntl(w->uffd, F_SETFL, O_NONBLOCK))
		return;
	if (w->home && agent_dir_expire(w->app->agent))
		return; /* the window is gone */
	if (w->home)
		home_faults(w->home, w->client);
	else
		peer_faults(w->import->peer, w->client);
}

static uint64_t window_bus(const struct attached *w)
{
	return (w->home ? home_desc(w->home) : peer_desc(w->import->peer))->bus;
}

/* What the socket has no room for is told later: until then nobody else need hear of the
 * same page again. */
static void tell_renewed(struct attached *w)
{
	struct local_msg m = { .magic = LOCAL_MAGIC,
			       .op = LOCAL_EVENT,
			       .event = GM_EV_RENEW,
			       .bus = window_bus(w),
			       .base = w->renew_from,
			       .size = w->renew_to - w->renew_from };

	if (m.size && !local_send(w->app->sock, &m, NULL, 0))
		w->renew_from = w->renew_to = 0;
}

static void renew(void *arg, uint64_t addr, uint64_t len)
{
	struct attached *w = arg;

	/* One range: what lies between may be asked for anew as well. */
	if (w->renew_from == w->renew_to) {
		w->renew_from = addr;
		w->renew_to = addr + len;
	}
	if (addr < w->renew_from)
		w->renew_from = addr;
	if (addr + len > w->renew_to)
		w->renew_to = addr + len;
	tell_renewed(w);
}

void agent_windows_tick(struct agent *a)
{
	agent_dir_expire(a);
	for (struct app *app = a->apps; app; app = app->next) {
		for (struct attached *w = app->windows; w; w = w->next) {
			tell_renewed(w);
			if (w->home)
				home_faults(w->home, w->client);
			else
				peer_faults(w->import->peer, w->client);
		}
	}
}

void agent_window_free(struct attached *w)
{
	loop_unwatch(w->app->agent->loop, w->watch);
	if (w->home)
		home_detach(w->home, w->client);
	else
		peer_detach(w->import->peer, w->client);
	free(w);
}

void agent_app_free(struct app *app)
{
	struct app **q = &app->agent->apps;

	while (*q != app)
		q = &(*q)->next;
	*q = app->next;
	move_out_app_gone(app);
	agent_openings_forget(app);
	while (app->windows) {
		struct attached *w = app->windows;
		struct import *i = w->import;

		app->windows = w->next;
		agent_window_free(w);
		if (i)
			agent_import_release(i);
	}
	loop_unwatch(app->agent->loop, app->watch);
	close(app->sock);
	free(app);
}

static void tell_poison(void *arg, uint64_t addr, uint64_t len)
{
	const struct attached *w = arg;
	struct local_msg m = { .magic = LOCAL_MAGIC,
			       .op = LOCAL_EVENT,
			       .event = GM_EV_POISON,
			       .bus = window_bus(w),
			       .base = addr,
			       .size = len };

	local_send(w->app->sock, &m, NULL, 0);
}

int agent_window_new(struct app *app, struct home_region *h, struct import *i, int uffd,
		     struct local_msg *m)
{
	int err = uffd_check(uffd);
	struct attached *w;
	struct window_app win;

	if (err)
		return err;
	w = calloc(1, sizeof(*w));
	uffd = w ? fcntl(uffd, F_DUPFD_CLOEXEC, 0) : -1;
	if (uffd < 0) {
		free(w);
		return -ENOMEM;
	}
	w->app = app;
	win = (struct window_app){ .uffd = uffd,
				   .base = m->base,
				   .lacks = m->lacks,
				   .poison = tell_poison,
				   .renew = renew,
				   .arg = w };
	/* It would see what is still being copied into the memfd, see move_in.c. */
	if (i && i->mover && m->lacks & WINDOW_NO_MINOR) {
		close(uffd);
		free(w);
		return -EAGAIN;
	}
	w->home = h;
	w->import = i;
	w->uffd = uffd;
	w->client =
		h ? home_attach(h, &win, app->pid) : peer_attach(i->peer, &win, app->pid);
	if (w->client < 0) {
		err = w->client;
		close(uffd);
		free(w);
		return err;
	}
	err = loop_watch(app->agent->loop, uffd, EPOLLIN, window_ready, w, &w->watch);
	if (err) {
		agent_window_free(w);
		return err;
	}
	m->window = (uint8_t)w->client;
	w->base = m->base;
	w->next = app->windows;
	app->windows = w;
	return 0;
}

static int do_attach(struct app *app, struct local_msg *m, const int *fds, int nfds)
{
	struct home_region *h = home_find(app->agent->home, NULL, m->bus);
	struct import *i = h ? NULL : agent_find_import(app->agent, m->bus, &m->key);

	if (nfds != 1)
		return -EINVAL;
	if (h && !agent_same_key(&m->key, home_key(h, false)))
		return -EACCES;
	return h || i ? agent_window_new(app, h, i, fds[0], m) : -ENOENT;
}

static void do_prefetch(struct app *app, const struct local_msg *m)
{
	for (struct attached *w = app->windows; w; w = w->next)
		if (w->import && window_bus(w) == m->bus &&
		    gm_in_range(m->base, m->size, 0, peer_desc(w->import->peer)->size))
			peer_prefetch(w->import->peer, m->base, m->size);
}

static int do_detach(struct app *app, const struct local_msg *m)
{
	for (struct attached **q = &app->windows; *q; q = &(*q)->next) {
		struct attached *w = *q;
		struct import *i = w->import;

		if (window_bus(w) != m->bus || w->base != m->base)
			continue;
		*q = w->next;
		agent_window_free(w);
		if (i)
			agent_import_release(i);
		return 0;
	}
	return -ENOENT;
}

static void on_request(void *arg, uint32_t events)
{
	struct app *app = arg;
	struct agent *a = app->agent;
	struct local_msg m;
	int fds[LOCAL_FDS], nfds, rfds[2] = { -1, -1 };
	int err = local_recv(app->sock, &m, fds, &nfds);

	if (err == -EAGAIN || err == -EINTR)
		return;
	if (err <= 0) {
		agent_app_free(app);
		return;
	}
	switch (m.op) {
	case LOCAL_EXPORT: m.status = agent_export(a, &m, fds, nfds, rfds); break;
	case LOCAL_IMPORT: m.status = agent_import(app, &m, rfds); break;
	case LOCAL_ATTACH: m.status = do_attach(app, &m, fds, nfds); break;
	case LOCAL_RESUME: m.status = agent_resume(app, &m, fds, nfds); break;
	case LOCAL_DETACH: m.status = do_detach(app, &m); break;
	case LOCAL_REVOKE: m.status = agent_revoke(a, &m); break;
	case LOCAL_MOVE: m.status = move_out_start(app, &m) ?: 1; break;
	case LOCAL_LIST: m.status = agent_list(app, &m); break;
	case LOCAL_STAT: m.status = agent_stat(app, &m); break;
	case LOCAL_PREFETCH:
		do_prefetch(app, &m);
		m.status = 0;
		break;
	default: m.status = -EOPNOTSUPP; break;
	}
	gm_key_wipe(&m.key);
	while (nfds)
		close(fds[--nfds]);
	if (m.status == 1)
		return; /* its reply will come */
	if (local_send(app->sock, &m, rfds, rfds[0] < 0 ? 0 : 2))
		agent_app_free(app);
}

void agent_accept(void *arg, uint32_t events)
{
	struct agent *a = arg;
	struct ucred cred = { 0 };
	socklen_t len = sizeof(cred);
	int sock = loop_accept(a->loop, a->watch_listener, a->cfg.local);
	struct app *app;

	if (sock < 0)
		return;
	app = calloc(1, sizeof(*app));
	if (!app || loop_watch(a->loop, sock, EPOLLIN, on_request, app, &app->watch)) {
		free(app);
		close(sock);
		return;
	}
	app->agent = a;
	app->sock = sock;
	app->pid = -1;
	if (!getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &len) && cred.pid > 0)
		app->pid = cred.pid;
	app->next = a->apps;
	a->apps = app;
}
