/* SPDX-License-Identifier: BSD-2-Clause */
/* dir_etcd: what dir_etcd.c (the operations), dir_etcd_call.c (requests)
 * and dir_etcd_watch.c (its thread) share. */
#ifndef GM_DIR_ETCD_H
#define GM_DIR_ETCD_H

#include <curl/curl.h>
#include <jansson.h>
#include <stdint.h>

#include "dir.h"

struct etcd_watch;

struct etcd_dir {
	char base[256]; /* http://host:port */
	char prefix[128];
	int timeout_ms;
	CURL *curl;    /* of the caller's thread */
	int64_t lease; /* 0: none */
	struct etcd_watch *watch;
};

struct etcd_buf {
	char *p;
	size_t len;
};

/** etcd_b64() - Return: @s in base64, owned by the caller; NULL: no memory */
json_t *etcd_b64(const char *s);
/** etcd_text() - what @v says; owned by the caller; NULL: nothing, or no base64 */
char *etcd_text(json_t *v);
int64_t etcd_int(json_t *v);
/** etcd_key() - of P/@kind/@name, in base64; @name "": P/@kind */
json_t *etcd_key(const struct etcd_dir *e, const char *kind, const char *name);
/** etcd_take() - CURLOPT_WRITEFUNCTION for a struct etcd_buf */
size_t etcd_take(char *p, size_t size, size_t n, void *arg);
int etcd_error(CURLcode rc);

/** etcd_bus_name() - key of a bus address: 16 hexadecimal digits */
void etcd_bus_name(uint64_t bus, char out[17]);

/** etcd_call() - POST @req (taken) to v3/@what. *out: the answer, owned by the caller */
int etcd_call(struct etcd_dir *e, const char *what, json_t *req, int timeout_ms,
	      json_t **out);
/** etcd_get() - what P/@kind/@name has. *text: NULL if it is not there; owned by the
 * caller */
int etcd_get(struct etcd_dir *e, const char *kind, const char *name, char **text,
	     int64_t *revision);
/** etcd_get_region() - Return: 0; -ENOENT: not there, *revision is 0; -errno */
int etcd_get_region(struct etcd_dir *e, const char *name, struct dir_region *out,
		    int64_t *revision);
/** etcd_all() - answer with all regions */
int etcd_all(struct etcd_dir *e, json_t **out);
/** etcd_kv() - region of a key and value; without value: its name, size 0 */
int etcd_kv(const struct etcd_dir *e, json_t *kv, struct dir_region *out);

/* A transaction: all of @then if every condition holds. Keys are taken. */
struct etcd_txn {
	json_t *compare, *then;
};
void etcd_txn_begin(struct etcd_txn *t);
/** etcd_txn_if() - the key still is as it was at @revision (0: not there) */
void etcd_txn_if(struct etcd_txn *t, json_t *key, int64_t revision);
void etcd_txn_put(struct etcd_txn *t, json_t *key, const char *value, int64_t lease);
void etcd_txn_del(struct etcd_txn *t, json_t *key);
/** etcd_txn_put_region() - the region and its bus address */
void etcd_txn_put_region(struct etcd_dir *e, struct etcd_txn *t,
			 const struct dir_region *r);
/** etcd_txn_run() - Return: 1 done, 0: a condition did not hold, -errno */
int etcd_txn_run(struct etcd_dir *e, struct etcd_txn *t);

int etcd_watch_fd(struct dir *d);
int etcd_watch_next(struct dir *d, struct dir_region *out);
void etcd_watch_stop(struct etcd_dir *e);

#endif
