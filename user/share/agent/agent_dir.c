// SPDX-License-Identifier: BSD-2-Clause
/*
 * agent_dir: the directory, seen from the agent. Contract in agent_int.h.
 *
 * A thread of its own renews the lease of this node, so that neither a slow directory
 * holds up the loop nor a busy loop the renewals. A process that is stopped stops both; a
 * loop that hangs for long is no longer vouched for. Who could not renew for the lease's
 * whole length must take it that others own the regions by now, and serves them no longer
 * (dir.h): two owners would each grant the only writable copy. The clock is looked at
 * before each request and each batch of faults, not only at the tick: a process that was
 * stopped, or a machine that slept, may find requests that have waited for it longer than
 * its lease. What is left is to be stopped between that look and the answer. Importers
 * look at their own lease before they believe an answer (peer_over()), so that an answer
 * held back for as long as that finds nobody.
 *
 * What others change (revoked, moved, taken over) comes by the directory's watch, and is
 * looked at on the loop.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "agent_int.h"
#include "../../lib/clock.h"
#include "../../lib/log.h"

#define HUNG_LEASES 10 /* a loop that did not turn for so long */

struct agent_dir {
	pthread_t thread;
	bool began;		     /* a lease was had; thread */
	int wake;		     /* eventfd: the thread ends */
	_Atomic uint64_t renewed_ns; /* when the last renewal that worked began */
	_Atomic uint64_t turned_ns;  /* the loop is alive */
	/* When the directory was asked that said the lease had ended; 0: none did */
	_Atomic uint64_t ended_ns;
	atomic_int watch_fd; /* -1: not yet */
	struct loop_watch *watch;
};

static void renew(struct agent *a, uint64_t lease)
{
	struct agent_dir *d = a->lease;
	uint64_t now = clock_boot_ns();
	int err, fd;

	if (now - d->turned_ns > HUNG_LEASES * lease)
		return;
	err = dir_renew(a->dir, a->cfg.node);
	/* What a former agent of this node let end is no news. */
	if (err == -ESTALE && d->began)
		d->ended_ns = now;
	if (!err || err == -ESTALE)
		d->began = true;
	if (!err || err == -ESTALE)
		agent_dir_renewed(a, now);
	if (err)
		log_limited(LOG_LVL_WARN, "directory %s: renewal: %s", a->cfg.directory,
			    strerror(-err));
	if (err || d->watch_fd >= 0)
		return;
	fd = dir_watch_fd(a->dir);
	if (fd >= 0)
		d->watch_fd = fd;
}

static void *run(void *arg)
{
	struct agent *a = arg;
	struct agent_dir *d = a->lease;
	uint64_t lease = (uint64_t)a->cfg.lease_ms * 1000000, last = 0;

	for (;;) {
		struct pollfd p = { .fd = d->wake, .events = POLLIN };
		uint64_t now = clock_boot_ns();

		/* One that failed is tried again earlier. */
		if (now - d->renewed_ns >= lease / 3 && now - last >= lease / 6) {
			last = now;
			renew(a, lease);
		}
		if (poll(&p, 1, (int)(lease / 20000000) + 1) > 0)
			return NULL;
	}
}

/* Somebody else has changed a region that is used here. */
static void region_changed(struct agent *a, const struct dir_region *r)
{
	struct home_region *h = home_find(a->home, r->name, 0);

	if (h && !r->size) {
		log_info("region %s: revoked", r->name);
		agent_end_home(a, h, GM_EV_REVOKED);
	} else if (h && home_moving(h)) {
		return; /* move_out.c asks by itself */
	} else if (h && r->epoch > home_desc(h)->epoch && strcmp(r->node, a->cfg.node)) {
		log_warn("region %s: node %s owns it now", r->name, r->node);
		agent_end_home(a, h, GM_EV_OWNER_GONE);
	}
	for (struct import *i = a->imports; i; i = i->next) {
		const struct dir_region *d = peer_desc(i->peer);

		if (strcmp(d->name, r->name) || peer_dead(i->peer))
			continue;
		if (!r->size || r->bus != d->bus)
			peer_die(i->peer, GM_EV_REVOKED);
		/* Another node: the owner before says so when it has all, or else
		 * agent_follow() does. */
		else if (r->epoch > d->epoch && !strcmp(r->node, d->node))
			peer_readdress(i->peer, r);
	}
}

static bool used_here(const struct agent *a, const char *name)
{
	if (home_find(a->home, name, 0))
		return true;
	for (struct import *i = a->imports; i; i = i->next)
		if (!strcmp(peer_desc(i->peer)->name, name))
			return true;
	return false;
}

static void changed(void *arg, uint32_t events)
{
	struct agent *a = arg;
	struct dir_region r;

	while (dir_watch_next(a->dir, &r) > 0) {
		struct dir_region as_is;

		if (!used_here(a, r.name))
			continue;
		/* Removed by us, and made anew meanwhile? */
		if (!r.size && !dir_find(a->dir, r.name, 0, &as_is))
			r = as_is;
		region_changed(a, &r);
	}
}

/* Those of the lease that ended before @ns; what was exported since has another. Return:
 * there were some */
static bool end_homes(struct agent *a, uint64_t ns)
{
	struct home_region *h;
	bool any = false;

	while ((h = home_first(a->home, ns))) {
		log_err("region %s: the lease has ended, and with it this node's right "
			"to serve it; export it again",
			home_desc(h)->name);
		agent_end_home(a, h, GM_EV_OWNER_GONE);
		any = true;
	}
	return any;
}

/* The thread says that the lease had ended before it says that there is another one: in
 * the other order here. Return: regions ended with it */
static bool expire(struct agent *a, uint64_t now, uint64_t *until)
{
	struct agent_dir *d = a->lease;
	uint64_t lease = (uint64_t)a->cfg.lease_ms * 1000000, renewed = d->renewed_ns;
	uint64_t ended = d->ended_ns;

	*until = renewed + lease;
	if (ended)
		d->ended_ns = 0;
	if (now >= *until)
		return end_homes(a, now);
	return ended && end_homes(a, ended);
}

bool agent_dir_expire(void *arg)
{
	struct agent *a = arg;
	uint64_t until;

	return a->lease && expire(a, clock_boot_ns(), &until);
}

void agent_dir_tick(struct agent *a, uint64_t now)
{
	struct agent_dir *d = a->lease;
	struct home_region *h;
	uint64_t until;

	d->turned_ns = now;
	if (!expire(a, now, &until) && now < until)
		home_renewed(a->home, until);
	while ((h = home_settle(a->home)))
		agent_end_home(a, h, GM_EV_OWNER_GONE);
	if (!d->watch && d->watch_fd >= 0)
		loop_watch(a->loop, d->watch_fd, EPOLLIN, changed, a, &d->watch);
}

bool agent_dir_overdue(const struct agent *a, uint64_t now)
{
	uint64_t renewed = a->lease->renewed_ns;

	return now > renewed && now - renewed > (uint64_t)a->cfg.lease_ms * 1000000;
}

int agent_dir_hold(struct agent *a)
{
	uint64_t now = clock_boot_ns();
	int err;

	if (!agent_dir_overdue(a, now))
		return 0;
	err = dir_renew(a->dir, a->cfg.node);
	if (err && err != -ESTALE)
		return err;
	agent_dir_renewed(a, now);
	return 0;
}

void agent_dir_renewed(struct agent *a, uint64_t ns)
{
	uint64_t was = a->lease->renewed_ns;

	while (was < ns && !atomic_compare_exchange_weak(&a->lease->renewed_ns, &was, ns))
		;
}

int agent_dir_start(struct agent *a)
{
	struct agent_dir *d = calloc(1, sizeof(*d));
	int err;

	if (!d)
		return -ENOMEM;
	d->watch_fd = -1;
	d->turned_ns = clock_boot_ns();
	d->wake = eventfd(0, EFD_CLOEXEC);
	err = d->wake < 0 ? errno : 0;
	a->lease = d;
	if (!err)
		err = pthread_create(&d->thread, NULL, run, a);
	if (!err)
		return 0;
	if (d->wake >= 0)
		close(d->wake);
	free(d);
	a->lease = NULL;
	return -err;
}

void agent_dir_stop(struct agent *a)
{
	struct agent_dir *d = a->lease;
	uint64_t one = 1;

	if (!d)
		return;
	if (write(d->wake, &one, sizeof(one)) == sizeof(one))
		pthread_join(d->thread, NULL);
	loop_unwatch(a->loop, d->watch);
	close(d->wake);
	free(d);
	a->lease = NULL;
}
