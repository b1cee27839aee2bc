// SPDX-License-Identifier: BSD-2-Clause
/*
 * The peer: DPDK's AF_XDP driver, packet-type parse and rte_gro, then drop or rte_vhost.
 *
 *	dpdk_gro --if IF [COMMON] [--cpu N] [--busy-budget N]
 *		 [--no-huge] [--no-gro] [--stamps]
 *	dpdk_gro --if IF --vhost SOCKET [--vhost SOCKET]... [--first BYTE] [--verify] ...
 *
 * With --vhost it delivers, see dpdk_vhost.h, until SIGTERM; --verify has it sum every
 * payload before it merges: rte_gro believes the checksums, and behind it nobody can
 * look.
 *
 * The lightweight mode of rte_gro: every burst is aggregated by itself, as the DPDK
 * guide has it for rte_gro_reassemble_burst(). The cost of a packet is the time from
 * rx_burst's return to complete chains: parse and merge, neither the ring nor the drop.
 *
 * DPDK 22.11, as Debian 12 has it. Prints one JSON line, see bench_print().
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_gro.h>
#include <rte_ip.h>
#include <rte_mbuf.h>
#include <rte_net.h>

#include "bench.h"
#include "dpdk_vhost.h"

#define BURST	   64	/* WORKER_BURST, user/daemon/worker.h */
#define RING_SIZE  2048 /* the default of DPDK's af_xdp driver */
#define POOL_SIZE  8191 /* mbufs */
#define POOL_CACHE 256

struct dpdk {
	const char *ifname;
	const char *cpu; /* core list for the EAL */
	int busy_budget; /* -1: the driver's default */
	bool huge, gro, stamps, vhost, verify;
	uint8_t first; /* last byte of the first machine's address */
	struct rte_mempool *pool;
	uint16_t port;
	uint64_t cycles; /* parse and merge */
	struct bench_window win;
	struct bench_result res;
	struct bench_lat lat;
};

static int start_eal(const struct dpdk *d, char *prog)
{
	char vdev[128], budget[32] = "", *argv[16];
	int argc = 0;

	if (d->busy_budget >= 0)
		snprintf(budget, sizeof(budget), ",busy_budget=%d", d->busy_budget);
	snprintf(vdev, sizeof(vdev), "--vdev=net_af_xdp0,iface=%s%s", d->ifname, budget);
	argv[argc++] = prog;
	argv[argc++] = (char *)"--no-pci";
	argv[argc++] = (char *)"--no-telemetry";
	argv[argc++] = (char *)"--log-level=warning";
	argv[argc++] = (char *)"-l";
	argv[argc++] = (char *)(uintptr_t)d->cpu;
	if (d->huge) {
		argv[argc++] = (char *)"--in-memory";
	} else { /* excludes --in-memory */
		argv[argc++] = (char *)"--no-huge";
		argv[argc++] = (char *)"--no-shconf";
		argv[argc++] = (char *)"-m";
		argv[argc++] = (char *)"128";
	}
	argv[argc++] = vdev;
	argv[argc] = NULL;
	return rte_eal_init(argc, argv) < 0 ? -rte_errno : 0;
}

static int start_port(struct dpdk *d)
{
	struct rte_eth_conf conf = { 0 };
	int err;

	d->pool = rte_pktmbuf_pool_create("rx", POOL_SIZE, POOL_CACHE, 0,
					  RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
	if (!d->pool)
		return -rte_errno;
	err = rte_eth_dev_get_port_by_name("net_af_xdp0", &d->port);
	if (!err)
		err = rte_eth_dev_configure(d->port, 1, 1, &conf);
	if (!err)
		err = rte_eth_rx_queue_setup(d->port, 0, RING_SIZE, SOCKET_ID_ANY, NULL,
					     d->pool);
	if (!err)
		err = rte_eth_tx_queue_setup(d->port, 0, RING_SIZE, SOCKET_ID_ANY, NULL);
	if (!err)
		err = rte_eth_dev_start(d->port);
	return err;
}

static void parse(struct rte_mbuf *m)
{
	struct rte_net_hdr_lens lens;

	m->packet_type = rte_net_get_ptype(m, &lens, RTE_PTYPE_ALL_MASK);
	m->l2_len = lens.l2_len;
	m->l3_len = lens.l3_len;
	m->l4_len = lens.l4_len;
}

/* Free those whose checksums are wrong. Return: how many are left, in order */
static uint16_t verify(struct rte_mbuf **m, uint16_t n)
{
	uint16_t good = 0;

	for (uint16_t i = 0; i < n; i++) {
		const struct rte_ipv4_hdr *ip = rte_pktmbuf_mtod_offset(
			m[i], struct rte_ipv4_hdr *, m[i]->l2_len);
		const void *tcp = (const uint8_t *)ip + m[i]->l3_len;
		bool tcp4 = RTE_ETH_IS_IPV4_HDR(m[i]->packet_type) &&
			    (m[i]->packet_type & RTE_PTYPE_L4_MASK) == RTE_PTYPE_L4_TCP;

		if (tcp4 &&
		    (m[i]->l2_len + rte_be_to_cpu_16(ip->total_length) > m[i]->data_len ||
		     rte_raw_cksum(ip, m[i]->l3_len) != 0xffff ||
		     rte_ipv4_udptcp_cksum(ip, tcp)))
			rte_pktmbuf_free(m[i]);
		else
			m[good++] = m[i];
	}
	return good;
}

/* The head keeps its headers, the others only payload. */
static void read_stamps(struct bench_lat *l, const struct rte_mbuf *m)
{
	size_t skip = m->l2_len + m->l3_len + m->l4_len;
	uint64_t now = bench_now();

	for (; m; m = m->next, skip = 0)
		if (m->data_len > skip)
			bench_lat_add(l, rte_pktmbuf_mtod_offset(m, void *, skip),
				      m->data_len - skip, now);
}

static unsigned int burst(struct dpdk *d)
{
	static const struct rte_gro_param param = {
		.gro_types = RTE_GRO_TCP_IPV4,
		.max_flow_num = BURST,
		.max_item_per_flow = BURST,
	};
	struct rte_mbuf *m[BURST];
	uint16_t n = rte_eth_rx_burst(d->port, 0, m, BURST), out;
	uint64_t t0;

	if (!n)
		return 0;
	for (uint16_t i = 0; i < n; i++)
		d->res.frame_bytes += m[i]->pkt_len;
	t0 = rte_rdtsc();
	out = n;
	if (d->gro) {
		for (uint16_t i = 0; i < n; i++)
			parse(m[i]);
		if (d->verify)
			out = verify(m, n);
		out = rte_gro_reassemble_burst(m, out, &param);
	}
	d->cycles += rte_rdtsc() - t0;
	if (d->stamps && d->gro)
		for (uint16_t i = 0; i < out; i++)
			read_stamps(&d->lat, m[i]);
	if (d->vhost)
		vhost_send(m, out, d->first);
	else
		rte_pktmbuf_free_bulk(m, out);
	d->res.packets += n;
	d->res.frames += out;
	return n;
}

static void receive(struct dpdk *d)
{
	enum bench_state st = BENCH_BEFORE;

	while (st != BENCH_DONE && !bench_stop) {
		st = bench_window_state(&d->win, burst(d));
		if (st == BENCH_BEGIN) {
			memset(&d->res, 0, sizeof(d->res));
			d->cycles = 0;
			d->lat.n = 0;
		}
	}
	if (d->gro)
		d->res.agg_ns =
			(uint64_t)((double)d->cycles * 1e9 / (double)rte_get_tsc_hz());
}

static void forward(struct dpdk *d)
{
	while (!bench_stop) {
		burst(d);
		vhost_idle();
	}
	vhost_end();
	fprintf(stderr,
		"received %" PRIu64 " in %" PRIu64 " frames, no room for %" PRIu64 "\n",
		d->res.packets, d->res.frames, vhost_dropped());
}

int main(int argc, char **argv)
{
	static const struct option opts[] = {
		{ "if", required_argument, NULL, 'i' },
		{ "seconds", required_argument, NULL, 's' },
		{ "warmup", required_argument, NULL, 'w' },
		{ "busy", required_argument, NULL, 'B' },
		{ "cpu", required_argument, NULL, 'c' },
		{ "busy-budget", required_argument, NULL, 'b' },
		{ "no-huge", no_argument, NULL, 'h' },
		{ "no-gro", no_argument, NULL, 'g' },
		{ "stamps", no_argument, NULL, 't' },
		{ "vhost", required_argument, NULL, 'v' },
		{ "first", required_argument, NULL, 'f' },
		{ "verify", no_argument, NULL, 'V' },
		{ 0 },
	};
	struct dpdk d = { .cpu = "1", .busy_budget = -1, .huge = true, .gro = true };
	double seconds = 1, warmup = 0.3;
	const char *sockets[VHOST_MAX];
	unsigned int nsockets = 0;
	int busy_cpu = -1;
	int o, err;

	while ((o = getopt_long(argc, argv, "", opts, NULL)) != -1) {
		switch (o) {
		case 'i': d.ifname = optarg; break;
		case 's': seconds = atof(optarg); break;
		case 'w': warmup = atof(optarg); break;
		case 'B': busy_cpu = atoi(optarg); break;
		case 'c': d.cpu = optarg; break;
		case 'b': d.busy_budget = atoi(optarg); break;
		case 'h': d.huge = false; break;
		case 'g': d.gro = false; break;
		case 't': d.stamps = true; break;
		case 'f': d.first = (uint8_t)strtoul(optarg, NULL, 16); break;
		case 'V': d.verify = true; break;
		case 'v':
			if (nsockets < VHOST_MAX)
				sockets[nsockets++] = optarg;
			break;
		default: return 2;
		}
	}
	if (!d.ifname) {
		fprintf(stderr, "dpdk_gro: --if IF is needed\n");
		return 2;
	}
	d.vhost = nsockets;
	err = start_eal(&d, argv[0]);
	if (!err)
		err = start_port(&d);
	for (unsigned int i = 0; !err && i < nsockets; i++)
		err = vhost_add(sockets[i]);
	if (!err)
		err = bench_lat_init(&d.lat);
	if (err) {
		fprintf(stderr, "dpdk_gro: cannot start: %s\n", strerror(-err));
		return 1;
	}
	bench_signals();
	err = busy_cpu >= 0 ? bench_busy_start((unsigned int)busy_cpu) : 0;
	if (err)
		goto stop;
	fprintf(stderr, "ready\n");
	if (d.vhost) {
		forward(&d);
		goto stop;
	}
	bench_window_init(&d.win, warmup, seconds);
	receive(&d);
	bench_print(d.gro ? "dpdk-gro" : "dpdk-drop", &d.win, &d.res, &d.lat);
stop:
	free(d.lat.ns);
	/* Detaches the XDP program. */
	rte_eth_dev_stop(d.port);
	rte_eth_dev_close(d.port);
	rte_eal_cleanup();
	return err ? 1 : 0;
}
