// SPDX-License-Identifier: BSD-2-Clause
/*
 * The front end: DPDK's virtio-user driver where a virtual machine would be.
 *
 *	vm_client --cpu N --mac MAC --vhost SOCKET [--vhost SOCKET]... [--ring N]
 *		  [--packed] [--poll] [--no-huge] [--subject NAME]
 *
 * One device for each socket, with the first MAC and those after it, super-packets and
 * merged buffers. As a guest's kernel it sleeps until the back end calls, and takes no
 * calls while it is awake; with --poll it never sleeps, as a DPDK guest.
 *
 * It reads of each packet the headers and of each segment the time stamp. Prints a line
 * on each SIGUSR1, see meter.h. DPDK 22.11.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_interrupts.h>
#include <rte_mbuf.h>

#include "meter.h"

#define MAX_DEVS   32 /* of a process: RTE_MAX_ETHPORTS */
#define BURST	   32
#define MAX_PIECES 128 /* mbufs of one packet: 64 KiB in buffers of 2 KiB, and room */
#define POOL_CACHE 256
#define NAP_MS	   10

struct dev {
	const char *path;
	uint16_t port;
};

struct client {
	struct dev devs[MAX_DEVS];
	unsigned int ndevs, ring;
	struct rte_ether_addr mac;
	const char *cpu;
	bool packed, poll, huge;
	struct rte_mempool *pool;
	struct meter meter;
};

static int start_eal(const struct client *c, char *prog)
{
	static char vdevs[MAX_DEVS][256];
	char *argv[16 + MAX_DEVS];
	int argc = 0;

	argv[argc++] = prog;
	argv[argc++] = (char *)"--no-pci";
	argv[argc++] = (char *)"--no-telemetry";
	argv[argc++] = (char *)"--log-level=warning";
	argv[argc++] = (char *)"--single-file-segments"; /* one descriptor to pass */
	argv[argc++] = (char *)"-l";
	argv[argc++] = (char *)(uintptr_t)c->cpu;
	if (c->huge) {
		argv[argc++] = (char *)"--in-memory";
	} else { /* excludes --in-memory */
		argv[argc++] = (char *)"--no-huge";
		argv[argc++] = (char *)"--no-shconf";
		argv[argc++] = (char *)"-m";
		argv[argc++] = (char *)"256";
	}
	for (unsigned int i = 0; i < c->ndevs; i++) {
		const uint8_t *a = c->mac.addr_bytes;

		snprintf(vdevs[i], sizeof(vdevs[i]),
			 "--vdev=net_virtio_user%u,path=%s,queue_size=%u,packed_vq=%d,"
			 "mac=%02x:%02x:%02x:%02x:%02x:%02x",
			 i, c->devs[i].path, c->ring, c->packed, a[0], a[1], a[2], a[3],
			 a[4], (uint8_t)(a[5] + i));
		argv[argc++] = vdevs[i];
	}
	argv[argc] = NULL;
	return rte_eal_init(argc, argv) < 0 ? -rte_errno : 0;
}

static int start_dev(struct client *c, unsigned int i)
{
	struct rte_eth_conf conf = {
		.rxmode = {
			.offloads = RTE_ETH_RX_OFFLOAD_TCP_LRO |
				    RTE_ETH_RX_OFFLOAD_SCATTER |
				    RTE_ETH_RX_OFFLOAD_TCP_CKSUM |
				    RTE_ETH_RX_OFFLOAD_UDP_CKSUM,
		},
		.intr_conf = { .rxq = !c->poll },
	};
	struct dev *d = &c->devs[i];
	char name[32];
	int err;

	snprintf(name, sizeof(name), "net_virtio_user%u", i);
	err = rte_eth_dev_get_port_by_name(name, &d->port);
	if (!err)
		err = rte_eth_dev_configure(d->port, 1, 1, &conf);
	if (!err)
		err = rte_eth_rx_queue_setup(d->port, 0, (uint16_t)c->ring, SOCKET_ID_ANY,
					     NULL, c->pool);
	if (!err)
		err = rte_eth_tx_queue_setup(d->port, 0, (uint16_t)c->ring, SOCKET_ID_ANY,
					     NULL);
	if (!err)
		err = rte_eth_dev_start(d->port);
	if (!err && !c->poll)
		err = rte_eth_dev_rx_intr_ctl_q(d->port, 0, RTE_EPOLL_PER_THREAD,
						RTE_INTR_EVENT_ADD, d);
	return err;
}

static int start(struct client *c)
{
	/* Rings full of buffers, and as many once more in the driver's hands. */
	unsigned int n = c->ndevs * (c->ring + 2 * BURST) + 4 * POOL_CACHE + MAX_PIECES;
	int err = 0;

	c->pool = rte_pktmbuf_pool_create("guest", n, POOL_CACHE, 0,
					  RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
	if (!c->pool)
		return -rte_errno;
	for (unsigned int i = 0; !err && i < c->ndevs; i++)
		err = start_dev(c, i);
	return err;
}

static unsigned int receive(struct client *c, const struct dev *d)
{
	struct iovec iov[MAX_PIECES];
	struct rte_mbuf *m[BURST];
	uint16_t n = rte_eth_rx_burst(d->port, 0, m, BURST);
	uint64_t now;

	if (!n)
		return 0;
	now = bench_now();
	meter_arrived(&c->meter, now);
	for (uint16_t i = 0; i < n; i++) {
		bool super = m[i]->ol_flags & RTE_MBUF_F_RX_LRO;
		unsigned int niov = 0;

		for (const struct rte_mbuf *p = m[i]; p && niov < MAX_PIECES; p = p->next)
			iov[niov++] = (struct iovec){ rte_pktmbuf_mtod(p, void *),
						      p->data_len };
		frame_count(iov, niov, super ? m[i]->tso_segsz : 0, &c->meter.res,
			    &c->meter.lat, now);
	}
	rte_pktmbuf_free_bulk(m, n);
	return n;
}

/* Receive all, then let the back end call again. */
static void drain(struct client *c, const struct dev *d)
{
	while (!bench_stop) {
		while (receive(c, d))
			;
		rte_eth_dev_rx_intr_enable(d->port, 0);
		/* It may have seen the ring before calls were allowed. */
		if (!receive(c, d))
			return;
		rte_eth_dev_rx_intr_disable(d->port, 0);
	}
}

static void run_sleeping(struct client *c)
{
	struct rte_epoll_event ev[MAX_DEVS];

	for (unsigned int i = 0; i < c->ndevs; i++)
		drain(c, &c->devs[i]);
	while (!bench_stop) {
		int n = rte_epoll_wait(RTE_EPOLL_PER_THREAD, ev, MAX_DEVS, NAP_MS);

		for (int i = 0; i < n; i++) {
			const struct dev *d = ev[i].epdata.data;

			rte_eth_dev_rx_intr_disable(d->port, 0);
			drain(c, d);
		}
		if (n <= 0)
			meter_idle(&c->meter);
	}
}

static void run_polling(struct client *c)
{
	while (!bench_stop) {
		unsigned int n = 0;

		for (unsigned int i = 0; i < c->ndevs; i++)
			n += receive(c, &c->devs[i]);
		if (!n)
			meter_idle(&c->meter);
	}
}

static int parse_args(struct client *c, int argc, char **argv, const char **subject)
{
	static const struct option opts[] = {
		{ "vhost", required_argument, NULL, 'v' },
		{ "mac", required_argument, NULL, 'm' },
		{ "cpu", required_argument, NULL, 'c' },
		{ "ring", required_argument, NULL, 'r' },
		{ "packed", no_argument, NULL, 'p' },
		{ "poll", no_argument, NULL, 'P' },
		{ "no-huge", no_argument, NULL, 'h' },
		{ "subject", required_argument, NULL, 'n' },
		{ 0 },
	};
	int o, err = 0;

	while ((o = getopt_long(argc, argv, "", opts, NULL)) != -1) {
		switch (o) {
		case 'v':
			if (c->ndevs == MAX_DEVS)
				return -EINVAL;
			c->devs[c->ndevs++].path = optarg;
			break;
		case 'm': err = rte_ether_unformat_addr(optarg, &c->mac); break;
		case 'c': c->cpu = optarg; break;
		case 'r': c->ring = (unsigned int)atoi(optarg); break;
		case 'p': c->packed = true; break;
		case 'P': c->poll = true; break;
		case 'h': c->huge = false; break;
		case 'n': *subject = optarg; break;
		default: return -EINVAL;
		}
		if (err)
			return err;
	}
	return c->ndevs && c->cpu && c->mac.addr_bytes[0] ? 0 : -EINVAL;
}

int main(int argc, char **argv)
{
	static struct client c = { .ring = 1024, .huge = true };
	const char *subject = "vhost";
	int err;

	if (parse_args(&c, argc, argv, &subject)) {
		fprintf(stderr, "vm_client: wrong usage, see the top of vm_client.c\n");
		return 2;
	}
	err = start_eal(&c, argv[0]);
	if (!err)
		err = start(&c);
	if (!err)
		err = meter_init(&c.meter, subject);
	if (err) {
		fprintf(stderr, "vm_client: cannot start: %s\n", strerror(-err));
		return 1;
	}
	fprintf(stderr, "ready\n");
	if (c.poll)
		run_polling(&c);
	else
		run_sleeping(&c);
	for (unsigned int i = 0; i < c.ndevs; i++) {
		rte_eth_dev_stop(c.devs[i].port);
		rte_eth_dev_close(c.devs[i].port);
	}
	rte_eal_cleanup();
	meter_fini(&c.meter);
	return 0;
}
