// SPDX-License-Identifier: BSD-2-Clause
/*
 * agent_resume: goes on where an agent of this node was that died. Contract in
 * agent_int.h; agent's thread.
 *
 * Applications kept the region's memfd, what that agent knew (meta.h) and their
 * userfaultfds, and hand them over. Until the last window is back nobody is served: a
 * mapping that this agent does not know of could be written to behind its back.
 *
 * The owner's side first makes itself the owner in the directory, with the next epoch.
 * Two agents cannot both do so, and an old one that was only frozen is fenced.
 *
 * An agent that died while a region moved has left what it may be by now, with the epoch
 * that says so (meta.h). The directory alone decides:
 *
 *	the meta says		the directory says	it is
 *	owner			us			owner; takes the next epoch
 *	owner, on its way	another one, >= claim	importer
 *	importer, has all	us, claim		owner; takes the next epoch
 *	importer, has all	another one, claim - 1	not known yet: -EAGAIN
 *	importer, has all	anything else		importer
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent_int.h"
#include "meta.h"
#include "../../lib/clock.h"
#include "../../lib/log.h"

static bool same_file(int a, int b)
{
	struct stat x, y;

	return !fstat(a, &x) && !fstat(b, &y) && x.st_dev == y.st_dev &&
	       x.st_ino == y.st_ino;
}

/* A memfd that nobody can shrink under us. Return: its duplicate, -errno */
static int take_memfd(int fd, uint64_t size, unsigned int shift)
{
	int seals = fcntl(fd, F_GET_SEALS), dup;
	struct stat st;

	if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fd, &st) ||
	    (uint64_t)st.st_size < size || window_memfd_shift(fd) != (int)shift)
		return -EINVAL;
	dup = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return dup < 0 ? -errno : dup;
}

/* Is it what @m says, and does who asks have its key? */
static int open_meta(const struct local_msg *m, int fd, struct meta **out)
{
	struct meta *meta;
	int err = meta_open(fd, META_ANY, m->size, &meta);

	if (err)
		return err;
	if (strcmp(meta->hdr->name, m->name) || meta->hdr->bus != m->bus)
		err = -EINVAL;
	else if (!agent_same_key(&m->key, &meta->hdr->key))
		err = -EACCES;
	else if (clock_boot_ns() >= meta->hdr->valid_ns)
		err = -ESTALE;
	if (err)
		meta_destroy(meta);
	else
		*out = meta;
	return err;
}

static bool same_region(const struct meta *m, const struct dir_region *r)
{
	return r->bus == m->hdr->bus && r->size == m->size && r->page_shift == m->shift;
}

/*
 * The former agent died with an epoch claimed: what does the directory say? What the meta
 * is from now on is written there. Return: 0; -EAGAIN: nobody knows yet
 */
static int decide(struct agent *a, struct meta *meta)
{
	struct meta_hdr *h = meta->hdr;
	struct dir_region r;
	int err;
	bool ours;

	if (!h->claim)
		return 0;
	err = dir_find(a->dir, h->name, 0, &r);
	if (err && err != -ENOENT)
		return -EAGAIN;
	ours = !err && !strcmp(r.node, a->cfg.node);
	if (h->kind == META_HOME) {
		/* It has left; by now it may be further still, our slot with it. */
		if (!err && !ours && same_region(meta, &r) && r.epoch >= h->claim &&
		    h->incarnation) {
			h->lease_ms = r.lease_ms;
			memcpy(h->node, r.node, sizeof(h->node));
			memcpy(h->addr, r.addr, sizeof(h->addr));
			meta_become(meta, META_IMPORT, r.epoch);
		}
		return 0;
	}
	if (!err && same_region(meta, &r)) {
		/* Its owner either makes us the owner, or takes the next epoch itself. */
		if (r.epoch == h->claim - 1)
			return -EAGAIN;
		if (ours && r.epoch == h->claim) {
			h->lease_ms = r.lease_ms;
			meta_become(meta, META_HOME, r.epoch);
			return 0;
		}
	}
	h->claim = 0;
	return 0;
}

/* The region in the directory becomes ours, with the next epoch. */
static int claim(struct agent *a, const struct meta *m, struct dir_region *r)
{
	struct meta_hdr *h = m->hdr;
	uint64_t now = clock_boot_ns();
	uint32_t old;
	int err = dir_renew(a->dir, a->cfg.node);

	if (!err || err == -ESTALE)
		agent_dir_renewed(a, now);
	if (!err || err == -ESTALE)
		err = dir_find(a->dir, h->name, 0, r);
	if (err)
		return err == -ENOENT ? -ESTALE : -EAGAIN;
	/* An agent may have died between the two steps below. */
	if (strcmp(r->node, a->cfg.node) || !same_region(m, r) ||
	    (r->epoch != h->epoch && r->epoch != h->claim))
		return -ESTALE;
	old = r->epoch;
	h->claim = ++r->epoch;
	strcpy(r->addr, a->transport.advertise);
	/* What the former agent had asked for may have been done only now: look again. */
	return dir_update(a->dir, r, old) ? -EAGAIN : 0;
}

/* @memfd and @meta are taken, also on failure. */
static int resume_home(struct agent *a, int memfd, struct meta *meta,
		       struct home_region **out)
{
	struct dir_region r;
	int err = claim(a, meta, &r);

	if (err) {
		meta_destroy(meta);
		close(memfd);
		return err;
	}
	err = home_resume(a->home, &r, memfd, meta, out);
	log_info("region %s: taken over, epoch %u: %s", r.name, r.epoch,
		 err ? strerror(-err) : "done");
	return err;
}

/* The same. */
static int resume_import(struct agent *a, int memfd, struct meta *meta,
			 struct import **out)
{
	struct import *i = calloc(1, sizeof(*i));
	int err;

	if (!i) {
		meta_destroy(meta);
		close(memfd);
		return -ENOMEM;
	}
	i->agent = a;
	err = peer_resume(a->loop, a->cfg.node, a->transport.tls, memfd, meta,
			  agent_peer_event, i, &i->peer);
	if (err) {
		free(i);
		return err;
	}
	i->next = a->imports;
	a->imports = i;
	*out = i;
	return 0;
}

/* What another application has brought already. Return: 0; -ENOENT; -ESTALE: too late */
static int find(struct agent *a, const struct local_msg *m, int fd,
		struct home_region **home, struct import **import)
{
	struct home_region *h = home_find(a->home, m->name, 0);
	struct import *i = a->imports;

	while (i && !same_file(fd, peer_meta(i->peer)))
		i = i->next;
	if (i) {
		if (!peer_resuming(i->peer) || peer_dead(i->peer) ||
		    !agent_same_key(&m->key, peer_key(i->peer)))
			return -ESTALE;
		*import = i;
		return 0;
	}
	if (!h)
		return -ENOENT;
	if (!home_resuming(h) || !same_file(fd, home_meta(h)) ||
	    !agent_same_key(&m->key, home_key(h, false)))
		return -ESTALE;
	*home = h;
	return 0;
}

static int resume(struct agent *a, const struct local_msg *m, const int *fds,
		  struct home_region **home, struct import **import)
{
	struct meta *meta;
	int memfd, err = open_meta(m, fds[2], &meta);

	if (err)
		return err;
	memfd = take_memfd(fds[1], m->size, meta->shift);
	err = memfd < 0 ? memfd : decide(a, meta);
	if (err) {
		meta_destroy(meta);
		if (memfd >= 0)
			close(memfd);
		return err;
	}
	return meta->hdr->kind == META_HOME ? resume_home(a, memfd, meta, home)
					    : resume_import(a, memfd, meta, import);
}

int agent_resume(struct app *app, struct local_msg *m, const int *fds, int nfds)
{
	struct agent *a = app->agent;
	struct home_region *h = NULL;
	struct import *i = NULL;
	int err;

	if (nfds != 3 || !gm_name_ok(m->name))
		return -EINVAL;
	err = find(a, m, fds[2], &h, &i);
	if (err == -ENOENT)
		err = resume(a, m, fds, &h, &i);
	if (!err)
		err = agent_window_new(app, h, i, fds[0], m);
	if (err)
		return err;
	assert(h || i);
	agent_describe(a, m, h ? home_desc(h) : peer_desc(i->peer));
	m->flags = h ? LOCAL_OWNER : 0;
	return 0;
}
