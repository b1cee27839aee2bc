// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * A wire that spoils packets: a classifier that adds one to the last byte of one long frame in
 * 256 and leaves its checksums as they are. Their sum only grows, so that two spoilt segments of
 * one super-packet do not cancel each other, which two random errors do once in some 65,000
 * times. Test only.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#define LONG  1000 /* bytes: data, not acknowledgements */
#define EVERY 256

SEC("spoil")
int spoil_one(struct __sk_buff *skb)
{
	__u8 last;

	if (skb->len < LONG || bpf_get_prandom_u32() % EVERY ||
	    bpf_skb_load_bytes(skb, skb->len - 1, &last, 1) || last == 255)
		return TC_ACT_OK;
	last++;
	bpf_skb_store_bytes(skb, skb->len - 1, &last, 1, 0);
	return TC_ACT_OK;
}

char _license[] SEC("license") = "Dual BSD/GPL";
