// SPDX-License-Identifier: BSD-2-Clause
/*
 * dir_file: the directory as JSON files, for agents of one machine.
 *
 *	FILE		regions, the next free bus address
 *	FILE.nodes	nodes: when they renewed their lease, where they are reached
 *	FILE.lock	held by whoever changes one of them
 *
 * A file is changed by another one that takes its name (rename): who opens it has all of
 * it, as it was at that moment, and needs no lock. Renewals are by far the most frequent
 * change; they are in a file of their own so that those who watch regions, every agent of
 * the machine, do not read it all each time.
 *
 * Who changes something waits for the lock in the kernel, where waiters queue; with many
 * agents, on a busy machine, that may take long. A quarter of a lease (at most
 * WAIT_MAX_MS) leaves time to renew it; the time limit given, if that is longer.
 *
 * Leases are times since boot of the last renewal per node; one from the future was
 * written before the last boot and has ended. Watchers are told of the rename by inotify
 * and compare the file with what they saw before.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

#include "dir_json.h"
#include "../../lib/clock.h"

#define WAIT_MAX_MS 5000
#define RETRY_MS    10 /* a signal that came before the wait is repeated */

struct file_dir {
	char path[PATH_MAX - 16];
	int lock;
	int wait_ms;   /* for the lock */
	int inotify;   /* -1: nobody watches */
	json_t *seen;  /* regions as the watcher knows them */
	json_t *fresh; /* as they are; NULL: nothing new */
};

static int file_open(struct dir *d, const char *rest, int timeout_ms)
{
	struct file_dir *f = calloc(1, sizeof(*f));
	char lock[PATH_MAX];
	int err;

	if (!f)
		return -ENOMEM;
	f->inotify = -1;
	f->wait_ms = (int)(d->lease_ms / 4);
	if (f->wait_ms > WAIT_MAX_MS)
		f->wait_ms = WAIT_MAX_MS;
	if (f->wait_ms < timeout_ms)
		f->wait_ms = timeout_ms;
	snprintf(f->path, sizeof(f->path), "%s", rest);
	snprintf(lock, sizeof(lock), "%s.lock", f->path);
	f->lock = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0660);
	if (f->lock < 0) {
		err = -errno;
		free(f);
		return err;
	}
	d->priv = f;
	return 0;
}

static void file_close(struct dir *d)
{
	struct file_dir *f = d->priv;

	if (f->inotify >= 0)
		close(f->inotify);
	json_decref(f->seen);
	json_decref(f->fresh);
	close(f->lock);
	free(f);
}

static void on_alarm(int sig)
{
}

/*
 * flock() has no time limit: a timer interrupts it, for this thread alone, over and over.
 * Threads of the agent have this signal for nothing else.
 */
static int lock_wait(struct file_dir *f)
{
	uint64_t end = clock_ns() + (uint64_t)f->wait_ms * 1000000;
	struct sigevent ev = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGALRM };
	struct itimerspec at = {
		.it_value = { f->wait_ms / 1000, f->wait_ms % 1000 * 1000000L + 1 },
		.it_interval = { 0, RETRY_MS * 1000000 },
	};
	struct sigaction act = { .sa_handler = on_alarm };
	sigset_t ours, old;
	timer_t timer;
	int err;

	if (!flock(f->lock, LOCK_EX | LOCK_NB))
		return 0;
	if (errno != EWOULDBLOCK && errno != EINTR)
		return -errno;
	ev._sigev_un._tid = gettid();
	sigemptyset(&ours);
	sigaddset(&ours, SIGALRM);
	if (sigaction(SIGALRM, &act, NULL) || timer_create(CLOCK_MONOTONIC, &ev, &timer))
		return -errno;
	pthread_sigmask(SIG_UNBLOCK, &ours, &old);
	err = timer_settime(timer, 0, &at, NULL) ? -errno : 0;
	while (!err && flock(f->lock, LOCK_EX)) {
		if (errno != EINTR)
			err = -errno;
		else if (clock_ns() >= end)
			err = -ETIMEDOUT;
	}
	timer_delete(timer);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return err;
}

/* A snapshot. Return: NULL: it is no JSON object, or cannot be read */
static json_t *load(const char *path, const char *otherwise)
{
	json_t *root = json_load_file(path, 0, NULL);

	if (!root && access(path, F_OK) && errno == ENOENT)
		root = json_loads(otherwise, 0, NULL);
	if (json_is_object(root))
		return root;
	json_decref(root);
	return NULL;
}

static int save(const char *path, json_t *root)
{
	char tmp[PATH_MAX];

	snprintf(tmp, sizeof(tmp), "%s.new", path);
	errno = 0;
	if (json_dump_file(root, tmp, JSON_INDENT(1)) || rename(tmp, path))
		return errno ? -errno : -EIO;
	return 0;
}

/* *out is {"next": bus, "regions": {}}. */
static int look(struct dir *d, json_t **out)
{
	struct file_dir *f = d->priv;

	*out = load(f->path, "{\"regions\": {}}");
	if (!*out)
		return -EBADMSG;
	if (json_is_object(json_object_get(*out, "regions")))
		return 0;
	json_decref(*out);
	return -EBADMSG;
}

/* The same, to change it: nobody else does until end(). */
static int begin(struct dir *d, json_t **out)
{
	struct file_dir *f = d->priv;
	int err = lock_wait(f);

	if (err)
		return err;
	err = look(d, out);
	if (err)
		flock(f->lock, LOCK_UN);
	return err;
}

static int end(struct dir *d, json_t *root, bool changed, int err)
{
	struct file_dir *f = d->priv;

	if (changed && !err)
		err = save(f->path, root);
	json_decref(root);
	flock(f->lock, LOCK_UN);
	return err;
}

static char *nodes_path(struct dir *d, char path[PATH_MAX])
{
	const struct file_dir *f = d->priv;

	snprintf(path, PATH_MAX, "%s.nodes", f->path);
	return path;
}

/* {node: {"renewed": ms, "address": where}} */
static json_t *nodes(struct dir *d)
{
	char path[PATH_MAX];

	return load(nodes_path(d, path), "{}");
}

static json_int_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (json_int_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static bool alive(json_t *nodes, const char *node, uint32_t lease_ms)
{
	json_t *t = json_object_get(json_object_get(nodes, node), "renewed");
	json_int_t age = now_ms() - json_integer_value(t);

	return t && age >= 0 && age < lease_ms;
}

/* The lock is held. Return: 0; -ESTALE: its lease had ended, and begins anew; -errno */
static int beat(struct dir *d, const char *node)
{
	json_t *all = nodes(d), *n;
	char path[PATH_MAX];
	bool ended;
	int err;

	if (!all)
		return -EBADMSG;
	ended = json_object_get(all, node) && !alive(all, node, d->lease_ms);
	n = json_pack("{s:I}", "renewed", now_ms());
	if (d->addr[0])
		json_object_set_new(n, "address", json_string(d->addr));
	json_object_set_new(all, node, n);
	err = save(nodes_path(d, path), all);
	json_decref(all);
	return err ? err : ended ? -ESTALE : 0;
}

/* Does a region of another name lie where @r wants to be, or next to it? */
static bool taken(json_t *root, const struct dir_region *r)
{
	struct dir_region o;
	const char *k;
	json_t *v;

	json_object_foreach(json_object_get(root, "regions"), k, v)
	{
		if (strcmp(k, r->name) && !dir_json_unpack(k, v, &o) &&
		    r->bus <= o.bus + o.size && o.bus <= r->bus + r->size)
			return true;
	}
	return false;
}

static int file_add(struct dir *d, struct dir_region *r)
{
	json_t *root, *old, *all;
	struct dir_region was;
	uint64_t next, after;
	bool lives;
	int err = begin(d, &root);

	if (err)
		return err;
	r->epoch = 1;
	r->lease_ms = d->lease_ms;
	old = json_object_get(json_object_get(root, "regions"), r->name);
	if (old && !dir_json_unpack(r->name, old, &was)) {
		all = nodes(d);
		lives = !all || alive(all, was.node, was.lease_ms);
		json_decref(all);
		if (strcmp(was.node, r->node) && lives)
			return end(d, root, false, -EEXIST);
		/* Its owner is gone, or this is its owner, started anew: old epochs end.
		 */
		r->epoch = was.epoch + 1;
	}
	next = (uint64_t)json_integer_value(json_object_get(root, "next"));
	if (next < GM_BUS_MIN)
		next = GM_BUS_MIN;
	if (!r->bus)
		r->bus = dir_align(next, r);
	else if (taken(root, r))
		return end(d, root, false, -EEXIST);
	if (r->bus < GM_BUS_MIN || r->size > GM_BUS_MAX - GM_BUS_MIN - GM_PAGE_SIZE ||
	    r->bus > GM_BUS_MAX - GM_PAGE_SIZE - r->size)
		return end(d, root, false, -ENOSPC);
	after = r->bus + r->size + GM_PAGE_SIZE;
	if (next < after)
		json_object_set_new(root, "next", json_integer((json_int_t)after));
	json_object_set_new(json_object_get(root, "regions"), r->name, dir_json_pack(r));
	/* First its lease: a region without one is anybody's. */
	err = beat(d, r->node);
	return end(d, root, true, err == -ESTALE ? 0 : err);
}

static int file_find(struct dir *d, const char *name, uint64_t bus,
		     struct dir_region *out)
{
	struct dir_region r;
	const char *k;
	json_t *root, *v;
	int err = look(d, &root);

	if (err)
		return err;
	err = -ENOENT;
	json_object_foreach(json_object_get(root, "regions"), k, v)
	{
		if (dir_json_unpack(k, v, &r))
			continue;
		if (name ? strcmp(k, name) : !gm_in_range(bus, 1, r.bus, r.size))
			continue;
		*out = r;
		err = 0;
		break;
	}
	json_decref(root);
	return err;
}

static int file_list(struct dir *d, int (*each)(void *arg, const struct dir_region *r),
		     void *arg)
{
	struct dir_region r;
	const char *k;
	json_t *root, *v;
	int err = look(d, &root);

	if (err)
		return err;
	json_object_foreach(json_object_get(root, "regions"), k, v)
	{
		if (!dir_json_unpack(k, v, &r))
			err = each(arg, &r);
		if (err)
			break;
	}
	json_decref(root);
	return err;
}

/* The stored region, if its epoch is @epoch. */
static int check_epoch(json_t *root, const char *name, uint32_t epoch)
{
	json_t *v = json_object_get(json_object_get(root, "regions"), name);
	struct dir_region r;

	if (!v || dir_json_unpack(name, v, &r))
		return -ENOENT;
	return r.epoch == epoch ? 0 : -ESTALE;
}

static int file_update(struct dir *d, const struct dir_region *r, uint32_t old_epoch)
{
	json_t *root;
	int err = begin(d, &root);

	if (err)
		return err;
	err = check_epoch(root, r->name, old_epoch);
	if (!err)
		json_object_set_new(json_object_get(root, "regions"), r->name,
				    dir_json_pack(r));
	return end(d, root, true, err);
}

static int file_remove(struct dir *d, const char *name, uint32_t epoch)
{
	json_t *root;
	int err = begin(d, &root);

	if (err)
		return err;
	err = check_epoch(root, name, epoch);
	if (!err)
		json_object_del(json_object_get(root, "regions"), name);
	return end(d, root, true, err);
}

static int file_renew(struct dir *d, const char *node)
{
	struct file_dir *f = d->priv;
	int err = lock_wait(f);

	if (err)
		return err;
	err = beat(d, node);
	flock(f->lock, LOCK_UN);
	return err;
}

static int file_node(struct dir *d, const char *node, char addr[NET_ADDR_MAX])
{
	json_t *all = nodes(d);
	const char *s;
	int err = -ENOENT;

	if (!all)
		return -EBADMSG;
	s = json_string_value(json_object_get(json_object_get(all, node), "address"));
	if (s && strlen(s) < NET_ADDR_MAX && alive(all, node, d->lease_ms)) {
		strcpy(addr, s);
		err = 0;
	}
	json_decref(all);
	return err;
}

static json_t *regions(struct dir *d)
{
	json_t *root, *r;

	if (look(d, &root))
		return NULL;
	r = json_incref(json_object_get(root, "regions"));
	json_decref(root);
	return r;
}

/* Was it this file that got its name? */
static bool is_ours(const struct file_dir *f, const struct inotify_event *e)
{
	const char *slash = strrchr(f->path, '/');

	return e->len && !strcmp(e->name, slash ? slash + 1 : f->path);
}

static int file_watch_fd(struct dir *d)
{
	struct file_dir *f = d->priv;
	char dir[PATH_MAX], *slash;
	int err;

	if (f->inotify >= 0)
		return f->inotify;
	snprintf(dir, sizeof(dir), "%s", f->path);
	slash = strrchr(dir, '/');
	if (slash)
		slash[slash == dir] = 0;
	f->inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (f->inotify < 0)
		return -errno;
	err = inotify_add_watch(f->inotify, slash ? dir : ".", IN_MOVED_TO) < 0 ? -errno
										: 0;
	if (!err) {
		f->seen = regions(d);
		err = f->seen ? 0 : -EBADMSG;
	}
	if (err) {
		close(f->inotify);
		f->inotify = -1;
		return err;
	}
	return f->inotify;
}

static int file_watch_next(struct dir *d, struct dir_region *out)
{
	struct file_dir *f = d->priv;
	char events[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
	bool renamed = false;
	ssize_t n;
	const char *k;
	json_t *v;

	if (f->inotify < 0)
		return 0;
	while ((n = read(f->inotify, events, sizeof(events))) > 0) {
		const struct inotify_event *e;

		for (ssize_t at = 0; at < n; at += (ssize_t)(sizeof(*e) + e->len)) {
			e = (const void *)(events + at);
			renamed |= e->mask & IN_Q_OVERFLOW || is_ours(f, e);
		}
	}
	if (renamed) {
		v = regions(d);
		if (!v)
			return -EBADMSG;
		json_decref(f->fresh);
		f->fresh = v;
	}
	if (!f->fresh)
		return 0;
	json_object_foreach(f->seen, k, v)
	{
		if (json_object_get(f->fresh, k))
			continue;
		*out = (struct dir_region){ 0 };
		snprintf(out->name, sizeof(out->name), "%s", k);
		json_object_del(f->seen, out->name);
		return 1;
	}
	json_object_foreach(f->fresh, k, v)
	{
		if (json_equal(json_object_get(f->seen, k), v))
			continue;
		json_object_set(f->seen, k, v);
		if (!dir_json_unpack(k, v, out))
			return 1;
	}
	json_decref(f->fresh);
	f->fresh = NULL;
	return 0;
}

const struct dir_ops dir_file_ops = {
	.scheme = "file",
	.free_reads = true,
	.open = file_open,
	.close = file_close,
	.add = file_add,
	.find = file_find,
	.list = file_list,
	.update = file_update,
	.remove = file_remove,
	.renew = file_renew,
	.node = file_node,
	.watch_fd = file_watch_fd,
	.watch_next = file_watch_next,
};
