// SPDX-License-Identifier: BSD-2-Clause
/*
 * dir_etcd_watch: a thread that holds etcd's stream of changes open, from the revision
 * seen last, and hands regions over through a list and an eventfd. A lost stream is
 * opened again after 200 ms and goes on where it was. Contract in dir.h.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "dir_etcd.h"

#define AGAIN_MS 200

struct change {
	struct change *next;
	struct dir_region r;
};

struct etcd_watch {
	const struct etcd_dir *e;
	pthread_t thread;
	CURLM *multi;
	atomic_bool stop;
	int fd;
	int64_t revision; /* seen last; thread only */
	struct etcd_buf line;
	pthread_mutex_t lock; /* head, tail */
	struct change *head, **tail;
};

static void push(struct etcd_watch *w, const struct dir_region *r)
{
	struct change *c = malloc(sizeof(*c));
	uint64_t one = 1;

	if (!c)
		return;
	c->next = NULL;
	c->r = *r;
	pthread_mutex_lock(&w->lock);
	*w->tail = c;
	w->tail = &c->next;
	pthread_mutex_unlock(&w->lock);
	if (write(w->fd, &one, sizeof(one)) != sizeof(one))
		return; /* it is readable already */
}

/* One message of the stream. */
static void message(struct etcd_watch *w, const char *s, size_t n)
{
	json_error_t je;
	json_t *m = json_loadb(s, n, 0, &je), *result = json_object_get(m, "result"), *ev;
	int64_t revision, compacted;
	struct dir_region r;
	size_t i;

	revision =
		etcd_int(json_object_get(json_object_get(result, "header"), "revision"));
	compacted = etcd_int(json_object_get(result, "compact_revision"));
	json_array_foreach(json_object_get(result, "events"), i, ev)
	{
		if (!etcd_kv(w->e, json_object_get(ev, "kv"), &r))
			push(w, &r);
	}
	if (compacted > w->revision)
		w->revision = compacted - 1;
	else if (i && revision > w->revision)
		w->revision = revision;
	json_decref(m);
}

static size_t streamed(char *p, size_t size, size_t n, void *arg)
{
	struct etcd_watch *w = arg;
	char *end;

	if (etcd_take(p, size, n, &w->line) != n)
		return 0;
	while ((end = memchr(w->line.p, '\n', w->line.len))) {
		size_t used = (size_t)(end - w->line.p) + 1;

		message(w, w->line.p, used);
		memmove(w->line.p, w->line.p + used, w->line.len - used + 1);
		w->line.len -= used;
	}
	return n;
}

static char *request(const struct etcd_watch *w)
{
	char end[sizeof(w->e->prefix) + 16], start[24];
	json_t *v;
	char *s;

	snprintf(end, sizeof(end), "%s/region0", w->e->prefix);
	snprintf(start, sizeof(start), "%" PRId64, w->revision + 1);
	v = json_pack("{s:{s:o,s:o,s:s}}", "create_request", "key",
		      etcd_key(w->e, "region/", ""), "range_end", etcd_b64(end),
		      "start_revision", start);
	s = v ? json_dumps(v, JSON_COMPACT) : NULL;
	json_decref(v);
	return s;
}

static void stream(struct etcd_watch *w)
{
	char url[sizeof(w->e->base) + 16], *body = request(w);
	CURL *c = curl_easy_init();
	int running = 1;

	w->line.len = 0;
	snprintf(url, sizeof(url), "%s/v3/watch", w->e->base);
	if (c && body) {
		curl_easy_setopt(c, CURLOPT_URL, url);
		curl_easy_setopt(c, CURLOPT_POSTFIELDS, body);
		curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, streamed);
		curl_easy_setopt(c, CURLOPT_WRITEDATA, w);
		curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
		curl_easy_setopt(c, CURLOPT_PROXY, "");
		curl_easy_setopt(c, CURLOPT_TCP_KEEPALIVE, 1L);
		curl_multi_add_handle(w->multi, c);
		while (!w->stop && !curl_multi_perform(w->multi, &running) && running)
			curl_multi_poll(w->multi, NULL, 0, 1000, NULL);
		curl_multi_remove_handle(w->multi, c);
	}
	curl_easy_cleanup(c);
	free(body);
}

static void *run(void *arg)
{
	struct etcd_watch *w = arg;

	while (!w->stop) {
		stream(w);
		if (!w->stop)
			curl_multi_poll(w->multi, NULL, 0, AGAIN_MS, NULL);
	}
	return NULL;
}

int etcd_watch_fd(struct dir *d)
{
	struct etcd_dir *e = d->priv;
	struct etcd_watch *w;
	json_t *a;
	int err;

	if (e->watch)
		return e->watch->fd;
	err = etcd_all(e, &a);
	if (err)
		return err;
	w = calloc(1, sizeof(*w));
	if (!w) {
		json_decref(a);
		return -ENOMEM;
	}
	w->e = e;
	w->tail = &w->head;
	w->revision = etcd_int(json_object_get(json_object_get(a, "header"), "revision"));
	json_decref(a);
	pthread_mutex_init(&w->lock, NULL);
	w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	w->multi = curl_multi_init();
	err = w->fd < 0 ? errno : !w->multi ? ENOMEM : 0;
	if (!err)
		err = pthread_create(&w->thread, NULL, run, w);
	if (err) {
		if (w->fd >= 0)
			close(w->fd);
		curl_multi_cleanup(w->multi);
		free(w);
		return -err;
	}
	e->watch = w;
	return w->fd;
}

int etcd_watch_next(struct dir *d, struct dir_region *out)
{
	struct etcd_dir *e = d->priv;
	struct etcd_watch *w = e->watch;
	struct change *c;
	uint64_t n;

	if (!w)
		return 0;
	pthread_mutex_lock(&w->lock);
	c = w->head;
	if (c) {
		w->head = c->next;
		if (!w->head)
			w->tail = &w->head;
	}
	/* Under the lock: what is pushed from now on makes it readable again. */
	if (!w->head && read(w->fd, &n, sizeof(n)) < 0)
		n = 0;
	pthread_mutex_unlock(&w->lock);
	if (!c)
		return 0;
	*out = c->r;
	free(c);
	return 1;
}

void etcd_watch_stop(struct etcd_dir *e)
{
	struct etcd_watch *w = e->watch;

	if (!w)
		return;
	w->stop = true;
	curl_multi_wakeup(w->multi);
	pthread_join(w->thread, NULL);
	curl_multi_cleanup(w->multi);
	while (w->head) {
		struct change *c = w->head;

		w->head = c->next;
		free(c);
	}
	pthread_mutex_destroy(&w->lock);
	free(w->line.p);
	close(w->fd);
	free(w);
	e->watch = NULL;
}
