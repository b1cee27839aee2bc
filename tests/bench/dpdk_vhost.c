// SPDX-License-Identifier: BSD-2-Clause
/* Delivery by rte_vhost, see dpdk_vhost.h. */
#include "dpdk_vhost.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_tcp.h>
#include <rte_vhost.h>

#define RX_RING	  0 /* the guest's first */
#define MAX_BURST 64

struct machine {
	const char *path;
	atomic_int vid; /* -1: not connected */
};

static struct machine machines[VHOST_MAX];
static unsigned int nmachines;
static uint64_t dropped;
static atomic_ulong turns; /* of the sending thread; an id may be used until the next */
static atomic_bool sending;

static struct machine *by_vid(int vid)
{
	char path[128];

	if (rte_vhost_get_ifname(vid, path, sizeof(path)))
		return NULL;
	for (unsigned int i = 0; i < nmachines; i++)
		if (!strcmp(machines[i].path, path))
			return &machines[i];
	return NULL;
}

static int new_device(int vid)
{
	struct machine *v = by_vid(vid);

	if (!v)
		return -1;
	atomic_store(&v->vid, vid);
	return 0;
}

/* The device's memory goes when this returns. */
static void destroy_device(int vid)
{
	struct machine *v = by_vid(vid);
	unsigned long turn;

	if (!v)
		return;
	atomic_store(&v->vid, -1);
	turn = atomic_load(&turns);
	while (atomic_load(&sending) && atomic_load(&turns) == turn)
		sched_yield();
}

static const struct rte_vhost_device_ops ops = {
	.new_device = new_device,
	.destroy_device = destroy_device,
};

int vhost_add(const char *path)
{
	struct machine *v;
	int err;

	if (nmachines == VHOST_MAX)
		return -ENOSPC;
	v = &machines[nmachines++];
	v->path = path;
	atomic_store(&v->vid, -1);
	atomic_store(&sending, true);
	err = rte_vhost_driver_register(path, RTE_VHOST_USER_NET_COMPLIANT_OL_FLAGS);
	if (!err)
		err = rte_vhost_driver_callback_register(path, &ops);
	if (!err)
		err = rte_vhost_driver_start(path);
	return err ? -EIO : 0;
}

/* What the guest has to know of a super-packet: rte_gro leaves its checksums as they
 * were. */
static void finish_super(struct rte_mbuf *m)
{
	struct rte_ipv4_hdr *ip =
		rte_pktmbuf_mtod_offset(m, struct rte_ipv4_hdr *, m->l2_len);
	struct rte_tcp_hdr *tcp = (struct rte_tcp_hdr *)((uint8_t *)ip + m->l3_len);

	m->tso_segsz = (uint16_t)(m->data_len - m->l2_len - m->l3_len - m->l4_len);
	m->ol_flags |= RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_IPV4 |
		       RTE_MBUF_F_TX_IP_CKSUM | RTE_MBUF_F_TX_TCP_CKSUM;
	tcp->cksum = rte_ipv4_phdr_cksum(ip, 0); /* with the length, as guests want it */
}

static void enqueue(struct machine *v, struct rte_mbuf **m, unsigned int n)
{
	int vid = atomic_load_explicit(&v->vid, memory_order_acquire);
	unsigned int done = 0;

	if (vid >= 0)
		done = rte_vhost_enqueue_burst(vid, RX_RING, m, (uint16_t)n);
	dropped += n - done;
}

void vhost_send(struct rte_mbuf **m, unsigned int n, uint8_t first)
{
	static struct {
		struct rte_mbuf *m[MAX_BURST];
		unsigned int n;
	} to[VHOST_MAX];
	unsigned int used[MAX_BURST], nused = 0;

	for (unsigned int i = 0; i < n; i++) {
		uint8_t last = rte_pktmbuf_mtod(m[i], uint8_t *)[5];
		unsigned int v = (uint8_t)(last - first);

		if (m[i]->next)
			finish_super(m[i]);
		if (v >= nmachines) {
			dropped++;
			continue;
		}
		if (!to[v].n)
			used[nused++] = v;
		to[v].m[to[v].n++] = m[i];
	}
	for (unsigned int i = 0; i < nused; i++) {
		enqueue(&machines[used[i]], to[used[i]].m, to[used[i]].n);
		to[used[i]].n = 0;
	}
	rte_pktmbuf_free_bulk(m, n);
}

void vhost_idle(void)
{
	atomic_store_explicit(&turns,
			      atomic_load_explicit(&turns, memory_order_relaxed) + 1,
			      memory_order_release);
}

void vhost_end(void)
{
	atomic_store(&sending, false);
	for (unsigned int i = 0; i < nmachines; i++)
		rte_vhost_driver_unregister(machines[i].path);
}

uint64_t vhost_dropped(void)
{
	return dropped;
}
