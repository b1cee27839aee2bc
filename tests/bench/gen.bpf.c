// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * Traffic generator, kernel half: turns a page of BPF_PROG_TEST_RUN's live frames
 * into the next TCP segment and sends it out of the interface it pretends to have
 * come from (XDP_TX).
 *
 * The kernel recycles the pages, and whoever received one may have written into
 * its headers (GRO completes super-packets in place). So every field that differs
 * between frames, or that a receiver rewrites, is stored anew, and the checksums
 * are computed from the constant part that user space summed up (gen.c): each
 * frame is right whatever the page held before.
 *
 * The payload begins with a time and its complement. Their one's complement sum
 * is always 0xffff, so a time stamp needs no other checksum.
 *
 * With a rate, the first frame of a batch waits in here until it is due. The generator's
 * CPU then spins; sleeping between system calls instead would take new pages for every
 * batch, and whoever holds on to frames (the kernel's own stack) would pay for
 * filling them.
 *
 * One CPU runs it; the state needs no atomics.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#define DST_LAST 5 /* last byte of the destination's address */
#define IP_OFF	 14
#define TCP_OFF	 (IP_OFF + 20)
#define PAY_OFF	 (TCP_OFF + 20)

#define WAIT_LOOPS (1U << 20) /* more than the longest gap takes */
#define MAX_LATE_NS                                                                      \
	10000000 /* then time is given up rather than made good by a flood               \
		  */

/* Set by user space before the program is loaded. */
const volatile __u32 cfg_flows = 1;	 /* TCP connections, told apart by source port */
const volatile __u32 cfg_burst = 1;	 /* consecutive segments of one flow */
const volatile __u32 cfg_payload = 1460; /* TCP payload, bytes */
const volatile __u32 cfg_dsts = 1;	 /* destinations; flows take turns */
const volatile __u32 cfg_port = 10000;	 /* source port of flow 0 */
const volatile __u32 cfg_ip_sum;	 /* IPv4 header without identification */
const volatile __u32 cfg_tcp_sum;	 /* pseudo header, TCP header, payload without
					  * source port and sequence */
const volatile __u64 cfg_gap_ns;	 /* time between batches, 0: none */
const volatile __u32 cfg_batch = 64;	 /* frames; equals the batch of the test run */
const volatile __u32 cfg_stamp;		 /* write times into the payload */
const volatile __u32 cfg_dst_last;	 /* of the first destination */

/* Where the traffic stands: segment @seg of this turn's burst of flow @flow. */
__u32 flow, seg;
__u32 turn_seq; /* TCP sequence at which all flows' bursts begin */
__u16 turn_id;	/* likewise, IPv4 identification */
__u64 sent;	/* frames */
__u64 due_ns;	/* when the next batch may leave */
__u64 late;	/* times the generator was too slow by MAX_LATE_NS */

static __always_inline __u16 fold_not(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static long wait_step(__u32 i, void *ctx)
{
	return bpf_ktime_get_ns() >= due_ns;
}

static __always_inline void wait_until_due(void)
{
	__u64 now = bpf_ktime_get_ns();

	if (!due_ns) {
		due_ns = now;
	} else if (now > due_ns + MAX_LATE_NS) {
		due_ns = now;
		late++;
	}
	if (now < due_ns)
		bpf_loop(WAIT_LOOPS, wait_step, (void *)0, 0);
	due_ns += cfg_gap_ns;
}

SEC("xdp")
int gen(struct xdp_md *ctx)
{
	char *data = (char *)(long)ctx->data, *end = (char *)(long)ctx->data_end;
	__u32 seq = turn_seq + seg * cfg_payload;
	__u16 id = turn_id + seg;
	__u16 port = cfg_port + flow;

	if (data + PAY_OFF > end)
		return XDP_DROP;
	if (cfg_gap_ns && sent % cfg_batch == 0)
		wait_until_due();
	if (cfg_dsts > 1)
		*(__u8 *)(data + DST_LAST) = cfg_dst_last + flow % cfg_dsts;
	*(__be16 *)(data + IP_OFF + 2) = bpf_htons(40 + cfg_payload);
	*(__be16 *)(data + IP_OFF + 4) = bpf_htons(id);
	*(__be16 *)(data + IP_OFF + 10) = bpf_htons(fold_not(cfg_ip_sum + id));
	*(__be16 *)(data + TCP_OFF) = bpf_htons(port);
	*(__be32 *)(data + TCP_OFF + 4) = bpf_htonl(seq);
	*(__be16 *)(data + TCP_OFF + 12) = bpf_htons(0x5010); /* 20 bytes, ACK */
	*(__be16 *)(data + TCP_OFF + 16) =
		bpf_htons(fold_not(cfg_tcp_sum + port + (seq >> 16) + (seq & 0xffff)));
	if (cfg_stamp && data + PAY_OFF + 16 <= end) {
		__u64 now = bpf_ktime_get_ns();

		*(__u64 *)(data + PAY_OFF) = now;
		*(__u64 *)(data + PAY_OFF + 8) = ~now;
	}

	sent++;
	if (++seg >= cfg_burst) {
		seg = 0;
		if (++flow >= cfg_flows) {
			flow = 0;
			turn_seq += cfg_burst * cfg_payload;
			turn_id += cfg_burst;
		}
	}
	return XDP_TX;
}

char _license[] SEC("license") = "Dual BSD/GPL";
