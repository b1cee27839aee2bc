/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The maps of the program. `ghostnic attach` creates and pins them; the daemon
 * fills "instances" and "xsks"; only this program writes "counters".
 */
#ifndef GN_MAPS_H
#define GN_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "offload_shared.h"
#include "parse.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, GN_MAX_INSTANCES);
	__type(key, struct gn_instance_key);
	__type(value, struct gn_instance);
} instances SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, GN_MAX_QUEUES);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct gn_counters);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct gn_config);
} config SEC(".maps");

/* As many entries as the interface has queues; the loader knows. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, GN_MAX_QUEUES);
	__type(key, __u32);
	__type(value, struct gn_stream);
} stream SEC(".maps");

/* By gn_meta.flow (ident.h). */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, IDENT_SLOTS);
	__type(key, __u32);
	__type(value, struct slot);
} slots SEC(".maps");

#define KNOWN_BITS 8 /* of the number of entries */

/* An instance that was found, as of conf->generation. */
struct known {
	__u64 key; /* struct gn_instance_key */
	__u32 generation;
	struct gn_instance in;
};

#define KNOWN_TCP_BITS 11 /* of the number of entries */

/* A segment of a connection, and what is known of those like it (fast.h). Its bytes are
 * as in memory. */
struct known_tcp {
	__u64 eth[2]; /* the frame's first 16 bytes */
	__u64 addrs;
	__u64 ack; /* to the window, without PSH and FIN */
	__u64 run; /* gn_meta.key */
	__u32 ttl; /* fragment offset to protocol */
	__u32 ports;
	__u32 generation; /* as struct known */
	__u16 urgent;
	__u8 l4_len, hdr_len; /* bytes: TCP header; IP and TCP header */
	__u16 ip_sum;	      /* of the IP header but length, identification, checksum */
	__u16 pseudo_sum;     /* of the pseudo header but length */
	__u16 tcp_sum;	      /* of the TCP header but sequence, PSH, FIN, checksum */
	__u8 partial;	      /* 1: GN_F_CSUM_PARTIAL */
	__u8 l3_off;
	__u32 flow; /* gn_meta.flow */
	struct gn_instance in;
	__u32 type; /* with a tag: EtherType behind it, to TOS */
	__u32 opt_tail;
	__u64 opt; /* with options */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1 << KNOWN_TCP_BITS);
	__type(key, __u32);
	__type(value, struct known_tcp);
} known_tcps SEC(".maps");

/* What a CPU keeps to itself. */
struct cpu {
	struct work work;    /* of one frame: too much to clear on the stack each time */
	struct gn_meta meta; /* likewise, on its way to where it stays */
	__u32 tagged;	     /* the frame has a tag, and so a record */
	__u64 runs;	     /* started so far (ident.h) */
	struct known known[1 << KNOWN_BITS];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cpu);
} cpus SEC(".maps");

static __always_inline void count(struct gn_counters *c, enum gn_counter which)
{
	c->v[which]++;
}

/* Count what only @why knows, unless it is 0 (RX). Two comparisons, not one of
 * @why - 1, from which the verifier of 6.1 learns nothing about @why. */
static __always_inline void count_detail(struct gn_counters *c, __u32 why)
{
	if (!why)
		return;
	JOIN(why);
	if (why < GN_CNT_MAX)
		c->v[why]++;
}

#endif
