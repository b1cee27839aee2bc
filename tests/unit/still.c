// SPDX-License-Identifier: BSD-2-Clause
/*
 * still: see still.h. Asserts, for what it does must work before a test means
 * anything.
 */
#undef NDEBUG
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "still.h"

#define CHUNKS 64

void still_init(struct still *s, const char *name)
{
	const struct agg_conf agg = { .checksum = AGG_VERIFY, .max_held = CHUNKS / 4 };

	memset(s, 0, sizeof(*s));
	conf_init(&s->conf);
	snprintf(s->iface.name, sizeof(s->iface.name), "%s", name);
	s->iface.mtu = 1500;
	s->iface.config = &s->config;
	s->iface.map_xsks = s->iface.map_instances = s->iface.flood_fd = -1;
	s->iface.worker = s->workers;
	s->iface.nworkers = STILL_QUEUES;
	for (unsigned int q = 0; q < STILL_QUEUES; q++) {
		struct worker *w = &s->worker[q];

		s->workers[q] = w;
		w->conf.ifname = s->iface.name;
		w->conf.queue = q;
		w->xsk.fd = w->epfd = w->wakefd = -1;
		/* A fill ring without room: nobody refills it. */
		w->xsk.pool = &w->pool;
		w->xsk.fill.producer = &s->ring;
		w->xsk.fill.consumer = &s->ring;
		w->xsk.fill.flags = &s->ring;
		pthread_mutex_init(&w->call_lock, NULL);
		assert(!umem_init(&w->umem, CHUNKS, UMEM_CHUNK_SMALL));
		assert(!mbuf_pool_init(&w->pool, w->umem.base, CHUNKS, UMEM_CHUNK_SMALL));
		assert(!agg_init(&w->agg, &w->pool, &agg));
		assert(!inst_view_init(&w->view));
		assert(!flow_init(&w->flows));
	}
	s->d.conf = &s->conf;
	s->d.iface[0] = &s->iface;
	s->d.nifaces = 1;
}

struct instance *still_add(struct still *s, const char *spec, uint16_t id)
{
	struct instance *in = calloc(1, sizeof(*in));
	const struct port_ops *ops;
	char err[256];

	assert(in);
	assert(!conf_parse_instance(spec, &in->conf, err, sizeof(err)));
	strcpy(in->conf.iface, s->iface.name);
	in->id = id;
	ops = port_find(in->conf.port.kind);
	assert(ops);
	assert(!ops->open(&in->conf.port, &in->env, STILL_QUEUES, &in->port));
	s->iface.instance[GN_INSTANCE_INDEX(id)] = in;
	for (unsigned int q = 0; q < STILL_QUEUES; q++)
		worker_add_instance(&s->worker[q], in);
	return in;
}

struct flow *still_flow(struct still *s, unsigned int q, unsigned int n,
			uint16_t instance, uint64_t last_ns)
{
	static const uint8_t addrs[8] = { 10, 0, 0, 1, 10, 0, 0, 2 };
	struct flow *f = &s->worker[q].flows.flow[n];

	*f = (struct flow){
		.id = n + 1,
		.instance = instance,
		.l3_off = 14,
		.l4_off = 34,
		.flags = GN_F_TCP,
		.hdr_len = 54,
		.last_ns = last_ns,
	};
	memcpy(f->hdr + 14 + 12, addrs, sizeof(addrs));
	f->hdr[34] = (uint8_t)(n >> 8);
	f->hdr[35] = (uint8_t)n;
	f->hdr[37] = 80;
	return f;
}

void still_clear(struct still *s)
{
	for (unsigned int i = 0; i < GN_MAX_INSTANCES; i++) {
		struct instance *in = s->iface.instance[i];

		if (!in)
			continue;
		for (unsigned int q = 0; q < STILL_QUEUES; q++)
			worker_del_instance(&s->worker[q], in);
		in->port->ops->close(in->port);
		free(in);
		s->iface.instance[i] = NULL;
	}
}

void still_fini(struct still *s)
{
	still_clear(s);
	for (unsigned int q = 0; q < STILL_QUEUES; q++) {
		flow_fini(&s->worker[q].flows);
		inst_view_fini(&s->worker[q].view);
		agg_fini(&s->worker[q].agg);
		mbuf_pool_fini(&s->worker[q].pool);
		umem_fini(&s->worker[q].umem);
		pthread_mutex_destroy(&s->worker[q].call_lock);
	}
	conf_fini(&s->conf);
}
