// SPDX-License-Identifier: BSD-2-Clause
/*
 * Traffic generator: valid TCP segments out of a veth, millions a second.
 *
 *	gen --if IF --dst MAC [--flows N] [--burst N] [--size BYTES] [--rate PPS]
 *	    [--seconds S] [--count N] [--batch N] [--stamp] [--src MAC] [--dsts N]
 *	    [--backend PID]
 *
 * BPF_PROG_TEST_RUN with BPF_F_TEST_XDP_LIVE_FRAMES (kernel 5.18; Documentation/bpf/
 * bpf_prog_run.rst) runs gen.bpf.c on pages that really leave: the program answers
 * XDP_TX for frames that claim to come from IF, so they come out at its peer. The peer
 * must have NAPI on: an XDP program, or generic receive offload.
 *
 * With --rate the program waits for the time of each batch, spinning.
 *
 * With --dsts flows take turns in going to MAC and the N - 1 addresses after it. With
 * --backend it also says how much CPU time process PID and this CPU's network softirqs
 * took while it sent.
 *
 * Ends after S seconds, N frames, or at SIGTERM, and prints one JSON line.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <sched.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "bench.h"
#include "tests/bench/gen.skel.h"

#define HDR_LEN		 54 /* Ethernet, IPv4, TCP without options; bytes */
#define MIN_SIZE	 60
#define MAX_SIZE	 3400	    /* what the kernel fits into a page of live frames */
#define LOOPBACK_IFINDEX 1	    /* include/net/flow.h */
#define MAX_BATCH	 256	    /* TEST_XDP_MAX_BATCH, net/bpf/test_run.c */
#define CHUNK_FRAMES	 (1U << 16) /* one system call; it ends early at a signal */
#define MIN_BATCHES	 500	    /* a second: a program may not wait long */

struct gen_conf {
	const char *ifname;
	uint32_t ifindex;
	uint8_t dst[6], src[6];
	uint32_t flows, burst, size, batch, dsts;
	int backend;	/* process, 0: none */
	uint64_t rate;	/* frames a second, 0: as many as possible */
	uint64_t count; /* frames, 0: no limit */
	double seconds; /* 0: no limit */
	bool stamp;
};

static int parse_mac(const char *s, uint8_t mac[6])
{
	int n = 0;

	if (sscanf(s, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &mac[0], &mac[1], &mac[2],
		   &mac[3], &mac[4], &mac[5], &n) != 6 ||
	    s[n])
		return -EINVAL;
	return 0;
}

/* A number in [@min, @max], or the end of the program. */
static double number(const char *opt, const char *s, double min, double max)
{
	char *end;
	double v = strtod(s, &end);

	if (end == s || *end || isnan(v) || v < min || v > max) {
		fprintf(stderr, "gen: --%s takes a number from %g to %g, not \"%s\"\n",
			opt, min, max, s);
		exit(2);
	}
	return v;
}

static int parse_args(struct gen_conf *c, int argc, char **argv)
{
	enum {
		IF = 1,
		DST,
		SRC,
		FLOWS,
		BURST,
		SIZE,
		RATE,
		SECONDS,
		COUNT,
		BATCH,
		STAMP,
		DSTS,
		BACKEND
	};
	static const struct option opts[] = {
		{ "if", required_argument, NULL, IF },
		{ "dst", required_argument, NULL, DST },
		{ "src", required_argument, NULL, SRC },
		{ "flows", required_argument, NULL, FLOWS },
		{ "burst", required_argument, NULL, BURST },
		{ "size", required_argument, NULL, SIZE },
		{ "rate", required_argument, NULL, RATE },
		{ "seconds", required_argument, NULL, SECONDS },
		{ "count", required_argument, NULL, COUNT },
		{ "batch", required_argument, NULL, BATCH },
		{ "stamp", no_argument, NULL, STAMP },
		{ "dsts", required_argument, NULL, DSTS },
		{ "backend", required_argument, NULL, BACKEND },
		{ 0 },
	};
	int o, i = 0, err = 0;

	while ((o = getopt_long(argc, argv, "", opts, &i)) != -1) {
		const char *name = o == '?' ? "" : opts[i].name;

		switch (o) {
		case IF: c->ifname = optarg; break;
		case DST: err |= parse_mac(optarg, c->dst); break;
		case SRC: err |= parse_mac(optarg, c->src); break;
		case FLOWS: c->flows = (uint32_t)number(name, optarg, 1, 50000); break;
		case BURST: c->burst = (uint32_t)number(name, optarg, 1, 65536); break;
		case SIZE:
			c->size = (uint32_t)number(name, optarg, MIN_SIZE, MAX_SIZE);
			break;
		case RATE: c->rate = (uint64_t)number(name, optarg, 0, 1e9); break;
		case SECONDS: c->seconds = number(name, optarg, 0, 1e6); break;
		case COUNT: c->count = (uint64_t)number(name, optarg, 0, 1e15); break;
		case BATCH:
			c->batch = (uint32_t)number(name, optarg, 1, MAX_BATCH);
			break;
		case STAMP: c->stamp = true; break;
		case DSTS: c->dsts = (uint32_t)number(name, optarg, 1, 256); break;
		case BACKEND: c->backend = (int)number(name, optarg, 1, 1 << 22); break;
		default: return -EINVAL;
		}
	}
	if (err || optind != argc || !c->ifname || !(c->dst[0] | c->dst[1] | c->dst[5])) {
		fprintf(stderr,
			"gen: --if IF and --dst MAC are needed, see the top of gen.c\n");
		return -EINVAL;
	}
	return 0;
}

static void put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

/* One's complement sum of big-endian 16-bit words, unfolded, as the BPF program counts.
 * Our own, so that a mistake in the library under test cannot hide in its input. */
static uint32_t sum_be(const uint8_t *p, size_t len)
{
	uint32_t s = 0;

	for (size_t i = 0; i < len; i++)
		s += i & 1 ? p[i] : (uint32_t)p[i] << 8;
	return (s & 0xffff) + (s >> 16);
}

/*
 * The frame that every page starts as, and the sums of all that stays the same:
 * the fields that the program fills in are zero here.
 */
static void build(const struct gen_conf *c, uint8_t *f, struct gen_bpf__rodata *ro)
{
	static const uint8_t addrs[8] = { 198, 18, 0, 1, 198, 18, 0, 2 }; /* RFC 2544 */
	uint32_t payload = c->size - HDR_LEN;
	uint8_t *ip = f + 14, *tcp = f + 34, pseudo[12] = { 0 };

	memset(f, 0, c->size);
	memcpy(f, c->dst, 6);
	memcpy(f + 6, c->src, 6);
	put16(f + 12, 0x0800);
	ip[0] = 0x45;
	put16(ip + 2, (uint16_t)(c->size - 14));
	put16(ip + 6, 0x4000); /* do not fragment */
	ip[8] = 64;
	ip[9] = IPPROTO_TCP;
	memcpy(ip + 12, addrs, 8);
	put16(tcp + 2, 5001);
	put16(tcp + 10, 1); /* low half of the acknowledgement */
	put16(tcp + 12, 0x5010);
	put16(tcp + 14, 65535); /* window */
	for (uint32_t i = 0; i < payload; i++)
		f[HDR_LEN + i] = (uint8_t)(i * 7 + 1);
	if (payload >= 16) {
		memset(f + HDR_LEN, 0, 8);
		memset(f + HDR_LEN + 8, 0xff, 8);
	}
	memcpy(pseudo, addrs, 8);
	pseudo[9] = IPPROTO_TCP;
	put16(pseudo + 10, (uint16_t)(20 + payload));

	ro->cfg_flows = c->flows;
	ro->cfg_burst = c->burst;
	ro->cfg_payload = payload;
	ro->cfg_stamp = c->stamp;
	ro->cfg_dsts = c->dsts;
	ro->cfg_dst_last = c->dst[5];
	ro->cfg_batch = c->batch;
	ro->cfg_gap_ns = c->rate ? c->batch * 1000000000ULL / c->rate : 0;
	ro->cfg_ip_sum = sum_be(ip, 20);
	ro->cfg_tcp_sum = sum_be(tcp, 20 + payload) + sum_be(pseudo, sizeof(pseudo));
}

static int run_frames(int prog, const struct gen_conf *c, uint8_t *frame, uint32_t n)
{
	struct xdp_md md = {
		.data_end = c->size,
		.ingress_ifindex = c->ifindex,
	};
	LIBBPF_OPTS(bpf_test_run_opts, o, .data_in = frame, .data_size_in = c->size,
		    .ctx_in = &md, .ctx_size_in = sizeof(md), .repeat = (int)n,
		    .flags = BPF_F_TEST_XDP_LIVE_FRAMES, .batch_size = c->batch);

	return bpf_prog_test_run_opts(prog, &o);
}

/* Send until it is enough. */
static int send_all(const struct gen_conf *c, int prog, uint8_t *frame,
		    const volatile __u64 *sent)
{
	uint64_t now = bench_now(), chunk = c->rate ? c->rate / 10 + 1 : CHUNK_FRAMES;
	uint64_t end = c->seconds > 0 ? now + (uint64_t)(c->seconds * 1e9) : UINT64_MAX;
	int err;

	if (chunk > CHUNK_FRAMES)
		chunk = CHUNK_FRAMES;
	for (; !bench_stop && now < end && (!c->count || *sent < c->count);
	     now = bench_now()) {
		uint64_t n = chunk + c->batch - chunk % c->batch;

		if (c->count && n > c->count - *sent)
			n = c->count - *sent;
		err = run_frames(prog, c, frame, (uint32_t)n);
		if (err && err != -EINTR)
			return err;
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct gen_conf c = {
		.src = { 2, 0, 0, 0, 0, 1 },
		.flows = 16,
		.burst = 16,
		.size = 1514,
		.batch = 64,
		.dsts = 1,
	};
	static uint8_t frame[MAX_SIZE];
	struct gen_bpf *skel;
	uint64_t t0, t1, busy;
	double s;
	int err;

	if (parse_args(&c, argc, argv))
		return 2;
	if (c.rate && c.batch > c.rate / MIN_BATCHES + 1)
		c.batch = (uint32_t)(c.rate / MIN_BATCHES + 1);
	c.ifindex = if_nametoindex(c.ifname);
	if (!c.ifindex) {
		fprintf(stderr, "gen: no interface %s in this namespace\n", c.ifname);
		return 1;
	}
	skel = gen_bpf__open();
	if (!skel) {
		fprintf(stderr, "gen: cannot open the BPF program: %s\n",
			strerror(errno));
		return 1;
	}
	build(&c, frame, skel->rodata);
	err = gen_bpf__load(skel);
	if (err) {
		fprintf(stderr, "gen: cannot load the BPF program: %s (root needed)\n",
			strerror(-err));
		goto destroy;
	}
	/*
	 * Every call enters the program into the XDP dispatcher and removes it again,
	 * which patches kernel text and takes about a millisecond, unless it is there
	 * already because it is attached somewhere. The loopback of our namespace will
	 * do: nobody uses it.
	 */
	err = bpf_xdp_attach(LOOPBACK_IFINDEX, bpf_program__fd(skel->progs.gen),
			     XDP_FLAGS_SKB_MODE, NULL);
	if (err) {
		fprintf(stderr, "gen: cannot attach to lo: %s\n", strerror(-err));
		goto destroy;
	}
	bench_signals();
	err = c.backend ? bench_busy_process((unsigned int)sched_getcpu(), c.backend) : 0;
	if (err)
		goto detach;
	busy = bench_busy_ns();
	t0 = bench_now();
	err = send_all(&c, bpf_program__fd(skel->progs.gen), frame, &skel->bss->sent);
	t1 = bench_now();
	busy = bench_busy_ns() - busy;
	if (err)
		fprintf(stderr, "gen: BPF_PROG_TEST_RUN: %s\n", strerror(-err));
	s = (double)(t1 - t0) / 1e9;
	printf("{\"sent\":%" PRIu64
	       ",\"seconds\":%.6f,\"pps\":%.0f,\"gbps\":%.4f,\"flows\":%u,"
	       "\"burst\":%u,\"size\":%u,\"rate\":%" PRIu64
	       ",\"batch\":%u,\"late\":%" PRIu64 ",\"busy_s\":%.6f}\n",
	       (uint64_t)skel->bss->sent, s, (double)skel->bss->sent / s,
	       (double)skel->bss->sent * c.size * 8 / s / 1e9, c.flows, c.burst, c.size,
	       c.rate, c.batch, (uint64_t)skel->bss->late, (double)busy / 1e9);
detach:
	bpf_xdp_detach(LOOPBACK_IFINDEX, XDP_FLAGS_SKB_MODE, NULL);
destroy:
	gen_bpf__destroy(skel);
	return err ? 1 : 0;
}
