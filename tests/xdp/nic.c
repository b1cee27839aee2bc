// SPDX-License-Identifier: BSD-2-Clause
/* The program under test and its surroundings; see nic.h. */
#include "nic.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <bpf/bpf.h>

#define NIC_CHUNKS 64
#define NIC_CHUNK  4096 /* bytes */
#define NIC_NAME   "gnxdp0"

static int open_tap(struct nic *n)
{
	struct ifreq ifr = { .ifr_name = NIC_NAME,
			     .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_MULTI_QUEUE };
	int err = 0, s;

	n->tap = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	n->tap1 = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	if (n->tap < 0 || n->tap1 < 0 || ioctl(n->tap, TUNSETIFF, &ifr) ||
	    ioctl(n->tap1, TUNSETIFF, &ifr))
		return -errno;
	s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (s < 0)
		return -errno;
	ifr.ifr_flags = IFF_UP;
	if (ioctl(s, SIOCSIFFLAGS, &ifr))
		err = -errno;
	close(s);
	n->ifindex = (int)if_nametoindex(NIC_NAME);
	return err;
}

static int open_xsk(struct nic *n)
{
	struct xsk_umem_config uc = {
		.fill_size = NIC_CHUNKS,
		.comp_size = NIC_CHUNKS,
		.frame_size = NIC_CHUNK,
	};
	struct xsk_socket_config sc = {
		.rx_size = NIC_CHUNKS,
		.libxdp_flags = XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD,
		.bind_flags = XDP_COPY,
	};
	uint32_t idx;
	int err;

	n->umem_area = mmap(NULL, NIC_CHUNKS * NIC_CHUNK, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (n->umem_area == MAP_FAILED)
		return -errno;
	err = xsk_umem__create(&n->umem, n->umem_area, NIC_CHUNKS * NIC_CHUNK, &n->fill,
			       &n->comp, &uc);
	if (err)
		return err;
	err = xsk_socket__create(&n->xsk, NIC_NAME, 0, n->umem, &n->rx, NULL, &sc);
	if (err)
		return err;
	if (xsk_ring_prod__reserve(&n->fill, NIC_CHUNKS, &idx) != NIC_CHUNKS)
		return -ENOSPC;
	for (uint32_t i = 0; i < NIC_CHUNKS; i++)
		*xsk_ring_prod__fill_addr(&n->fill, idx + i) = (uint64_t)i * NIC_CHUNK;
	xsk_ring_prod__submit(&n->fill, NIC_CHUNKS);
	return 0;
}

static int print_warnings(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	return level == LIBBPF_WARN ? vfprintf(stderr, fmt, ap) : 0;
}

int nic_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return sched_setaffinity(0, sizeof(set), &set) ? -errno : 0;
}

/* A stream for one queue only. */
static int load(struct nic *n)
{
	void *p;
	int err;

	n->skel = ghostnic_bpf__open();
	if (!n->skel)
		return -errno;
	err = bpf_map__set_max_entries(n->skel->maps.stream, 1);
	if (!err)
		err = ghostnic_bpf__load(n->skel);
	if (err)
		return err;
	p = mmap(NULL, sizeof(*n->stream), PROT_READ | PROT_WRITE, MAP_SHARED,
		 bpf_map__fd(n->skel->maps.stream), 0);
	if (p == MAP_FAILED)
		return -errno;
	n->stream = p;
	n->slots = bpf_map__max_entries(n->skel->maps.slots);
	n->prog = bpf_program__fd(n->skel->progs.ghostnic);
	return 0;
}

int nic_open(struct nic *n)
{
	int err;

	libbpf_set_print(print_warnings);
	memset(n, 0, sizeof(*n));
	n->tap = n->tap1 = -1;
	if (unshare(CLONE_NEWNET))
		return -errno;
	err = nic_cpu(sched_getcpu());
	if (!err)
		err = load(n);
	if (!err)
		err = open_tap(n);
	if (!err)
		err = open_xsk(n);
	if (err)
		nic_close(n);
	return err;
}

void nic_close(struct nic *n)
{
	if (n->xsk)
		xsk_socket__delete(n->xsk);
	if (n->umem)
		xsk_umem__delete(n->umem);
	if (n->umem_area && n->umem_area != MAP_FAILED)
		munmap(n->umem_area, NIC_CHUNKS * NIC_CHUNK);
	if (n->tap >= 0)
		close(n->tap);
	if (n->tap1 >= 0)
		close(n->tap1);
	if (n->stream)
		munmap(n->stream, sizeof(*n->stream));
	ghostnic_bpf__destroy(n->skel);
}

static void must(int err, const char *what)
{
	if (err) {
		fprintf(stderr, "%s: %s\n", what, strerror(errno));
		abort();
	}
}

void nic_config(struct nic *n, uint32_t max_frame, uint32_t flags,
		const uint64_t hash_key[2])
{
	n->conf.abi = GN_ABI;
	n->conf.max_frame = max_frame;
	n->conf.flags = flags;
	memcpy(n->conf.hash_key, hash_key, sizeof(n->conf.hash_key));
	nic_generation(n, n->conf.generation);
}

void nic_generation(struct nic *n, uint32_t generation)
{
	uint32_t zero = 0;

	n->conf.generation = generation;
	must(bpf_map_update_elem(bpf_map__fd(n->skel->maps.config), &zero, &n->conf, 0),
	     "config");
}

void nic_socket(struct nic *n, bool present)
{
	int map = bpf_map__fd(n->skel->maps.xsks), fd = xsk_socket__fd(n->xsk);

	for (uint32_t q = 0; q < 2; q++) {
		if (present)
			must(bpf_map_update_elem(map, &q, &fd, 0), "xsks");
		else
			bpf_map_delete_elem(map, &q);
	}
}

void nic_instance(struct nic *n, const uint8_t *mac, uint16_t vlan,
		  const struct gn_instance *in)
{
	int map = bpf_map__fd(n->skel->maps.instances);
	struct gn_instance_key key;

	memset(&key, 0, sizeof(key));
	memcpy(key.mac, mac, 6);
	key.vlan = htons(vlan);
	if (in)
		must(bpf_map_update_elem(map, &key, in, 0), "instances");
	else
		must(bpf_map_delete_elem(map, &key), "instances");
	if (n->conf.generation)
		nic_generation(n, n->conf.generation + 1);
}

void nic_counters(const struct nic *n, struct gn_counters *c)
{
	int ncpu = libbpf_num_possible_cpus();
	struct gn_counters *all = calloc((size_t)ncpu, sizeof(*all));
	uint32_t zero = 0;

	must(!all || bpf_map_lookup_elem(bpf_map__fd(n->skel->maps.counters), &zero, all),
	     "counters");
	memset(c, 0, sizeof(*c));
	for (int i = 0; i < ncpu; i++)
		for (int k = 0; k < GN_CNT_MAX; k++)
			c->v[k] += all[i].v[k];
	free(all);
}

int nic_run(struct nic *n, const uint8_t *frame, unsigned int len, struct nic_run *r)
{
	uint8_t in[FRAME_MAX + 512];
	struct xdp_md ctx = {
		.data = r->foreign,
		.data_end = r->foreign + (r->linear ? r->linear : len),
		.ingress_ifindex = (uint32_t)n->ifindex,
		.rx_queue_index = r->queue,
	}, ctx_out = { 0 };
	LIBBPF_OPTS(bpf_test_run_opts, o, .data_in = in, .data_size_in = r->foreign + len,
		    .data_out = r->buf, .data_size_out = sizeof(r->buf), .ctx_in = &ctx,
		    .ctx_size_in = sizeof(ctx), .ctx_out = &ctx_out,
		    .ctx_size_out = sizeof(ctx_out), .repeat = 1);
	struct gn_counters before;

	memset(in, 0xee, r->foreign);
	memcpy(in + r->foreign, frame, len);
	nic_counters(n, &before);
	if (bpf_prog_test_run_opts(n->prog, &o))
		return -errno;
	nic_counters(n, &r->delta);
	for (int k = 0; k < GN_CNT_MAX; k++)
		r->delta.v[k] -= before.v[k];
	r->verdict = o.retval;
	r->meta_len = ctx_out.data;
	r->out_len = o.data_size_out - ctx_out.data;
	r->meta = r->buf;
	r->out = r->buf + ctx_out.data;
	n->frames++;
	return 0;
}
