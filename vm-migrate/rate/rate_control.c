// SPDX-License-Identifier: BSD-2-Clause
/*
 * rate_control: measure a VM of `vm-migrate run` from outside, and the JSON in between.
 * The VM's end is vmm/rating.c.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../user/lib/clock.h"
#include "../../user/lib/ghostnic.h"
#include "rate.h"

/* ---- JSON ---------------------------------------------------------------------------
 */

json_t *rate_interval_json(const struct rate_report *r)
{
	const struct rate_interval *i = &r->interval[r->n - 1];

	return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:b, s:s}", "seconds",
			 i->seconds, "dirty_bytes", i->dirty, "cpu_bytes", i->cpu,
			 "device_bytes", i->device, "distinct_bytes", i->distinct,
			 "ram_bytes", r->ram_bytes, "by_source", r->by_source, "method",
			 r->method);
}

/* Not below 0, and finite. */
static int take(const json_t *o, const char *key, double *v)
{
	const json_t *n = json_object_get(o, key);

	*v = json_number_value(n);
	return json_is_number(n) && isfinite(*v) && *v >= 0 ? 0 : -EPROTO;
}

int rate_interval_parse(const json_t *o, struct rate_report *r)
{
	const char *method = json_string_value(json_object_get(o, "method"));
	struct rate_interval i;

	if (r->n == RATE_MAX_INTERVALS || !method || take(o, "seconds", &i.seconds) ||
	    i.seconds <= 0 || take(o, "dirty_bytes", &i.dirty) ||
	    take(o, "cpu_bytes", &i.cpu) || take(o, "device_bytes", &i.device) ||
	    take(o, "distinct_bytes", &i.distinct) || take(o, "ram_bytes", &r->ram_bytes))
		return -EPROTO;
	snprintf(r->method, sizeof(r->method), "%s", method);
	r->by_source = json_is_true(json_object_get(o, "by_source"));
	r->interval[r->n++] = i;
	return 0;
}

json_t *rate_points_json(const struct rate_report *r)
{
	json_t *list = json_array();

	for (unsigned int i = 0; i < r->npoints; i++)
		json_array_append_new(list, json_pack("{s:f, s:f}", "seconds",
						      r->point[i].seconds, "bytes",
						      r->point[i].bytes));
	return list;
}

int rate_points_parse(const json_t *list, struct rate_report *r)
{
	double before = 0;
	json_t *p;
	size_t i;

	if (!json_is_array(list) || json_array_size(list) > RATE_LEVELS + 1)
		return -EPROTO;
	r->npoints = 0;
	json_array_foreach(list, i, p)
	{
		struct rate_point *to = &r->point[i];

		if (take(p, "seconds", &to->seconds) || take(p, "bytes", &to->bytes) ||
		    to->seconds <= before)
			return -EPROTO;
		before = to->seconds;
		r->npoints++;
	}
	return 0;
}

/* ---- client
 * ----------------------------------------------------------------------------- */

/* Return: 0 and the answer, -errno with @why */
static int ask(const char *path, const char *request, json_t **answer, char *why,
	       size_t why_len)
{
	const char *msg;
	char *line;
	int err = ghostnic_request(path, request, -1, &line);

	if (err) {
		snprintf(why, why_len, "no VM answers on %s: %s", path, strerror(-err));
		return err;
	}
	*answer = json_loads(line, 0, NULL);
	free(line);
	if (json_is_true(json_object_get(*answer, "ok")))
		return 0;
	msg = json_string_value(json_object_get(*answer, "error"));
	snprintf(why, why_len, "%s", msg ? msg : "what answers there is no VM");
	json_decref(*answer);
	return -EIO;
}

static int take_interval(const char *path, struct rate_report *r, char *why, size_t len)
{
	json_t *a;
	int err = ask(path, "{\"cmd\":\"rate-take\"}", &a, why, len);

	if (err)
		return err;
	err = rate_interval_parse(a, r);
	if (err)
		snprintf(why, len, "the VM's answer makes no sense");
	json_decref(a);
	return err;
}

static int stop(const char *path, struct rate_report *r, char *why, size_t len)
{
	json_t *a;
	int err = ask(path, "{\"cmd\":\"rate-stop\"}", &a, why, len);

	if (err)
		return err;
	err = rate_points_parse(json_object_get(a, "points"), r);
	if (err)
		snprintf(why, len, "the VM's answer makes no sense");
	json_decref(a);
	return err;
}

int rate_control(const char *path, double interval_s, unsigned int n,
		 volatile sig_atomic_t *cancel, void (*tick)(const struct rate_report *r),
		 struct rate_report *r, char *why, size_t why_len)
{
	uint64_t begun;
	json_t *a;
	int err = ask(path, "{\"cmd\":\"rate-start\"}", &a, why, why_len);
	char ignored[256];

	if (err)
		return err;
	json_decref(a);
	memset(r, 0, sizeof(*r));
	begun = clock_ns();
	while (!err && r->n < n && !(cancel && *cancel)) {
		rate_wait(begun + (uint64_t)(interval_s * 1e9 * (r->n + 1)), cancel);
		err = take_interval(path, r, why, why_len);
		if (!err && tick)
			tick(r);
	}
	if (err)
		stop(path, r, ignored, sizeof(ignored));
	else
		err = stop(path, r, why, why_len);
	return err;
}
