/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * instance: a VM or container behind an interface, and who may find it.
 *
 * The control thread owns struct instance, but for its rate (rate.h). Each worker has a
 * view of its own (struct inst_view), changed only by functions run on that worker
 * between bursts (worker_call()), so lookups take no lock and no reference.
 */
#ifndef GN_INSTANCE_H
#define GN_INSTANCE_H

#include "conf.h"
#include "rate.h"

struct instance {
	struct instance_conf conf;
	struct iface *iface;
	struct port_env env; /* what its port sees of the interface */
	uint16_t id;	     /* gn_instance.id */
	struct port *port;
	struct rate rate;      /* of what it sends */
	struct mirror *mirror; /* its capture, or NULL; see mirror.h */
};

/* One worker's view of the instances of its interface. */
struct inst_view {
	struct instance *slot[GN_MAX_INSTANCES]; /* by GN_INSTANCE_INDEX(id) */
	uint16_t *active; /* [nactive] slot numbers, for flooding */
	uint32_t nactive;
	uint16_t hash[2 * GN_MAX_INSTANCES]; /* open addressing: slot + 1; 0: empty */
};

/** inst_view_init() - empty. Return: 0, -ENOMEM */
int inst_view_init(struct inst_view *v);
void inst_view_fini(struct inst_view *v);

/** inst_view_add() - @in's slot is free in @v; not owned */
void inst_view_add(struct inst_view *v, struct instance *in);

/** inst_view_del() - forget @in */
void inst_view_del(struct inst_view *v, const struct instance *in);

/** inst_view_by_id() - NULL: no instance, or another generation of the slot */
static inline struct instance *inst_view_by_id(const struct inst_view *v, uint16_t id)
{
	struct instance *in = v->slot[GN_INSTANCE_INDEX(id)];

	return in && in->id == id ? in : NULL;
}

/** inst_view_by_mac() - exact match of VLAN and address, or NULL */
struct instance *inst_view_by_mac(const struct inst_view *v, uint16_t vlan,
				  const uint8_t mac[6]);

#endif
