// SPDX-License-Identifier: BSD-2-Clause
/* agent: set-up and time. Theory in agent.h; one thread. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#include "move.h"
#include "../../lib/clock.h"
#include "../../lib/log.h"
#include "../../lib/unix_path.h"

#define TICK_MS	       50
#define BACKLOG	       64
#define DIR_TIMEOUT_MS 1000

static void on_tick(void *arg, uint32_t events)
{
	struct agent *a = arg;
	uint64_t n, now = clock_boot_ns();

	if (read(a->timer, &n, sizeof(n)) != sizeof(n))
		return;
	agent_dir_tick(a, now);
	home_tick(a->home);
	agent_windows_tick(a);
	for (struct import *i = a->imports, *next; i; i = next) {
		next = i->next;
		peer_tick(i->peer);
		if (!peer_opening(i->peer) && peer_away(i->peer))
			agent_follow(i);
		agent_import_tick(i, now);
	}
	agent_openings_tick(a);
	move_out_tick(a);
	move_in_tick(a);
}

static void on_signal(void *arg, uint32_t events)
{
	struct agent *a = arg;

	loop_stop(a->loop);
}

static int failed(const char *what, const char *which, int err)
{
	log_err("%s %s: %s", what, which, strerror(-err));
	return err;
}

/* The directory's lock on names keeps two agents of one name apart, not this. */
static int listen_near(struct agent *a)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	char near[NET_ADDR_MAX];
	int err;

	if (transport_near(&a->transport, a->cfg.node, near))
		return 0;
	strcpy(sun.sun_path, near + strlen("unix:"));
	err = unix_check_dead(&sun);
	if (!err || err == -ENOENT)
		err = home_listen_near(a->home, near);
	return err ? failed("cannot listen at", near, err) : 0;
}

int agent_create(const struct agent_config *cfg, struct agent **out)
{
	struct agent *a = calloc(1, sizeof(*a));
	struct itimerspec tick = { { 0, TICK_MS * 1000000 }, { 0, TICK_MS * 1000000 } };
	sigset_t set;
	int err;

	if (!a)
		return -ENOMEM;
	a->cfg = *cfg;
	a->listener = a->timer = a->signals = -1;
	err = transport_open(cfg, &a->transport);
	if (err)
		goto out;
	err = loop_create(&a->loop);
	if (err)
		goto out;
	loop_set_spin(a->loop, cfg->busy_poll_us);
	err = home_create(a->loop, cfg->node, a->transport.listen, a->transport.tls,
			  cfg->lease_ms, &a->home);
	if (err) {
		failed("cannot listen at", a->transport.listen, err);
		goto out;
	}
	err = listen_near(a);
	if (err)
		goto out;
	home_set_mover(a->home, &(struct home_mover){ .msg = move_in_msg,
						      .closed = move_in_closed,
						      .fits = move_in_fits,
						      .coming = move_in_coming,
						      .gone = move_out_region_gone,
						      .answered = move_out_answered,
						      .expire = agent_dir_expire,
						      .lost = agent_pages_lost,
						      .arg = a });
	a->listener =
		unix_listen(cfg->local, SOCK_SEQPACKET | SOCK_NONBLOCK, 0660, BACKLOG);
	if (a->listener < 0) {
		err = failed("cannot listen at", cfg->local, a->listener);
		goto out;
	}
	/* Before the directory makes threads, which would keep what they begin with. */
	err = agent_drop_caps();
	if (err)
		goto out;
	err = dir_open(cfg->directory, cfg->lease_ms, DIR_TIMEOUT_MS, &a->dir);
	if (err) {
		failed("cannot open directory", cfg->directory, err);
		goto out;
	}
	dir_announce(a->dir, a->transport.advertise);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	a->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	a->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (a->signals < 0 || a->timer < 0 || timerfd_settime(a->timer, 0, &tick, NULL)) {
		err = -errno;
		goto out;
	}
	err = loop_watch(a->loop, a->listener, EPOLLIN, agent_accept, a,
			 &a->watch_listener);
	if (!err)
		err = loop_watch(a->loop, a->timer, EPOLLIN, on_tick, a, &a->watch_timer);
	if (!err)
		err = loop_watch(a->loop, a->signals, EPOLLIN, on_signal, a,
				 &a->watch_signals);
	if (!err)
		err = agent_confine();
	if (!err)
		err = agent_dir_start(a);
	if (err)
		goto out;
	log_info("node %s serves at %s", cfg->node, a->transport.listen);
	*out = a;
	return 0;
out:
	agent_destroy(a);
	return err;
}

int agent_run(struct agent *a)
{
	return loop_run(a->loop);
}

void agent_destroy(struct agent *a)
{
	int patience_ms = PEER_LEAVE_MS;

	if (!a)
		return;
	agent_dir_stop(a);
	move_out_destroy_all(a);
	move_in_destroy_all(a);
	for (struct import *i = a->imports; i; i = i->next)
		peer_leave(i->peer, &patience_ms);
	home_leave(a->home);
	while (a->apps)
		agent_app_free(a->apps);
	while (a->imports) {
		struct import *i = a->imports;

		a->imports = i->next;
		peer_destroy(i->peer);
		free(i);
	}
	home_destroy(a->home);
	transport_close(&a->transport);
	dir_close(a->dir);
	if (a->listener >= 0) {
		close(a->listener);
		unlink(a->cfg.local);
	}
	if (a->timer >= 0)
		close(a->timer);
	if (a->signals >= 0)
		close(a->signals);
	loop_destroy(a->loop);
	free(a);
}
