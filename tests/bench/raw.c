// SPDX-License-Identifier: BSD-2-Clause
/*
 * Raw AF_XDP: receive and drop, the ceiling of any AF_XDP receiver here.
 *
 *	raw --if IF [COMMON] [--chunks N] [--stamps] [--drop]
 *
 * Same chunk size, rings, burst and kind of memory as ghostnicd, one queue, copy or zero
 * copy as the driver has it. The loop spins, and reads nothing of a frame but a
 * time stamp, with --stamps.
 *
 * --drop: no socket, an XDP program that drops everything. What the machine spends
 * then is the generator's and the link's own share.
 *
 * Prints one JSON line, see bench_print().
 */
#include <errno.h>
#include <getopt.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <linux/if_link.h>
#include <bpf/libbpf.h>
#include <bpf/bpf.h>
#include <xdp/xsk.h>

#include "bench.h"
#include "tests/bench/raw.skel.h"

#define CHUNK_SIZE 2048 /* bytes; UMEM_CHUNK_SMALL, user/daemon/umem.h */
/* Also the chunks with the kernel, unless --chunks says others. */
#define RING_SIZE   2048
#define BURST	    64 /* WORKER_BURST, user/daemon/worker.h */
#define PAYLOAD_OFF 54 /* of the generator's frames, bytes */

struct raw {
	struct xsk_umem *umem;
	struct xsk_socket *sock;
	struct xsk_ring_prod fill;
	struct xsk_ring_cons comp, rx;
	uint8_t *base;
	size_t size;
	struct bench_window win;
	struct bench_result res;
	struct bench_lat lat;
};

static void *map_memory(size_t size)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE;
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, flags | MAP_HUGETLB, -1, 0);

	if (p == MAP_FAILED)
		p = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, -1, 0);
	return p;
}

static int open_socket(struct raw *r, const char *ifname, uint32_t chunks, int map)
{
	struct xsk_umem_config ucfg = {
		.fill_size = chunks * 2,
		.comp_size = RING_SIZE,
		.frame_size = CHUNK_SIZE,
	};
	struct xsk_socket_config cfg = {
		.rx_size = RING_SIZE,
		.libxdp_flags = XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD,
		.bind_flags = XDP_USE_NEED_WAKEUP,
	};
	uint32_t n = chunks, idx;
	int err;

	r->size = (size_t)chunks * CHUNK_SIZE;
	r->base = map_memory(r->size);
	if (r->base == MAP_FAILED)
		return -ENOMEM;
	err = xsk_umem__create(&r->umem, r->base, r->size, &r->fill, &r->comp, &ucfg);
	if (err)
		return err;
	err = xsk_socket__create(&r->sock, ifname, 0, r->umem, &r->rx, NULL, &cfg);
	if (err)
		return err;
	if (xsk_ring_prod__reserve(&r->fill, n, &idx) != n)
		return -ENOSPC;
	for (uint32_t i = 0; i < n; i++)
		*xsk_ring_prod__fill_addr(&r->fill, idx + i) = (uint64_t)i * CHUNK_SIZE;
	xsk_ring_prod__submit(&r->fill, n);
	return xsk_socket__update_xskmap(r->sock, map);
}

/* One burst: count, give the chunks back. Return: frames. */
static unsigned int burst(struct raw *r, bool stamps)
{
	uint32_t idx, fidx, n = xsk_ring_cons__peek(&r->rx, BURST, &idx);
	uint64_t now = 0;

	if (!n) {
		if (xsk_ring_prod__needs_wakeup(&r->fill))
			recvfrom(xsk_socket__fd(r->sock), NULL, 0, MSG_DONTWAIT, NULL,
				 NULL);
		return 0;
	}
	if (stamps)
		now = bench_now();
	/* The ring has room for every chunk twice: the kernel publishes what it received
	 * before it says that it took the chunks. */
	if (xsk_ring_prod__reserve(&r->fill, n, &fidx) != n)
		abort();
	for (uint32_t i = 0; i < n; i++) {
		const struct xdp_desc *d = xsk_ring_cons__rx_desc(&r->rx, idx + i);

		r->res.frame_bytes += d->len;
		if (stamps && d->len > PAYLOAD_OFF)
			bench_lat_add(&r->lat, r->base + d->addr + PAYLOAD_OFF,
				      d->len - PAYLOAD_OFF, now);
		*xsk_ring_prod__fill_addr(&r->fill, fidx + i) =
			d->addr & ~(CHUNK_SIZE - 1ULL);
	}
	xsk_ring_prod__submit(&r->fill, n);
	xsk_ring_cons__release(&r->rx, n);
	r->res.packets += n;
	return n;
}

static void receive(struct raw *r, bool stamps)
{
	enum bench_state st = BENCH_BEFORE;

	while (st != BENCH_DONE && !bench_stop) {
		st = bench_window_state(&r->win, burst(r, stamps));
		if (st == BENCH_BEGIN) {
			memset(&r->res, 0, sizeof(r->res));
			r->lat.n = 0;
		}
	}
}

/* The dropping program counts; look at it every 20 ms. */
static void watch_drops(struct raw *r, const volatile __u64 *dropped)
{
	const struct timespec tick = { .tv_nsec = 20000000 };
	enum bench_state st = BENCH_BEFORE;
	uint64_t last = 0, begin = 0;

	while (st != BENCH_DONE && !bench_stop) {
		uint64_t now = *dropped;

		st = bench_window_state(&r->win, (unsigned int)(now - last));
		if (st == BENCH_BEGIN)
			begin = now;
		last = now;
		nanosleep(&tick, NULL);
	}
	r->res.packets = last - begin;
}

int main(int argc, char **argv)
{
	static const struct option opts[] = {
		{ "if", required_argument, NULL, 'i' },
		{ "seconds", required_argument, NULL, 's' },
		{ "warmup", required_argument, NULL, 'w' },
		{ "busy", required_argument, NULL, 'B' },
		{ "chunks", required_argument, NULL, 'c' },
		{ "drop", no_argument, NULL, 'd' },
		{ "stamps", no_argument, NULL, 't' },
		{ 0 },
	};
	bool drop = false, stamps = false;
	double seconds = 1, warmup = 0.3;
	int busy_cpu = -1;
	const char *ifname = NULL;
	uint32_t chunks = RING_SIZE;
	struct raw r = { 0 };
	struct raw_bpf *skel;
	int o, err, ifindex;

	while ((o = getopt_long(argc, argv, "", opts, NULL)) != -1) {
		switch (o) {
		case 'i': ifname = optarg; break;
		case 's': seconds = atof(optarg); break;
		case 'w': warmup = atof(optarg); break;
		case 'B': busy_cpu = atoi(optarg); break;
		case 'c': chunks = (uint32_t)atoi(optarg); break;
		case 'd': drop = true; break;
		case 't': stamps = true; break;
		default: return 2;
		}
	}
	ifindex = ifname ? (int)if_nametoindex(ifname) : 0;
	if (!ifindex) {
		fprintf(stderr,
			"raw: --if IF must name an interface of this namespace\n");
		return 2;
	}
	skel = raw_bpf__open_and_load();
	if (!skel) {
		fprintf(stderr, "raw: cannot load the BPF program: %s\n",
			strerror(errno));
		return 1;
	}
	err = bpf_xdp_attach(
		ifindex, bpf_program__fd(drop ? skel->progs.drop : skel->progs.redirect),
		XDP_FLAGS_DRV_MODE, NULL);
	if (err) {
		fprintf(stderr, "raw: cannot attach to %s: %s\n", ifname, strerror(-err));
		goto destroy;
	}
	err = bench_lat_init(&r.lat);
	if (!err && !drop)
		err = open_socket(&r, ifname, chunks, bpf_map__fd(skel->maps.xsks));
	if (err) {
		fprintf(stderr, "raw: cannot open the socket: %s\n", strerror(-err));
		goto detach;
	}
	bench_signals();
	err = busy_cpu >= 0 ? bench_busy_start((unsigned int)busy_cpu) : 0;
	if (err)
		goto detach;
	fprintf(stderr, "ready\n");
	bench_window_init(&r.win, warmup, seconds);
	if (drop)
		watch_drops(&r, &skel->bss->dropped);
	else
		receive(&r, stamps);
	bench_print(drop ? "drop" : "raw", &r.win, &r.res, &r.lat);
detach:
	bpf_xdp_detach(ifindex, XDP_FLAGS_DRV_MODE, NULL);
	xsk_socket__delete(r.sock);
	if (r.umem)
		xsk_umem__delete(r.umem);
	free(r.lat.ns);
destroy:
	raw_bpf__destroy(skel);
	return err ? 1 : 0;
}
