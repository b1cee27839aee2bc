// SPDX-License-Identifier: BSD-2-Clause
/*
 * ctl_dma: "dma-log-*", by which a migration learns what the device writes into a guest.
 *
 * start gives two bitmaps (memfds, one bit per 4 KiB page, page n is bit n % 8 of byte
 * n / 8). One is marked in; swap names the one to harvest, whose reader clears it before
 * the next swap. All that was written before the request is marked in it, what is written
 * during it in one of the two, and on return no worker marks in it any more. For this
 * each queue is asked twice, between two bursts: before the change, when it completes
 * what it began, and after. stop does the same for the last time; the bitmaps live as
 * long as someone has them. So the last harvest is complete if rings are stopped first.
 *
 * An answer that is lost loses no dirt: bits are cleared by the harvester alone, and what
 * it left in the other bitmap stop adds to the last one.
 *
 * Two harvesters would take each other's dirt. So start may name an owner, and then
 * swap and stop must name the same.
 *
 * The bitmaps never grow: descriptors and mappings are out with the harvester. They reach
 * above the guest's memory from the start, for what may be plugged in; a bitmap's pages
 * that nobody marks take no memory. What is written even beyond that is counted.
 *
 * Control thread. SCM_RIGHTS: unix(7).
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "ctl_cmd.h"
#include "dma_log.h"
#include "../lib/log.h"

/* Guest pages above the highest: as many again, at least 64 GiB. */
#define MIN_HEADROOM (64ULL << (30 - DMA_LOG_PAGE_SHIFT))

struct target {
	struct instance *in;
	struct dma_log *log;
	uint64_t guest_pages; /* up to the highest address there is now */
	struct dma_log_grace grace;
};

static void settle(void *arg)
{
	struct port_queue *q = arg;

	if (q->port->ops->settle)
		q->port->ops->settle(q);
}

/* dma_log_grace.wait() */
static void pass_all(void *arg)
{
	const struct instance *in = arg;

	for (unsigned int q = 0; q < in->port->nqueues; q++)
		in->env.call(in->env.owner, q, settle, in->port->queue[q]);
}

/* Let XDP say of frames to come that the log is @on; the front end's may be, too. */
static void flag(const struct target *t, bool on)
{
	struct port *p = t->in->port;

	on |= dma_log_on(t->log);
	if (p->logged == on)
		return;
	p->logged = on;
	t->in->env.changed(t->in->env.owner);
}

/* From now on in the other bitmap. Return: which to harvest */
static unsigned int swap(const struct target *t)
{
	pass_all(t->in);
	return (unsigned int)dma_log_swap(t->log, &t->grace);
}

/* The instance of a request and its log. Return: false: *@answer is the answer */
static bool find_target(struct daemon *d, const json_t *req, struct target *t,
			json_t **answer)
{
	const char *name = ctl_member(req, "instance");
	struct iface *i;

	if (!name) {
		*answer = ctl_error("no \"instance\"; \"instances\" lists them");
		return false;
	}
	i = ctl_find_iface(d, ctl_member(req, "iface"), answer);
	if (!i)
		return false;
	t->in = iface_find_instance(i, name);
	if (!t->in) {
		*answer = ctl_error("no instance %s on %s; \"instances\" lists them",
				    name, i->name);
		return false;
	}
	if (!t->in->port->ops->dma_log) {
		*answer = ctl_error("port %s of instance %s writes no guest's memory; "
				    "only vhost-user has a DMA log",
				    t->in->port->ops->name, name);
		return false;
	}
	t->log = t->in->port->ops->dma_log(t->in->port, &t->guest_pages);
	t->grace = (struct dma_log_grace){ .wait = pass_all, .arg = t->in };
	return true;
}

/* The same, with its log on and @req from who may harvest it. */
static bool find_harvest(struct daemon *d, const json_t *req, struct target *t,
			 json_t **answer)
{
	const char *owner = ctl_member(req, "owner");

	if (!find_target(d, req, t, answer))
		return false;
	if (dma_log_active(t->log) < 0) {
		*answer = ctl_error("the DMA log of instance %s is off; start it first",
				    t->in->conf.name);
		return false;
	}
	if (*t->log->pair_owner && (!owner || strcmp(owner, t->log->pair_owner))) {
		*answer = ctl_error("the DMA log of instance %s belongs to %s",
				    t->in->conf.name, t->log->pair_owner);
		return false;
	}
	return true;
}

static uint64_t load(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

/* What every answer has. */
static json_t *describe(const struct target *t)
{
	const struct dma_log_map *m = &t->log->pair_map[0];

	return json_pack("{s:b, s:s, s:s, s:I, s:I, s:I}", "ok", 1, "interface",
			 t->in->iface->name, "instance", t->in->conf.name, "pages",
			 (json_int_t)(m->base ? m->bits : 0), "guest_pages",
			 (json_int_t)t->guest_pages, "beyond",
			 (json_int_t)load(&t->log->pair_beyond));
}

/* Takes the reference of @o, which may be NULL. */
static json_t *add(json_t *o, const char *key, json_t *value)
{
	if (!json_object_set_new(o, key, value))
		return o;
	json_decref(o);
	return NULL;
}

static json_t *add_harvest(json_t *o, const struct target *t, unsigned int harvest)
{
	o = add(o, "harvest", json_integer((json_int_t)harvest));
	return add(o, "dirty", json_integer((json_int_t)dma_log_dirty(t->log, harvest)));
}

/* Return: 0, -errno, and then @fds is as it was */
static int add_fd(struct ctl_fds *fds, int fd)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	if (copy < 0)
		return -errno;
	fds->fd[fds->n++] = copy;
	return 0;
}

static void warn_beyond(const struct target *t)
{
	uint64_t n = load(&t->log->pair_beyond);

	if (n)
		log_limited(LOG_LVL_WARN,
			    "%s: instance %s: %llu pages written beyond its DMA log; "
			    "restart the log, then copy all memory",
			    t->in->iface->name, t->in->conf.name, (unsigned long long)n);
}

static uint64_t pages_to_cover(uint64_t guest_pages)
{
	uint64_t room = guest_pages > MIN_HEADROOM ? guest_pages : MIN_HEADROOM;

	return guest_pages >= DMA_LOG_MAX_PAGES - room ? DMA_LOG_MAX_PAGES
						       : guest_pages + room;
}

json_t *ctl_dma_start(struct daemon *d, const json_t *req, struct ctl_fds *fds)
{
	const char *owner = ctl_member(req, "owner");
	struct target t;
	json_t *o;
	int err;

	if (!find_target(d, req, &t, &o))
		return o;
	if (owner && strlen(owner) >= sizeof(t.log->pair_owner))
		return ctl_error("\"owner\" is longer than %zu bytes",
				 sizeof(t.log->pair_owner) - 1);
	if (!t.guest_pages)
		return ctl_error("no guest is connected to instance %s; nothing writes "
				 "its memory",
				 t.in->conf.name);
	flag(&t, true);
	err = dma_log_enable_pair(t.log, pages_to_cover(t.guest_pages), &t.grace);
	if (err)
		flag(&t, false);
	if (err == -EALREADY)
		return ctl_error("the DMA log of instance %s is on already%s%s",
				 t.in->conf.name, *t.log->pair_owner ? ", for " : "",
				 t.log->pair_owner);
	if (err)
		return ctl_error("bitmaps: %s", strerror(-err));
	strcpy(t.log->pair_owner, owner ? owner : "");
	err = add_fd(fds, t.log->pair_fd[0]);
	if (!err)
		err = add_fd(fds, t.log->pair_fd[1]);
	o = err ? ctl_error("bitmaps: %s", strerror(-err))
		: add(describe(&t), "active", json_integer(dma_log_active(t.log)));
	/* Nobody would know of it. */
	if (err || !o) {
		dma_log_disable_pair(t.log, &t.grace);
		flag(&t, false);
		ctl_fds_close(fds);
	} else {
		log_info("%s: instance %s: DMA log on%s%s", t.in->iface->name,
			 t.in->conf.name, owner ? " for " : "", owner ? owner : "");
	}
	return o;
}

json_t *ctl_dma_swap(struct daemon *d, const json_t *req, struct ctl_fds *fds)
{
	struct target t;
	unsigned int harvest;
	json_t *o;
	int err;

	if (!find_harvest(d, req, &t, &o))
		return o;
	harvest = swap(&t);
	warn_beyond(&t);
	err = add_fd(fds, t.log->pair_fd[harvest]);
	if (err)
		return ctl_error("bitmap: %s", strerror(-err));
	return add_harvest(describe(&t), &t, harvest);
}

json_t *ctl_dma_stop(struct daemon *d, const json_t *req, struct ctl_fds *fds)
{
	struct target t;
	unsigned int last;
	json_t *o;
	int err;

	if (!find_harvest(d, req, &t, &o))
		return o;
	last = (unsigned int)dma_log_active(t.log);
	err = add_fd(fds, t.log->pair_fd[last]);
	if (err)
		return ctl_error("bitmap: %s", strerror(-err));
	pass_all(t.in);
	dma_log_end_pair(t.log, &t.grace);
	warn_beyond(&t);
	o = add_harvest(describe(&t), &t, last);
	dma_log_disable_pair(t.log, &t.grace);
	flag(&t, false);
	log_info("%s: instance %s: DMA log off", t.in->iface->name, t.in->conf.name);
	return o;
}

json_t *ctl_dma_show(struct daemon *d, const json_t *req)
{
	struct target t;
	json_t *o;
	int active;

	if (!find_target(d, req, &t, &o))
		return o;
	active = dma_log_active(t.log);
	o = add(describe(&t), "on", json_boolean(active >= 0));
	o = add(o, "front_end", json_boolean(t.log->front));
	o = add(o, "marked", json_integer((json_int_t)load(&t.log->marked)));
	o = add(o, "flagged", json_integer((json_int_t)load(&t.log->flagged)));
	o = add(o, "unflagged", json_integer((json_int_t)load(&t.log->unflagged)));
	if (active < 0)
		return o;
	o = add(o, "active", json_integer(active));
	o = add(o, "owner", json_string(t.log->pair_owner));
	return add(o, "dirty",
		   json_integer((json_int_t)dma_log_dirty(t.log, (unsigned int)active)));
}
