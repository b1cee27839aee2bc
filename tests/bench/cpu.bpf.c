// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * Time that one CPU, the generator's, spends in network softirqs: the receive path's
 * share of a CPU that is otherwise busy making frames.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define NET_TX 2 /* include/linux/interrupt.h */
#define NET_RX 3

const volatile __u32 cfg_cpu;

__u64 softirq_ns;
__u64 begin_ns; /* of the softirq that runs; 0: none */

SEC("raw_tp/softirq_entry")
int softirq_entry(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 vec = ctx->args[0];

	if (bpf_get_smp_processor_id() == cfg_cpu && (vec == NET_RX || vec == NET_TX))
		begin_ns = bpf_ktime_get_ns();
	return 0;
}

SEC("raw_tp/softirq_exit")
int softirq_exit(struct bpf_raw_tracepoint_args *ctx)
{
	if (bpf_get_smp_processor_id() == cfg_cpu && begin_ns) {
		softirq_ns += bpf_ktime_get_ns() - begin_ns;
		begin_ns = 0;
	}
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
