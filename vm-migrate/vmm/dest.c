// SPDX-License-Identifier: BSD-2-Clause
/*
 * dest: a machine that arrives. incoming_run() has a thread of its own, on which the
 * machine is made, loaded and started; when that has returned, the machine belongs to the
 * loop's thread as one that was started here.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../user/lib/log.h"
#include "confine.h"
#include "serve_int.h"

static int same_blocks(const struct ram *a, const struct ram *b)
{
	if (a->nblocks != b->nblocks)
		return -EINVAL;
	for (unsigned int i = 0; i < a->nblocks; i++)
		if (a->block[i].gpa != b->block[i].gpa ||
		    a->block[i].size != b->block[i].size)
			return -EINVAL;
	return 0;
}

static int op_prepare(void *arg, const char *json, const struct ram *want,
		      const struct ram **ram, char *why, size_t len)
{
	struct serve *s = arg;
	struct vm_conf conf = s->conf->vm;
	struct vm *vm;
	int err;

	conf.console_fd = s->console_fd;
	err = vm_conf_parse(json, &conf, why, len);
	if (!err && s->conf->vm.memory && conf.memory > s->conf->vm.memory) {
		snprintf(why, len, "the machine has %llu MiB, more than recv was allowed",
			 (unsigned long long)conf.memory >> 20);
		err = -EINVAL;
	}
	/* The two say the same of a true source; before memory is taken. */
	if (!err && conf.memory != want->bytes) {
		snprintf(why, len, "its memory is not of the size that it says");
		err = -EINVAL;
	}
	if (!err)
		err = vm_create(&conf, &vm, why, len);
	if (err)
		return err;
	if (same_blocks(&vm->ram, want)) {
		snprintf(why, len,
			 "memory is laid out in another way here; is the "
			 "destination's version the same?");
		vm_destroy(vm);
		return -EINVAL;
	}
	s->vm = vm;
	*ram = &vm->ram;
	return 0;
}

static int op_load(void *arg, const uint8_t *state, size_t bytes, char *why, size_t len)
{
	struct serve *s = arg;
	int err = vm_load(s->vm, state, bytes);

	if (err)
		snprintf(why, len, "%s", s->vm->error);
	return err;
}

static void op_abandon(void *arg)
{
	struct serve *s = arg;

	vm_destroy(s->vm);
	s->vm = NULL;
}

static void op_start(void *arg)
{
	struct serve *s = arg;

	/* No way back any more: it runs here, with what was allowed until now. */
	if (confine_to(s->vm->conf.accel))
		log_err("the VM has arrived, and keeps the right to make another");
	if (!s->vm->conf.start_paused && !s->conf->paused && vm_start(s->vm))
		log_err("the VM has arrived and cannot be started: %s", s->vm->error);
}

static const struct incoming_vm_ops vm_ops = {
	.prepare = op_prepare,
	.load = op_load,
	.abandon = op_abandon,
	.start = op_start,
};

static void *arrival_main(void *arg)
{
	struct serve *s = arg;

	s->arrival_result = incoming_run(s->incoming);
	serve_wake(s);
	return NULL;
}

/* ---- loop's thread ----------------------------------------------------------------- */

int dest_begin(struct serve *s)
{
	const struct incoming_conf conf = {
		.uri = s->conf->listen,
		.tls = s->conf->tls,
		.max_failures = s->conf->max_failures,
	};
	int err = incoming_create(&conf, &vm_ops, s, &s->incoming);

	if (err) {
		const char *e = chan_error();

		snprintf(s->why, s->why_len, "cannot listen on %s: %s", s->conf->listen,
			 e && *e ? e : strerror(-err));
		return err;
	}
	err = -pthread_create(&s->arrival, NULL, arrival_main, s);
	if (err) {
		incoming_destroy(s->incoming);
		s->incoming = NULL;
		snprintf(s->why, s->why_len, "no thread: %s", strerror(-err));
		return err;
	}
	serve_say(s, json_pack("{s:s, s:s, s:i}", "event", "listening", "uri",
			       incoming_uri(s->incoming), "pid", (int)getpid()));
	return 0;
}

json_t *dest_status(struct serve *s)
{
	struct incoming_status st;

	incoming_status(s->incoming, &st);
	return control_incoming_json(&st);
}

void dest_tick(struct serve *s)
{
	struct incoming_status st;
	json_t *o;

	incoming_status(s->incoming, &st);
	if (st.failures == s->failures_said &&
	    (st.phase == INCOMING_LISTEN || st.phase == INCOMING_RUNNING))
		return;
	o = control_incoming_json(&st);
	json_object_set_new(
		o, "event",
		json_string(st.failures != s->failures_said ? "failure" : "incoming"));
	s->failures_said = st.failures;
	serve_say(s, o);
}

void dest_finished(struct serve *s)
{
	struct incoming_status st;

	pthread_join(s->arrival, NULL);
	incoming_status(s->incoming, &st);
	if (st.failures != s->failures_said)
		dest_tick(s);
	serve_tick_every(s, 0);
	incoming_destroy(s->incoming);
	s->incoming = NULL;
	if (s->arrival_result) {
		if (s->arrival_result != -ECANCELED)
			snprintf(s->why, s->why_len, "%s",
				 st.message[0] ? st.message
					       : strerror(-s->arrival_result));
		serve_end(s, s->arrival_result == -ECANCELED ? SERVE_QUIT : SERVE_FAILED);
		return;
	}
	serve_say(s, json_pack("{s:s, s:I, s:I}", "event",
			       s->vm->running ? "running" : "paused", "received_pages",
			       (json_int_t)st.received.pages, "received_bytes",
			       (json_int_t)st.received.bytes));
	/* An order to end came too late to stop it: here it is now, and nowhere else. */
	s->ending = false;
	if (serve_watch_vm(s)) {
		snprintf(s->why, s->why_len, "cannot watch the guest");
		serve_end(s, SERVE_FAILED);
	}
}

void dest_close(struct serve *s)
{
	if (!s->incoming)
		return;
	incoming_cancel(s->incoming);
	pthread_join(s->arrival, NULL);
	incoming_destroy(s->incoming);
	s->incoming = NULL;
}
