// SPDX-License-Identifier: BSD-2-Clause
/*
 * rating: the dirty rate of a running machine, by its own logs, for rate_control().
 *
 *	rate-start	begin to log
 *	rate-take	an interval ends: what was written in it
 *	rate-stop	the curve; logging ends
 *
 * A client that forgets to stop makes the guest slower for RATE_CONTROL_IDLE_MS at most. Loop's
 * thread.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../rate/rate.h"
#include "serve_int.h"

struct rating {
	struct dirty_set *set;
	struct rate_source *src;
	struct rate_run run;
	struct rate_report report;
	bool begun;
};

static json_t *refuse(const char *why)
{
	return json_pack("{s:b, s:s%}", "ok", 0, "error", why, strlen(why));
}

json_t *rating_start(struct serve *s)
{
	struct rating *r;
	const char *failed = "";
	char why[256];
	int err;

	if (s->rating)
		return refuse("somebody measures already");
	r = calloc(1, sizeof(*r));
	if (!r)
		return refuse("out of memory");
	s->rating = r;
	err = vm_dirty(s->vm, &r->set);
	if (!err)
		err = dirty_set_start(r->set, &failed);
	if (!err)
		err = rate_dirty_create(r->set, &r->src);
	if (!err)
		err = rate_begin(&r->run, r->src, RATE_MAX_INTERVALS, &r->report);
	if (err) {
		snprintf(why, sizeof(why), "dirty pages cannot be tracked%s%s: %s",
			 *failed ? " by " : "", failed, strerror(-err));
		rating_end(s);
		return refuse(why);
	}
	r->begun = true;
	serve_tick_every(s, RATE_CONTROL_IDLE_MS);
	return json_pack("{s:b, s:s}", "ok", 1, "method", r->report.method);
}

json_t *rating_take(struct serve *s)
{
	struct rating *r = s->rating;
	json_t *o;
	int err;

	if (!r)
		return refuse(
			"nothing is measured; a migration or a long silence may have "
			"ended it");
	err = rate_step(&r->run);
	if (err)
		return refuse(err == -ENOSPC ? "enough was measured; stop"
					     : strerror(-err));
	serve_tick_every(s, RATE_CONTROL_IDLE_MS);
	o = rate_interval_json(&r->report);
	if (o)
		json_object_set_new(o, "ok", json_true());
	return o;
}

json_t *rating_stop(struct serve *s)
{
	struct rating *r = s->rating;
	json_t *points;

	if (!r)
		return refuse(
			"nothing is measured; a migration or a long silence may have "
			"ended it");
	rate_end(&r->run);
	r->begun = false;
	points = rate_points_json(&r->report);
	rating_end(s);
	return json_pack("{s:b, s:o}", "ok", 1, "points", points);
}

void rating_end(struct serve *s)
{
	struct rating *r = s->rating;

	if (!r)
		return;
	s->rating = NULL;
	serve_tick_every(s, 0);
	if (r->begun)
		rate_end(&r->run);
	if (r->src)
		r->src->ops->destroy(r->src);
	vm_dirty_end(s->vm, r->set);
	free(r);
}
