// SPDX-License-Identifier: BSD-2-Clause
/*
 * dir_file: the directory as one JSON file, for agents of one machine. Every call takes a
 * lock on FILE.lock, reads the file, and, if it changes something, replaces it by rename:
 * a reader never sees half of it. Leases are times since boot of the last renewal per
 * node; one from the future was written before the last boot and has ended. Watchers are
 * told of the rename by inotify and compare the file with what they saw before.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

#include "dir_json.h"
#include "../../lib/clock.h"

struct file_dir {
	char path[PATH_MAX - 8];
	int lock;
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

/* Lock and read; *out is {"next": bus, "regions": {}, "nodes": {}}. */
static int begin(struct dir *d, json_t **out)
{
	struct file_dir *f = d->priv;
	uint64_t end = clock_ns() + (uint64_t)d->timeout_ms * 1000000;
	json_error_t e;

	while (flock(f->lock, LOCK_EX | LOCK_NB)) {
		struct timespec ms = { .tv_nsec = 1000000 };

		if (errno != EWOULDBLOCK && errno != EINTR)
			return -errno;
		if (clock_ns() > end)
			return -ETIMEDOUT;
		nanosleep(&ms, NULL);
	}
	if (access(f->path, F_OK))
		*out = json_pack("{s:I,s:{},s:{}}", "next", (json_int_t)GM_BUS_MIN,
				 "regions", "nodes");
	else
		*out = json_load_file(f->path, 0, &e);
	if (*out && json_is_object(json_object_get(*out, "regions")) &&
	    json_is_object(json_object_get(*out, "nodes")))
		return 0;
	json_decref(*out);
	flock(f->lock, LOCK_UN);
	return -EBADMSG;
}

static int end(struct dir *d, json_t *root, bool changed, int err)
{
	struct file_dir *f = d->priv;
	char tmp[PATH_MAX];

	snprintf(tmp, sizeof(tmp), "%s.new", f->path);
	if (changed && !err &&
	    (json_dump_file(root, tmp, JSON_INDENT(1)) || rename(tmp, f->path)))
		err = errno ? -errno : -EIO;
	json_decref(root);
	flock(f->lock, LOCK_UN);
	return err;
}

static json_int_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (json_int_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static bool alive(json_t *root, const char *node, uint32_t lease_ms)
{
	json_t *t = json_object_get(json_object_get(root, "nodes"), node);

	json_int_t age = now_ms() - json_integer_value(t);

	return t && age >= 0 && age < lease_ms;
}

static void beat(struct dir *d, json_t *root, const char *node)
{
	json_t *addrs = json_object_get(root, "addresses");

	json_object_set_new(json_object_get(root, "nodes"), node, json_integer(now_ms()));
	if (!d->addr[0])
		return;
	if (!addrs) {
		addrs = json_object();
		json_object_set_new(root, "addresses", addrs);
	}
	json_object_set_new(addrs, node, json_string(d->addr));
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
	json_t *root, *old;
	struct dir_region was;
	uint64_t next;
	int err = begin(d, &root);

	if (err)
		return err;
	r->epoch = 1;
	r->lease_ms = d->lease_ms;
	old = json_object_get(json_object_get(root, "regions"), r->name);
	if (old && !dir_json_unpack(r->name, old, &was)) {
		if (strcmp(was.node, r->node) && alive(root, was.node, was.lease_ms))
			return end(d, root, false, -EEXIST);
		/* Its owner is gone, or this is its owner, started anew: old epochs end.
		 */
		r->epoch = was.epoch + 1;
	}
	next = (uint64_t)json_integer_value(json_object_get(root, "next"));
	if (!r->bus)
		r->bus = next;
	else if (taken(root, r))
		return end(d, root, false, -EEXIST);
	if (r->bus < GM_BUS_MIN || r->size > GM_BUS_MAX - GM_BUS_MIN - GM_PAGE_SIZE ||
	    r->bus > GM_BUS_MAX - GM_PAGE_SIZE - r->size)
		return end(d, root, false, -ENOSPC);
	if (next < r->bus + r->size + GM_PAGE_SIZE)
		json_object_set_new(
			root, "next",
			json_integer((json_int_t)(r->bus + r->size + GM_PAGE_SIZE)));
	json_object_set_new(json_object_get(root, "regions"), r->name, dir_json_pack(r));
	beat(d, root, r->node);
	return end(d, root, true, 0);
}

static int file_find(struct dir *d, const char *name, uint64_t bus,
		     struct dir_region *out)
{
	struct dir_region r;
	const char *k;
	json_t *root, *v;
	int err = begin(d, &root);

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
	return end(d, root, false, err);
}

static int file_list(struct dir *d, int (*each)(void *arg, const struct dir_region *r),
		     void *arg)
{
	struct dir_region r;
	const char *k;
	json_t *root, *v;
	int err = begin(d, &root);

	if (err)
		return err;
	json_object_foreach(json_object_get(root, "regions"), k, v)
	{
		if (!dir_json_unpack(k, v, &r))
			err = each(arg, &r);
		if (err)
			break;
	}
	return end(d, root, false, err);
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
	json_t *root;
	bool ended;
	int err = begin(d, &root);

	if (err)
		return err;
	ended = json_object_get(json_object_get(root, "nodes"), node) &&
		!alive(root, node, d->lease_ms);
	beat(d, root, node);
	err = end(d, root, true, 0);
	return err ? err : ended ? -ESTALE : 0;
}

static int file_node(struct dir *d, const char *node, char addr[NET_ADDR_MAX])
{
	const char *s;
	json_t *root;
	int err = begin(d, &root);

	if (err)
		return err;
	s = json_string_value(json_object_get(json_object_get(root, "addresses"), node));
	if (s && strlen(s) < NET_ADDR_MAX && alive(root, node, d->lease_ms))
		strcpy(addr, s);
	else
		err = -ENOENT;
	return end(d, root, false, err);
}

static json_t *regions(struct dir *d)
{
	json_t *root, *r;

	if (begin(d, &root))
		return NULL;
	r = json_incref(json_object_get(root, "regions"));
	end(d, root, false, 0);
	return r;
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
	char events[4096];
	bool renamed = false;
	const char *k;
	json_t *v;

	if (f->inotify < 0)
		return 0;
	while (read(f->inotify, events, sizeof(events)) > 0)
		renamed = true;
	if (renamed) {
		/* dir_watch_next() takes no lock: etcd's list has its own. */
		pthread_mutex_lock(&d->lock);
		v = regions(d);
		pthread_mutex_unlock(&d->lock);
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
