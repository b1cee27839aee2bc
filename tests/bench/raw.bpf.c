// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * The least an AF_XDP receiver needs: every frame to the queue's socket. And the
 * least a receiver can do at all: drop every frame.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

__u64 dropped; /* frames, of drop(); one CPU runs it */

SEC("xdp")
int redirect(struct xdp_md *ctx)
{
	return bpf_redirect_map(&xsks, ctx->rx_queue_index, XDP_PASS);
}

SEC("xdp")
int drop(struct xdp_md *ctx)
{
	dropped++;
	return XDP_DROP;
}

char _license[] SEC("license") = "Dual BSD/GPL";
