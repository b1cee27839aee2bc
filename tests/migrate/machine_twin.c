// SPDX-License-Identifier: BSD-2-Clause
/* machine_twin: the destination of a machine's migration; see machine.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "machine.h"

static int twin_prepare(void *vm, const char *config, const struct ram *want,
			const struct ram **ram, char *why, size_t why_len)
{
	struct twin *t = vm;
	int err = 0;

	if (strcmp(config, "{\"machine\":\"test\"}") != 0) {
		snprintf(why, why_len, "it is of another kind");
		return -EINVAL;
	}
	ram_init(&t->ram);
	for (unsigned int i = 0; i < want->nblocks && !err; i++)
		err = ram_add(&t->ram, want->block[i].gpa, want->block[i].size, 0);
	if (err) {
		ram_fini(&t->ram);
		return err;
	}
	t->prepared++;
	t->has_ram = true;
	t->loaded = false;
	*ram = &t->ram;
	return 0;
}

static int twin_load(void *vm, const uint8_t *state, size_t len, char *why,
		     size_t why_len)
{
	struct twin *t = vm;
	struct state_section s;
	int n = state_next(&state, &len, &s);

	if (n != 1 || strcmp(s.name, "machine") != 0 || s.version != 1) {
		snprintf(why, why_len, "section machine is missing");
		return -EBADMSG;
	}
	if (state_get_u64(&s) != MACHINE_STATE_MAGIC)
		return -EBADMSG;
	t->writes = state_get_u64(&s);
	if (t->refuse) {
		t->refuse = false;
		snprintf(why, why_len, "as the test wants it");
		return -EINVAL;
	}
	t->loaded = true;
	return state_done(&s);
}

static void twin_abandon(void *vm)
{
	struct twin *t = vm;

	t->abandoned++;
	ram_fini(&t->ram);
	t->has_ram = t->loaded = false;
}

static void twin_go(void *vm)
{
	struct twin *t = vm;
	struct precopy *p = atomic_load(&t->source);
	struct precopy_status st;

	if (p) {
		precopy_status(p, &st);
		t->early |= st.phase < PRECOPY_HANDING_OVER;
	}
	t->started++;
}

const struct incoming_vm_ops twin_ops = {
	.prepare = twin_prepare,
	.load = twin_load,
	.abandon = twin_abandon,
	.start = twin_go,
};

static void *twin_main(void *arg)
{
	struct twin *t = arg;

	t->result = incoming_run(t->in);
	return NULL;
}

int twin_start(struct twin *t, const struct incoming_conf *conf)
{
	int err;

	memset(t, 0, sizeof(*t));
	err = incoming_create(conf, &twin_ops, t, &t->in);
	if (err)
		return err;
	err = -pthread_create(&t->thread, NULL, twin_main, t);
	if (err) {
		incoming_destroy(t->in);
		t->in = NULL;
	}
	return err;
}

int twin_join(struct twin *t)
{
	if (!t->joined)
		pthread_join(t->thread, NULL);
	t->joined = true;
	return t->result;
}

void twin_fini(struct twin *t)
{
	if (!t->joined) {
		incoming_cancel(t->in);
		twin_join(t);
	}
	incoming_destroy(t->in);
	if (t->has_ram)
		ram_fini(&t->ram);
	memset(t, 0, sizeof(*t));
}

uint64_t machine_differs(const struct machine *m, const struct twin *t)
{
	uint64_t bad = 0;

	if (!t->has_ram || m->ram.nblocks != t->ram.nblocks)
		return m->ram.bytes >> RAM_PAGE_SHIFT;
	for (unsigned int b = 0; b < m->ram.nblocks; b++)
		for (uint64_t off = 0; off < m->ram.block[b].size; off += RAM_PAGE_SIZE)
			bad += memcmp(m->ram.block[b].hva + off,
				      t->ram.block[b].hva + off, RAM_PAGE_SIZE) != 0;
	return bad;
}

const char *test_uri(bool unix_socket, char buf[CHAN_URI_MAX])
{
	static atomic_uint n;

	if (unix_socket)
		snprintf(buf, CHAN_URI_MAX, "unix:/tmp/gn-migrate-%d-%u.sock", getpid(),
			 atomic_fetch_add(&n, 1));
	else
		strcpy(buf, "tcp:127.0.0.1:0");
	return buf;
}
