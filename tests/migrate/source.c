// SPDX-License-Identifier: BSD-2-Clause
/* source: see source.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "source.h"

const struct machine_conf machine_small = {
	.block = { { 0, 300, 200 }, { 0x100000000, 5000, 1000 } },
	.nblocks = 2,
	.vcpus = 2,
	.devices = 2,
	.vhost = true,
	.pace_us = 200,
	.seed = 1,
};

const struct precopy_conf precopy_usual = {
	.streams = 1,
	.downtime_ms = 300,
	.max_downtime_ms = 60000, /* no test of speed, whatever else this machine does */
	.on_stall = PRECOPY_RAISE,
};

void source_start(struct source *s, const struct machine_conf *mc)
{
	memset(s, 0, sizeof(*s));
	assert_int_equal(machine_start(mc, &s->m), 0);
}

void source_make(struct source *s, const struct precopy_conf *pc, const char *uri,
		 const struct precopy_vm_ops *ops, void *vm)
{
	struct precopy_conf conf = *pc;

	conf.uri = uri;
	assert_int_equal(precopy_create(&conf, &s->m->ram, s->m->dirty, MACHINE_CONFIG,
					ops, vm, &s->p),
			 0);
}

int source_run(struct source *s)
{
	int err = precopy_run(s->p);

	precopy_status(s->p, &s->st);
	precopy_destroy(s->p);
	s->p = NULL;
	return err;
}

int source_send(struct source *s, const struct precopy_conf *pc, const char *uri)
{
	source_make(s, pc, uri, &machine_ops, s->m);
	return source_run(s);
}

void source_runs_on(struct source *s)
{
	assert_int_equal(s->m->releases, 0);
	assert_true(machine_runs(s->m));
	assert_int_equal(s->m->throttle, 0);
	assert_int_equal(s->m->resumes, s->m->pauses);
}

void source_arrives(struct source *s, struct twin *t, const struct precopy_conf *pc)
{
	int err = source_send(s, pc, incoming_uri(t->in));

	if (err)
		fail_msg("%d: %s", err, s->st.message);
	assert_int_equal(s->st.phase, PRECOPY_DONE);
	assert_int_equal(twin_join(t), 0);
	assert_int_equal(machine_differs(s->m, t), 0);
	assert_int_equal(t->writes, machine_writes(s->m));
	assert_int_equal(t->started, 1);
	assert_int_equal(s->m->releases, 1);
}
