// SPDX-License-Identifier: BSD-2-Clause
/*
 * dir_etcd_call: requests and transactions of etcd's JSON gateway. Contract in
 * dir_etcd.h; the caller's thread.
 */
#include <errno.h>
#include <gnutls/gnutls.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dir_etcd.h"
#include "dir_json.h"

#define ANSWER_MAX (16u << 20)

/* ---- bytes ------------------------------------------------------------------------ */

json_t *etcd_b64(const char *s)
{
	gnutls_datum_t in = { (unsigned char *)s, (unsigned int)strlen(s) }, out;
	json_t *v;

	if (gnutls_base64_encode2(&in, &out))
		return NULL;
	v = json_stringn((char *)out.data, out.size);
	gnutls_free(out.data);
	return v;
}

char *etcd_text(json_t *v)
{
	const char *s = json_string_value(v);
	gnutls_datum_t in = { (unsigned char *)s, s ? (unsigned int)strlen(s) : 0 }, out;
	char *text;

	if (!s || !in.size || gnutls_base64_decode2(&in, &out))
		return NULL;
	text = strndup((char *)out.data, out.size);
	gnutls_free(out.data);
	return text;
}

/* The gateway writes 64-bit numbers as strings. */
int64_t etcd_int(json_t *v)
{
	const char *s = json_string_value(v);

	return s ? strtoll(s, NULL, 10) : json_integer_value(v);
}

json_t *etcd_key(const struct etcd_dir *e, const char *kind, const char *name)
{
	char key[sizeof(e->prefix) + 2 * GM_NAME_MAX];

	snprintf(key, sizeof(key), "%s/%s%s%s", e->prefix, kind, *name ? "/" : "", name);
	return etcd_b64(key);
}

void etcd_bus_name(uint64_t bus, char out[17])
{
	snprintf(out, 17, "%016" PRIx64, bus);
}

/* ---- requests --------------------------------------------------------------------- */

size_t etcd_take(char *p, size_t size, size_t n, void *arg)
{
	struct etcd_buf *b = arg;
	char *grown;

	if (b->len + n > ANSWER_MAX)
		return 0;
	grown = realloc(b->p, b->len + n + 1);
	if (!grown)
		return 0;
	b->p = grown;
	memcpy(b->p + b->len, p, n);
	b->len += n;
	b->p[b->len] = 0;
	return n;
}

int etcd_error(CURLcode rc)
{
	switch (rc) {
	case CURLE_OK: return 0;
	case CURLE_OPERATION_TIMEDOUT: return -ETIMEDOUT;
	case CURLE_COULDNT_CONNECT: return -ECONNREFUSED;
	case CURLE_COULDNT_RESOLVE_HOST: return -EHOSTUNREACH;
	case CURLE_OUT_OF_MEMORY: return -ENOMEM;
	default: return -EIO;
	}
}

/* POST @req (taken) to v3/@what. *out: the answer, owned by the caller */
int etcd_call(struct etcd_dir *e, const char *what, json_t *req, int timeout_ms,
	      json_t **out)
{
	char url[sizeof(e->base) + 32];
	struct etcd_buf b = { 0 };
	json_error_t je;
	long code = 0;
	char *text = req ? json_dumps(req, JSON_COMPACT) : NULL;
	int err;

	json_decref(req);
	if (!text)
		return -ENOMEM;
	snprintf(url, sizeof(url), "%s/v3/%s", e->base, what);
	curl_easy_setopt(e->curl, CURLOPT_URL, url);
	curl_easy_setopt(e->curl, CURLOPT_POSTFIELDS, text);
	curl_easy_setopt(e->curl, CURLOPT_WRITEFUNCTION, etcd_take);
	curl_easy_setopt(e->curl, CURLOPT_WRITEDATA, &b);
	curl_easy_setopt(e->curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(e->curl, CURLOPT_PROXY, "");
	curl_easy_setopt(e->curl, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
	err = etcd_error(curl_easy_perform(e->curl));
	if (!err) {
		curl_easy_getinfo(e->curl, CURLINFO_RESPONSE_CODE, &code);
		*out = b.p ? json_loadb(b.p, b.len, JSON_DISABLE_EOF_CHECK, &je) : NULL;
		if (!*out) {
			err = -EBADMSG;
		} else if (code != 200) {
			err = code == 404 ? -ENOENT : -EIO;
			json_decref(*out);
		}
	}
	free(text);
	free(b.p);
	return err;
}

/* What a key has. *text: NULL if it is not there; owned by the caller */
int etcd_get(struct etcd_dir *e, const char *kind, const char *name, char **text,
	     int64_t *revision)
{
	json_t *a, *kv;
	int err = etcd_call(e, "kv/range",
			    json_pack("{s:o}", "key", etcd_key(e, kind, name)),
			    e->timeout_ms, &a);

	if (err)
		return err;
	kv = json_array_get(json_object_get(a, "kvs"), 0);
	*revision = etcd_int(json_object_get(kv, "mod_revision"));
	*text = NULL;
	if (kv) {
		json_t *v = json_object_get(kv, "value");

		*text = v ? etcd_text(v) : strdup("");
		err = *text ? 0 : -EBADMSG;
	}
	json_decref(a);
	return err;
}

static int parse(const char *name, const char *text, struct dir_region *out)
{
	json_error_t je;
	json_t *v = json_loads(text, 0, &je);
	int err = v ? dir_json_unpack(name, v, out) : -EBADMSG;

	json_decref(v);
	return err;
}

/* -ENOENT: not there, *revision is 0 */
int etcd_get_region(struct etcd_dir *e, const char *name, struct dir_region *out,
		    int64_t *revision)
{
	char *text = NULL;
	int err = etcd_get(e, "region", name, &text, revision);

	if (!err && !text)
		return -ENOENT;
	if (!err)
		err = parse(name, text, out);
	free(text);
	return err;
}

int etcd_all(struct etcd_dir *e, json_t **out)
{
	char end[sizeof(e->prefix) + 16];

	snprintf(end, sizeof(end), "%s/region0", e->prefix); /* '0' follows '/' */
	return etcd_call(e, "kv/range",
			 json_pack("{s:o,s:o}", "key", etcd_key(e, "region/", ""),
				   "range_end", etcd_b64(end)),
			 e->timeout_ms, out);
}

int etcd_kv(const struct etcd_dir *e, json_t *kv, struct dir_region *out)
{
	char *key = etcd_text(json_object_get(kv, "key"));
	char *text = etcd_text(json_object_get(kv, "value"));
	size_t skip = strlen(e->prefix) + strlen("/region/");
	int err = -EBADMSG;

	if (key && strlen(key) > skip && gm_name_ok(key + skip)) {
		if (text) {
			err = parse(key + skip, text, out);
		} else {
			*out = (struct dir_region){ 0 };
			snprintf(out->name, sizeof(out->name), "%s", key + skip);
			err = 0;
		}
	}
	free(key);
	free(text);
	return err;
}

/* ---- transactions ----------------------------------------------------------------- */

void etcd_txn_begin(struct etcd_txn *t)
{
	t->compare = json_array();
	t->then = json_array();
}

/* The key still is as it was at @revision (0: not there). */
void etcd_txn_if(struct etcd_txn *t, json_t *key, int64_t revision)
{
	char n[24];

	snprintf(n, sizeof(n), "%" PRId64, revision);
	json_array_append_new(t->compare,
			      json_pack("{s:o,s:s,s:s,s:s}", "key", key, "target", "MOD",
					"result", "EQUAL", "mod_revision", n));
}

void etcd_txn_put(struct etcd_txn *t, json_t *key, const char *value, int64_t lease)
{
	char n[24];

	snprintf(n, sizeof(n), "%" PRId64, lease);
	json_array_append_new(t->then,
			      json_pack("{s:{s:o,s:o,s:s}}", "request_put", "key", key,
					"value", etcd_b64(value), "lease", n));
}

void etcd_txn_del(struct etcd_txn *t, json_t *key)
{
	json_array_append_new(t->then,
			      json_pack("{s:{s:o}}", "request_delete_range", "key", key));
}

void etcd_txn_put_region(struct etcd_dir *e, struct etcd_txn *t,
			 const struct dir_region *r)
{
	json_t *v = dir_json_pack(r);
	char *text = v ? json_dumps(v, JSON_COMPACT) : NULL, bus[17];

	etcd_bus_name(r->bus, bus);
	etcd_txn_put(t, etcd_key(e, "region", r->name), text ? text : "", 0);
	etcd_txn_put(t, etcd_key(e, "bus", bus), r->name, 0);
	free(text);
	json_decref(v);
}

/* Return: 1 done, 0: a condition did not hold, -errno */
int etcd_txn_run(struct etcd_dir *e, struct etcd_txn *t)
{
	json_t *a;
	int err = etcd_call(
		e, "kv/txn",
		json_pack("{s:o,s:o}", "compare", t->compare, "success", t->then),
		e->timeout_ms, &a);

	if (err)
		return err;
	err = json_is_true(json_object_get(a, "succeeded"));
	json_decref(a);
	return err;
}
