// SPDX-License-Identifier: BSD-2-Clause
/* dir: picks the directory by its URL. Contract in dir.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dir.h"

static const struct dir_ops *const all[] = { &dir_file_ops, &dir_etcd_ops };

int dir_open(const char *url, uint32_t lease_ms, int timeout_ms, struct dir **out)
{
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		size_t n = strlen(all[i]->scheme);
		struct dir *d;
		int err;

		if (strncmp(url, all[i]->scheme, n) || url[n] != ':')
			continue;
		d = calloc(1, sizeof(*d));
		if (!d)
			return -ENOMEM;
		d->ops = all[i];
		d->lease_ms = lease_ms;
		d->timeout_ms = timeout_ms;
		pthread_mutex_init(&d->lock, NULL);
		err = d->ops->open(d, url + n + 1, timeout_ms);
		if (err) {
			free(d);
			return err;
		}
		*out = d;
		return 0;
	}
	return -EINVAL;
}

void dir_close(struct dir *d)
{
	if (!d)
		return;
	d->ops->close(d);
	pthread_mutex_destroy(&d->lock);
	free(d);
}

int dir_add(struct dir *d, struct dir_region *r)
{
	int err;

	pthread_mutex_lock(&d->lock);
	err = d->ops->add(d, r);
	pthread_mutex_unlock(&d->lock);
	return err;
}

int dir_find(struct dir *d, const char *name, uint64_t bus, struct dir_region *out)
{
	int err;

	if (d->ops->free_reads)
		return d->ops->find(d, name, bus, out);
	pthread_mutex_lock(&d->lock);
	err = d->ops->find(d, name, bus, out);
	pthread_mutex_unlock(&d->lock);
	return err;
}

int dir_list(struct dir *d, int (*each)(void *arg, const struct dir_region *r), void *arg)
{
	int err;

	if (d->ops->free_reads)
		return d->ops->list(d, each, arg);
	pthread_mutex_lock(&d->lock);
	err = d->ops->list(d, each, arg);
	pthread_mutex_unlock(&d->lock);
	return err;
}

int dir_update(struct dir *d, const struct dir_region *r, uint32_t old_epoch)
{
	int err;

	pthread_mutex_lock(&d->lock);
	err = d->ops->update(d, r, old_epoch);
	pthread_mutex_unlock(&d->lock);
	return err;
}

int dir_remove(struct dir *d, const char *name, uint32_t epoch)
{
	int err;

	pthread_mutex_lock(&d->lock);
	err = d->ops->remove(d, name, epoch);
	pthread_mutex_unlock(&d->lock);
	return err;
}

int dir_renew(struct dir *d, const char *node)
{
	int err;

	pthread_mutex_lock(&d->lock);
	err = d->ops->renew(d, node);
	pthread_mutex_unlock(&d->lock);
	return err;
}

void dir_announce(struct dir *d, const char *addr)
{
	snprintf(d->addr, sizeof(d->addr), "%s", addr);
}

int dir_node(struct dir *d, const char *node, char addr[NET_ADDR_MAX])
{
	int err;

	if (d->ops->free_reads)
		return d->ops->node(d, node, addr);
	pthread_mutex_lock(&d->lock);
	err = d->ops->node(d, node, addr);
	pthread_mutex_unlock(&d->lock);
	return err;
}

int dir_watch_fd(struct dir *d)
{
	int fd = -ENOTSUP;

	pthread_mutex_lock(&d->lock);
	if (d->ops->watch_fd)
		fd = d->ops->watch_fd(d);
	pthread_mutex_unlock(&d->lock);
	return fd;
}

int dir_watch_next(struct dir *d, struct dir_region *out)
{
	return d->ops->watch_next ? d->ops->watch_next(d, out) : 0;
}
