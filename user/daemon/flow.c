// SPDX-License-Identifier: BSD-2-Clause
/* flow: per-worker view of flows. Contract in flow.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "flow.h"

int flow_init(struct flow_table *t)
{
	struct flow *flow = calloc(FLOW_SETS * FLOW_WAYS, sizeof(*flow));

	if (!flow)
		return -ENOMEM;
	t->flow = flow;
	return 0;
}

void flow_fini(struct flow_table *t)
{
	free(t->flow);
	t->flow = NULL;
}

void flow_note(struct flow_table *t, const struct mbuf_pool *p, const struct mbuf *head,
	       uint64_t now_ns)
{
	const struct gn_meta *meta = &head->meta;
	struct flow *set = &t->flow[meta->flow % FLOW_SETS * FLOW_WAYS];
	struct flow *f = set;

	for (int i = 0; i < FLOW_WAYS; i++) {
		if (set[i].id == meta->flow && set[i].instance == meta->instance) {
			f = &set[i];
			goto count;
		}
		if (set[i].last_ns < f->last_ns)
			f = &set[i];
	}
	*f = (struct flow){
		.id = meta->flow,
		.instance = meta->instance,
		.l3_off = meta->l3_off,
		.l4_off = meta->l4_off,
		.flags = meta->flags & (GN_F_TCP | GN_F_UDP | GN_F_IPV6),
		.hdr_len = (uint16_t)(head->len < FLOW_HDR ? head->len : FLOW_HDR),
	};
	memcpy(f->hdr, mbuf_data(p, head), f->hdr_len);
count:
	f->last_ns = now_ns;
	f->packets += head->nsegs;
	f->frames++;
	f->bytes += head->total;
}

int flow_format(const struct flow *f, char *buf, size_t size)
{
	bool v6 = f->flags & GN_F_IPV6;
	unsigned int alen = v6 ? 16 : 4;
	unsigned int src = f->l3_off + (v6 ? 8u : 12u);
	char a[INET6_ADDRSTRLEN] = "?", b[INET6_ADDRSTRLEN] = "?";
	uint16_t sport = 0, dport = 0;

	if (src + 2 * alen <= f->hdr_len) {
		inet_ntop(v6 ? AF_INET6 : AF_INET, f->hdr + src, a, sizeof(a));
		inet_ntop(v6 ? AF_INET6 : AF_INET, f->hdr + src + alen, b, sizeof(b));
	}
	if (f->l4_off + 4u <= f->hdr_len) {
		memcpy(&sport, f->hdr + f->l4_off, 2);
		memcpy(&dport, f->hdr + f->l4_off + 2, 2);
	}
	return snprintf(buf, size, v6 ? "[%s]:%u > [%s]:%u" : "%s:%u > %s:%u", a,
			ntohs(sport), b, ntohs(dport));
}
