// SPDX-License-Identifier: BSD-2-Clause
/*
 * source: a migration that leaves. The engine runs on a thread of its own; as long as it
 * does, s->precopy is set and the loop's thread leaves the machine alone.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../user/lib/log.h"
#include "serve_int.h"

/* ---- what the engine asks for, on its thread --------------------------------------- */

static int op_pause(void *arg)
{
	struct serve *s = arg;

	return vm_pause(s->vm);
}

static int op_drain(void *arg)
{
	struct serve *s = arg;

	return vm_drain(s->vm);
}

static int op_save(void *arg, struct state_writer *w)
{
	struct serve *s = arg;

	return vm_save(s->vm, w);
}

static void op_resume(void *arg)
{
	struct serve *s = arg;

	if (s->was_running && vm_start(s->vm))
		log_err("the VM cannot go on: %s", s->vm->error);
}

static void op_release(void *arg)
{
	/* Its end is the end of the loop, which source_finished() brings about. */
}

static int op_throttle(void *arg, unsigned int percent)
{
	struct serve *s = arg;

	return vm_throttle(s->vm, percent);
}

static const struct precopy_vm_ops vm_ops = {
	.pause = op_pause,
	.drain = op_drain,
	.save = op_save,
	.resume = op_resume,
	.release = op_release,
	.throttle = op_throttle,
};

static void *engine_main(void *arg)
{
	struct serve *s = arg;

	s->result = precopy_run(s->precopy);
	serve_wake(s);
	return NULL;
}

/* ---- loop's thread ----------------------------------------------------------------- */

int source_begin(struct serve *s, const struct control_request *req, char *why,
		 size_t len)
{
	struct precopy_conf conf;
	char *json;
	int err;

	s->req = *req;
	s->was_running = s->vm->running;
	s->vm->conf.start_paused = !s->was_running;
	s->vm->error[0] = '\0';
	control_conf(&s->req, &conf);
	err = vm_dirty(s->vm, &s->dirty);
	if (err) {
		snprintf(why, len, "%s", s->vm->error);
		return err;
	}
	json = vm_conf_json(&s->vm->conf);
	err = json ? precopy_create(&conf, &s->vm->ram, s->dirty, json, &vm_ops, s,
				    &s->precopy)
		   : -ENOMEM;
	free(json);
	if (err) {
		snprintf(why, len, "no migration: %s", strerror(-err));
		goto fail;
	}
	err = -pthread_create(&s->engine, NULL, engine_main, s);
	if (!err) {
		serve_tick_every(s, s->req.interval_ms);
		return 0;
	}
	snprintf(why, len, "no thread: %s", strerror(-err));
	precopy_destroy(s->precopy);
	s->precopy = NULL;
fail:
	vm_dirty_end(s->vm, s->dirty);
	s->dirty = NULL;
	return err;
}

json_t *source_status(struct serve *s)
{
	struct precopy_status st = s->last;

	if (s->precopy)
		precopy_status(s->precopy, &st);
	return control_migration_json(&st);
}

void source_tick(struct serve *s)
{
	json_t *o;

	if (!control_watched(s->control))
		return;
	o = source_status(s);
	json_object_set_new(o, "event", json_string("progress"));
	control_event(s->control, o, false);
}

void source_finished(struct serve *s)
{
	const char *result;
	json_t *o;

	pthread_join(s->engine, NULL);
	serve_tick_every(s, 0);
	precopy_status(s->precopy, &s->last);
	precopy_destroy(s->precopy);
	s->precopy = NULL;
	vm_dirty_end(s->vm, s->dirty);
	s->dirty = NULL;
	s->had_migration = true;

	result = control_result(s->result, &s->last);
	o = control_migration_json(&s->last);
	/* It was cancelled because there is no guest any more. */
	if (s->result && s->ending && (s->how == SERVE_FAILED || s->how == SERVE_ENDED)) {
		result = "failed";
		json_object_set_new(
			o, "error",
			json_string(*s->why ? s->why : "the guest has ended"));
	}
	json_object_set_new(o, "result", json_string(result));
	json_object_set_new(o, "event", json_string("end"));
	control_event(s->control, json_incref(o), true);
	json_object_set_new(o, "event", json_string("migration"));
	serve_say(s, o);
	if (!s->result)
		serve_end(s, SERVE_MIGRATED);
	else if (s->result == -EUCLEAN && s->last.phase == PRECOPY_DONE)
		serve_end(s, SERVE_LOST);
	else if (s->ending)
		serve_end(s, s->how);
}
