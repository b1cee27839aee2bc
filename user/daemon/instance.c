// SPDX-License-Identifier: BSD-2-Clause
/* instance: a worker's lookup tables. Contract in instance.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "instance.h"

#define HASH_SIZE (2 * GN_MAX_INSTANCES) /* never more than half full */

int inst_view_init(struct inst_view *v)
{
	uint16_t *active = calloc(GN_MAX_INSTANCES, sizeof(*active));

	if (!active)
		return -ENOMEM;
	memset(v, 0, sizeof(*v));
	v->active = active;
	return 0;
}

void inst_view_fini(struct inst_view *v)
{
	free(v->active);
	v->active = NULL;
}

/* The last octets of an address are the ones that vary. */
static uint32_t hash(uint16_t vlan, const uint8_t mac[6])
{
	uint32_t lo;

	memcpy(&lo, mac + 2, sizeof(lo));
	return ((lo ^ (uint32_t)vlan << 16 ^ mac[1]) * 0x9e3779b1u) >> 21;
}

_Static_assert(HASH_SIZE == 1 << (32 - 21), "hash() yields an index");

static bool matches(const struct instance *in, uint16_t vlan, const uint8_t mac[6])
{
	return in->conf.vlan == vlan && !memcmp(in->conf.mac, mac, 6);
}

static void insert(struct inst_view *v, const struct instance *in)
{
	uint32_t h = hash(in->conf.vlan, in->conf.mac);

	while (v->hash[h])
		h = (h + 1) % HASH_SIZE;
	v->hash[h] = (uint16_t)(GN_INSTANCE_INDEX(in->id) + 1);
}

void inst_view_add(struct inst_view *v, struct instance *in)
{
	v->slot[GN_INSTANCE_INDEX(in->id)] = in;
	v->active[v->nactive++] = GN_INSTANCE_INDEX(in->id);
	insert(v, in);
}

void inst_view_del(struct inst_view *v, const struct instance *in)
{
	uint16_t slot = GN_INSTANCE_INDEX(in->id);

	if (v->slot[slot] != in)
		return;
	v->slot[slot] = NULL;
	for (uint32_t i = 0; i < v->nactive; i++) {
		if (v->active[i] == slot) {
			v->active[i] = v->active[--v->nactive];
			break;
		}
	}
	/* Rare and small: rebuild instead of leaving tombstones. */
	memset(v->hash, 0, sizeof(v->hash));
	for (uint32_t i = 0; i < v->nactive; i++)
		insert(v, v->slot[v->active[i]]);
}

struct instance *inst_view_by_mac(const struct inst_view *v, uint16_t vlan,
				  const uint8_t mac[6])
{
	for (uint32_t h = hash(vlan, mac); v->hash[h]; h = (h + 1) % HASH_SIZE) {
		struct instance *in = v->slot[v->hash[h] - 1];

		if (matches(in, vlan, mac))
			return in;
	}
	return NULL;
}
