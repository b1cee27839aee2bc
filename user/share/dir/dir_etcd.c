// SPDX-License-Identifier: BSD-2-Clause
/*
 * dir_etcd: the directory in etcd, through the JSON gateway of its version 3. Under the
 * prefix P of the URL lie
 *
 *	P/region/NAME	the region (dir_json.h)
 *	P/bus/ADDRESS	its name, by first bus address, 16 hexadecimal digits
 *	P/next		first bus address that was never handed out
 *	P/node/NODE	its address, bound to the node's lease: there while it is alive
 *
 * Whatever changes something is one transaction, conditional on the revisions of what it
 * was decided by; if another was faster it is decided anew. etcd counts leases in whole
 * seconds and not below 2, so a node's key outlives the lease_ms after which the node
 * itself stops serving.
 */
#include <curl/curl.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dir_etcd.h"
#include "dir_json.h"

#define TRIES 64

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void init_curl(void)
{
	curl_global_init(CURL_GLOBAL_DEFAULT);
}

/* ---- leases ----------------------------------------------------------------------- */

static int grant(struct etcd_dir *e, uint32_t lease_ms, int timeout_ms)
{
	json_t *a;
	int err =
		etcd_call(e, "lease/grant",
			  json_pack("{s:I}", "TTL", (json_int_t)(lease_ms + 999) / 1000),
			  timeout_ms, &a);

	if (err)
		return err;
	e->lease = etcd_int(json_object_get(a, "ID"));
	json_decref(a);
	return e->lease ? 0 : -EBADMSG;
}

static int etcd_renew(struct dir *d, const char *node)
{
	struct etcd_dir *e = d->priv;
	/* The caller serves pages meanwhile: better late than long. */
	int t = (int)(d->lease_ms / 10) < e->timeout_ms ? (int)(d->lease_ms / 10)
							: e->timeout_ms;
	int64_t old = e->lease;
	json_t *a, *r, *key;
	char id[24];
	int err;

	t = t < 50 ? 50 : t;
	if (old) {
		snprintf(id, sizeof(id), "%" PRId64, old);
		err = etcd_call(e, "lease/keepalive", json_pack("{s:s}", "ID", id), t,
				&a);
		if (err)
			return err;
		r = json_object_get(a, "result");
		err = etcd_int(json_object_get(r, "TTL")) > 0;
		json_decref(a);
		if (err)
			return 0;
		e->lease = 0;
	}
	err = grant(e, d->lease_ms, t);
	if (err)
		return err;
	snprintf(id, sizeof(id), "%" PRId64, e->lease);
	key = etcd_key(e, "node", node);
	err = etcd_call(e, "kv/put",
			json_pack("{s:o,s:o*,s:s}", "key", key, "value",
				  *d->addr ? etcd_b64(d->addr) : NULL, "lease", id),
			t, &a);
	if (err) {
		e->lease = 0;
		return err;
	}
	json_decref(a);
	return old ? -ESTALE : 0;
}

/* ---- what dir.h promises ------------------------------------------------------------
 */

static int etcd_open(struct dir *d, const char *rest, int timeout_ms)
{
	struct etcd_dir *e = calloc(1, sizeof(*e));
	const char *host = strstr(rest, "://");
	const char *slash = host ? strchr(host + 3, '/') : NULL;
	size_t n = slash ? (size_t)(slash - rest) : strlen(rest);

	if (!e)
		return -ENOMEM;
	if (!host || n >= sizeof(e->base) ||
	    (slash && strlen(slash) >= sizeof(e->prefix))) {
		free(e);
		return -EINVAL;
	}
	memcpy(e->base, rest, n);
	strcpy(e->prefix, slash ? slash : "");
	n = strlen(e->prefix);
	if (n && e->prefix[n - 1] == '/')
		e->prefix[n - 1] = 0;
	if (!e->prefix[0])
		strcpy(e->prefix, "/ghostmem");
	e->timeout_ms = timeout_ms;
	pthread_once(&once, init_curl);
	e->curl = curl_easy_init();
	if (!e->curl) {
		free(e);
		return -ENOMEM;
	}
	d->priv = e;
	return 0;
}

static void etcd_close(struct dir *d)
{
	struct etcd_dir *e = d->priv;

	etcd_watch_stop(e);
	curl_easy_cleanup(e->curl);
	free(e);
}

/* The region that starts last at or below @bus; its name, or NULL: none. */
static int below(struct etcd_dir *e, uint64_t bus, char **name)
{
	char end[17];
	json_t *a, *v;
	int err;

	etcd_bus_name(bus + 1, end);
	err = etcd_call(e, "kv/range",
			json_pack("{s:o,s:o,s:s,s:s,s:i}", "key",
				  etcd_key(e, "bus", "0000000000000000"), "range_end",
				  etcd_key(e, "bus", end), "sort_order", "DESCEND",
				  "sort_target", "KEY", "limit", 1),
			e->timeout_ms, &a);
	if (err)
		return err;
	v = json_array_get(json_object_get(a, "kvs"), 0);
	*name = v ? etcd_text(json_object_get(v, "value")) : NULL;
	json_decref(a);
	return 0;
}

static int etcd_find(struct dir *d, const char *name, uint64_t bus,
		     struct dir_region *out)
{
	struct etcd_dir *e = d->priv;
	struct dir_region r;
	char *found = NULL;
	int64_t revision;
	int err;

	if (!name) {
		if (bus >= GM_BUS_MAX)
			return -ENOENT;
		err = below(e, bus, &found);
		if (err || !found)
			return err ? err : -ENOENT;
		name = found;
	}
	err = gm_name_ok(name) ? etcd_get_region(e, name, &r, &revision) : -ENOENT;
	if (!err && found && !gm_in_range(bus, 1, r.bus, r.size))
		err = -ENOENT;
	free(found);
	if (!err)
		*out = r;
	return err;
}

static int etcd_list(struct dir *d, int (*each)(void *arg, const struct dir_region *r),
		     void *arg)
{
	struct etcd_dir *e = d->priv;
	json_t *a;
	int err = etcd_all(e, &a);
	size_t i;
	json_t *kv;

	if (err)
		return err;
	json_array_foreach(json_object_get(a, "kvs"), i, kv)
	{
		struct dir_region r;

		if (!etcd_kv(e, kv, &r) && r.size)
			err = each(arg, &r);
		if (err)
			break;
	}
	json_decref(a);
	return err;
}

/* Where @r goes. *next: first address never handed out, before and after */
static int place(struct etcd_dir *e, struct dir_region *r, uint64_t *next)
{
	struct dir_region o;
	int64_t revision;
	char *name;
	int err;

	if (r->size > GM_BUS_MAX - GM_BUS_MIN - GM_PAGE_SIZE)
		return -ENOSPC;
	if (!r->bus) {
		r->bus = dir_align(*next, r);
	} else if (r->bus < GM_BUS_MIN || r->bus > GM_BUS_MAX - GM_PAGE_SIZE - r->size) {
		return -ENOSPC;
	} else {
		err = below(e, r->bus + r->size, &name);
		if (err)
			return err;
		if (name && gm_name_ok(name) && strcmp(name, r->name) &&
		    !etcd_get_region(e, name, &o, &revision) && o.bus + o.size >= r->bus)
			err = -EEXIST;
		free(name);
		if (err)
			return err;
	}
	if (r->bus > GM_BUS_MAX - GM_PAGE_SIZE - r->size)
		return -ENOSPC;
	if (*next < r->bus + r->size + GM_PAGE_SIZE)
		*next = r->bus + r->size + GM_PAGE_SIZE;
	return 0;
}

/* Decide and try once. Return: as etcd_txn_run() */
static int try_add(struct dir *d, struct dir_region *r)
{
	struct etcd_dir *e = d->priv;
	int64_t region_rev, next_rev, node_rev = -1;
	uint64_t next = GM_BUS_MIN;
	char text[24], bus[17], *s;
	struct dir_region was;
	struct etcd_txn t;
	int err = etcd_get_region(e, r->name, &was, &region_rev);

	if (err && err != -ENOENT)
		return err;
	r->epoch = 1;
	if (!err) {
		if (strcmp(was.node, r->node)) {
			err = etcd_get(e, "node", was.node, &s, &node_rev);
			if (err)
				return err;
			free(s);
			if (s)
				return -EEXIST;
		}
		r->epoch = was.epoch + 1;
	}
	err = etcd_get(e, "next", "", &s, &next_rev);
	if (err)
		return err;
	if (s)
		next = strtoull(s, NULL, 16);
	free(s);
	err = next < GM_BUS_MIN ? -EBADMSG : place(e, r, &next);
	if (err)
		return err;
	etcd_txn_begin(&t);
	etcd_txn_if(&t, etcd_key(e, "region", r->name), region_rev);
	etcd_txn_if(&t, etcd_key(e, "next", ""), next_rev);
	if (node_rev >= 0)
		etcd_txn_if(&t, etcd_key(e, "node", was.node), 0);
	if (region_rev && was.bus != r->bus) {
		etcd_bus_name(was.bus, bus);
		etcd_txn_del(&t, etcd_key(e, "bus", bus));
	}
	etcd_txn_put_region(e, &t, r);
	snprintf(text, sizeof(text), "%" PRIx64, next);
	etcd_txn_put(&t, etcd_key(e, "next", ""), text, 0);
	return etcd_txn_run(e, &t);
}

static int etcd_add(struct dir *d, struct dir_region *r)
{
	uint64_t wanted = r->bus;
	/* Alive before it owns anything; that it was not alive before is no news here. */
	int err = etcd_renew(d, r->node);

	if (err && err != -ESTALE)
		return err;
	r->lease_ms = d->lease_ms;
	for (int i = 0; i < TRIES; i++) {
		r->bus = wanted;
		err = try_add(d, r);
		if (err)
			break;
	}
	if (err < 0)
		r->bus = wanted;
	return err < 0 ? err : err ? 0 : -EBUSY;
}

static int change(struct dir *d, const char *name, const struct dir_region *r,
		  uint32_t epoch)
{
	struct etcd_dir *e = d->priv;

	for (int i = 0; i < TRIES; i++) {
		struct dir_region was;
		int64_t revision;
		struct etcd_txn t;
		char bus[17];
		int err = etcd_get_region(e, name, &was, &revision);

		if (err)
			return err;
		if (was.epoch != epoch)
			return -ESTALE;
		etcd_txn_begin(&t);
		etcd_txn_if(&t, etcd_key(e, "region", name), revision);
		if (!r || r->bus != was.bus) {
			etcd_bus_name(was.bus, bus);
			etcd_txn_del(&t, etcd_key(e, "bus", bus));
		}
		if (r)
			etcd_txn_put_region(e, &t, r);
		else
			etcd_txn_del(&t, etcd_key(e, "region", name));
		err = etcd_txn_run(e, &t);
		if (err)
			return err < 0 ? err : 0;
	}
	return -EBUSY;
}

static int etcd_update(struct dir *d, const struct dir_region *r, uint32_t old_epoch)
{
	return change(d, r->name, r, old_epoch);
}

static int etcd_node(struct dir *d, const char *node, char addr[NET_ADDR_MAX])
{
	int64_t revision;
	char *text;
	int err = etcd_get(d->priv, "node", node, &text, &revision);

	if (err)
		return err;
	err = text && *text && strlen(text) < NET_ADDR_MAX ? 0 : -ENOENT;
	if (!err)
		strcpy(addr, text);
	free(text);
	return err;
}

static int etcd_remove(struct dir *d, const char *name, uint32_t epoch)
{
	return change(d, name, NULL, epoch);
}

const struct dir_ops dir_etcd_ops = {
	.scheme = "etcd",
	.open = etcd_open,
	.close = etcd_close,
	.add = etcd_add,
	.find = etcd_find,
	.list = etcd_list,
	.update = etcd_update,
	.remove = etcd_remove,
	.renew = etcd_renew,
	.node = etcd_node,
	.watch_fd = etcd_watch_fd,
	.watch_next = etcd_watch_next,
};
